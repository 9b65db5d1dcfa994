//! Puts a file or a tree somewhere: beside live data, or over them.
//!
//! Promise: the target shows what was there before or the whole copy; over live data, what was live is a point first, and what was
//! written between that and the exchange is one too (P5). A crash leaves a hidden name beside the target at worst.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result};

use super::super::api::RestoreReport;
use super::super::cycle::{self, done};
use super::super::node::{Node, RoleRun, blocking};
use super::super::take::{self, Taken};
use super::{keep_live, usage};
use crate::error::{Code, Failure};
use crate::fs::{Readable, Scan};
use crate::host::copy;
use crate::logic::manifest::{Reason, Stored};
use crate::logic::name::DatasetName;

/// A file or a tree that is put somewhere.
pub struct Put<'a> {
    pub source: Readable,
    pub target: PathBuf,
    /// In place of what is live there.
    pub over: bool,
    /// The path in a dataset beside or over which it is put.
    pub inside: Option<(&'a DatasetName, &'a Path)>,
    /// The tree that the source is from, where directories that are missing on the way to the target shall be as in it.
    pub like: Option<Readable>,
    /// What is done, for people.
    pub text: String,
}

/// Puts a copy of the source at the target; over live data, what is there is a point first.
pub async fn put(
    node: &Arc<Node>,
    run: &Arc<RoleRun>,
    put: Put<'_>,
    report: &mut RestoreReport,
) -> Result<()> {
    let Put {
        source,
        target,
        over,
        inside,
        like,
        text,
    } = put;
    let parents = || parents_as_in(run, inside, like.as_deref());
    let _catalogue = run.catalogue.lock().await;
    if !over && target.symlink_metadata().is_ok() {
        return Err(usage(
            format!("restore to {}: it exists", target.display()),
            "name a target that does not exist, or leave --to out to restore over the live data",
        ));
    }
    if !over {
        parents()?;
        blocking(move || copy::whole(&source, &target))
            .await
            .with_context(|| text.clone())?;
        report.steps.push(done("copy", text));
        return Ok(());
    }
    if let Some((dataset, inner)) = inside {
        no_nested(run, dataset, inner).await?;
    }
    let kept = keep_live(node, run, report).await?;
    parents()?;
    replace(node, run, (source, target), &kept, text, report).await
}

/// A subvolume that no point holds would go with the directory it lies in.
async fn no_nested(run: &Arc<RoleRun>, dataset: &DatasetName, inner: &Path) -> Result<()> {
    let (fs, dataset, inner) = (run.fs.clone(), dataset.clone(), inner.to_owned());
    blocking(move || {
        // Where nothing is live, nothing is replaced.
        let Ok(live) = fs.live(&dataset, Scan::Root) else {
            return Ok(());
        };
        let Some(nested) = live.nested.iter().find(|path| path.starts_with(&inner)) else {
            return Ok(());
        };
        let path = live.path.join(&inner);
        let what = format!(
            "restore over {}: {} in it is a nested subvolume, which no point holds",
            path.display(),
            nested.display()
        );
        let hint = "restore with --beside or --to, and move what is needed over by hand";
        Err(Failure::new(Code::Refused, what).hint(hint).into())
    })
    .await
}

/// Puts the copy in place of the live path; what was written there after `kept` was taken becomes a point too (P5).
async fn replace(
    node: &Arc<Node>,
    run: &Arc<RoleRun>,
    (source, target): (Readable, PathBuf),
    kept: &Stored,
    text: String,
    report: &mut RestoreReport,
) -> Result<()> {
    let since_s = kept.manifest.taken.as_second();
    let replaced = blocking(move || {
        let Some(replaced) = copy::over(&source, &target)? else {
            return Ok(None);
        };
        let touched = replaced.touched_since(since_s)?;
        Ok(Some((replaced, touched)))
    })
    .await
    .with_context(|| text.clone())?;
    node.hub.note(Some(&run.name), text.clone());
    report.steps.push(done("copy", text));
    let Some((replaced, touched)) = replaced else {
        return Ok(());
    };
    if touched {
        // It is still here, under the hidden name.
        let record = cycle::active_record(node, run)?;
        if let Taken::Point(late) =
            take::take_locked(node, run, &record, Reason::BeforeRestore, None).await?
        {
            let text = format!(
                "writes that came in between are kept as {}",
                late.manifest.point
            );
            report.steps.push(done("snapshot", text));
        }
    }
    blocking(move || replaced.remove()).await
}

/// Makes the directories that lead to the target where they are missing, with owner and mode as they have in `like`.
fn parents_as_in(
    run: &RoleRun,
    inside: Option<(&DatasetName, &Path)>,
    like: Option<&Path>,
) -> Result<()> {
    use rustix::fs::{AtFlags, CWD, Gid, Mode, Uid};
    let (Some((dataset, inner)), Some(like)) = (inside, like) else {
        return Ok(());
    };
    let live = &run.fs.datasets()[dataset];
    let mut made = PathBuf::new();
    for part in inner.parent().into_iter().flat_map(Path::components) {
        made.push(part);
        let (then, now) = (like.join(&made), live.join(&made));
        if now.symlink_metadata().is_ok() {
            continue;
        }
        let facts = then.symlink_metadata();
        let facts = facts.with_context(|| format!("look at {}", then.display()))?;
        std::fs::create_dir(&now).with_context(|| format!("create {}", now.display()))?;
        let (uid, gid) = (Uid::from_raw(facts.uid()), Gid::from_raw(facts.gid()));
        rustix::fs::chownat(CWD, &now, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)
            .with_context(|| format!("give {} its owner", now.display()))?;
        let mode = Mode::from_raw_mode(facts.mode() & 0o7777);
        rustix::fs::chmod(&now, mode)
            .with_context(|| format!("give {} its mode", now.display()))?;
    }
    Ok(())
}
