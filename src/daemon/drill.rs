//! Drills: who may begin one, when one begins by itself, and what is told of them.
//!
//! Promise: one drill at a time on a node; none begins while the role is on its way from one node to another, and one that runs
//! is ended as soon as the role moves: its services have stopped before those of the role start. What a drill of an
//! earlier daemon left is cleared away when this one starts. An orderly stop waits until the drill has tidied up.
//!
//! It deliberately does not know what is done in a drill: `perform` does.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::api::{DrillReport, DrillRequest, DrillView, PointSummary, RoleStatus};
use super::node::{Node, RoleRun, blocking, lock};
use super::restore::not_found;
use crate::error::{Code, Failure};
use crate::logic::choose::find;
use crate::logic::drill as logic;
use crate::logic::manifest::Stored;
use crate::logic::point::PointName;
use crate::logic::role::State;
use crate::logic::units;
use crate::peer::timing::hurried;

mod perform;

/// Between two looks at the schedule.
const LOOK_EVERY: Duration = Duration::from_secs(30);

/// How long a role that moves waits for its drill to have stopped. More than a drill takes that was told to end.
const MAKE_WAY_MAX: Duration = Duration::from_secs(30);

/// A drill that runs.
pub struct RunningDrill {
    cancel: CancellationToken,
    /// Closed when it is over.
    over: watch::Receiver<()>,
}

/// Held by whoever drills on this node.
pub type Turn = tokio::sync::OwnedMutexGuard<()>;

/// A drill that somebody asked for.
pub async fn drill(node: &Arc<Node>, request: DrillRequest) -> Result<DrillReport> {
    let run = node.role(&request.role)?;
    refuse_moving(node, &run)?;
    let fs = run.fs.clone();
    let found = blocking(move || fs.inspect()).await?;
    let point = find(&found.points, &request.point)
        .map_err(|why| not_found(node, &run, &request.point, &found.damaged, why))?;
    if request.dry_run {
        return Ok(perform::plan(node, &run, point));
    }
    begin(node, &run, point.clone()).await
}

fn refuse_moving(node: &Node, run: &RoleRun) -> Result<()> {
    let state = node.record(run)?.map(|record| record.part.state);
    match logic::hindrance(&state.unwrap_or(State::Standby)) {
        None => Ok(()),
        Some(why) => {
            let what = format!("drill role {}: {why}", run.name);
            let hint = "wait until it is active or stands in: `standin status` shows it";
            Err(Failure::new(Code::Refused, what).hint(hint).into())
        }
    }
}

/// Runs a drill to its end, on a task of its own: it tidies up also when nobody waits for it any more.
async fn begin(node: &Arc<Node>, run: &Arc<RoleRun>, point: Stored) -> Result<DrillReport> {
    let turn = turn(node, run).await?;
    let (running, over) = watch::channel(());
    let cancel = node.stop.child_token();
    *lock(&run.drill) = Some(RunningDrill {
        cancel: cancel.clone(),
        over,
    });
    // Looked at again: a role that began to move before this moment did not see the drill.
    if let Err(refused) = refuse_moving(node, run) {
        *lock(&run.drill) = None;
        return Err(refused);
    }
    let (node, run) = (node.clone(), run.clone());
    let task = tokio::spawn(async move {
        let ended = perform::whole(&node, &run, &point, &cancel).await;
        *lock(&run.drill) = None;
        drop((turn, running));
        ended
    });
    task.await.context("wait for the end of the drill")?
}

/// One at a time. What is cleared away at the start of the daemon is waited for.
async fn turn(node: &Node, run: &RoleRun) -> Result<Turn> {
    let running = |run: &Arc<RoleRun>| lock(&run.drill).is_some();
    if let Some(other) = node.roles().iter().find(|run| running(run)) {
        let (role, other) = (&run.name, &other.name);
        let what = format!("drill role {role}: a drill of role {other} is running");
        return Err(Failure::new(Code::Locked, what)
            .hint(format!(
                "wait until it is over, or end it with `standin cancel {other}`"
            ))
            .into());
    }
    Ok(node.drilling.clone().lock_owned().await)
}

/// Tells the drill of the role to end. True when there was one.
pub fn cancel(run: &RoleRun) -> bool {
    let running = lock(&run.drill);
    if let Some(running) = running.as_ref() {
        running.cancel.cancel();
    }
    running.is_some()
}

/// The services of the role are about to start: those of its drill must be gone.
pub async fn make_way(node: &Node, run: &RoleRun) {
    let Some(mut over) = lock(&run.drill).as_ref().map(|drill| {
        drill.cancel.cancel();
        drill.over.clone()
    }) else {
        return;
    };
    node.hub.note(
        Some(&run.name),
        "the drill ends first: the role's services start",
    );
    // An error is the end: nothing is ever sent.
    let ended = tokio::time::timeout(MAKE_WAY_MAX, over.changed()).await;
    if ended.is_err() {
        let limit = units::exact_duration(MAKE_WAY_MAX);
        let text = format!("the drill has not ended within {limit}; the role goes on");
        node.hub.warn(Some(&run.name), text);
    }
}

/// Begins drills that are due until the daemon stops, and then waits for the one that runs.
/// With `turn`, what a drill of an earlier daemon left is cleared away first.
pub async fn keep(node: Arc<Node>, turn: Turn) {
    for run in node.roles() {
        perform::clear(&node, &run).await;
    }
    drop(turn);
    loop {
        for run in node.roles() {
            if let Err(error) = tick(&node, &run).await {
                let text = format!("could not begin a drill: {error:#}");
                node.hub.warn(Some(&run.name), text);
            }
        }
        tokio::select! {
            () = tokio::time::sleep(hurried(LOOK_EVERY)) => {}
            () = node.reloaded.notified() => {}
            () = node.stop.cancelled() => break,
        }
    }
    // The token of a drill is a child of the one that ended this loop.
    let _over = node.drilling.lock().await;
}

/// Begins a drill where one is due, and waits for its end.
async fn tick(node: &Arc<Node>, run: &Arc<RoleRun>) -> Result<()> {
    if run.role.drill.every.is_none() {
        return Ok(());
    }
    let Some(record) = node.record(run)? else {
        return Ok(());
    };
    if record.part.paused || logic::hindrance(&record.part.state).is_some() {
        return Ok(());
    }
    let begun = node.state.drill(&run.name)?.begun.map(|(at, _)| at);
    let now = Timestamp::now();
    let due = logic::due(&run.role.drill, begun, now, &TimeZone::system());
    if due.is_none_or(|due| due > now) {
        return Ok(());
    }
    let fs = run.fs.clone();
    let points = blocking(move || fs.list()).await?;
    let Some(newest) = points.last() else {
        return Ok(());
    };
    match begin(node, run, newest.clone()).await {
        Ok(_) => Ok(()),
        // Somebody else's turn, or told to end: told already, and not a failure to begin.
        Err(error)
            if matches!(
                Failure::code_of(&error),
                Code::Locked | Code::Refused | Code::Interrupted
            ) =>
        {
            tracing::debug!(role = run.name.as_str(), "no drill: {error:#}");
            Ok(())
        }
        Err(error) => Err(error),
    }
}

/// The last drill that came to its end, for `status`.
pub fn last(node: &Node, run: &RoleRun) -> Result<Option<DrillView>> {
    let result = node.state.drill(&run.name)?.result;
    Ok(result.map(|result| DrillView {
        ended: result.ended,
        point: named(&result.point),
        passed: result.passed,
        seconds: result.seconds,
        failure: result.failure,
    }))
}

/// A point that may be gone by now.
fn named(name: &PointName) -> PointSummary {
    PointSummary {
        name: *name,
        short: format!("{}.{}", name.epoch, name.sequence),
        taken: name.taken,
        consistent: None,
    }
}

/// What somebody should look at.
pub fn warning(run: &RoleRun, role: &RoleStatus, now: Timestamp) -> Option<String> {
    let last = role.drill.as_ref()?;
    if let Some(failure) = &last.failure {
        let point = &last.point.short;
        return Some(format!(
            "{}: the last drill FAILED ({point}): {failure}",
            role.name
        ));
    }
    let drill = &run.role.drill;
    let every = drill.every.as_ref()?;
    logic::overdue(drill, last.ended, now, &TimeZone::system()).then(|| {
        format!(
            "{}: the last drill was {}; one is due every {every}",
            role.name,
            units::human_age(now.duration_since(last.ended).as_secs_f64())
        )
    })
}
