//! What is asked and answered about forks.

use std::path::PathBuf;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{PointSummary, Step};
use crate::logic::fork::{Figures, Measure};
use crate::logic::name::{DatasetName, RoleName};
use crate::logic::point::{PointName, Term};

/// `fork` is a fork's name, `epoch.sequence`, or an unambiguous beginning of its name.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "step", rename_all = "kebab-case")]
pub enum ForkRequest {
    /// Done: [`Forks`].
    List {
        role: Option<RoleName>,
    },
    /// Done: [`ForkView`].
    Show {
        role: RoleName,
        fork: String,
    },
    /// Done: [`ForkDiff`]; with `stat`, without the changes themselves.
    Diff {
        role: RoleName,
        fork: String,
        stat: bool,
    },
    /// Done: [`ForkReport`], like all that follow. Paths are absolute.
    Mount {
        role: RoleName,
        fork: String,
        dir: PathBuf,
    },
    Unmount {
        dir: PathBuf,
    },
    Export {
        role: RoleName,
        fork: String,
        dir: PathBuf,
    },
    Discard {
        role: RoleName,
        fork: String,
        dry_run: bool,
    },
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Forks {
    /// The daemon's clock.
    pub now: Timestamp,
    pub roles: Vec<RoleForks>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RoleForks {
    pub role: RoleName,
    /// Oldest first.
    pub forks: Vec<ForkView>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ForkView {
    pub role: RoleName,
    pub name: PointName,
    /// `epoch.sequence` of its name.
    pub short: String,
    /// Of its newest point; its holder wrote it.
    pub term: Term,
    /// `epoch.sequence` of the newest point of the line that it grew from; none where that is not known.
    pub base: Option<String>,
    /// Oldest first.
    pub points: Vec<PointSummary>,
    /// `returned`, `left-behind`, `foreign`, `unknown`.
    pub why: String,
    /// The same as a phrase.
    pub reason: String,
    /// When it was set apart; none where that was lost.
    pub found: Option<Timestamp>,
    /// When its data were written, first and last.
    pub first: Option<Timestamp>,
    pub last: Option<Timestamp>,
    /// What differs between the base and its newest point; none where the base was not here when it was found.
    pub measured: Option<Measure>,
    /// Directories at which it is mounted.
    pub mounted: Vec<PathBuf>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ForkDiff {
    pub fork: ForkView,
    pub datasets: Vec<ForkChanges>,
}

/// What differs in one dataset.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ForkChanges {
    pub dataset: DatasetName,
    /// The point that the fork's newest one is compared with; none: there is none to compare with.
    pub against: Option<String>,
    /// What has to be known of the comparison, for people.
    pub note: Option<String>,
    pub figures: Figures,
    /// By path.
    pub changes: Vec<ChangeView>,
    /// How many changes are not in `changes`.
    pub left_out: u64,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ChangeView {
    /// `added`, `removed`, `changed`, `renamed`, `metadata`.
    pub what: String,
    /// Inside the dataset; bytes that are not UTF-8 are replaced, control characters escaped.
    pub path: String,
    /// Where it was; of a further hard link, the first name.
    pub from: Option<String>,
    /// `file`, `directory`, `symlink`, `special`, where known.
    pub kind: Option<String>,
    /// File data that only the fork holds.
    pub bytes: u64,
    /// Ranges written, each offset and length; the first hundred.
    pub written: Vec<[u64; 2]>,
    /// The size it was cut or extended to.
    pub resized: Option<u64>,
    /// Another file took its name.
    pub replaced: bool,
    /// Owner, mode or attributes changed.
    pub metadata: bool,
    pub at: Option<Timestamp>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ForkReport {
    pub dry_run: bool,
    /// None for `unmount`, which is told a directory.
    pub fork: Option<ForkView>,
    pub steps: Vec<Step>,
}
