//! What can have happened to a point after it was stored, told by facts that no flip of a flag hides.
//!
//! Promise: pure and total. A point of which anything is in doubt is damaged: it is no base, nothing is restored from it,
//! and peers do not hear of it as held. What is said is half a sentence that reads after "birch's copy of 1.42".
//!
//! A change of content and a deduplication inside a snapshot look alike here: both raise its ctransid, and both change the
//! bytes of its stream. It deliberately does not know where points lie or how they are mended (`repair`).

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::lineage::Entry;
use super::manifest::LocalDataset;
use super::name::{DatasetName, NodeName};
use super::point::PointName;

/// A point that lies on a node and is not used any more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Damaged {
    pub name: PointName,
    /// What it was; none where its manifest cannot be believed.
    pub entry: Option<Entry>,
    /// Reads after "birch's copy of 1.42".
    pub why: String,
}

impl Damaged {
    /// `epoch.sequence`.
    pub fn short(&self) -> String {
        format!("{}.{}", self.name.epoch, self.name.sequence)
    }

    /// The whole sentence, for people.
    pub fn sentence(&self, node: &NodeName) -> String {
        format!(
            "{node}'s copy of {} {}; it is not used",
            self.short(),
            self.why
        )
    }
}

/// Sentences about a node's damaged points: each, or where there are many, the newest and how many more.
pub fn sentences(node: &NodeName, damaged: &[Damaged]) -> Vec<String> {
    const SHOWN_MAX: usize = 3;
    let newest = damaged.iter().rev().take(SHOWN_MAX);
    let mut sentences: Vec<String> = newest.map(|damaged| damaged.sentence(node)).collect();
    let more = damaged.len().saturating_sub(SHOWN_MAX);
    if more > 0 {
        sentences.push(format!("{more} older points of {node} are damaged too"));
    }
    sentences
}

/// What happened to a point.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Harm {
    #[error("was changed after it was stored ({0})")]
    Changed(DatasetName),
    #[error("was made writable ({0})")]
    Writable(DatasetName),
    #[error("holds another snapshot than the one that was stored ({0})")]
    Replaced(DatasetName),
    #[error("carries another identity than its manifest says ({0})")]
    Identity(DatasetName),
    #[error("has lost its snapshot of {0}")]
    Gone(DatasetName),
    #[error("has local facts that do not name {0}")]
    Unrecorded(DatasetName),
    #[error("has a manifest that does not name {0}")]
    Unnamed(DatasetName),
    #[error("has lost its manifest")]
    NoManifest,
    #[error("has lost its local facts")]
    NoFacts,
    #[error("has the manifest of another point ({0})")]
    OtherManifest(String),
    #[error("has manifests that differ between filesystems")]
    ManifestsDiffer,
    /// Half a sentence of whoever compared it: "differs from birch's copy".
    #[error("{0}")]
    Condemned(String),
    #[error("has lost its part on another filesystem")]
    PartMissing,
}

/// What the filesystem tells of a snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SnapshotFacts {
    pub uuid: Uuid,
    /// As its streams carry it.
    pub identity: Uuid,
    pub read_only: bool,
    pub ctransid: u64,
}

/// Whether the snapshot of `dataset` is still the one that was stored, untouched. `identity` is that of the manifest.
pub fn judge(
    dataset: &DatasetName,
    recorded: &LocalDataset,
    identity: Option<Uuid>,
    found: SnapshotFacts,
) -> Result<(), Harm> {
    let dataset = dataset.clone();
    if !found.read_only {
        Err(Harm::Writable(dataset))
    } else if found.uuid != recorded.uuid {
        Err(Harm::Replaced(dataset))
    } else if found.ctransid != recorded.ctransid {
        Err(Harm::Changed(dataset))
    } else if identity != Some(found.identity) {
        Err(Harm::Identity(dataset))
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(change: impl Fn(&mut SnapshotFacts), expected: &str) {
        let recorded = LocalDataset {
            uuid: Uuid::from_u128(1),
            ctransid: 70,
            ..LocalDataset::default()
        };
        let mut found = SnapshotFacts {
            uuid: Uuid::from_u128(1),
            identity: Uuid::from_u128(2),
            read_only: true,
            ctransid: 70,
        };
        change(&mut found);
        let dataset = DatasetName::parse("files").unwrap();
        let said = judge(&dataset, &recorded, Some(Uuid::from_u128(2)), found);
        let said = said
            .err()
            .map_or("intact".to_owned(), |harm| harm.to_string());
        assert_eq!(said, expected);
    }

    #[test]
    fn snapshots() {
        check(|_| {}, "intact");
        check(
            |f| f.ctransid = 71,
            "was changed after it was stored (files)",
        );
        // A flip to writable and back leaves only this.
        check(
            |f| f.ctransid = 69,
            "was changed after it was stored (files)",
        );
        check(|f| f.read_only = false, "was made writable (files)");
        check(
            |f| f.uuid = Uuid::from_u128(9),
            "holds another snapshot than the one that was stored (files)",
        );
        check(
            |f| f.identity = Uuid::from_u128(1),
            "carries another identity than its manifest says (files)",
        );
    }

    #[test]
    fn sentences() {
        let damaged = Damaged {
            name: PointName::parse("20261120T123105Z.1.42").unwrap(),
            entry: None,
            why: Harm::NoManifest.to_string(),
        };
        assert_eq!(
            damaged.sentence(&NodeName::parse("maple").unwrap()),
            "maple's copy of 1.42 has lost its manifest; it is not used"
        );
    }
}
