//! Why bytes are sent that were sent before: the base so far is of no use any more, or what lay half-received is not.
//!
//! Promise: pure; says nothing where a step is as one would expect. A change of plan costs hours on a slow line, so who pays
//! for it learns which point is to blame, on which side, and what became of it.
//!
//! It deliberately does not know prefix hashes: a stream that differs from its half-received beginning is told by the sender.

use super::damage::Damaged;
use super::lineage::Lineage;
use super::name::NodeName;
use super::plan::Step;
use super::point::PointId;
use super::transfer::Partial;

/// One node's copy of the role.
#[derive(Debug, Clone, Copy)]
pub struct Side<'a> {
    pub node: &'a NodeName,
    pub lineage: &'a Lineage,
    pub damaged: &'a [Damaged],
}

/// Why `step` does not build on `recorded`, the base so far, and why what is half-received is left; one sentence each.
pub fn reasons(
    step: &Step,
    recorded: Option<&PointId>,
    partials: &[Partial],
    ours: Side<'_>,
    theirs: Side<'_>,
) -> Vec<String> {
    let mut reasons = Vec::new();
    let older = |recorded: &&PointId| {
        let base = step.base.as_ref().map(PointId::rank);
        base < Some(recorded.rank())
    };
    if let Some(recorded) = recorded.filter(older) {
        let lost: Vec<String> = [ours, theirs]
            .into_iter()
            .filter_map(|side| side.lost(recorded))
            .collect();
        if !lost.is_empty() {
            let instead = match &step.base {
                Some(base) => format!("{} is sent on top of {base}", step.to),
                None => format!("{} is sent in full", step.to),
            };
            let why = lost.join(", and ");
            reasons.push(format!("{why}: the base so far is of no use, {instead}"));
        }
    }
    let mut left: Vec<&PointId> = Vec::new();
    for partial in partials {
        let newer = step
            .base
            .as_ref()
            .is_none_or(|base| partial.point.rank() > base.rank());
        if newer && partial.point != step.to && !left.contains(&&partial.point) {
            left.push(&partial.point);
        }
    }
    reasons.extend(left.into_iter().filter_map(|point| {
        let why = ours.lost(point)?;
        let there = theirs.node;
        Some(format!(
            "{why}: what {there} has half received of it is left, {} is sent",
            step.to
        ))
    }));
    reasons
}

impl Side<'_> {
    /// What became of a point this side held; none where it still does.
    fn lost(self, point: &PointId) -> Option<String> {
        if self.lineage.get(point).is_some() {
            return None;
        }
        let node = self.node;
        let of = |damaged: &&Damaged| (damaged.name.epoch, damaged.name.sequence) == point.rank();
        Some(match self.damaged.iter().find(of) {
            Some(damaged) => format!("{node}'s copy of {point} {}", damaged.why),
            None => format!("{node} does not hold {point} any more"),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::super::lineage::Entry;
    use super::super::name::DatasetName;
    use super::super::plan::{Plan, plan};
    use super::super::point::{PointName, Term};
    use super::*;

    fn id(sequence: u64) -> PointId {
        PointId {
            term: Term {
                epoch: 1,
                holder: NodeName::parse("alder").unwrap(),
                nonce: 1,
            },
            sequence,
        }
    }

    /// Numbers are points of the term 1; with a `~` behind it, one is damaged.
    fn held(words: &str) -> (Lineage, Vec<Damaged>) {
        let entry = |word: &str| Entry {
            point: id(word.trim_end_matches('~').parse().unwrap()),
            taken: jiff::Timestamp::UNIX_EPOCH,
            datasets: BTreeMap::new(),
        };
        let words = words.split_whitespace();
        let (bad, whole): (Vec<&str>, Vec<&str>) = words.partition(|word| word.ends_with('~'));
        let bad: Vec<Damaged> = bad
            .into_iter()
            .map(|word| Damaged {
                name: PointName::of(&entry(word).point, entry(word).taken),
                entry: Some(entry(word)),
                why: "was changed".to_owned(),
            })
            .collect();
        let whole = Lineage::new(whole.into_iter().map(entry).collect());
        (whole.with_damaged(&bad), bad)
    }

    /// `ours | theirs | half-received | base so far`.
    fn check(case: &str, expected: &[&str]) {
        let mut parts = case.split('|').map(str::trim);
        let (ours, our_damaged) = held(parts.next().unwrap());
        let (theirs, their_damaged) = held(parts.next().unwrap());
        let dataset = DatasetName::parse("files").unwrap();
        let half = parts.next().unwrap().split_whitespace();
        let partials: Vec<Partial> = half
            .map(|word| Partial {
                point: id(word.parse().unwrap()),
                dataset: dataset.clone(),
                offset: Some(1),
            })
            .collect();
        let recorded = parts.next().unwrap().parse().ok().map(id);
        let Plan::Send(step) = plan(&ours, &theirs, &partials) else {
            panic!("{case}: nothing is sent");
        };
        let nodes = ["alder", "birch"].map(|word| NodeName::parse(word).unwrap());
        let ours = Side {
            node: &nodes[0],
            lineage: &ours,
            damaged: &our_damaged,
        };
        let theirs = Side {
            node: &nodes[1],
            lineage: &theirs,
            damaged: &their_damaged,
        };
        let said = reasons(&step, recorded.as_ref(), &partials, ours, theirs);
        assert_eq!(said, expected, "{case}");
    }

    #[test]
    fn as_expected() {
        check("1 2 | 1 | | 1", &[]);
        check("1 2 | 1 | 2 | 1", &[]);
        check("1 | | | ", &[]);
        check("1 2 3 | 1 2 | | 1", &[]);
        check("2 3 | 2 | | 1", &[]);
    }

    #[test]
    fn the_base_is_lost() {
        check(
            "1 2 3 | 1 2~ | | 2",
            &[
                "birch's copy of 1.2 was changed: the base so far is of no use, 1.3 is sent on top of 1.1",
            ],
        );
        check(
            "1 3 | 1 2 | | 2",
            &[
                "alder does not hold 1.2 any more: the base so far is of no use, 1.3 is sent on top of 1.1",
            ],
        );
        check(
            "2~ 3 | 1 | | 2",
            &[
                "alder's copy of 1.2 was changed, and birch does not hold 1.2 any more: the base so far is of no use, 1.3 is sent in full",
            ],
        );
    }

    #[test]
    fn what_is_half_received_is_left() {
        check(
            "1 2~ 3 | 1 | 2 | 1",
            &[
                "alder's copy of 1.2 was changed: what birch has half received of it is left, 1.3 is sent",
            ],
        );
        check(
            "1 3 | 1 | 2 2 | 1",
            &[
                "alder does not hold 1.2 any more: what birch has half received of it is left, 1.3 is sent",
            ],
        );
    }
}
