//! Where a role stands, for people: words of its nodes, what would be lost, what is kept beside the line.

use std::path::PathBuf;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::logic::name::{DatasetName, NodeName};

/// The last word of a peer about the role.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WordStatus {
    pub peer: NodeName,
    /// When it came, by this node's clock; none: it has never said anything of the role.
    pub said: Option<Timestamp>,
    /// What it is in the role: `active`, `standby`, ...
    pub state: Option<String>,
    /// Since when, by its clock.
    pub since: Option<Timestamp>,
    /// The highest epoch it knew.
    pub epoch: Option<u64>,
    /// Its newest point, `epoch.sequence`; none: it had none.
    pub newest: Option<String>,
    /// When that was taken.
    pub taken: Option<Timestamp>,
}

/// What would be lost if this node, which stands in, were promoted now.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LossStatus {
    /// The active node, as far as known.
    pub active: NodeName,
    /// When it said something last; none: never.
    pub said: Option<Timestamp>,
    /// Everything that was written in the last so many seconds, at most; none: this node has no point.
    pub exposure_s: Option<f64>,
    /// The newest point the active node spoke of, where it is not here.
    pub missing: Option<String>,
}

/// Forks that lie on this node.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ForksStatus {
    pub count: usize,
    /// What they hold that nobody else has; none where one of them was not measured.
    pub bytes: Option<u64>,
    /// When the oldest was found.
    pub oldest: Timestamp,
}

/// A dataset shown read-only at a path of its own.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ViewStatus {
    pub dataset: DatasetName,
    pub path: PathBuf,
    /// `live`, or a point (`epoch.sequence`); none: nothing can be seen there.
    pub shows: Option<String>,
}
