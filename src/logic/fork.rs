//! A fork: data written on a node that is not part of the surviving line, kept until an operator discards it.
//!
//! Promise: pure; a fork is found by words that can mean one only. Its description is read by older and newer programs:
//! fields are added, never renamed. It deliberately does not know where forks lie or how one is made.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::changes::{Change, What};
use super::name::DatasetName;
use super::point::{PointId, PointName, RoleId, Term};
use super::units;

/// Points that are not of the line, and what is known of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fork {
    /// Of its newest point when it was found; points that are added later do not change it.
    pub name: PointName,
    pub role: RoleId,
    /// The newest point of the line that it grew from, if known.
    pub base: Option<PointId>,
    /// Of its newest point.
    pub term: Term,
    /// Oldest first.
    pub points: Vec<ForkPoint>,
    pub found: Timestamp,
    pub why: Why,
    /// What differs between the base and the newest point; none where the base was not here.
    pub measured: Option<Measure>,
}

/// A point of a fork.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ForkPoint {
    pub id: PointId,
    pub taken: Timestamp,
}

impl ForkPoint {
    pub fn name(&self) -> PointName {
        PointName::of(&self.id, self.taken)
    }
}

/// How it came to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Why {
    /// Written by a node that had lost the term.
    Returned,
    /// Points after the one that was promoted.
    LeftBehind,
    /// Lay at the live path before a promotion.
    Foreign,
    /// Its description was lost, or a newer program wrote it.
    #[serde(other)]
    Unknown,
}

impl Why {
    /// Reads after the fork's name, as a reason.
    pub fn phrase(self) -> &'static str {
        match self {
            Why::Returned => "written by a node that had lost the term",
            Why::LeftBehind => "after the point that was promoted",
            Why::Foreign => "lay at the live path before a promotion",
            Why::Unknown => "not known",
        }
    }
}

/// What differs, over all datasets and for each.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Measure {
    pub total: Figures,
    #[serde(default)]
    pub datasets: BTreeMap<DatasetName, Figures>,
}

/// Counts of what differs between a base and a newer snapshot. Directories count by themselves only.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Figures {
    /// Added, changed, removed and renamed together.
    pub files: u64,
    pub added: u64,
    /// Of content or of metadata.
    pub changed: u64,
    pub removed: u64,
    pub renamed: u64,
    /// Directories that were added, changed, removed or renamed.
    #[serde(default)]
    pub directories: u64,
    /// File data that only the newer snapshot holds.
    pub bytes: u64,
    /// When the first and the last of the changes were made, by the files' own change times.
    pub first: Option<Timestamp>,
    pub last: Option<Timestamp>,
}

impl Figures {
    pub fn of(changes: &[Change]) -> Figures {
        let mut figures = Figures::default();
        for change in changes {
            figures.bytes = figures.bytes.saturating_add(change.bytes);
            let at = change.at.and_then(|at| Timestamp::from_second(at).ok());
            figures.first = earlier(figures.first, at);
            figures.last = figures.last.max(at);
            if change.is_directory() {
                figures.directories += 1;
                continue;
            }
            figures.files += 1;
            *match change.what {
                What::Added => &mut figures.added,
                What::Changed | What::Metadata => &mut figures.changed,
                What::Removed => &mut figures.removed,
                What::Renamed => &mut figures.renamed,
            } += 1;
        }
        figures
    }

    fn add(&mut self, other: &Figures) {
        self.files += other.files;
        self.added += other.added;
        self.changed += other.changed;
        self.removed += other.removed;
        self.renamed += other.renamed;
        self.directories += other.directories;
        self.bytes = self.bytes.saturating_add(other.bytes);
        self.first = earlier(self.first, other.first);
        self.last = self.last.max(other.last);
    }
}

fn earlier(one: Option<Timestamp>, other: Option<Timestamp>) -> Option<Timestamp> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}

impl Measure {
    pub fn of(datasets: BTreeMap<DatasetName, Figures>) -> Measure {
        let mut total = Figures::default();
        for figures in datasets.values() {
            total.add(figures);
        }
        Measure { total, datasets }
    }
}

impl Fork {
    /// `epoch.sequence` of its name: what people call it.
    pub fn short(&self) -> String {
        format!("{}.{}", self.name.epoch, self.name.sequence)
    }

    pub fn newest(&self) -> Option<&ForkPoint> {
        self.points.last()
    }

    pub fn holds(&self, point: &PointId) -> bool {
        self.points.iter().any(|held| held.id == *point)
    }

    /// When its data were written, first and last: by the files where it was measured, else by its points.
    pub fn written(&self) -> Option<(Timestamp, Timestamp)> {
        let measured = self.measured.as_ref().map(|measure| measure.total);
        let measured = measured.and_then(|figures| Some((figures.first?, figures.last?)));
        measured.or(Some((
            self.points.first()?.taken,
            self.points.last()?.taken,
        )))
    }

    /// Takes in what a later description of the same fork says. What is known stays known.
    pub fn extend(&mut self, newer: Fork) {
        for point in newer.points {
            if !self.holds(&point.id) {
                self.points.push(point);
            }
        }
        self.points.sort_by_key(|point| point.id.rank());
        if let Some(newest) = self.points.last() {
            self.term = newest.id.term.clone();
        }
        self.base = self.base.take().or(newer.base);
        self.measured = newer.measured.or(self.measured.take());
    }

    /// One line for the history: `kept as fork 1.45: 3 points, 12 files, 1.2 MiB, written ...; see ...`.
    pub fn sentence(&self, role: &super::name::RoleName) -> String {
        let short = self.short();
        let points = self.points.len();
        let plural = if points == 1 { "" } else { "s" };
        let figures = match &self.measured {
            Some(measure) => format!(
                "{} files, {}",
                measure.total.files,
                units::human_bytes(measure.total.bytes)
            ),
            None => "not measured".to_owned(),
        };
        let written = match self.written() {
            Some((first, last)) => format!(", written {}", span(first, last)),
            None => String::new(),
        };
        format!(
            "kept as fork {short}: {points} point{plural}, {figures}{written} ({}); see standin fork show {role} {short}",
            self.why.phrase()
        )
    }
}

/// `2026-11-20 10:04-10:31 UTC`, with both days where they differ.
fn span(first: Timestamp, last: Timestamp) -> String {
    let (day, time) = ("%Y-%m-%d", "%H:%M");
    let both = |at: Timestamp| format!("{} {}", at.strftime(day), at.strftime(time));
    if first.strftime(day).to_string() == last.strftime(day).to_string() {
        format!("{}-{} UTC", both(first), last.strftime(time))
    } else {
        format!("{} - {} UTC", both(first), both(last))
    }
}

/// Finds a fork by its words: its whole name, `epoch.sequence` of it or of any of its points, or the beginning of its name.
/// The error is half a sentence for the person.
pub fn find<'a>(forks: &'a [Fork], words: &str) -> Result<&'a Fork, String> {
    let exact = |fork: &&Fork| fork.name.to_string() == words || fork.short() == words;
    if let Some(found) = forks.iter().find(exact) {
        return Ok(found);
    }
    let holds = |fork: &&Fork| fork.points.iter().any(|p| p.id.to_string() == words);
    let begins = |fork: &&Fork| !words.is_empty() && fork.name.to_string().starts_with(words);
    let found: Vec<&Fork> = forks.iter().filter(|f| begins(f) || holds(f)).collect();
    match found.as_slice() {
        [one] => Ok(one),
        [] if forks.is_empty() => Err("the role has no forks on this node".to_owned()),
        [] => {
            let known: Vec<String> = forks.iter().map(Fork::short).collect();
            Err(format!("its forks are {}", known.join(", ")))
        }
        many => Err(format!(
            "{} forks are meant by {words:?}; write the number of one ({})",
            many.len(),
            many[0].short()
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::super::changes::EntryKind;
    use super::super::name::{NodeName, RoleName};
    use super::*;

    fn at(word: &str) -> Timestamp {
        format!("2026-11-20T{word}Z").parse().unwrap()
    }

    fn point(epoch: u64, sequence: u64, taken: &str) -> ForkPoint {
        ForkPoint {
            id: PointId {
                term: Term {
                    epoch,
                    holder: NodeName::parse("alder").unwrap(),
                    nonce: 3,
                },
                sequence,
            },
            taken: at(taken),
        }
    }

    fn fork(points: &[(u64, u64, &str)]) -> Fork {
        let points: Vec<ForkPoint> = points.iter().map(|&(e, s, t)| point(e, s, t)).collect();
        let newest = points.last().unwrap();
        Fork {
            name: newest.name(),
            role: RoleId(uuid::Uuid::nil()),
            base: None,
            term: newest.id.term.clone(),
            points,
            found: at("12:00:00"),
            why: Why::Returned,
            measured: None,
        }
    }

    fn change(what: What, directory: bool, bytes: u64, at: Option<i64>) -> Change {
        Change {
            what,
            path: b"f".to_vec(),
            from: None,
            kind: directory.then_some(EntryKind::Directory),
            written: Vec::new(),
            bytes,
            resized: None,
            replaced: false,
            metadata: false,
            at,
        }
    }

    #[test]
    fn words_that_mean_one() {
        let forks = [
            fork(&[(1, 43, "10:00:00"), (1, 45, "10:31:00")]),
            fork(&[(2, 50, "11:00:00")]),
        ];
        let check = |words: &str, expected: &str| {
            let found = match find(&forks, words) {
                Ok(fork) => fork.short(),
                Err(why) => why.split([';', ',']).next().unwrap().to_owned(),
            };
            assert_eq!(found, expected, "{words:?}");
        };
        check("1.45", "1.45");
        check("1.43", "1.45");
        check("20261120T103100Z.1.45", "1.45");
        check("20261120T11", "2.50");
        check("20261120", "2 forks are meant by \"20261120\"");
        check("", "its forks are 1.45");
        check("9.9", "its forks are 1.45");
        assert_eq!(
            find(&[], "1.45").unwrap_err(),
            "the role has no forks on this node"
        );
    }

    #[test]
    fn figures_add_up() {
        let changes = [
            change(What::Added, false, 10, Some(50)),
            change(What::Added, true, 0, Some(60)),
            change(What::Changed, false, 5, Some(40)),
            change(What::Metadata, false, 0, None),
            change(What::Removed, false, 0, Some(45)),
            change(What::Renamed, true, 0, None),
            change(What::Renamed, false, 1, None),
        ];
        let figures = Figures::of(&changes);
        let counted = (
            figures.added,
            figures.changed,
            figures.removed,
            figures.renamed,
        );
        assert_eq!(counted, (1, 2, 1, 1));
        assert_eq!(
            (figures.files, figures.directories, figures.bytes),
            (5, 2, 16)
        );
        let seconds = |at: Option<Timestamp>| at.map(Timestamp::as_second);
        assert_eq!(
            (seconds(figures.first), seconds(figures.last)),
            (Some(40), Some(60))
        );
        let name = |word: &str| DatasetName::parse(word).unwrap();
        let both = BTreeMap::from([(name("a"), figures), (name("b"), figures)]);
        let total = Measure::of(both).total;
        assert_eq!(
            (total.files, total.bytes, total.first),
            (10, 32, figures.first)
        );
    }

    #[test]
    fn a_fork_grows() {
        let mut first = fork(&[(1, 43, "10:00:00"), (1, 45, "10:31:00")]);
        first.measured = Some(Measure::default());
        let mut more = fork(&[
            (1, 44, "10:10:00"),
            (1, 45, "10:31:00"),
            (2, 46, "10:40:00"),
        ]);
        more.base = Some(point(1, 42, "09:00:00").id);
        let name = first.name;
        first.extend(more.clone());
        let shorts: Vec<String> = first.points.iter().map(|p| p.id.to_string()).collect();
        assert_eq!(shorts, ["1.43", "1.44", "1.45", "2.46"]);
        assert_eq!((first.name, first.term.epoch), (name, 2));
        assert_eq!(first.base, more.base);
        assert!(
            first.measured.is_some(),
            "what was measured is not forgotten"
        );
    }

    #[test]
    fn sentences() {
        let role = RoleName::parse("web").unwrap();
        let mut fork = fork(&[(1, 43, "10:04:00"), (1, 45, "10:31:00")]);
        assert_eq!(
            fork.sentence(&role),
            "kept as fork 1.45: 2 points, not measured, written 2026-11-20 10:04-10:31 UTC (written by a node that had \
             lost the term); see standin fork show web 1.45"
        );
        let mut measure = Measure::default();
        measure.total.files = 12;
        measure.total.bytes = 1_258_291;
        fork.measured = Some(measure);
        assert!(
            fork.sentence(&role)
                .contains("2 points, 12 files, 1.2 MiB, written")
        );
    }

    #[test]
    fn a_reason_of_a_newer_program() {
        let why: Why = serde_json::from_str("\"struck-by-lightning\"").unwrap();
        assert_eq!(why, Why::Unknown);
    }
}
