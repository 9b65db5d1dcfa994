//! What a node does in a role of the kind `logs`: the node that is its home writes it, always, and the others keep copies.
//!
//! Nobody else can ever hold such a role, so its home asks nobody whether it may go on. What it still must settle is which of
//! its own lives counts: a node that lost its disk or its state database begins again under term 1, or goes on from an older
//! point, while its peers know better. Promise: whatever a peer knows of terms, the home ends above it, under a term of its
//! own, and goes on from its own newest point; so peers keep what they have of an earlier life, those of its points that are
//! not of the line any more as a fork, and take the new ones. Nothing here ever stops a home, and nobody else becomes one.
//!
//! It deliberately does not know what becomes of forks, nor how a nonce is drawn.

use super::name::{NodeName, RoleName};
use super::point::{RoleId, Term};
use super::role::{self, Action, Event, Record, State, Step, keep, refuse, with};

/// What the id of a role is made of, beside its name; never changes.
const CONTEXT: &str = "standin 2026 id of a role of kind logs";

/// The id of a role of this kind: every node knows it, also one that has forgotten everything.
pub fn id(role: &RoleName) -> RoleId {
    let hash = blake3::derive_key(CONTEXT, role.as_str().as_bytes());
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&hash[..16]);
    RoleId(uuid::Builder::from_custom_bytes(bytes).into_uuid())
}

/// Why a node may not say that it plays a role of this kind under a term.
pub fn hindrance(home: &NodeName, term: &Term) -> Option<String> {
    (term.holder != *home)
        .then(|| format!("only {home} writes it, and nobody plays it in the place of {home}"))
}

/// What follows from `event` in a role whose home is `home`. `nonce` was drawn for this call.
pub fn step(record: &Record, event: &Event, home: &NodeName, nonce: u64) -> Step {
    if matches!(event, Event::Pause | Event::Unpause) {
        return role::step(record, event);
    }
    if record.node == *home {
        return at_home(record, event, nonce);
    }
    match event {
        Event::Heard { word, .. } if word.term.holder != *home => {
            keep(record).because("only its home speaks for it")
        }
        Event::Heard { from, word }
            if word.term.epoch == record.seen.epoch && word.term != record.seen =>
        {
            let told = [Action::Tell(from.clone())];
            keep(record)
                .doing(told)
                .because("an earlier life of its home, or a later one: it goes on above both")
        }
        Event::Promote { .. }
        | Event::HandOver { .. }
        | Event::Granted { .. }
        | Event::Resume
        | Event::Stay { .. }
        | Event::Yield => refuse(
            record,
            "each node writes its own logs: this role never moves",
        ),
        _ => role::step(record, event),
    }
}

fn at_home(record: &Record, event: &Event, nonce: u64) -> Step {
    let above = |term: &Term| {
        with(record, |r| {
            let epoch = term.epoch.max(r.seen.epoch).saturating_add(1);
            let term = Term {
                epoch,
                holder: r.node.clone(),
                nonce,
            };
            r.spent = r.held.replace(term.clone());
            r.seen = term;
            r.state = State::Active;
        })
        .doing([Action::TellAll])
    };
    match event {
        Event::Started { .. } if record.held.as_ref() == Some(&record.seen) => {
            with(record, |r| r.state = State::Active)
                .doing([Action::TellAll])
                .because("nobody else can write it: goes on")
        }
        Event::Started { .. } => above(&record.seen)
            .because("nobody else can write it: goes on, under a term of its own"),
        Event::Heard { from, word } if word.term.epoch < record.seen.epoch => keep(record)
            .doing([Action::Tell(from.clone())])
            .because("a lower term than its own: told which"),
        Event::Heard { word, .. } if word.term == record.seen && !word.ahead => {
            keep(record).because("nothing new")
        }
        Event::Heard { word, .. } if word.term == record.seen => above(&word.term).because(
            "a peer holds newer points of it than this disk remembers: goes on above them",
        ),
        Event::Heard { word, .. } => above(&word.term)
            .because("a peer knows an earlier life of this node: goes on above that"),
        Event::Promote { .. }
        | Event::HandOver { .. }
        | Event::Granted { .. }
        | Event::Resume
        | Event::Stay { .. }
        | Event::Yield
        | Event::Cancel => refuse(
            record,
            "each node writes its own logs: this role never moves",
        ),
        Event::Accepted { .. }
        | Event::Done(_)
        | Event::Failed(_)
        | Event::Retry
        | Event::Pause
        | Event::Unpause => keep(record).because("nothing follows from it"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::role::Word;
    use super::*;

    /// `2a7`: epoch, holder, nonce.
    fn term(word: &str) -> Term {
        Term {
            epoch: word[..1].parse().unwrap(),
            holder: node(&word[1..2]),
            nonce: word[2..].parse().unwrap(),
        }
    }

    fn node(word: &str) -> NodeName {
        NodeName::parse(word).unwrap()
    }

    /// A node that knows `seen` hears `said` in the logs of `a`, `!` behind it: with newer points. Expected: the state, the
    /// term, and a word of the reason. The nonce drawn is 9.
    fn check(here: &str, seen: &str, said: &str, expected: (&str, &str, &str)) {
        let mut record = Record::standby(node(here), [].into(), term(seen));
        if here == "a" {
            record.held = Some(term(seen));
            record.state = State::Active;
        }
        let event = Event::Heard {
            from: node("c"),
            word: Word {
                term: term(said.trim_end_matches('!')),
                plays: false,
                ahead: said.ends_with('!'),
            },
        };
        let step = step(&record, &event, &node("a"), 9);
        let (state, after, why) = expected;
        assert_eq!(step.record.state.to_string(), state, "{here} {seen} {said}");
        assert_eq!(step.record.seen, term(after), "{here} {seen} {said}");
        assert!(step.why.contains(why), "{here} {seen} {said}: {}", step.why);
        if here == "a" {
            assert_eq!(step.record.held, Some(step.record.seen));
        }
    }

    #[test]
    fn the_home_ends_above_whatever_is_known() {
        check("a", "1a1", "1a1", ("active", "1a1", "nothing new"));
        check("a", "2a1", "1a5", ("active", "2a1", "lower"));
        check("a", "1a1", "1a5", ("active", "2a9", "earlier life"));
        check("a", "1a1", "7a5", ("active", "8a9", "earlier life"));
        check("a", "3a1", "3a1!", ("active", "4a9", "newer points"));
        check("a", "3a1", "5b1", ("active", "6a9", "earlier life"));
    }

    #[test]
    fn others_follow_the_home_alone() {
        check("b", "1a1", "2a5", ("standby", "2a5", "follows"));
        check("b", "1a1", "2c5", ("standby", "1a1", "only its home"));
        check("b", "2a1", "2a5", ("standby", "2a1", "life"));
        check("b", "2a1", "1a5", ("standby", "2a1", "lower"));
    }

    fn check_refused(here: &str, event: &Event) {
        let mut record = Record::standby(node(here), [].into(), term("1a1"));
        if here == "a" {
            record.held = Some(term("1a1"));
            record.state = State::Active;
        }
        let step = step(&record, event, &node("a"), 9);
        assert!(step.refused, "{here} {event:?}");
        assert_eq!(step.record, record);
    }

    #[test]
    fn nothing_moves_it() {
        for here in ["a", "b"] {
            let (by, other) = (node("c"), term("5b1"));
            check_refused(
                here,
                &Event::Promote {
                    term: other.clone(),
                },
            );
            check_refused(
                here,
                &Event::HandOver {
                    term: other.clone(),
                },
            );
            check_refused(here, &Event::Granted { by, term: other });
            check_refused(here, &Event::Resume);
            check_refused(here, &Event::Yield);
        }
    }

    #[test]
    fn a_start_asks_nobody() {
        let mut record = Record::standby(node("a"), [node("b")].into(), term("3a1"));
        let started = Event::Started { serving: false };
        let after = step(&record, &started, &node("a"), 9).record;
        assert_eq!((after.state, after.seen), (State::Active, term("4a9")));
        record.held = Some(term("3a1"));
        let after = step(&record, &started, &node("a"), 9).record;
        assert_eq!((after.state, after.seen), (State::Active, term("3a1")));
    }

    #[test]
    fn an_id_is_known_without_asking() {
        let role = |name: &str| RoleName::parse(name).unwrap();
        assert_eq!(
            id(&role("syslog.alder")).to_string(),
            "4eb619dd-f3e5-827a-98af-fbacc7c5d00e"
        );
        assert_ne!(id(&role("syslog.alder")), id(&role("syslog.birch")));
    }
}
