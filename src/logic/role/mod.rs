//! What a node is in a role, and what follows from each thing that happens: one pure, total function.
//!
//! ```text
//!              the daemon starts with a record that says it held the term
//!                                   │
//!                                   ▼   every peer answers with nothing higher, or the operator resumes
//!               ┌──────────────► waking ───────────────────────────┐
//!               │                   │ higher term                  ▼
//!   standby ────┼── promote ────────┼──────────────────────► promoting ──► active ──► handing over ──► handed off
//!      ▲  ▲     │   granted         ▼                          ▲  │  ▲       │  ▲          │  │             │
//!      │  │     └──(crash)───── fencing ◄──── higher term ─────┼──┴──┼───────┘  │ failed   │  └─ released ──┘
//!      │  │                         │                          │     └──────────┴──────────┘       accepted, or
//!      │  └── fork kept ── reconciling ──► fenced (not kept)   │ kept here                        a higher term
//!      │                      ▲                                │                                      │
//!      │                      └────────────────────────────────┼── live copy taken away ──────────────┘
//!      └───────────────────────────────────────────────── conflict ◄── same epoch, another claim
//! ```
//!
//! Promise: [`step`] decides from the record, the event and nothing else; every arm gives its reason; the table of all of
//! them is docs/roles.md, written by a test. The caller writes the new record to disk *before* it carries any action out, and
//! carries actions out again when it is asked again: so a crash between any two lines loses nothing, and a term is on disk
//! before anything is writable, a release before it is granted (P3, P4).
//!
//! It deliberately does not know how a service is stopped, a point taken or a peer asked, nor the time. A lease in an outside
//! store would be one more source of [`Event::Heard`] and [`Event::Promote`]; nothing else in here would change.

mod event;
mod render;
mod step;

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

pub use event::{Action, Event, Step, Word, Work};
pub use step::step;
pub(super) use step::{keep, refuse, with};

use super::name::NodeName;
use super::point::Term;

/// What a node keeps on disk about its part in a role. Written as a whole.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Record {
    pub node: NodeName,
    /// The other nodes of the role.
    pub peers: BTreeSet<NodeName>,
    /// The highest term heard of, from anywhere. Never falls.
    pub seen: Term,
    /// The term under which the live copy here was made writable and may still hold what no point holds.
    pub held: Option<Term>,
    /// The last term that was held here and given up. It is never taken up again, whoever grants it once more.
    pub spent: Option<Term>,
    pub state: State,
    /// Set by the operator: nothing starts by itself.
    pub paused: bool,
}

/// What a node is in a role.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "kebab-case")]
pub enum State {
    /// Receives points; nothing runs, nothing is writable.
    Standby,
    /// Holds the term and is on its way up.
    Promoting { step: Rise },
    /// Plays the role.
    Active,
    /// Was up when the daemon ended; asks before it goes on, from this step. `heard` answered with nothing higher.
    /// `up`: the services outlived the daemon, and go on while it asks.
    Waking {
        step: Rise,
        up: bool,
        heard: BTreeSet<NodeName>,
    },
    /// Plays the role, or has just stopped to, and moves it to a peer. May still turn back.
    /// `term` is what the peer, its holder, will be given.
    HandingOver { term: Term, step: Descent },
    /// Released: `seen` is the term of the peer it was released to. There is no way back from here but a higher term.
    HandedOff,
    /// A higher term is known: what runs here is stopped.
    Fencing { step: Fall },
    /// Stopped, but what was written here could not be put in safety yet.
    Fenced,
    /// Stopped; what was written here is kept as a fork, then the live copy is moved aside.
    Reconciling { step: Mend },
    /// Another node claimed the same epoch. `up`: services may run here. Kept, it goes on from `step`.
    Conflict { other: Term, step: Rise, up: bool },
}

impl State {
    /// Whether it is on its way from what this node did before to standing in, which ends by itself.
    pub fn passes(&self) -> bool {
        matches!(self, State::Fencing { .. } | State::Reconciling { .. })
    }
}

/// Steps up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Rise {
    /// A new writable snapshot of the point takes the live path.
    Live,
    /// Services start.
    Serve,
    /// Addresses come up.
    Address,
}

/// Steps of a hand-over, up to the release.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Descent {
    /// Points are sent while the services run, until what is left is small.
    Precopy,
    /// Addresses go, services stop, and it is proven that nobody has the live data open.
    Stop,
    /// The last point is taken.
    Final,
    /// The peer has it, whole and on disk.
    Deliver,
}

/// Steps down.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fall {
    /// Addresses and ports are closed, services stop.
    Stop,
    /// It is proven that nobody has the live data open.
    Prove,
}

/// Steps of a return.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mend {
    /// What was written here and is in no point of the line is kept as a fork. Nothing is changed before this is done.
    Keep,
    /// The live copy is taken from its path.
    Aside,
}

impl Record {
    /// Of a node that stands in.
    pub fn standby(node: NodeName, peers: BTreeSet<NodeName>, seen: Term) -> Record {
        Record {
            node,
            peers,
            seen,
            held: None,
            spent: None,
            state: State::Standby,
            paused: false,
        }
    }

    /// Whether this node says of itself that it plays the role under `seen`: what peers are told.
    pub fn plays(&self) -> bool {
        match &self.state {
            State::Promoting { .. } | State::Active | State::HandingOver { .. } => true,
            State::Conflict { up, .. } => *up,
            // Waking is not sure of it, and the others do not.
            State::Waking { .. }
            | State::Standby
            | State::HandedOff
            | State::Fencing { .. }
            | State::Fenced
            | State::Reconciling { .. } => false,
        }
    }

    /// Whether the live copy here is, or may be, written to.
    pub fn writable(&self) -> bool {
        self.held.is_some()
    }

    /// Whether new points may be taken here: the line goes on from this node and no other.
    pub fn takes_points(&self) -> bool {
        match &self.state {
            State::Active => true,
            State::HandingOver { step, .. } => *step != Descent::Stop,
            // The services outlived the daemon and go on writing. Should another node have taken over meanwhile, the
            // points become part of the fork.
            State::Waking { up, .. } => *up,
            State::Standby
            | State::Promoting { .. }
            | State::HandedOff
            | State::Fencing { .. }
            | State::Fenced
            | State::Reconciling { .. }
            | State::Conflict { .. } => false,
        }
    }

    /// Whether points of this term are taken in from a peer.
    pub fn accepts(&self, term: &Term) -> bool {
        // Who was up once keeps what is only here first; a hand-over has proven that there is nothing.
        self.held.is_none() && *term == self.seen && term.holder != self.node
    }
}
