//! Forks: making them of points that are not of the line, showing them, and letting them go when an operator says so.
//!
//! Promise (P5): what is not of the line is moved, never destroyed; only `discard` destroys, one fork, named by a person.
//! A crash while points are moved is mended by the next call, or the next start (`Filesystem::prepare`).
//!
//! It deliberately does not know which points are of the line: the caller of `sort_out` does.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result};
use jiff::Timestamp;

use super::api::{
    ChangeView, ForkChanges, ForkDiff, ForkReport, ForkRequest, ForkView, Forks, PointSummary,
    RoleForks, Step,
};
use super::cycle::{done, planned};
use super::node::{Node, RoleRun, blocking};
use crate::error::{Code, Failure};
use crate::fs::apart::set_apart;
use crate::fs::btrfs::unmount_fork;
use crate::fs::{Filesystem, FsError, Held};
use crate::host::copy;
use crate::logic::changes::{Change, EntryKind, What, shown};
use crate::logic::fork::{self, Figures, Fork, ForkPoint, Why};
use crate::logic::name::{DatasetName, RoleName};
use crate::logic::point::{PointId, PointName};

/// Changes answered for one dataset: more are counted, not listed.
const CHANGES_MAX: usize = 100_000;

/// Ranges answered for one file.
const SPANS_MAX: usize = 100;

/// Answers `standin fork ...`.
pub async fn answer(node: &Arc<Node>, request: ForkRequest) -> Result<serde_json::Value> {
    let value = match request {
        ForkRequest::List { role } => serde_json::to_value(list(node, role.as_ref()).await?),
        ForkRequest::Show { role, fork } => {
            let (run, fork) = chosen(node, &role, &fork).await?;
            serde_json::to_value(view(&run, &fork)?)
        }
        ForkRequest::Diff { role, fork, stat } => {
            let (run, fork) = chosen(node, &role, &fork).await?;
            serde_json::to_value(diff(&run, fork, stat).await?)
        }
        ForkRequest::Mount { role, fork, dir } => {
            let (run, fork) = chosen(node, &role, &fork).await?;
            serde_json::to_value(mount(&run, &fork, dir).await?)
        }
        ForkRequest::Unmount { dir } => {
            let text = format!("unmount {}", dir.display());
            blocking(move || unmount_fork(&dir)).await?;
            serde_json::to_value(report(None, vec![done("unmount", text)]))
        }
        ForkRequest::Export { role, fork, dir } => {
            let (run, fork) = chosen(node, &role, &fork).await?;
            serde_json::to_value(export(&run, &fork, dir).await?)
        }
        ForkRequest::Discard {
            role,
            fork,
            dry_run,
        } => {
            let (run, fork) = chosen(node, &role, &fork).await?;
            serde_json::to_value(discard(node, &run, &fork, dry_run).await?)
        }
    };
    Ok(value?)
}

fn report(fork: Option<ForkView>, steps: Vec<Step>) -> ForkReport {
    ForkReport {
        dry_run: false,
        fork,
        steps,
    }
}

async fn list(node: &Arc<Node>, role: Option<&RoleName>) -> Result<Forks> {
    let mut roles = Vec::new();
    for run in node.chosen(role)? {
        let fs = run.fs.clone();
        let forks = blocking(move || fs.forks()).await?;
        let forks: Result<Vec<ForkView>> = forks.iter().map(|fork| view(&run, fork)).collect();
        roles.push(RoleForks {
            role: run.name.clone(),
            forks: forks?,
        });
    }
    let now = Timestamp::now();
    Ok(Forks { now, roles })
}

/// The fork that the words mean.
async fn chosen(node: &Arc<Node>, role: &RoleName, words: &str) -> Result<(Arc<RoleRun>, Fork)> {
    let run = node.role(role)?;
    let fs = run.fs.clone();
    let forks = blocking(move || fs.forks()).await?;
    match fork::find(&forks, words) {
        Ok(fork) => Ok((run, fork.clone())),
        Err(why) => {
            let what = format!("find fork {words:?} of role {role}: {why}");
            let hint = format!("standin fork list {role}");
            Err(Failure::new(Code::NotFound, what).hint(hint).into())
        }
    }
}

fn view(run: &RoleRun, fork: &Fork) -> Result<ForkView> {
    let written = fork.written();
    let point = |point: &ForkPoint| PointSummary {
        name: point.name(),
        short: point.id.to_string(),
        taken: point.taken,
        consistent: None,
    };
    let why = serde_json::to_value(fork.why)?;
    Ok(ForkView {
        role: run.name.clone(),
        name: fork.name,
        short: fork.short(),
        term: fork.term.clone(),
        base: fork.base.as_ref().map(ToString::to_string),
        points: fork.points.iter().map(point).collect(),
        why: why.as_str().unwrap_or_default().to_owned(),
        reason: fork.why.phrase().to_owned(),
        found: (fork.found != Timestamp::UNIX_EPOCH).then_some(fork.found),
        first: written.map(|(first, _)| first),
        last: written.map(|(_, last)| last),
        measured: fork.measured.clone(),
        mounted: run.fs.fork_mounts(&fork.name)?,
    })
}

async fn diff(run: &Arc<RoleRun>, fork: Fork, stat: bool) -> Result<ForkDiff> {
    let view = view(run, &fork)?;
    let fs = run.fs.clone();
    let datasets = blocking(move || {
        let base = comparable(&*fs, &fork)?;
        let compared = fs.fork_datasets(&fork.name)?.into_iter();
        let compared = compared.map(|dataset| compare(&*fs, &fork, &base, dataset, stat));
        compared.collect::<Result<Vec<ForkChanges>>>()
    });
    let datasets = datasets.await.context("compare the fork with its base")?;
    Ok(ForkDiff {
        fork: view,
        datasets,
    })
}

/// What a fork is compared with, and what has to be said about that.
struct Comparable {
    held: Option<Held>,
    name: Option<String>,
    note: Option<String>,
}

fn comparable(fs: &dyn Filesystem, fork: &Fork) -> Result<Comparable> {
    let listed = fs.list()?;
    let is_here = |base: &&PointId| listed.iter().any(|s| s.manifest.point == **base);
    if let Some(base) = fork.base.as_ref().filter(is_here) {
        return Ok(Comparable {
            held: Some(Held::Point(base.clone())),
            name: Some(base.to_string()),
            note: None,
        });
    }
    let gone = match &fork.base {
        Some(base) => format!("the point it grew from, {base}, is not here any more"),
        None => "it is not known which point it grew from".to_owned(),
    };
    Ok(match fork.points.as_slice() {
        [oldest, _, ..] => Comparable {
            held: Some(Held::Forked(fork.name, oldest.id.clone())),
            name: Some(oldest.id.to_string()),
            note: Some(format!(
                "{gone}: compared with its own oldest point, {}; what was written before that is not shown",
                oldest.id
            )),
        },
        _ => Comparable {
            held: None,
            name: None,
            note: Some(format!(
                "{gone}: there is nothing to compare with; standin fork mount shows the files"
            )),
        },
    })
}

fn compare(
    fs: &dyn Filesystem,
    fork: &Fork,
    base: &Comparable,
    dataset: DatasetName,
    stat: bool,
) -> Result<ForkChanges> {
    let mut compared = ForkChanges {
        dataset: dataset.clone(),
        against: base.name.clone(),
        note: base.note.clone(),
        figures: Figures::default(),
        changes: Vec::new(),
        left_out: 0,
    };
    let (Some(held), Some(newest)) = (&base.held, fork.newest()) else {
        return Ok(compared);
    };
    let newer = Held::Forked(fork.name, newest.id.clone());
    let changes = match fs.changes(&dataset, held, &newer) {
        Err(error) if matches!(error.downcast_ref(), Some(FsError::Missing(_))) => {
            compared.against = None;
            compared.note = Some("that point does not hold this dataset: all of it is new".into());
            return Ok(compared);
        }
        changes => changes?,
    };
    compared.figures = Figures::of(&changes);
    let shown = if stat { 0 } else { CHANGES_MAX };
    compared.left_out = changes.len().saturating_sub(shown) as u64;
    compared.changes = changes.iter().take(shown).map(told).collect();
    Ok(compared)
}

fn told(change: &Change) -> ChangeView {
    let what = match change.what {
        What::Added => "added",
        What::Removed => "removed",
        What::Changed => "changed",
        What::Renamed => "renamed",
        What::Metadata => "metadata",
    };
    let kind = change.kind.map(|kind| match kind {
        EntryKind::File => "file",
        EntryKind::Directory => "directory",
        EntryKind::Symlink => "symlink",
        EntryKind::Special => "special",
    });
    let spans = change.written.iter().take(SPANS_MAX);
    ChangeView {
        what: what.to_owned(),
        path: shown(&change.path),
        from: change.from.as_deref().map(shown),
        kind: kind.map(str::to_owned),
        bytes: change.bytes,
        written: spans.map(|span| [span.offset, span.len]).collect(),
        resized: change.resized,
        replaced: change.replaced,
        metadata: change.metadata,
        at: change.at.and_then(|at| Timestamp::from_second(at).ok()),
    }
}

async fn mount(run: &Arc<RoleRun>, fork: &Fork, dir: PathBuf) -> Result<ForkReport> {
    let text = format!("show fork {} at {}, read-only", fork.short(), dir.display());
    let (fs, name) = (run.fs.clone(), fork.name);
    blocking(move || fs.mount_fork(&name, &dir)).await?;
    Ok(report(Some(view(run, fork)?), vec![done("mount", text)]))
}

async fn export(run: &Arc<RoleRun>, fork: &Fork, dir: PathBuf) -> Result<ForkReport> {
    if dir.symlink_metadata().is_ok() {
        let what = format!("export to {}: it exists", dir.display());
        return Err(Failure::new(Code::Usage, what)
            .hint("name a directory that does not exist yet; nothing was touched")
            .into());
    }
    let (fs, name) = (run.fs.clone(), fork.name);
    let steps = blocking(move || {
        let mut steps = Vec::new();
        for dataset in fs.fork_datasets(&name)? {
            let target = dir.join(&dataset);
            let text = format!("copy {dataset} of the fork to {}", target.display());
            copy_one(&*fs, &name, &dataset, &target).with_context(|| text.clone())?;
            steps.push(done("copy", text));
        }
        Ok(steps)
    });
    Ok(report(Some(view(run, fork)?), steps.await?))
}

fn copy_one(
    fs: &dyn Filesystem,
    fork: &PointName,
    dataset: &DatasetName,
    target: &Path,
) -> Result<()> {
    match fs.export_fork(fork, dataset, target) {
        // A snapshot cannot go to another filesystem, a copy can.
        Err(error) if matches!(error.downcast_ref(), Some(FsError::OtherFilesystem(_))) => {
            if let Some(parent) = target.parent() {
                std::fs::create_dir_all(parent)
                    .with_context(|| format!("create {}", parent.display()))?;
            }
            copy::whole(&fs.fork_path(fork, dataset, None)?, target)
        }
        copied => copied,
    }
}

async fn discard(
    node: &Arc<Node>,
    run: &Arc<RoleRun>,
    fork: &Fork,
    dry_run: bool,
) -> Result<ForkReport> {
    let short = fork.short();
    let view = view(run, fork)?;
    if let Some(at) = view.mounted.first() {
        let what = format!(
            "discard fork {short} of {}: it is mounted at {}",
            run.name,
            at.display()
        );
        return Err(Failure::new(Code::Refused, what)
            .hint(format!("standin fork unmount {}", at.display()))
            .into());
    }
    let points: Vec<String> = fork.points.iter().map(|p| p.id.to_string()).collect();
    let text = format!("discard fork {short} for good: {}", points.join(", "));
    if dry_run {
        return Ok(ForkReport {
            dry_run,
            ..report(Some(view), vec![planned("discard", text)])
        });
    }
    let _catalogue = run.catalogue.lock().await;
    let (fs, name) = (run.fs.clone(), fork.name);
    blocking(move || fs.discard_fork(&name))
        .await
        .map_err(|error| match error.downcast_ref() {
            Some(FsError::Busy(_)) => error.context(
                Failure::new(Code::Locked, format!("discard fork {short}: it is in use"))
                    .hint("a diff or an export reads it, or another program sends from it: try again when that is over"),
            ),
            _ => error,
        })?;
    super::browse::refresh(node, run).await;
    node.hub.note(Some(&run.name), text.clone());
    Ok(report(Some(view), vec![done("discard", text)]))
}

/// Keeps the points `off`, which are not of the line, as a fork: measures what only they hold, moves them, says so.
/// `base` is the newest point of the line that they grew from, if known. A fork of the same term, reason and base grows.
/// The caller holds the role's catalogue lock. None: there was nothing to move. `FsError::Busy` while a send uses a point.
pub async fn sort_out(
    node: &Arc<Node>,
    run: &Arc<RoleRun>,
    off: Vec<PointId>,
    why: Why,
    base: Option<PointId>,
) -> Result<Option<Fork>> {
    if off.is_empty() {
        return Ok(None);
    }
    let role = node.record(run)?.map(|record| record.id);
    let fs = run.fs.clone();
    let found = blocking(move || set_apart(&*fs, &off, why, base, role)).await?;
    if let Some(fork) = &found {
        super::browse::refresh(node, run).await;
        node.hub.warn(Some(&run.name), fork.sentence(&run.name));
    }
    Ok(found)
}
