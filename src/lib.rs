//! `standin` keeps a second server ready to take over: snapshot replication and failover for btrfs and ZFS.
//!
//! The shape of the house (docs/architecture.md): `commands` and `daemon` gather and perform, `logic` decides,
//! `fs`, `host` and `peer` are the edges and do not know one another.

pub mod cli;
pub mod commands;
pub mod config;
pub mod daemon;
pub mod error;
pub mod fs;
pub mod host;
pub mod logic;
pub mod peer;
pub mod sandbox;
