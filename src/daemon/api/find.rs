//! Versions of paths, as the command line and the daemon speak of them. `--json` prints these as they stand.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{PointSummary, RestoreReport};
use crate::logic::fork::Figures;
use crate::logic::name::{DatasetName, NodeName, RoleName};
use crate::logic::point::PointName;
use crate::logic::versions::{Kind, Pick, Version, What};

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FindRequest {
    /// Absolute: as they are, or were, live. Relative: inside a dataset. May be patterns.
    pub paths: Vec<PathBuf>,
    pub role: Option<RoleName>,
    pub dataset: Option<DatasetName>,
    /// Only what is not there any more.
    pub deleted: bool,
    /// Asks no peer.
    pub local: bool,
    /// Only versions that no point here shows.
    pub peers: bool,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FindReport {
    pub node: NodeName,
    pub now: Timestamp,
    /// By role, dataset and path.
    pub paths: Vec<FoundPath>,
    /// A pattern matched more than is shown, or there was more to look at than is looked at.
    pub cut: bool,
    pub peers: Vec<PeerAsked>,
    /// What could not be looked at, a sentence each.
    pub notes: Vec<String>,
}

/// A peer that was asked, or would have been.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PeerAsked {
    pub peer: NodeName,
    /// Why it told nothing; none where it answered.
    pub why: Option<String>,
    pub hint: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FoundPath {
    pub role: RoleName,
    pub dataset: DatasetName,
    /// Inside the dataset.
    pub path: PathBuf,
    /// Where it is, or was, live.
    pub live_path: PathBuf,
    /// Newest first.
    pub versions: Vec<VersionView>,
}

/// A version of a path, or its absence.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct VersionView {
    /// What `--version` takes; none where nothing is there.
    pub number: Option<u32>,
    /// `oldest`: it was there already; `created`, `changed`, `metadata`, `replaced`, `removed`.
    pub what: What,
    pub kind: Option<Kind>,
    /// Bytes, of a file.
    pub size: Option<u64>,
    /// The time of change that the file itself bears.
    pub modified: Option<Timestamp>,
    /// Permissions, as a number.
    pub mode: Option<u32>,
    pub uid: Option<u32>,
    pub gid: Option<u32>,
    /// Where a symlink leads.
    pub target: Option<String>,
    /// The first and the last point that show it; none where only the live data do.
    pub first: Option<PointSummary>,
    pub last: Option<PointSummary>,
    /// How many points show it.
    pub points: usize,
    /// The node that took the first one.
    pub by: Option<NodeName>,
    /// Nodes that hold any of them, as far as this node knows.
    pub on: BTreeSet<NodeName>,
    /// It is what is live now.
    pub live: bool,
    /// This node can give it.
    pub here: bool,
    /// The fork that it is part of.
    pub fork: Option<String>,
    /// An older version that it equals.
    pub same_as: Option<u32>,
}

pub fn summary(name: &PointName) -> PointSummary {
    PointSummary {
        name: *name,
        short: format!("{}.{}", name.epoch, name.sequence),
        taken: name.taken,
        consistent: None,
    }
}

impl VersionView {
    pub fn of(version: &Version) -> VersionView {
        let facts = version.facts.as_ref();
        let modified = |(s, ns): (i64, u32)| Timestamp::new(s, i32::try_from(ns).ok()?).ok();
        VersionView {
            number: version.number,
            what: version.what,
            kind: facts.map(|facts| facts.kind),
            size: facts.filter(|f| f.kind == Kind::File).map(|f| f.size),
            modified: facts.and_then(|facts| modified(facts.mtime)),
            mode: facts.map(|facts| facts.mode),
            uid: facts.map(|facts| facts.uid),
            gid: facts.map(|facts| facts.gid),
            target: facts.and_then(|facts| facts.target.clone()),
            first: version.points.first().map(summary),
            last: version.points.last().map(summary),
            points: version.points.len(),
            by: version.by.clone(),
            on: version.on.clone(),
            live: version.live,
            here: version.is_here(),
            fork: version
                .fork
                .map(|fork| format!("{}.{}", fork.epoch, fork.sequence)),
            same_as: version.same_as,
        }
    }
}

/// One version of one path.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Wanted {
    pub path: PathBuf,
    pub role: Option<RoleName>,
    pub dataset: Option<DatasetName>,
    pub pick: Pick,
    /// Where to take it from, as an earlier answer said: nothing is picked then.
    pub source: Option<Source>,
}

/// Where a version is read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Source {
    /// None: the live data.
    pub point: Option<PointName>,
    /// The fork that holds the point.
    pub fork: Option<PointName>,
    /// The peer that has it; none: this node.
    pub peer: Option<NodeName>,
}

impl Source {
    /// `1.42`, `1.45 (fork 1.45)`, `1.40 on birch`, `the live data`.
    pub fn words(&self) -> String {
        let short = |name: &PointName| format!("{}.{}", name.epoch, name.sequence);
        let Some(point) = &self.point else {
            return "the live data".to_owned();
        };
        let mut words = short(point);
        if let Some(fork) = &self.fork {
            words += &format!(" (fork {})", short(fork));
        }
        if let Some(peer) = &self.peer {
            words += &format!(" on {peer}");
        }
        words
    }
}

/// Events: [`super::Event::Data`]. Done: [`Shown`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CatRequest {
    pub wanted: Wanted,
}

/// What was shown.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Shown {
    pub role: RoleName,
    pub dataset: DatasetName,
    pub path: PathBuf,
    pub source: Source,
    pub bytes: u64,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BringRequest {
    pub wanted: Wanted,
    pub to: To,
    pub dry_run: bool,
}

/// Where a version is put.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum To {
    /// In place of what is live; that is kept as a point.
    Live,
    /// Beside it, under another name.
    Beside,
    /// Into this directory, or under this name where nothing is there.
    Path(PathBuf),
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BringReport {
    #[serde(flatten)]
    pub restore: RestoreReport,
    pub dataset: DatasetName,
    /// Inside the dataset.
    pub path: PathBuf,
    pub live_path: PathBuf,
    pub target: PathBuf,
    pub source: Source,
    /// None where the source was given.
    pub version: Option<VersionView>,
    /// What is live now, in words: `file, 1.2 KiB, changed 2026-...`; none: nothing.
    pub live: Option<String>,
    /// From what is live to the version, where both are small texts.
    pub diff: Option<String>,
    /// It would change nothing.
    pub same: bool,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CameRequest {
    pub role: RoleName,
    pub points: Vec<PointName>,
}

/// By `epoch.sequence`, how a point differs from the one before it; what could not be told in a moment is not in it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Came {
    pub points: BTreeMap<String, Figures>,
}
