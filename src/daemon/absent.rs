//! Watches over what is kept for peers that are away: measures it, warns, and lets it go where the config sets a limit.
//!
//! Promise (P2): without a limit nothing is let go; what is let go is said in the log, as an event, in status and in check; only
//! this node's own points are unpinned, nothing of the peer's is touched. Nothing goes before this process has looked for
//! the peer for an hour: a machine that was off itself knows nothing of its peers. A crash leaves the base pinned, or the
//! release recorded.
//!
//! What a base holds is an estimate: file data of the base that the next point kept here does not hold any more, before
//! compression, by a send without data (fs::measure, from that point back to the base). Data that only parts of an extent
//! hold is not in it, nor is metadata.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use jiff::Timestamp;

use super::node::{Node, RoleRun, blocking, lock};
use super::prune;
use crate::host::absence::Absence;
use crate::logic::absent::{ABSENT_LEAST, Facts, Verdict, judge};
use crate::logic::manifest::Stored;
use crate::logic::name::NodeName;
use crate::logic::point::PointId;
use crate::logic::retention::{self, Pin};
use crate::logic::units::{human_bytes, human_duration};

/// How often peers are looked at beside every prune.
const LOOK_EVERY: Duration = Duration::from_secs(600);

/// The first look after a start: links are up by then, where peers are there.
const LOOK_FIRST: Duration = Duration::from_secs(20);

/// The last word is written down this often while a link is up.
const SEEN_EVERY_S: i64 = 60;

/// A measurement is believed this many times as long as it took.
const MEASURE_RESTS: u32 = 1000;

/// What was found at the last look at a peer.
#[derive(Debug, Clone, Default)]
pub struct Watched {
    /// For status: what it costs and what becomes of it.
    pub sentence: Option<String>,
    measured: Option<Measured>,
}

#[derive(Debug, Clone)]
struct Measured {
    base: PointId,
    bytes: u64,
    at: Instant,
    took: Duration,
}

/// Looks now and then, whatever the schedules do.
pub async fn keep(node: Arc<Node>) {
    let mut wait = LOOK_FIRST;
    loop {
        tokio::select! {
            () = node.stop.cancelled() => return,
            () = tokio::time::sleep(wait) => wait = LOOK_EVERY,
        }
        for run in node.roles() {
            if let Err(error) = look_at(&node, &run).await {
                let text = format!("could not look after absent peers: {error:#}");
                node.hub.warn(Some(&run.name), text);
            }
        }
    }
}

async fn look_at(node: &Arc<Node>, run: &Arc<RoleRun>) -> Result<()> {
    if !node.record(run)?.is_some_and(|record| record.active()) {
        return Ok(());
    }
    let fs = run.fs.clone();
    let stored = blocking(move || fs.list()).await?;
    if look(node, run, &stored).await? {
        prune::prune(node, run, false).await?;
    }
    Ok(())
}

/// Looks at every peer of a role in which this node is active. True when a base was let go.
pub async fn look(node: &Arc<Node>, run: &Arc<RoleRun>, stored: &[Stored]) -> Result<bool> {
    let mut peers = Vec::new();
    for peer in &run.role.peers {
        let absence = seen(node, run, peer)?;
        let base = base(node, run, peer)?;
        let facts = facts(node, run, stored, peer, base.as_ref(), &absence).await?;
        peers.push((peer, absence, base, facts));
    }
    let limits = &run.role.absent;
    let all: Vec<Facts> = peers.iter().map(|(_, _, _, facts)| facts.clone()).collect();
    let mut released = false;
    for (verdict, (peer, absence, base, facts)) in judge(limits, &all).into_iter().zip(peers) {
        let sentence = match (verdict, base) {
            (Verdict::Release { why }, Some(base)) => {
                node.state.release_base(&run.name, peer, &base, &why)?;
                released = true;
                let follows = follows(run, peer);
                let text = format!("let base {base} of {peer} go: {why}; {follows}");
                node.hub.warn(Some(&run.name), text);
                Some(gone(run, peer, &base, &why))
            }
            (_, None) => absence
                .released
                .map(|(base, why)| gone(run, peer, &base, &why)),
            (Verdict::Keep { step: 0, .. }, Some(_)) => None,
            (
                Verdict::Keep {
                    step,
                    percent,
                    tell,
                },
                Some(base),
            ) => {
                let sentence = held(peer, &base, &facts, &limits.to_string(), percent);
                if tell {
                    node.hub.warn(Some(&run.name), sentence.clone());
                    node.state
                        .record_told(&run.name, peer, step, Timestamp::now())?;
                }
                Some(sentence)
            }
        };
        lock(&run.watched).entry(peer.clone()).or_default().sentence = sentence;
    }
    Ok(released)
}

fn follows(run: &RoleRun, peer: &NodeName) -> String {
    match run.fs.leaves_remnants() {
        true => format!("{peer} can go on from a bookmark of it"),
        false => format!("{peer} will need a full send"),
    }
}

fn gone(run: &RoleRun, peer: &NodeName, base: &PointId, why: &str) -> String {
    let follows = follows(run, peer);
    format!("{follows}: base {base} was let go, because {why}")
}

fn held(peer: &NodeName, base: &PointId, facts: &Facts, limits: &str, percent: u64) -> String {
    let away = human_duration(facts.silent.as_secs_f64());
    let holds = facts
        .held
        .map(|held| format!(" and holds about {} here", human_bytes(held)));
    let part = match percent {
        0 => String::new(),
        percent => format!(" ({percent} % of the way)"),
    };
    format!(
        "{peer} has been away for {away}; base {base} stays for it{}; it is {limits}{part}",
        holds.unwrap_or_default()
    )
}

/// Writes down that the peer is there, where it is; gives what is remembered.
fn seen(node: &Node, run: &RoleRun, peer: &NodeName) -> Result<Absence> {
    let absence = node.state.absence(&run.name, peer)?;
    let now = Timestamp::now();
    let old = |seen: Timestamp| now.as_second().saturating_sub(seen.as_second()) >= SEEN_EVERY_S;
    // A peer that was never heard of is counted from the first look on.
    if absence.seen.is_none() || (linked(node, peer) && absence.seen.is_some_and(old)) {
        node.state.record_seen(&run.name, peer, now)?;
        return node.state.absence(&run.name, peer);
    }
    Ok(absence)
}

/// The link to a peer was lost: from now on it is away.
pub fn last_word(node: &Node, peer: &NodeName) {
    for run in node.roles() {
        if run.role.peers.contains(peer) {
            // Without this note the absence counts from an earlier one, a cycle or ten minutes ago.
            if let Err(error) = node.state.record_seen(&run.name, peer, Timestamp::now()) {
                tracing::warn!("could not note that {peer} left: {error:#}");
            }
        }
    }
}

fn linked(node: &Node, peer: &NodeName) -> bool {
    node.peer(peer)
        .is_some_and(|run| lock(&run.contact).link.is_some())
}

/// What is pinned for the peer: the base, or what was being sent in full.
fn base(node: &Node, run: &RoleRun, peer: &NodeName) -> Result<Option<PointId>> {
    let mut pinned = node.state.bases(&run.name)?;
    pinned.extend(node.state.sendings(&run.name)?);
    let ours = pinned.into_iter().find(|(name, _)| name == peer);
    Ok(ours.map(|(_, point)| point))
}

async fn facts(
    node: &Arc<Node>,
    run: &Arc<RoleRun>,
    stored: &[Stored],
    peer: &NodeName,
    base: Option<&PointId>,
    absence: &Absence,
) -> Result<Facts> {
    let now = Timestamp::now();
    let ago = |then: Timestamp| {
        let seconds = now.as_second().saturating_sub(then.as_second());
        Duration::from_secs(u64::try_from(seconds).unwrap_or(0))
    };
    let silent = absence.seen.map(ago).unwrap_or_default();
    let linked = linked(node, peer);
    let stays_anyway = match base {
        Some(base) => stays_anyway(node, run, stored, peer, base)?,
        None => true,
    };
    let held = match base {
        Some(base) if !stays_anyway && !linked && silent >= ABSENT_LEAST => {
            measured(run, stored, peer, base).await
        }
        _ => None,
    };
    let fs = run.fs.clone();
    let space = blocking(move || {
        let spaces = fs.datasets().keys().map(|dataset| fs.space(dataset));
        let spaces = spaces.collect::<crate::fs::Result<Vec<_>>>()?;
        let fullest = spaces.into_iter().min_by(|one, other| {
            let share = |space: &crate::fs::Space| space.free as f64 / space.total.max(1) as f64;
            share(one).total_cmp(&share(other))
        });
        fullest.context("look at the space of a role without datasets")
    })
    .await?;
    Ok(Facts {
        linked,
        settled: ago(node.started) >= settled_after(),
        silent,
        stays_anyway,
        held,
        free: space.free,
        total: space.total,
        told: absence.told.map(|(step, at)| (step, ago(at))),
    })
}

/// How long this process must have looked for peers before it lets anything go. A debug build can be told to trust itself
/// sooner, in seconds.
fn settled_after() -> Duration {
    let told = std::env::var("STANDIN_SETTLED_AFTER").ok();
    let told = told.and_then(|seconds| seconds.parse().ok());
    match told {
        Some(seconds) if cfg!(debug_assertions) => Duration::from_secs(seconds),
        _ => ABSENT_LEAST,
    }
}

/// Whether the rules or another pin keep the base without this peer.
fn stays_anyway(
    node: &Node,
    run: &RoleRun,
    stored: &[Stored],
    peer: &NodeName,
    base: &PointId,
) -> Result<bool> {
    let mut candidates = prune::candidates(node, run, stored)?;
    for candidate in &mut candidates {
        candidate
            .pins
            .retain(|pin| !matches!(pin, Pin::BaseOf(of) | Pin::Unfinished(of) if of == peer));
    }
    let zone = jiff::tz::TimeZone::system();
    let verdicts = retention::verdicts(&candidates, &run.role.keep, Timestamp::now(), &zone);
    let verdict = verdicts.iter().find(|verdict| verdict.id == *base);
    // One that is gone already holds nothing.
    Ok(verdict.is_none_or(|verdict| verdict.keep))
}

/// About what only the base holds, in bytes; none where it cannot be told now.
async fn measured(
    run: &Arc<RoleRun>,
    stored: &[Stored],
    peer: &NodeName,
    base: &PointId,
) -> Option<u64> {
    let known = lock(&run.watched)
        .get(peer)
        .and_then(|watched| watched.measured.clone());
    let known = known.filter(|known| known.base == *base);
    if let Some(known) = known.filter(|known| known.at.elapsed() < known.took * MEASURE_RESTS) {
        return Some(known.bytes);
    }
    let at = stored
        .iter()
        .position(|stored| stored.manifest.point == *base)?;
    let (next, of) = (
        stored.get(at + 1)?.manifest.clone(),
        stored[at].manifest.clone(),
    );
    let (fs, begun) = (run.fs.clone(), Instant::now());
    let sum = blocking(move || {
        let common = of
            .datasets
            .keys()
            .filter(|dataset| next.datasets.contains_key(*dataset));
        let bytes = common.map(|dataset| {
            let measured = fs.measure(dataset, Some(&next.point), &of.point, 1)?;
            Ok(measured.data_bytes)
        });
        bytes.sum::<Result<u64>>()
    })
    .await;
    match sum {
        Ok(bytes) => {
            lock(&run.watched).entry(peer.clone()).or_default().measured = Some(Measured {
                base: base.clone(),
                bytes,
                at: Instant::now(),
                took: begun.elapsed(),
            });
            Some(bytes)
        }
        Err(error) => {
            tracing::info!("could not measure what {base} holds for {peer}: {error:#}");
            None
        }
    }
}
