//! A process of its own for each connection, without rights: it does TLS, streams, frames, JSON and unpacking, so that the
//! daemon, which is root, reads no byte as a peer wrote it.
//!
//!     peer ── TLS, yamux, JSON, zstd ── worker ══ words, and a socket for each exchange ══ daemon
//!
//! Promise: a worker that was taken over by what it read has no file, no key, no network but its own connection, and no other
//! link. It cannot pass for a peer it is not: the daemons prove their keys to each other through it ([`super::prove`]). A word
//! or frame of a worker that is not what it should be ends its link. A worker over its deadline, or that falls silent, is
//! killed; it does not outlive the daemon.
//!
//! It deliberately does not know where keys are pinned, nor which user is without rights here: the caller does.

mod channel;
mod confine;
mod drive;
pub mod inside;
mod lanes;
mod outside;
mod sign;
mod words;

pub(super) use outside::{Arrived, Asked};
pub use outside::{User, Workers};
