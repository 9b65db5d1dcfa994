//! The decision itself: a function a state, a `match` without a wildcard in each, a reason on every arm.

use std::collections::BTreeSet;

use super::event::{Action, Event, Step, Word, Work};
use super::{Descent, Fall, Mend, Record, Rise, State};
use crate::logic::name::NodeName;
use crate::logic::point::Term;

/// What follows from `event`. Total: an event that means nothing here leaves the record as it is, and says why.
pub fn step(record: &Record, event: &Event) -> Step {
    match event {
        Event::Pause => {
            return with(record, |r| r.paused = true)
                .because("nothing starts by itself from now on");
        }
        Event::Unpause => {
            return with(record, |r| r.paused = false).because("things start by themselves again");
        }
        Event::Heard { from, word } => {
            if let Some(step) = outranked(record, from, word) {
                return step;
            }
        }
        _ => {}
    }
    match &record.state {
        State::Standby => standby(record, event),
        State::Promoting { step } => promoting(record, *step, event),
        State::Active => active(record, event),
        State::Waking { step, up, heard } => waking(record, *step, *up, heard, event),
        State::HandingOver { term, step } => handing_over(record, term, *step, event),
        State::HandedOff => handed_off(record, event),
        State::Fencing { step } => fencing(record, *step, event),
        State::Fenced => fenced(record, event),
        State::Reconciling { step } => reconciling(record, *step, event),
        State::Conflict { other, step, up } => conflict(record, other, *step, *up, event),
    }
}

/// What a term that differs from the highest seen means, which is the same in nearly every state.
fn outranked(record: &Record, from: &NodeName, word: &Word) -> Option<Step> {
    let (seen, term) = (&record.seen, &word.term);
    if term.epoch < seen.epoch {
        let step = keep(record).doing([Action::Tell(from.clone())]);
        // The answer counts for who is waking: this peer knows nothing higher.
        let waking = matches!(record.state, State::Waking { .. });
        return (!waking).then(|| step.because("a lower term than the one seen: told which"));
    }
    if term == seen {
        return word.ahead.then(|| older_image(record)).flatten();
    }
    if term.epoch == seen.epoch {
        return Some(same_epoch(record, term));
    }
    let higher = |state: State| {
        with(record, |r| {
            r.seen = term.clone();
            r.state = state;
        })
    };
    Some(match &record.state {
        State::Standby => higher(State::Standby).because("follows the higher term"),
        State::HandedOff => higher(State::Reconciling { step: Mend::Aside })
            .doing([Action::Work(Work::Mend(Mend::Aside))])
            .because("the role went on under a higher term; everything written here was delivered before the release"),
        State::Promoting { .. } | State::Active | State::Waking { .. } | State::HandingOver { .. } | State::Conflict { .. } => {
            higher(State::Fencing { step: Fall::Stop })
                .doing([Action::Work(Work::Fall(Fall::Stop))])
                .because("a higher term is known: stops")
        }
        State::Fencing { .. } | State::Fenced | State::Reconciling { .. } => {
            higher(record.state.clone()).because("one more term; what is under way goes on")
        }
    })
}

/// A peer has more of the held term than this node ever took: somebody put an old disk back.
fn older_image(record: &Record) -> Option<Step> {
    match &record.state {
        State::Waking { .. } => Some(fall(record, Fall::Stop).because(
            "a peer holds points taken here that this disk does not know: the disk is an older image, so this copy is not the one",
        )),
        // The operator resumed it before anybody could say so.
        State::Promoting { .. } | State::Active | State::HandingOver { .. } => {
            Some(same_epoch(record, &record.seen))
        }
        State::Standby
        | State::HandedOff
        | State::Fencing { .. }
        | State::Fenced
        | State::Reconciling { .. }
        | State::Conflict { .. } => None,
    }
}

fn same_epoch(record: &Record, term: &Term) -> Step {
    let alarm = || {
        [Action::Alarm {
            other: term.clone(),
        }]
    };
    let conflict = |step: Rise, up: bool| {
        with(record, |r| {
            r.state = State::Conflict {
                other: term.clone(),
                step,
                up,
            }
        })
        .doing(alarm())
    };
    let both =
        "another node claimed the same epoch: nobody's data is touched, the operator decides";
    match &record.state {
        State::Promoting { step } => conflict(*step, *step != Rise::Live).because(both),
        State::Active => conflict(Rise::Serve, true).because(both),
        State::HandingOver { step, .. } => {
            // While it is stopping, some may still run.
            conflict(Rise::Serve, matches!(step, Descent::Precopy | Descent::Stop)).because(both)
        }
        State::Waking { step, up, .. } => conflict(*step, *up).because(
            "another node claimed the same epoch while this one was away: starts nothing, the operator decides",
        ),
        State::Conflict { .. } => keep(record)
            .doing(alarm())
            .because("still two claims of one epoch"),
        State::Standby
        | State::HandedOff
        | State::Fencing { .. }
        | State::Fenced
        | State::Reconciling { .. } => keep(record).doing(alarm()).because(
            "two claims of one epoch: follows the one heard first, takes nothing of the other",
        ),
    }
}

fn standby(record: &Record, event: &Event) -> Step {
    match event {
        Event::Started { .. } => keep(record).because("stands in, as before"),
        Event::Heard { .. } => keep(record).because("nothing new"),
        Event::Promote { term } => claim(record, term),
        Event::Granted { by, term } => granted(record, by, term),
        Event::HandOver { .. } => refuse(record, "only the active node can hand over"),
        Event::Cancel => refuse(record, "no hand-over is under way"),
        Event::Accepted { .. } => keep(record).because("an old answer"),
        Event::Resume => refuse(record, "stands in; to make it active, promote it"),
        Event::Stay { .. } | Event::Yield => refuse(record, "there is no conflict here"),
        Event::Done(_) | Event::Failed(_) => keep(record).because("an old answer"),
        Event::Retry => keep(record).because("nothing to try again"),
        Event::Pause | Event::Unpause => keep(record).because("seen to before"),
    }
}

fn promoting(record: &Record, at: Rise, event: &Event) -> Step {
    match event {
        Event::Started { serving } => wake(record, at, *serving),
        Event::Heard { .. } => keep(record).because("nothing new"),
        Event::Done(Work::Rise(done)) if *done == at => match at {
            Rise::Live => rise(record, Rise::Serve).because("the data is live: services next"),
            Rise::Serve => rise(record, Rise::Address).because("services run: addresses next"),
            Rise::Address => with(record, |r| r.state = State::Active)
                .doing([Action::TellAll])
                .because("plays the role"),
        },
        Event::Failed(Work::Rise(failed)) if *failed == at => match at {
            Rise::Live => with(record, |r| {
                r.state = State::Standby;
                r.spent = r.held.take();
            })
            .because("nothing was made writable: the term is burnt, which harms nobody"),
            Rise::Serve | Rise::Address => keep(record)
                .because("tried again: the data is live here and may have been written to"),
        },
        Event::Retry => rise(record, at).because("tries the step again"),
        Event::Granted { by, term } if *term == record.seen => keep(record)
            .doing([Action::Accept(by.clone())])
            .because("the grant it already has; the answer was lost"),
        Event::Done(_) | Event::Failed(_) | Event::Granted { .. } | Event::Accepted { .. } => {
            keep(record).because("an old answer")
        }
        Event::Promote { .. } => refuse(record, "is being promoted already"),
        Event::HandOver { .. } => refuse(record, "is on its way up; hand over when it is active"),
        Event::Cancel => refuse(record, "no hand-over is under way"),
        Event::Resume => rise(record, at).because("tries the step again"),
        Event::Stay { .. } | Event::Yield => refuse(record, "there is no conflict here"),
        Event::Pause | Event::Unpause => keep(record).because("seen to before"),
    }
}

fn active(record: &Record, event: &Event) -> Step {
    match event {
        Event::Started { serving } => wake(record, Rise::Serve, *serving),
        Event::Heard { .. } => keep(record).because("nothing new"),
        Event::HandOver { term } if term.epoch <= record.seen.epoch => {
            refuse(record, "not a higher term")
        }
        Event::HandOver { term } if record.peers.contains(&term.holder) => {
            descend(record, term, Descent::Precopy).because("copies ahead while the services run")
        }
        Event::HandOver { .. } => refuse(record, "the role has no such peer"),
        Event::Granted { by, term } if *term == record.seen => keep(record)
            .doing([Action::Accept(by.clone())])
            .because("the grant it already has; the answer was lost"),
        Event::Promote { .. } | Event::Resume => refuse(record, "is active already"),
        Event::Cancel => refuse(record, "no hand-over is under way"),
        Event::Stay { .. } | Event::Yield => refuse(record, "there is no conflict here"),
        Event::Granted { .. } | Event::Accepted { .. } | Event::Done(_) | Event::Failed(_) => {
            keep(record).because("an old answer")
        }
        Event::Retry => keep(record).because("nothing to try again"),
        Event::Pause | Event::Unpause => keep(record).because("seen to before"),
    }
}

fn waking(record: &Record, at: Rise, up: bool, heard: &BTreeSet<NodeName>, event: &Event) -> Step {
    match event {
        Event::Started { serving } => wake(record, at, *serving),
        Event::Heard { from, word } => {
            let lower = word.term.epoch < record.seen.epoch;
            let tell = lower.then(|| Action::Tell(from.clone()));
            let mut heard = heard.clone();
            heard.insert(from.clone());
            if record.peers.is_subset(&heard) {
                return rise(record, at)
                    .doing(tell)
                    .because("every peer answered with nothing higher: goes on");
            }
            with(record, |r| {
                r.state = State::Waking {
                    step: at,
                    up,
                    heard,
                }
            })
            .doing(tell)
            .because("one peer less to ask")
        }
        Event::Resume => {
            rise(record, at).because("the operator says that nobody else played it: goes on")
        }
        Event::Retry => keep(record).doing([Action::AskPeers]).because("asks again"),
        Event::Promote { .. } => refuse(
            record,
            "held the role when it ended; `resume` it, or wait until every peer has answered",
        ),
        Event::HandOver { .. } => refuse(record, "is not active; `resume` it first"),
        Event::Cancel => refuse(record, "no hand-over is under way"),
        Event::Stay { .. } | Event::Yield => refuse(record, "there is no conflict here"),
        Event::Granted { by, term } if *term == record.seen => keep(record)
            .doing([Action::Accept(by.clone())])
            .because("the grant it already has; the answer was lost"),
        Event::Granted { .. } | Event::Accepted { .. } | Event::Done(_) | Event::Failed(_) => {
            keep(record).because("an old answer")
        }
        Event::Pause | Event::Unpause => keep(record).because("seen to before"),
    }
}

fn handing_over(record: &Record, term: &Term, at: Descent, event: &Event) -> Step {
    match event {
        Event::Started { serving } => wake(record, Rise::Serve, *serving),
        Event::Heard { .. } => keep(record).because("nothing new"),
        Event::Done(Work::Descent(done)) if *done == at => match at {
            Descent::Precopy => {
                descend(record, term, Descent::Stop).because("little is left: stops")
            }
            Descent::Stop => {
                descend(record, term, Descent::Final).because("nobody writes: takes the last point")
            }
            Descent::Final => {
                descend(record, term, Descent::Deliver).because("sends the last point")
            }
            Descent::Deliver => released(record, term),
        },
        Event::Failed(Work::Descent(failed)) if *failed == at => turn_back(
            record,
            at,
            "the hand-over failed before the release: goes on itself",
        ),
        Event::Cancel => turn_back(
            record,
            at,
            "the operator called it off before the release: goes on itself",
        ),
        Event::Done(_) | Event::Failed(_) | Event::Granted { .. } | Event::Accepted { .. } => {
            keep(record).because("an old answer")
        }
        Event::Retry => keep(record).because("the step is under way"),
        Event::Promote { .. } | Event::Resume => refuse(record, "is active and handing over"),
        Event::HandOver { .. } => refuse(record, "is handing over already"),
        Event::Stay { .. } | Event::Yield => refuse(record, "there is no conflict here"),
        Event::Pause | Event::Unpause => keep(record).because("seen to before"),
    }
}

fn handed_off(record: &Record, event: &Event) -> Step {
    let to = &record.seen.holder;
    let grant = || keep(record).doing([Action::Grant]);
    match event {
        Event::Started { .. } => grant().because("released before it ended: grants again"),
        Event::Retry => grant().because("no answer yet: grants again"),
        Event::Heard { from, word } if word.plays && from == to => mend(record, Mend::Aside)
            .because("the other plays the role: takes the live copy from its path"),
        Event::Heard { .. } => keep(record).because("nothing new"),
        Event::Accepted { by, term } if by == to && *term == record.seen => {
            mend(record, Mend::Aside).because(
                "the other holds the term, nothing was lost: takes the live copy from its path",
            )
        }
        Event::Promote { term } => claim(record, term),
        Event::Resume => refuse(
            record,
            "the role was released; if the other node is dead, promote this one",
        ),
        Event::HandOver { .. } => refuse(record, "the role was released already"),
        Event::Cancel => refuse(record, "the role was released: it can only be handed back"),
        Event::Stay { .. } | Event::Yield => refuse(record, "there is no conflict here"),
        Event::Granted { .. } | Event::Accepted { .. } | Event::Done(_) | Event::Failed(_) => {
            keep(record).because("an old answer")
        }
        Event::Pause | Event::Unpause => keep(record).because("seen to before"),
    }
}

fn fencing(record: &Record, at: Fall, event: &Event) -> Step {
    match event {
        Event::Started { .. } => fall(record, Fall::Stop)
            .because("stops again from the beginning: nobody knows what started meanwhile"),
        Event::Heard { .. } => keep(record).because("nothing new"),
        Event::Done(Work::Fall(done)) if *done == at => match at {
            Fall::Stop => {
                fall(record, Fall::Prove).because("services are stopped: is anybody writing?")
            }
            Fall::Prove => {
                mend(record, Mend::Keep).because("nobody writes: keeps what was written here")
            }
        },
        Event::Failed(Work::Fall(failed)) if *failed == at => {
            keep(record).because("not stopped yet: tried again")
        }
        Event::Retry => fall(record, Fall::Stop).because("stops again"),
        Event::Promote { .. } | Event::Resume => {
            refuse(record, "a higher term is known; it is being stopped")
        }
        Event::HandOver { .. } => refuse(
            record,
            "a higher term is known: there is nothing to hand over",
        ),
        Event::Cancel => refuse(record, "no hand-over is under way"),
        Event::Stay { .. } | Event::Yield => refuse(record, "there is no conflict here"),
        Event::Granted { .. } | Event::Accepted { .. } | Event::Done(_) | Event::Failed(_) => {
            keep(record).because("an old answer")
        }
        Event::Pause | Event::Unpause => keep(record).because("seen to before"),
    }
}

fn fenced(record: &Record, event: &Event) -> Step {
    match event {
        Event::Started { .. } => fall(record, Fall::Stop)
            .because("makes sure that nothing runs, then tries to keep the fork"),
        Event::Retry => mend(record, Mend::Keep).because("tries to keep the fork again"),
        Event::Heard { .. } => keep(record).because("nothing new"),
        Event::Promote { .. } => refuse(
            record,
            "what was written here is not in safety yet; make room, then try again",
        ),
        Event::Resume => refuse(record, "a higher term is known; it can never be overridden"),
        Event::HandOver { .. } => refuse(record, "is not active"),
        Event::Cancel => refuse(record, "no hand-over is under way"),
        Event::Stay { .. } | Event::Yield => refuse(record, "there is no conflict here"),
        Event::Granted { .. } | Event::Accepted { .. } | Event::Done(_) | Event::Failed(_) => {
            keep(record).because("an old answer")
        }
        Event::Pause | Event::Unpause => keep(record).because("seen to before"),
    }
}

fn reconciling(record: &Record, at: Mend, event: &Event) -> Step {
    match event {
        Event::Started { .. } => {
            fall(record, Fall::Stop).because("makes sure that nothing runs, then goes on")
        }
        Event::Heard { .. } => keep(record).because("nothing new"),
        Event::Done(Work::Mend(done)) if *done == at => match at {
            Mend::Keep => mend(record, Mend::Aside)
                .because("the fork is kept: takes the live copy from its path"),
            Mend::Aside => with(record, |r| {
                r.state = State::Standby;
                // After a hand-over it was given up already.
                r.spent = r.held.take().or(r.spent.take());
            })
            .because("stands in, and catches up by the difference"),
        },
        Event::Failed(Work::Mend(failed)) if *failed == at => match at {
            Mend::Keep => with(record, |r| r.state = State::Fenced)
                .because("the fork cannot be kept: nothing is touched until it can"),
            Mend::Aside => keep(record).because("tried again"),
        },
        Event::Retry => mend(record, at).because("tries the step again"),
        Event::Promote { .. } | Event::Resume => {
            refuse(record, "is being reconciled; wait until it stands in")
        }
        Event::HandOver { .. } => refuse(record, "is not active"),
        Event::Cancel => refuse(record, "no hand-over is under way"),
        Event::Stay { .. } | Event::Yield => refuse(record, "there is no conflict here"),
        Event::Granted { .. } | Event::Accepted { .. } | Event::Done(_) | Event::Failed(_) => {
            keep(record).because("an old answer")
        }
        Event::Pause | Event::Unpause => keep(record).because("seen to before"),
    }
}

fn conflict(record: &Record, other: &Term, at: Rise, up: bool, event: &Event) -> Step {
    let alarm = || Action::Alarm {
        other: other.clone(),
    };
    match event {
        Event::Started { serving } => {
            let up = up && *serving;
            with(record, |r| {
                r.state = State::Conflict {
                    other: other.clone(),
                    step: at,
                    up,
                }
            })
            .doing([alarm()])
            .because("the conflict is not resolved: starts nothing")
        }
        Event::Heard { .. } => keep(record).because("nothing new"),
        Event::Stay { term } if term.epoch > record.seen.epoch && term.holder == record.node => {
            with(record, |r| {
                r.seen = term.clone();
                r.held = Some(term.clone());
                r.state = State::Promoting { step: at };
            })
            .doing([Action::TellAll, Action::Work(Work::Rise(at))])
            .because("the operator keeps this node: a higher term, and the other will fence itself")
        }
        Event::Stay { .. } => refuse(record, "not a higher term of this node"),
        Event::Yield => fall(record, Fall::Stop)
            .because("the operator keeps the other node: stops, and keeps what was written here"),
        Event::Retry => keep(record)
            .doing([alarm()])
            .because("still two claims of one epoch"),
        Event::Promote { .. } | Event::Resume | Event::HandOver { .. } => refuse(
            record,
            "two nodes claim the same epoch; `resolve` that first",
        ),
        Event::Cancel => refuse(record, "no hand-over is under way"),
        Event::Granted { .. } | Event::Accepted { .. } | Event::Done(_) | Event::Failed(_) => {
            keep(record).because("an old answer")
        }
        Event::Pause | Event::Unpause => keep(record).because("seen to before"),
    }
}

/// Term before writable: the record with the term is on disk before the live copy is made.
fn claim(record: &Record, term: &Term) -> Step {
    if term.epoch <= record.seen.epoch || term.holder != record.node {
        return refuse(record, "not a higher term of this node");
    }
    with(record, |r| hold(r, term))
        .doing([Action::TellAll, Action::Work(Work::Rise(Rise::Live))])
        .because("holds the term; makes the data live next")
}

/// The same, by a grant. The term may be known already: from the greeting of the node that released it.
fn granted(record: &Record, by: &NodeName, term: &Term) -> Step {
    let fresh = term.epoch > record.seen.epoch || *term == record.seen;
    // A grant that was said twice must not revive a term that this node has let go.
    let spent = record.spent.as_ref() == Some(term);
    if !fresh || spent || term.holder != record.node {
        return keep(record)
            .doing([Action::Tell(by.clone())])
            .because("an old grant: told what is known here");
    }
    with(record, |r| hold(r, term))
        .doing([
            Action::Accept(by.clone()),
            Action::Work(Work::Rise(Rise::Live)),
        ])
        .because("holds the term it was given; makes the data live next")
}

fn hold(record: &mut Record, term: &Term) {
    record.seen = term.clone();
    record.held = Some(term.clone());
    record.state = State::Promoting { step: Rise::Live };
}

/// Never wake up active: what runs keeps running, nothing is started, until the peers have answered.
fn wake(record: &Record, at: Rise, up: bool) -> Step {
    if record.peers.is_empty() {
        return rise(record, at).because("has no peers who could know better: goes on");
    }
    with(record, |r| {
        r.state = State::Waking {
            step: at,
            up,
            heard: BTreeSet::new(),
        }
    })
    .doing([Action::AskPeers])
    .because("was up when it ended: asks every peer before it goes on")
}

/// The point of no return: the release is on disk before the grant is said.
fn released(record: &Record, term: &Term) -> Step {
    with(record, |r| {
        r.seen = term.clone();
        r.spent = r.held.take();
        r.state = State::HandedOff;
    })
    .doing([Action::Grant])
    .because("everything is delivered: released, there is no way back")
}

fn turn_back(record: &Record, at: Descent, why: &'static str) -> Step {
    match at {
        Descent::Precopy => with(record, |r| r.state = State::Active).because(why),
        Descent::Stop | Descent::Final | Descent::Deliver => rise(record, Rise::Serve).because(why),
    }
}

fn rise(record: &Record, at: Rise) -> Step {
    with(record, |r| r.state = State::Promoting { step: at }).doing([Action::Work(Work::Rise(at))])
}

fn descend(record: &Record, term: &Term, at: Descent) -> Step {
    with(record, |r| {
        r.state = State::HandingOver {
            term: term.clone(),
            step: at,
        }
    })
    .doing([Action::Work(Work::Descent(at))])
}

fn fall(record: &Record, at: Fall) -> Step {
    with(record, |r| r.state = State::Fencing { step: at }).doing([Action::Work(Work::Fall(at))])
}

fn mend(record: &Record, at: Mend) -> Step {
    with(record, |r| r.state = State::Reconciling { step: at })
        .doing([Action::Work(Work::Mend(at))])
}

pub(in crate::logic) fn keep(record: &Record) -> Step {
    with(record, |_| {})
}

pub(in crate::logic) fn refuse(record: &Record, why: &'static str) -> Step {
    Step {
        refused: true,
        ..keep(record).because(why)
    }
}

pub(in crate::logic) fn with(record: &Record, change: impl FnOnce(&mut Record)) -> Step {
    let mut record = record.clone();
    change(&mut record);
    Step {
        record,
        actions: Vec::new(),
        why: "",
        refused: false,
    }
}

impl Step {
    pub(in crate::logic) fn doing(mut self, actions: impl IntoIterator<Item = Action>) -> Step {
        self.actions.extend(actions);
        self
    }

    pub(in crate::logic) fn because(mut self, why: &'static str) -> Step {
        self.why = why;
        self
    }
}
