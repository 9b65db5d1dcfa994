//! Whether a standby may be promoted by hand, under which term, from which point, and what that loses.
//!
//! Promise: a node that is known to be active, or may be and was not spoken for by the operator, stands in the way; a higher
//! term is never overridden; a newer point within reach is fetched first; what would be lost is named exactly and must have
//! been accepted by name. There is no way to say "whatever it takes".
//!
//! It deliberately does not know how peers are asked: silence is a fact it is given.

use std::collections::{BTreeMap, BTreeSet};

use super::name::NodeName;
use super::point::{PointId, Term};
use super::role::{Record, State};

/// What a peer answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answered {
    /// The highest term it has seen.
    pub seen: Term,
    /// It plays the role under that term, or did and has not put in safety what it wrote.
    pub plays: bool,
    /// The last term that it held and gave up.
    pub spent: Option<Term>,
    /// Its newest whole point.
    pub newest: Option<PointId>,
}

/// What is known when the operator asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts<'a> {
    pub record: &'a Record,
    /// Whole points held here, oldest first.
    pub points: &'a [PointId],
    /// Every peer of the role; none: silent.
    pub peers: BTreeMap<NodeName, Option<Answered>>,
}

/// What the operator said.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Statements {
    /// From this point and not from the newest.
    pub point: Option<PointId>,
    /// "I made sure that these serve nobody."
    pub stopped: BTreeSet<NodeName>,
    /// "What came after this point may be lost to the line."
    pub loss_after: Option<PointId>,
}

/// The judgement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    Promote(Promotion),
    /// This peer holds a newer point of the line: fetch it, then judge again.
    Fetch {
        from: NodeName,
        point: PointId,
    },
    Refused(Refused),
}

/// What will be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Promotion {
    pub epoch: u64,
    pub point: PointId,
    /// Points held here that come after it; they are kept, as a fork.
    pub left_behind: Vec<PointId>,
    /// Peers that were not heard: what they wrote after `point` is not in this copy, and will be a fork there.
    pub unheard: Vec<NodeName>,
    /// Peers that followed another claim of the epoch: what they hold of it will be a fork there.
    pub other_lines: Vec<NodeName>,
}

/// Why not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refused {
    /// Not from this state.
    State(&'static str),
    /// This peer plays the role.
    Active(NodeName),
    /// The highest term is this peer's, which answers: it was given to it, and it may take it up at any moment.
    Released(NodeName),
    /// This peer knows a higher term than this node did: learn it first.
    HigherTerm { by: NodeName, term: Term },
    /// These did not answer and were not spoken for.
    Silent(Vec<NodeName>),
    /// There is nothing to promote.
    NoPoint,
    /// The point asked for is not held here.
    UnknownPoint(PointId),
    /// Something may be, or will be, lost after this point, and that was not accepted by name.
    Loss {
        after: PointId,
        unheard: Vec<NodeName>,
        other_lines: Vec<NodeName>,
        left_behind: Vec<PointId>,
    },
    /// The point named in the acceptance is not the one that would be promoted.
    OtherLoss {
        accepted: PointId,
        promoted: PointId,
    },
}

/// Judges a promotion by hand.
pub fn judge(facts: &Facts, said: &Statements) -> Verdict {
    match judged(facts, said) {
        Ok(promotion) => Verdict::Promote(promotion),
        Err(verdict) => *verdict,
    }
}

fn judged(facts: &Facts, said: &Statements) -> Result<Promotion, Box<Verdict>> {
    let refused = |why| Err(Box::new(Verdict::Refused(why)));
    if let Some(why) = busy(&facts.record.state) {
        return refused(Refused::State(why));
    }
    terms(facts)?;
    let unheard: Vec<NodeName> = facts
        .peers
        .iter()
        .filter(|(_, answer)| answer.is_none())
        .map(|(name, _)| name.clone())
        .collect();
    let unspoken: Vec<NodeName> = unheard
        .iter()
        .filter(|name| !said.stopped.contains(*name))
        .cloned()
        .collect();
    if !unspoken.is_empty() {
        return refused(Refused::Silent(unspoken));
    }
    let point = point(facts, said)?;
    let left_behind: Vec<PointId> = facts
        .points
        .iter()
        .filter(|held| held.rank() > point.rank())
        .cloned()
        .collect();
    let answered = facts
        .peers
        .iter()
        .filter_map(|(name, answer)| Some((name, answer.as_ref()?)));
    let other_lines: Vec<NodeName> = answered
        .filter(|(_, answer)| other_line(facts, answer) && answer.newest.is_some())
        .map(|(name, _)| name.clone())
        .collect();
    let whole = unheard.is_empty() && left_behind.is_empty() && other_lines.is_empty();
    match &said.loss_after {
        Some(accepted) if *accepted != point => refused(Refused::OtherLoss {
            accepted: accepted.clone(),
            promoted: point,
        }),
        None if !whole => refused(Refused::Loss {
            after: point,
            unheard,
            other_lines,
            left_behind,
        }),
        Some(_) | None => Ok(Promotion {
            epoch: facts.record.seen.epoch + 1,
            point,
            left_behind,
            unheard,
            other_lines,
        }),
    }
}

/// What the node is busy with, when it can not be promoted from this state.
fn busy(state: &State) -> Option<&'static str> {
    match state {
        State::Standby | State::HandedOff => None,
        State::Promoting { .. } => Some("it is being promoted already"),
        State::Active | State::HandingOver { .. } => Some("it is active already"),
        State::Waking { .. } => Some("it held the role when it ended; resume it instead"),
        State::Fencing { .. } | State::Fenced | State::Reconciling { .. } => {
            Some("it is putting what was written here in safety first")
        }
        State::Conflict { .. } => Some("two nodes claim the same epoch; resolve that first"),
    }
}

/// Nobody plays the role, nobody knows a higher term. Two claims of one epoch that nobody plays are ended by a higher one.
fn terms(facts: &Facts) -> Result<(), Box<Verdict>> {
    let seen = &facts.record.seen;
    let answers = || {
        facts
            .peers
            .iter()
            .filter_map(|(name, answer)| Some((name, answer.as_ref()?)))
    };
    // A peer that plays under a lower term will fence itself as soon as it hears; it stands in the way until it has.
    if let Some((name, _)) = answers().find(|(_, answer)| answer.plays) {
        return Err(Box::new(Verdict::Refused(Refused::Active(name.clone()))));
    }
    for (name, answer) in answers() {
        let term = answer.seen.clone();
        if term.epoch > seen.epoch {
            let by = name.clone();
            let why = Refused::HigherTerm { by, term };
            return Err(Box::new(Verdict::Refused(why)));
        }
    }
    // Released to it, by this node or another, and perhaps still on the way; a term that it has spent it never takes up.
    let holder = answers().find(|(name, _)| **name == seen.holder);
    match holder.filter(|(_, answer)| answer.spent.as_ref() != Some(seen)) {
        Some((name, _)) => Err(Box::new(Verdict::Refused(Refused::Released(name.clone())))),
        None => Ok(()),
    }
}

/// The peer followed another claim of the epoch: its points are of another line, whatever their numbers.
fn other_line(facts: &Facts, answer: &Answered) -> bool {
    answer.seen.epoch == facts.record.seen.epoch && answer.seen != facts.record.seen
}

fn point(facts: &Facts, said: &Statements) -> Result<PointId, Box<Verdict>> {
    if let Some(asked) = &said.point {
        let held = facts.points.contains(asked);
        return if held {
            Ok(asked.clone())
        } else {
            Err(Box::new(Verdict::Refused(Refused::UnknownPoint(
                asked.clone(),
            ))))
        };
    }
    let newest = facts.points.last();
    let farther = facts.peers.iter().filter_map(|(name, answer)| {
        let answer = answer.as_ref()?;
        Some((name, answer.newest.as_ref()?)).filter(|_| !other_line(facts, answer))
    });
    if let Some((from, point)) = farther.max_by_key(|(_, point)| point.rank()) {
        if newest.is_none_or(|newest| newest.rank() < point.rank()) {
            return Err(Box::new(Verdict::Fetch {
                from: from.clone(),
                point: point.clone(),
            }));
        }
    }
    newest
        .cloned()
        .ok_or_else(|| Box::new(Verdict::Refused(Refused::NoPoint)))
}

#[cfg(test)]
mod tests {
    use super::super::point::Term;
    use super::*;

    fn node(name: &str) -> NodeName {
        NodeName::parse(name).unwrap()
    }

    /// `5birch`: epoch and holder.
    fn term(word: &str) -> Term {
        Term {
            epoch: word[..1].parse().unwrap(),
            holder: node(&word[1..]),
            nonce: 0,
        }
    }

    /// `5birch.7`
    fn point(word: &str) -> PointId {
        let (word, sequence) = word.split_once('.').unwrap();
        PointId {
            term: term(word),
            sequence: sequence.parse().unwrap(),
        }
    }

    fn points(words: &str) -> Vec<PointId> {
        words.split_whitespace().map(point).collect()
    }

    /// What `judge` says to alder, which has seen 5birch. Peers: `birch ?`, `cedar 5birch 5birch.7`, `birch 5birch! ...`
    /// (plays), `birch 5birch~` (spent). Statements: `stopped birch`, `loss 5birch.7`, `point 5birch.6`.
    fn check(held: &str, peers: &[&str], said: &[&str], expected: &str) {
        let mut record = Record::standby(node("alder"), BTreeSet::new(), term("5birch"));
        let mut facts_peers = BTreeMap::new();
        for peer in peers {
            let words: Vec<&str> = peer.split_whitespace().collect();
            record.peers.insert(node(words[0]));
            let answer = (words[1] != "?").then(|| Answered {
                seen: term(words[1].trim_end_matches(['!', '~'])),
                plays: words[1].ends_with('!'),
                spent: words[1].strip_suffix('~').map(term),
                newest: words.get(2).map(|word| point(word)),
            });
            facts_peers.insert(node(words[0]), answer);
        }
        let mut statements = Statements::default();
        for words in said {
            match words.split_once(' ').unwrap() {
                ("stopped", name) => drop(statements.stopped.insert(node(name))),
                ("loss", word) => statements.loss_after = Some(point(word)),
                (_, word) => statements.point = Some(point(word)),
            }
        }
        let held = points(held);
        let facts = Facts {
            record: &record,
            points: &held,
            peers: facts_peers,
        };
        let names = |names: &[NodeName]| {
            names
                .iter()
                .map(NodeName::as_str)
                .collect::<Vec<_>>()
                .join(" ")
        };
        let verdict = match judge(&facts, &statements) {
            Verdict::Promote(it) => format!("epoch {} from {}", it.epoch, it.point),
            Verdict::Fetch { from, point } => format!("fetch {point} from {}", from.as_str()),
            Verdict::Refused(Refused::Active(name)) => format!("active: {}", name.as_str()),
            Verdict::Refused(Refused::Released(to)) => format!("released to {}", to.as_str()),
            Verdict::Refused(Refused::HigherTerm { by, term }) => {
                format!("{} knows {term}", by.as_str())
            }
            Verdict::Refused(Refused::Silent(silent)) => format!("silent: {}", names(&silent)),
            Verdict::Refused(Refused::NoPoint) => "no point".to_owned(),
            Verdict::Refused(Refused::UnknownPoint(point)) => format!("no {point}"),
            Verdict::Refused(Refused::State(why)) => why.to_owned(),
            Verdict::Refused(Refused::Loss {
                after,
                unheard,
                other_lines,
                left_behind,
            }) => format!(
                "loss after {after}: [{}] [{}] {}",
                names(&unheard),
                names(&other_lines),
                left_behind.len()
            ),
            Verdict::Refused(Refused::OtherLoss { accepted, promoted }) => {
                format!("{accepted} was accepted, not {promoted}")
            }
        };
        assert_eq!(verdict, expected, "{held:?} {peers:?} {said:?}");
    }

    #[test]
    fn nobody_in_the_way() {
        check("5birch.7", &[], &[], "epoch 6 from 5.7");
        check(
            "5birch.7",
            &["birch 5birch~ 5birch.7"],
            &[],
            "epoch 6 from 5.7",
        );
        check(
            "5birch.7",
            &["cedar 4cedar 4cedar.3"],
            &[],
            "epoch 6 from 5.7",
        );
        check("", &["birch 5birch~"], &[], "no point");
    }

    #[test]
    fn the_active_node_is_not_overridden() {
        check(
            "5birch.7",
            &["birch 5birch! 5birch.7"],
            &[],
            "active: birch",
        );
        check(
            "5birch.7",
            &["birch 5birch! 5birch.7"],
            &["stopped birch", "loss 5birch.7"],
            "active: birch",
        );
        check(
            "5birch.7",
            &["birch ?", "cedar 4cedar! 4cedar.1"],
            &["stopped birch"],
            "active: cedar",
        );
    }

    #[test]
    fn a_term_on_its_way_is_not_overtaken() {
        // Given to birch by somebody; birch may not know yet.
        for birch in ["birch 5birch 5birch.7", "birch 4alder 4alder.6"] {
            check(
                "5birch.7",
                &[birch, "cedar 5birch"],
                &[],
                "released to birch",
            );
        }
    }

    #[test]
    fn what_was_released_is_not_taken_back_from_a_living_peer() {
        let mut record = Record::standby(
            node("alder"),
            BTreeSet::from([node("birch")]),
            term("5birch"),
        );
        record.state = State::HandedOff;
        let points = points("4alder.7");
        let mut facts = Facts {
            record: &record,
            points: &points,
            peers: BTreeMap::new(),
        };
        let answer = Answered {
            seen: term("4alder"),
            plays: false,
            spent: None,
            newest: None,
        };
        facts.peers.insert(node("birch"), Some(answer));
        let verdict = judge(&facts, &Statements::default());
        assert_eq!(verdict, Verdict::Refused(Refused::Released(node("birch"))));
        facts.peers.insert(node("birch"), None);
        let said = Statements {
            stopped: BTreeSet::from([node("birch")]),
            loss_after: Some(point("4alder.7")),
            point: None,
        };
        assert!(matches!(judge(&facts, &said), Verdict::Promote(_)));
    }

    #[test]
    fn a_higher_term_is_never_overridden() {
        check(
            "5birch.7",
            &["birch ?", "cedar 6birch"],
            &["stopped birch", "loss 5birch.7"],
            "cedar knows 6 (birch)",
        );
    }

    #[test]
    fn silence_wants_a_statement_and_its_price() {
        check("5birch.7", &["birch ?"], &[], "silent: birch");
        check(
            "5birch.7",
            &["birch ?", "cedar ?"],
            &["stopped birch"],
            "silent: cedar",
        );
        check(
            "5birch.7",
            &["birch ?"],
            &["stopped birch"],
            "loss after 5.7: [birch] [] 0",
        );
        check(
            "5birch.7",
            &["birch ?"],
            &["stopped birch", "loss 5birch.6"],
            "5.6 was accepted, not 5.7",
        );
        check(
            "5birch.7",
            &["birch ?"],
            &["stopped birch", "loss 5birch.7"],
            "epoch 6 from 5.7",
        );
    }

    #[test]
    fn a_newer_point_is_fetched_first() {
        let peers = ["birch ?", "cedar 5birch 5birch.8"];
        check(
            "5birch.7",
            &peers,
            &["stopped birch"],
            "fetch 5.8 from cedar",
        );
        check("", &peers, &["stopped birch"], "fetch 5.8 from cedar");
        // Of a line that nobody plays any more: not newer, other.
        let other = ["birch ?", "cedar 5cedar 5cedar.9"];
        check(
            "5birch.7",
            &other,
            &["stopped birch"],
            "loss after 5.7: [birch] [cedar] 0",
        );
        check(
            "5birch.7",
            &other,
            &["stopped birch", "loss 5birch.7"],
            "epoch 6 from 5.7",
        );
    }

    #[test]
    fn an_older_point_leaves_some_behind() {
        let held = "5birch.5 5birch.6 5birch.7";
        check(
            held,
            &["birch 5birch~"],
            &["point 5birch.5"],
            "loss after 5.5: [] [] 2",
        );
        check(
            held,
            &["birch 5birch~"],
            &["point 5birch.5", "loss 5birch.5"],
            "epoch 6 from 5.5",
        );
        check(held, &["birch 5birch~"], &["point 5birch.4"], "no 5.4");
    }
}
