//! All states and all events, as docs/roles.md shows them.

use std::collections::BTreeSet;
use std::fmt::Write;

use expect_test::expect_file;
use standin::logic::name::NodeName;
use standin::logic::point::Term;
use standin::logic::role::{Descent, Event, Fall, Mend, Record, Rise, State, Word, Work, step};

pub fn node(name: &str) -> NodeName {
    NodeName::parse(name).unwrap()
}

/// Epoch, holder, nonce.
pub fn term(epoch: u64, holder: &str, nonce: u64) -> Term {
    Term {
        epoch,
        holder: node(holder),
        nonce,
    }
}

/// alder, whose peers are birch and cedar, and which knows term 5.
fn record(state: State) -> Record {
    let holder = if matches!(state, State::Standby | State::HandedOff) {
        "birch"
    } else {
        "alder"
    };
    let mut record = Record::standby(
        node("alder"),
        BTreeSet::from([node("birch"), node("cedar")]),
        term(5, holder, 0),
    );
    record.held = (holder == "alder").then(|| record.seen.clone());
    record.state = state;
    record
}

pub fn states() -> Vec<State> {
    let mut states = vec![State::Standby];
    states.extend([Rise::Live, Rise::Serve, Rise::Address].map(|step| State::Promoting { step }));
    states.push(State::Active);
    let heard = || BTreeSet::from([node("cedar")]);
    states.extend([Rise::Live, Rise::Serve].map(|step| State::Waking {
        step,
        up: true,
        heard: heard(),
    }));
    let descent = [
        Descent::Precopy,
        Descent::Stop,
        Descent::Final,
        Descent::Deliver,
    ];
    states.extend(descent.map(|step| State::HandingOver {
        term: term(6, "birch", 1),
        step,
    }));
    states.push(State::HandedOff);
    states.extend([Fall::Stop, Fall::Prove].map(|step| State::Fencing { step }));
    states.push(State::Fenced);
    states.extend([Mend::Keep, Mend::Aside].map(|step| State::Reconciling { step }));
    states.extend([true, false].map(|up| State::Conflict {
        other: term(5, "birch", 9),
        step: Rise::Serve,
        up,
    }));
    states
}

/// The work a state has under way.
fn work(state: &State) -> Option<Work> {
    match state {
        State::Promoting { step } => Some(Work::Rise(*step)),
        State::HandingOver { step, .. } => Some(Work::Descent(*step)),
        State::Fencing { step } => Some(Work::Fall(*step)),
        State::Reconciling { step } => Some(Work::Mend(*step)),
        State::Standby
        | State::Active
        | State::Waking { .. }
        | State::HandedOff
        | State::Fenced
        | State::Conflict { .. } => None,
    }
}

/// Every event, each with the words it has in the table.
fn events(record: &Record) -> Vec<(&'static str, Event)> {
    let heard = |term: Term, plays| Event::Heard {
        from: node("birch"),
        word: Word {
            term,
            plays,
            ahead: false,
        },
    };
    let ahead = Word {
        term: record.seen.clone(),
        plays: false,
        ahead: true,
    };
    let now = record.seen.clone();
    let mut events = vec![
        (
            "daemon starts, services run",
            Event::Started { serving: true },
        ),
        (
            "daemon starts, nothing runs",
            Event::Started { serving: false },
        ),
        ("hears a lower term", heard(term(4, "cedar", 0), true)),
        ("hears its own term", heard(now.clone(), false)),
        (
            "hears its own term, from the node that plays",
            heard(now.clone(), true),
        ),
        (
            "hears its own term, from a node with newer points of it",
            Event::Heard {
                from: node("birch"),
                word: ahead,
            },
        ),
        (
            "hears another claim of the epoch",
            heard(term(5, "birch", 9), true),
        ),
        ("hears a higher term", heard(term(6, "birch", 0), true)),
        (
            "promote",
            Event::Promote {
                term: term(6, "alder", 3),
            },
        ),
        (
            "promote under an old term",
            Event::Promote {
                term: term(5, "alder", 3),
            },
        ),
        (
            "hand over to a peer",
            Event::HandOver {
                term: term(6, "birch", 3),
            },
        ),
        (
            "hand over to a stranger",
            Event::HandOver {
                term: term(6, "dogwood", 3),
            },
        ),
        ("cancel", Event::Cancel),
        (
            "is granted a higher term",
            Event::Granted {
                by: node("birch"),
                term: term(6, "alder", 1),
            },
        ),
        (
            "is granted its own term again",
            Event::Granted {
                by: node("birch"),
                term: now.clone(),
            },
        ),
        (
            "is granted an old term",
            Event::Granted {
                by: node("birch"),
                term: term(4, "alder", 1),
            },
        ),
    ];
    events.extend(rest(now));
    if let Some(work) = work(&record.state) {
        // For the one state whose own work the other two above are.
        events.retain(|(_, event)| *event != Event::Done(work) && *event != Event::Failed(work));
        events.push(("its work is done", Event::Done(work)));
        events.push(("its work failed", Event::Failed(work)));
    }
    events
}

fn rest(now: Term) -> Vec<(&'static str, Event)> {
    vec![
        (
            "its grant is accepted",
            Event::Accepted {
                by: node("birch"),
                term: now,
            },
        ),
        ("resume", Event::Resume),
        (
            "resolve: keep this node",
            Event::Stay {
                term: term(6, "alder", 4),
            },
        ),
        (
            "resolve: keep this node, old term",
            Event::Stay {
                term: term(5, "alder", 4),
            },
        ),
        ("resolve: keep the other", Event::Yield),
        ("other work is done", Event::Done(Work::Mend(Mend::Keep))),
        ("other work failed", Event::Failed(Work::Mend(Mend::Keep))),
        ("time to retry", Event::Retry),
        ("pause", Event::Pause),
        ("unpause", Event::Unpause),
    ]
}

fn page() -> String {
    let mut page = "\
# Roles: every state, every event

What the node alder, whose peers are birch and cedar, does when it is in a state and something happens.
The states are drawn in `src/logic/role/mod.rs`; this table is written by a test: `UPDATE_EXPECT=1 cargo test --test roles`.
Whatever follows, the new record is on disk before anything else is done.
Who acts on it is `src/daemon/supervisor.rs` ([0018](decisions/0018-role-supervisor.md)); for operators there is [failover.md](failover.md).
"
    .to_owned();
    for state in states() {
        let record = record(state);
        let mut ignored = Vec::new();
        let mut refused = Vec::new();
        write!(
            page,
            "\n## {}\n\n| when it | becomes | and does | because |\n|---|---|---|---|\n",
            record.state
        )
        .unwrap();
        for (words, event) in events(&record) {
            let step = step(&record, &event);
            let actions: Vec<String> = step
                .actions
                .iter()
                .map(|action| action.to_string())
                .collect();
            if step.refused {
                refused.push(format!("- {words}: {}", step.why));
            } else if step.record == record && actions.is_empty() {
                ignored.push(format!("{words} ({})", step.why));
            } else {
                writeln!(
                    page,
                    "| {words} | {} | {} | {} |",
                    step.record.state,
                    actions.join(", "),
                    step.why
                )
                .unwrap();
            }
        }
        write!(
            page,
            "\nRefused:\n\n{}\n\nNothing follows from: {}.\n",
            refused.join("\n"),
            ignored.join("; ")
        )
        .unwrap();
    }
    page
}

#[test]
fn the_table_is_documented() {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/roles.md");
    expect_file![path].assert_eq(&page());
}

/// What holds for every state and event.
#[test]
fn every_step() {
    for state in states() {
        let before = record(state);
        for (words, event) in events(&before) {
            let after = step(&before, &event);
            let context = format!("{}: {words}", before.state);
            assert!(!after.why.is_empty(), "{context}");
            assert!(
                after.record.seen.epoch >= before.seen.epoch,
                "{context}: the term seen fell"
            );
            if after.record.seen.epoch == before.seen.epoch {
                assert_eq!(
                    after.record.seen, before.seen,
                    "{context}: another claim of the epoch was taken over"
                );
            }
            if let Some(held) = &after.record.held {
                assert_eq!(
                    held.holder,
                    node("alder"),
                    "{context}: holds a term of another node"
                );
            }
            if after.record.plays() {
                assert_eq!(
                    after.record.held.as_ref(),
                    Some(&after.record.seen),
                    "{context}: plays without holding"
                );
            }
            if after.refused {
                assert_eq!(after.record, before, "{context}: refused, and changed");
                assert!(
                    after.actions.is_empty(),
                    "{context}: refused, and did something"
                );
            }
            // What was written here is given up by two ways only: delivered whole, or kept as a fork.
            if before.held.is_some() && after.record.held.is_none() {
                let ways = matches!(after.record.state, State::HandedOff)
                    || matches!(before.state, State::Reconciling { step: Mend::Aside })
                    || matches!(before.state, State::Promoting { step: Rise::Live });
                assert!(ways, "{context}: the live copy is forgotten");
            }
        }
    }
}
