//! Whether a cycle takes a point, and which id the point gets.
//!
//! Promise: pure and total. An unchanged role gives no new point, so that history is not a row of equal points, unless
//! its config asks for them. It deliberately does not know how a change is found out.

use super::manifest::Reason;
use super::point::{PointId, Term};

/// What is known when a cycle begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// The newest point of the role on this node.
    pub newest: Option<PointId>,
    /// A live dataset differs from the newest point, or might.
    pub changed: bool,
    /// The role's datasets are no longer those of the newest point.
    pub datasets_differ: bool,
    /// Databases that are dumped to files lie outside of the datasets, and may have changed there.
    pub written_elsewhere: bool,
    pub reason: Reason,
    /// The config asks for a point even when nothing changed.
    pub snapshot_unchanged: bool,
}

/// What the cycle does first. `why` is half a sentence for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    Take { point: PointId, why: &'static str },
    Nothing { why: &'static str },
}

/// Decides for a node that is active under `term`.
pub fn decide(facts: &Facts, term: &Term) -> Decision {
    let take = |why| Decision::Take {
        point: next_id(facts.newest.as_ref(), term),
        why,
    };
    if facts.newest.is_none() {
        take("the role has no point yet")
    } else if facts.datasets_differ {
        take("the role's datasets are others than in the newest point")
    } else if facts.changed {
        take("data changed since the newest point")
    } else if facts.written_elsewhere {
        take("what is dumped may have changed since the newest point")
    } else if facts.reason == Reason::BeforeRestore {
        // A point of its own, which pruning leaves alone for a while.
        take("a restore is about to replace what is live")
    } else if facts.snapshot_unchanged {
        take("nothing changed, but `snapshot-unchanged` is set")
    } else {
        Decision::Nothing {
            why: "nothing changed since the newest point",
        }
    }
}

/// The id of the point that follows `newest` in the role.
pub fn next_id(newest: Option<&PointId>, term: &Term) -> PointId {
    PointId {
        term: term.clone(),
        sequence: newest.map_or(1, |newest| newest.sequence.saturating_add(1)),
    }
}

#[cfg(test)]
mod tests {
    use super::super::name::NodeName;
    use super::*;

    fn term() -> Term {
        Term {
            epoch: 2,
            holder: NodeName::parse("alder").unwrap(),
            nonce: 5,
        }
    }

    /// `facts` are words: `newest`, `changed`, `differ`, `elsewhere`, `always`, `restore`. Expected: the new point, or empty.
    fn check(facts: &str, expected: &str) {
        let has = |word: &str| facts.split(' ').any(|w| w == word);
        let newest = has("newest").then(|| PointId {
            term: term(),
            sequence: 41,
        });
        let facts = Facts {
            newest,
            changed: has("changed"),
            datasets_differ: has("differ"),
            written_elsewhere: has("elsewhere"),
            reason: if has("restore") {
                Reason::BeforeRestore
            } else {
                Reason::Schedule
            },
            snapshot_unchanged: has("always"),
        };
        let got = match decide(&facts, &term()) {
            Decision::Take { point, .. } => point.to_string(),
            Decision::Nothing { .. } => String::new(),
        };
        assert_eq!(got, expected, "{facts:?}");
    }

    #[test]
    fn decisions() {
        check("", "2.1");
        check("newest", "");
        check("newest changed", "2.42");
        check("newest differ", "2.42");
        check("newest elsewhere", "2.42");
        check("newest always", "2.42");
        check("newest restore", "2.42");
        check("newest changed restore", "2.42");
    }
}
