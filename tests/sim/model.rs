//! Every order in which things can happen to two nodes, up to a few crashes, claims and writes: an exhaustive search
//! (stateright) over the same function, the same data and the same messages as the seeded simulation.
//!
//! The operators are honest here (see `World::honest`), so that the strongest property must hold: never two that serve.

use std::collections::BTreeSet;

use standin::logic::name::NodeName;
use standin::logic::point::{PointId, Term};
use standin::logic::role::{Descent, Rise};
use standin::logic::role::{Event, Record, State, Work, step};
use stateright::{Checker, Model, Property};

use crate::disk::{Disk, Point};
use crate::node::{self, Message, Node};

/// How much may happen.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    pub crashes: u8,
    pub claims: u8,
    pub writes: u8,
    pub points: u8,
    /// Messages under way at once.
    pub mail: usize,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Now {
    nodes: [Node; 2],
    /// Under way, sorted, the same message once. Delivered in any order or never.
    mail: Vec<(usize, Message)>,
    crashes: u8,
    claims: u8,
    writes: u8,
    points: u8,
    /// What went wrong at the last step.
    broken: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Happening {
    Deliver(usize, Message),
    Finish(usize),
    Fail(usize),
    Crash(usize, bool),
    Start(usize),
    Replicate(usize),
    Write(usize),
    Promote(usize),
    HandOver(usize),
    Retry(usize),
}

fn name(at: usize) -> NodeName {
    NodeName::parse(["alder", "birch"][at]).unwrap()
}

fn index(name: &NodeName) -> usize {
    usize::from(name.as_str() == "birch")
}

impl Model for Bounds {
    type State = Now;
    type Action = Happening;

    fn init_states(&self) -> Vec<Now> {
        let first = Term {
            epoch: 1,
            holder: name(0),
            nonce: 0,
        };
        let empty = Point {
            id: PointId {
                term: first.clone(),
                sequence: 1,
            },
            content: Vec::new(),
        };
        let nodes = [0, 1].map(|at| {
            let home = at == 0;
            let mut record =
                Record::standby(name(at), BTreeSet::from([name(1 - at)]), first.clone());
            if home {
                record.held = Some(first.clone());
                record.state = State::Active;
            }
            let disk = Disk {
                record,
                live: home.then(|| (first.clone(), Vec::new())),
                points: vec![empty.clone()],
                forks: Vec::new(),
                base: None,
            };
            Node {
                disk,
                up: true,
                serving: home,
                work: None,
                point: None,
            }
        });
        vec![Now {
            nodes,
            mail: Vec::new(),
            crashes: 0,
            claims: 0,
            writes: 0,
            points: 0,
            broken: None,
        }]
    }

    fn actions(&self, now: &Now, actions: &mut Vec<Happening>) {
        if now.broken.is_some() {
            return;
        }
        for (to, message) in &now.mail {
            actions.push(Happening::Deliver(*to, message.clone()));
        }
        for (at, node) in now.nodes.iter().enumerate() {
            let record = &node.disk.record;
            if !node.up {
                actions.push(Happening::Start(at));
                continue;
            }
            if node.work.is_some() {
                actions.extend([Happening::Finish(at), Happening::Fail(at)]);
            }
            if now.crashes < self.crashes {
                actions.extend([Happening::Crash(at, false), Happening::Crash(at, true)]);
            }
            if node.serving && now.writes < self.writes {
                actions.push(Happening::Write(at));
            }
            if record.takes_points() && now.points < self.points {
                actions.push(Happening::Replicate(at));
            }
            let asks = matches!(
                record.state,
                State::Waking { .. } | State::HandedOff | State::Fencing { .. }
            );
            if asks && node.work.is_none() {
                actions.push(Happening::Retry(at));
            }
            let claims = now.claims < self.claims;
            if claims && record.state == State::Active {
                actions.push(Happening::HandOver(at));
            }
            // An honest operator: the other is off, or says itself that it plays no part.
            let other = &now.nodes[1 - at];
            let off = !other.up && !other.serving;
            let free =
                off || (other.up && !other.disk.record.plays() && !other.disk.record.writable());
            let may = match record.state {
                State::Standby => free && other.disk.record.seen.epoch <= record.seen.epoch,
                State::HandedOff => off,
                _ => false,
            };
            if claims && may {
                actions.push(Happening::Promote(at));
            }
        }
    }

    fn next_state(&self, now: &Now, happening: Happening) -> Option<Now> {
        let mut next = now.clone();
        let before = now.clone();
        match happening {
            Happening::Deliver(to, message) => {
                next.mail
                    .retain(|under_way| *under_way != (to, message.clone()));
                if next.nodes[to].up {
                    let event = next.nodes[to].event(&name(1 - to), &message);
                    next.happens(to, &event);
                    next.nodes[to].take_in(&message);
                    if matches!(message, Message::Word { answer: false, .. }) {
                        next.act(to, standin::logic::role::Action::Tell(name(1 - to)));
                    }
                }
            }
            Happening::Finish(at) => {
                let work = next.nodes[at].work.take()?;
                let done = next.carry_out(at, work);
                next.happens(
                    at,
                    &if done {
                        Event::Done(work)
                    } else {
                        Event::Failed(work)
                    },
                );
            }
            Happening::Fail(at) => {
                let work = next.nodes[at].work.take()?;
                next.happens(at, &Event::Failed(work));
            }
            Happening::Crash(at, machine) => {
                next.crashes += 1;
                // The effect of the work may have come to pass, and nobody knows.
                if let Some(work) = next.nodes[at]
                    .work
                    .filter(|work| *work != Work::Rise(Rise::Live))
                {
                    next.carry_out(at, work);
                }
                next.nodes[at].die(machine);
                next.mail.retain(|(to, _)| *to != at);
            }
            Happening::Start(at) => {
                next.nodes[at].up = true;
                let serving = next.nodes[at].serving;
                next.happens(at, &Event::Started { serving });
            }
            Happening::Replicate(at) => {
                next.points += 1;
                next.nodes[at].disk.take_point();
                let line = next.nodes[at].line();
                next.post(1 - at, line);
            }
            Happening::Write(at) => {
                next.writes += 1;
                let (_, content) = next.nodes[at].disk.live.as_mut()?;
                content.push(u64::from(next.writes));
            }
            Happening::Promote(at) => {
                next.claims += 1;
                next.happens(
                    at,
                    &Event::Promote {
                        term: next.claim(at, at),
                    },
                );
            }
            Happening::HandOver(at) => {
                next.claims += 1;
                next.happens(
                    at,
                    &Event::HandOver {
                        term: next.claim(at, 1 - at),
                    },
                );
            }
            Happening::Retry(at) => next.happens(at, &Event::Retry),
        }
        (next != before).then_some(next)
    }

    fn within_boundary(&self, now: &Now) -> bool {
        now.mail.len() <= self.mail
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::<Self>::always("no two nodes serve", |_, now| {
                !now.nodes.iter().all(|node| node.serving)
            }),
            Property::<Self>::always("every write is somewhere", |_, now| {
                let mut all = BTreeSet::new();
                now.nodes.iter().for_each(|node| node.disk.writes(&mut all));
                all.len() == usize::from(now.writes)
            }),
            Property::<Self>::always("serves only where it may", |_, now| {
                now.nodes.iter().all(|node| node.check().is_ok())
            }),
            Property::<Self>::always("releases what is delivered", |_, now| now.broken.is_none()),
            Property::<Self>::sometimes("the role moves", |_, now| {
                now.nodes[1].disk.record.state == State::Active
            }),
            Property::<Self>::sometimes("the role comes back", |_, now| {
                now.nodes[0].disk.record.state == State::Active
                    && now.nodes[0].disk.record.seen.epoch == 3
            }),
            Property::<Self>::sometimes("a fork is kept", |_, now| {
                !now.nodes[0].disk.forks.is_empty()
            }),
        ]
    }
}

impl Now {
    fn claim(&self, at: usize, holder: usize) -> Term {
        let epoch = self.nodes[at].disk.record.seen.epoch + 1;
        Term {
            epoch,
            holder: name(holder),
            nonce: at as u64,
        }
    }

    fn happens(&mut self, at: usize, event: &Event) {
        let before = self.nodes[at].disk.record.clone();
        let step = step(&before, event);
        if step.record.state == State::HandedOff && before.state != State::HandedOff {
            self.broken = node::released(&self.nodes[at], &self.nodes[1 - at]).err();
        }
        self.nodes[at].disk.record = step.record;
        for action in step.actions {
            self.act(at, action);
        }
    }

    fn act(&mut self, at: usize, action: standin::logic::role::Action) {
        for (to, message) in self.nodes[at].act(action) {
            self.post(index(&to), message);
        }
    }

    fn post(&mut self, to: usize, message: Message) {
        // A connection to a node that is down carries nothing, not even later.
        if self.nodes[to].up {
            let message = (to, message);
            if !self.mail.contains(&message) {
                self.mail.push(message);
                // Two orders of the same messages are one state.
                self.mail
                    .sort_by_cached_key(|message| format!("{message:?}"));
            }
        }
    }

    fn carry_out(&mut self, at: usize, work: Work) -> bool {
        if work != Work::Descent(Descent::Deliver) {
            return self.nodes[at].carry_out(work);
        }
        let mut other = self.nodes[1 - at].clone();
        let whole = self.nodes[at].deliver(&mut other);
        self.nodes[1 - at] = other;
        whole
    }
}

/// Searches everything within the bounds; how many states there are.
pub fn search(bounds: Bounds) -> Result<usize, String> {
    let checker = bounds.checker().threads(2).spawn_bfs().join();
    let found: Vec<String> = checker
        .discoveries()
        .into_iter()
        .filter(|(property, _)| {
            !["the role moves", "the role comes back", "a fork is kept"].contains(property)
        })
        .map(|(property, path)| format!("not so: {property}\n{path}"))
        .collect();
    if let Some(first) = found.into_iter().next() {
        return Err(first);
    }
    for wanted in ["the role moves", "the role comes back", "a fork is kept"] {
        if checker.discovery(wanted).is_none() {
            return Err(format!("it never happens: {wanted}"));
        }
    }
    Ok(checker.unique_state_count())
}
