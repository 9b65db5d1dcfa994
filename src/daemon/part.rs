//! This node's part in a role, as it is remembered: read, begun, joined.
//!
//! Promise: a role begins on its home, once, with term 1, when no peer knows it (`blank`); everybody else joins under the term of whoever speaks for it. What is
//! lost with the state database is found again in the points, but never that this node is active: it asks first (P4).
//!
//! It deliberately does not change the part of a role that goes on: that is the supervisor's alone.

use anyhow::{Context, Result};

use super::blank;
use super::logs;
use super::node::{Node, RoleRun};
use crate::host::part::{OldRecord, Remembered, RoleRecord};
use crate::logic;
use crate::logic::line::Line;
use crate::logic::manifest::Stored;
use crate::logic::point::{PointId, RoleId, Term};
use crate::logic::role::{Event, Record, Rise, State};

impl Node {
    /// What is remembered of a role. Where nothing is: read from the newest point on disk, else, on the node that is
    /// the role's home, begun: a new id and the first term.
    pub fn record(&self, run: &RoleRun) -> Result<Option<RoleRecord>> {
        let home = run.role.home == self.name();
        let old = match self.state.remembered(&run.name)? {
            Remembered::Known(record) if home || !begun(&record) => return Ok(Some(record)),
            // Begun here while the config named this node as home, which it no longer does.
            Remembered::Known(record) if !run.fs.list()?.is_empty() => return Ok(Some(record)),
            Remembered::Known(record) => {
                self.state.forget_role(&run.name, &record)?;
                return Ok(None);
            }
            Remembered::Old(old) => Some(old),
            Remembered::Nothing => None,
        };
        let points = run.fs.list()?;
        let record = match (old, points.last()) {
            (Some(old), _) => self.of_old(run, old, &points)?,
            (None, Some(newest)) => self.of_points(run, newest, &points)?,
            (None, None) if home && blank::may_begin(self, run) => self.first(run)?,
            (None, None) => return Ok(None),
        };
        self.state.begin_role(&run.name, &record).map(Some)
    }

    fn standby(&self, run: &RoleRun, seen: Term) -> Record {
        let peers = run.role.peers.iter().cloned().collect();
        Record::standby(self.name(), peers, seen)
    }

    /// The first term, on the home of the role.
    fn first(&self, run: &RoleRun) -> Result<RoleRecord> {
        let term = self.claim(1)?;
        let mut part = self.standby(run, term.clone());
        part.held = Some(term.clone());
        let play = &run.role.play;
        part.state = if play.services.is_empty() && play.addresses.is_empty() {
            State::Active
        } else {
            State::Promoting { step: Rise::Serve }
        };
        Ok(RoleRecord {
            id: match run.role.logs {
                None => RoleId(uuid::Uuid::new_v4()),
                Some(_) => logic::logs::id(&run.name),
            },
            part,
            line: Line::first(term),
        })
    }

    /// A term of this node.
    pub fn claim(&self, epoch: u64) -> Result<Term> {
        let nonce = crate::host::random::number().context("draw a nonce for a term")?;
        Ok(Term {
            epoch,
            holder: self.name(),
            nonce,
        })
    }

    /// What a node knows that lost its state database.
    fn of_points(&self, run: &RoleRun, newest: &Stored, points: &[Stored]) -> Result<RoleRecord> {
        let term = newest.manifest.point.term.clone();
        let mut part = self.standby(run, term.clone());
        if term.holder == self.name() {
            part.state = State::Active;
            part.held = Some(term);
        }
        Ok(RoleRecord {
            id: newest.manifest.role,
            part: asked_first(run, part)?,
            line: line_of(points),
        })
    }

    fn of_old(&self, run: &RoleRun, old: OldRecord, points: &[Stored]) -> Result<RoleRecord> {
        let mut part = self.standby(run, old.term.clone());
        if old.active {
            part.state = State::Active;
            part.held = Some(old.term.clone());
        }
        let mut line = line_of(points);
        if line.is_empty() {
            line = Line::first(old.term);
        }
        Ok(RoleRecord {
            id: old.id,
            part,
            line,
        })
    }

    /// Joins a role that a peer speaks for, as a node that stands in. What it says is remembered then: where another peer was
    /// quicker, what that one said.
    pub fn join(&self, run: &RoleRun, id: RoleId, term: &Term, line: Line) -> Result<RoleRecord> {
        let record = RoleRecord {
            id,
            part: self.standby(run, term.clone()),
            line,
        };
        let remembered = self.state.begin_role(&run.name, &record)?;
        if remembered == record {
            run.supervisor.joined();
            let text = format!("joined the role with id {id}, active on {}", term.holder);
            self.hub.note(Some(&run.name), text);
        }
        Ok(remembered)
    }
}

/// The first term is held, and nothing else was ever heard of.
fn begun(record: &RoleRecord) -> bool {
    record.part.seen.epoch == 1 && record.part.held.is_some()
}

/// A disk that only says that this node was active once is not believed: others are asked before it goes on.
fn asked_first(run: &RoleRun, part: Record) -> Result<Record> {
    Ok(logs::step(run, &part, &Event::Started { serving: false })?.record)
}

fn line_of(points: &[Stored]) -> Line {
    let ids: Vec<&PointId> = points.iter().map(|stored| &stored.manifest.point).collect();
    Line::of_points(ids)
}
