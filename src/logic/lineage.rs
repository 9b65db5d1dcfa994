//! A lineage as one node holds it: its points, oldest first, with the identity of every dataset.
//!
//! Identity decides, never names or times: two nodes hold the same point when role, term and sequence are equal *and* each
//! dataset carries the same filesystem identity. It deliberately does not know where the points lie.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::damage::Damaged;
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

/// Points of one role on one node, oldest first by rank, each id once. In whatever order a peer spells it.
///
/// Beside what is held whole it knows what is held damaged: of no use, but part of the history; and of this node's own points
/// what is left of them. Only the first is serialized; what is damaged goes beside it, with the reasons.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Vec<Entry>", into = "Vec<Entry>")]
pub struct Lineage {
    entries: Vec<Entry>,
    damaged: Vec<Entry>,
    remnants: Vec<Entry>,
}

impl Lineage {
    pub fn new(mut entries: Vec<Entry>) -> Lineage {
        entries.sort_by_key(|entry| entry.point.rank());
        entries.dedup_by(|later, earlier| later.point == earlier.point);
        Lineage {
            entries,
            damaged: Vec::new(),
            remnants: Vec::new(),
        }
    }

    /// The same, with what is held damaged.
    #[must_use]
    pub fn with_damaged(mut self, damaged: &[Damaged]) -> Lineage {
        self.damaged = damaged
            .iter()
            .filter_map(|damaged| damaged.entry.clone())
            .collect();
        self
    }

    /// The same, with points that are gone, of which enough is left to send something on top of them.
    #[must_use]
    pub fn with_remnants(mut self, remnants: Vec<Entry>) -> Lineage {
        self.remnants = remnants;
        self
    }

    /// What something can be sent on top of, oldest first: what is held, and what is left of what was.
    pub fn bases(&self) -> Vec<&Entry> {
        let mut bases: Vec<&Entry> = self.entries.iter().chain(&self.remnants).collect();
        bases.sort_by_key(|entry| entry.point.rank());
        bases.dedup_by(|later, earlier| later.point == earlier.point);
        bases
    }

    /// The name of a base.
    pub fn base(&self, point: &PointId) -> Option<&Entry> {
        let left = || self.remnants.iter().find(|entry| entry.point == *point);
        self.get(point).or_else(left)
    }

    /// Held, but of no use any more.
    pub fn damaged(&self) -> &[Entry] {
        &self.damaged
    }

    /// Whether this very point is held, damaged or not.
    pub fn knows(&self, entry: &Entry) -> bool {
        self.holds(entry) || self.damaged.contains(entry) || self.remnants.contains(entry)
    }

    /// Everything known, in no order.
    pub fn known(&self) -> impl Iterator<Item = &Entry> {
        self.entries
            .iter()
            .chain(&self.damaged)
            .chain(&self.remnants)
    }

    /// Oldest first.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    pub fn newest(&self) -> Option<&Entry> {
        self.entries.last()
    }

    pub fn get(&self, point: &PointId) -> Option<&Entry> {
        let rank = point.rank();
        let from = self
            .entries
            .partition_point(|entry| entry.point.rank() < rank);
        self.entries[from..]
            .iter()
            .take_while(|entry| entry.point.rank() == rank)
            .find(|entry| entry.point == *point)
    }

    /// Whether both hold this very point: same id and, for the datasets both know, the same snapshots.
    pub fn holds(&self, entry: &Entry) -> bool {
        self.get(&entry.point)
            .is_some_and(|ours| ours.datasets == entry.datasets)
    }
}

impl From<Vec<Entry>> for Lineage {
    fn from(entries: Vec<Entry>) -> Lineage {
        Lineage::new(entries)
    }
}

impl From<Lineage> for Vec<Entry> {
    fn from(lineage: Lineage) -> Vec<Entry> {
        lineage.entries
    }
}

#[cfg(test)]
mod tests {
    use super::super::name::NodeName;
    use super::super::point::Term;
    use super::*;

    fn entry(epoch: u64, sequence: u64) -> Entry {
        let holder = NodeName::parse("alder").unwrap();
        let term = Term {
            epoch,
            holder,
            nonce: 1,
        };
        Entry {
            point: PointId { term, sequence },
            taken: Timestamp::UNIX_EPOCH,
            datasets: BTreeMap::new(),
        }
    }

    #[test]
    fn a_peer_may_spell_it_in_any_order() {
        let entries = vec![entry(2, 3), entry(1, 2), entry(1, 1), entry(1, 2)];
        let text = serde_json::to_string(&entries).unwrap();
        let lineage: Lineage = serde_json::from_str(&text).unwrap();
        assert_eq!(
            lineage.entries(),
            [entry(1, 1), entry(1, 2), entry(2, 3)],
            "{text}"
        );
        assert_eq!(lineage.get(&entry(1, 2).point), Some(&entry(1, 2)));
        assert_eq!(lineage.get(&entry(1, 3).point), None);
        assert!(lineage.holds(&entry(2, 3)));
    }

    #[test]
    fn what_is_left_of_a_point_is_a_base() {
        let lineage = Lineage::new(vec![entry(1, 1), entry(1, 4)]);
        let lineage = lineage.with_remnants(vec![entry(1, 2), entry(1, 4)]);
        let ranks: Vec<_> = lineage.bases().iter().map(|e| e.point.sequence).collect();
        assert_eq!(ranks, [1, 2, 4]);
        assert_eq!(lineage.base(&entry(1, 2).point), Some(&entry(1, 2)));
        assert_eq!(lineage.get(&entry(1, 2).point), None);
        assert!(lineage.knows(&entry(1, 2)) && !lineage.holds(&entry(1, 2)));
        assert_eq!(lineage.newest(), Some(&entry(1, 4)));
    }
}
