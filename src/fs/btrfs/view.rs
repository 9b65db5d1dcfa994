//! Shows a point, or the live data, read-only at a path of its own, and switches what is shown at once.
//!
//! A view is a mount of one subvolume. The next one is mounted beneath it and then uncovered (Linux 6.5), so that who opens
//! the path finds the old tree or the new one, never an empty directory; on an older kernel there is a moment without either.
//! Who has files of the old tree open keeps them.
//!
//! Promise: repeating it changes nothing. Nothing but a view is ever unmounted or covered: a view is known by being read-only
//! and showing one of our own subvolumes, so a restart finds it again. A crash in between leaves two mounts, one over the
//! other; the next call takes the upper one away. A reboot leaves none.
//!
//! It deliberately does not know when what is shown is out of date.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use anyhow::Context;
use rustix::mount::MountAttrFlags;

use super::catalogue::Catalogue;
use super::layout::{Part, STANDIN};
use super::mountinfo::{self, Mount};
use super::place::{self, Occupant, Place};
use super::{remount, send, subvolume, top};
use crate::error::{Code, Failure};
use crate::fs::{Result, View};
use crate::logic::name::DatasetName;

/// See `Filesystem::view`.
pub fn view(
    catalogue: &Catalogue<'_>,
    dataset: &DatasetName,
    view: View<'_>,
    at: &Path,
) -> Result<()> {
    let (part, place) = catalogue.place(dataset)?;
    let at = &settled(at)?;
    let _held;
    let wanted = match view {
        View::Nothing => None,
        View::Live => {
            place.open_live()?;
            Some(place.relative.clone())
        }
        View::Point(id) => {
            let found = catalogue.find(id)?;
            _held = send::hold(catalogue, &found, dataset)?;
            let path = catalogue.snapshot_path(&found, dataset)?;
            Some(part.relative(&path).to_owned())
        }
    };
    let shown = mounts_at(at)?;
    if let Some(other) = shown.iter().find(|mount| !is_view(mount, place)) {
        if wanted.is_none() {
            return Ok(());
        }
        let what = format!(
            "{} is a mount of something else ({})",
            at.display(),
            other.source.display()
        );
        return Err(Failure::new(Code::Usage, what)
            .hint("name an empty directory as the view's path, or unmount what is there")
            .into());
    }
    let keep = usize::from(wanted.is_some());
    for _ in keep..shown.len() {
        remount::detach(at)?;
    }
    match wanted {
        None => Ok(()),
        Some(relative) => {
            refuse_bad_place(catalogue, at, !shown.is_empty())?;
            switch(part, &relative, at, !shown.is_empty())
        }
    }
}

/// Where in the directories of a point something is mounted from it; none: nowhere.
pub fn shown_at(part: &Part, name: &str) -> Result<Option<PathBuf>> {
    let root = Path::new("/").join(part.relative(&part.points().join(name)));
    let mounts = mountinfo::read()?;
    let is_ours = |mount: &&Mount| {
        mount.kind == "btrfs"
            && mount.root.starts_with(&root)
            && part.is_seen_at(&mount.point).unwrap_or(true)
    };
    Ok(mounts.iter().find(is_ours).map(|mount| mount.point.clone()))
}

/// The path with symbolic links above it resolved: it is compared with the table of mounts.
fn settled(at: &Path) -> Result<PathBuf> {
    let (parent, name) = match (at.parent(), at.file_name()) {
        (Some(parent), Some(name)) if at.is_absolute() => (parent, name),
        _ => return Err(refused(at, "is not an absolute path of a directory")),
    };
    if at.symlink_metadata().is_ok_and(|found| found.is_symlink()) {
        return Err(refused(at, "is a symbolic link"));
    }
    let (existing, missing) =
        place::nearest(parent).with_context(|| format!("look for {}", parent.display()))?;
    Ok(place::join(existing, &missing).join(name))
}

fn refused(at: &Path, why: &str) -> anyhow::Error {
    Failure::new(Code::Usage, format!("{} {why}", at.display()))
        .hint("a view needs a path that is an empty directory, or nothing yet, outside of all datasets")
        .into()
}

/// Refuses a place in live data or over it, among our own files, or where something is.
fn refuse_bad_place(catalogue: &Catalogue<'_>, at: &Path, is_shown: bool) -> Result<()> {
    let parent = at.parent().unwrap_or(Path::new("/"));
    for part in &catalogue.parts {
        let relative = place::below(&part.top, parent)?;
        if relative
            .as_ref()
            .is_some_and(|path| path.starts_with(STANDIN))
        {
            return Err(refused(at, "is among the files of standin itself"));
        }
        for place in &part.places {
            let inside = |path: &PathBuf| {
                place.occupant == Occupant::Subvolume && path.starts_with(&place.relative)
            };
            if at.starts_with(&place.live) || relative.as_ref().is_some_and(inside) {
                let why = format!("lies in the dataset {}", place.dataset);
                return Err(refused(at, &why));
            }
            if place.live.starts_with(at) {
                let why = format!("would hide the dataset {}", place.dataset);
                return Err(refused(at, &why));
            }
        }
    }
    if is_shown {
        return Ok(());
    }
    std::fs::create_dir_all(at).with_context(|| format!("create {}", at.display()))?;
    let mut entries = std::fs::read_dir(at).with_context(|| format!("list {}", at.display()))?;
    match entries.next() {
        None => Ok(()),
        Some(_) => Err(refused(at, "is not empty")),
    }
}

fn switch(part: &Part, relative: &Path, at: &Path, is_shown: bool) -> Result<()> {
    let uuid = subvolume::info(&part.top.path().join(relative))
        .context("look at what is to be shown")?
        .uuid;
    if is_shown && subvolume::info(at).is_ok_and(|info| info.uuid == uuid) {
        return Ok(());
    }
    let mut subvol = OsString::from("/");
    subvol.push(relative);
    let attributes = MountAttrFlags::MOUNT_ATTR_RDONLY
        | MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NODEV
        | MountAttrFlags::MOUNT_ATTR_NOATIME;
    let new = top::make_mount(
        &part.top.device,
        ("subvol", &subvol),
        part.top.is_read_only(),
        attributes,
    )
    .with_context(|| format!("mount {}", Path::new(&subvol).display()))?;
    remount::put(&new, uuid, at, is_shown).with_context(|| format!("show it at {}", at.display()))
}

/// All mounts at the path, lowest first.
fn mounts_at(at: &Path) -> Result<Vec<Mount>> {
    let mut mounts = mountinfo::read()?;
    mounts.retain(|mount| mount.point == at);
    Ok(mounts)
}

/// Whether the mount, found at the path of a view, is one.
fn is_view(mount: &Mount, place: &Place) -> bool {
    let root = mount.root.to_string_lossy();
    // A subvolume that was deleted while it was shown: mountinfo marks it so.
    let root = Path::new(root.strip_suffix("//deleted").unwrap_or(&root));
    let root = root.strip_prefix("/").unwrap_or(root);
    mount.kind == "btrfs"
        && mount.options.iter().any(|word| word == "ro")
        && (root.starts_with(STANDIN) || root == place.relative)
}
