//! How long a node waits for a peer. One value, so that a test can shorten all of it; the numbers are in docs/protocol.md.
//!
//! Promise: no step of a conversation with a peer waits without one of these limits.

use std::time::Duration;

#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Timing {
    /// Name resolution and connecting, all addresses together.
    pub connect: Duration,
    /// The TLS handshake.
    pub handshake: Duration,
    /// The greeting, either way, and the first word on the control stream.
    pub hello: Duration,
    /// From a stream's opening to the end of its request.
    pub request: Duration,
    /// Between two heartbeats.
    pub beat: Duration,
    /// Nothing heard for this long: the link is dead.
    pub silence: Duration,
    /// For last words: flushing a goodbye or a refusal.
    pub close: Duration,
}

impl Default for Timing {
    fn default() -> Timing {
        Timing {
            connect: Duration::from_secs(10),
            handshake: Duration::from_secs(10),
            hello: Duration::from_secs(10),
            request: Duration::from_secs(60),
            beat: Duration::from_secs(5),
            silence: Duration::from_secs(20),
            close: Duration::from_secs(2),
        }
    }
}
