//! Starts cycles when they are due: one task for each role in which this node is active.
//!
//! The start of the last cycle is remembered on disk, so a time that passed while the machine was off is made up for
//! once. While a cycle is still transferring, a due time takes the point alone: snapshots never wait for a slow line.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use jiff::Timestamp;

use super::cycle;
use super::node::{Node, RoleRun, lock};
use super::take::{self, Taken};
use super::watching::Watching;
use super::{prune, replicate};
use crate::host::part::RoleRecord;
use crate::logic::manifest::Reason;
use crate::logic::role::State;
use crate::logic::schedule::{Every, next_due};

/// Longest sleep: a clock that was set, or a config that changed, is noticed within this time.
const LOOK_AT_LEAST_EVERY: Duration = Duration::from_secs(30);

/// Shortest wait between two looks at the schedule.
const LOOK_AT_MOST_EVERY: Duration = Duration::from_millis(200);

/// How often a standby prunes beside the times when a point arrives.
const STANDBY_PRUNE_EVERY: Duration = Duration::from_secs(3600);

/// Runs schedules until the daemon stops; looks anew after each reload.
pub async fn keep(node: Arc<Node>) {
    loop {
        let mut tasks = tokio::task::JoinSet::new();
        for run in node.roles() {
            tasks.spawn(role(node.clone(), run));
        }
        tokio::select! {
            () = node.stop.cancelled() => return,
            () = node.reloaded.notified() => {}
        }
        // Dropping the set ends the waiting, never a cycle: those run on their own.
    }
}

async fn role(node: Arc<Node>, run: Arc<RoleRun>) {
    let mut watching = Watching::default();
    loop {
        let wait = match tick(&node, &run, &mut watching).await {
            Ok(wait) => wait,
            Err(error) => {
                node.hub.warn(
                    Some(&run.name),
                    format!("could not look at the schedule: {error:#}"),
                );
                LOOK_AT_LEAST_EVERY
            }
        };
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = run.wake.notified() => {}
        }
    }
}

/// Does what is due, and says how long to wait.
async fn tick(node: &Arc<Node>, run: &Arc<RoleRun>, watching: &mut Watching) -> Result<Duration> {
    let record = node.record(run)?;
    let standby = |record: &RoleRecord| record.part.state == State::Standby;
    let paused = record.as_ref().is_some_and(|record| record.part.paused);
    if record.as_ref().is_none_or(standby) && !paused {
        prune::prune(node, run, false).await?;
        return Ok(STANDBY_PRUNE_EVERY);
    }
    // On its way between the two nothing starts by itself.
    let Some(record) = record.filter(|record| record.active() && !paused) else {
        return Ok(LOOK_AT_LEAST_EVERY);
    };
    if matches!(run.role.every, Every::Manual) {
        return Ok(LOOK_AT_LEAST_EVERY);
    }
    let now = Timestamp::now();
    let recorded = node.state.cycle(&run.name)?.started;
    // The start of a cycle that could not be recorded counts too: else it would be due again at once, for ever.
    let last = (*lock(&run.last_start)).or(recorded);
    let due = next_due(&run.role.every, last, now, &jiff::tz::TimeZone::system());
    let Some(due) = due else {
        return Ok(LOOK_AT_LEAST_EVERY);
    };
    if due > now {
        return Ok(until(due, now).clamp(LOOK_AT_MOST_EVERY, LOOK_AT_LEAST_EVERY));
    }
    let on_change = matches!(run.role.every, Every::OnChange { .. });
    // What is taken while an older point is on its way stays here until it has arrived: no need to hurry, its end rings.
    let rests = |last: Timestamp| since(last, now) < LOOK_AT_LEAST_EVERY;
    if on_change && lock(&run.cycle).is_some() && last.is_some_and(rests) {
        return Ok(LOOK_AT_LEAST_EVERY);
    }
    if on_change && !(watching.change(run).await? && acts(node, run)?) {
        return Ok(Duration::ZERO);
    }
    let busy = lock(&run.cycle).is_some();
    if !busy {
        cycle::start(node, run, Reason::Schedule, true)?;
        // The cycle records its start at once; until then this task must not see the same time due again.
        return Ok(LOOK_AT_MOST_EVERY);
    }
    let now = Timestamp::now();
    *lock(&run.last_start) = Some(now);
    let mut record_of_cycle = node.state.cycle(&run.name)?;
    record_of_cycle.started = Some(now);
    node.state.record_cycle(&run.name, &record_of_cycle)?;
    if let Taken::Point(stored) = take::take(node, run, &record, Reason::Schedule).await? {
        let point = &stored.manifest.point;
        node.hub.note(
            Some(&run.name),
            format!("took {point}; the last cycle is still transferring"),
        );
        prune::prune(node, run, false).await?;
        catch_up_who_waits(node, run);
    }
    Ok(LOOK_AT_MOST_EVERY)
}

/// One peer on a slow line, or one that was away, must not make the others wait: those that the cycle has finished with get the
/// point now.
fn catch_up_who_waits(node: &Arc<Node>, run: &Arc<RoleRun>) {
    for peer in run.role.peers.iter().filter(|peer| node.link(peer).is_ok()) {
        let turn = lock(&run.replicas)
            .get(peer)
            .map(|replica| replica.turn.clone());
        if turn.is_some_and(|turn| turn.try_lock().is_ok()) {
            replicate::catch_up(node, run, peer);
        }
    }
}

/// Whether it still goes on from here by itself.
fn acts(node: &Node, run: &RoleRun) -> Result<bool> {
    let acts = |record: RoleRecord| record.active() && !record.part.paused;
    Ok(node.record(run)?.is_some_and(acts))
}

fn since(then: Timestamp, now: Timestamp) -> Duration {
    Duration::try_from(now.duration_since(then)).unwrap_or_default()
}

fn until(due: Timestamp, now: Timestamp) -> Duration {
    let milliseconds = due
        .as_millisecond()
        .saturating_sub(now.as_millisecond())
        .max(0);
    Duration::from_millis(milliseconds.unsigned_abs() + 1)
}

/// When the role is due next, for `status`.
pub fn next_run(node: &Node, run: &RoleRun) -> Result<Option<Timestamp>> {
    if !acts(node, run)? {
        return Ok(None);
    }
    let last = node.state.cycle(&run.name)?.started;
    Ok(match run.role.every {
        Every::Manual | Every::OnChange { .. } => None,
        _ => next_due(
            &run.role.every,
            last,
            Timestamp::now(),
            &jiff::tz::TimeZone::system(),
        ),
    })
}
