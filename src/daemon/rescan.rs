//! Looks at every point of a role anew, and makes damaged ones whole again from a peer that holds them.
//!
//! Gather what is damaged and what peers hold, decide (`logic::repair`), show, perform. Promise: nothing is destroyed; a
//! damaged copy gives way only when the whole one is on disk, or when every peer said that it holds none. Each repair
//! stands by itself: one that fails leaves its point damaged, and the next rescan tries again. It can run at any time,
//! beside cycles.
//!
//! It deliberately does not know why a point is damaged, nor which node is active.

use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result, bail};

use super::api::{RoleCycle, Step};
use super::cycle::{done, failed, our_lineage, planned, sum};
use super::node::{Node, RoleRun, blocking, lock};
use crate::error::{Code, Failure};
use crate::host::part::RoleRecord;
use crate::logic::damage::Damaged;
use crate::logic::lineage::Lineage;
use crate::logic::name::{NodeName, RoleName};
use crate::logic::point::{PointId, RoleId, Term};
use crate::logic::repair::{self, Fetch, Holder, Remedy, Repair};
use crate::peer::message::{Answer, Request};

/// What was looked up before anything is decided.
struct Gathered {
    whole: Lineage,
    damaged: Vec<Damaged>,
    holders: Vec<Holder>,
    /// Why a peer could not be asked.
    unasked: Vec<(NodeName, anyhow::Error)>,
}

/// Rescans one role. Never an error of its own: what went wrong is in the steps.
pub async fn rescan(node: &Arc<Node>, run: &Arc<RoleRun>, dry_run: bool) -> RoleCycle {
    let begun = Instant::now();
    let mut steps = Vec::new();
    let mut codes = Vec::new();
    if let Err(error) = all(node, run, dry_run, &mut steps, &mut codes).await {
        codes.push(Failure::code_of(&error));
        steps.push(failed("rescan", "look at the points", &error));
    }
    RoleCycle {
        role: run.name.clone(),
        steps,
        code: sum(&codes),
        seconds: begun.elapsed().as_secs_f64(),
    }
}

async fn all(
    node: &Arc<Node>,
    run: &Arc<RoleRun>,
    dry_run: bool,
    steps: &mut Vec<Step>,
    codes: &mut Vec<Code>,
) -> Result<()> {
    let gathered = gather(node, run).await?;
    let count = gathered.whole.entries().len();
    let repairs = repair::plan(&gathered.whole, &gathered.damaged, &gathered.holders);
    if repairs.is_empty() {
        steps.push(done("nothing", format!("all {count} points are whole")));
        return Ok(());
    }
    for repair in repairs {
        let why = repair.damaged.sentence(&node.name());
        let step = format!("{repair}: {why}");
        let what = match repair.remedy {
            Remedy::Fetch(_) => "fetch",
            Remedy::SetAside => "aside",
            Remedy::Ask(_) => "leave",
        };
        if dry_run {
            steps.push(planned(what, step));
            continue;
        }
        match perform(node, run, &repair, &gathered).await {
            Ok(()) => {
                node.hub.note(Some(&run.name), format!("done: {step}"));
                codes.push(Code::Done);
                steps.push(done(what, step));
            }
            Err(error) => {
                node.hub
                    .warn(Some(&run.name), format!("could not {repair}: {error:#}"));
                codes.push(Failure::code_of(&error));
                steps.push(failed(what, step, &error));
            }
        }
    }
    Ok(())
}

async fn gather(node: &Arc<Node>, run: &Arc<RoleRun>) -> Result<Gathered> {
    let (whole, found) = our_lineage(run).await?;
    let (mut holders, mut unasked) = (Vec::new(), Vec::new());
    let record = node.record(run)?;
    if !found.damaged.is_empty() {
        for peer in &run.role.peers {
            let lineage = match ask(node, run, record.as_ref(), peer).await {
                Ok(lineage) => Some(lineage),
                Err(error) => {
                    unasked.push((peer.clone(), error));
                    None
                }
            };
            holders.push(Holder {
                peer: peer.clone(),
                lineage,
            });
        }
    }
    Ok(Gathered {
        whole,
        damaged: found.damaged,
        holders,
        unasked,
    })
}

async fn ask(
    node: &Node,
    run: &RoleRun,
    record: Option<&RoleRecord>,
    peer: &NodeName,
) -> Result<Lineage> {
    let record = record.context("find the record of the role: no peer has named it yet")?;
    holds(node, &run.name, record.id, record.term(), peer).await
}

/// What a peer holds whole of a role, of which nothing need be known here.
pub async fn holds(
    node: &Node,
    role: &RoleName,
    role_id: RoleId,
    term: &Term,
    peer: &NodeName,
) -> Result<Lineage> {
    let request = Request::Holds {
        role: role.clone(),
        role_id,
        term: term.clone(),
    };
    let mut exchange = node.link(peer)?.open(&request).await?;
    let what = format!("ask {peer} what it holds of role {role}");
    match super::outgoing::answer(&what, exchange.recv()).await? {
        Answer::Lineage { lineage, .. } => Ok(lineage),
        other => bail!("{peer} answered a question for what it holds with {other:?}"),
    }
}

async fn perform(
    node: &Arc<Node>,
    run: &Arc<RoleRun>,
    repair: &Repair,
    gathered: &Gathered,
) -> Result<()> {
    match &repair.remedy {
        Remedy::Fetch(fetch) => fetch_point(node, run, fetch, &repair.damaged).await,
        Remedy::SetAside => {
            let _catalogue = run.catalogue.lock().await;
            let (fs, damaged) = (run.fs.clone(), repair.damaged.clone());
            blocking(move || fs.set_aside(&damaged)).await
        }
        Remedy::Ask(peers) => {
            let why = gathered
                .unasked
                .iter()
                .find(|(peer, _)| peers.contains(peer));
            let (_, error) = why.context("find the peer that could not be asked")?;
            let what = format!("{error:#}");
            Err(Failure::new(Failure::code_of(error), what)
                .hint("rescan again when the link is up; the damaged point stays where it is")
                .into())
        }
    }
}

/// Fetches a point of the line that this node does not hold, on top of what both have.
pub async fn fetch_newer(
    node: &Arc<Node>,
    run: &Arc<RoleRun>,
    peer: &NodeName,
    point: &PointId,
) -> Result<()> {
    let record = node.record(run)?;
    let theirs = ask(node, run, record.as_ref(), peer).await?;
    let (ours, _) = our_lineage(run).await?;
    let entry = theirs.get(point).cloned();
    let entry = entry.with_context(|| format!("find {point} whole on {peer}"))?;
    let bases = repair::bases(ours.entries(), &theirs, &entry);
    let peer = peer.clone();
    fetch_whole(node, run, &Fetch { peer, entry, bases }).await
}

async fn fetch_point(
    node: &Arc<Node>,
    run: &Arc<RoleRun>,
    fetch: &Fetch,
    damaged: &Damaged,
) -> Result<()> {
    fetch_whole(node, run, fetch).await?;
    // Their word is not ours.
    let (_, found) = our_lineage(run).await?;
    if found.damaged.iter().any(|other| other.name == damaged.name) {
        bail!("find {} whole after it was fetched", fetch.entry.point);
    }
    Ok(())
}

/// Fetches a point, each dataset on top of the base that is named.
pub async fn fetch_whole(node: &Arc<Node>, run: &Arc<RoleRun>, fetch: &Fetch) -> Result<()> {
    let record = node.record(run)?;
    let record = record.context("find the record of the role")?;
    let point = &fetch.entry.point;
    let _wanted = Wanted::new(run, &fetch.peer, point);
    let request = Request::Fetch {
        role: run.name.clone(),
        role_id: record.id,
        term: record.part.seen,
        point: point.clone(),
        bases: fetch.bases.clone(),
    };
    let mut exchange = node.link(&fetch.peer)?.open(&request).await?;
    // As long as it takes: a link that dies ends the exchange.
    match exchange.recv().await? {
        Answer::Committed => {}
        Answer::Refused(refusal) => {
            return Err(refusal.into_error(&format!("fetch {point} from {}", fetch.peer)));
        }
        other => bail!("{} answered a fetch with {other:?}", fetch.peer),
    }
    // Their word is not ours.
    let (ours, _) = our_lineage(run).await?;
    if ours.get(point).is_none() {
        bail!("find {point} whole after it was fetched");
    }
    Ok(())
}

/// A point is wanted for as long as this lives.
struct Wanted<'a> {
    run: &'a RoleRun,
    what: (NodeName, PointId),
}

impl<'a> Wanted<'a> {
    fn new(run: &'a RoleRun, peer: &NodeName, point: &PointId) -> Wanted<'a> {
        let what = (peer.clone(), point.clone());
        lock(&run.wanted).push(what.clone());
        Wanted { run, what }
    }
}

impl Drop for Wanted<'_> {
    fn drop(&mut self) {
        let mut wanted = lock(&self.run.wanted);
        if let Some(at) = wanted.iter().position(|what| *what == self.what) {
            wanted.swap_remove(at);
        }
    }
}
