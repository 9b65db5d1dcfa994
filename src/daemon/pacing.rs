//! Keeps the bandwidth limits towards peers by the calendar.
//!
//! Promise: at the moment at which another limit comes into force, the running limiter gets it; transfers go on. A local
//! clock that was set, or a machine that slept, is noticed within [`LOOK_AT_LEAST_EVERY`].

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::node::{Node, PeerRun, lock};
use crate::logic::bandwidth::InForce;
use crate::logic::units;

/// Longest time between two looks at the clock.
const LOOK_AT_LEAST_EVERY: Duration = Duration::from_secs(10);

/// Shortest: the timer may wake a little before the wall clock shows the moment.
const LOOK_AT_MOST_EVERY: Duration = Duration::from_millis(20);

/// Changes limits when their time comes, until the daemon stops. A reload changes them by itself.
pub async fn keep(node: Arc<Node>) {
    loop {
        let now = Timestamp::now();
        let mut wait = LOOK_AT_LEAST_EVERY;
        for run in node.peers() {
            let before = run.limiter.rate();
            let held = apply(&run);
            if held.rate != before {
                let rate = held.rate.map_or("no limit".to_owned(), units::exact_rate);
                node.hub
                    .note(None, format!("bandwidth to {}: now {rate}", run.peer.name));
            }
            if let Some(until) = held.until {
                let left = until.duration_since(now);
                wait = wait.min(Duration::try_from(left).unwrap_or_default());
            }
        }
        tokio::select! {
            () = tokio::time::sleep(wait.max(LOOK_AT_MOST_EVERY)) => {}
            () = node.reloaded.notified() => {}
            () = node.stop.cancelled() => return,
        }
    }
}

/// The limit towards a peer at a moment.
pub fn in_force(run: &PeerRun, now: Timestamp) -> InForce {
    lock(&run.bandwidth).in_force(now, &TimeZone::system())
}

/// Gives the peer's limiter the rate that holds now.
pub fn apply(run: &PeerRun) -> InForce {
    let held = in_force(run, Timestamp::now());
    if run.limiter.rate() != held.rate {
        run.limiter.set_rate(held.rate);
    }
    held
}
