//! A node and what it says, without chance: what its work does to its disk, and which messages an action makes. The seeded
//! world and the exhaustive model share it.

use standin::logic::name::NodeName;
use standin::logic::point::{PointId, Term};
use standin::logic::role::{Action, Descent, Event, Fall, Mend, Rise, State, Word, Work};

use crate::disk::{Disk, Point};

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Node {
    pub disk: Disk,
    /// The daemon runs.
    pub up: bool,
    /// The services run: they outlive a daemon, not a machine.
    pub serving: bool,
    /// Work asked for and not done yet.
    pub work: Option<Work>,
    /// The point to be promoted from, as the operator was shown.
    pub point: Option<PointId>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Message {
    Word {
        term: Term,
        plays: bool,
        newest: Option<PointId>,
        answer: bool,
    },
    Line {
        term: Term,
        base: Option<(Term, PointId)>,
        points: Vec<Point>,
    },
    Grant {
        term: Term,
    },
    Accept {
        term: Term,
    },
}

impl Node {
    /// What an action makes of the node; the messages it sends.
    pub fn act(&mut self, action: Action) -> Vec<(NodeName, Message)> {
        let record = &self.disk.record;
        let term = record.seen.clone();
        match action {
            Action::Work(work) => {
                self.work = Some(work);
                Vec::new()
            }
            Action::AskPeers | Action::TellAll => {
                let peers = record.peers.iter();
                peers.map(|peer| (peer.clone(), self.word(false))).collect()
            }
            Action::Tell(peer) => vec![(peer, self.word(true))],
            Action::Grant => vec![(term.holder.clone(), Message::Grant { term })],
            Action::Accept(peer) => vec![(peer, Message::Accept { term })],
            Action::Alarm { .. } => Vec::new(),
        }
    }

    fn word(&self, answer: bool) -> Message {
        Message::Word {
            term: self.disk.record.seen.clone(),
            plays: self.disk.record.plays(),
            newest: self.disk.newest().map(|point| point.id.clone()),
            answer,
        }
    }

    /// The points it has to send.
    pub fn line(&self) -> Message {
        Message::Line {
            term: self.disk.record.seen.clone(),
            base: self.disk.base.clone(),
            points: self.disk.points.clone(),
        }
    }

    /// The event that a message is to this node.
    pub fn event(&self, from: &NodeName, message: &Message) -> Event {
        let heard = |term: &Term, plays, ahead| Event::Heard {
            from: from.clone(),
            word: Word {
                term: term.clone(),
                plays,
                ahead,
            },
        };
        match message {
            Message::Word {
                term,
                plays,
                newest,
                ..
            } => heard(term, *plays, self.disk.lacks(newest.as_ref())),
            Message::Line { term, .. } => heard(term, true, false),
            Message::Grant { term } => Event::Granted {
                by: from.clone(),
                term: term.clone(),
            },
            Message::Accept { term } => Event::Accepted {
                by: from.clone(),
                term: term.clone(),
            },
        }
    }

    /// After the event: the points are taken in, if they may be.
    pub fn take_in(&mut self, message: &Message) {
        if let Message::Line { term, base, points } = message {
            if self.disk.record.accepts(term) {
                self.disk.follow(base.as_ref(), points);
            }
        }
    }

    /// To whom the last point of a hand-over goes.
    pub fn hands_over_to(&self) -> Option<&NodeName> {
        match &self.disk.record.state {
            State::HandingOver { term, .. } => Some(&term.holder),
            _ => None,
        }
    }

    /// Hands the line to `other`, over a link that works; whether it is whole there.
    pub fn deliver(&self, other: &mut Node) -> bool {
        if !other.up || !other.disk.record.accepts(&self.disk.record.seen) {
            return false;
        }
        other
            .disk
            .follow(self.disk.base.as_ref(), &self.disk.points);
        // What is committed there is compared with what was sent.
        other.disk.newest() == self.disk.newest()
    }

    /// Does all work but the delivery; whether it could be done.
    pub fn carry_out(&mut self, work: Work) -> bool {
        let disk = &mut self.disk;
        match work {
            Work::Rise(Rise::Live) => {
                let held = disk.record.held.clone().expect("holds a term");
                let newest = disk.newest().map(|point| point.id.clone());
                let point = self.point.clone().or(newest);
                let Some(point) = point.filter(|point| disk.holds(point)) else {
                    return false;
                };
                disk.make_live(&held, &point);
            }
            Work::Rise(Rise::Serve) => self.serving = true,
            Work::Rise(Rise::Address) | Work::Descent(Descent::Precopy) => {}
            Work::Descent(Descent::Stop) | Work::Fall(Fall::Stop) => self.serving = false,
            Work::Descent(Descent::Final) => disk.take_point(),
            Work::Descent(Descent::Deliver) => return false,
            Work::Fall(Fall::Prove) => return !self.serving,
            Work::Mend(Mend::Keep) => disk.keep_live(),
            Work::Mend(Mend::Aside) => disk.live = None,
        }
        true
    }

    /// The daemon dies, or the whole machine.
    pub fn die(&mut self, machine: bool) {
        self.up = false;
        self.work = None;
        self.serving &= !machine;
    }

    /// What it may not do: run the services in a state in which nothing may run.
    pub fn check(&self) -> Result<(), String> {
        let record = &self.disk.record;
        let may_serve = match &record.state {
            State::Standby | State::HandedOff | State::Fenced | State::Reconciling { .. } => false,
            State::Promoting { step } => *step != Rise::Live,
            State::Waking { up, .. } | State::Conflict { up, .. } => *up,
            State::HandingOver { step, .. } => {
                matches!(step, Descent::Precopy | Descent::Stop)
            }
            State::Fencing { step } => *step == Fall::Stop,
            State::Active => true,
        };
        if self.serving && !may_serve {
            return Err(format!(
                "{} serves while it is {}",
                record.node.as_str(),
                record.state
            ));
        }
        Ok(())
    }
}

/// At the release the other must have all of it, and nobody may be writing here.
pub fn released(from: &Node, to: &Node) -> Result<(), String> {
    let last = from.disk.live.as_ref().map(|(_, content)| content);
    let theirs = to.disk.newest().map(|point| &point.content);
    if from.serving {
        return Err("released while the services run".to_owned());
    }
    if last != theirs {
        return Err(format!("released {last:?}, but the other has {theirs:?}"));
    }
    Ok(())
}
