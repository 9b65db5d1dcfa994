//! What nodes say to each other. JSON, one message a frame (see `frame`), self-describing: unknown fields are ignored, so
//! that two ends of different versions interoperate; a meaning that changes gets a new field or a new `type`.
//!
//! Every exchange is one stream on the link, opened by either side with a [`Request`]; the other side answers with
//! [`Answer`]s, the last of which ends the exchange. docs/protocol.md is the prose twin of this file.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::error::Code;
use crate::logic::lineage::Lineage;
use crate::logic::manifest::Manifest;
use crate::logic::name::{DatasetName, NodeName, RoleName};
use crate::logic::point::{PointId, RoleId, Term};
use crate::logic::transfer::{Partial, StreamIdentity};

/// Versions of this protocol that this build speaks, lowest and highest. History:
/// 1: first.
pub const PROTOCOL: (u32, u32) = (1, 1);

/// Largest message, in bytes of JSON: a lineage of 20,000 points fits.
pub const MESSAGE_BYTES_MAX: usize = 8 << 20;

/// Both sides' first words on a fresh link.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    pub node: NodeName,
    /// The program's version, for people.
    pub version: String,
    /// Lowest and highest protocol version spoken.
    pub protocol: (u32, u32),
    /// Words for optional abilities; unknown ones are ignored.
    #[serde(default)]
    pub capabilities: Vec<String>,
    /// The speaker's clock, to show a difference between clocks.
    pub now: Timestamp,
    /// Newest send stream version its kernel can receive (btrfs).
    #[serde(default)]
    pub stream_version_max: u32,
}

/// Opens an exchange.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
pub enum Request {
    /// "What do you hold of this role?" Answer: `Lineage`.
    Lineage {
        role: RoleName,
        role_id: RoleId,
        term: Term,
    },
    /// "Take this dataset of this point." Answer: `Have`, `Stored` or `Refused`; then frames, marks, `Stored`.
    Offer(Box<Offer>),
    /// "Every dataset is with you: make the point visible." Answer: `Committed`.
    Commit { manifest: Manifest },
    /// "Are you there, and how far?" Answer: `Pong`.
    Ping,
}

/// One dataset's transfer, from base (or nothing) to a point.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Offer {
    pub manifest: Manifest,
    pub dataset: DatasetName,
    pub base: Option<PointId>,
    pub identity: StreamIdentity,
    /// File data in the stream, exact, in bytes.
    pub data_bytes: u64,
}

/// Answers, in the stream of the request.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
pub enum Answer {
    Lineage {
        lineage: Lineage,
        partials: Vec<Partial>,
        /// The highest term the answering node has seen for the role.
        term: Option<Term>,
    },
    /// "I hold the first `offset` bytes of that stream, and their prefix hash is this; go on from there."
    Have {
        offset: u64,
        prefix: String,
    },
    /// While frames arrive, about once a second and after each checkpoint.
    Mark {
        offset: u64,
        data_bytes: u64,
        checkpoint: u64,
        file: String,
    },
    /// The dataset is complete, verified and on disk.
    Stored,
    /// The point is visible and durable.
    Committed,
    Pong {
        now: Timestamp,
    },
    Refused(Refusal),
}

/// Why not. `why` and `hint` are shown to people on both sides.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    pub code: Code,
    pub why: String,
    #[serde(default)]
    pub hint: Option<String>,
}

/// What the sender says inside an open transfer, between data frames.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
pub enum SenderWord {
    /// The prefix differs: throw away what you have; the data that follow start at 0.
    Restart { why: String },
    /// The stream is complete.
    End { bytes: u64, hash: String },
    /// The source failed; keep your checkpoint, this attempt is over.
    Failed { why: String },
}

/// The pairing conversation, before keys are pinned (see `pair`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PairRequest {
    /// Name of the accepting node.
    pub node: NodeName,
    /// Public id of the invitation, from the line.
    pub invite: String,
    /// HMAC-SHA256 under the secret, hex, over the channel's two key fingerprints and both names.
    pub proof: String,
    /// Where the accepting node can be dialled, if it listens: host:port.
    #[serde(default)]
    pub address: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
pub enum PairAnswer {
    /// The inviting node has pinned the key; its own proof, the other direction.
    Paired {
        node: NodeName,
        proof: String,
    },
    Refused(Refusal),
}
