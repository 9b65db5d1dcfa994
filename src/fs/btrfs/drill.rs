//! A throw-away copy of a point, for a drill: writable snapshots in a room of our own, each mounted at a path where everybody
//! finds it.
//!
//! They are mounted because the room itself is for root alone, and services of a drill run as whom they like; and because the
//! datasets of a role may lie on several filesystems, while a drill wants them side by side. Set-uid files and devices do
//! nothing there.
//!
//! Promise: live data and points are not touched, and a point is held only until its copies are made. A crash leaves copies
//! and mounts; both are known by where they lie, so that `end` finds them whoever made them. Those of a reboot are copies
//! alone.
//!
//! It deliberately does not know what happens in the copy.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::Context;
use rustix::mount::MountAttrFlags;

use super::catalogue::Catalogue;
use super::copyout::still_whole;
use super::freeze::freeze;
use super::layout::Part;
use super::subvolume::{self, Access};
use super::{disk, mountinfo, remount, send, top};
use crate::fs::Result;
use crate::logic::name::DatasetName;
use crate::logic::point::PointId;

/// See `Filesystem::drill`.
pub fn make(catalogue: &Catalogue<'_>, point: &PointId, at: &Path) -> Result<()> {
    end(catalogue)?;
    let found = catalogue.find(point)?;
    let mut copies = Vec::new();
    for part in &catalogue.parts {
        for place in &part.places {
            let dataset = &place.dataset;
            if !found.stored.manifest.datasets.contains_key(dataset) {
                continue;
            }
            let _held = send::hold(catalogue, &found, dataset)?;
            disk::make_dir(&part.drill())?;
            let target = part.drill().join(dataset);
            let source = catalogue.snapshot_path(&found, dataset)?;
            subvolume::snapshot(&source, &target, Access::Writable)
                .with_context(|| format!("make a writable copy of {dataset}"))?;
            copies.push((part, dataset, target));
        }
    }
    still_whole(catalogue, point)?;
    freeze("drill-copied");
    for (part, dataset, copy) in copies {
        show(part, dataset, &copy, at)?;
    }
    freeze("drill-shown");
    Ok(())
}

fn show(part: &Part, dataset: &DatasetName, copy: &Path, at: &Path) -> Result<()> {
    let at = at.join(dataset);
    // Whoever may read the data may go there: its own modes decide, as at the live path.
    std::fs::create_dir_all(&at).with_context(|| format!("create {}", at.display()))?;
    let uuid = subvolume::info(copy).context("look at the copy")?.uuid;
    let mut subvol = OsString::from("/");
    subvol.push(part.relative(copy));
    let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NODEV
        | MountAttrFlags::MOUNT_ATTR_NOATIME;
    let read_only = part.top.is_read_only();
    let new = top::make_mount(&part.top.device, ("subvol", &subvol), read_only, attributes)
        .with_context(|| format!("mount the copy of {dataset}"))?;
    remount::put(&new, uuid, &at, false)
        .with_context(|| format!("show the copy of {dataset} at {}", at.display()))
}

/// See `Filesystem::drill_mounts`. The latest first.
pub fn mounts(catalogue: &Catalogue<'_>) -> Result<Vec<PathBuf>> {
    let mut mounts = mountinfo::read()?;
    mounts.retain(|mount| mount.kind == "btrfs");
    // What cannot be looked at is not ours.
    let ours = |part: &&Part, mount: &mountinfo::Mount| {
        let room = Path::new("/").join(part.relative(&part.drill()));
        mount.root.starts_with(room) && part.is_seen_at(&mount.point).unwrap_or(false)
    };
    let found = mounts.into_iter().rev();
    let found = found.filter(|mount| catalogue.parts.iter().any(|part| ours(&part, mount)));
    Ok(found.map(|mount| mount.point).collect())
}

/// See `Filesystem::end_drill`.
pub fn end(catalogue: &Catalogue<'_>) -> Result<bool> {
    let mut any = false;
    for at in mounts(catalogue)? {
        any = true;
        remount::detach(&at)?;
        // Empty directories: who comes next makes them again, or uses them.
        for dir in at.ancestors().take(2) {
            let _ = std::fs::remove_dir(dir);
        }
    }
    freeze("drill-unmounted");
    for part in &catalogue.parts {
        let room = part.drill();
        if room.symlink_metadata().is_err() {
            continue;
        }
        any = true;
        remove(&room).with_context(|| format!("remove {}", room.display()))?;
    }
    Ok(any)
}

/// Services may have made subvolumes of their own in a copy: innermost first.
fn remove(room: &Path) -> io::Result<()> {
    for entry in std::fs::read_dir(room)? {
        let copy = entry?.path();
        if subvolume::info(&copy).is_ok() {
            let mut nested = subvolume::nested(&copy)?;
            nested.sort_by_key(|path| std::cmp::Reverse(path.components().count()));
            for path in nested {
                subvolume::delete(&copy.join(path))?;
            }
        }
        disk::remove(&copy)?;
        freeze("drill-half-gone");
    }
    disk::remove(room)
}
