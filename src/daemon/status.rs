//! Status: honest figures at this moment, gathered anew for each question.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::Result;
use jiff::{SignedDuration, Timestamp};

use super::api::{DatasetStatus, PeerStatus, PointSummary, ReplicaStatus, RoleStatus, Status};
use super::node::{Node, PeerRun, RoleRun, blocking, lock};
use super::{browse, clock, drift, drill, measured, schedule, seed, standing, unsaved};
use crate::fs::Filesystem;
use crate::logic::damage::{self, Damaged};
use crate::logic::fork::Fork;
use crate::logic::manifest::Stored;
use crate::logic::name::{DatasetName, NodeName};
use crate::logic::outlook::outlook;
use crate::logic::point::{PointId, PointName};
use crate::logic::role::State;
use crate::peer::message::plain;

/// A role that is this many intervals late, or a peer this far behind, is worth a warning.
const LATE_AFTER_S: i64 = 24 * 3600;

/// What slewing does to the clock is no step.
const CLOCK_STEP: SignedDuration = SignedDuration::from_secs(10);

/// How long "nothing changed" is believed.
const LOOK_LASTS: Duration = Duration::from_secs(5);

pub async fn status(node: &Arc<Node>) -> Result<Status> {
    let now = Timestamp::now();
    let mut roles = Vec::new();
    let mut warnings = Vec::new();
    warnings.extend(lock(&node.doubt).as_ref().map(clock::sentence));
    for run in node.peers() {
        warnings.extend(clock::of_peer(&run));
        warnings.extend(drift::warning(node, &run.peer.name, now));
    }
    for run in node.roles() {
        match role(node, &run, now).await {
            Ok((role, damaged)) => {
                warn_of(&role, now, &mut warnings);
                warnings.extend(drill::warning(&run, &role, now));
                warnings.extend(seed::warnings(&run));
                let named = |text: String| format!("{}: {text}", run.name);
                warnings.extend(damaged.into_iter().map(named));
                roles.push(role);
            }
            Err(error) => warnings.push(format!("could not look at role {}: {error:#}", run.name)),
        }
    }
    Ok(Status {
        node: node.name(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        now,
        started: began(node.started, clock::uptime(node), now),
        peers: node.peers().iter().map(|run| peer(node, run)).collect(),
        roles,
        transfers: node.hub.transfers(),
        warnings,
        mounts: browse::views(node),
    })
}

fn peer(node: &Node, run: &PeerRun) -> PeerStatus {
    let contact = lock(&run.contact);
    let linked = contact.link.as_ref();
    let limit = super::pacing::in_force(run, Timestamp::now());
    PeerStatus {
        name: run.peer.name.clone(),
        address: run
            .peer
            .via
            .as_ref()
            .map(|argv| argv.join(" "))
            .or_else(|| run.peer.address.clone()),
        paired: run.peer.key.is_some(),
        linked: linked.is_some(),
        since: match (contact.since, linked) {
            (Some(since), Some(linked)) => {
                Some(began(since, linked.since.elapsed(), Timestamp::now()))
            }
            (since, _) => since,
        },
        last_error: contact.last_error.clone(),
        version: linked.map(|linked| plain(&linked.link.hello().version)),
        clock_difference_s: linked.map(|linked| linked.link.clock_difference_s()),
        rtt_ms: linked.and_then(|linked| linked.link.rtt_ms()),
        limit: run.limiter.rate(),
        limit_until: limit.until,
        drift: drift::view(node, &run.peer.name),
    }
}

/// When something began, as it was written down then; where the clock was set since, by the clock of now.
fn began(written: Timestamp, ago: Duration, now: Timestamp) -> Timestamp {
    let by_now = now.checked_sub(ago).unwrap_or(Timestamp::UNIX_EPOCH);
    if by_now.duration_since(written).abs() < CLOCK_STEP {
        written
    } else {
        by_now
    }
}

/// The role, and sentences about damaged points, here and on its peers.
async fn role(
    node: &Arc<Node>,
    run: &Arc<RoleRun>,
    now: Timestamp,
) -> Result<(RoleStatus, Vec<String>)> {
    let record = node.record(run)?;
    let active = record.as_ref().is_some_and(|record| record.active());
    let Found {
        points: stored,
        damaged,
        datasets,
        changed,
        forks,
    } = look(run, active).await?;
    let sentences = damage_of(node, run, &damaged);
    let cycle = node.state.cycle(&run.name)?;
    let replicas = match active {
        true => in_bytes(run, replicas(node, run, &stored, changed, now)?, &stored).await,
        false => Vec::new(),
    };
    let loss = match &record {
        Some(record) if run.role.logs.is_none() => {
            standing::loss(node, run, record, stored.last(), now)?
        }
        _ => None,
    };
    let (of_term, of_state) = node.state.since(&run.name)?;
    let status = RoleStatus {
        name: run.name.clone(),
        logs: run.role.logs.as_ref().map(|logs| logs.of.clone()),
        id: record.as_ref().map(|record| record.id),
        state: record.as_ref().map_or_else(
            || "standby".to_owned(),
            |record| record.part.state.to_string(),
        ),
        paused: record.as_ref().is_some_and(|record| record.part.paused),
        outlook: record.as_ref().and_then(|record| {
            let troubled = run.supervisor.trouble().is_some();
            outlook(&run.name, &record.part, troubled)
        }),
        trouble: run.supervisor.trouble(),
        since: match &record {
            Some(record) if record.part.state == State::Active => of_term,
            _ => of_state,
        },
        home: Some(run.role.home.clone()),
        loss,
        words: standing::words(node, run)?,
        forks: standing::forks(&forks),
        views: standing::views(run),
        seeds: seed::views(run),
        term: record.as_ref().map(|record| record.term().clone()),
        active: record.map(|record| record.part.seen.holder),
        every: run.role.every.to_string(),
        next_run: schedule::next_run(node, run)?,
        last_good: cycle.good,
        // What came of cycles while the role lived here is no trouble of a node that stands in.
        last_error: cycle.error.filter(|_| active),
        phase: run.phase(),
        points: stored.len(),
        damaged: damaged.len(),
        newest: stored.last().map(summary),
        drill: drill::last(node, run)?,
        drilling: lock(&run.drill).is_some(),
        replicas,
        datasets,
    };
    Ok((status, sentences))
}

/// What the filesystems tell.
struct Found {
    points: Vec<Stored>,
    damaged: Vec<Damaged>,
    datasets: Vec<DatasetStatus>,
    /// Something was written since the newest point, or might have been.
    changed: bool,
    forks: Vec<Fork>,
}

async fn look(run: &RoleRun, active: bool) -> Result<Found> {
    let (fs, looked) = (run.fs.clone(), run.looked.clone());
    // What another node writes has no live path here that anybody knows.
    let shown = run.role.logs.as_ref().map(|_| run.role.views.clone());
    let shown = shown.unwrap_or_default();
    blocking(move || {
        let found = fs.inspect()?;
        let dataset = |(name, path): (&DatasetName, &std::path::PathBuf)| {
            let space = fs.space(name).ok();
            DatasetStatus {
                name: name.clone(),
                path: shown.get(name).unwrap_or(path).clone(),
                free_bytes: space.map(|space| space.free),
                total_bytes: space.map(|space| space.total),
            }
        };
        let changed = match found.points.last() {
            Some(newest) if active => looked.changed(&*fs, newest),
            _ => true,
        };
        Ok(Found {
            datasets: fs.datasets().iter().map(dataset).collect(),
            changed,
            // What cannot be listed is told where forks are asked for.
            forks: fs.forks().unwrap_or_default(),
            points: found.points,
            damaged: found.damaged,
        })
    })
    .await
}

/// What is damaged here, and on the peers as far as known.
fn damage_of(node: &Node, run: &RoleRun, damaged: &[Damaged]) -> Vec<String> {
    let mut sentences = damage::sentences(&node.name(), damaged);
    for (peer, replica) in &*lock(&run.replicas) {
        let theirs = damage::sentences(peer, &replica.damaged);
        sentences.extend(theirs.iter().map(|text| plain(text)));
    }
    sentences
}

/// The last look for changes: a look syncs the filesystem, which somebody who watches must not cause every second.
#[derive(Debug, Default)]
pub struct Looked {
    last: Mutex<Option<(Instant, PointId, bool)>>,
}

impl Looked {
    /// Somebody looked: nothing changed since this point.
    pub fn unchanged(&self, newest: &PointId) {
        *lock(&self.last) = Some((Instant::now(), newest.clone(), false));
    }

    /// How long ago nothing had changed since the point; none where nobody looked, or something had.
    pub fn quiet_for(&self, newest: &PointId) -> Option<Duration> {
        match &*lock(&self.last) {
            Some((at, of, false)) if of == newest => Some(at.elapsed()),
            _ => None,
        }
    }

    fn changed(&self, fs: &dyn Filesystem, newest: &Stored) -> bool {
        let mut last = lock(&self.last);
        let point = &newest.manifest.point;
        if let Some((at, of, changed)) = &*last {
            if of == point && (*changed || at.elapsed() < LOOK_LASTS) {
                return *changed;
            }
        }
        // In doubt, something would be lost.
        let changed = fs.changed(newest).unwrap_or(true);
        *last = Some((Instant::now(), point.clone(), changed));
        changed
    }
}

pub fn summary(stored: &Stored) -> PointSummary {
    let manifest = &stored.manifest;
    PointSummary {
        name: manifest.name(),
        short: manifest.point.to_string(),
        taken: manifest.taken,
        consistent: crate::logic::dump::consistent(&manifest.dumps),
    }
}

/// As [`summary`], of a point that only the peer holds whole.
fn told(point: &PointId, taken: Timestamp) -> PointSummary {
    PointSummary {
        name: PointName::of(point, taken),
        short: point.to_string(),
        taken,
        consistent: None,
    }
}

/// What each peer holds, as far as this node knows: its last answer, else the recorded base.
fn replicas(
    node: &Node,
    run: &RoleRun,
    stored: &[Stored],
    changed: bool,
    now: Timestamp,
) -> Result<Vec<ReplicaStatus>> {
    let bases = node.state.bases(&run.name)?;
    let known = lock(&run.replicas).clone();
    // With the time it was taken, where the peer told that: our own copy may be damaged.
    let newest_on = |peer: &NodeName| -> Option<(PointId, Option<Timestamp>)> {
        let told = known.get(peer).and_then(|replica| replica.lineage.as_ref());
        let told = told
            .and_then(|lineage| lineage.newest())
            .map(|entry| (entry.point.clone(), Some(entry.taken)));
        told.or_else(|| {
            bases
                .iter()
                .find(|(name, _)| name == peer)
                .map(|(_, point)| (point.clone(), None))
        })
    };
    let absent = |peer: &NodeName| lock(&run.watched).get(peer)?.sentence.clone();
    let waiting = |peer: &NodeName| known.get(peer)?.waiting.as_ref();
    let view = |peer: &NodeName| {
        let newest = newest_on(peer);
        let held = newest.as_ref().and_then(|(point, taken)| {
            let ours = stored.iter().find(|stored| stored.manifest.point == *point);
            let summary = match ours {
                Some(ours) => summary(ours),
                None => told(point, (*taken)?),
            };
            Some((point, summary))
        });
        let rank = newest.as_ref().map(|(point, _)| point.rank());
        let behind = stored
            .iter()
            .filter(|stored| Some(stored.manifest.point.rank()) > rank)
            .count();
        let exposure_s = held.as_ref().map(|(point, held)| match (behind, changed) {
            (0, false) => 0.0,
            _ => clock::age_s(node, run, point, held.taken, now),
        });
        ReplicaStatus {
            peer: peer.clone(),
            newest: held.map(|(_, summary)| summary),
            exposure_s,
            exposure_bytes: None,
            handover: measured::prediction(node, run, peer).ok().flatten(),
            behind,
            last_error: known
                .get(peer)
                .and_then(|replica| replica.last_error.clone()),
            waiting: waiting(peer).and_then(|waiting| waiting.sentence.clone()),
            retry_at: waiting(peer).map(|waiting| waiting.next),
            absent: absent(peer),
        }
    };
    Ok(run.role.peers.iter().map(view).collect())
}

/// What each would lose, in bytes.
async fn in_bytes(
    run: &Arc<RoleRun>,
    mut replicas: Vec<ReplicaStatus>,
    stored: &[Stored],
) -> Vec<ReplicaStatus> {
    let held = |replica: &ReplicaStatus| {
        let name = replica.newest.as_ref()?.name;
        let ours = stored.iter().find(|stored| stored.manifest.name() == name);
        Some(ours?.manifest.point.clone())
    };
    let lacks = |replica: &&ReplicaStatus| replica.exposure_s != Some(0.0);
    let mut points: Vec<PointId> = replicas.iter().filter(lacks).filter_map(held).collect();
    points.dedup();
    let newest = stored.last().map(|stored| stored.manifest.point.clone());
    let bytes = unsaved::since(run, points, newest).await;
    for replica in &mut replicas {
        replica.exposure_bytes = match replica.exposure_s {
            Some(0.0) => Some(0),
            _ => held(replica).and_then(|point| bytes.get(&point).copied()),
        };
    }
    replicas
}

fn warn_of(role: &RoleStatus, now: Timestamp, warnings: &mut Vec<String>) {
    if let Some(error) = &role.last_error {
        warnings.push(format!("{}: the last cycle failed: {error}", role.name));
    }
    for replica in &role.replicas {
        let said = replica.waiting.iter().chain(&replica.absent);
        warnings.extend(said.map(|said| format!("{}: {said}", role.name)));
        match replica.exposure_s {
            None => warnings.push(format!(
                "{}: {} holds no point yet",
                role.name, replica.peer
            )),
            Some(exposure) if exposure > LATE_AFTER_S as f64 => {
                let hours = exposure / 3600.0;
                warnings.push(format!(
                    "{}: {} is {hours:.0} h behind",
                    role.name, replica.peer
                ));
            }
            Some(_) => {}
        }
    }
    warnings.extend(
        role.forks
            .as_ref()
            .map(|forks| standing::of_forks(role, forks, now)),
    );
    for dataset in &role.datasets {
        if let (Some(free), Some(total)) = (dataset.free_bytes, dataset.total_bytes) {
            if free < total / 20 {
                warnings.push(format!(
                    "{}/{}: less than 5 % of its filesystem is free",
                    role.name, dataset.name
                ));
            }
        }
    }
    let future = role.newest.as_ref().filter(|newest| newest.taken > now);
    if let Some(newest) = future {
        warnings.push(format!(
            "{}: the newest point ({}) is from the future: check the clocks",
            role.name, newest.short
        ));
    }
}
