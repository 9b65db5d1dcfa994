//! Comparisons that begin by themselves, where the config gives a role a time for them.
//!
//! Promise: only the node that plays the role begins one, within `verify-rate` on both sides, and one at a time; one that could
//! not be made is tried again after an hour. What it came to is told as one that somebody asked for.
//!
//! A crash leaves nothing: what is due is told from what was compared last.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

use super::verify;
use crate::daemon::api::VerifyRequest;
use crate::daemon::node::{Node, RoleRun};
use crate::error::{Code, Failure};
use crate::logic::name::RoleName;
use crate::logic::schedule::next_due;
use crate::peer::timing::hurried;

/// A comparison begins this late at most.
const LOOK_EVERY: Duration = Duration::from_secs(30);

/// After one that could not be made.
const AGAIN_AFTER: SignedDuration = SignedDuration::from_hours(1);

/// Begins comparisons that are due, until the daemon stops.
pub async fn keep(node: Arc<Node>) {
    let mut tried = HashMap::new();
    loop {
        for run in node.roles() {
            let compared = tokio::select! {
                compared = tick(&node, &run, &mut tried) => compared,
                () = node.stop.cancelled() => return,
            };
            if let Err(error) = compared {
                let text = format!("could not compare copies: {error:#}");
                node.hub.warn(Some(&run.name), text);
            }
        }
        tokio::select! {
            () = tokio::time::sleep(hurried(LOOK_EVERY)) => {}
            () = node.stop.cancelled() => return,
        }
    }
}

async fn tick(
    node: &Arc<Node>,
    run: &Arc<RoleRun>,
    tried: &mut HashMap<RoleName, Timestamp>,
) -> Result<()> {
    let Some(every) = &run.role.verify_every else {
        return Ok(());
    };
    let plays = node.record(run)?;
    if !plays.is_some_and(|record| record.active() && !record.part.paused) {
        return Ok(());
    }
    let known = node.state.verified(&run.name)?;
    let ended = |peer| {
        known
            .iter()
            .find(|(of, _)| of == peer)
            .map(|(_, last)| last.ended)
    };
    let now = Timestamp::now();
    for peer in &run.role.peers {
        let due = next_due(every, ended(peer), now, &TimeZone::system());
        let waits = tried
            .get(&run.name)
            .is_some_and(|at| now.duration_since(*at) < AGAIN_AFTER);
        if due.is_none_or(|due| due > now) || waits || node.link(peer).is_err() {
            continue;
        }
        tried.insert(run.name.clone(), now);
        let request = VerifyRequest {
            role: run.name.clone(),
            point: "latest".to_owned(),
            peer: Some(peer.clone()),
            dataset: None,
            full: false,
            rate: Some(node.config().node.verify_rate),
        };
        let report = match verify(node, request).await {
            Err(error) if Failure::code_of(&error) == Code::Locked => return Ok(()),
            report => report?,
        };
        // That copies differ was told already.
        let failed = report.peers.into_iter().find_map(|one| one.error);
        match failed {
            Some(why) => anyhow::bail!("{why}"),
            None => drop(tried.remove(&run.name)),
        }
    }
    Ok(())
}
