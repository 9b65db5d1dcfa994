//! How damaged points become whole again: which peer sends which of them, and on top of what.
//!
//! Promise: pure and total; every damaged point gets one remedy, oldest first. Nothing is set aside for good as long as a
//! peer that might hold the point could not be asked. A base is a point that both sides hold whole; a point fetched earlier
//! in the same plan counts.
//!
//! It deliberately does not know connections, grants or how a point is set aside.

use std::collections::BTreeMap;
use std::fmt;

use super::damage::Damaged;
use super::lineage::{Entry, Lineage};
use super::name::{DatasetName, NodeName};
use super::point::{PointId, PointName};

/// A peer of the role, and what it holds whole; none where it could not be asked.
#[derive(Debug, Clone)]
pub struct Holder {
    pub peer: NodeName,
    pub lineage: Option<Lineage>,
}

/// What to do about one damaged point.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Repair {
    pub damaged: Damaged,
    pub remedy: Remedy,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Remedy {
    /// The peer sends it again; what is damaged is set aside when the whole point is there.
    Fetch(Fetch),
    /// No peer that could be asked holds it: it stays where it is until these are asked too.
    Ask(Vec<NodeName>),
    /// No peer holds it.
    SetAside,
}

/// One point to fetch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fetch {
    pub peer: NodeName,
    pub entry: Entry,
    /// For each dataset of the point the base: held whole on both sides; none: in full.
    pub bases: BTreeMap<DatasetName, Option<PointId>>,
}

/// The remedies, oldest point first. `ours` is what is held whole here; `holders` in the order of preference.
pub fn plan(ours: &Lineage, damaged: &[Damaged], holders: &[Holder]) -> Vec<Repair> {
    let mut damaged = damaged.to_vec();
    damaged.sort_by_key(|damaged| (damaged.name.epoch, damaged.name.sequence));
    let mut ours = ours.entries().to_vec();
    let mut repairs = Vec::new();
    for damaged in damaged {
        let found = holders.iter().find_map(|holder| {
            let lineage = holder.lineage.as_ref()?;
            Some((holder, lineage, held(lineage, &damaged)?))
        });
        let unasked = || holders.iter().filter(|holder| holder.lineage.is_none());
        let remedy = match found {
            Some((holder, theirs, entry)) => {
                let fetch = Fetch {
                    peer: holder.peer.clone(),
                    entry: entry.clone(),
                    bases: bases(&ours, theirs, entry),
                };
                ours.push(entry.clone());
                Remedy::Fetch(fetch)
            }
            None if unasked().next().is_some() => {
                Remedy::Ask(unasked().map(|holder| holder.peer.clone()).collect())
            }
            None => Remedy::SetAside,
        };
        repairs.push(Repair { damaged, remedy });
    }
    repairs
}

/// The peer's point that the damaged one was: the very same, or, where the damaged manifest cannot be believed, of its name.
fn held<'a>(theirs: &'a Lineage, damaged: &Damaged) -> Option<&'a Entry> {
    let entries = theirs.entries();
    let same = |entry: &&Entry| damaged.entry.as_ref() == Some(entry);
    let named = |entry: &&Entry| PointName::of(&entry.point, entry.taken) == damaged.name;
    let found = entries.iter().find(same);
    found.or_else(|| entries.iter().find(named))
}

/// The nearest older common point that has the dataset, else the nearest newer one.
pub fn bases(
    ours: &[Entry],
    theirs: &Lineage,
    wanted: &Entry,
) -> BTreeMap<DatasetName, Option<PointId>> {
    let rank = wanted.point.rank();
    let base = |dataset: &DatasetName| {
        let common = || {
            ours.iter().filter(|entry| {
                theirs.holds(entry)
                    && entry.datasets.contains_key(dataset)
                    && entry.point != wanted.point
            })
        };
        let older = common().filter(|entry| entry.point.rank() < rank);
        let newer = common().filter(|entry| entry.point.rank() > rank);
        let found = older
            .max_by_key(|entry| entry.point.rank())
            .or_else(|| newer.min_by_key(|entry| entry.point.rank()));
        found.map(|entry| entry.point.clone())
    };
    wanted
        .datasets
        .keys()
        .map(|dataset| (dataset.clone(), base(dataset)))
        .collect()
}

/// `fetch 1.42 from birch (files on top of 1.41), and set the damaged copy aside`.
impl fmt::Display for Repair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let short = self.damaged.short();
        match &self.remedy {
            Remedy::Fetch(fetch) => {
                write!(f, "fetch {short} from {}", fetch.peer)?;
                for (number, (dataset, base)) in fetch.bases.iter().enumerate() {
                    let comma = if number > 0 { ", " } else { " (" };
                    match base {
                        Some(base) => write!(f, "{comma}{dataset} on top of {base}")?,
                        None => write!(f, "{comma}{dataset} in full")?,
                    }
                }
                f.write_str("), and set the damaged copy aside")
            }
            Remedy::Ask(peers) => {
                let peers: Vec<&str> = peers.iter().map(NodeName::as_str).collect();
                write!(
                    f,
                    "leave {short} as it is: {} could not be asked for it",
                    peers.join(" and ")
                )
            }
            Remedy::SetAside => write!(f, "set {short} aside: no peer holds it"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::point::Term;
    use super::*;
    use jiff::Timestamp;
    use uuid::Uuid;

    /// `2` is the point 1.2 with the dataset files, `2+` has db too, `2'` another snapshot under the same id.
    fn entry(word: &str) -> Entry {
        let sequence: u64 = word.trim_end_matches(['+', '\'', '?']).parse().unwrap();
        let term = Term {
            epoch: 1,
            holder: NodeName::parse("alder").unwrap(),
            nonce: 1,
        };
        let salt = u128::from(word.contains('\''));
        let id = |number: u128| Uuid::from_u128(u128::from(sequence) * 100 + number * 10 + salt);
        let mut datasets = BTreeMap::from([(DatasetName::parse("files").unwrap(), id(1))]);
        if word.contains('+') {
            datasets.insert(DatasetName::parse("db").unwrap(), id(2));
        }
        Entry {
            point: PointId { term, sequence },
            taken: Timestamp::from_second(1_800_000_000 + i64::try_from(sequence).unwrap())
                .unwrap(),
            datasets,
        }
    }

    fn lineage(words: &str) -> Lineage {
        Lineage::new(words.split_whitespace().map(entry).collect())
    }

    /// `held whole | damaged | birch's | cedar's`; `-` for a peer that could not be asked, `?` behind a damaged point whose
    /// manifest is gone.
    fn check(case: &str, expected: &[&str]) {
        let parts: Vec<&str> = case.split('|').map(str::trim).collect();
        let damaged: Vec<Damaged> = parts[1]
            .split_whitespace()
            .map(|word| Damaged {
                name: PointName::of(&entry(word).point, entry(word).taken),
                entry: (!word.contains('?')).then(|| entry(word)),
                why: "was changed".to_owned(),
            })
            .collect();
        let holders: Vec<Holder> = ["birch", "cedar"]
            .into_iter()
            .zip(&parts[2..])
            .map(|(peer, words)| Holder {
                peer: NodeName::parse(peer).unwrap(),
                lineage: (*words != "-").then(|| lineage(words)),
            })
            .collect();
        let plan = plan(&lineage(parts[0]), &damaged, &holders);
        let said: Vec<String> = plan.iter().map(Repair::to_string).collect();
        let expected: Vec<String> = expected
            .iter()
            .map(|line| line.replace(" ...", ", and set the damaged copy aside"))
            .collect();
        assert_eq!(said, expected, "{case}");
    }

    #[test]
    fn from_whom_and_on_top_of_what() {
        check("1 | | 1", &[]);
        check(
            "1 | 2 | 1 2",
            &["fetch 1.2 from birch (files on top of 1.1) ..."],
        );
        check(
            "1 3 | 2 | 1 2 3",
            &["fetch 1.2 from birch (files on top of 1.1) ..."],
        );
        check(
            "3 | 2 | 2 3",
            &["fetch 1.2 from birch (files on top of 1.3) ..."],
        );
        check("| 2 | 2", &["fetch 1.2 from birch (files in full) ..."]);
        check(
            "1 | 2 | - | 2",
            &["fetch 1.2 from cedar (files in full) ..."],
        );
        check(
            "1' | 2 | 1 2",
            &["fetch 1.2 from birch (files in full) ..."],
        );
        check(
            "1 | 2+ | 1 2+",
            &["fetch 1.2 from birch (db in full, files on top of 1.1) ..."],
        );
        check("| 2? | 2", &["fetch 1.2 from birch (files in full) ..."]);
    }

    #[test]
    fn what_was_fetched_is_a_base() {
        check(
            "| 3 2 | 2 3",
            &[
                "fetch 1.2 from birch (files in full) ...",
                "fetch 1.3 from birch (files on top of 1.2) ...",
            ],
        );
    }

    #[test]
    fn nobody_holds_it() {
        check("1 | 2 | 1", &["set 1.2 aside: no peer holds it"]);
        check("1 | 2 |", &["set 1.2 aside: no peer holds it"]);
        check(
            "1 | 2 | 1 | -",
            &["leave 1.2 as it is: cedar could not be asked for it"],
        );
    }
}
