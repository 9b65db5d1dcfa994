//! Takes a point of a role, and drafts what it says of itself.
//!
//! Promise: nothing is taken where nothing changed; a number is on disk before the point that has it, and never used twice. The
//! catalogue is held from the draft to the point.
//!
//! A crash leaves a number that no point has, at worst; what was half made the filesystem sweeps away.

use std::sync::Arc;

use anyhow::{Context, Result};
use jiff::Timestamp;

use super::bracket::{self, Prepared, Services};
use super::node::{Node, RoleRun, blocking};
use crate::fs::btrfs::freeze::freeze;
use crate::host::part::RoleRecord;
use crate::logic::cycle::{Decision, Facts, decide};
use crate::logic::manifest::{MANIFEST_VERSION, Manifest, Reason, Stored};
use crate::logic::point::{PointId, Term};
use crate::logic::schedule::Every;

/// What came of taking a point.
pub enum Taken {
    Point(Box<Stored>),
    /// Nothing changed since this point.
    Unchanged(PointId),
}

/// Takes a point where the role changed since the newest one; its databases are made consistent in it.
pub async fn take(
    node: &Arc<Node>,
    run: &Arc<RoleRun>,
    record: &RoleRecord,
    reason: Reason,
) -> Result<Taken> {
    take_while(node, run, record, reason, Services::Run).await
}

/// The same, where the role's services may be stopped.
pub async fn take_while(
    node: &Arc<Node>,
    run: &Arc<RoleRun>,
    record: &RoleRecord,
    reason: Reason,
    services: Services,
) -> Result<Taken> {
    let dumps = match run.role.dumps.is_empty() {
        true => None,
        false => {
            // The catalogue is free meanwhile, since it may take long.
            let turn = bracket::turn(node, run).await?;
            // Looked at before anything is dumped: a dump writes.
            match wanted(run, record, reason).await? {
                true => {
                    bracket::thaw(node, run).await?;
                    Some(bracket::prepare(node, run, services, turn).await?)
                }
                false => None,
            }
        }
    };
    let _catalogue = run.catalogue.lock().await;
    take_locked(node, run, record, reason, dumps).await
}

/// Whether there would be a point.
async fn wanted(run: &Arc<RoleRun>, record: &RoleRecord, reason: Reason) -> Result<bool> {
    let (run, term) = (run.clone(), record.term().clone());
    blocking(move || {
        let newest = run.fs.list()?.pop();
        let facts = facts(&run, newest.as_ref(), reason).context("look for changes")?;
        Ok(matches!(decide(&facts, &term), Decision::Take { .. }))
    })
    .await
}

/// Takes a point, for a caller that holds the catalogue and has prepared the dumps, if there are any.
pub async fn take_locked(
    node: &Arc<Node>,
    run: &Arc<RoleRun>,
    record: &RoleRecord,
    reason: Reason,
    dumps: Option<Prepared>,
) -> Result<Taken> {
    let (node, run, record) = (node.clone(), run.clone(), record.clone());
    blocking(move || {
        let newest = run.fs.list()?.pop();
        let mut facts = facts(&run, newest.as_ref(), reason).context("look for changes")?;
        // What was elsewhere is written into the datasets by now.
        facts.written_elsewhere = false;
        let left = |stored: &Stored| !record.line.contains(&stored.manifest.point);
        // Of a node's logs, what was taken before it began anew goes nowhere any more.
        facts.changed |= run.role.logs.is_some() && newest.as_ref().is_some_and(left);
        match decide(&facts, record.term()) {
            Decision::Nothing { .. } => {
                let newest = newest.context("find the newest point")?.manifest.point;
                run.looked.unchanged(&newest);
                Ok(Taken::Unchanged(newest))
            }
            Decision::Take { point, .. } => {
                let manifest = draft(&node, &run, &record, point.sequence, reason)?;
                let stored = match dumps {
                    None => run.fs.snapshot(manifest),
                    Some(mut dumps) => run.fs.snapshot_within(manifest, &mut dumps),
                };
                let stored =
                    stored.with_context(|| format!("take a point of role {}", run.name))?;
                super::clock::taken(&run, &stored.manifest.point);
                Ok(Taken::Point(Box::new(stored)))
            }
        }
    })
    .await
}

pub fn facts(run: &RoleRun, newest: Option<&Stored>, reason: Reason) -> Result<Facts> {
    let datasets_differ =
        newest.is_some_and(|newest| !newest.manifest.datasets.keys().eq(run.fs.datasets().keys()));
    let on_change = matches!(run.role.every, Every::OnChange { .. });
    let elsewhere = run.role.dumps.iter().any(|dump| dump.how.writes_a_file());
    Ok(Facts {
        newest: newest.map(|newest| newest.manifest.point.clone()),
        changed: newest.map_or(Ok(true), |newest| run.fs.changed(newest))?,
        datasets_differ,
        written_elsewhere: elsewhere && !(on_change && reason == Reason::Schedule),
        reason,
        snapshot_unchanged: run.role.snapshot_unchanged,
    })
}

/// The manifest of a point about to be taken. Its sequence is at least `sequence`, was never used, here or in the line, and
/// never will be again: that is on disk before the snapshot is.
pub fn draft(
    node: &Node,
    run: &RoleRun,
    record: &RoleRecord,
    sequence: u64,
    reason: Reason,
) -> Result<Manifest> {
    draft_under(node, run, record, record.term(), sequence, reason)
}

/// The same, under a term that may be over.
pub fn draft_under(
    node: &Node,
    run: &RoleRun,
    record: &RoleRecord,
    term: &Term,
    sequence: u64,
    reason: Reason,
) -> Result<Manifest> {
    let damaged = run.fs.inspect()?.damaged;
    let lying = damaged.iter().map(|damaged| damaged.name.sequence + 1);
    let sequence = sequence.max(node.state.sequence(&run.name)? + 1);
    let sequence = sequence.max(lying.max().unwrap_or(0));
    let sequence = sequence.max(record.line.counted() + 1);
    node.state.record_sequence(&run.name, sequence)?;
    freeze("sequence-recorded");
    let mut manifest = unnumbered(node, run, record, term, reason);
    manifest.point.sequence = sequence;
    Ok(manifest)
}

/// The manifest was for what might have been found and was not: no point has its number. The caller has held the catalogue
/// since it was drafted.
pub fn unused(node: &Node, run: &RoleRun, spare: &PointId) {
    if let Err(error) = node.state.return_sequence(&run.name, spare.sequence) {
        tracing::debug!("could not give number {} back: {error:#}", spare.sequence);
    }
}

/// A manifest that is not used for a point, where one has to be named.
pub fn unnumbered(
    node: &Node,
    run: &RoleRun,
    record: &RoleRecord,
    term: &Term,
    reason: Reason,
) -> Manifest {
    Manifest {
        version: MANIFEST_VERSION,
        role: record.id,
        role_name: run.name.clone(),
        point: PointId {
            term: term.clone(),
            sequence: 0,
        },
        taken: Timestamp::now(),
        node: node.name(),
        reason,
        datasets: Default::default(),
        dumps: Vec::new(),
    }
}
