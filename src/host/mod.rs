//! The rest of this machine: the state database, mounts, copies, random numbers, users, services, addresses, ports: what belongs neither to the filesystem
//! of a role nor to a peer.

pub mod absence;
pub mod address;
pub mod announce;
pub mod clock;
pub mod command;
pub mod copy;
pub mod drill;
pub mod dump;
pub mod events;
pub mod figures;
pub mod hashes;
pub mod hook;
pub mod lock;
pub mod look;
pub mod mounts;
pub mod notes;
pub mod part;
pub mod peek;
pub mod ports;
pub mod random;
pub mod reading;
pub mod seed;
pub mod service;
pub mod state;
mod statements;
pub mod systemd;
pub mod user;
pub mod verified;
pub mod watch;
pub mod writers;
