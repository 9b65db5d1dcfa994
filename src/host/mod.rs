//! The rest of this machine: the state database, and what else belongs neither to the filesystem nor to a peer.

pub mod copy;
pub mod random;
pub mod state;
