//! A lineage as one node holds it: its points, oldest first, with the identity of every dataset.
//!
//! Identity decides, never names or times: two nodes hold the same point when role, term and sequence are equal *and* each
//! dataset carries the same filesystem identity. It deliberately does not know where the points lie.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::manifest::Manifest;
use super::name::DatasetName;
use super::point::PointId;

/// One point in a lineage, in the form in which nodes tell each other what they hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    pub point: PointId,
    pub taken: Timestamp,
    /// Identity of each dataset's snapshot.
    pub datasets: BTreeMap<DatasetName, Uuid>,
}

impl Entry {
    pub fn of(manifest: &Manifest) -> Entry {
        let datasets = manifest
            .datasets
            .iter()
            .map(|(name, facts)| (name.clone(), facts.identity))
            .collect();
        Entry {
            point: manifest.point.clone(),
            taken: manifest.taken,
            datasets,
        }
    }
}

/// Points of one role on one node, oldest first by rank.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Lineage {
    entries: Vec<Entry>,
}

impl Lineage {
    pub fn new(mut entries: Vec<Entry>) -> Lineage {
        entries.sort_by_key(|entry| entry.point.rank());
        Lineage { entries }
    }

    /// Oldest first.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    pub fn newest(&self) -> Option<&Entry> {
        self.entries.last()
    }

    pub fn get(&self, point: &PointId) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.point == *point)
    }

    /// Whether both hold this very point: same id and, for the datasets both know, the same snapshots.
    pub fn holds(&self, entry: &Entry) -> bool {
        self.get(&entry.point)
            .is_some_and(|ours| ours.datasets == entry.datasets)
    }
}
