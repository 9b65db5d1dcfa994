//! Takes the live copy from its path, with nothing in its place: this node stands in from now on.
//!
//!     .staging/<role>/.restore-<dataset>/intent.json   what is about to happen, on disk before it does
//!         |  the live path is unmounted, where it is a mount of its own
//!         |  the subvolume is renamed away, inside the one mount of the top level
//!     .restore-<dataset>/tree                          what was live
//!         |  see `settle`
//!     gone, or a point, or in .standin/.aside
//!
//! Promise: nothing is taken away that could not be found again: a path whose mount nobody would know how to make again is
//! refused, and so is one that is in use; no mount is detached lazily. A crash leaves the directory above; `recover`, at the next start,
//! undoes what had changed nothing and finishes the rest.
//!
//! It deliberately does not know whether anybody still writes: fencing comes before.

use std::path::Path;

use anyhow::Context;
use rustix::mount::UnmountFlags;
use uuid::Uuid;

use super::catalogue::Catalogue;
use super::freeze::freeze;
use super::layout::Part;
use super::place::{Occupant, Place};
use super::restore::{alone, mark_of, refuse_what_cannot_move};
use super::settle::{INTENT, Intent, TREE, set_aside, settle};
use super::{disk, ioctl, reboot, subvolume, users};
use crate::error::{Code, Failure};
use crate::fs::{Restored, Result};
use crate::logic::manifest::{Manifest, Stored};
use crate::logic::name::DatasetName;

/// See `Filesystem::retire_live`.
pub fn retire_live(
    catalogue: &Catalogue<'_>,
    dataset: &DatasetName,
    kept: Option<&Stored>,
    keep: Manifest,
) -> Result<Restored> {
    let (part, place) = catalogue.place(dataset)?;
    let (dir, _alone) = alone(catalogue, part, dataset)?;
    let place = &place.now();
    if matches!(place.occupant, Occupant::Nothing | Occupant::EmptyDirectory) {
        return Ok(Restored::at(dataset, &place.live, Uuid::nil()));
    }
    let old = ioctl::subvolume(place.open_live()?)
        .with_context(|| format!("look at {}", place.live.display()))?
        .uuid;
    if place.is_mount {
        reboot::refuse_to_lose(place)?;
    }
    refuse_what_cannot_move(place)?;
    let intent = Intent {
        dataset: dataset.clone(),
        live: place.live.clone(),
        relative: place.relative.clone(),
        new: None,
        old: Some(old),
        was_mount: place.is_mount,
        kept: mark_of(catalogue, dataset, kept)?,
        keep,
        late_writes: None,
    };
    disk::make_dir(&dir)?;
    disk::write_json(&dir.join(INTENT), &intent)?;
    part.top.sync()?;
    freeze("retire-intended");
    if let Err(busy) = unmount(place, old) {
        disk::remove(&dir).context("remove what was prepared")?;
        return Err(busy);
    }
    freeze("retire-unmounted");
    take_away(part, &dir, &intent)?;
    freeze("retire-moved");
    settle(catalogue, part, &dir, intent)
}

/// Undoes or finishes one that was interrupted. The caller has `dir` alone.
pub fn recover(catalogue: &Catalogue<'_>, part: &Part, dir: &Path, intent: Intent) -> Result<()> {
    let is_old =
        |path: &Path| subvolume::info(path).is_ok_and(|info| Some(info.uuid) == intent.old);
    let shown = intent.live.display();
    if is_old(&part.top.path().join(&intent.relative)) {
        // Unmounted by us, or by a reboot: who put it away goes on, for nobody else may find where it belongs.
        if intent.was_mount && !is_old(&intent.live) {
            tracing::warn!(dataset = %intent.dataset, "finishing to take the live copy from {shown}, which was unmounted for that");
            take_away(part, dir, &intent)?;
            return settle(catalogue, part, dir, intent).map(|_| ());
        }
        tracing::warn!(dataset = %intent.dataset, "the live copy was to be taken from {shown}; it was left there by an interruption");
        return disk::remove(dir).context("remove what was prepared");
    }
    let tree = dir.join(TREE);
    if is_old(&tree) || tree.symlink_metadata().is_err() {
        tracing::warn!(dataset = %intent.dataset, "finishing to take the live copy from {shown}");
        return settle(catalogue, part, dir, intent).map(|_| ());
    }
    let why = "it is not the live copy that was to be taken away";
    set_aside(part, dir, why.to_owned()).map(|_| ())
}

fn take_away(part: &Part, dir: &Path, intent: &Intent) -> Result<()> {
    let tree = dir.join(TREE);
    part.top
        .move_to(&intent.relative, part.relative(&tree))
        .with_context(|| format!("take the live copy from {}", intent.live.display()))?;
    part.top.sync()
}

/// Unmounts the subvolume `old` from its live path, however often it is mounted there.
fn unmount(place: &Place, old: Uuid) -> Result<()> {
    let shown = place.live.display();
    let is_old = || subvolume::info(&place.live).is_ok_and(|info| info.uuid == old);
    while place.is_mount && is_old() {
        match rustix::mount::unmount(&place.live, UnmountFlags::NOFOLLOW) {
            Ok(()) => {}
            Err(rustix::io::Errno::BUSY) => {
                let users = users::of(&place.live);
                let what = format!("{shown} cannot be unmounted: it is in use{users}");
                return Err(Failure::new(Code::Refused, what)
                    .hint(format!(
                        "stop what uses it (fuser -vm {shown} lists it too), and try again; nothing was changed"
                    ))
                    .into());
            }
            Err(e) => return Err(e).with_context(|| format!("unmount {shown}")),
        }
    }
    Ok(())
}
