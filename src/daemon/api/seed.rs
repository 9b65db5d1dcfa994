//! Seeded files, as the command line and the daemon speak of them. `--json` prints these as they stand.

use std::path::PathBuf;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::logic::name::RoleName;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SeedRequest {
    pub role: Option<RoleName>,
    pub dry_run: bool,
    /// Also files that somebody else wrote; what was there is kept beside.
    pub replace: bool,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SeedReport {
    pub dry_run: bool,
    pub files: Vec<SeedStep>,
}

/// One file, and what was done about it, or would be.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SeedStep {
    pub role: RoleName,
    /// As it is afterwards; in a dry run, as it is now.
    #[serde(flatten)]
    pub file: SeedView,
    /// `nothing`, `write`, `replace` or `attributes`.
    pub what: String,
    /// What changes in it, as a unified diff; none where nothing does, and where it is no text.
    pub diff: Option<String>,
    /// Where what was replaced is kept.
    pub kept: Option<PathBuf>,
}

/// A seeded file as it stands on this node.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SeedView {
    pub to: PathBuf,
    /// The template: `files/etc/app.conf`.
    pub from: String,
    pub state: SeedState,
    /// A sentence that says why it is not fresh.
    pub why: Option<String>,
    /// What to do about it.
    pub hint: Option<String>,
    /// When this node wrote it last.
    pub written: Option<Timestamp>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SeedState {
    /// As template and values say.
    Fresh,
    /// They say something else by now; it is written soon.
    Stale,
    /// Somebody else wrote it: it is left alone.
    Edited,
    /// It cannot be made, or the command after a change failed.
    Failing,
    /// Not made here now (`when`), or the role has not begun.
    Idle,
}

impl SeedState {
    /// The word for people.
    pub fn word(self) -> &'static str {
        match self {
            SeedState::Fresh => "fresh",
            SeedState::Stale => "stale",
            SeedState::Edited => "EDITED",
            SeedState::Failing => "FAILING",
            SeedState::Idle => "not now",
        }
    }
}
