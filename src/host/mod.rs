//! The rest of this machine: the state database, mounts, copies, random numbers, users: what belongs neither to the filesystem
//! of a role nor to a peer.

pub mod absence;
pub mod clock;
pub mod copy;
pub mod lock;
pub mod mounts;
pub mod part;
pub mod random;
pub mod state;
pub mod user;
