//! Which points a node that lost everything fetches from a peer, and in which order.
//!
//! Promise: pure and total. The newest point comes first, so that the role can be served again as soon as can be; what is half
//! there already comes before it, since it costs least; then the history, newest first, each point being the difference to
//! one that is here. A point that this node's own rules would remove at once is not fetched.
//!
//! It deliberately does not know links, nor how a point is fetched (`repair::bases` says on top of what).

use std::collections::HashSet;

use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::line::Line;
use super::lineage::{Entry, Lineage};
use super::point::{PointId, PointName};
use super::retention::{self, Candidate, Keep};

/// What is known when the order is made.
pub struct Facts<'a> {
    /// Held whole here.
    pub ours: &'a Lineage,
    /// Held whole by the peer.
    pub theirs: &'a Lineage,
    /// The line, where it is known.
    pub line: &'a Line,
    /// Half-received here.
    pub partials: &'a [PointId],
    /// This node's rules while it stands in.
    pub keep: &'a Keep,
}

/// What is missing here, in the order in which it is to be fetched.
pub fn order(facts: &Facts, now: Timestamp, tz: &TimeZone) -> Vec<Entry> {
    let of_line = |entry: &&Entry| facts.line.is_empty() || facts.line.contains(&entry.point);
    let theirs: Vec<&Entry> = facts.theirs.entries().iter().filter(of_line).collect();
    let ours = facts
        .ours
        .entries()
        .iter()
        .filter(|entry| !facts.theirs.holds(entry));
    let candidate = |entry: &Entry| Candidate {
        id: entry.point.clone(),
        name: PointName::of(&entry.point, entry.taken),
        taken: entry.taken,
        pins: Vec::new(),
    };
    // What is here already counts too: the rules will be asked about all of them.
    let all: Vec<Candidate> = theirs.iter().copied().chain(ours).map(candidate).collect();
    let verdicts = retention::verdicts(&all, facts.keep, now, tz);
    let kept: HashSet<PointId> = verdicts
        .into_iter()
        .filter(|verdict| verdict.keep)
        .map(|verdict| verdict.id)
        .collect();
    let missing = theirs
        .into_iter()
        .rev()
        .filter(|entry| facts.ours.get(&entry.point).is_none() && kept.contains(&entry.point));
    let mut missing: Vec<Entry> = missing.cloned().collect();
    if facts.ours.newest().is_none() {
        // The first of all goes over whole: what arrived of it is worth more than a newer one.
        let begun = missing
            .iter()
            .position(|entry| facts.partials.contains(&entry.point));
        if let Some(begun) = begun {
            let begun = missing.remove(begun);
            missing.insert(0, begun);
        }
    }
    missing
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::logic::name::{DatasetName, NodeName};
    use crate::logic::point::Term;
    use uuid::Uuid;

    fn point(word: &str) -> PointId {
        let (epoch, sequence) = word.split_once('.').unwrap();
        PointId {
            term: Term {
                epoch: epoch.parse().unwrap(),
                holder: NodeName::parse("alder").unwrap(),
                nonce: 1,
            },
            sequence: sequence.parse().unwrap(),
        }
    }

    fn lineage(words: &str) -> Lineage {
        let entries = words.split_whitespace().map(|word| {
            let point = point(word);
            let seconds = i64::try_from(point.sequence).unwrap() * 3600;
            Entry {
                taken: Timestamp::from_second(1_800_000_000 + seconds).unwrap(),
                datasets: BTreeMap::from([(
                    DatasetName::parse("files").unwrap(),
                    Uuid::from_u128(u128::from(point.sequence)),
                )]),
                point,
            }
        });
        Lineage::new(entries.collect())
    }

    fn check(ours: &str, theirs: &str, partial: &str, last: u32, expected: &str) {
        let (ours, theirs) = (lineage(ours), lineage(theirs));
        let mut line = Line::first(point("1.1").term);
        line.begin(point("2.1").term, Some(point("1.4")));
        let partials: Vec<PointId> = partial.split_whitespace().map(point).collect();
        let keep = Keep {
            last,
            ..Keep::default()
        };
        let facts = Facts {
            ours: &ours,
            theirs: &theirs,
            line: &line,
            partials: &partials,
            keep: &keep,
        };
        let now = Timestamp::from_second(1_900_000_000).unwrap();
        let order = order(&facts, now, &TimeZone::UTC);
        let order: Vec<String> = order.iter().map(|entry| entry.point.to_string()).collect();
        assert_eq!(order.join(" "), expected);
    }

    #[test]
    fn the_newest_first() {
        check("", "1.1 1.2 1.3", "", 9, "1.3 1.2 1.1");
        check("1.3", "1.1 1.2 1.3", "", 9, "1.2 1.1");
        check("1.1 1.3", "1.1 1.2 1.3", "", 9, "1.2");
        check("1.1", "1.1", "", 9, "");
        check("", "", "", 9, "");
        // A newer one was taken since.
        check("1.3", "1.1 1.2 1.3 1.4", "", 9, "1.4 1.2 1.1");
    }

    #[test]
    fn what_is_half_there() {
        check("", "1.1 1.2 1.3", "1.2", 9, "1.2 1.3 1.1");
        check("", "1.1 1.2 1.3", "1.9", 9, "1.3 1.2 1.1");
        check("1.3", "1.1 1.2 1.3", "1.1", 9, "1.2 1.1");
    }

    #[test]
    fn what_no_rule_keeps_stays_there() {
        check("", "1.1 1.2 1.3", "", 2, "1.3 1.2");
        check("1.3 1.2", "1.1 1.2 1.3", "", 2, "");
        // Ours count too.
        check("2.6", "1.1 1.2 1.3", "", 2, "1.3");
    }

    #[test]
    fn what_is_not_of_the_line_stays_there() {
        check("", "1.3 1.4 1.5 2.6", "", 9, "2.6 1.4 1.3");
    }
}
