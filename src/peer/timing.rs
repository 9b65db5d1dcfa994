//! How long a node waits for a peer. One value, so that a test can shorten all of it; the numbers are in docs/protocol.md.
//!
//! Promise: no step of a conversation with a peer waits without one of these limits. In a debug build
//! `STANDIN_HASTE=10` in the environment makes all of them, and the pauses between two attempts to dial, ten times shorter:
//! tests of silent links would take minutes. A release build does not look at it.

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

impl Timing {
    /// What is in force in this process: the default, unless a test is in haste.
    pub fn in_force() -> Timing {
        let timing = Timing::default();
        Timing {
            connect: hurried(timing.connect),
            handshake: hurried(timing.handshake),
            hello: hurried(timing.hello),
            request: hurried(timing.request),
            beat: hurried(timing.beat),
            silence: hurried(timing.silence),
            close: hurried(timing.close),
        }
    }
}

/// The span itself; shorter where a test is in haste (see the head).
pub fn hurried(span: Duration) -> Duration {
    let haste = cfg!(debug_assertions)
        .then(|| std::env::var("STANDIN_HASTE").ok()?.parse::<u32>().ok())
        .flatten();
    span / haste.unwrap_or(1).max(1)
}
