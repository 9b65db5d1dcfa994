//! Comparisons that begin by themselves, where the config gives a role a time for them.
//!
//! Promise: only the node that plays the role begins one, within `verify-rate` on both sides, and one at a time; one that could
//! not be made is tried again after a while, and keeps no other peer waiting. What it came to is told as one that somebody asked for.
//!
//! A crash leaves nothing: what is due is told from what was compared last.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::verify;
use crate::daemon::api::VerifyRequest;
use crate::daemon::cycle::first_line;
use crate::daemon::node::{Node, RoleRun};
use crate::error::{Code, Failure};
use crate::logic::name::{NodeName, RoleName};
use crate::logic::verify::begins;
use crate::peer::timing::hurried;

/// A comparison begins this late at most.
const LOOK_EVERY: Duration = Duration::from_secs(30);

/// When a comparison could not be made.
type Failed = HashMap<(RoleName, NodeName), Timestamp>;

/// Begins comparisons that are due, until the daemon stops.
pub async fn keep(node: Arc<Node>) {
    let mut failed = Failed::new();
    loop {
        let looked = async {
            for run in node.roles() {
                if let Err(error) = tick(&node, &run, &mut failed).await {
                    let text =
                        format!("could not see whether copies are to be compared: {error:#}");
                    node.hub.warn(Some(&run.name), text);
                }
            }
            tokio::time::sleep(hurried(LOOK_EVERY)).await;
        };
        tokio::select! {
            () = looked => {}
            () = node.stop.cancelled() => return,
        }
    }
}

async fn tick(node: &Arc<Node>, run: &Arc<RoleRun>, failed: &mut Failed) -> Result<()> {
    let Some(every) = &run.role.verify_every else {
        return Ok(());
    };
    let plays = node.record(run)?;
    if !plays.is_some_and(|record| record.active() && !record.part.paused) {
        return Ok(());
    }
    for peer in &run.role.peers {
        let known = node.state.verified(&run.name)?;
        let ended = known
            .iter()
            .find(|(of, _)| of == peer)
            .map(|(_, last)| last.ended);
        let of = (run.name.clone(), peer.clone());
        let (now, zone) = (Timestamp::now(), TimeZone::system());
        let begins = begins(every, ended, failed.get(&of).copied(), now, &zone);
        if !begins || node.link(peer).is_err() {
            continue;
        }
        match compared(node, run, peer).await {
            Ok(()) => drop(failed.remove(&of)),
            // Somebody else's turn: looked at again soon.
            Err(error) if Failure::code_of(&error) == Code::Locked => return Ok(()),
            Err(error) => {
                failed.insert(of, now);
                node.hub
                    .warn(Some(&run.name), format!("could not {error:#}"));
            }
        }
    }
    Ok(())
}

/// With one peer. What it comes to is told and recorded; an error reads after "could not".
async fn compared(node: &Arc<Node>, run: &Arc<RoleRun>, peer: &NodeName) -> Result<()> {
    let request = VerifyRequest {
        role: run.name.clone(),
        point: "latest".to_owned(),
        peer: Some(peer.clone()),
        dataset: None,
        full: false,
        rate: Some(node.config().node.verify_rate),
    };
    let report = verify(node, request).await?;
    match report.peers.into_iter().find_map(|one| one.error) {
        Some(why) => {
            let why = first_line(why.strip_prefix("could not ").unwrap_or(&why));
            anyhow::bail!("compare with {peer}'s copy: {why}")
        }
        None => Ok(()),
    }
}
