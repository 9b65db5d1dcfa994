//! Deals with what was live, once it is no longer at its path.
//!
//!     .restore-<dataset>/intent.json     what is done, on disk before it is
//!     .restore-<dataset>/tree            what was live
//!         |  compared with the points
//!     all in a point: deleted    else: a point of its own    in doubt: .standin/.aside
//!         |  what is nested in it moves over into the new live copy, if there is one; with what cannot move, it goes to .aside
//!
//! Promise: no write that reached it is lost. A crash leaves the directory as it is, and the same call goes on from there.
//!
//! It deliberately does not know why the path was given up, nor whether anybody still writes: fencing comes before.

use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use anyhow::Context;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::catalogue::{Catalogue, Found};
use super::freeze::freeze;
use super::ioctl::Subvolume;
use super::layout::Part;
use super::subvolume::Access;
use super::take::{self, Source};
use super::{disk, nested, same, send, subvolume, top};
use crate::fs::{Aside, NoBracket, Restored, Result};
use crate::logic::manifest::Manifest;
use crate::logic::name::DatasetName;
use crate::logic::point::PointId;

/// The file that says what is done.
pub const INTENT: &str = "intent.json";
/// The subvolume beside it.
pub const TREE: &str = "tree";
/// A read-only snapshot of it, while it is compared.
const SEEN: &str = "seen";
/// Largest intent read, in bytes: it holds a manifest.
pub const INTENT_BYTES_MAX: usize = 2 << 20;

/// What is about to be done to a live path.
#[derive(Debug, Serialize, Deserialize)]
pub struct Intent {
    pub dataset: DatasetName,
    /// The live path as people see it, and from the top level.
    pub live: PathBuf,
    pub relative: PathBuf,
    /// The subvolume that becomes live; none where nothing takes the place of the old one.
    #[serde(default)]
    pub new: Option<Uuid>,
    /// The subvolume that is taken away, where nothing takes its place.
    #[serde(default)]
    pub old: Option<Uuid>,
    /// It was mounted at the live path by itself.
    #[serde(default)]
    pub was_mount: bool,
    /// What the point kept before knows of the one that was.
    pub kept: Option<Kept>,
    /// The point to make of what no point holds.
    pub keep: Manifest,
    /// Whether there was any, once that is known and it is kept. Asked only once: moving what is nested changes the old
    /// copy too.
    #[serde(default)]
    pub late_writes: Option<bool>,
}

/// A snapshot, as far as it tells whether a live subvolume was written to since.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Kept {
    parent: Uuid,
    otransid: u64,
}

/// What the point `point` knows of the live copy it was taken from; none where it is not here.
pub fn mark(
    catalogue: &Catalogue<'_>,
    dataset: &DatasetName,
    point: &PointId,
) -> Result<Option<Kept>> {
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

/// Deals with what was live.
pub fn settle(
    catalogue: &Catalogue<'_>,
    part: &Part,
    dir: &Path,
    mut intent: Intent,
) -> Result<Restored> {
    let tree = dir.join(TREE);
    let mut restored = Restored {
        dataset: intent.dataset.clone(),
        path: intent.live.clone(),
        uuid: intent.new.unwrap_or_default(),
        late_writes: false,
        nested_moved: Vec::new(),
        nested_aside: Vec::new(),
        aside: None,
    };
    let Some(old) = subvolume::live_if_any(&tree).context("look at what was live")? else {
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
    let carried = match intent.new {
        Some(_) => nested::carry_over(&part.top, part.relative(&tree), &intent.relative)?,
        None => nested::all_left(&part.top, part.relative(&tree))?,
    };
    freeze("restore-carried");
    restored.nested_moved = carried.moved;
    restored.nested_aside = carried.left;
    if doubt.is_none() && !restored.nested_aside.is_empty() {
        doubt = Some(format!(
            "it holds nested subvolumes that could not be moved over and that no point holds: {}",
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

/// Whether what was live had to be made a point, because none held it.
fn judge(catalogue: &Catalogue<'_>, intent: &Intent, tree: &Path, old: &Subvolume) -> Result<bool> {
    let holds = |kept: Option<Kept>| {
        kept.is_some_and(|kept| kept.parent == old.uuid && old.ctransid <= kept.otransid)
    };
    if holds(intent.kept) {
        return Ok(false);
    }
    // An earlier attempt may have come as far as the point.
    if holds(mark(catalogue, &intent.dataset, &intent.keep.point)?) {
        return Ok(true);
    }
    if is_held(catalogue, &intent.dataset, tree, old)? {
        return Ok(false);
    }
    keep_late_writes(catalogue, intent, tree)?;
    Ok(true)
}

/// Whether a point holds all that is in what was live, at `tree`: it was taken from it and nothing was written since, or the
/// live copy is a copy of it that nobody touched. Where only the notes of the kernel differ, the files are compared.
fn is_held(
    catalogue: &Catalogue<'_>,
    dataset: &DatasetName,
    tree: &Path,
    live: &Subvolume,
) -> Result<bool> {
    let mut related = Vec::new();
    for found in catalogue.list()? {
        if !found.stored.local.datasets.contains_key(dataset) {
            continue;
        }
        let snapshot = take::snapshot_info(catalogue, &found, dataset)?;
        if !take::differs(live, &snapshot) || is_untouched(live, &snapshot) {
            return Ok(true);
        }
        if snapshot.parent_uuid == Some(live.uuid) || live.parent_uuid == Some(snapshot.uuid) {
            related.push(found);
        }
    }
    // The newest of those taken from it, and the one that it is a copy of, which is older.
    let newest = related.pop();
    let source = related.into_iter().find(|found| {
        let local = found.stored.local.datasets.get(dataset);
        local.map(|local| local.uuid) == live.parent_uuid
    });
    for found in newest.into_iter().chain(source) {
        match holds_the_same(catalogue, dataset, tree, &found) {
            Ok(true) => return Ok(true),
            Ok(false) => {}
            // Then it is kept once more than needed.
            Err(e) => {
                tracing::warn!(%dataset, "cannot compare what was live with {}: {e:#}", found.name)
            }
        }
    }
    Ok(false)
}

/// Compares a snapshot of what was live with that of a point.
fn holds_the_same(
    catalogue: &Catalogue<'_>,
    dataset: &DatasetName,
    tree: &Path,
    found: &Found,
) -> Result<bool> {
    let _held = send::hold(catalogue, found, dataset)?;
    let facts = found.stored.manifest.datasets.get(dataset);
    let mut nested = subvolume::nested(tree).context("list nested subvolumes")?;
    nested.extend(
        facts
            .into_iter()
            .flat_map(|facts| facts.nested.iter().map(PathBuf::from)),
    );
    let holders = nested
        .iter()
        .filter_map(|path| Some(path.parent()?.as_os_str().as_bytes().to_vec()))
        .collect();
    let seen = tree.with_file_name(SEEN);
    disk::remove(&seen).context("remove an older snapshot for comparing")?;
    subvolume::snapshot(tree, &seen, Access::ReadOnly).context("take a snapshot for comparing")?;
    let same = same::same(&catalogue.snapshot_path(found, dataset)?, &seen, &holders);
    subvolume::delete(&seen).context("delete the snapshot for comparing")?;
    same
}

/// Whether `copy` is a writable copy of `snapshot` in which nothing was changed since it was made.
///
/// A writable snapshot inherits the ctransid of its source, and its otransid is the transaction that made it; the first
/// change afterwards, in a later transaction always, raises ctransid above it. Seen on Linux 6.18: renaming it, mounting it
/// and making it writable change nothing; reading files or listing directories does not under `noatime`, but does under
/// `relatime`, the default of mounts, because an access time is written. Such a copy counts as touched, and its files are
/// compared. Our own mount of the top level is `noatime`.
pub fn is_untouched(copy: &Subvolume, snapshot: &Subvolume) -> bool {
    copy.parent_uuid == Some(snapshot.uuid) && snapshot.read_only && copy.ctransid <= copy.otransid
}

fn keep_late_writes(catalogue: &Catalogue<'_>, intent: &Intent, tree: &Path) -> Result<()> {
    let source = Source {
        dataset: intent.dataset.clone(),
        dir: std::fs::File::open(tree).context("open what was live")?,
        shown: intent.live.clone(),
    };
    take::take(catalogue, intent.keep.clone(), vec![source], &mut NoBracket).map(|_| ())
}

/// Keeps what cannot be judged or deleted, under a name of its own, and says so.
pub fn set_aside(part: &Part, dir: &Path, why: String) -> Result<Aside> {
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
