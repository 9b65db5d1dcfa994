//! Talks to other nodes: identity, link, messages, bulk frames, pairing.
//!
//! Knows neither the filesystem nor the config nor the state database: what it needs comes in as arguments, what a peer
//! says goes out as typed, bounded values. Everything read from the network is hostile until it is one of those values.
//! In the daemon that reading is done by processes without rights, one for each connection ([`worker`]).

pub mod accept;
pub mod bulk;
pub mod codec;
mod control;
pub mod dial;
pub mod exchange;
pub mod frame;
mod greet;
mod guard;
pub mod identity;
pub mod invite;
pub mod limit;
pub mod link;
pub mod message;
pub mod pair;
pub mod pairing;
pub mod prove;
mod pulse;
pub mod stdio;
pub mod timing;
pub mod tls;
pub mod transport;
pub mod worker;
