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
pub mod figures;
pub mod hook;
pub mod lock;
pub mod look;
pub mod mounts;
pub mod notes;
pub mod part;
pub mod ports;
pub mod random;
pub mod reading;
pub mod seed;
pub mod service;
pub mod state;
pub mod systemd;
pub mod user;
pub mod watch;
pub mod writers;
