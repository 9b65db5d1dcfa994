//! How long the steps of moves take here, measured each time; and how long nobody would be served in the next one.
//!
//! Promise: a measurement that cannot be written down changes nothing. It deliberately does not know what a step does.

use std::time::Duration;

use anyhow::Result;

use super::heard;
use super::node::{Node, RoleRun};
use crate::logic::name::NodeName;
use crate::logic::predict::{Measured, Prediction, median, predict};
use crate::logic::role::{Descent, Rise, State, Work};

/// Transfers from which the time of the next one is predicted.
const TRANSFERS_TO_JUDGE_BY: usize = 5;

const LIVE: &str = "live";
const START: &str = "start";
const ADDRESS: &str = "address";
const STOP: &str = "stop";
const LAST: &str = "last";

/// Work went well, and took so long.
pub fn note(node: &Node, run: &RoleRun, work: Work, took: Duration) {
    let step = match work {
        Work::Rise(Rise::Live) => LIVE.to_owned(),
        Work::Rise(Rise::Serve) => START.to_owned(),
        Work::Rise(Rise::Address) => ADDRESS.to_owned(),
        Work::Descent(Descent::Stop) => STOP.to_owned(),
        Work::Descent(Descent::Final) => LAST.to_owned(),
        Work::Descent(Descent::Deliver) => match node.record(run) {
            Ok(Some(record)) => match record.part.state {
                State::HandingOver { term, .. } => deliver(&term.holder),
                _ => return,
            },
            _ => return,
        },
        Work::Descent(Descent::Precopy) | Work::Fall(_) | Work::Mend(_) => return,
    };
    let (state, role) = (node.state.clone(), run.name.clone());
    // The move does not wait for a disk on account of this.
    tokio::task::spawn_blocking(move || {
        if let Err(error) = state.record_span(&role, &step, took) {
            tracing::debug!("could not note how long {step} took: {error:#}");
        }
    });
}

fn deliver(to: &NodeName) -> String {
    format!("deliver {to}")
}

/// What coming up takes here; none where services never started under this program.
pub fn rise(node: &Node, run: &RoleRun) -> Option<Duration> {
    let spans = |step| median(&node.state.spans(&run.name, step).unwrap_or_default());
    let start = spans(START)?;
    let seconds = start + spans(LIVE).unwrap_or(0.0) + spans(ADDRESS).unwrap_or(0.0);
    Duration::try_from_secs_f64(seconds).ok()
}

/// How long nobody is served in a hand-over to the peer; none where nothing was ever measured.
pub fn prediction(node: &Node, run: &RoleRun, peer: &NodeName) -> Result<Option<Prediction>> {
    let (role, play) = (&run.name, &run.role.play);
    let there = heard::last(node, run, peer)?.and_then(|heard| heard.word.figures.rise_ms);
    Ok(predict(&Measured {
        serves: !play.services.is_empty() || !play.addresses.is_empty(),
        stop: node.state.spans(role, STOP)?,
        last: node.state.spans(role, LAST)?,
        deliver: node.state.spans(role, &deliver(peer))?,
        transfers: node
            .state
            .last_transfers(role, peer, TRANSFERS_TO_JUDGE_BY)?,
        rise_there: there.map(|ms| ms as f64 / 1000.0),
        rise_here: rise(node, run).map(|span| span.as_secs_f64()),
    }))
}
