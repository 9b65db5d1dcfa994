//! Brings one peer up to the newest point of a role: ask, plan, send, commit, until there is nothing left to send.
//!
//! The peer's own answer about what it holds is the only source of the plan; what this node recorded only decides what
//! pruning must spare.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::api::Step;
use super::asking::{Held, Towards, ask};
use super::cycle::{done, failed, first_line, our_lineage, planned};
use super::grant;
use super::logs;
use super::node::{Node, RoleRun, lock};
use super::outgoing::{Job, answer, send_dataset};
use super::retry::{self, Lacking};
use super::words;
use crate::config::Grant;
use crate::error::{Code, Failure};
use crate::fs::btrfs::freeze::freeze;
use crate::fs::{FsError, Inspection};
use crate::host::part::RoleRecord;
use crate::logic::again;
use crate::logic::damage::Damaged;
use crate::logic::lineage::{Entry, Lineage};
use crate::logic::manifest::Stored;
use crate::logic::name::{DatasetName, NodeName};
use crate::logic::plan::{self, Conflict, Plan};
use crate::logic::point::{PointId, Term};
use crate::logic::transfer::Partial;
use crate::peer::link::Link;
use crate::peer::message::{Answer, Lacks, Request, plain};

const NO_SPACE_THERE: &str = "free some space there, or remove old points (standin prune); the transfer goes on by itself when there is room";

/// What came of one peer.
pub struct Outcome {
    pub steps: Vec<Step>,
    pub code: Code,
    /// Another trouble than the last time, or the end of one.
    pub news: bool,
}

/// Brings `peer` up to the point that is newest now.
pub async fn replicate(
    node: &Arc<Node>,
    run: &Arc<RoleRun>,
    record: &RoleRecord,
    peer: &NodeName,
    cancel: &CancellationToken,
) -> Outcome {
    let mut steps = Vec::new();
    let turn = lock(&run.replicas)
        .entry(peer.clone())
        .or_default()
        .turn
        .clone();
    let turn = tokio::select! {
        biased;
        () = cancel.cancelled() => None,
        turn = turn.lock() => Some(turn),
    };
    let result = match &turn {
        Some(_) => rounds(node, run, record, peer, cancel, &mut steps).await,
        None => {
            let what = format!("bring {peer} up to date: cancelled");
            Err(Failure::new(Code::Interrupted, what).into())
        }
    };
    let mut replicas = lock(&run.replicas);
    let replica = replicas.entry(peer.clone()).or_default();
    let news = retry::note(replica, peer, result.as_ref().err());
    match result {
        Ok(()) => {
            replica.last_error = None;
            Outcome {
                steps,
                code: Code::Done,
                news,
            }
        }
        Err(error) => {
            let error = with_outlook(error);
            let code = Failure::code_of(&error);
            let wanted = code == Code::Interrupted;
            replica.last_error = (!wanted).then(|| format!("could not {error:#}"));
            steps.push(failed("send", bringing(peer), &error));
            Outcome { steps, code, news }
        }
    }
}

/// Bytes on the wire that points took to a peer so far.
pub fn sent(run: &RoleRun, peer: &NodeName) -> u64 {
    lock(&run.replicas)
        .get(peer)
        .map_or(0, |replica| replica.sent)
}

/// What a step towards a peer is about.
pub fn bringing(peer: &NodeName) -> String {
    format!("bring {peer} up to date")
}

/// What becomes of a transfer whose link broke, where nobody said what to do.
fn with_outlook(error: anyhow::Error) -> anyhow::Error {
    match Failure::of(&error) {
        Some(failure) if failure.code == Code::Unreachable && failure.hint.is_none() => {
            let hint = "what arrived is kept; it goes on by itself when the link is back";
            let failure = Failure::new(Code::Unreachable, format!("{error:#}"));
            failure.hint(hint).into()
        }
        _ => error,
    }
}

/// Called when a link comes up, and when a failure is to be tried again: sends what the peer missed, without waiting for the
/// schedule.
pub fn catch_up(node: &Arc<Node>, run: &Arc<RoleRun>, peer: &NodeName) -> JoinHandle<()> {
    let (node, run, peer) = (node.clone(), run.clone(), peer.clone());
    tokio::spawn(async move {
        let record = match node.record(&run) {
            Ok(Some(record)) if record.active() => record,
            Ok(_) => return,
            Err(error) => {
                node.hub.warn(
                    Some(&run.name),
                    format!("could not read the role's record: {error:#}"),
                );
                return;
            }
        };
        match our_lineage(&run).await {
            Ok((ours, _)) if ours.newest().is_none() => return,
            _ => {}
        }
        let cancel = lock(&run.beside).child_token();
        let outcome = replicate(&node, &run, &record, &peer, &cancel).await;
        if outcome.code == Code::Done {
            if let Err(error) = node.state.caught_up(&run.name, &peer) {
                tracing::debug!("could not note that {peer} caught up: {error:#}");
            }
            // So that it knows, for its operator, how it stands.
            words::exchange(&node, &run, &peer);
        }
        if let Some(error) = outcome.steps.iter().find_map(|step| step.error.as_ref()) {
            let text = first_line(error);
            match outcome.code {
                _ if !outcome.news => {}
                // The peer is not done with what it did before: it is tried again.
                Code::Locked => node.hub.note(Some(&run.name), text),
                _ => node.hub.warn(Some(&run.name), text),
            }
        }
    })
}

async fn rounds(
    node: &Arc<Node>,
    run: &Arc<RoleRun>,
    record: &RoleRecord,
    peer: &NodeName,
    cancel: &CancellationToken,
    steps: &mut Vec<Step>,
) -> Result<()> {
    grant::expect(node, peer, &run.name, Grant::Receive)
        .map_err(Failure::from)
        .with_context(|| format!("send to {peer}"))?;
    let link = node.link(peer)?;
    let (ours, _) = our_lineage(run).await?;
    // Points taken while this runs are the next cycle's: a busy source must not keep a cycle going for ever.
    let goal = ours.newest().map(|entry| entry.point.rank());
    let mut planned_anew = false;
    loop {
        let (ours, found) = our_lineage(run).await?;
        let to = Towards {
            node,
            run,
            record,
            peer,
            link: &link,
        };
        let mut held = ask_or_learn(&to).await?;
        held.partials = readable(run, held.partials);
        let theirs = &held.lineage;
        let absence = node.state.absence(&run.name, peer)?;
        let recorded = base_so_far(node, run, peer)?;
        if let Some(base) = newest_common(&ours, theirs) {
            node.state.record_base(&run.name, peer, &base.point)?;
            if absence.released.is_some() {
                node.state.clear_released(&run.name, peer)?;
            }
        }
        lock(&run.replicas).entry(peer.clone()).or_default().lineage = Some(theirs.clone());
        if reached(run, &ours, theirs, goal) {
            // The word of its last commit may have been lost: nothing is half sent any more, whatever is remembered.
            node.state.clear_sending(&run.name, peer)?;
            if steps.is_empty() {
                steps.push(done("nothing", format!("{peer} holds everything")));
            }
            return Ok(());
        }
        let anew = absence
            .released
            .and_then(|_| plan::anew(&ours, theirs, &held.partials));
        match anew.map_or_else(|| plan::plan(&ours, theirs, &held.partials), Plan::Send) {
            Plan::Nothing => {
                steps.push(done("nothing", format!("{peer} holds everything")));
                return Ok(());
            }
            Plan::Blocked(conflict) => return Err(blocked(&to, &conflict)),
            Plan::Send(step) => {
                planned_anew = !attempt(
                    &to,
                    (&ours, &found),
                    (&held, recorded),
                    (&step, !planned_anew),
                    cancel,
                )
                .await?;
                if !planned_anew {
                    steps.push(done("send", sentence(&step, peer)));
                }
            }
        }
    }
}

/// Whether the peer is where it was to be brought.
fn reached(run: &RoleRun, ours: &Lineage, theirs: &Lineage, goal: Option<(u64, u64)>) -> bool {
    let holds = || ours.newest().is_none_or(|newest| theirs.holds(newest));
    let there = theirs.newest().map(|entry| entry.point.rank()) >= goal;
    // A node that asks nobody before it takes points may have given a number twice: its logs on an older disk.
    goal.is_some() && there && (run.role.logs.is_none() || holds())
}

/// Asks; where the peer knows better, or something else, its word tells, and what follows from that is the supervisor's.
async fn ask_or_learn(to: &Towards<'_>) -> Result<Held> {
    let asked = ask(to).await;
    if asked.as_ref().is_err_and(speaks_for_another_term) {
        words::exchange(to.node, to.run, to.peer);
    }
    asked
}

fn speaks_for_another_term(error: &anyhow::Error) -> bool {
    matches!(Failure::code_of(error), Code::Fenced | Code::Diverged)
}

/// Sends the step. False: something was changed under it, and now there is another plan; found out only the `first` time.
async fn attempt(
    to: &Towards<'_>,
    (ours, found): (&Lineage, &Inspection),
    (held, recorded): (&Held, Option<PointId>),
    (step, first): (&plan::Step, bool),
    cancel: &CancellationToken,
) -> Result<bool> {
    let Towards {
        node, run, peer, ..
    } = *to;
    still_lacking(run, peer, step, &held.room)?;
    let lineages = (ours, &found.damaged[..], &held.lineage);
    tell_why_again(node, run, peer, lineages, step, (recorded, &held.partials));
    node.state.record_sending(&run.name, peer, &step.to)?;
    freeze("sending-recorded");
    let known = (ours, &found.points[..]);
    if let Err(error) = send(node, run, peer, to.link, known, step, cancel).await {
        if !first || Failure::code_of(&error) == Code::Interrupted {
            return Err(error);
        }
        let (ours, _) = our_lineage(run).await?;
        if !replanned(to, &ours, step).await {
            return Err(error);
        }
        let text = format!("plan anew what to send to {peer}: {error:#}");
        node.hub.warn(Some(&run.name), text);
        return Ok(false);
    }
    freeze("committed-unrecorded");
    node.state.record_base(&run.name, peer, &step.to)?;
    freeze("committed-recorded");
    node.state.clear_sending(&run.name, peer)?;
    Ok(true)
}

/// The base as it was recorded last.
fn base_so_far(node: &Node, run: &RoleRun, peer: &NodeName) -> Result<Option<PointId>> {
    let mut bases = node.state.bases(&run.name)?.into_iter();
    Ok(bases.find(|(of, _)| of == peer).map(|(_, point)| point))
}

/// Whoever pays for a changed plan with hours of a slow line is told what it is for.
fn tell_why_again(
    node: &Node,
    run: &RoleRun,
    peer: &NodeName,
    (ours, our_damaged, theirs): (&Lineage, &[Damaged], &Lineage),
    step: &plan::Step,
    (recorded, partials): (Option<PointId>, &[Partial]),
) {
    let their_damaged = lock(&run.replicas)
        .get(peer)
        .map(|replica| replica.damaged.clone())
        .unwrap_or_default();
    let ours = again::Side {
        node: &node.name(),
        lineage: ours,
        damaged: our_damaged,
    };
    let theirs = again::Side {
        node: peer,
        lineage: theirs,
        damaged: &their_damaged,
    };
    for reason in again::reasons(step, recorded.as_ref(), partials, ours, theirs) {
        node.hub.warn(Some(&run.name), plain(&reason));
    }
}

/// Whether another step would be planned now, by the rules of [`rounds`].
async fn replanned(to: &Towards<'_>, ours: &Lineage, tried: &plan::Step) -> bool {
    let asked = ask(to).await;
    let absence = to.node.state.absence(&to.run.name, to.peer);
    let (Ok(theirs), Ok(absence)) = (asked, absence) else {
        return false;
    };
    let partials = readable(to.run, theirs.partials);
    let anew = absence
        .released
        .and_then(|_| plan::anew(ours, &theirs.lineage, &partials));
    match anew.map_or_else(|| plan::plan(ours, &theirs.lineage, &partials), Plan::Send) {
        Plan::Send(step) => (&tried.to, &tried.bases) != (&step.to, &step.bases),
        Plan::Nothing | Plan::Blocked(_) => false,
    }
}

fn sentence(step: &plan::Step, peer: &NodeName) -> String {
    match &step.base {
        Some(base) => format!("send {} on top of {base} to {peer}", step.to),
        None => format!("send {} whole to {peer}", step.to),
    }
}

fn newest_common<'a>(ours: &'a Lineage, theirs: &Lineage) -> Option<&'a Entry> {
    ours.entries()
        .iter()
        .rev()
        .find(|entry| theirs.holds(entry))
}

/// Without those of points that cannot be read here to their end: a newer one takes their place.
fn readable(run: &RoleRun, mut partials: Vec<Partial>) -> Vec<Partial> {
    let unreadable = lock(&run.unreadable);
    partials.retain(|partial| !unreadable.contains(&partial.point));
    partials
}

/// Fails where the peer still has too little space for what did not fit the last time: nothing is measured for that.
fn still_lacking(
    run: &RoleRun,
    peer: &NodeName,
    step: &plan::Step,
    room: &BTreeMap<DatasetName, u64>,
) -> Result<()> {
    let mut replicas = lock(&run.replicas);
    let replica = replicas.entry(peer.clone()).or_default();
    let Some(lacking) = &mut replica.lacking else {
        return Ok(());
    };
    let free = room.get(&lacking.dataset).copied();
    match free.filter(|free| lacking.point == step.to && !lacking.shortage.ends_with(*free)) {
        None => {
            replica.lacking = None;
            Ok(())
        }
        Some(free) => {
            lacking.shortage.free = free;
            let (dataset, shortage) = (&lacking.dataset, lacking.shortage);
            let what = format!(
                "send {dataset} of {}: {peer} has too little space ({shortage})",
                step.to
            );
            Err(Failure::new(Code::NoSpace, what)
                .hint(NO_SPACE_THERE)
                .into())
        }
    }
}

/// Remembers what the next attempt must know of a failure.
fn learn(
    run: &RoleRun,
    peer: &NodeName,
    point: &PointId,
    dataset: DatasetName,
    error: &anyhow::Error,
) {
    if let Some(FsError::Unreadable { .. }) = error.downcast_ref() {
        lock(&run.unreadable).insert(point.clone());
    }
    if let Some(Lacks { shortage, .. }) = error.downcast_ref() {
        lock(&run.replicas).entry(peer.clone()).or_default().lacking = Some(Lacking {
            point: point.clone(),
            dataset,
            shortage: *shortage,
        });
    }
}

/// Sends every dataset of the step's point, then has the point committed.
pub async fn send(
    node: &Arc<Node>,
    run: &Arc<RoleRun>,
    peer: &NodeName,
    link: &Link,
    (ours, stored): (&Lineage, &[Stored]),
    step: &plan::Step,
    cancel: &CancellationToken,
) -> Result<()> {
    let Some(stored) = stored
        .iter()
        .find(|stored| stored.manifest.point == step.to)
    else {
        bail!("find {}: it was removed while the plan was made", step.to);
    };
    let Some(peer_run) = node.peer(peer) else {
        bail!("reach {peer}: it was removed");
    };
    node.hub.note(Some(&run.name), sentence(step, peer));
    let term = node.record(run)?.map(|record| record.part.seen);
    let mut sends = tokio::task::JoinSet::new();
    for (dataset, base) in &step.bases {
        let job = Job {
            manifest: stored.manifest.clone(),
            dataset: dataset.clone(),
            base: base.clone(),
            term: term.clone(),
        };
        let (node, run, peer_run, link) =
            (node.clone(), run.clone(), peer_run.clone(), link.clone());
        let (ours, cancel) = (ours.clone(), cancel.clone());
        sends.spawn(async move {
            let dataset = job.dataset.clone();
            let sent = send_dataset(&node, &run, &peer_run, &link, &ours, job, &cancel).await;
            (dataset, sent)
        });
    }
    let mut first = None;
    while let Some(sent) = sends.join_next().await {
        // The others go on: what they finish is not sent again.
        let (dataset, sent) = sent?;
        match sent {
            Ok(bytes) => lock(&run.replicas).entry(peer.clone()).or_default().sent += bytes,
            Err(error) => {
                learn(run, peer, &step.to, dataset, &error);
                first.get_or_insert(error);
            }
        }
    }
    if let Some(error) = first {
        return Err(error);
    }
    freeze("sent-uncommitted");
    commit(node, run, peer, link, (stored, term), step).await
}

/// Has the peer make the point visible, all of which it was sent.
async fn commit(
    node: &Arc<Node>,
    run: &Arc<RoleRun>,
    peer: &NodeName,
    link: &Link,
    (stored, term): (&Stored, Option<Term>),
    step: &plan::Step,
) -> Result<()> {
    let mut exchange = link
        .open(&Request::Commit {
            manifest: stored.manifest.clone(),
            term,
        })
        .await?;
    let what = format!("complete {} on {peer}", step.to);
    let committed = answer(&what, exchange.recv()).await;
    if let (Err(error), Some(dataset)) = (&committed, step.bases.keys().next()) {
        learn(run, peer, &step.to, dataset.clone(), error);
    }
    match committed? {
        Answer::Committed => {
            node.hub.note(
                Some(&run.name),
                format!("{} is complete on {peer}", step.to),
            );
            now_holds(run, peer, stored);
            Ok(())
        }
        other => bail!("{peer} answered a commit with {other:?}"),
    }
}

/// What is known of the peer grows by a point, until it is asked again.
fn now_holds(run: &RoleRun, peer: &NodeName, stored: &Stored) {
    let mut replicas = lock(&run.replicas);
    let replica = replicas.entry(peer.clone()).or_default();
    let known = replica.lineage.as_ref();
    let mut entries = known.map_or_else(Vec::new, |known| known.entries().to_vec());
    entries.push(Entry::of(&stored.manifest));
    let name = stored.manifest.name();
    replica.damaged.retain(|damaged| damaged.name != name);
    replica.lineage = Some(Lineage::new(entries).with_damaged(&replica.damaged));
}

/// What would be sent to the peer now. `fresh`: a new point would be taken first.
pub async fn preview(
    node: &Arc<Node>,
    run: &Arc<RoleRun>,
    peer: &NodeName,
    fresh: bool,
) -> Outcome {
    let step = match preview_plan(node, run, peer).await {
        Ok((Plan::Nothing, Some(base))) if fresh => {
            let text = format!("send the new point on top of {base} to {peer}");
            planned("send", text)
        }
        Ok((Plan::Send(step), _)) if fresh && (step.base.is_some() || step.resumes) => {
            let text = format!("{}, then the new point", sentence(&step, peer));
            planned("send", text)
        }
        // Where nothing is common only the newest goes over, and that will be the new one.
        Ok((Plan::Nothing, None) | (Plan::Send(_), _)) if fresh => {
            planned("send", format!("send the new point whole to {peer}"))
        }
        Ok((Plan::Nothing, _)) => planned("nothing", format!("{peer} holds everything")),
        Ok((Plan::Send(step), _)) => planned("send", sentence(&step, peer)),
        Ok((Plan::Blocked(conflict), _)) => return not_to_be(peer, &diverged(peer, &conflict)),
        Err(error) => return not_to_be(peer, &error),
    };
    Outcome {
        steps: vec![step],
        code: Code::Done,
        news: false,
    }
}

fn not_to_be(peer: &NodeName, error: &anyhow::Error) -> Outcome {
    let text = bringing(peer);
    Outcome {
        steps: vec![failed("send", text, error)],
        code: Failure::code_of(error),
        news: false,
    }
}

/// Nothing can be sent now. Of logs, something will be soon.
fn blocked(to: &Towards<'_>, conflict: &Conflict) -> anyhow::Error {
    let above = logs::go_on_above(to.node, to.run, to.record, to.peer, conflict);
    above.unwrap_or_else(|| diverged(to.peer, conflict))
}

fn diverged(peer: &NodeName, conflict: &Conflict) -> anyhow::Error {
    let what = format!("bring {peer} up to date: {conflict}");
    let hint = format!("nothing was changed on either side; {}", conflict.hint());
    Failure::new(Code::Diverged, what).hint(hint).into()
}

/// Whether the peer would take this role's points: an answer, or its refusal.
pub async fn probe(node: &Arc<Node>, run: &Arc<RoleRun>, peer: &NodeName) -> Result<()> {
    preview_plan(node, run, peer).await.map(|_| ())
}

async fn preview_plan(
    node: &Arc<Node>,
    run: &Arc<RoleRun>,
    peer: &NodeName,
) -> Result<(Plan, Option<String>)> {
    let Some(record) = node.record(run)? else {
        bail!("find the record of role {}", run.name)
    };
    let link = node.link(peer)?;
    let (ours, _) = our_lineage(run).await?;
    let to = Towards {
        node,
        run,
        record: &record,
        peer,
        link: &link,
    };
    let held = ask(&to).await?;
    let (theirs, partials) = (held.lineage, readable(run, held.partials));
    let base = newest_common(&ours, &theirs).map(|entry| entry.point.to_string());
    Ok((plan::plan(&ours, &theirs, &partials), base))
}
