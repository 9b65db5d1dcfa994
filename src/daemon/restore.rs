//! Brings data back: a whole role, a dataset or one path, beside the live data or over it.
//!
//! Promise: the final name shows either what was there before or the whole restored tree, never a part; over live data, what
//! was live is a point first (P5). A crash leaves a hidden name (`.NAME.standin-restore-*`) beside the target at worst.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result};

use super::api::{RestoreReport, RestoreRequest, Step};
use super::cycle::{self, done, planned};
use super::load;
use super::node::{Node, RoleRun, blocking};
use super::status::summary;
use super::take::{self, Taken};
use crate::error::{Code, Failure};
use crate::fs::{Filesystem, FsError, Readable, Restored, Scan};
use crate::host::copy;
use crate::logic::choose::find;
use crate::logic::damage::Damaged;
use crate::logic::manifest::{Reason, Stored};
use crate::logic::name::DatasetName;

pub(super) mod put;

use put::Put;

/// What a request comes to.
enum Plan {
    /// Datasets over their live copies.
    Live(Vec<DatasetName>),
    /// Datasets to new trees.
    Trees(Vec<(DatasetName, PathBuf)>),
    /// One path of a dataset to a target; `over`: the target is the live path itself.
    Path {
        dataset: DatasetName,
        inner: PathBuf,
        target: PathBuf,
        over: bool,
    },
}

pub async fn restore(node: &Arc<Node>, request: RestoreRequest) -> Result<RestoreReport> {
    let run = node.role(&request.role)?;
    let fs = run.fs.clone();
    let found = blocking(move || fs.inspect()).await?;
    let stored = found.points;
    let point = match request.before {
        Some(time) => as_of(&run, &stored, time)?,
        None => find(&stored, &request.point)
            .map_err(|why| not_found(node, &run, &request.point, &found.damaged, why))?,
    };
    let plan = decide(&*run.fs, &request)?;
    preflight(node, &run, &plan, point).await?;
    let mut report = RestoreReport {
        dry_run: request.dry_run,
        role: run.name.clone(),
        point: summary(point),
        kept: None,
        steps: Vec::new(),
    };
    let rank = point.manifest.point.rank();
    let newer = |damaged: &&Damaged| (damaged.name.epoch, damaged.name.sequence) > rank;
    if request.point == "latest" && request.before.is_none() {
        let passed_over = found.damaged.iter().filter(newer);
        let told = passed_over.map(|damaged| damaged.sentence(&node.name()));
        report.steps.extend(told.map(|text| planned("skip", text)));
    }
    if request.dry_run {
        let (fs, point) = (run.fs.clone(), point.clone());
        let planned = blocking(move || Ok(show(&plan, &point, &*fs))).await?;
        report.steps.extend(planned);
        return Ok(report);
    }
    match plan {
        Plan::Live(datasets) => {
            let done = over_live(node, &run, point, datasets, &mut report).await;
            super::view::refresh(node, &run).await;
            done?;
        }
        Plan::Trees(trees) => {
            for (dataset, target) in trees {
                report.steps.push(tree(&run, point, dataset, target).await?);
            }
        }
        Plan::Path {
            dataset,
            inner,
            target,
            over,
        } => {
            path(
                node,
                &run,
                point,
                (dataset, inner, target, over),
                &mut report,
            )
            .await?;
        }
    }
    Ok(report)
}

/// The newest point of that time or before.
fn as_of<'a>(run: &RoleRun, stored: &'a [Stored], time: jiff::Timestamp) -> Result<&'a Stored> {
    let mut then = stored.iter().rev();
    let then = then.find(|stored| stored.manifest.taken <= time);
    then.ok_or_else(|| {
        let role = &run.name;
        let what = format!("find a point of role {role} of that time or before");
        let hint = match stored.first() {
            Some(oldest) => format!(
                "the oldest one is {}: standin points {role}",
                oldest.manifest.point
            ),
            None => "the role has no points yet".to_owned(),
        };
        Failure::new(Code::NotFound, what).hint(hint).into()
    })
}

/// Why there is no such point: perhaps there is, and it is damaged.
pub(super) fn not_found(
    node: &Node,
    run: &RoleRun,
    words: &str,
    damaged: &[Damaged],
    why: String,
) -> anyhow::Error {
    let meant = |damaged: &&Damaged| {
        damaged.short() == words || !words.is_empty() && damaged.name.to_string().starts_with(words)
    };
    let what = format!("find point {words} of role {}: ", run.name);
    match damaged.iter().find(meant) {
        Some(damaged) => Failure::new(Code::Refused, what + &damaged.sentence(&node.name()))
            .hint(format!(
                "standin rescan {} fetches it again from a peer that holds it",
                run.name
            ))
            .into(),
        None => Failure::new(Code::NotFound, what + &why).into(),
    }
}

/// What can be refused is refused before anything is shown or touched: a dry run must not promise more.
async fn preflight(
    node: &Arc<Node>,
    run: &Arc<RoleRun>,
    plan: &Plan,
    point: &Stored,
) -> Result<()> {
    if let Plan::Path { dataset, inner, .. } = plan {
        source_of(run, point, dataset, inner).await?;
    }
    match matches!(plan, Plan::Live(_) | Plan::Path { over: true, .. }) {
        true => expect_active(node, run),
        false => Ok(()),
    }
}

/// Only the active node's live data are its own.
pub(super) fn expect_active(node: &Node, run: &RoleRun) -> Result<()> {
    if cycle::active_record(node, run).is_ok() {
        return Ok(());
    }
    let what = format!(
        "restore over the live data of role {}: this node stands in for it",
        run.name
    );
    let hint = "restore beside the live data with --to DIR, or run it on the active node";
    Err(Failure::new(Code::Refused, what).hint(hint).into())
}

fn usage(what: impl Into<String>, hint: impl Into<String>) -> anyhow::Error {
    Failure::new(Code::Usage, what.into())
        .hint(hint.into())
        .into()
}

fn decide(fs: &dyn Filesystem, request: &RestoreRequest) -> Result<Plan> {
    let names: Vec<&str> = fs.datasets().keys().map(DatasetName::as_str).collect();
    if let Some(dataset) = request
        .dataset
        .as_ref()
        .filter(|dataset| !fs.datasets().contains_key(*dataset))
    {
        let failure = Failure::new(
            Code::NotFound,
            format!("find dataset {dataset} of role {}", request.role),
        );
        return Err(failure
            .hint(format!("its datasets: {}", names.join(", ")))
            .into());
    }
    if let Some(to) = request.to.as_ref().filter(|to| !to.is_absolute()) {
        return Err(usage(
            format!("restore to {}: not an absolute path", to.display()),
            "write the whole path",
        ));
    }
    if let Some(wanted) = &request.path {
        let (dataset, inner) = inside(fs, request.dataset.as_ref(), wanted)?;
        let live = fs.datasets()[&dataset].join(&inner);
        let (target, over) = match &request.to {
            None => (live, true),
            // `cp` manners: into a directory, or as the name given.
            Some(to) if to.is_dir() => (to.join(inner.file_name().unwrap_or_default()), false),
            Some(to) => (to.clone(), false),
        };
        return Ok(Plan::Path {
            dataset,
            inner,
            target,
            over,
        });
    }
    let chosen: Vec<DatasetName> = match &request.dataset {
        Some(dataset) => vec![dataset.clone()],
        None => {
            // One that is nested in another has its place only when that one is there.
            let mut all: Vec<_> = fs.datasets().iter().collect();
            all.sort_by_key(|(_, live)| *live);
            all.into_iter().map(|(name, _)| name.clone()).collect()
        }
    };
    match &request.to {
        None => Ok(Plan::Live(chosen)),
        Some(to) => {
            let trees: Vec<_> = chosen
                .into_iter()
                .map(|dataset| (dataset.clone(), to.join(&dataset)))
                .collect();
            for (_, target) in &trees {
                if target.symlink_metadata().is_ok() {
                    return Err(usage(
                        format!("restore to {}: it exists", target.display()),
                        "name a directory that does not hold it yet; nothing was touched",
                    ));
                }
            }
            Ok(Plan::Trees(trees))
        }
    }
}

/// Which dataset a path is in, and its path inside.
fn inside(
    fs: &dyn Filesystem,
    dataset: Option<&DatasetName>,
    wanted: &Path,
) -> Result<(DatasetName, PathBuf)> {
    let plain = |path: &Path| {
        path.components()
            .all(|part| matches!(part, Component::Normal(_)))
    };
    let candidates = fs
        .datasets()
        .iter()
        .filter(|(name, _)| dataset.is_none_or(|dataset| dataset == *name));
    let found = candidates.filter_map(|(name, live)| {
        let inner = if wanted.is_absolute() {
            wanted.strip_prefix(live).ok()?
        } else {
            wanted
        };
        Some((name.clone(), inner.to_path_buf()))
    });
    let found: Vec<_> = found.collect();
    match found.as_slice() {
        [(_, inner)] if inner.as_os_str().is_empty() => Err(usage(
            "restore that path: it is the whole dataset",
            "use --dataset NAME without --path",
        )),
        [(name, inner)] if plain(inner) => Ok((name.clone(), inner.clone())),
        [_] => Err(usage(
            format!(
                "restore {}: `.` and `..` have no place here",
                wanted.display()
            ),
            "write the path plainly",
        )),
        [] => {
            let lives: Vec<String> = fs
                .datasets()
                .values()
                .map(|live| live.display().to_string())
                .collect();
            let what = format!("find {} in a dataset of the role", wanted.display());
            Err(Failure::new(Code::NotFound, what)
                .hint(format!("its datasets live at {}", lives.join(", ")))
                .into())
        }
        _ => Err(usage(
            format!(
                "restore {}: the role has several datasets",
                wanted.display()
            ),
            "say which: --dataset NAME, or write the absolute live path",
        )),
    }
}

fn show(plan: &Plan, point: &Stored, fs: &dyn Filesystem) -> Vec<Step> {
    let id = &point.manifest.point;
    match plan {
        Plan::Live(datasets) => {
            let mut steps = vec![planned("snapshot", "keep what is live now as a point")];
            for dataset in datasets {
                let live = fs.datasets()[dataset].display().to_string();
                steps.push(planned(
                    "exchange",
                    format!("put {dataset} of {id} in place of {live}, at once and whole"),
                ));
                // A live copy that cannot be looked at is not there, or says why when the restore is made.
                let nested = fs
                    .live(dataset, Scan::Root)
                    .map_or(0, |live| live.nested.len());
                if nested > 0 {
                    let text = format!(
                        "move nested subvolumes ({nested}), which no point holds, over into the new {live}"
                    );
                    steps.push(planned("move", text));
                }
            }
            steps
        }
        Plan::Trees(trees) => trees
            .iter()
            .map(|(dataset, target)| {
                planned(
                    "copy",
                    format!("put {dataset} of {id} at {}", target.display()),
                )
            })
            .collect(),
        Plan::Path {
            inner,
            target,
            over,
            ..
        } => {
            let mut steps = Vec::new();
            if *over {
                steps.push(planned("snapshot", "keep what is live now as a point"));
            }
            steps.push(planned(
                "copy",
                format!("put {} of {id} at {}", inner.display(), target.display()),
            ));
            steps
        }
    }
}

/// Makes sure that what is live now is in a point, and returns it.
async fn keep_live(
    node: &Arc<Node>,
    run: &Arc<RoleRun>,
    report: &mut RestoreReport,
) -> Result<Stored> {
    let record = cycle::active_record(node, run)?;
    let kept = match take::take_locked(node, run, &record, Reason::BeforeRestore, None).await? {
        Taken::Point(stored) => *stored,
        Taken::Unchanged(point) => {
            let fs = run.fs.clone();
            let stored = blocking(move || fs.list()).await?;
            let found = stored
                .into_iter()
                .find(|stored| stored.manifest.point == point);
            found.with_context(|| format!("find {point} again"))?
        }
    };
    report.steps.push(done(
        "snapshot",
        format!("what was live is kept as {}", kept.manifest.point),
    ));
    report.kept = Some(summary(&kept));
    Ok(kept)
}

async fn over_live(
    node: &Arc<Node>,
    run: &Arc<RoleRun>,
    point: &Stored,
    datasets: Vec<DatasetName>,
    report: &mut RestoreReport,
) -> Result<()> {
    let _catalogue = run.catalogue.lock().await;
    let kept = keep_live(node, run, report).await?;
    let id = point.manifest.point.clone();
    let record = cycle::active_record(node, run)?;
    let mut copies = BTreeMap::new();
    for dataset in datasets {
        let late = take::draft(
            node,
            run,
            &record,
            kept.manifest.point.sequence + 1,
            Reason::BeforeRestore,
        )?;
        let late_point = late.point.clone();
        let (fs, name, id, kept) = (run.fs.clone(), dataset.clone(), id.clone(), kept.clone());
        let restored = blocking(move || fs.restore_live(&name, &id, Some(&kept), late)).await;
        let restored = restored.with_context(|| format!("restore {dataset} over its live copy"))?;
        let text = format!(
            "put {dataset} of {} in place of {}",
            point.manifest.point,
            restored.path.display()
        );
        node.hub.note(Some(&run.name), text.clone());
        report.steps.push(done("exchange", text));
        if restored.late_writes {
            let text = format!("writes that came in between are kept as {late_point}");
            report.steps.push(done("snapshot", text));
        } else {
            take::unused(node, run, &late_point);
        }
        report.steps.extend(old_copy(&restored));
        copies.insert(dataset, restored.path.clone());
    }
    let placed = load::place(run, point, &copies).await?;
    report
        .steps
        .extend(placed.into_iter().map(|text| done("place", text)));
    let loads = run.role.dumps.iter().filter(|dump| dump.how.loads());
    report.steps.extend(loads.map(|dump| {
        let text = format!(
            "dump {} is not loaded by this: standin load {} {}",
            dump.name, run.name, dump.name
        );
        done("note", text)
    }));
    Ok(())
}

/// What became of the old live copy, where that is not plain.
fn old_copy(restored: &Restored) -> Vec<Step> {
    let live = restored.path.display();
    let moved = restored.nested_moved.iter().map(|path| {
        let text = format!("moved nested subvolume {} over into {live}", path.display());
        done("move", text)
    });
    let aside = restored.aside.iter().map(|aside| {
        let text = format!(
            "kept aside: the old copy of {live} is in {}, because {}; delete it when nobody needs it",
            aside.path, aside.why
        );
        done("keep", text)
    });
    moved.chain(aside).collect()
}

async fn tree(
    run: &Arc<RoleRun>,
    point: &Stored,
    dataset: DatasetName,
    target: PathBuf,
) -> Result<Step> {
    let text = format!(
        "put {dataset} of {} at {}",
        point.manifest.point,
        target.display()
    );
    let (fs, id) = (run.fs.clone(), point.manifest.point.clone());
    blocking(move || {
        match fs.restore_to(&dataset, &id, &target) {
            Ok(()) => Ok(()),
            // A snapshot cannot go to another filesystem, a copy can.
            Err(error) if matches!(error.downcast_ref(), Some(FsError::OtherFilesystem(_))) => {
                copy::whole(&fs.snapshot_path(&dataset, &id)?, &target)
            }
            Err(error) => Err(error),
        }
    })
    .await
    .with_context(|| text.clone())?;
    Ok(done("copy", text))
}

/// Where a path of a point can be read.
async fn source_of(
    run: &Arc<RoleRun>,
    point: &Stored,
    dataset: &DatasetName,
    inner: &Path,
) -> Result<Readable> {
    let id = point.manifest.point.clone();
    let (fs, name) = (run.fs.clone(), dataset.clone());
    let root = blocking(move || fs.snapshot_path(&name, &id)).await?;
    let source = root.below(inner);
    if source.symlink_metadata().is_err() {
        let what = format!(
            "find {} in {dataset} of {}",
            inner.display(),
            point.manifest.point
        );
        let failure = Failure::new(Code::NotFound, what);
        return Err(failure
            .hint("it may be in another point: `standin points` lists them")
            .into());
    }
    Ok(source)
}

async fn path(
    node: &Arc<Node>,
    run: &Arc<RoleRun>,
    point: &Stored,
    (dataset, inner, target, over): (DatasetName, PathBuf, PathBuf, bool),
    report: &mut RestoreReport,
) -> Result<()> {
    let source = source_of(run, point, &dataset, &inner).await?;
    let text = format!(
        "put {} of {} at {}",
        inner.display(),
        point.manifest.point,
        target.display()
    );
    let put = Put {
        source,
        target,
        over,
        inside: over.then_some((&dataset, &inner)),
        like: None,
        text,
    };
    put::put(node, run, put, report).await
}
