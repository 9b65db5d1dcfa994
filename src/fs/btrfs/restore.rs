//! Puts a point in place of live data.
//!
//!     .staging/<role>/.restore-<dataset>/tree          a writable snapshot of the point
//!     .staging/<role>/.restore-<dataset>/intent.json   what is about to happen, on disk before it does
//!         |  renameat2(RENAME_EXCHANGE) with the live path, inside the one mount of the top level
//!     .restore-<dataset>/tree                          what was live
//!         |  a mount that shows it is replaced; it is compared with the point kept before
//!     unchanged: deleted    written to since: a point of its own    in doubt: .standin/.aside
//!         |  what is nested in it moves over into the new live copy; with what cannot move, it goes to .aside
//!
//! Promise: the live path holds the old tree or the new one at every moment (or nothing, where there was nothing), and no
//! write that reached the old one is lost. A crash leaves the directory above; `recover`, at the next start, finishes what had
//! been exchanged and undoes what had not.
//!
//! It deliberately does not know whether anybody still writes: fencing comes before.

use std::io;
use std::path::{Component, Path, PathBuf};

use anyhow::Context;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::catalogue::{Catalogue, entry_names};
use super::freeze::freeze;
use super::layout::{Part, RESTORE_PREFIX, STANDIN};
use super::place::{self, Occupant, Place};
use super::subvolume::{self, Access};
use super::take::{self, Source};
use super::uses::Used;
use super::{disk, ioctl, mountinfo, nested, remount, send, top};
use crate::error::{Code, Failure};
use crate::fs::{Aside, FsError, Restored, Result};
use crate::logic::manifest::{Manifest, Stored};
use crate::logic::name::DatasetName;
use crate::logic::point::PointId;

const INTENT: &str = "intent.json";
const TREE: &str = "tree";
/// Largest intent read: it holds a manifest.
const INTENT_BYTES_MAX: usize = 2 << 20;

/// What a restore is about to do.
#[derive(Debug, Serialize, Deserialize)]
struct Intent {
    dataset: DatasetName,
    /// The live path as people see it, and from the top level.
    live: PathBuf,
    relative: PathBuf,
    /// The subvolume that becomes live.
    new: Uuid,
    /// What the point kept before knows of the one that was.
    kept: Option<Kept>,
    /// The point to make of late writes.
    keep: Manifest,
    /// Whether there were late writes, once that is known and they are kept. Asked only once: moving what is nested
    /// changes the old copy too.
    #[serde(default)]
    late_writes: Option<bool>,
}

/// A snapshot, as far as it tells whether a live subvolume was written to since.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct Kept {
    parent: Uuid,
    otransid: u64,
}

/// See `Filesystem::restore_live`.
pub fn restore_live(
    catalogue: &Catalogue<'_>,
    dataset: &DatasetName,
    point: &PointId,
    kept: &Stored,
    keep: Manifest,
) -> Result<Restored> {
    let (part, place) = catalogue.place(dataset)?;
    let dir = part.staging().join(format!("{RESTORE_PREFIX}{dataset}"));
    let _alone = part
        .top
        .uses
        .alone(Used::Staging(
            catalogue.role.clone(),
            format!("{RESTORE_PREFIX}{dataset}"),
        ))
        .ok_or_else(|| {
            FsError::Busy(format!(
                "the live copy of {dataset}, which is being restored,"
            ))
        })?;
    part.make_dirs()?;
    recover_one(catalogue, part, &dir)?;
    let found = catalogue.find(point)?;
    let _held = send::hold(catalogue, &found, dataset)?;
    refuse_what_cannot_move(place)?;
    disk::make_dir(&dir)?;
    let tree = dir.join(TREE);
    subvolume::snapshot(
        &catalogue.snapshot_path(&found, dataset)?,
        &tree,
        Access::Writable,
    )
    .with_context(|| format!("make a writable copy of {dataset} of {point}"))?;
    still_whole(catalogue, point)?;
    let intent = Intent {
        dataset: dataset.clone(),
        live: place.live.clone(),
        relative: place.relative.clone(),
        new: subvolume::info(&tree)
            .context("look at the writable copy")?
            .uuid,
        kept: mark(catalogue, dataset, &kept.manifest.point)?,
        keep,
        late_writes: None,
    };
    disk::write_json(&dir.join(INTENT), &intent)?;
    part.top.sync()?;
    freeze("restore-intended");
    put_in_place(part, place, &tree)?;
    part.top.sync()?;
    freeze("restore-exchanged");
    remount::show(&part.top, &intent.live, &intent.relative, intent.new)?;
    settle(catalogue, part, &dir, intent)
}

/// Finishes or undoes interrupted restores of the role.
pub fn recover(catalogue: &Catalogue<'_>) -> Result<()> {
    for part in &catalogue.parts {
        for entry in entry_names(&part.staging())? {
            if entry.starts_with(RESTORE_PREFIX) {
                let used = Used::Staging(catalogue.role.clone(), entry.clone());
                let Some(_alone) = part.top.uses.alone(used) else {
                    continue;
                };
                recover_one(catalogue, part, &part.staging().join(&entry))
                    .with_context(|| format!("recover the interrupted restore {entry}"))?;
            }
        }
    }
    Ok(())
}

/// A writable copy at any path of the same filesystem. Missing parents are made.
pub fn restore_to(
    catalogue: &Catalogue<'_>,
    dataset: &DatasetName,
    point: &PointId,
    target: &Path,
) -> Result<()> {
    let (part, _) = catalogue.place(dataset)?;
    let found = catalogue.find(point)?;
    let _held = send::hold(catalogue, &found, dataset)?;
    copy_to(
        catalogue,
        part,
        &catalogue.snapshot_path(&found, dataset)?,
        target,
    )?;
    if let Err(changed) = still_whole(catalogue, point) {
        subvolume::delete(target)
            .with_context(|| format!("remove the copy at {}", target.display()))?;
        return Err(changed);
    }
    part.top.sync()
}

/// A writable copy of the snapshot at `source`, which the caller keeps there. Not yet on disk when this returns.
pub fn copy_to(catalogue: &Catalogue<'_>, part: &Part, source: &Path, target: &Path) -> Result<()> {
    let shown = target.display();
    if target.symlink_metadata().is_ok() {
        return Err(Failure::new(Code::Refused, format!("{shown} exists already")).into());
    }
    refuse_our_own(catalogue, target)?;
    if place::below(&part.top, target)?.is_none() {
        return Err(FsError::OtherFilesystem(target.to_owned()).into());
    }
    if let Some(parent) = target.parent() {
        std::fs::create_dir_all(parent).with_context(|| format!("create {}", parent.display()))?;
    }
    subvolume::snapshot(source, target, Access::Writable)
        .with_context(|| format!("make a writable copy at {shown}"))
}

/// A point may be changed between the look at it and the copy of it: such a copy is not put anywhere.
fn still_whole(catalogue: &Catalogue<'_>, point: &PointId) -> Result<()> {
    let again = catalogue.find(point).map(|_| ());
    again.context("find it whole after it was copied")
}

/// Refuses a target inside live data or among our own files, on whichever filesystem of the role.
fn refuse_our_own(catalogue: &Catalogue<'_>, target: &Path) -> Result<()> {
    let shown = target.display();
    let refuse = |what: String, hint: &str| Err(Failure::new(Code::Usage, what).hint(hint).into());
    if target.components().any(|part| part == Component::ParentDir) {
        return refuse(
            format!("{shown}: `..` has no place here"),
            "write the path plainly; nothing was touched",
        );
    }
    for part in &catalogue.parts {
        let Some(relative) = place::below(&part.top, target)? else {
            continue;
        };
        if relative.starts_with(STANDIN) {
            return refuse(
                format!("{shown} is among the files of standin itself"),
                "name a directory outside of .standin; nothing was touched",
            );
        }
        let inside = |place: &&Place| {
            place.occupant == Occupant::Subvolume && relative.starts_with(&place.relative)
        };
        if let Some(place) = part.places.iter().find(inside) {
            return refuse(
                format!(
                    "{shown} is inside the live dataset {} ({}): the copy would be a nested subvolume, which no point holds",
                    place.dataset,
                    place.live.display()
                ),
                "name a directory outside of the role's datasets; nothing was touched",
            );
        }
    }
    Ok(())
}

fn mark(catalogue: &Catalogue<'_>, dataset: &DatasetName, point: &PointId) -> Result<Option<Kept>> {
    let Some(found) = catalogue.find_if_any(point)? else {
        return Ok(None);
    };
    if !found.stored.local.datasets.contains_key(dataset) {
        return Ok(None);
    }
    let info = take::snapshot_info(catalogue, &found, dataset)?;
    Ok(info.parent_uuid.map(|parent| Kept {
        parent,
        otransid: info.otransid,
    }))
}

fn refuse_what_cannot_move(place: &Place) -> Result<()> {
    let shown = place.live.display();
    let refuse =
        |what: String, hint: String| Err(Failure::new(Code::Refused, what).hint(hint).into());
    if place.occupant == Occupant::Directory {
        return place.open_live().map(|_| ());
    }
    let mounts = mountinfo::read()?;
    if let Some(mount) = mountinfo::below(&mounts, &place.live).next() {
        let point = mount.point.display();
        return refuse(
            format!("{shown} cannot be replaced: something is mounted inside it, at {point}"),
            format!("unmount it first: umount {point}"),
        );
    }
    let parent = place.relative.parent().unwrap_or(Path::new(""));
    if let Err(e) = place.top.open_dir(parent) {
        return refuse(
            format!("the directory that is to hold {shown} cannot be opened: {e}"),
            "create it, and restore again".to_owned(),
        );
    }
    if place.occupant == Occupant::Subvolume {
        let live = place.open_live()?;
        let info = ioctl::subvolume(&live).with_context(|| format!("look at {shown}"))?;
        if info.read_only {
            // The kernel moves no read-only subvolume to another directory.
            libbtrfsutil::set_subvolume_read_only(top::fd_path(&live), false)
                .map_err(|e| e.os_error())
                .with_context(|| format!("make {shown} writable, to move it away"))?;
        }
    }
    Ok(())
}

fn put_in_place(part: &Part, place: &Place, tree: &Path) -> Result<()> {
    let tree = part.relative(tree);
    let shown = place.live.display();
    let done = match place.occupant {
        Occupant::Subvolume => part.top.exchange(tree, &place.relative),
        Occupant::Nothing => part.top.move_to(tree, &place.relative),
        Occupant::EmptyDirectory | Occupant::Directory => part
            .top
            .remove_dir(&place.relative)
            .and_then(|()| part.top.move_to(tree, &place.relative)),
    };
    match done {
        Err(e) if e.kind() == io::ErrorKind::ResourceBusy => {
            let what = format!("{shown} cannot be replaced: something is mounted on it");
            Err(Failure::new(Code::Refused, what)
                .hint(format!("unmount what lies over it (see: findmnt {shown})"))
                .into())
        }
        done => done.with_context(|| format!("put the writable copy at {shown}")),
    }
}

fn recover_one(catalogue: &Catalogue<'_>, part: &Part, dir: &Path) -> Result<()> {
    if !dir.exists() {
        return Ok(());
    }
    let intent: Intent = match disk::read_json(&dir.join(INTENT), INTENT_BYTES_MAX) {
        Ok(Some(intent)) => intent,
        // Nothing is exchanged before the intent is on disk: what lies here is a copy of a point.
        Ok(None) => return disk::remove(dir).context("remove what was prepared"),
        Err(e) => {
            let why = format!("its intent cannot be read: {e:#}");
            return set_aside(part, dir, why).map(|_| ());
        }
    };
    let is_new = |path: &Path| subvolume::info(path).is_ok_and(|info| info.uuid == intent.new);
    if is_new(&part.top.path().join(&intent.relative)) {
        tracing::warn!(dataset = %intent.dataset, "finishing an interrupted restore of {}", intent.live.display());
        remount::show(&part.top, &intent.live, &intent.relative, intent.new)?;
        return settle(catalogue, part, dir, intent).map(|_| ());
    }
    if is_new(&dir.join(TREE)) {
        tracing::warn!(dataset = %intent.dataset, "undoing a restore of {} that was interrupted before the exchange", intent.live.display());
        return disk::remove(dir).context("remove the writable copy");
    }
    let why = "neither it nor the live path holds the restored copy";
    set_aside(part, dir, why.to_owned()).map(|_| ())
}

/// Deals with what was live.
fn settle(
    catalogue: &Catalogue<'_>,
    part: &Part,
    dir: &Path,
    mut intent: Intent,
) -> Result<Restored> {
    let tree = dir.join(TREE);
    let mut restored = Restored {
        dataset: intent.dataset.clone(),
        path: intent.live.clone(),
        late_writes: false,
        nested_moved: Vec::new(),
        nested_aside: Vec::new(),
        aside: None,
    };
    let Some(old) = subvolume::info_if_any(&tree).context("look at what was live")? else {
        disk::remove(dir).context("remove the emptied directory")?;
        return Ok(restored);
    };
    let mut doubt = None;
    if intent.late_writes.is_none() {
        match judge(catalogue, &intent, &tree, &old) {
            Ok(late_writes) => {
                intent.late_writes = Some(late_writes);
                disk::write_json(&dir.join(INTENT), &intent)?;
            }
            Err(e) => {
                doubt = Some(format!(
                    "it was written to after the last point, and no point could be made of it: {e:#}"
                ));
            }
        }
    }
    restored.late_writes = intent.late_writes.unwrap_or(false);
    let carried = nested::carry_over(&part.top, part.relative(&tree), &intent.relative)?;
    freeze("restore-carried");
    restored.nested_moved = carried.moved;
    restored.nested_aside = carried.left;
    if doubt.is_none() && !restored.nested_aside.is_empty() {
        doubt = Some(format!(
            "it holds nested subvolumes that could not be moved over: {}",
            listed(&restored.nested_aside)
        ));
    }
    let doubt = match doubt {
        Some(doubt) => doubt,
        None => match subvolume::delete(&tree) {
            Ok(()) => {
                disk::remove(dir).context("remove the emptied directory")?;
                return Ok(restored);
            }
            Err(e) => format!("it cannot be deleted: {e}"),
        },
    };
    restored.aside = Some(set_aside(part, dir, doubt)?);
    Ok(restored)
}

fn listed(paths: &[PathBuf]) -> String {
    let shown: Vec<String> = paths
        .iter()
        .map(|path| path.display().to_string())
        .collect();
    shown.join(", ")
}

/// Whether the old live copy was written to after the last point; if so, it is a point now.
fn judge(
    catalogue: &Catalogue<'_>,
    intent: &Intent,
    tree: &Path,
    old: &ioctl::Subvolume,
) -> Result<bool> {
    let holds = |kept: Option<Kept>| {
        kept.is_some_and(|kept| kept.parent == old.uuid && old.ctransid <= kept.otransid)
    };
    if holds(intent.kept) {
        return Ok(false);
    }
    // An earlier attempt may have come as far as the point.
    let kept = mark(catalogue, &intent.dataset, &intent.keep.point)?;
    if !holds(kept) {
        keep_late_writes(catalogue, intent, tree)?;
    }
    Ok(true)
}

fn keep_late_writes(catalogue: &Catalogue<'_>, intent: &Intent, tree: &Path) -> Result<()> {
    let source = Source {
        dataset: intent.dataset.clone(),
        dir: std::fs::File::open(tree).context("open what was live")?,
        shown: intent.live.clone(),
    };
    take::take(catalogue, intent.keep.clone(), vec![source]).map(|_| ())
}

/// Keeps what cannot be judged or deleted, under a name of its own, and says so.
fn set_aside(part: &Part, dir: &Path, why: String) -> Result<Aside> {
    disk::make_dir(&part.aside())?;
    let aside = part.aside().join(Uuid::new_v4().to_string());
    std::fs::rename(dir, &aside).with_context(|| format!("move {} aside", dir.display()))?;
    part.top.sync()?;
    let (path, why) = (part.top.shown(&aside), top::plain(&why));
    tracing::warn!(
        "an old live subvolume is kept in {path}: {why}; delete it when nobody needs it"
    );
    Ok(Aside { path, why })
}
