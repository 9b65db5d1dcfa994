//! States and terms in words: for `status`, for the log, for the table in docs/roles.md.

use std::fmt;

use super::{Action, Descent, Fall, Mend, Rise, State, Work};

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            State::Standby => f.write_str("standby"),
            State::Promoting { step } => write!(f, "promoting ({step})"),
            State::Active => f.write_str("active"),
            State::Waking { step, .. } => write!(f, "waking (then {step})"),
            State::HandingOver { term, step } => {
                write!(f, "handing over to {} ({step})", term.holder)
            }
            State::HandedOff => f.write_str("handed off"),
            State::Fencing { step } => write!(f, "fencing ({step})"),
            State::Fenced => f.write_str("fenced"),
            State::Reconciling { step } => write!(f, "reconciling ({step})"),
            State::Conflict { up: true, .. } => f.write_str("conflict (up)"),
            State::Conflict { up: false, .. } => f.write_str("conflict (down)"),
        }
    }
}

impl fmt::Display for Rise {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Rise::Live => "live data",
            Rise::Serve => "services",
            Rise::Address => "addresses",
        })
    }
}

impl fmt::Display for Descent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Descent::Precopy => "copying ahead",
            Descent::Stop => "stopping",
            Descent::Final => "last point",
            Descent::Deliver => "sending the last point",
        })
    }
}

impl fmt::Display for Fall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Fall::Stop => "stopping",
            Fall::Prove => "no writers?",
        })
    }
}

impl fmt::Display for Mend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Mend::Keep => "keeping the fork",
            Mend::Aside => "live copy aside",
        })
    }
}

impl fmt::Display for Work {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Work::Rise(step) => step.fmt(f),
            Work::Descent(step) => step.fmt(f),
            Work::Fall(step) => step.fmt(f),
            Work::Mend(step) => step.fmt(f),
        }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Action::Work(work) => write!(f, "do: {work}"),
            Action::AskPeers => f.write_str("ask peers"),
            Action::Tell(peer) => write!(f, "tell {peer}"),
            Action::TellAll => f.write_str("tell all"),
            Action::Grant => f.write_str("grant"),
            Action::Accept(peer) => write!(f, "accept, to {peer}"),
            Action::Alarm { .. } => f.write_str("alarm"),
        }
    }
}
