//! The cycle: take a point where something changed, bring every peer up to it, prune last.
//!
//! Gather, decide, show, perform: the plan is a list of sentences that `--dry-run` prints and a real run fills with
//! results. One cycle of a role runs at a time; its peers are served side by side, and one that fails does not hold up
//! the others. Promise: a base or a point in transfer is recorded before it is relied on, so a crash anywhere is a pause.

use std::sync::{Arc, Mutex};
use std::time::Instant;

use anyhow::{Context, Result};
use jiff::Timestamp;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::api::{RoleCycle, Step};
use super::node::{Node, RoleRun, RunningCycle, blocking, lock};
use super::take::{self, Taken};
use super::{blank, browse, heard, prune, replicate, seed};
use crate::error::{Code, Failure};
use crate::fs::Inspection;
use crate::fs::btrfs::freeze::freeze;
use crate::host::part::RoleRecord;
use crate::logic::cycle::{Decision, decide};
use crate::logic::lineage::{Entry, Lineage};
use crate::logic::manifest::{Reason, Stored};
use crate::logic::name::NodeName;
use crate::logic::point::PointId;
use crate::logic::role::State;

/// Starts a cycle, or says that one is running. With `attach`, joins that one.
pub fn start(
    node: &Arc<Node>,
    run: &Arc<RoleRun>,
    reason: Reason,
    attach: bool,
) -> Result<RunningCycle> {
    let mut slot = lock(&run.cycle);
    if let Some(running) = slot.as_ref() {
        if attach {
            return Ok(running.clone());
        }
        let failure = Failure::new(
            Code::Locked,
            format!("run role {}: a cycle is already running", run.name),
        );
        let hint = format!("follow it with `standin run --attach {}`", run.name);
        return Err(failure.hint(hint).into());
    }
    let (finished, done) = watch::channel(None);
    let running = RunningCycle {
        cancel: CancellationToken::new(),
        phase: Arc::new(Mutex::new("gather".to_owned())),
        done,
    };
    *slot = Some(running.clone());
    drop(slot);
    *lock(&run.last_start) = Some(Timestamp::now());
    let (node, run, cycle) = (node.clone(), run.clone(), running.clone());
    tokio::spawn(async move {
        let report = whole(&node, &run, reason, &cycle).await;
        // Free before told: whoever waits may start the next one at once.
        *lock(&run.cycle) = None;
        finished.send_replace(Some(report));
        run.wake.notify_one();
    });
    Ok(running)
}

/// Stops what is sent for the role: by its cycle, and beside it (`catch_up`, points sent again). True when there was any.
pub fn cancel(run: &RoleRun) -> bool {
    let running = lock(&run.cycle).clone();
    let sending = lock(&run.replicas)
        .values()
        .any(|replica| replica.turn.try_lock().is_err());
    // The cycle first: it must not go on with what the others let go of.
    if let Some(running) = &running {
        running.cancel.cancel();
    }
    std::mem::take(&mut *lock(&run.beside)).cancel();
    running.is_some() || sending
}

/// Waits for a cycle's report.
pub async fn wait(cycle: &mut RunningCycle) -> Result<RoleCycle> {
    let report = cycle
        .done
        .wait_for(Option::is_some)
        .await
        .context("wait for the cycle")?
        .clone();
    report.context("the cycle ended without a report")
}

async fn whole(
    node: &Arc<Node>,
    run: &Arc<RoleRun>,
    reason: Reason,
    cycle: &RunningCycle,
) -> RoleCycle {
    let begun = Instant::now();
    let started = Timestamp::now();
    if let Err(error) = note_start(node, run, started) {
        node.hub.warn(
            Some(&run.name),
            format!("could not record the cycle: {error:#}"),
        );
    }
    let mut steps = Vec::new();
    let mut codes = Vec::new();
    match perform(node, run, reason, cycle, &mut steps, &mut codes).await {
        Ok(()) => {}
        Err(error) => {
            codes.push(Failure::code_of(&error));
            steps.push(failed("cycle", "the cycle", &error));
        }
    }
    let code = sum(&codes);
    let first = steps.iter().find(|step| step.error.is_some());
    // Somebody wanted it to end: no trouble that anybody has to look at.
    let first = first.filter(|_| code != Code::Interrupted);
    let of_peer = first.and_then(|step| {
        let mut peers = run.role.peers.iter();
        peers.find(|peer| step.text == replicate::bringing(peer))
    });
    let trouble = first.and_then(|step| step.error.as_deref().map(first_line));
    if let Err(error) = note_end(node, run, started, (trouble.as_deref(), of_peer)) {
        node.hub.warn(
            Some(&run.name),
            format!("could not record the cycle: {error:#}"),
        );
    }
    if let Some(trouble) = &trouble {
        node.hub.warn(Some(&run.name), trouble.clone());
    }
    RoleCycle {
        role: run.name.clone(),
        steps,
        code,
        seconds: begun.elapsed().as_secs_f64(),
    }
}

fn note_start(node: &Node, run: &RoleRun, started: Timestamp) -> Result<()> {
    let mut record = node.state.cycle(&run.name)?;
    record.started = Some(started);
    node.state.record_cycle(&run.name, &record)
}

fn note_end(
    node: &Node,
    run: &RoleRun,
    started: Timestamp,
    (trouble, of_peer): (Option<&str>, Option<&NodeName>),
) -> Result<()> {
    let mut record = node.state.cycle(&run.name)?;
    record.started = Some(started);
    // It may have caught up by itself while the others were served.
    let over = of_peer.is_some_and(|peer| {
        let replicas = lock(&run.replicas);
        replicas
            .get(peer)
            .is_some_and(|now| now.last_error.is_none())
    });
    record.error = trouble.filter(|_| !over).map(str::to_owned);
    record.peer = of_peer.filter(|_| !over).cloned();
    if trouble.is_none() {
        record.good = Some(Timestamp::now());
    }
    node.state.record_cycle(&run.name, &record)
}

/// Longest reason that is kept, in characters.
const REASON_MAX: usize = 500;

/// The reason without its hint: for logs, status and manifests. It may quote what a server or a peer said.
pub fn first_line(error: &str) -> String {
    let line = error.lines().next().unwrap_or_default();
    let seen = line.chars().filter(|c| !c.is_control());
    seen.take(REASON_MAX).collect()
}

/// One code for many: all well is done, all of one kind is that kind, a mixture is partial.
pub fn sum(codes: &[Code]) -> Code {
    let Some(first) = codes.first() else {
        return Code::Done;
    };
    if codes.iter().all(|code| code == first) {
        *first
    } else {
        Code::Partial
    }
}

pub fn done(what: &str, text: impl Into<String>) -> Step {
    Step {
        what: what.to_owned(),
        text: text.into(),
        ok: Some(true),
        error: None,
    }
}

pub fn planned(what: &str, text: impl Into<String>) -> Step {
    Step {
        what: what.to_owned(),
        text: text.into(),
        ok: None,
        error: None,
    }
}

pub fn failed(what: &str, text: impl Into<String>, error: &anyhow::Error) -> Step {
    let hint = Failure::of(error).and_then(|failure| failure.hint.as_ref());
    let error = match hint {
        Some(hint) => format!("could not {error:#}\nhint: {hint}"),
        None => format!("could not {error:#}"),
    };
    Step {
        what: what.to_owned(),
        text: text.into(),
        ok: Some(false),
        error: Some(error),
    }
}

async fn perform(
    node: &Arc<Node>,
    run: &Arc<RoleRun>,
    reason: Reason,
    cycle: &RunningCycle,
    steps: &mut Vec<Step>,
    codes: &mut Vec<Code>,
) -> Result<()> {
    let record = active_record(node, run)?;
    set_phase(cycle, "snapshot");
    let taken = take::take(node, run, &record, reason).await;
    let failed_to_take = taken.is_err();
    codes.push(tell_taken(node, run, taken, steps));
    heard::say_where_we_are(node, run);
    let (seeding, of) = (node.clone(), run.clone());
    // Peers do not wait for files of this node.
    tokio::spawn(async move {
        browse::refresh(&seeding, &of).await;
        seed::refresh(&seeding, &of).await;
    });
    freeze("cycle-taken");
    set_phase(cycle, "transfer");
    let mut replicas = tokio::task::JoinSet::new();
    for peer in run.role.peers.clone() {
        let (node, run, record, cancel) = (
            node.clone(),
            run.clone(),
            record.clone(),
            cycle.cancel.clone(),
        );
        replicas
            .spawn(async move { replicate::replicate(&node, &run, &record, &peer, &cancel).await });
    }
    while let Some(replica) = replicas.join_next().await {
        let replica = replica.context("wait for a peer")?;
        let sent = replica.steps.iter().any(|step| step.what == "send");
        // Nothing to send is no part success beside a point that could not be taken.
        if sent || !failed_to_take {
            codes.push(replica.code);
            steps.extend(replica.steps);
        }
    }
    set_phase(cycle, "prune");
    heard::say_where_we_are(node, run);
    freeze("cycle-sent");
    sweep(run).await?;
    let verdicts = prune::prune(node, run, false).await.context("prune")?;
    let gone: Vec<&str> = verdicts
        .iter()
        .filter(|v| !v.keep && v.error.is_none())
        .map(|v| v.short.as_str())
        .collect();
    if !gone.is_empty() {
        steps.push(done("prune", format!("prune {}", gone.join(", "))));
    }
    if failed_to_take {
        return Ok(());
    }
    // The snapshot alone does not make a failed replication partial success where every peer failed the same way.
    let peers_failed = codes.iter().skip(1).all(|code| *code != Code::Done) && codes.len() > 1;
    if peers_failed {
        codes.remove(0);
    }
    Ok(())
}

/// Notes what came of taking a point. After a failure the cycle goes on: older points are still sent, and pruning may be what
/// is missing.
fn tell_taken(node: &Node, run: &RoleRun, taken: Result<Taken>, steps: &mut Vec<Step>) -> Code {
    match taken {
        Ok(Taken::Point(stored)) => {
            let point = &stored.manifest.point;
            node.hub.note(Some(&run.name), format!("took {point}"));
            steps.push(done(
                "snapshot",
                format!("take {point} of role {}", run.name),
            ));
            Code::Done
        }
        Ok(Taken::Unchanged(newest)) => {
            steps.push(done("nothing", format!("nothing changed since {newest}")));
            Code::Done
        }
        Err(error) => {
            let text = format!("take a point of role {}", run.name);
            steps.push(failed("snapshot", text, &error));
            Failure::code_of(&error)
        }
    }
}

/// A node that was promoted while it received has the half of a point that nobody will send it any more. Nothing is received
/// here now that would clear it away.
async fn sweep(run: &Arc<RoleRun>) -> Result<()> {
    let _catalogue = run.catalogue.lock().await;
    let fs = run.fs.clone();
    blocking(move || fs.sweep())
        .await
        .context("clear what interrupted transfers left")
}

fn set_phase(cycle: &RunningCycle, phase: &str) {
    phase.clone_into(&mut lock(&cycle.phase));
}

/// The record of a role in which this node is active.
pub fn active_record(node: &Node, run: &RoleRun) -> Result<RoleRecord> {
    let record = match node.record(run)? {
        Some(record) if record.active() => return Ok(record),
        record => record,
    };
    let name = &run.name;
    let refused = |what: String, hint: String| {
        let what = format!("take a point of role {name}: {what}");
        Err(Failure::new(Code::Refused, what).hint(hint).into())
    };
    let home = &run.role.home;
    if run.role.logs.is_some() {
        return refused(
            format!("{home} alone writes these logs, this node keeps a copy"),
            format!("on {home}: standin run {name}"),
        );
    }
    if let Some(why) = blank::trouble(node, run) {
        let hint =
            "if this machine was lost and set up anew: standin rebuild --from PEER".to_owned();
        return refused(why, hint);
    }
    let Some(record) = record else {
        return refused(
            "this node stands in for it".to_owned(),
            format!("{home} is active; run it there"),
        );
    };
    match &record.part.state {
        State::Waking { .. } => refused(
            "this node was active when it ended, and asks its peers before it goes on".to_owned(),
            format!(
                "where they cannot be reached and nobody else plays the role: standin resume {name}"
            ),
        ),
        State::Conflict { .. } => refused(
            "two nodes claim it".to_owned(),
            format!("choose one: standin resolve {name} --keep NODE"),
        ),
        State::Standby | State::HandedOff => refused(
            "this node stands in for it".to_owned(),
            format!("{} is active; run it there", record.term().holder),
        ),
        other => refused(
            format!("this node is {other}"),
            format!("wait until it is done; `standin status {name}` shows it"),
        ),
    }
}

/// What a cycle would do now.
pub async fn preview(node: &Arc<Node>, run: &Arc<RoleRun>) -> RoleCycle {
    let begun = Instant::now();
    let mut steps = Vec::new();
    let mut codes = Vec::new();
    match gather(node, run).await {
        Ok((newest, decision)) => {
            let fresh = matches!(decision, Decision::Take { .. });
            if fresh {
                let dumps = run.role.dumps.iter();
                steps.extend(dumps.map(|dump| {
                    let how = [dump.how.kind(), dump.how.mode()].join(" ");
                    let text = format!("dump {} ({})", dump.name, how.trim_end());
                    planned("dump", text)
                }));
            }
            steps.push(match (decision, newest) {
                (Decision::Take { why, .. }, _) => {
                    planned("snapshot", format!("take a new point: {why}"))
                }
                (Decision::Nothing { .. }, Some(newest)) => {
                    planned("nothing", format!("nothing changed since {newest}"))
                }
                (Decision::Nothing { why }, None) => planned("nothing", why),
            });
            for peer in &run.role.peers {
                let outcome = replicate::preview(node, run, peer, fresh).await;
                steps.extend(outcome.steps);
                codes.push(outcome.code);
            }
            if let Ok(verdicts) = prune::prune(node, run, true).await {
                let gone: Vec<&str> = verdicts
                    .iter()
                    .filter(|v| !v.keep)
                    .map(|v| v.short.as_str())
                    .collect();
                if !gone.is_empty() {
                    steps.push(planned("prune", format!("prune {}", gone.join(", "))));
                }
            }
        }
        Err(error) => {
            steps.push(failed("cycle", "the cycle", &error));
            codes.push(Failure::code_of(&error));
        }
    }
    RoleCycle {
        role: run.name.clone(),
        steps,
        code: sum(&codes),
        seconds: begun.elapsed().as_secs_f64(),
    }
}

async fn gather(node: &Arc<Node>, run: &Arc<RoleRun>) -> Result<(Option<PointId>, Decision)> {
    let record = active_record(node, run)?;
    let run = run.clone();
    blocking(move || {
        let newest = run.fs.list()?.pop();
        let facts = take::facts(&run, newest.as_ref(), Reason::Asked)?;
        Ok((facts.newest.clone(), decide(&facts, record.term())))
    })
    .await
}

/// The lineage of a role on this node, with what it knows of damaged points.
pub async fn our_lineage(run: &Arc<RoleRun>) -> Result<(Lineage, Inspection)> {
    let fs = run.fs.clone();
    let mut found = blocking(move || fs.inspect()).await?;
    // On its way into a fork: nobody's base, and nothing to go on from.
    let foreign = |stored: &Stored| stored.manifest.reason == Reason::BeforePromotion;
    found.points.retain(|stored| !foreign(stored));
    let manifests = found.points.iter().map(|stored| &stored.manifest);
    let lineage = Lineage::new(manifests.map(Entry::of).collect()).with_damaged(&found.damaged);
    let lineage = lineage.with_remnants(found.remnants.clone());
    Ok((lineage, found))
}
