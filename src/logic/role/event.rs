//! What can happen to a role on a node, and what can follow.

use serde::{Deserialize, Serialize};

use super::{Descent, Fall, Mend, Record, Rise};
use crate::logic::name::NodeName;
use crate::logic::point::Term;

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Event {
    /// The daemon started and read the record. `serving`: same boot, and the services of the role still run.
    Started {
        serving: bool,
    },
    /// A peer said what it knows.
    Heard {
        from: NodeName,
        word: Word,
    },
    /// The operator promotes, and everything that speaks against it was judged before (see `promotion`).
    Promote {
        term: Term,
    },
    /// The operator moves the role to the holder of this term.
    HandOver {
        term: Term,
    },
    /// The operator changed their mind.
    Cancel,
    /// The node that released the role gives it to this one, under this term.
    Granted {
        by: NodeName,
        term: Term,
    },
    /// The node that was given the role has the term on disk.
    Accepted {
        by: NodeName,
        term: Term,
    },
    /// The operator says: nobody else played it, go on.
    Resume,
    /// The operator ends a conflict in favour of this node, under a new term.
    Stay {
        term: Term,
    },
    /// The operator ends a conflict in favour of the other.
    Yield,
    /// The work that was asked for is done.
    Done(Work),
    /// ... or cannot be done now.
    Failed(Work),
    /// Time to try again what could not be done.
    Retry,
    Pause,
    Unpause,
}

/// What a peer says of the role.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Word {
    /// The highest term it knows.
    pub term: Term,
    /// It plays the role under that term.
    pub plays: bool,
    /// It holds a point of the term held here, newer than any this node ever took: so this disk is an older image of itself.
    pub ahead: bool,
}

/// Work of some length, one at a time. Asked for again after a restart: every piece is safe to repeat.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Work {
    Rise(Rise),
    Descent(Descent),
    Fall(Fall),
    Mend(Mend),
}

/// What is to be done, after the record is on disk.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Action {
    Work(Work),
    /// Ask every peer for the highest term it knows.
    AskPeers,
    /// Tell this peer the term seen here.
    Tell(NodeName),
    /// Tell everybody the term seen here.
    TellAll,
    /// Give the role to the holder of `seen`.
    Grant,
    /// Say that the term is on disk here.
    Accept(NodeName),
    /// Somebody must look: two claims of one epoch.
    Alarm {
        other: Term,
    },
}

/// What follows from an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    pub record: Record,
    pub actions: Vec<Action>,
    /// Why, for people.
    pub why: &'static str,
    /// The event was asked for by somebody who is to be told that it cannot be.
    pub refused: bool,
}
