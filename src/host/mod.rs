//! The rest of this machine: the state database, mounts, copies, random numbers: what belongs neither to the filesystem
//! of a role nor to a peer.

pub mod clock;
pub mod copy;
pub mod lock;
pub mod mounts;
pub mod random;
pub mod state;
