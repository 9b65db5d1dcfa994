//! What the daemon and a link's worker say to each other over their socket. Both are the same program, so nothing here is
//! versioned; the daemon nevertheless takes every word of a worker for what a stranger might say.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::super::identity::Fingerprint;
use super::super::message::{Hello, PairAnswer, PairRequest};
use super::super::pulse::Traffic;
use super::super::timing::Timing;
use crate::error::Code;
use crate::logic::name::NodeName;

/// The daemon's first word. The connection comes along, unless the worker is to make it.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Start {
    /// This node's certificate, DER, hex. The key stays with the daemon.
    pub certificate: String,
    pub timing: Timing,
    pub job: Job,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Job {
    Accept,
    Dial {
        /// Host and port, where the connection does not come along.
        reach: Option<(String, u16)>,
        expected: Fingerprint,
        name: NodeName,
        hello: Box<Hello>,
    },
    Pair {
        reach: Option<(String, u16)>,
        expected: Fingerprint,
        request: PairRequest,
    },
}

/// What the daemon says later.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Order {
    /// Answer to [`Report::Knock`]: the name pinned to the key, and what this node says of itself.
    Greet {
        known: Option<NodeName>,
        hello: Box<Hello>,
    },
    /// Answer to [`Report::Pairing`].
    Answer { answer: PairAnswer },
    /// A socket comes along: its first frame is a request for the peer.
    Open,
    /// A socket comes along, for the oldest exchange that was reported by [`Report::Arrived`].
    Take,
    /// What the daemon's clock shows: answer to [`Report::Pulse`].
    Clock { now: Timestamp },
    /// Say goodbye, then end.
    Close { why: String },
}

/// What a worker says.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Report {
    /// A node that has proved this key says hello.
    Knock { key: Fingerprint, hello: Box<Hello> },
    /// A node that has proved this key wants to pair.
    Pairing {
        key: Fingerprint,
        request: PairRequest,
    },
    /// The inviting node's answer.
    Answered { answer: PairAnswer },
    /// The link is up.
    Linked { hello: Box<Hello> },
    /// It came to nothing.
    Failed {
        code: Option<Code>,
        what: String,
        hint: Option<String>,
    },
    /// The peer opened an exchange; give it a socket.
    Arrived,
    /// How the link is; at least at the distance of heartbeats.
    Pulse {
        traffic: Traffic,
        /// Microseconds; 0: not known yet.
        rtt_us: u64,
        silent_ms: u64,
        /// What the peer's clock showed last, and how many milliseconds ago.
        clock: Option<(Timestamp, u64)>,
    },
    /// The link is down.
    Down { why: String },
}

impl Report {
    /// For an error text.
    pub fn name(&self) -> &'static str {
        match self {
            Report::Knock { .. } => "knock",
            Report::Pairing { .. } => "pairing",
            Report::Answered { .. } => "answered",
            Report::Linked { .. } => "linked",
            Report::Failed { .. } => "failed",
            Report::Arrived => "arrived",
            Report::Pulse { .. } => "pulse",
            Report::Down { .. } => "down",
        }
    }
}
