//! Prunes a role's points on this node, by this node's own policy.
//!
//! Nobody else orders deletions: a peer can neither ask for one nor hold one up. Promise (P2): the newest point, the base of
//! every peer and a point in transfer stay, whatever the policy says; `retention` asserts it and this file asks
//! again before each deletion.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use jiff::Timestamp;

use super::absent;
use super::api::VerdictView;
use super::node::{Node, RoleRun, blocking};
use crate::fs::{Bases, FsError};
use crate::logic::manifest::Stored;
use crate::logic::point::PointId;
use crate::logic::retention::{self, Candidate, Pin};

/// Pause between two deletions: the filesystem's cleaner works after each, and live services share the disk with it.
const PACE: Duration = Duration::from_millis(20);

/// Prunes, or with `dry_run` only says what would go. Newest first.
pub async fn prune(
    node: &Arc<Node>,
    run: &Arc<RoleRun>,
    dry_run: bool,
) -> Result<Vec<VerdictView>> {
    let fs = run.fs.clone();
    let stored = blocking(move || fs.list()).await?;
    let active = node.record(run)?.is_some_and(|record| record.active());
    if active && !dry_run {
        absent::look(node, run, &stored)
            .await
            .context("look after absent peers")?;
    }
    if !dry_run {
        guard(node, run, &stored).await?;
    }
    let candidates = candidates(node, run, &stored)?;
    let role = &run.role;
    let keep = if active {
        &role.keep
    } else {
        &role.keep_standby
    };
    // A clock that jumped makes points, and what holds some of them for a time, look older than they are.
    let doubt = super::clock::look(node).await?;
    let zone = jiff::tz::TimeZone::system();
    let verdicts = retention::verdicts(&candidates, keep, Timestamp::now(), &zone);
    let mut views = Vec::with_capacity(verdicts.len());
    let mut destroyed = Vec::new();
    for verdict in verdicts {
        let mut error = None;
        if let (false, Some(doubt)) = (verdict.keep, &doubt) {
            error = Some(super::clock::sentence(doubt));
        } else if !verdict.keep && !dry_run {
            error = destroy(node, run, &stored, &verdict.id).await?;
            if error.is_none() {
                destroyed.push(verdict.id.to_string());
            }
            tokio::time::sleep(PACE).await;
        }
        views.push(VerdictView {
            name: verdict.name,
            short: verdict.id.to_string(),
            taken: verdict.taken,
            keep: verdict.keep,
            reasons: verdict.reasons,
            error,
        });
    }
    if !destroyed.is_empty() {
        let text = format!("pruned {}", destroyed.join(", "));
        node.hub.note(Some(&run.name), text);
    }
    if !dry_run {
        super::view::refresh(node, run).await;
    }
    Ok(views)
}

/// Has the filesystem guard the bases of peers, and on a standby the point that its peer has just sent.
async fn guard(node: &Node, run: &Arc<RoleRun>, stored: &[Stored]) -> Result<()> {
    let mut bases = Bases {
        held: node.state.bases(&run.name)?,
        let_go: Vec::new(),
    };
    let newest = stored.last();
    let received =
        newest.and_then(|stored| Some((stored.local.from.clone()?, stored.manifest.point.clone())));
    bases.held.extend(received);
    bases.held.retain(|(peer, _)| run.role.peers.contains(peer));
    for peer in &run.role.peers {
        let released = node.state.absence(&run.name, peer)?.released;
        bases.let_go.extend(released.map(|(base, _)| base));
    }
    let _catalogue = run.catalogue.lock().await;
    let fs = run.fs.clone();
    if let Err(error) = blocking(move || fs.guard(&bases)).await {
        // What is due goes on: the bases are pinned in any case, and the next prune tries again.
        tracing::warn!("could not {error:#}");
    }
    Ok(())
}

/// Why it could not go now; `None` when it is gone.
///
/// The catalogue is held for one deletion at a time, so that a snapshot that is due never waits for many; what pins points
/// is therefore asked again each time.
async fn destroy(
    node: &Node,
    run: &Arc<RoleRun>,
    stored: &[Stored],
    id: &PointId,
) -> Result<Option<String>> {
    let _catalogue = run.catalogue.lock().await;
    let pinned = candidates(node, run, stored)?
        .into_iter()
        .any(|candidate| candidate.id == *id && !candidate.pins.is_empty());
    if pinned {
        return Ok(Some("pinned since".to_owned()));
    }
    let (fs, point) = (run.fs.clone(), id.clone());
    match blocking(move || fs.destroy(&point)).await {
        Ok(()) => Ok(None),
        Err(error) => match error.downcast_ref::<FsError>() {
            // A send that uses it ends some day, a view is switched: the next prune finds it again.
            Some(FsError::Busy(_)) => Ok(Some("in use now, left for the next time".to_owned())),
            _ => Err(error).with_context(|| format!("destroy {id}")),
        },
    }
}

/// Every point with what holds it.
pub fn candidates(node: &Node, run: &RoleRun, stored: &[Stored]) -> Result<Vec<Candidate>> {
    let configured = |peer: &crate::logic::name::NodeName| run.role.peers.contains(peer);
    let now = Timestamp::now();
    let bases = node.state.bases(&run.name)?;
    let sendings = node.state.sendings(&run.name)?;
    let newest = stored.last().map(|stored| stored.manifest.point.clone());
    let candidate = |stored: &Stored| {
        let id = stored.manifest.point.clone();
        let mut pins = Vec::new();
        if newest.as_ref() == Some(&id) {
            pins.push(Pin::Newest);
        }
        let of = |list: &[(crate::logic::name::NodeName, _)], make: fn(_) -> Pin| {
            let held = list
                .iter()
                .filter(|(peer, point)| *point == id && configured(peer));
            held.map(|(peer, _)| make(peer.clone())).collect::<Vec<_>>()
        };
        pins.extend(of(&bases, Pin::BaseOf));
        pins.extend(of(&sendings, Pin::Unfinished));
        if run.is_read(&id) {
            pins.push(Pin::Verifying);
        }
        pins.extend(retention::before_restore(
            stored.manifest.reason,
            stored.manifest.taken,
            now,
        ));
        Candidate {
            id,
            name: stored.manifest.name(),
            taken: stored.manifest.taken,
            pins,
        }
    };
    Ok(stored.iter().map(candidate).collect())
}
