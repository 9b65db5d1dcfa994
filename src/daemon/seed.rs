//! Seeded files of roles: when they are made anew, by what values, and what is told of them.
//!
//! Made when a point arrived or was taken, when the role moved (before its services start), after a reload, and at least every
//! half minute. Promise: a template that fails harms neither the file that is there nor anything else of the role: it is told
//! once, and shown until it is good. A file that somebody else wrote is left alone until a person says otherwise.
//!
//! The template comes from the live data while this node plays the role, else from the newest complete point. It
//! deliberately does not know how templates are followed (`logic::seed`) nor how files are written (`host::seed`).

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context, Result};

use super::api::{Finding, Level, SeedReport, SeedRequest, SeedState, SeedStep, SeedView};
use super::node::{Node, RoleRun, blocking, lock};
use super::play;
use crate::error::Failure;
use crate::fs::Readable;
use crate::host::command::{self, Order};
use crate::logic::name::{DatasetName, RoleName};
use crate::logic::seed::{Seed, Values, When};
use crate::peer::timing::hurried;

mod make;

/// Between two looks, where nothing happened.
const LOOK_EVERY: Duration = Duration::from_secs(30);

/// How long a role that moves waits for its files.
const MOVE_MAX: Duration = Duration::from_secs(60);

/// What is known of a role's seeded files.
#[derive(Default)]
pub struct Seeds {
    /// What was told of files that are not well; held by whoever makes them.
    told: tokio::sync::Mutex<BTreeMap<PathBuf, String>>,
    /// As they were at the last look.
    views: Mutex<Vec<SeedView>>,
}

/// How far a look at the files goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Depth {
    /// Changes nothing.
    Look,
    /// Writes what may be written.
    Write,
    /// The same, and commands that failed after a change run again: somebody asked.
    Again,
    /// The same, also over what somebody else wrote, which is kept beside.
    Replace,
    /// Changes nothing, and says what `Write` would.
    PlanWrite,
    /// The same of `Replace`.
    PlanReplace,
}

impl Depth {
    fn of(request: &SeedRequest) -> Depth {
        match (request.dry_run, request.replace) {
            (false, false) => Depth::Again,
            (false, true) => Depth::Replace,
            (true, false) => Depth::PlanWrite,
            (true, true) => Depth::PlanReplace,
        }
    }

    /// Somebody wants to see what changes.
    fn is_asked(self) -> bool {
        !matches!(self, Depth::Look | Depth::Write)
    }

    fn replaces(self) -> bool {
        matches!(self, Depth::Replace | Depth::PlanReplace)
    }

    fn writes(self) -> bool {
        matches!(self, Depth::Write | Depth::Again | Depth::Replace)
    }
}

/// What files of a role are made of at this moment.
struct Ground {
    values: Values,
    /// Where each dataset can be read: live, or in the newest point.
    roots: BTreeMap<DatasetName, Readable>,
}

/// Makes all files of the role that may be made, and tells what is wrong with the others. Where the role is paused, nothing is
/// made by itself.
pub async fn refresh(node: &Arc<Node>, run: &Arc<RoleRun>) {
    if run.role.seeds.is_empty() {
        return;
    }
    let record = node.record(run).ok().flatten();
    let depth = match record.is_some_and(|record| record.part.paused) {
        true => Depth::Look,
        false => Depth::Write,
    };
    all(node, run, depth).await;
}

/// The same before the services of the role start: what cannot be made in time does not hold them up.
pub async fn before_services(node: &Arc<Node>, run: &Arc<RoleRun>) {
    if run.role.seeds.is_empty() {
        return;
    }
    let made = tokio::time::timeout(MOVE_MAX, all(node, run, Depth::Write)).await;
    if made.is_err() {
        let text = "seeded files are not made yet: the role goes on without them";
        node.hub.warn(Some(&run.name), text);
    }
}

/// Files that somebody asked for.
pub async fn seed(node: &Arc<Node>, request: SeedRequest) -> Result<SeedReport> {
    let mut files = Vec::new();
    for run in node.chosen(request.role.as_ref())? {
        files.extend(all(node, &run, Depth::of(&request)).await);
    }
    Ok(SeedReport {
        dry_run: request.dry_run,
        files,
    })
}

/// One task a role, until the daemon stops: looks when something happened to the role.
pub async fn keep(node: Arc<Node>) {
    let mut followed: BTreeMap<RoleName, tokio::task::JoinHandle<()>> = BTreeMap::new();
    loop {
        let reloaded = node.reloaded.notified();
        for run in node.roles() {
            let going = followed.get(&run.name);
            if !run.role.seeds.is_empty() && going.is_none_or(|task| task.is_finished()) {
                let task = tokio::spawn(follow(node.clone(), run.name.clone()));
                followed.insert(run.name.clone(), task);
            }
        }
        tokio::select! {
            () = node.stop.cancelled() => break,
            () = reloaded => {}
        }
    }
    for (_, task) in followed {
        let _ = task.await;
    }
}

/// Ends when the role has no seeded files any more.
async fn follow(node: Arc<Node>, name: RoleName) {
    loop {
        let reloaded = node.reloaded.notified();
        let Ok(run) = node.role(&name) else { return };
        if run.role.seeds.is_empty() {
            return;
        }
        let mut changes = run.supervisor.changes();
        tokio::select! {
            () = node.stop.cancelled() => return,
            () = refresh(&node, &run) => {}
        }
        tokio::select! {
            () = node.stop.cancelled() => return,
            () = reloaded => {}
            changed = changes.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(hurried(LOOK_EVERY)) => {}
        }
    }
}

/// Every file of the role, in the order of the config.
async fn all(node: &Arc<Node>, run: &Arc<RoleRun>, depth: Depth) -> Vec<SeedStep> {
    let mut told = run.seeds.told.lock().await;
    let ground = ground(node, run).await;
    let mut steps = Vec::new();
    for seed in &run.role.seeds {
        let made = match &ground {
            Ok(Some(ground)) => match idle(seed, ground) {
                None => make::one(node, run, seed, ground, depth).await,
                Some(why) => Ok(idling(run, seed, why)),
            },
            Ok(None) => {
                let why = "made when the role has begun here".to_owned();
                Ok(idling(run, seed, why))
            }
            Err(error) => Err(anyhow::anyhow!("{error:#}")),
        };
        steps.push(made.unwrap_or_else(|error| failing(node, run, seed, &error)));
    }
    if depth.writes() {
        afterwards(node, run, depth).await;
    }
    failed_commands(node, run, &mut steps);
    if depth.writes() {
        tell(node, run, &mut told, &steps);
    }
    let views = steps.iter().map(|step| step.file.clone()).collect();
    *lock(&run.seeds.views) = views;
    steps
}

/// None: the role has not begun here.
async fn ground(node: &Arc<Node>, run: &Arc<RoleRun>) -> Result<Option<Ground>> {
    let Some(record) = node.record(run)? else {
        return Ok(None);
    };
    let plays = record.part.plays() || record.active();
    let fs = run.fs.clone();
    let wanted: BTreeSet<DatasetName> = run
        .role
        .seeds
        .iter()
        .map(|seed| seed.from.0.clone())
        .collect();
    let roots = blocking(move || {
        let mut roots = BTreeMap::new();
        let points = match plays {
            true => Vec::new(),
            false => fs.list()?,
        };
        for dataset in wanted {
            if plays && fs.live_identity(&dataset)?.is_some() {
                roots.insert(dataset.clone(), fs.datasets()[&dataset].clone().into());
                continue;
            }
            let holds = |stored: &&crate::logic::manifest::Stored| {
                stored.manifest.datasets.contains_key(&dataset)
            };
            if let Some(newest) = points.iter().rev().find(holds) {
                let path = fs.snapshot_path(&dataset, &newest.manifest.point)?;
                roots.insert(dataset.clone(), path);
            }
        }
        Ok(roots)
    });
    let roots = roots.await.context("find the templates")?;
    let config = node.config();
    let uname = rustix::system::uname();
    Ok(Some(Ground {
        values: Values {
            hostname: uname.nodename().to_string_lossy().into_owned(),
            node: config.node.name.clone(),
            role: run.name.clone(),
            active: record.part.seen.holder.clone(),
            is_active: plays,
            vars: config.node.vars.clone(),
        },
        roots,
    }))
}

fn step(run: &RoleRun, seed: &Seed, state: SeedState) -> SeedStep {
    SeedStep {
        role: run.name.clone(),
        file: SeedView {
            to: seed.to.clone(),
            from: seed.source(),
            state,
            why: None,
            hint: None,
            written: None,
        },
        what: "nothing".to_owned(),
        diff: None,
        kept: None,
    }
}

/// Why the file is not made here now, where that is as it should be.
fn idle(seed: &Seed, ground: &Ground) -> Option<String> {
    if !seed.when.holds(ground.values.is_active) {
        return Some(match seed.when {
            When::Active => "made only while this node is active".to_owned(),
            When::Standby | When::Always => "made only while this node is not active".to_owned(),
        });
    }
    let dataset = &seed.from.0;
    let there = ground.roots.contains_key(dataset);
    (!there).then(|| format!("made when the first point of {dataset} is here"))
}

fn idling(run: &RoleRun, seed: &Seed, why: String) -> SeedStep {
    let mut step = step(run, seed, SeedState::Idle);
    step.file.why = Some(why);
    step
}

fn failing(node: &Node, run: &RoleRun, seed: &Seed, error: &anyhow::Error) -> SeedStep {
    let mut step = step(run, seed, SeedState::Failing);
    step.file.why = Some(format!("could not {error:#}"));
    step.file.hint = Failure::of(error).and_then(|failure| failure.hint.clone());
    step.file.written = node
        .state
        .seed(&run.name, &seed.to)
        .ok()
        .and_then(|known| known.at);
    step
}

/// Runs the commands that are due; one that several files have in common runs once.
async fn afterwards(node: &Arc<Node>, run: &Arc<RoleRun>, depth: Depth) {
    let mut done: Vec<(&Vec<String>, Option<String>)> = Vec::new();
    for seed in &run.role.seeds {
        let known = node.state.seed(&run.name, &seed.to).unwrap_or_default();
        let again = depth != Depth::Write && known.failed.is_some();
        if !known.due && !again {
            continue;
        }
        let Some(argv) = &seed.after else {
            remember(node, run, seed, None);
            continue;
        };
        let failed = match done.iter().find(|(ran, _)| *ran == argv) {
            Some((_, failed)) => failed.clone(),
            None => {
                let failed = after(node, run, seed, argv).await;
                done.push((argv, failed.clone()));
                failed
            }
        };
        remember(node, run, seed, failed.as_deref());
    }
}

/// Files that are right, but for what was to follow their last change.
fn failed_commands(node: &Node, run: &RoleRun, steps: &mut [SeedStep]) {
    for (seed, step) in run.role.seeds.iter().zip(steps) {
        let right = step.file.state == SeedState::Fresh && seed.after.is_some();
        let known = right.then(|| node.state.seed(&run.name, &seed.to).unwrap_or_default());
        if let Some(why) = known.and_then(|known| known.failed) {
            make::command_failed(run, &mut step.file, &why);
        }
    }
}

fn remember(node: &Node, run: &RoleRun, seed: &Seed, failed: Option<&str>) {
    if let Err(error) = node.state.record_seed_after(&run.name, &seed.to, failed) {
        node.hub
            .warn(Some(&run.name), format!("could not {error:#}"));
    }
}

/// How the command failed.
async fn after(
    node: &Arc<Node>,
    run: &Arc<RoleRun>,
    seed: &Seed,
    argv: &[String],
) -> Option<String> {
    let order = Order {
        argv,
        moment: "seed",
        limit: seed.timeout,
        words: vec![("STANDIN_FILE", seed.to.display().to_string())],
        output: None,
    };
    match command::run(&order, &play::around(node, run)).await {
        Ok(_) => {
            let text = format!(
                "{} ended well, after {} changed",
                argv.join(" "),
                seed.to.display()
            );
            node.hub.note(Some(&run.name), text);
            None
        }
        Err(failed) => Some(format!("could not {failed}")),
    }
}

/// Says once what is wrong with a file, and when it is well again.
fn tell(node: &Node, run: &RoleRun, told: &mut BTreeMap<PathBuf, String>, steps: &[SeedStep]) {
    for step in steps {
        let file = &step.file;
        let troubled = matches!(file.state, SeedState::Edited | SeedState::Failing);
        let why = file.why.as_ref().filter(|_| troubled);
        match (why, told.get(&file.to)) {
            (Some(why), known) if known != Some(why) => {
                let text = format!(
                    "{} is not made from {}: {why}",
                    file.to.display(),
                    file.from
                );
                node.hub.warn(Some(&run.name), text);
                told.insert(file.to.clone(), why.clone());
            }
            (None, Some(_)) => {
                told.remove(&file.to);
                let text = format!("{} is well again", file.to.display());
                node.hub.note(Some(&run.name), text);
            }
            _ => {}
        }
    }
}

/// The files as they were at the last look, for `status`.
pub fn views(run: &RoleRun) -> Vec<SeedView> {
    lock(&run.seeds.views).clone()
}

/// What somebody should look at.
pub fn warnings(run: &RoleRun) -> Vec<String> {
    let views = views(run);
    let troubled = views
        .iter()
        .filter(|file| matches!(file.state, SeedState::Edited | SeedState::Failing));
    let told = troubled.map(|file| {
        let why = file.why.as_deref().unwrap_or_default();
        let why = why.lines().next().unwrap_or_default();
        format!(
            "{}: {} is not made from {}: {why}",
            run.name,
            file.to.display(),
            file.from
        )
    });
    told.collect()
}

/// Every file, for `check`.
pub async fn check(node: &Arc<Node>, run: &Arc<RoleRun>, findings: &mut Vec<Finding>) {
    for step in all(node, run, Depth::Look).await {
        let file = step.file;
        let level = match file.state {
            SeedState::Fresh | SeedState::Idle => Level::Ok,
            SeedState::Stale | SeedState::Edited => Level::Warning,
            SeedState::Failing => Level::Problem,
        };
        let why = file.why.map_or_else(String::new, |why| format!(": {why}"));
        findings.push(Finding {
            level,
            subject: format!("role {}", run.name),
            text: format!(
                "seeded file {} is {}{why}",
                file.to.display(),
                file.state.word().to_lowercase()
            ),
            hint: file.hint,
        });
    }
}
