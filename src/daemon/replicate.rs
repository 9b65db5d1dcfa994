//! Brings one peer up to the newest point of a role: ask, plan, send, commit, until there is nothing left to send.
//!
//! The peer's own answer about what it holds is the only source of the plan; what this node recorded only decides what
//! pruning must spare.

use std::sync::Arc;

use anyhow::{Result, bail};
use tokio_util::sync::CancellationToken;

use super::api::Step;
use super::cycle::{done, failed, first_line, our_lineage, planned};
use super::node::{Node, RoleRun, lock};
use super::outgoing::{Job, answer, send_dataset};
use crate::config::Grant;
use crate::error::{Code, Failure};
use crate::host::state::RoleRecord;
use crate::logic::again;
use crate::logic::damage::Damaged;
use crate::logic::lineage::{Entry, Lineage};
use crate::logic::manifest::Stored;
use crate::logic::name::NodeName;
use crate::logic::plan::{self, Conflict, Plan};
use crate::logic::point::PointId;
use crate::logic::transfer::Partial;
use crate::peer::link::Link;
use crate::peer::message::{Answer, Request, plain};

/// What came of one peer.
pub struct Outcome {
    pub steps: Vec<Step>,
    pub code: Code,
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
    let _turn = turn.lock().await;
    let result = rounds(node, run, record, peer, cancel, &mut steps).await;
    let mut replicas = lock(&run.replicas);
    let replica = replicas.entry(peer.clone()).or_default();
    match result {
        Ok(()) => {
            replica.last_error = None;
            Outcome {
                steps,
                code: Code::Done,
            }
        }
        Err(error) => {
            let code = Failure::code_of(&error);
            let wanted = code == Code::Interrupted;
            replica.last_error = (!wanted).then(|| format!("could not {error:#}"));
            steps.push(failed("send", format!("bring {peer} up to date"), &error));
            Outcome { steps, code }
        }
    }
}

/// Called when a link comes up: sends what the peer missed while it was away, without waiting for the schedule.
pub fn catch_up(node: &Arc<Node>, run: &Arc<RoleRun>, peer: &NodeName) {
    let (node, run, peer) = (node.clone(), run.clone(), peer.clone());
    tokio::spawn(async move {
        let record = match node.record(&run) {
            Ok(Some(record)) if record.active => record,
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
        let cancel = CancellationToken::new();
        let outcome = replicate(&node, &run, &record, &peer, &cancel).await;
        if let Some(error) = outcome.steps.iter().find_map(|step| step.error.as_ref()) {
            node.hub.warn(Some(&run.name), first_line(error));
        }
    });
}

async fn rounds(
    node: &Arc<Node>,
    run: &Arc<RoleRun>,
    record: &RoleRecord,
    peer: &NodeName,
    cancel: &CancellationToken,
    steps: &mut Vec<Step>,
) -> Result<()> {
    granted(node, peer)?;
    let link = node.link(peer)?;
    let (ours, _) = our_lineage(run).await?;
    // Points taken while this runs are the next cycle's: a busy source must not keep a cycle going for ever.
    let goal = ours.newest().map(|entry| entry.point.rank());
    let mut given_up: Option<plan::Step> = None;
    loop {
        let (ours, found) = our_lineage(run).await?;
        let (theirs, partials) = ask(run, record, peer, &link).await?;
        let recorded = base_so_far(node, run, peer)?;
        if let Some(base) = newest_common(&ours, &theirs) {
            node.state.record_base(&run.name, peer, &base.point)?;
        }
        lock(&run.replicas).entry(peer.clone()).or_default().lineage = Some(theirs.clone());
        if theirs.newest().map(|entry| entry.point.rank()) >= goal && goal.is_some() {
            if steps.is_empty() {
                steps.push(done("nothing", format!("{peer} holds everything")));
            }
            return Ok(());
        }
        match plan::plan(&ours, &theirs, &partials) {
            Plan::Nothing => {
                steps.push(done("nothing", format!("{peer} holds everything")));
                return Ok(());
            }
            Plan::Blocked(conflict) => return Err(diverged(peer, &conflict)),
            Plan::Send(step) => {
                let lineages = (&ours, &found.damaged[..], &theirs);
                tell_why_again(node, run, peer, lineages, &step, (recorded, &partials));
                node.state.record_sending(&run.name, peer, &step.to)?;
                let sent = send(
                    node,
                    run,
                    peer,
                    &link,
                    (&ours, &found.points),
                    &step,
                    cancel,
                );
                if let Err(error) = sent.await {
                    if Failure::code_of(&error) == Code::Interrupted {
                        return Err(error);
                    }
                    // Something was changed under the transfer: one more attempt, if that makes another plan.
                    let (now, _) = our_lineage(run).await?;
                    let first = given_up.replace(step).is_none();
                    if first && replanned(run, record, peer, &link, (&now, given_up.as_ref())).await
                    {
                        let text = format!("plan anew what to send to {peer}: {error:#}");
                        node.hub.warn(Some(&run.name), text);
                        continue;
                    }
                    return Err(error);
                }
                node.state.record_base(&run.name, peer, &step.to)?;
                node.state.clear_sending(&run.name, peer)?;
                steps.push(done("send", sentence(&step, peer)));
            }
        }
    }
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

/// Whether the step would not be planned again now.
async fn replanned(
    run: &RoleRun,
    record: &RoleRecord,
    peer: &NodeName,
    link: &Link,
    (ours, tried): (&Lineage, Option<&plan::Step>),
) -> bool {
    let Ok((theirs, partials)) = ask(run, record, peer, link).await else {
        return false;
    };
    match plan::plan(ours, &theirs, &partials) {
        Plan::Send(step) => {
            tried.is_none_or(|tried| (&tried.to, &tried.bases) != (&step.to, &step.bases))
        }
        Plan::Nothing | Plan::Blocked(_) => false,
    }
}

fn granted(node: &Node, peer: &NodeName) -> Result<()> {
    let granted = node
        .peer(peer)
        .is_none_or(|run| lock(&run.grants).contains(&Grant::Receive));
    if granted {
        return Ok(());
    }
    let failure = Failure::new(
        Code::Refused,
        format!("send to {peer}: this node does not grant it to receive"),
    );
    Err(failure
        .hint(format!("add \"receive\" to `grants` of [peer.{peer}]"))
        .into())
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

async fn ask(
    run: &RoleRun,
    record: &RoleRecord,
    peer: &NodeName,
    link: &Link,
) -> Result<(Lineage, Vec<Partial>)> {
    let request = Request::Lineage {
        role: run.name.clone(),
        role_id: record.id,
        term: record.term.clone(),
        datasets: run.fs.datasets().keys().cloned().collect(),
    };
    let mut exchange = link.open(&request).await?;
    match answer(exchange.recv()).await? {
        Answer::Lineage {
            lineage,
            partials,
            damaged,
            ..
        } => {
            let lineage = lineage.with_damaged(&damaged);
            let mut replicas = lock(&run.replicas);
            replicas.entry(peer.clone()).or_default().damaged = damaged;
            Ok((lineage, partials))
        }
        other => bail!("{peer} answered a question for its lineage with {other:?}"),
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
    let mut sends = tokio::task::JoinSet::new();
    for (dataset, base) in &step.bases {
        let job = Job {
            manifest: stored.manifest.clone(),
            dataset: dataset.clone(),
            base: base.clone(),
        };
        let (node, run, peer_run, link) =
            (node.clone(), run.clone(), peer_run.clone(), link.clone());
        let (ours, cancel) = (ours.clone(), cancel.clone());
        sends.spawn(async move {
            send_dataset(&node, &run, &peer_run, &link, &ours, job, &cancel).await
        });
    }
    let mut first = None;
    while let Some(sent) = sends.join_next().await {
        // The others go on: what they finish is not sent again.
        if let Err(error) = sent? {
            first.get_or_insert(error);
        }
    }
    if let Some(error) = first {
        return Err(error);
    }
    let mut exchange = link
        .open(&Request::Commit {
            manifest: stored.manifest.clone(),
        })
        .await?;
    match answer(exchange.recv()).await? {
        Answer::Committed => {
            node.hub.note(
                Some(&run.name),
                format!("{} is complete on {peer}", step.to),
            );
            let mut replicas = lock(&run.replicas);
            let replica = replicas.entry(peer.clone()).or_default();
            let mut entries = replica
                .lineage
                .as_ref()
                .map(|known| known.entries().to_vec())
                .unwrap_or_default();
            entries.push(Entry::of(&stored.manifest));
            let name = stored.manifest.name();
            replica.damaged.retain(|damaged| damaged.name != name);
            replica.lineage = Some(Lineage::new(entries).with_damaged(&replica.damaged));
            Ok(())
        }
        other => bail!("{peer} answered a commit with {other:?}"),
    }
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
        Ok((Plan::Nothing, None)) if fresh => {
            planned("send", format!("send the new point whole to {peer}"))
        }
        Ok((Plan::Nothing, _)) => planned("nothing", format!("{peer} holds everything")),
        Ok((Plan::Send(step), _)) if fresh && step.base.is_some() => {
            let text = format!("{}, then the new point", sentence(&step, peer));
            planned("send", text)
        }
        Ok((Plan::Send(step), _)) if fresh => {
            let text = format!("{}, or the new point, whole", sentence(&step, peer));
            planned("send", text)
        }
        Ok((Plan::Send(step), _)) => planned("send", sentence(&step, peer)),
        Ok((Plan::Blocked(conflict), _)) => return not_to_be(peer, &diverged(peer, &conflict)),
        Err(error) => return not_to_be(peer, &error),
    };
    Outcome {
        steps: vec![step],
        code: Code::Done,
    }
}

fn not_to_be(peer: &NodeName, error: &anyhow::Error) -> Outcome {
    let text = format!("bring {peer} up to date");
    Outcome {
        steps: vec![failed("send", text, error)],
        code: Failure::code_of(error),
    }
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
    let (theirs, partials) = ask(run, &record, peer, &link).await?;
    let base = newest_common(&ours, &theirs).map(|entry| entry.point.to_string());
    Ok((plan::plan(&ours, &theirs, &partials), base))
}
