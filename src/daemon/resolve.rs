//! What an operator says where nodes wait for them: resume, resolve, pause.
//!
//! Promise: with `dry_run` nothing is changed. It deliberately does not know how a role comes up or goes down: that is the
//! supervisor's (`moves`).

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Result;

use super::api::MoveReport;
use super::blank;
use super::cycle::{done, planned};
use super::node::{Node, RoleRun};
use super::promote::{Gathered, follow, gather, recorded, risen};
use super::supervisor::Beside;
use crate::error::{Code, Failure};
use crate::logic::name::{NodeName, RoleName};
use crate::logic::role::{Event, State};

/// The operator says that nobody else played the role while this node was away.
pub async fn resume(node: &Arc<Node>, role: &RoleName, dry_run: bool) -> Result<MoveReport> {
    let begun = Instant::now();
    let run = node.role(role)?;
    let mut report = MoveReport::new(role, dry_run);
    if blank::waits(node, &run)? {
        return begin(node, &run, report, dry_run);
    }
    let record = recorded(node, &run)?;
    if !matches!(
        record.part.state,
        State::Waking { .. } | State::Promoting { .. }
    ) {
        let what = format!("resume {role}: this node is {}", record.part.state);
        let hint = match record.part.state {
            State::Standby => format!("to make it active: standin promote {role}"),
            _ => format!("see: standin status {role}"),
        };
        return Err(Failure::new(Code::Refused, what).hint(hint).into());
    }
    let text = format!(
        "go on as the active node under term {}, without waiting for the other peers",
        record.term()
    );
    if dry_run {
        report.steps.push(planned("resume", text));
        return Ok(report);
    }
    report.steps.push(done("resume", text));
    follow(
        &run,
        &format!("resume {role}"),
        Event::Resume,
        Beside::default(),
    )
    .await?;
    let record = risen(node, &run, "resume").await?;
    report.settle(&record, begun.elapsed());
    Ok(report)
}

/// The operator says that a role of which nothing is here is new.
fn begin(
    node: &Arc<Node>,
    run: &Arc<RoleRun>,
    mut report: MoveReport,
    dry_run: bool,
) -> Result<MoveReport> {
    let text = "begin the role here under term 1, as its peers are not to know it";
    if dry_run {
        report.steps.push(planned("resume", text.to_owned()));
        return Ok(report);
    }
    if let Some(record) = blank::begin(node, run)? {
        report.settle(&record, Duration::ZERO);
    }
    report.steps.push(done("resume", text.to_owned()));
    Ok(report)
}

/// Ends a conflict: this node goes on under a higher term, or gives way.
pub async fn resolve(
    node: &Arc<Node>,
    role: &RoleName,
    keep: &NodeName,
    dry_run: bool,
) -> Result<MoveReport> {
    let run = node.role(role)?;
    let gathered = gather(node, &run).await?;
    let State::Conflict { other, .. } = &gathered.record.part.state else {
        let state = &gathered.record.part.state;
        let what = format!("resolve {role}: this node is {state}");
        let hint = "there is no conflict here; is it on another node?";
        return Err(Failure::new(Code::Refused, what).hint(hint).into());
    };
    let (ours, theirs) = (node.name(), other.holder.clone());
    if *keep == ours {
        stay(node, &run, &gathered, &theirs, dry_run).await
    } else if *keep == theirs {
        give_way(&run, &theirs, dry_run).await
    } else {
        let what = format!("keep {keep} in role {role}: the claims are of {ours} and {theirs}");
        Err(Failure::new(Code::Usage, what)
            .hint("name one of the two")
            .into())
    }
}

/// This node goes on, under a term that the other follows. Not while the other serves: there would be two of them.
async fn stay(
    node: &Arc<Node>,
    run: &Arc<RoleRun>,
    gathered: &Gathered,
    theirs: &NodeName,
    dry_run: bool,
) -> Result<MoveReport> {
    let begun = Instant::now();
    let (role, ours) = (&run.name, node.name());
    let words = || {
        let answered = gathered.peers.iter();
        answered.filter_map(|(name, word)| Some((name, word.as_ref()?)))
    };
    if let Some((name, _)) = words().find(|(_, word)| word.plays) {
        let what = format!("keep {ours} in role {role}: {name} serves at this moment");
        let hint = format!("first on {name}: standin resolve {role} --keep {ours}");
        return Err(Failure::new(Code::Refused, what).hint(hint).into());
    }
    let highest = words().map(|(_, word)| word.seen.epoch).max().unwrap_or(0);
    let epoch = highest.max(gathered.record.term().epoch) + 1;
    let mut report = MoveReport::new(role, dry_run);
    let text = format!("go on here under term {epoch}; what {theirs} wrote becomes a fork there");
    if dry_run {
        report.steps.push(planned("resolve", text));
        return Ok(report);
    }
    report.steps.push(done("resolve", text));
    let term = node.claim(epoch)?;
    let beside = Beside {
        line: None,
        base: gathered.points.last().cloned(),
    };
    let what = format!("resolve {role}");
    follow(run, &what, Event::Stay { term }, beside).await?;
    let record = risen(node, run, "resolve").await?;
    report.settle(&record, begun.elapsed());
    Ok(report)
}

/// This node stops, and keeps what it wrote as a fork.
async fn give_way(run: &Arc<RoleRun>, theirs: &NodeName, dry_run: bool) -> Result<MoveReport> {
    let begun = Instant::now();
    let role = &run.name;
    let mut report = MoveReport::new(role, dry_run);
    let text = format!("stop here; what was written here is kept as a fork, {theirs} goes on");
    let next = format!("then, on {theirs}: standin resolve {role} --keep {theirs}");
    if dry_run {
        report.steps.push(planned("resolve", text));
        report.steps.push(planned("next", next));
        return Ok(report);
    }
    let what = format!("resolve {role}");
    let told = follow(run, &what, Event::Yield, Beside::default()).await?;
    report.steps.push(done("resolve", text));
    report.steps.push(done("next", next));
    report.settle(&told.record, begun.elapsed());
    Ok(report)
}

/// Nothing starts by itself; or does again.
pub async fn pause(node: &Arc<Node>, role: &RoleName, off: bool) -> Result<MoveReport> {
    let run = node.role(role)?;
    let mut report = MoveReport::new(role, false);
    let event = if off { Event::Unpause } else { Event::Pause };
    let told = follow(&run, &format!("pause {role}"), event, Beside::default()).await?;
    let text = match off {
        true => "things start by themselves again",
        false => {
            "no cycle, drill or retry starts by itself until `standin pause --off`; what is asked for by hand is done, and a higher term still stops this node"
        }
    };
    report.steps.push(done("pause", text));
    report.settle(&told.record, Duration::ZERO);
    Ok(report)
}
