//! What nodes say to each other. JSON, one message a frame (see `frame`), self-describing: unknown fields are ignored, so
//! that two ends of different versions interoperate; a meaning that changes gets a new field or a new `type`.
//!
//! Every exchange is one stream on the link, opened by either side with a [`Request`]; the other side answers with
//! [`Answer`]s, the last of which ends the exchange. docs/protocol.md is the prose twin of this file.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::error::{Code, Failure};
use crate::logic::damage::Damaged;
use crate::logic::drift::Found;
use crate::logic::line::Line;
use crate::logic::lineage::Lineage;
use crate::logic::manifest::{MANIFEST_BYTES_MAX, Manifest};
use crate::logic::name::{DatasetName, NodeName, RoleName};
use crate::logic::point::{PointId, PointName, RoleId, Term};
use crate::logic::shortage::Shortage;
use crate::logic::skeleton::Described;
use crate::logic::transfer::{FLAGS_BYTES_MAX, FileFlags, Kind, Partial, StreamIdentity};
use crate::logic::verify::{self, Leave};
use crate::logic::versions::Facts;
use crate::logic::versions::told::Trail;

/// Versions of this protocol that this build speaks, lowest and highest. History:
/// 1: first.
pub const PROTOCOL: (u32, u32) = (1, 1);

/// Largest message, in bytes of JSON: a lineage of 20,000 points fits.
pub const MESSAGE_BYTES_MAX: usize = 8 << 20;

/// Largest [`Request`], in bytes of JSON: one manifest, the flags of many files and some words around them.
pub const REQUEST_BYTES_MAX: usize = MANIFEST_BYTES_MAX + FLAGS_BYTES_MAX + (64 << 10);

/// Largest message before a peer is known, and on the control stream, in bytes of JSON.
pub const SMALL_BYTES_MAX: usize = 16 << 10;

/// The first frame each side sends on a fresh connection, before there are streams. The dialling side says `Hello` or
/// `Pair`; the answer to `Hello` is `Hello` or `Refused`, the answer to `Pair` is a [`PairAnswer`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
pub enum Greeting {
    Hello(Hello),
    Pair(PairRequest),
    Refused(Refusal),
}

/// Words on the control stream, the first stream of every link.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
pub enum Control {
    /// "I am alive." Answer: `Echo` with the same number, at once.
    Beat {
        number: u64,
        /// The clock of who says so.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        now: Option<Timestamp>,
    },
    Echo {
        number: u64,
    },
    /// "I close this link on purpose."
    Bye {
        why: String,
    },
    /// A word of a newer version: ignored.
    #[serde(other)]
    Unknown,
}

/// What a node says of itself in its greeting.
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
        /// The asking node's datasets of the role; empty where it does not say.
        #[serde(default)]
        datasets: Vec<DatasetName>,
        /// The line under that term; empty where it does not say.
        #[serde(default, skip_serializing_if = "Line::is_empty")]
        line: Line,
        /// Points that other peers of the role may need as a base, should the asked node have to serve them.
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
        bases: BTreeMap<NodeName, PointId>,
        /// What the asking node keeps the role on.
        #[serde(default, skip_serializing_if = "Kind::is_btrfs")]
        kind: Kind,
    },
    /// "Take this dataset of this point." Answer: `Have`, `Stored` or `Refused`; then frames, marks, `Stored`.
    Offer(Box<Offer>),
    /// "Every dataset is with you: make the point visible." Answer: `Committed`.
    Commit {
        manifest: Manifest,
        /// As in [`Offer`].
        #[serde(default, skip_serializing_if = "Option::is_none")]
        term: Option<Term>,
    },
    /// "What could I fetch from you?" Answer: `Lineage`, of whole points.
    Holds {
        role: RoleName,
        role_id: RoleId,
        term: Term,
    },
    /// "My copy of this point is damaged: send it again, each dataset on top of its base." The asked node opens the
    /// offers and the commit, and answers `Committed` when they are through.
    Fetch {
        role: RoleName,
        role_id: RoleId,
        term: Term,
        point: PointId,
        /// Every dataset of the point; held whole by both, none: in full.
        bases: BTreeMap<DatasetName, Option<PointId>>,
    },
    /// "This is what I know of the role; and you?" Answer: `Word`, when what it follows from mine is on disk.
    Word {
        role: RoleName,
        role_id: RoleId,
        word: Box<RoleWord>,
    },
    /// "I have released the role: it is yours, under this term." Answer: `Word`, when the term is on disk.
    Grant {
        role: RoleName,
        role_id: RoleId,
        term: Term,
        /// Ends with that term, and the point from which it goes on.
        line: Line,
    },
    /// "Could you take the role over now?" Answer: `Ready`. Nothing is changed by it.
    Ready { role: RoleName, role_id: RoleId },
    /// "What have you of what we both watch under these names?" Answer: `Drift`.
    Drift { names: Vec<String> },
    /// "Which versions of this path do your points and forks show?" Answer: `Versions`.
    Find {
        role: RoleName,
        role_id: RoleId,
        dataset: DatasetName,
        /// In the dataset; may be a pattern.
        path: String,
    },
    /// "Give me this file." Answer: `File`, data, `Whole`.
    Read(Box<ReadFile>),
    /// "What do you know of the roles that we share?" Answer: `Described`. Nothing is changed by it.
    Describe {
        /// Only this one; none: all.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        role: Option<RoleName>,
    },
    /// "Read this dataset of this point, as I do: is it the same?" Answers: `Reading` until it is read, then `Read`; then
    /// `Entries` for each [`SenderWord::Look`].
    Verify {
        role: RoleName,
        role_id: RoleId,
        term: Term,
        point: PointId,
        dataset: DatasetName,
        /// What was read before is read again.
        #[serde(default)]
        full: bool,
        /// What the asking node does not compare.
        #[serde(default)]
        leave: Leave,
    },
    /// "Are you there, and how far?" Answer: `Pong`.
    Ping,
    /// "Show that you hold your key", the first exchange of a link, opened by both sides (see `prove`). Answer: `Proof`.
    Prove {
        /// 32 random bytes, hex.
        nonce: String,
    },
}

/// What a node knows of a role, and what it is in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoleWord {
    /// The highest term it has seen.
    pub seen: Term,
    /// It plays the role under that term.
    pub plays: bool,
    /// The term under which it may still hold what no point holds.
    #[serde(default)]
    pub held: Option<Term>,
    /// The last term that it held and gave up.
    #[serde(default)]
    pub spent: Option<Term>,
    /// Its newest whole point.
    #[serde(default)]
    pub newest: Option<PointId>,
    #[serde(default, skip_serializing_if = "Line::is_empty")]
    pub line: Line,
    /// Its state, for people.
    #[serde(default)]
    pub state: String,
    /// For people too: nothing is decided by them.
    #[serde(default)]
    pub figures: RoleFigures,
}

/// What a node tells of itself in a role so that operators elsewhere see it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoleFigures {
    /// Since when it is in the state it is in; of an active node, under its term.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
    /// When its newest point was taken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub taken: Option<Timestamp>,
    /// Milliseconds ago, nothing had been written that is not in its newest point. From an active node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quiet_ms: Option<u64>,
    /// Milliseconds that coming up takes there, as measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rise_ms: Option<u64>,
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
    /// The term under which it is sent, where that is not the one under which the point was taken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub term: Option<Term>,
    /// Flags of its new files.
    #[serde(default, skip_serializing_if = "FileFlags::is_empty")]
    pub flags: FileFlags,
}

/// A file of a point, or of a fork's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReadFile {
    pub role: RoleName,
    pub role_id: RoleId,
    pub dataset: DatasetName,
    pub point: PointName,
    #[serde(default)]
    pub fork: Option<PointName>,
    /// In the dataset.
    pub path: String,
    /// Bytes that the asking node has already.
    #[serde(default)]
    pub offset: u64,
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
        /// What receiving may still use for each dataset, in bytes; none where it is not known.
        #[serde(default)]
        room: BTreeMap<DatasetName, u64>,
        /// Points it holds and does not use any more.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        damaged: Vec<Damaged>,
    },
    /// "I hold the first `offset` bytes of that stream, and their prefix hash is this; go on from there."
    Have {
        offset: u64,
        prefix: String,
        /// What the sender's filesystem needs to go on instead, where an offset does not tell (ZFS: the resume token).
        #[serde(default, skip_serializing_if = "Option::is_none")]
        token: Option<String>,
    },
    /// While frames arrive, about once a second and after each checkpoint.
    Mark {
        offset: u64,
        data_bytes: u64,
        checkpoint: u64,
        file: String,
        /// Share of the time since the last mark in which the receiver waited for input, 0 to 1.
        #[serde(default)]
        waiting: f64,
    },
    /// The dataset is complete, verified and on disk.
    Stored,
    /// The point is visible and durable.
    Committed,
    Pong {
        now: Timestamp,
    },
    /// None: nobody has named the role to the answering node yet.
    Word {
        word: Option<Box<RoleWord>>,
    },
    Ready {
        /// What stands against it, a sentence each; empty: nothing.
        problems: Vec<String>,
    },
    Drift {
        /// By name, of those that are watched with the asking node.
        found: BTreeMap<String, Found>,
    },
    Versions {
        trails: Vec<Trail>,
        /// There is more than is told.
        #[serde(default)]
        cut: bool,
    },
    /// What was asked for. Of a file, its data follow from `offset` on.
    File {
        facts: Facts,
    },
    /// After the data: all of the file, and its BLAKE3 hash, hex.
    Whole {
        bytes: u64,
        hash: String,
    },
    Described {
        roles: Vec<Described>,
    },
    /// At once, and then about once a second.
    Reading {
        /// What neither compares.
        leave: Leave,
        files: u64,
        bytes: u64,
    },
    Read {
        /// Of the whole tree, hex.
        root: String,
        files: u64,
        bytes: u64,
        /// Paths that could not be read, hex; not all, where there are many.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        unreadable: Vec<String>,
    },
    Entries {
        /// In the order of their names.
        entries: Vec<verify::Entry>,
        /// There are more after these.
        #[serde(default)]
        more: bool,
    },
    Proof {
        /// The public key, hex.
        key: String,
        /// The signature, hex.
        signature: String,
    },
    Refused(Refusal),
}

/// Why not. `why` and `hint` are shown to people on both sides.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// A code of a newer version reads as `Failed`; so does `Done`, which is no refusal.
    #[serde(deserialize_with = "lenient_code")]
    pub code: Code,
    pub why: String,
    #[serde(default)]
    pub hint: Option<String>,
    /// What is lacking, where space is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shortage: Option<Shortage>,
}

/// Marks an error in which a peer told what it lacks.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{why}")]
pub struct Lacks {
    pub shortage: Shortage,
    /// The peer's words, made harmless.
    pub why: String,
}

impl Refusal {
    pub fn new(code: Code, why: impl Into<String>) -> Refusal {
        Refusal {
            code,
            why: why.into(),
            hint: None,
            shortage: None,
        }
    }

    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Refusal {
        self.hint = Some(hint.into());
        self
    }

    /// As a chain that begins with `what` was asked for, such as "send files of 1.42 to birch"; [`Lacks`] is in it where the
    /// peer told what it lacks.
    pub fn into_error(self, what: &str) -> anyhow::Error {
        let shortage = self.shortage;
        let Failure {
            code,
            what: why,
            hint,
        } = self.into_failure();
        let what = format!("{what}: the peer refused");
        let error = match shortage {
            Some(shortage) => anyhow::Error::new(Lacks { shortage, why }),
            None => anyhow::Error::msg(why),
        };
        error.context(Failure { code, what, hint })
    }

    /// The refusal as an error on the refused side. A peer's words are made harmless on the way.
    pub fn into_failure(self) -> Failure {
        Failure {
            code: self.code,
            what: plain(&self.why),
            hint: self.hint.as_deref().map(plain),
        }
    }
}

fn lenient_code<'de, D: serde::Deserializer<'de>>(word: D) -> Result<Code, D::Error> {
    let word = String::deserialize(word)?;
    let known = Code::ALL.into_iter().find(|code| code.word() == word);
    Ok(known
        .filter(|code| *code != Code::Done)
        .unwrap_or(Code::Failed))
}

/// A peer's words for a terminal or a log: one line, no control characters, at most 500 characters.
pub fn plain(words: &str) -> String {
    const MOST: usize = 500;
    let mut line: String = words
        .chars()
        .take(MOST)
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    if words.chars().nth(MOST).is_some() {
        line.push_str(" ...");
    }
    line
}

/// What the sender says inside an open transfer, between data frames.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
pub enum SenderWord {
    /// The prefix differs: throw away what you have; the data that follow start at 0.
    Restart { why: String },
    /// The stream is complete.
    End { bytes: u64, hash: String },
    /// After a tree was read: what is in this directory? Path and name in hex.
    Look {
        dir: String,
        /// Only names after this one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        after: Option<String>,
    },
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

#[cfg(test)]
mod tests;
