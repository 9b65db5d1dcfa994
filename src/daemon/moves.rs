//! The work that a role's states ask for: up, down, over, back. Each piece is safe to repeat from any place at which it was cut.
//!
//! Promise: nothing that reached a live copy is destroyed: what is in no point becomes one before the copy is replaced or taken
//! away, and points that are not of the line become a fork (P5). A live copy that was made under a term is not made
//! again under it.
//!
//! It deliberately does not know when work is asked for, nor what follows from it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use tokio_util::sync::CancellationToken;

use super::bracket::Services;
use super::cycle;
use super::forks;
use super::kept;
use super::node::{Node, RoleRun, blocking};
use super::supervisor::Beside;
use super::take::{self, Taken};
use super::{asking, drill, load, play, replicate, seed, view};
use crate::error::{Code, Failure};
use crate::fs::Restored;
use crate::fs::btrfs::freeze::freeze;
use crate::host::part::RoleRecord;
use crate::logic::ahead;
use crate::logic::fork::Why;
use crate::logic::manifest::{Manifest, Reason, Stored};
use crate::logic::name::{DatasetName, NodeName};
use crate::logic::point::{PointId, Term};
use crate::logic::role::{Descent, Fall, Mend, Rise, State, Work};

/// First and longest pause before a transfer that a move needs is tried again.
const BUSY_PAUSE: Duration = Duration::from_millis(250);
const BUSY_PAUSE_MAX: Duration = Duration::from_secs(2);

/// Does one piece of work. What is cut short by `cancel` has failed.
pub async fn perform(
    node: &Arc<Node>,
    run: &Arc<RoleRun>,
    work: Work,
    cancel: &CancellationToken,
) -> Result<Beside> {
    match work {
        // Work on the filesystem is short, and not cut: it goes on in its thread anyway.
        Work::Rise(Rise::Live) => live(node, run).await,
        Work::Descent(Descent::Final) => last_point(node, run).await,
        Work::Mend(Mend::Keep) => keep(node, run).await,
        Work::Mend(Mend::Aside) => aside(node, run).await,
        _ => tokio::select! {
            done = waits(node, run, work, cancel) => done,
            () = cancel.cancelled() => bail!("go on with {work:?}: something else came first"),
        },
    }
}

/// Work that waits for others: peers, services, processes.
async fn waits(
    node: &Arc<Node>,
    run: &Arc<RoleRun>,
    work: Work,
    cancel: &CancellationToken,
) -> Result<Beside> {
    match work {
        Work::Rise(Rise::Serve) => {
            drill::make_way(node, run).await;
            seed::before_services(node, run).await;
            play::start(node, run).await?;
        }
        Work::Rise(Rise::Address) => play::address(node, run).await?,
        Work::Descent(Descent::Precopy) => copy_ahead(node, run, cancel).await?,
        Work::Descent(Descent::Stop) => {
            run.supervisor.services_stop();
            play::stop(node, run, false).await?;
            run.supervisor.services_stopped();
            play::prove(node, run).await?;
        }
        Work::Descent(Descent::Deliver) => return deliver(node, run, cancel).await,
        Work::Fall(Fall::Stop) => play::stop(node, run, true).await?,
        Work::Fall(Fall::Prove) => play::prove(node, run).await?,
        Work::Rise(Rise::Live) | Work::Descent(Descent::Final) | Work::Mend(_) => {
            bail!("wait for {work:?}: it waits for nobody")
        }
    }
    Ok(Beside::default())
}

fn known(node: &Node, run: &RoleRun) -> Result<RoleRecord> {
    let record = node.record(run)?;
    record.with_context(|| format!("find the record of role {}", run.name))
}

/// Datasets, those that hold others first.
fn outer_first(run: &RoleRun) -> Vec<DatasetName> {
    let mut all: Vec<_> = run.fs.datasets().iter().collect();
    all.sort_by_key(|(_, live)| *live);
    all.into_iter().map(|(name, _)| name.clone()).collect()
}

async fn points(run: &Arc<RoleRun>) -> Result<Vec<Stored>> {
    let fs = run.fs.clone();
    blocking(move || fs.list()).await
}

/// The newest point that was taken from what is, or was, live here.
fn newest_own(points: &[Stored]) -> Option<&Stored> {
    let own = |stored: &&Stored| stored.local.from.is_none();
    points.iter().rev().find(own)
}

async fn lives(run: &Arc<RoleRun>, dataset: &DatasetName) -> Result<Option<uuid::Uuid>> {
    let (fs, name) = (run.fs.clone(), dataset.clone());
    blocking(move || fs.live_identity(&name)).await
}

/// A new writable copy of the point from which the held term goes on takes each live path.
async fn live(node: &Arc<Node>, run: &Arc<RoleRun>) -> Result<Beside> {
    let record = known(node, run)?;
    let term = record.part.held.clone();
    let term = term.context("find the term that is held")?;
    let Some(base) = record.line.base_of(&term).cloned() else {
        // The first term: what is live is live.
        return Ok(Beside::default());
    };
    let _catalogue = run.catalogue.lock().await;
    let exchanged = exchange(node, run, &record, &term, &base).await;
    // Also after a failure: what lay there is never taken for a point of the role.
    let foreign: Vec<PointId> = points(run)
        .await?
        .iter()
        .filter(|stored| stored.manifest.reason == Reason::BeforePromotion)
        .map(|stored| stored.manifest.point.clone())
        .collect();
    if !foreign.is_empty() {
        forks::sort_out(node, run, foreign, Why::Foreign, None).await?;
    }
    exchanged?;
    leave_the_rest(node, run, Why::LeftBehind).await?;
    pin_for_peers(node, run, &record, &base)?;
    view::refresh(node, run).await;
    Ok(Beside::default())
}

/// Each live path gets its copy, unless it has it from an attempt before.
async fn exchange(
    node: &Arc<Node>,
    run: &Arc<RoleRun>,
    record: &RoleRecord,
    term: &Term,
    base: &PointId,
) -> Result<()> {
    let stored = points(run).await?;
    let mut expected = false;
    for dataset in outer_first(run) {
        let there = lives(run, &dataset).await?;
        let made = node.state.made_live(&run.name, &dataset, term)?;
        if there.is_some() && made.is_some() {
            continue;
        }
        if !std::mem::replace(&mut expected, true) {
            load::expect(node, run, base)?;
        }
        let spare = draft(node, run, record, term, there.is_some())?;
        let number = spare.point.clone();
        let (fs, name, point) = (run.fs.clone(), dataset.clone(), base.clone());
        let kept = newest_own(&stored).cloned();
        let restored = blocking(move || {
            let restored = fs.restore_live(&name, &point, kept.as_ref(), spare)?;
            Ok((restored, fs.after_reboot(&name)?))
        })
        .await;
        let (restored, after) =
            restored.with_context(|| format!("make {dataset} of {base} live"))?;
        if there.is_some() && !restored.late_writes {
            take::unused(node, run, &number);
        }
        freeze("move-live");
        node.state
            .record_live(&run.name, &dataset, term, restored.uuid)?;
        let live = restored.path.display();
        let text = format!("{dataset} of {base} is live at {live}");
        node.hub.note(Some(&run.name), text);
        tell(node, run, &restored);
        match after.is_problem {
            true => node.hub.warn(Some(&run.name), after.sentence),
            false => node.hub.note(Some(&run.name), after.sentence),
        }
    }
    Ok(())
}

/// However long a peer stays away, it goes on from a point that it holds: the one that is promoted, where nothing better is
/// known, and always for the node that took it.
fn pin_for_peers(node: &Node, run: &RoleRun, record: &RoleRecord, base: &PointId) -> Result<()> {
    let known = node.state.bases(&run.name)?;
    for peer in &run.role.peers {
        let recorded = known.iter().find(|(of, _)| of == peer);
        let good = |point: &PointId| record.line.contains(point) && base.term.holder != *peer;
        if !recorded.is_some_and(|(_, point)| good(point)) {
            node.state.record_base(&run.name, peer, base)?;
        }
        node.state.clear_sending(&run.name, peer)?;
    }
    Ok(())
}

fn tell(node: &Node, run: &RoleRun, restored: &Restored) {
    for path in &restored.nested_moved {
        let text = format!(
            "moved nested subvolume {} over into {}",
            path.display(),
            restored.path.display()
        );
        node.hub.note(Some(&run.name), text);
    }
    if let Some(aside) = &restored.aside {
        let text = format!(
            "the old copy of {} is kept in {}, because {}; delete it when nobody needs it",
            restored.path.display(),
            aside.path,
            aside.why
        );
        node.hub.warn(Some(&run.name), text);
    }
}

/// A manifest for what may be found at a live path. Where nothing is there it is of no use, and no number is spent on it.
fn draft(
    node: &Node,
    run: &RoleRun,
    record: &RoleRecord,
    term: &Term,
    spend: bool,
) -> Result<Manifest> {
    let reason =
        if record.part.held.is_some() && matches!(record.part.state, State::Promoting { .. }) {
            Reason::BeforePromotion
        } else {
            Reason::Fenced
        };
    if !spend {
        return Ok(take::unnumbered(node, run, record, term, reason));
    }
    let next = kept::number(node, run, term)?;
    take::draft_under(node, run, record, term, next, reason)
}

/// Copies ahead while the services run, until what is left is small.
async fn copy_ahead(
    node: &Arc<Node>,
    run: &Arc<RoleRun>,
    cancel: &CancellationToken,
) -> Result<()> {
    let mut rounds = Vec::new();
    while !ahead::is_over(&rounds) {
        let begun = Instant::now();
        let record = cycle::active_record(node, run)?;
        let to = heir(&record)?;
        let before = replicate::sent(run, &to);
        take::take(node, run, &record, Reason::Asked).await?;
        bring(node, run, &record, &to, cancel).await?;
        let (took, bytes) = (begun.elapsed(), replicate::sent(run, &to) - before);
        rounds.push(ahead::Round { took, bytes });
        let text = format!(
            "copied ahead to {to}, round {}: {:.1} s",
            rounds.len(),
            took.as_secs_f64()
        );
        node.hub.note(Some(&run.name), text);
    }
    Ok(())
}

fn heir(record: &RoleRecord) -> Result<NodeName> {
    match &record.part.state {
        State::HandingOver { term, .. } => Ok(term.holder.clone()),
        other => bail!("find the node to hand over to: this one is {other}"),
    }
}

/// Brings a peer up to the newest point. What another transfer to it left in the way a moment ago (a link that was lost, a
/// catching up that was cut short) is on its way out: tried again before the move is given up for it.
async fn bring(
    node: &Arc<Node>,
    run: &Arc<RoleRun>,
    record: &RoleRecord,
    peer: &NodeName,
    cancel: &CancellationToken,
) -> Result<()> {
    let mut pause = BUSY_PAUSE;
    loop {
        let outcome = replicate::replicate(node, run, record, peer, cancel).await;
        let failed = outcome.steps.iter().find_map(|step| step.error.as_deref());
        let Some(error) = failed else { return Ok(()) };
        if outcome.code != Code::Failed || pause > BUSY_PAUSE_MAX {
            let why = cycle::first_line(error);
            let why = why.strip_prefix("could not ").unwrap_or(&why).to_owned();
            return Err(Failure::new(outcome.code, why).into());
        }
        tokio::time::sleep(pause).await;
        pause *= 2;
    }
}

async fn last_point(node: &Arc<Node>, run: &Arc<RoleRun>) -> Result<Beside> {
    let record = cycle::active_record(node, run)?;
    let taken = take::take_while(node, run, &record, Reason::Asked, Services::Stopped);
    let text = match taken.await? {
        Taken::Point(stored) => format!("took {}, the last point here", stored.manifest.point),
        Taken::Unchanged(point) => format!("nothing was written since {point}"),
    };
    node.hub.note(Some(&run.name), text);
    Ok(Beside::default())
}

/// The last point is on the other node, whole and on its disk; and nothing was written here since.
async fn deliver(
    node: &Arc<Node>,
    run: &Arc<RoleRun>,
    cancel: &CancellationToken,
) -> Result<Beside> {
    let record = known(node, run)?;
    let to = heir(&record)?;
    bring(node, run, &record, &to, cancel).await?;
    let stored = points(run).await?;
    let newest = stored.last().cloned().context("find the last point")?;
    let held = asking::holds(node, run, &record, &to, &newest.manifest).await?;
    let last = newest.manifest.point.clone();
    if !held {
        bail!("find {last}, the last point, on {to}");
    }
    play::prove(node, run).await?;
    let fs = run.fs.clone();
    if blocking(move || fs.changed(&newest)).await? {
        let what = format!(
            "release role {}: something was written after {last}",
            run.name
        );
        let hint = "some process still writes to the live data; the role stays here";
        return Err(Failure::new(Code::Refused, what).hint(hint).into());
    }
    freeze("move-delivered");
    let base = Some(last);
    Ok(Beside { line: None, base })
}

/// What was written here since the newest point becomes a point of the term under which it was written.
async fn keep(node: &Arc<Node>, run: &Arc<RoleRun>) -> Result<Beside> {
    let record = known(node, run)?;
    let Some(term) = written_under(&record) else {
        return Ok(Beside::default());
    };
    let _catalogue = run.catalogue.lock().await;
    for dataset in run.fs.datasets().keys() {
        if lives(run, dataset).await?.is_none() {
            // Cut short on the way up: each of the others is looked at when it is taken away.
            return Ok(Beside::default());
        }
    }
    let stored = points(run).await?;
    let keeping = "keep what was written here";
    if let Some(own) = newest_own(&stored).cloned() {
        let fs = run.fs.clone();
        let changed = blocking(move || fs.changed(&own)).await;
        if !changed.context(keeping)? {
            freeze("move-kept");
            return Ok(Beside::default());
        }
    }
    let term = kept::term(node, run, &stored, newest_own(&stored), &term)?;
    let manifest = draft(node, run, &record, &term, true)?;
    let fs = run.fs.clone();
    let kept = blocking(move || fs.snapshot(manifest)).await;
    let kept = kept.context(keeping)?;
    let text = format!("what was written here is kept as {}", kept.manifest.point);
    node.hub.note(Some(&run.name), text);
    freeze("move-kept");
    Ok(Beside::default())
}

/// The term under which the live copy here was written to last.
fn written_under(record: &RoleRecord) -> Option<Term> {
    let part = &record.part;
    part.held.clone().or_else(|| part.spent.clone())
}

/// The live copies are taken from their paths; what is not of the line becomes a fork.
async fn aside(node: &Arc<Node>, run: &Arc<RoleRun>) -> Result<Beside> {
    let record = known(node, run)?;
    let term = written_under(&record).unwrap_or_else(|| record.term().clone());
    // A view must not show what is about to go.
    view::refresh(node, run).await;
    {
        let _catalogue = run.catalogue.lock().await;
        let stored = points(run).await?;
        let term = kept::term(node, run, &stored, newest_own(&stored), &term)?;
        for dataset in outer_first(run).into_iter().rev() {
            if lives(run, &dataset).await?.is_none() {
                continue;
            }
            let spare = draft(node, run, &record, &term, true)?;
            let number = spare.point.clone();
            let (fs, name) = (run.fs.clone(), dataset.clone());
            let kept = newest_own(&stored).cloned();
            let retired = blocking(move || fs.retire_live(&name, kept.as_ref(), spare)).await;
            let retired =
                retired.with_context(|| format!("take the live copy of {dataset} away"))?;
            if !retired.late_writes {
                take::unused(node, run, &number);
            }
            freeze("move-retired");
            let text = format!("took the live copy from {}", retired.path.display());
            node.hub.note(Some(&run.name), text);
            tell(node, run, &retired);
        }
        leave_the_rest(node, run, Why::Returned).await?;
    }
    for peer in &run.role.peers {
        node.state.clear_sending(&run.name, peer)?;
    }
    play::standing_in(node, run).await?;
    view::refresh(node, run).await;
    Ok(Beside::default())
}

/// Makes a fork of the points that are not of the line, on a node that stands in.
pub async fn keep_to_the_line(node: &Arc<Node>, run: &Arc<RoleRun>) -> Result<()> {
    let record = known(node, run)?;
    if record.part.held.is_some() || off(&record, &points(run).await?).is_empty() {
        return Ok(());
    }
    let _catalogue = run.catalogue.lock().await;
    leave_the_rest(node, run, Why::LeftBehind).await
}

fn off(record: &RoleRecord, stored: &[Stored]) -> Vec<PointId> {
    if record.line.term() != Some(record.term()) {
        // Not known yet: whoever plays the role tells it.
        return Vec::new();
    }
    let ids = stored.iter().map(|stored| &stored.manifest.point);
    ids.filter(|point| !record.line.contains(point))
        .cloned()
        .collect()
}

/// The caller holds the catalogue.
async fn leave_the_rest(node: &Arc<Node>, run: &Arc<RoleRun>, why: Why) -> Result<()> {
    let record = known(node, run)?;
    let stored = points(run).await?;
    let off = off(&record, &stored);
    let Some(oldest) = off.first() else {
        return Ok(());
    };
    let here: Vec<&PointId> = stored.iter().map(|stored| &stored.manifest.point).collect();
    let base = record.line.grown_from(oldest, &here).cloned();
    forks::sort_out(node, run, off, why, base).await?;
    freeze("move-forked");
    Ok(())
}
