//! What a state of a role means to its operator: what goes on, what it waits for, and what can be done about it.
//!
//! Promise: pure and total; every state but the two restful ones says something. It deliberately does not know what is in
//! the way of a step: that is told beside it.

use serde::{Deserialize, Serialize};

use super::name::{NodeName, RoleName};
use super::role::{Descent, Fall, Mend, Record, Rise, State};

/// In plain words.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outlook {
    /// Reads after the state.
    pub meaning: String,
    /// What the operator can do; none where there is nothing but to wait.
    pub next: Option<String>,
}

/// `troubled`: the step at hand failed the last time. None for a node that is active or stands in.
pub fn outlook(role: &RoleName, record: &Record, troubled: bool) -> Option<Outlook> {
    let again = |verb: &str| troubled.then(|| format!("tried again by itself; at once: {verb}"));
    let by_itself = || troubled.then(|| "mend that; it is tried again by itself".to_owned());
    let say = |meaning: String, next: Option<String>| Some(Outlook { meaning, next });
    match &record.state {
        State::Standby | State::Active => None,
        State::Promoting { step } => say(
            format!("on its way up: {}", rising(*step)),
            again(&format!("standin resume {role}")),
        ),
        State::Waking { up, heard, .. } => say(
            asking(record.peers.difference(heard), *up),
            Some(format!("standin resume {role}, if nobody else plays it")),
        ),
        State::HandingOver { term, step } => say(
            format!("moves to {}: {}", term.holder, descending(*step)),
            Some(format!("standin handover {role} --cancel calls it off")),
        ),
        State::HandedOff => say(
            format!(
                "released to {} under term {}; waits for it to take over",
                record.seen.holder, record.seen.epoch
            ),
            Some(format!("on {}: standin status {role}", record.seen.holder)),
        ),
        State::Fencing { step } => say(
            format!(
                "{} holds term {}: {}",
                record.seen.holder,
                record.seen.epoch,
                falling(*step)
            ),
            by_itself(),
        ),
        State::Fenced => say(
            "stopped; what was written here could not be kept as a fork yet, and nobody touches it"
                .to_owned(),
            Some("mend what is in the way; it is tried again by itself".to_owned()),
        ),
        State::Reconciling { step } => say(mending(*step).to_owned(), by_itself()),
        State::Conflict { other, up, .. } => {
            let (ours, theirs) = (&record.seen.holder, &other.holder);
            let runs = if *up { "" } else { "; nothing runs here" };
            say(
                format!(
                    "{ours} and {theirs} both claim epoch {}; nobody's data is touched{runs}",
                    other.epoch
                ),
                Some(format!(
                    "standin resolve {role} --keep {ours}, or --keep {theirs}"
                )),
            )
        }
    }
}

fn asking<'a>(silent: impl Iterator<Item = &'a NodeName>, up: bool) -> String {
    let silent: Vec<&str> = silent.map(NodeName::as_str).collect();
    let runs = if up {
        "; its services run on meanwhile"
    } else {
        ""
    };
    match silent.as_slice() {
        [] => format!("was active when its daemon ended, and goes on now{runs}"),
        silent => format!(
            "was active when its daemon ended; asks {} before it goes on{runs}",
            silent.join(", ")
        ),
    }
}

fn rising(step: Rise) -> &'static str {
    match step {
        Rise::Live => "makes the data live",
        Rise::Serve => "starts its services",
        Rise::Address => "brings its addresses up",
    }
}

fn descending(step: Descent) -> &'static str {
    match step {
        Descent::Precopy => "copies ahead while the services run",
        Descent::Stop => "stops its services",
        Descent::Final => "takes the last point",
        Descent::Deliver => "sends the last point",
    }
}

fn falling(step: Fall) -> &'static str {
    match step {
        Fall::Stop => "stops what runs here",
        Fall::Prove => "makes sure that nobody writes here any more",
    }
}

fn mending(step: Mend) -> &'static str {
    match step {
        Mend::Keep => "keeps what was written here and is not of the line as a fork",
        Mend::Aside => "takes the live copy from its path, then stands in",
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::logic::point::Term;

    fn node(name: &str) -> NodeName {
        NodeName::parse(name).unwrap()
    }

    fn term(holder: &str) -> Term {
        Term {
            epoch: 4,
            holder: node(holder),
            nonce: 7,
        }
    }

    /// What alder, with the peers birch and cedar, says of a state; `holder` of the term.
    #[track_caller]
    fn check(state: State, holder: &str, troubled: bool, meaning: &str, next: &str) {
        let peers = BTreeSet::from([node("birch"), node("cedar")]);
        let mut record = Record::standby(node("alder"), peers, term(holder));
        record.state = state;
        let said = outlook(&RoleName::parse("web").unwrap(), &record, troubled);
        let said = said.map(|said| (said.meaning, said.next.unwrap_or_default()));
        assert_eq!(said.unwrap_or_default(), (meaning.into(), next.into()));
    }

    fn waking(up: bool, heard: &[&str]) -> State {
        State::Waking {
            step: Rise::Serve,
            up,
            heard: heard.iter().map(|name| node(name)).collect(),
        }
    }

    #[test]
    fn up() {
        check(State::Active, "alder", true, "", "");
        let step = Rise::Serve;
        let rising = "on its way up: starts its services";
        check(State::Promoting { step }, "alder", false, rising, "");
        let again = "tried again by itself; at once: standin resume web";
        check(State::Promoting { step }, "alder", true, rising, again);
        let resume = "standin resume web, if nobody else plays it";
        let asks = "was active when its daemon ended; asks birch, cedar before it goes on";
        check(waking(false, &[]), "alder", false, asks, resume);
        let asks = "was active when its daemon ended; asks cedar before it goes on; its services run on meanwhile";
        check(waking(true, &["birch"]), "alder", false, asks, resume);
    }

    #[test]
    fn over_and_down() {
        check(State::Standby, "birch", true, "", "");
        let (term, step) = (term("birch"), Descent::Deliver);
        let meaning = "moves to birch: sends the last point";
        let cancel = "standin handover web --cancel calls it off";
        check(
            State::HandingOver { term, step },
            "alder",
            false,
            meaning,
            cancel,
        );
        let meaning = "released to birch under term 4; waits for it to take over";
        let there = "on birch: standin status web";
        check(State::HandedOff, "birch", false, meaning, there);
        let meaning = "birch holds term 4: makes sure that nobody writes here any more";
        let state = || State::Fencing { step: Fall::Prove };
        check(state(), "birch", false, meaning, "");
        let mend = "mend that; it is tried again by itself";
        check(state(), "birch", true, meaning, mend);
        let meaning =
            "stopped; what was written here could not be kept as a fork yet, and nobody touches it";
        let mend = "mend what is in the way; it is tried again by itself";
        check(State::Fenced, "birch", true, meaning, mend);
        let meaning = "takes the live copy from its path, then stands in";
        let state = State::Reconciling { step: Mend::Aside };
        check(state, "birch", false, meaning, "");
    }

    #[test]
    fn two_claims() {
        let state = |up| State::Conflict {
            other: term("birch"),
            step: Rise::Serve,
            up,
        };
        let next = "standin resolve web --keep alder, or --keep birch";
        let meaning = "alder and birch both claim epoch 4; nobody's data is touched";
        check(state(true), "alder", false, meaning, next);
        let meaning = format!("{meaning}; nothing runs here");
        check(state(false), "alder", false, &meaning, next);
    }
}
