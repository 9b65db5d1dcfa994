//! Puts a point in place of live data.
//!
//!     .staging/<role>/.restore-<dataset>/tree          a writable snapshot of the point
//!     .staging/<role>/.restore-<dataset>/intent.json   what is about to happen, on disk before it does
//!         |  renameat2(RENAME_EXCHANGE) with the live path, inside the one mount of the top level
//!     .restore-<dataset>/tree                          what was live
//!         |  a mount that shows it is replaced; it is compared with the point kept before
//!         |  see `settle`
//!     gone, or a point, or in .standin/.aside
//!
//! Promise: the live path holds the old tree or the new one at every moment (or nothing, where there was nothing), and no
//! write that reached the old one is lost. A crash leaves the directory above; `recover`, at the next start, finishes what had
//! been exchanged and undoes what had not.
//!
//! It deliberately does not know whether anybody still writes: fencing comes before.

use std::io;
use std::path::Path;

use anyhow::Context;

use super::catalogue::{Catalogue, Found, entry_names};
use super::copyout::still_whole;
use super::freeze::freeze;
use super::layout::{Part, RESTORE_PREFIX};
use super::place::{Occupant, Place};
use super::settle::{self, INTENT, INTENT_BYTES_MAX, Intent, TREE, mark, set_aside, settle};
use super::subvolume::{self, Access};
use super::uses::{Use, Used};
use super::{disk, ioctl, live, mountinfo, remount, retire, send, take, top};
use crate::error::{Code, Failure};
use crate::fs::{FsError, Restored, Result};
use crate::logic::manifest::{Manifest, Stored};
use crate::logic::name::DatasetName;
use crate::logic::point::PointId;

/// See `Filesystem::restore_live`.
pub fn restore_live(
    catalogue: &Catalogue<'_>,
    dataset: &DatasetName,
    point: &PointId,
    kept: Option<&Stored>,
    keep: Manifest,
) -> Result<Restored> {
    let (part, place) = catalogue.place(dataset)?;
    let (dir, _alone) = alone(catalogue, part, dataset)?;
    let place = &place.now();
    let found = catalogue.find(point)?;
    let _held = send::hold(catalogue, &found, dataset)?;
    if let Some(already) = is_there(catalogue, part, place, &found)? {
        return Ok(already);
    }
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
    let new = subvolume::info(&tree).context("look at the writable copy")?;
    let intent = Intent {
        dataset: dataset.clone(),
        live: place.live.clone(),
        relative: place.relative.clone(),
        new: Some(new.uuid),
        old: None,
        was_mount: place.is_mount,
        kept: mark_of(catalogue, dataset, kept)?,
        keep,
        late_writes: None,
    };
    disk::write_json(&dir.join(INTENT), &intent)?;
    part.top.sync()?;
    freeze("restore-intended");
    put_in_place(part, place, &tree)?;
    part.top.sync()?;
    freeze("restore-exchanged");
    remount::show(place, new.uuid)?;
    settle(catalogue, part, &dir, intent)
}

/// The directory in which the live copy of `dataset` is dealt with, for nobody else meanwhile; what an interruption left
/// there is finished or undone.
pub fn alone(
    catalogue: &Catalogue<'_>,
    part: &Part,
    dataset: &DatasetName,
) -> Result<(std::path::PathBuf, Use)> {
    let name = format!("{RESTORE_PREFIX}{dataset}");
    let used = Used::Staging(catalogue.role.clone(), name.clone());
    let alone = part.top.uses.alone(used).ok_or_else(|| {
        FsError::Busy(format!(
            "the live copy of {dataset}, which is being restored,"
        ))
    })?;
    part.make_dirs()?;
    let dir = part.staging().join(name);
    recover_one(catalogue, part, &dir)?;
    Ok((dir, alone))
}

/// What `kept`, where there is one, knows of the live copy it was taken from.
pub fn mark_of(
    catalogue: &Catalogue<'_>,
    dataset: &DatasetName,
    kept: Option<&Stored>,
) -> Result<Option<settle::Kept>> {
    match kept {
        Some(kept) => mark(catalogue, dataset, &kept.manifest.point),
        None => Ok(None),
    }
}

/// The answer where the very point is live already, untouched: an earlier call came as far as that. Who has begun to use the
/// copy keeps it.
fn is_there(
    catalogue: &Catalogue<'_>,
    part: &Part,
    place: &Place,
    found: &Found,
) -> Result<Option<Restored>> {
    if place.occupant != Occupant::Subvolume {
        return Ok(None);
    }
    part.top.sync()?;
    let live = live::subvolume(place.open_live()?)
        .with_context(|| format!("look at {}", place.live.display()))?;
    let snapshot = take::snapshot_info(catalogue, found, &place.dataset)?;
    if live.read_only || !settle::is_untouched(&live, &snapshot) {
        return Ok(None);
    }
    remount::show(place, live.uuid)?;
    Ok(Some(Restored::at(&place.dataset, &place.live, live.uuid)))
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

/// Refuses what keeps a live copy from being moved; one that is read-only is made writable.
pub fn refuse_what_cannot_move(place: &Place) -> Result<()> {
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
    let Some(new) = intent.new else {
        return retire::recover(catalogue, part, dir, intent);
    };
    let is_new = |path: &Path| subvolume::info(path).is_ok_and(|info| info.uuid == new);
    if is_new(&part.top.path().join(&intent.relative)) {
        tracing::warn!(dataset = %intent.dataset, "finishing an interrupted restore of {}", intent.live.display());
        if let Ok((_, place)) = catalogue.place(&intent.dataset) {
            // The mount still shows the old one, so that the place was found where that lies now.
            let mut place = place.clone();
            place.relative.clone_from(&intent.relative);
            remount::show(&place, new)?;
        }
        return settle(catalogue, part, dir, intent).map(|_| ());
    }
    if is_new(&dir.join(TREE)) {
        tracing::warn!(dataset = %intent.dataset, "undoing a restore of {} that was interrupted before the exchange", intent.live.display());
        return disk::remove(dir).context("remove the writable copy");
    }
    let why = "neither it nor the live path holds the restored copy";
    set_aside(part, dir, why.to_owned()).map(|_| ())
}
