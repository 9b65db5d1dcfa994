//! Moves a role from this node, which plays it, to a peer, without losing a byte; `failback` is the same towards its home.
//!
//! Promise: until the release is on disk this node can go on by itself and does so when anything fails; after it, only the
//! other node can. With `dry_run` nothing is changed on either node.
//!
//! It deliberately does not know the steps of the way: those are the supervisor's (`moves`).

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::api::{MoveReport, Step};
use super::cycle::{done, planned};
use super::incoming::permitted;
use super::node::{Node, RoleRun, blocking, lock};
use super::promote::follow;
use super::supervisor::Beside;
use super::{measured, outgoing, preview, words};
use crate::config::Grant;
use crate::error::{Code, Failure};
use crate::host::part::RoleRecord;
use crate::logic::name::{NodeName, RoleName};
use crate::logic::point::{RoleId, Term};
use crate::logic::role::{Event, State};
use crate::peer::message::{Answer, Request};

/// The other node has the role and its data; for its services and addresses it is given this long before the report says
/// so and goes home.
const ARRIVES_WITHIN: Duration = Duration::from_secs(120);

/// Shortest and longest pause between two questions whether it is up there: a tenth of the time it took so far.
const ASK_EVERY: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));

/// Hands the role over; `to` none: to its home.
pub async fn handover(
    node: &Arc<Node>,
    role: &RoleName,
    to: Option<&NodeName>,
    dry_run: bool,
) -> Result<MoveReport> {
    let begun = Instant::now();
    let run = node.role(role)?;
    let mut report = MoveReport::new(role, dry_run);
    let (record, to) = chosen(node, &run, to)?;
    ask_ready(node, &run, &record, &to).await?;
    if dry_run {
        report.steps = preview(node, &run, &record, &to).await?;
        return Ok(report);
    }
    let nonce = crate::host::random::number().context("draw a nonce for a term")?;
    let term = Term {
        epoch: record.term().epoch + 1,
        holder: to.clone(),
        nonce,
    };
    let what = format!("hand {role} over to {to}");
    let event = Event::HandOver { term: term.clone() };
    run.supervisor.forget_trouble();
    follow(&run, &what, event, Beside::default()).await?;
    released(node, &run, &what).await?;
    let text = format!(
        "released {role} to {to} under term {}: everything written here is there",
        term.epoch
    );
    report.steps.push(done("release", text));
    arrived(node, &run, &to).await?;
    let (down, moved) = run.supervisor.stopped_for();
    report.down_s = down.map(|took| took.as_secs_f64());
    report.moved_s = moved.map(|took| took.as_secs_f64());
    report
        .steps
        .push(done("active", format!("{to} plays the role")));
    report.settle(&settled(node, &run).await?, begun.elapsed());
    Ok(report)
}

/// Whether this node can hand the role over, and to whom.
fn chosen(node: &Node, run: &RoleRun, to: Option<&NodeName>) -> Result<(RoleRecord, NodeName)> {
    let (role, ours) = (&run.name, node.name());
    let fail = |code, what: String, hint: String| Err(Failure::new(code, what).hint(hint).into());
    let to = to.unwrap_or(&run.role.home).clone();
    let what = format!("hand {role} over to {to}");
    let Some(record) = node.record(run)? else {
        return fail(
            Code::Refused,
            format!("{what}: this node has nothing of it"),
            format!("its home is {}", run.role.home),
        );
    };
    if record.part.state != State::Active {
        let hint = match record.part.state {
            State::Standby | State::HandedOff => {
                format!("run it on {}, the active node", record.term().holder)
            }
            _ => format!("see: standin status {role}"),
        };
        return fail(
            Code::Refused,
            format!("{what}: this node is {}", record.part.state),
            hint,
        );
    }
    if to == ours {
        return fail(
            Code::Refused,
            format!("{what}: it is here already"),
            format!("to another node: standin handover {role} --to NODE"),
        );
    }
    if !run.role.peers.contains(&to) {
        let peers: Vec<&str> = run.role.peers.iter().map(NodeName::as_str).collect();
        return fail(
            Code::NotFound,
            format!("{what}: it is no peer of the role"),
            format!("its peers: {}", peers.join(", ")),
        );
    }
    Ok((record, to))
}

/// Refuses where the other node could not take the role over.
async fn ask_ready(
    node: &Arc<Node>,
    run: &Arc<RoleRun>,
    record: &RoleRecord,
    to: &NodeName,
) -> Result<()> {
    let request = Request::Ready {
        role: run.name.clone(),
        role_id: record.id,
    };
    let what = || format!("hand {} over to {to}", run.name);
    let mut exchange = node.link(to).with_context(what)?.open(&request).await?;
    match outgoing::answer(&what(), exchange.recv()).await? {
        Answer::Ready { problems } if problems.is_empty() => Ok(()),
        Answer::Ready { problems } => {
            let what = format!("{}: {}", what(), problems.join("; "));
            let hint = format!("mend that on {to}; the role goes on here");
            Err(Failure::new(Code::Refused, what).hint(hint).into())
        }
        other => bail!("{to} answered whether it is ready with {other:?}"),
    }
}

/// Answers `Ready`: what stands against taking the role over here.
pub async fn ready(
    node: &Arc<Node>,
    peer: &NodeName,
    role: &RoleName,
    id: RoleId,
) -> Result<Vec<String>> {
    let run = permitted(node, peer, role, Grant::Send)?;
    let ours = node.name();
    let Some(record) = node.record(&run)? else {
        let way = format!("standin run {role} on {peer} sends one");
        return Ok(vec![format!("{ours} has no point of it yet ({way})")]);
    };
    words::same_role(node, &record, id, role)?;
    let mut problems = Vec::new();
    if record.part.state != State::Standby {
        problems.push(format!("{ours} is {}", record.part.state));
    }
    if record.part.paused {
        problems.push(format!("{role} is paused on {ours}"));
    }
    problems.extend(preview::problems(&run).await);
    problems.extend(cannot_open(&run).await);
    Ok(problems)
}

/// Why the newest point could not be opened here, which the last one will be like; or why nobody can tell.
async fn cannot_open(run: &Arc<RoleRun>) -> Option<String> {
    let fs = run.fs.clone();
    let newest = match blocking(move || Ok(fs.list()?.pop())).await {
        Ok(newest) => newest?.manifest.point,
        Err(error) => return Some(format!("could not {error:#}")),
    };
    let error = preview::expect_openable(run, newest).await.err()?;
    let hint = Failure::of(&error).and_then(|failure| failure.hint.clone());
    let hint = hint.map(|hint| format!(" ({hint})"));
    Some(format!("could not {error:#}{}", hint.unwrap_or_default()))
}

async fn preview(
    node: &Arc<Node>,
    run: &Arc<RoleRun>,
    record: &RoleRecord,
    to: &NodeName,
) -> Result<Vec<Step>> {
    let mut steps = vec![planned(
        "copy",
        format!("copy ahead to {to} while the services run"),
    )];
    steps.extend(preview::stops(run));
    steps.push(planned(
        "prove",
        "make sure that nobody has the live data open for writing",
    ));
    steps.push(planned(
        "snapshot",
        format!("take the last point and send it to {to}"),
    ));
    steps.push(planned(
        "release",
        format!("release the role to {to} under term {}: from here there is no way back but a hand-over home", record.term().epoch + 1),
    ));
    steps.push(planned(
        "active",
        format!("{to} makes it live, starts the services and brings up the addresses there; {} stands in", node.name()),
    ));
    if let Some(prediction) = measured::prediction(node, run, to)? {
        steps.push(planned("time", prediction.sentence()));
    }
    Ok(steps)
}

/// Waits until the release is on disk, or this node went on by itself.
async fn released(node: &Arc<Node>, run: &Arc<RoleRun>, what: &str) -> Result<()> {
    let mut changes = run.supervisor.changes();
    let mut turned = None;
    loop {
        changes.mark_unchanged();
        let record = node.record(run)?.context("find the record of the role")?;
        match &record.part.state {
            State::HandingOver { .. } => {}
            State::HandedOff | State::Reconciling { .. } | State::Standby => return Ok(()),
            State::Promoting { .. } => {
                turned = turned.or_else(|| run.supervisor.trouble());
            }
            State::Active => {
                let why = turned.or_else(|| run.supervisor.last_trouble());
                let why = why.unwrap_or_else(|| "it was called off".to_owned());
                let what = format!("{what}: {why}");
                let hint = "the role goes on here under its old term; nothing was lost";
                return Err(Failure::new(Code::Refused, what).hint(hint).into());
            }
            other => {
                let what = format!("{what}: this node is {other} now");
                return Err(Failure::new(Code::Failed, what)
                    .hint(format!("see: standin status {}", run.name))
                    .into());
            }
        }
        changes.changed().await.context("wait for the hand-over")?;
    }
}

/// Waits until the other node says that it is up.
async fn arrived(node: &Arc<Node>, run: &Arc<RoleRun>, to: &NodeName) -> Result<()> {
    let begun = Instant::now();
    let asking = async {
        loop {
            let word = words::ask(node, run, to).await;
            if let Ok(Some(word)) = word {
                if word.plays && word.state == State::Active.to_string() {
                    return;
                }
            }
            let pause = begun.elapsed() / 10;
            tokio::time::sleep(pause.clamp(ASK_EVERY.0, ASK_EVERY.1)).await;
        }
    };
    if tokio::time::timeout(ARRIVES_WITHIN, asking).await.is_ok() {
        return Ok(());
    }
    let what = format!(
        "see {} come up on {to} within {} s: it was released, and everything is there",
        run.name,
        ARRIVES_WITHIN.as_secs()
    );
    let hint = format!("on {to}: standin status {}", run.name);
    Err(Failure::new(Code::Partial, what).hint(hint).into())
}

/// Waits until this node stands in; what takes longer goes on without anybody waiting.
async fn settled(node: &Arc<Node>, run: &Arc<RoleRun>) -> Result<RoleRecord> {
    let mut changes = run.supervisor.changes();
    loop {
        changes.mark_unchanged();
        let record = node.record(run)?.context("find the record of the role")?;
        let over = matches!(
            record.part.state,
            State::HandedOff | State::Reconciling { .. }
        );
        if !over || run.supervisor.trouble().is_some() {
            return Ok(record);
        }
        changes.changed().await.context("wait for the role")?;
    }
}

/// Calls a hand-over off that has not come to the release.
pub async fn cancel(node: &Arc<Node>, role: &RoleName) -> Result<MoveReport> {
    let run = node.role(role)?;
    let mut report = MoveReport::new(role, false);
    let what = format!("call the hand-over of {role} off");
    let told = follow(&run, &what, Event::Cancel, Beside::default()).await?;
    if let Some(cycle) = lock(&run.cycle).as_ref() {
        cycle.cancel.cancel();
    }
    report.steps.push(done("cancel", told.why));
    report.settle(&told.record, Duration::ZERO);
    Ok(report)
}
