//! What is asked and answered about the difference of two states of a role.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::logic::name::{DatasetName, RoleName};

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DiffRequest {
    /// `[ROLE] OLD NEW [PATH]`. Without a role: the only one of the node, or the one in which an absolute path lies. The two are
    /// each `live`, `fork:NAME`, or a point as for a restore. The path is inside a dataset, or absolute below where one lives.
    pub words: Vec<String>,
    pub dataset: Option<DatasetName>,
    /// Without the differences themselves.
    pub stat: bool,
    /// With differences of texts.
    pub text: bool,
    /// Every file of directories that are wholly new or gone.
    pub unfold: bool,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DiffReport {
    pub role: RoleName,
    pub old: DiffSide,
    pub new: DiffSide,
    pub datasets: Vec<DatasetDiff>,
}

/// One of the two that are compared.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DiffSide {
    /// `point`, `fork` or `live`.
    pub kind: String,
    /// `epoch.sequence` of the point or the fork, or `live`.
    pub short: String,
    /// When it was taken; of live data, when they were looked at.
    pub taken: Timestamp,
}

/// What differs in one dataset.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DatasetDiff {
    pub dataset: DatasetName,
    /// Whether both sides hold it.
    pub compared: bool,
    /// What has to be known of the comparison, for people.
    pub note: Option<String>,
    pub sums: DiffSums,
    /// The directories in which most differs, with `stat`.
    pub tops: Vec<DiffTop>,
    /// In the order of the tree.
    pub differences: Vec<DifferenceView>,
    /// How many differences are not in `differences`.
    pub left_out: u64,
}

/// Bytes are the sizes of files that were added or removed, and file data written to all others.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiffSum {
    pub files: u64,
    pub directories: u64,
    pub bytes: u64,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiffSums {
    pub added: DiffSum,
    pub removed: DiffSum,
    /// Files whose content changed, under the name they had.
    pub changed: DiffSum,
    pub renamed: DiffSum,
    /// Owner, mode, times or attributes, and nothing else.
    pub metadata: DiffSum,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DiffTop {
    /// Inside the dataset; empty for what lies at its top.
    pub path: String,
    pub sums: DiffSums,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DifferenceView {
    /// `added`, `removed`, `changed`, `renamed`, `metadata`.
    pub what: String,
    /// Inside the dataset; bytes that are not UTF-8 are replaced, control characters escaped.
    pub path: String,
    /// Where it was; of a further hard link, the first name.
    pub from: Option<String>,
    /// `file`, `directory`, `symlink`, `special`, where known.
    pub kind: Option<String>,
    /// What it was, when that was another kind.
    pub was: Option<String>,
    /// Of a file, in bytes.
    pub old_bytes: Option<u64>,
    pub new_bytes: Option<u64>,
    /// File data in it that only the newer one holds, in bytes.
    pub written: u64,
    /// Its content changed.
    pub content: bool,
    /// Owner, mode or attributes changed.
    pub metadata: bool,
    pub at: Option<Timestamp>,
    /// Of a directory that is wholly new or gone: what is in it, and not listed.
    pub inside: Option<DiffSum>,
    /// The difference of two texts, where it was asked for.
    pub text: Option<String>,
    /// Why there is none.
    pub text_note: Option<String>,
}
