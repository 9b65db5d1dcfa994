//! Watches this node's wall clock, because pruning must not trust one that jumped.
//!
//! Promise: what was believed last is on disk, so that a jump is noticed also over a restart; each doubt, and its end, is
//! told once. Not being able to tell counts as doubt: a point that stays too long harms nobody.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;

use super::node::{Node, PeerRun, RoleRun, blocking, lock};
use crate::host::clock::{read, since_boot};
use crate::logic::clock::{Doubt, TOLERANCE, Watch, Witness};
use crate::logic::point::PointId;
use crate::logic::units;

/// A jump is told within this time, and nothing is pruned before a look.
const LOOK_EVERY: Duration = Duration::from_secs(15);

/// What is on disk is no older: within one boot an old reading is as good as a new one, and a disk may sleep.
const WRITE_EVERY: Duration = Duration::from_secs(600);

/// What this daemon knows of its clock.
#[derive(Debug, Default)]
pub struct Remembered {
    /// None until the first look.
    watch: Option<Watch>,
    /// When it was put on disk, since the boot.
    written: Option<Duration>,
}

/// Points whose true age is remembered.
const AGES_MAX: usize = 4096;

/// Looks at the clock until the daemon stops.
pub async fn keep(node: Arc<Node>) {
    loop {
        if let Err(error) = look(&node).await {
            node.hub
                .warn(None, format!("could not look at the clock: {error:#}"));
        }
        tokio::select! {
            () = tokio::time::sleep(LOOK_EVERY) => {}
            () = node.stop.cancelled() => return,
        }
    }
}

/// Looks at the clock, and tells why it is doubted, if it is.
pub async fn look(node: &Arc<Node>) -> Result<Option<Doubt>> {
    // One look at a time: each builds on the one before.
    let mut remembered = node.clock.lock().await;
    let old = match remembered.watch.clone() {
        None => node.state.watch()?,
        watch => watch,
    };
    let newest = match old {
        Some(_) => None,
        None => newest(node).await?,
    };
    let witness = Witness {
        newest,
        peer_agrees: peer_agrees(node),
    };
    let doubted = |watch: &Watch| watch.doubt().map(|doubt| doubt.jumped);
    let before = old.as_ref().and_then(doubted);
    let watch = Watch::look(old, read()?, witness);
    let (now, changed) = (since_boot(), before != doubted(&watch));
    let written = remembered.written;
    if changed || written.is_none_or(|at| now.saturating_sub(at) >= WRITE_EVERY) {
        node.state.record_watch(&watch)?;
        remembered.written = Some(now);
    }
    remembered.watch = Some(watch.clone());
    match (before, watch.doubt()) {
        (None, Some(doubt)) => node.hub.warn(None, sentence(doubt)),
        (Some(_), None) => node.hub.note(None, "the clock is believed again"),
        _ => {}
    }
    *lock(&node.doubt) = watch.doubt().cloned();
    Ok(watch.doubt().cloned())
}

/// `the clock jumped 3h ahead; nothing is pruned until ...`
pub fn sentence(doubt: &Doubt) -> String {
    let direction = if doubt.jumped.is_negative() {
        "back"
    } else {
        "ahead"
    };
    let far = units::human_duration(doubt.jumped.as_secs_f64().abs());
    let ends = doubt.ends().strftime("%Y-%m-%d %H:%M UTC");
    format!(
        "this node's clock jumped {direction} by {far}: nothing is pruned until it is right again, a peer's clock agrees, or \
         {ends}"
    )
}

/// A peer whose clock is wrong, or right while ours is not; for `status`.
pub fn of_peer(run: &PeerRun) -> Option<String> {
    let link = lock(&run.contact).link.as_ref()?.link.clone();
    let seconds = link.clock_difference_s();
    (seconds.abs() > TOLERANCE.as_secs_f64()).then(|| {
        let far = units::human_duration(seconds.abs());
        let direction = if seconds > 0.0 { "ahead of" } else { "behind" };
        format!(
            "the clock of {} is {far} {direction} this node's: one of them is wrong",
            run.peer.name
        )
    })
}

fn peer_agrees(node: &Node) -> bool {
    let agrees = |seconds: f64| seconds.abs() <= TOLERANCE.as_secs_f64();
    let peers = node.peers();
    let mut links = peers
        .iter()
        .filter_map(|run| lock(&run.contact).link.clone());
    links.any(|linked| linked.link.fresh_clock_difference_s().is_some_and(agrees))
}

async fn newest(node: &Arc<Node>) -> Result<Option<jiff::Timestamp>> {
    let mut newest = None;
    for run in node.roles() {
        let fs = run.fs.clone();
        // A role that cannot be read now is told elsewhere.
        let stored = blocking(move || fs.list()).await.unwrap_or_default();
        newest = newest.max(stored.last().map(|stored| stored.manifest.taken));
    }
    Ok(newest)
}

/// Remembers when, by the clock nobody can set, a point was taken.
pub fn taken(run: &RoleRun, point: &PointId) {
    let mut ages = lock(&run.ages);
    ages.push_back((point.clone(), since_boot()));
    if ages.len() > AGES_MAX {
        ages.pop_front();
    }
}

/// Seconds since a point was taken: by the clock nobody can set where this daemon took it, else by the wall clock; of a
/// point that lies in the future the least that is sure, the time since this daemon started.
pub fn age_s(
    node: &Node,
    run: &RoleRun,
    of: &PointId,
    taken: jiff::Timestamp,
    now: jiff::Timestamp,
) -> f64 {
    let ages = lock(&run.ages);
    if let Some((_, at)) = ages.iter().rev().find(|(point, _)| *point == *of) {
        return since_boot().saturating_sub(*at).as_secs_f64();
    }
    let wall = now.duration_since(taken).as_secs_f64();
    if wall >= 0.0 {
        wall
    } else {
        uptime(node).as_secs_f64()
    }
}

/// How long ago this daemon took the point; none where another did, or too long ago.
pub fn taken_ago(run: &RoleRun, of: &PointId) -> Option<Duration> {
    let ages = lock(&run.ages);
    let (_, at) = ages.iter().rev().find(|(point, _)| *point == *of)?;
    Some(since_boot().saturating_sub(*at))
}

/// How long this daemon has run, sleep included.
pub fn uptime(node: &Node) -> Duration {
    since_boot().saturating_sub(node.born)
}
