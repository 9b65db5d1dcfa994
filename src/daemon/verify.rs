//! Compares this node's copy of a point with a peer's, without sending it: both read theirs at the same time, and tell each
//! other hashes.
//!
//! Promise: nothing is changed by a comparison, on either side; the point is not pruned while it is read. What a peer says is
//! bounded and only ever makes copies look different, or equal: nothing of it is followed. The result is on disk when it is told.
//! A crash leaves nothing but what was read already, which is not read again.
//!
//! It deliberately does not know how a copy is mended: it marks one that is to be (`mend`), and `rescan` does the rest.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use jiff::Timestamp;

use super::api::{
    CycleReport, DatasetVerify, MendRequest, PathDifference, PeerVerify, PointSummary,
    VerifiedView, VerifyReport, VerifyRequest,
};
use super::cycle::our_lineage;
use super::node::{Node, RoleRun, blocking};
use super::restore::not_found;
use super::status::summary;
use super::{describe, rescan};
use crate::error::{Code, Failure};
use crate::fs::tree::shown;
use crate::host::verified::Verified;
use crate::logic::choose;
use crate::logic::lineage::Entry as Held;
use crate::logic::manifest::Stored;
use crate::logic::name::{DatasetName, NodeName};
use crate::logic::prefix::{hex, unhex};
use crate::logic::units;
use crate::logic::verify::{Difference, Entry, NAME_BYTES_MAX, TOLD_MAX, compare};
use crate::peer::exchange::Exchange;
use crate::peer::message::{Answer, Request, SenderWord};

mod answer;
pub mod keep;
mod read;

pub use answer::answer;
use read::{Hold, Paced, Wanted, Whole, left_out};

/// Longest silence of a peer that reads.
const SILENCE_MAX: Duration = Duration::from_secs(60);

/// Names of one directory that a peer may tell.
const NAMES_MAX: usize = 4_000_000;

/// Compares, with one peer or with all of the role.
pub async fn verify(node: &Arc<Node>, request: VerifyRequest) -> Result<VerifyReport> {
    let run = node.role(&request.role)?;
    let _alone = node.verifying.clone().try_lock_owned().map_err(|_| {
        Failure::new(
            Code::Locked,
            format!("verify {}: another comparison is running", run.name),
        )
        .hint("wait until it is over; `standin status` shows the last one")
    })?;
    let peers = match &request.peer {
        Some(peer) if !run.role.peers.contains(peer) => {
            let what = format!("find {peer} among the peers of role {}", run.name);
            return Err(Failure::new(Code::NotFound, what).into());
        }
        Some(peer) => vec![peer.clone()],
        None => run.role.peers.clone(),
    };
    if peers.is_empty() {
        let what = format!("verify {}: the role has no peers to compare with", run.name);
        return Err(Failure::new(Code::NotFound, what).into());
    }
    let mut report = VerifyReport {
        node: node.name(),
        role: run.name.clone(),
        peers: Vec::new(),
    };
    for peer in peers {
        let begun = Instant::now();
        let mut one = PeerVerify {
            peer: peer.clone(),
            point: None,
            taken_by: None,
            equal: None,
            datasets: Default::default(),
            causes: Vec::new(),
            advice: Vec::new(),
            code: Code::Done,
            error: None,
            seconds: 0.0,
        };
        if let Err(error) = with(node, &run, &request, &mut one).await {
            let hint = Failure::of(&error).and_then(|failure| failure.hint.clone());
            let hint = hint.map_or_else(String::new, |hint| format!("\n{hint}"));
            one.code = Failure::code_of(&error);
            one.error = Some(format!("could not {error:#}{hint}"));
        }
        one.seconds = begun.elapsed().as_secs_f64();
        report.peers.push(one);
    }
    Ok(report)
}

/// With one peer.
async fn with(
    node: &Arc<Node>,
    run: &Arc<RoleRun>,
    request: &VerifyRequest,
    one: &mut PeerVerify,
) -> Result<()> {
    let peer = one.peer.clone();
    let point = both_hold(node, run, request, &peer).await?;
    let _held = Hold::new(run, &point);
    one.point = Some(summary(&point));
    one.taken_by = Some(point.manifest.node.clone());
    let datasets = point.manifest.datasets.keys();
    let meant =
        |dataset: &&DatasetName| request.dataset.as_ref().is_none_or(|only| only == *dataset);
    let datasets: Vec<DatasetName> = datasets.filter(meant).cloned().collect();
    if datasets.is_empty() {
        let what = format!(
            "find that dataset in {} of role {}",
            point.manifest.point, run.name
        );
        return Err(Failure::new(Code::NotFound, what).into());
    }
    let text = format!("compare {} with {peer}'s copy", point.manifest.point);
    node.hub.note(Some(&run.name), text);
    for dataset in datasets {
        let compared = dataset_of(node, run, request, &point, &dataset, &peer).await;
        let compared = compared.with_context(|| format!("compare {dataset} with {peer}'s copy"))?;
        one.datasets.insert(dataset, compared);
    }
    let equal = one.datasets.values().all(|dataset| dataset.equal);
    one.equal = Some(equal);
    if !equal {
        one.code = Code::Unequal;
        explain(node, run, &point, one).await;
    }
    let differences = one
        .datasets
        .values()
        .map(|dataset| dataset.differences.len() as u64);
    let verified = Verified {
        ended: Timestamp::now(),
        point: point.manifest.name(),
        equal,
        full: request.full,
        differences: differences.sum(),
    };
    let word = if equal { "is equal to" } else { "DIFFERS from" };
    let text = format!(
        "this node's copy of {} {word} {peer}'s",
        point.manifest.point
    );
    match equal {
        true => node.hub.note(Some(&run.name), text),
        false => node.hub.warn(Some(&run.name), text),
    }
    node.state.record_verified(&run.name, &peer, &verified)
}

/// The point that is meant, which both nodes must hold whole.
async fn both_hold(
    node: &Arc<Node>,
    run: &Arc<RoleRun>,
    request: &VerifyRequest,
    peer: &NodeName,
) -> Result<Stored> {
    let record = node.record(run)?;
    let record = record.context("find the record of the role: no peer has named it yet")?;
    let theirs = rescan::holds(node, &run.name, record.id, record.term(), peer).await?;
    let (_, found) = our_lineage(run).await?;
    let holds = |point: &&Stored| theirs.holds(&Held::of(&point.manifest));
    if request.point == "latest" {
        let common = found.points.iter().rev().find(holds);
        return common.cloned().ok_or_else(|| {
            let what = format!("find a point of role {} that {peer} holds too", run.name);
            let hint = format!("standin points {}: what is where", run.name);
            Failure::new(Code::NotFound, what).hint(hint).into()
        });
    }
    let point = choose::find(&found.points, &request.point)
        .map_err(|why| not_found(node, run, &request.point, &found.damaged, why))?;
    if !holds(&point) {
        let what = format!("find {} whole on {peer}", point.manifest.point);
        let hint = format!("standin points {}: what is where", run.name);
        return Err(Failure::new(Code::NotFound, what).hint(hint).into());
    }
    Ok(point.clone())
}

/// What a peer said of its copy.
struct Theirs {
    root: String,
    unreadable: Vec<Vec<u8>>,
}

async fn dataset_of(
    node: &Arc<Node>,
    run: &Arc<RoleRun>,
    request: &VerifyRequest,
    point: &Stored,
    dataset: &DatasetName,
    peer: &NodeName,
) -> Result<DatasetVerify> {
    let record = node.record(run)?.context("find the record of the role")?;
    let (_, found) = our_lineage(run).await?;
    let leave = left_out(node, &found.points, dataset);
    let question = Request::Verify {
        role: run.name.clone(),
        role_id: record.id,
        term: record.term().clone(),
        point: point.manifest.point.clone(),
        dataset: dataset.clone(),
        full: request.full,
        leave,
    };
    let mut exchange = node.link(peer)?.open(&question).await?;
    let first = heard(node, peer, &mut exchange).await?;
    let Answer::Reading { leave: both, .. } = first else {
        bail!("{peer} answered a comparison with {first:?}");
    };
    let cancel = node.stop.child_token();
    // A peer that fails ends our reading too.
    let _cancelled = cancel.clone().drop_guard();
    let pace = Arc::new(Paced::new(request.rate, cancel));
    let wanted = Wanted {
        run: run.clone(),
        point: point.clone(),
        dataset: dataset.clone(),
        leave: leave.and(both),
        full: request.full,
    };
    let (reader, paced) = (node.clone(), pace.clone());
    let ours = blocking(move || read::read(&reader, wanted, paced));
    let (ours, theirs) = tokio::try_join!(ours, theirs(node, peer, &mut exchange))?;
    let mut compared = DatasetVerify {
        equal: hex(&ours.tree.root) == theirs.root
            && ours.tree.unreadable.is_empty()
            && theirs.unreadable.is_empty(),
        files: ours.tree.files,
        bytes: ours.tree.bytes,
        read_bytes: pace.read.load(std::sync::atomic::Ordering::Relaxed),
        differences: Vec::new(),
        more: false,
    };
    if !compared.equal {
        find(
            node,
            peer,
            &mut exchange,
            &Arc::new(ours),
            &theirs,
            &mut compared,
        )
        .await?;
    }
    Ok(compared)
}

/// The peer's next answer.
async fn heard(node: &Node, peer: &NodeName, exchange: &mut Exchange) -> Result<Answer> {
    let next = tokio::time::timeout(SILENCE_MAX, exchange.recv()).await;
    match next.with_context(|| format!("hear from {peer} while it reads"))?? {
        Answer::Refused(refusal) => {
            let error = refusal.into_error(&format!("ask {peer} to read its copy"));
            if !describe::not_understood(&error) {
                return Err(error);
            }
            let version = node.link(peer).map(|link| link.hello().version.clone());
            let version = crate::peer::message::plain(&version.unwrap_or_default());
            let what =
                format!("compare with {peer}: standin {version} there cannot compare copies yet");
            let hint = format!(
                "install standin {} on {peer} too",
                env!("CARGO_PKG_VERSION")
            );
            Err(Failure::new(Code::Refused, what).hint(hint).into())
        }
        answer => Ok(answer),
    }
}

/// Waits until the peer has read its copy.
async fn theirs(node: &Node, peer: &NodeName, exchange: &mut Exchange) -> Result<Theirs> {
    loop {
        match heard(node, peer, exchange).await? {
            Answer::Reading { .. } => {}
            Answer::Read {
                root, unreadable, ..
            } => {
                let paths = unreadable.iter().take(TOLD_MAX);
                return Ok(Theirs {
                    root,
                    unreadable: paths.filter_map(|path| unhex(path)).collect(),
                });
            }
            other => bail!("{peer} said {other:?} while it was to read"),
        }
    }
}

/// Looks where the two differ, from the top.
async fn find(
    node: &Node,
    peer: &NodeName,
    exchange: &mut Exchange,
    ours: &Arc<Whole>,
    theirs: &Theirs,
    compared: &mut DatasetVerify,
) -> Result<()> {
    let mut told = |path: &[u8], what| {
        let path = match path {
            [] => String::new(),
            path => shown(path),
        };
        let difference = PathDifference { path, what };
        if !compared.differences.contains(&difference) {
            compared.differences.push(difference);
        }
        compared.differences.len() < TOLD_MAX
    };
    for path in &ours.tree.unreadable {
        told(path, Difference::UnreadableHere);
    }
    for path in &theirs.unreadable {
        told(path, Difference::UnreadableThere);
    }
    let mut queue = VecDeque::from([Vec::new()]);
    while let Some(dir) = queue.pop_front() {
        let right = listing(node, peer, exchange, &dir).await?;
        let (whole, path) = (ours.clone(), dir.clone());
        let left = blocking(move || whole.list(&path)).await?;
        let found = compare(&left, &right);
        for (name, what) in found.differ {
            if !told(&path_of(&dir, &name)?, what) {
                compared.more = true;
                return Ok(());
            }
        }
        for name in found.descend {
            queue.push_back(path_of(&dir, &name)?);
        }
    }
    if compared.differences.is_empty() {
        // Nothing below differs: it is the top directory itself.
        let what = Difference::Metadata;
        let path = String::new();
        compared.differences.push(PathDifference { path, what });
    }
    Ok(())
}

fn path_of(dir: &[u8], name: &str) -> Result<Vec<u8>> {
    let name = unhex(name).context("read the name of a file")?;
    Ok(match dir {
        [] => name,
        dir => [dir, &name].join(&b'/'),
    })
}

/// All names of a directory of the peer's, in their order.
async fn listing(
    node: &Node,
    peer: &NodeName,
    exchange: &mut Exchange,
    dir: &[u8],
) -> Result<Vec<Entry>> {
    let mut all: Vec<Entry> = Vec::new();
    loop {
        let after = all.last().map(|entry| entry.name.clone());
        let look = SenderWord::Look {
            dir: hex(dir),
            after,
        };
        exchange.send(&look).await?;
        let Answer::Entries { entries, more } = heard(node, peer, exchange).await? else {
            bail!("{peer} did not answer what is in {}", shown(dir));
        };
        let more = more && !entries.is_empty();
        for entry in entries {
            let name = unhex(&entry.name).unwrap_or_default();
            let whole = !name.is_empty() && name.len() <= NAME_BYTES_MAX && !name.contains(&b'/');
            let rises = all.last().is_none_or(|last| last.name < entry.name);
            if !whole || !rises || all.len() >= NAMES_MAX {
                bail!("{peer} told names that no directory holds");
            }
            all.push(entry);
        }
        if !more {
            return Ok(all);
        }
    }
}

/// What can be known of who is wrong, and what to do.
async fn explain(node: &Arc<Node>, run: &Arc<RoleRun>, point: &Stored, one: &mut PeerVerify) {
    let (ours, peer, role) = (node.name(), one.peer.clone(), &run.name);
    let short = point.manifest.point.to_string();
    let any = |what: Difference| {
        let mut all = one
            .datasets
            .values()
            .flat_map(|dataset| &dataset.differences);
        all.any(|difference| difference.what == what)
    };
    let (bad_here, bad_there) = (
        any(Difference::UnreadableHere),
        any(Difference::UnreadableThere),
    );
    if bad_here {
        let text =
            format!("the disk of {ours} does not give files of {short} back: it may be failing");
        one.causes.push(text);
    }
    if bad_there {
        let text =
            format!("the disk of {peer} does not give files of {short} back: it may be failing");
        one.causes.push(text);
    }
    // Looked at anew: a change after it was stored leaves a trace.
    if let Ok((_, found)) = our_lineage(run).await {
        let name = point.manifest.name();
        let damaged = found.damaged.iter().find(|damaged| damaged.name == name);
        one.causes
            .extend(damaged.map(|damaged| damaged.sentence(&ours)));
    }
    let taker = &point.manifest.node;
    if one.causes.is_empty() {
        let text = format!(
            "neither node can tell from its own copy which is right; {taker} took {short}, the other copy was received"
        );
        one.causes.push(text);
    }
    let mend_here = format!("standin verify {role} --point {short} --peer {peer} --repair");
    let mend_there = format!("standin verify {role} --point {short} --peer {ours} --repair");
    if !bad_here || bad_there {
        let text = format!("where {ours}'s copy is the right one, on {peer}: {mend_there}");
        one.advice.push(text);
    }
    if bad_here || !bad_there {
        let text = format!("where {peer}'s copy is the right one, here: {mend_here}");
        one.advice.push(text);
    }
}

/// Calls this node's copy of a point damaged, and has it fetched again.
pub async fn mend(node: &Arc<Node>, request: MendRequest) -> Result<CycleReport> {
    let run = node.role(&request.role)?;
    let (_, found) = our_lineage(&run).await?;
    let point = choose::find(&found.points, &request.point)
        .map_err(|why| not_found(node, &run, &request.point, &found.damaged, why))?;
    let id = point.manifest.point.clone();
    // First that it is to be had: a point that nobody sends must not be given up.
    let record = node.record(&run)?.context("find the record of the role")?;
    let peer = &request.peer;
    let theirs = rescan::holds(node, &run.name, record.id, record.term(), peer).await?;
    if !theirs.holds(&Held::of(&point.manifest)) {
        let what = format!("fetch {id} again: {peer} does not hold it whole");
        return Err(Failure::new(Code::NotFound, what).into());
    }
    {
        let _catalogue = run.catalogue.lock().await;
        let fs = run.fs.clone();
        let why = format!("differs from {peer}'s copy");
        blocking(move || fs.condemn(&id, &why)).await?;
    }
    let repaired = rescan::rescan(node, &run, false).await;
    Ok(CycleReport {
        dry_run: false,
        roles: vec![repaired],
    })
}

/// The last comparison with each peer of the role.
pub fn last(node: &Node, run: &RoleRun) -> Result<Vec<VerifiedView>> {
    let known = node.state.verified(&run.name)?.into_iter();
    let known = known.filter(|(peer, _)| run.role.peers.contains(peer));
    let view = |(peer, verified): (NodeName, Verified)| VerifiedView {
        peer,
        ended: verified.ended,
        point: PointSummary {
            name: verified.point,
            short: format!("{}.{}", verified.point.epoch, verified.point.sequence),
            taken: verified.point.taken,
            consistent: None,
        },
        equal: verified.equal,
        full: verified.full,
        differences: verified.differences,
    };
    Ok(known.map(view).collect())
}

/// What somebody should look at.
pub fn warnings(run: &RoleRun, last: &[VerifiedView], now: Timestamp) -> Vec<String> {
    let unequal = last.iter().filter(|view| !view.equal);
    let told = unequal.map(|view| {
        let age = units::human_age(now.duration_since(view.ended).as_secs_f64());
        format!(
            "{0}: this node's copy of {1} differed from {2}'s {age}; compare again: standin verify {0} --peer {2} --full",
            run.name, view.point.short, view.peer
        )
    });
    told.collect()
}
