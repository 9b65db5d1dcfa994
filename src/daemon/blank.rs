//! The home of a role that holds nothing of it: no record, no points. Either the role is new, or this machine is.
//!
//! Promise (P4): such a node begins the role with term 1 only when every peer that is paired has said that it knows nothing of
//! it, or an operator says so (`standin resume`); where a peer does know the role, this node joins it and stands in, however
//! often it was active before. A crash leaves nothing, or the record.
//!
//! It deliberately does not fetch anything: that is for `rebuild`, or for whoever is active.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::Result;

use super::describe;
use super::grant;
use super::node::{Node, RoleRun, lock};
use super::supervisor::{Beside, paired};
use super::words;
use crate::config::Grant;
use crate::error::Failure;
use crate::host::part::RoleRecord;
use crate::logic::name::NodeName;
use crate::logic::role::Event;
use crate::logic::skeleton::Known;

/// Longest wait of a reload for peers that are asked.
const ASKED_MAX: Duration = Duration::from_secs(5);

/// What was heard while nothing is known here.
#[derive(Default)]
pub struct Blank {
    /// These know nothing of the role.
    ignorant: Mutex<BTreeSet<NodeName>>,
    /// The operator says that it is new.
    new: AtomicBool,
}

/// Whether a role of which nothing is here may begin here.
pub fn may_begin(node: &Node, run: &RoleRun) -> bool {
    run.role.logs.is_some()
        || run.blank.new.load(Ordering::Relaxed)
        || paired(node, run).is_subset(&lock(&run.blank.ignorant))
}

/// Whether this node is the home, holds nothing, and waits for what peers say.
pub fn waits(node: &Node, run: &RoleRun) -> Result<bool> {
    Ok(run.role.home == node.name() && run.role.logs.is_none() && node.record(run)?.is_none())
}

/// What it waits for, for people; none where it does not wait.
pub fn trouble(node: &Node, run: &RoleRun) -> Option<String> {
    if !waits(node, run).ok()? {
        return None;
    }
    let silent: Vec<String> = paired(node, run)
        .difference(&lock(&run.blank.ignorant))
        .map(NodeName::to_string)
        .collect();
    let (silent, role) = (silent.join(" and "), &run.name);
    Some(format!(
        "nothing of the role is on this machine, and {silent} has not said yet whether it knows it; if the role is new: standin resume {role}"
    ))
}

/// The operator says that the role is new.
pub fn begin(node: &Arc<Node>, run: &Arc<RoleRun>) -> Result<Option<RoleRecord>> {
    run.blank.new.store(true, Ordering::Relaxed);
    let record = node.record(run)?;
    begun(run);
    Ok(record)
}

/// The record was written just now: what it calls for is done by the supervisor.
fn begun(run: &RoleRun) {
    run.supervisor.mention(Event::Retry, Beside::default());
    run.supervisor.joined();
    run.wake.notify_one();
}

/// Asks every linked peer of every role that waits; called after a reload.
pub async fn settle(node: &Arc<Node>) {
    let mut asked = tokio::task::JoinSet::new();
    for run in node.roles() {
        for peer in paired(node, &run) {
            if node.link(&peer).is_ok() && waits(node, &run).unwrap_or(false) {
                let (node, run) = (node.clone(), run.clone());
                asked.spawn(async move { told(&node, &run, &peer).await });
            }
        }
    }
    let all = async { while asked.join_next().await.is_some() {} };
    // Whoever is slower is heard later, or with its next link.
    let _ = tokio::time::timeout(ASKED_MAX, all).await;
    asked.detach_all();
}

/// A link came up: asks without anybody waiting for it.
pub fn linked(node: &Arc<Node>, run: &Arc<RoleRun>, peer: &NodeName) {
    if waits(node, run).unwrap_or(false) {
        let (node, run, peer) = (node.clone(), run.clone(), peer.clone());
        tokio::spawn(async move { told(&node, &run, &peer).await });
    }
}

async fn told(node: &Arc<Node>, run: &Arc<RoleRun>, peer: &NodeName) {
    if let Err(error) = ask(node, run, peer).await {
        let mut text = format!("could not {error:#}; until then nothing of the role begins here");
        if let Some(hint) = Failure::of(&error).and_then(|failure| failure.hint.as_deref()) {
            text = format!("{text} ({hint})");
        }
        node.hub.warn(Some(&run.name), text);
    }
}

async fn ask(node: &Arc<Node>, run: &Arc<RoleRun>, peer: &NodeName) -> Result<()> {
    let described = describe::ask(node, peer, Some(&run.name)).await?;
    let described = described.into_iter().find(|one| one.role == run.name);
    if !waits(node, run)? {
        return Ok(());
    }
    match described.and_then(|described| described.known) {
        Some(known) => join(node, run, peer, &known).map(|_| ()),
        None => {
            lock(&run.blank.ignorant).insert(peer.clone());
            if node.record(run)?.is_some() {
                begun(run);
            }
            Ok(())
        }
    }
}

/// Joins a role of which nothing is here as a node that stands in, under the term that the peer knows.
pub fn join(
    node: &Arc<Node>,
    run: &Arc<RoleRun>,
    peer: &NodeName,
    known: &Known,
) -> Result<RoleRecord> {
    grant::expect(node, peer, &run.name, Grant::Send).map_err(Failure::from)?;
    words::believable(node, &run.name, peer, 0, &known.term)?;
    let record = node.join(run, known.id, &known.term, known.line.clone())?;
    let (role, term) = (&run.name, &known.term);
    if term.holder == node.name() {
        node.hub.warn(
            Some(role),
            format!(
                "this node held term {term} of the role, and has lost everything of it: it stands in. Fetch its points: standin rebuild --from {peer}; then: standin promote {role}, here or on {peer}"
            ),
        );
    }
    Ok(record)
}
