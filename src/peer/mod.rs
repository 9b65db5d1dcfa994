//! Talks to other nodes: identity, link, messages, bulk frames, pairing.
//!
//! Knows neither the filesystem nor the config nor the state database: what it needs comes in as arguments, what a peer
//! says goes out as typed, bounded values. Everything read from the network is hostile until it is one of those values.

pub mod bulk;
pub mod codec;
pub mod frame;
pub mod identity;
pub mod limit;
pub mod message;
pub mod timing;
pub mod tls;
