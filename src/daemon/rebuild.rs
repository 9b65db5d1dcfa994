//! Brings a node that is new, or lost everything, back from a peer: sections of the configuration first, then the newest point
//! of every role, then their history.
//!
//! Promise: no section that is there is changed, and none is written that would not load or whose filesystem is not there; what
//! is written was shown by a dry run before. Every role is joined as one that stands in (P4). Each step stands by itself and
//! is not done again: killed anywhere, the next rebuild goes on; the first point of a role even in the middle of its stream.
//!
//! It deliberately does not promote anything: which node serves is for an operator to say.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::api::{RebuildReport, RebuildRequest, RoleRebuild, Step};
use super::cycle::{done, failed, our_lineage, planned};
use super::node::{Node, RoleRun, blocking};
use super::{blank, describe, rescan};
use crate::error::{Code, Failure};
use crate::logic::lineage::{Entry, Lineage};
use crate::logic::name::{NodeName, RoleName};
use crate::logic::point::PointId;
use crate::logic::rebuild::{Facts, order};
use crate::logic::repair::{self, Fetch};
use crate::logic::role::State;
use crate::logic::skeleton::{Described, Known};

mod sections;

/// How long a rebuild waits for a link that is down.
const LINK_MAX: Duration = Duration::from_secs(90);

/// Attempts at one point in a row.
const ATTEMPTS_MAX: u32 = 3;

/// One role of the rebuild.
struct Job {
    run: Arc<RoleRun>,
    known: Known,
    steps: Vec<Step>,
    /// Points of the history that were fetched.
    fetched: usize,
    ended: Option<Code>,
}

/// Rebuilds this node, or says what that would do.
pub async fn rebuild(node: &Arc<Node>, request: RebuildRequest) -> Result<RebuildReport> {
    let _alone = node.rebuilding.clone().try_lock_owned().map_err(|_| {
        Failure::new(Code::Locked, "rebuild: another rebuild is running")
            .hint("`standin status` shows its transfers")
    })?;
    reachable(node, &request.from).await?;
    let described = shared(node, &request).await?;
    let sections = sections::missing(node, &request, &described).await?;
    let mut report = RebuildReport {
        dry_run: request.dry_run,
        from: request.from.clone(),
        config: node.config().path.clone(),
        sections: sections.text.clone(),
        problems: sections.problems.clone(),
        roles: Vec::new(),
    };
    if request.dry_run {
        for one in &described {
            report.roles.push(preview(node, &request.from, one).await);
        }
        return Ok(report);
    }
    if let Some(first) = sections.problems.first() {
        let what = format!("rebuild from {}: {first}", request.from);
        let hint =
            "see all of it: standin rebuild --dry-run; another place: --path ROLE/DATASET=PATH";
        return Err(Failure::new(Code::Refused, what).hint(hint).into());
    }
    sections::write(node, &sections).await?;
    let mut jobs = Vec::new();
    for one in described {
        match begin(node, &request.from, one).await {
            Ok(Begun::Job(job)) => jobs.push(*job),
            Ok(Begun::Over(over)) => report.roles.push(over),
            Err((role, error)) => report.roles.push(RoleRebuild {
                steps: vec![failed("join", format!("join role {role}"), &error)],
                role,
                points: 0,
                missing: 0,
                code: Failure::code_of(&error),
                next: None,
            }),
        }
    }
    // The newest point of every role before the history of any.
    for newest_only in [true, false] {
        for job in &mut jobs {
            if job.ended.is_none() {
                fetch_all(node, &request.from, job, newest_only).await;
            }
        }
    }
    for job in jobs {
        report.roles.push(conclude(node, &request.from, job).await);
    }
    report.roles.sort_by(|a, b| a.role.cmp(&b.role));
    Ok(report)
}

/// Waits for the link, which may be as young as the pairing.
async fn reachable(node: &Arc<Node>, from: &NodeName) -> Result<()> {
    let Some(peer) = node.peer(from).filter(|peer| peer.peer.key.is_some()) else {
        let ours = node.name();
        let what = format!("rebuild from {from}: this node is not paired with it");
        let hint = format!(
            "on {from}: standin pair invite --replace {ours}; then here: standin pair accept"
        );
        return Err(Failure::new(Code::Refused, what).hint(hint).into());
    };
    let up = async {
        loop {
            let changed = peer.changed.notified();
            if node.link(from).is_ok() {
                return;
            }
            let _ = tokio::time::timeout(Duration::from_millis(500), changed).await;
        }
    };
    let _ = tokio::time::timeout(Duration::from_secs(15), up).await;
    node.link(from).map(|_| ())
}

/// What the peer says of the roles that are meant.
async fn shared(node: &Arc<Node>, request: &RebuildRequest) -> Result<Vec<Described>> {
    let from = &request.from;
    let mut asked = describe::ask(node, from, None).await;
    // A link that is younger than a moment may give way to one that crossed it.
    if asked
        .as_ref()
        .is_err_and(|error| Failure::code_of(error) != Code::Refused)
    {
        reachable(node, from).await?;
        asked = describe::ask(node, from, None).await;
    }
    let described = asked?;
    for role in &request.roles {
        if !described.iter().any(|one| one.role == *role) {
            let names: Vec<&str> = described.iter().map(|one| one.role.as_str()).collect();
            let what = format!("find role {role} on {from}, with this node among its peers");
            let hint = format!("{from} shares these: {}", names.join(", "));
            return Err(Failure::new(Code::NotFound, what).hint(hint).into());
        }
    }
    let meant = |one: &Described| request.roles.is_empty() || request.roles.contains(&one.role);
    let described: Vec<Described> = described.into_iter().filter(meant).collect();
    if described.is_empty() {
        let ours = node.name();
        let what = format!("rebuild from {from}: no role there names {ours} as a peer");
        let hint = format!(
            "is {ours} the name that this machine had? See `peers` in the config of {from}"
        );
        return Err(Failure::new(Code::NotFound, what).hint(hint).into());
    }
    Ok(described)
}

enum Begun {
    Job(Box<Job>),
    Over(RoleRebuild),
}

/// Joins the role; over where there is nothing to fetch for this node.
async fn begin(
    node: &Arc<Node>,
    from: &NodeName,
    one: Described,
) -> Result<Begun, (RoleName, anyhow::Error)> {
    let role = one.role.clone();
    let begun = async {
        let run = node.role(&role)?;
        if let Some(why) = not_for_us(node, &run, &one)? {
            let points = run.fs.clone();
            let points = blocking(move || points.list())
                .await
                .map_or(0, |all| all.len());
            return Ok(Begun::Over(RoleRebuild {
                role: role.clone(),
                steps: vec![done("nothing", why)],
                points,
                missing: 0,
                code: Code::Done,
                next: None,
            }));
        }
        let known = one.known.context("find anything of it on the peer")?;
        let mut steps = Vec::new();
        forget_beginning(node, &run, &known).await?;
        if node.record(&run)?.is_none() {
            blank::join(node, &run, from, &known)?;
            steps.push(done("join", joining(from, &known)));
        }
        let job = Job {
            run,
            known,
            steps,
            fetched: 0,
            ended: None,
        };
        Ok(Begun::Job(Box::new(job)))
    };
    begun
        .await
        .map_err(|error: anyhow::Error| (role.clone(), error))
}

fn joining(from: &NodeName, known: &Known) -> String {
    format!(
        "join the role as {from} knows it, under term {}",
        known.term
    )
}

/// Why there is nothing to fetch; a sentence. An error where the role here is another one.
fn not_for_us(node: &Node, run: &RoleRun, one: &Described) -> Result<Option<String>> {
    if run.role.logs.is_some() {
        let text = "logs come by themselves, from the node that writes them";
        return Ok(Some(text.to_owned()));
    }
    if one.known.is_none() {
        let text = "nothing to fetch: the role has no points there yet";
        return Ok(Some(text.to_owned()));
    }
    let Some(record) = node.record(run)? else {
        return Ok(None);
    };
    if record.part.state == State::Standby || blank_beginning(node, run)? {
        return Ok(None);
    }
    Ok(Some(format!(
        "this node is {} in the role: nothing is fetched for it",
        record.part.state
    )))
}

/// Whether the role was begun on this machine, and nothing ever came of it.
fn blank_beginning(node: &Node, run: &RoleRun) -> Result<bool> {
    let Some(record) = node.record(run)? else {
        return Ok(false);
    };
    let first = record.part.seen.epoch == 1 && record.part.held.is_some();
    let live = || -> Result<bool> {
        for dataset in run.fs.datasets().keys() {
            if run.fs.live_identity(dataset)?.is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    };
    Ok(first && run.fs.list()?.is_empty() && !live()?)
}

/// A role that was begun here before the peer could be asked, without data or points, gives way to the one that is known there.
async fn forget_beginning(node: &Arc<Node>, run: &Arc<RoleRun>, known: &Known) -> Result<()> {
    let Some(record) = node.record(run)?.filter(|record| record.id != known.id) else {
        return Ok(());
    };
    if blank_beginning(node, run)? {
        return node.state.forget_role(&run.name, &record);
    }
    let role = &run.name;
    let what = format!(
        "join role {role}: this machine began another role of that name, and has data or points of it"
    );
    let hint = format!(
        "where those may go: move them away, and remove .standin/{role} on their filesystem; where they must stay: give one of the two roles another name"
    );
    Err(Failure::new(Code::Diverged, what).hint(hint).into())
}

/// What would be done for a role.
async fn preview(node: &Arc<Node>, from: &NodeName, one: &Described) -> RoleRebuild {
    let mut rebuild = RoleRebuild {
        role: one.role.clone(),
        steps: Vec::new(),
        points: 0,
        missing: 0,
        code: Code::Done,
        next: None,
    };
    let planned_steps = async {
        let run = node.role(&one.role).ok();
        if let Some(run) = &run {
            if let Some(why) = not_for_us(node, run, one)? {
                return Ok((vec![planned("nothing", why)], 0, 0));
            }
        }
        let Some(known) = &one.known else {
            let text = "nothing to fetch: the role has no points there yet";
            return Ok((vec![planned("nothing", text)], 0, 0));
        };
        let mut steps = Vec::new();
        let mut held = 0;
        let missing = match &run {
            Some(run) => {
                let theirs = rescan::holds(node, &run.name, known.id, &known.term, from).await?;
                held = our_lineage(run).await?.0.entries().len();
                missing(run, known, &theirs).await?.0.len()
            }
            None => usize::try_from(known.points).unwrap_or(usize::MAX),
        };
        if run.is_none_or(|run| node.record(&run).is_ok_and(|record| record.is_none())) {
            steps.push(planned("join", joining(from, known)));
        }
        steps.extend(outlook(from, known, missing));
        Ok((steps, held, missing))
    };
    match planned_steps.await {
        Ok((steps, points, missing)) => {
            (rebuild.steps, rebuild.points, rebuild.missing) = (steps, points, missing);
        }
        Err(error) => {
            let error: anyhow::Error = error;
            rebuild.code = Failure::code_of(&error);
            let text = format!("see what {from} holds of role {}", one.role);
            rebuild.steps.push(failed("fetch", text, &error));
        }
    }
    rebuild
}

fn outlook(from: &NodeName, known: &Known, missing: usize) -> Vec<Step> {
    let newest = known.newest.as_ref().filter(|_| missing > 0);
    let newest = newest.map(|newest| {
        planned(
            "fetch",
            format!("fetch {newest}, the newest point, from {from}"),
        )
    });
    let older = (missing > 1).then(|| {
        let text = format!("fetch up to {} older points, as differences", missing - 1);
        planned("fetch", text)
    });
    let none = (missing == 0).then(|| planned("nothing", "every point is here"));
    newest.into_iter().chain(older).chain(none).collect()
}

/// What is missing here of what the peer holds, in order, and what is here.
async fn missing(
    run: &Arc<RoleRun>,
    known: &Known,
    theirs: &Lineage,
) -> Result<(Vec<Entry>, Lineage)> {
    let (ours, _) = our_lineage(run).await?;
    let fs = run.fs.clone();
    let partials = blocking(move || fs.partials()).await?;
    let partials: Vec<PointId> = partials.into_iter().map(|partial| partial.point).collect();
    let facts = Facts {
        ours: &ours,
        theirs,
        line: &known.line,
        partials: &partials,
        keep: &run.role.keep_standby,
    };
    let order = order(&facts, Timestamp::now(), &TimeZone::system());
    Ok((order, ours))
}

/// Fetches what is missing; with `newest_only`, until one point is here.
async fn fetch_all(node: &Arc<Node>, from: &NodeName, job: &mut Job, newest_only: bool) {
    // Points that could not be had: others are fetched all the same.
    let mut failures: BTreeMap<String, u32> = BTreeMap::new();
    let mut told = false;
    loop {
        if node.stop.is_cancelled() {
            job.ended = Some(Code::Interrupted);
            return;
        }
        match next(node, from, job, &failures).await {
            Ok(None) => return,
            Ok(Some((fetch, whole, left))) => {
                if newest_only && !whole {
                    return;
                }
                if !whole && !told {
                    told = true;
                    let text =
                        format!("{left} older points of the role are missing, and fetched now");
                    node.hub.note(Some(&job.run.name), text);
                }
                let point = fetch.entry.point.clone();
                match rescan::fetch_whole(node, &job.run, &fetch).await {
                    Ok(()) if whole => {
                        let text = format!("fetch {point}, in full, from {from}");
                        job.steps.push(done("fetch", text));
                    }
                    Ok(()) => job.fetched += 1,
                    Err(error) => {
                        let tries = failures.entry(point.to_string()).or_default();
                        *tries += 1;
                        let last = *tries >= ATTEMPTS_MAX;
                        if !again(node, from, job, &point, error, last).await {
                            return;
                        }
                    }
                }
            }
            Err(error) => {
                let tries = failures.entry(String::new()).or_default();
                *tries += 1;
                let last = *tries >= ATTEMPTS_MAX;
                if !again(node, from, job, "what is missing", error, last).await {
                    return;
                }
            }
        }
    }
}

/// Whether to go on after a failure: a link that broke is waited for, a point that cannot be had is left out.
async fn again(
    node: &Arc<Node>,
    from: &NodeName,
    job: &mut Job,
    what: impl std::fmt::Display,
    error: anyhow::Error,
    last: bool,
) -> bool {
    let text = format!("could not fetch {what} from {from}: {error:#}");
    node.hub.warn(Some(&job.run.name), text);
    let broken = node.link(from).is_err();
    if broken && !last && back(node, from).await {
        return true;
    }
    // Pruned there meanwhile, say: what is missing is asked for anew.
    if !broken && !last && Failure::code_of(&error) != Code::Refused {
        return true;
    }
    give_up(job, from, &what, &error)
}

fn give_up(
    job: &mut Job,
    from: &NodeName,
    what: &impl std::fmt::Display,
    error: &anyhow::Error,
) -> bool {
    job.ended = Some(Failure::code_of(error));
    let text = format!("fetch {what} from {from}");
    job.steps.push(failed("fetch", text, error));
    false
}

/// Whether the link came back in time.
async fn back(node: &Arc<Node>, from: &NodeName) -> bool {
    let up = async {
        while node.link(from).is_err() {
            let Some(peer) = node.peer(from) else {
                return false;
            };
            let changed = peer.changed.notified();
            tokio::select! {
                () = changed => {}
                () = tokio::time::sleep(Duration::from_millis(500)) => {}
                () = node.stop.cancelled() => return false,
            }
        }
        true
    };
    tokio::time::timeout(LINK_MAX, up).await.unwrap_or(false)
}

/// The next point to fetch, whether it is the first of all here, and how many are missing.
async fn next(
    node: &Arc<Node>,
    from: &NodeName,
    job: &Job,
    failures: &BTreeMap<String, u32>,
) -> Result<Option<(Fetch, bool, usize)>> {
    let run = &job.run;
    let record = node.record(run)?.context("find the record of the role")?;
    let theirs = rescan::holds(node, &run.name, record.id, record.term(), from).await?;
    let (mut missing, ours) = missing(run, &job.known, &theirs).await?;
    missing.retain(|entry| {
        failures
            .get(&entry.point.to_string())
            .is_none_or(|tries| *tries < ATTEMPTS_MAX)
    });
    let left = missing.len();
    let Some(entry) = missing.into_iter().next() else {
        return Ok(None);
    };
    let fetch = Fetch {
        peer: from.clone(),
        bases: repair::bases(ours.entries(), &theirs, &entry),
        entry,
    };
    Ok(Some((fetch, ours.newest().is_none(), left)))
}

/// What came of a role, and what is to be done next.
async fn conclude(node: &Arc<Node>, from: &NodeName, mut job: Job) -> RoleRebuild {
    if job.fetched > 0 {
        let text = format!("fetch {} more points from {from}", job.fetched);
        job.steps.push(done("fetch", text));
    }
    let (mut points, mut left) = (0, 0);
    if let Ok((ours, _)) = our_lineage(&job.run).await {
        points = ours.entries().len();
    }
    if job.ended.is_some() {
        if let Ok(Some((_, _, missing))) = next(node, from, &job, &BTreeMap::new()).await {
            left = missing;
        }
    } else if job.steps.is_empty() {
        job.steps.push(done("nothing", "every point is here"));
    }
    let code = match job.ended {
        Some(_) if points > 0 => Code::Partial,
        Some(code) => code,
        None => Code::Done,
    };
    let next = match job.ended {
        Some(_) => Some(format!("go on: standin rebuild --from {from}")),
        None => Some(serving(node, from, &job)),
    };
    RoleRebuild {
        role: job.run.name.clone(),
        steps: job.steps,
        points,
        missing: left,
        code,
        next,
    }
}

/// Who serves the role now, and how it comes here.
fn serving(node: &Node, from: &NodeName, job: &Job) -> String {
    let (role, ours) = (&job.run.name, node.name());
    let holder = &job.known.term.holder;
    let home = job.run.role.home == ours;
    if job.known.plays && home {
        return format!(
            "{from} is active, this node stands in; to bring the role home: standin failback {role}, on {from}"
        );
    }
    if job.known.plays {
        return format!("{from} is active, this node stands in");
    }
    if *holder == ours || holder == from {
        return format!("nobody serves the role now; to serve it here: standin promote {role}");
    }
    format!("{holder} was active when {from} last heard of it; this node stands in")
}
