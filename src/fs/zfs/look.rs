//! Datasets that somebody reads for a while: snapshots of points and forks, throw-away snapshots of live data, and the trees in
//! which people browse (see `fs::browse`).
//!
//! A snapshot of live data is `pool/ds@standin-look-<unique>`, which is no point: it is neither listed, nor sent, nor a base.
//!
//! Promise: what is held is not destroyed by this process; what is shown in a tree holds nothing up, since it is taken away from
//! there first. A throw-away snapshot goes when its guard does; a crash leaves it there until `sweep`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;
use rustix::fs::CWD;
use rustix::mount::{MountAttrFlags, MoveMountFlags, UnmountFlags};

use super::command::zfs;
use super::core::{Core, Scene};
use super::family::Snapshot;
use super::show::Shown;
use super::{forks, store, take};
use crate::fs::browse::{Branch, Browsed, FORKS, bring, showing};
use crate::fs::btrfs::freeze::freeze;
use crate::fs::btrfs::mountinfo;
use crate::fs::btrfs::uses::{Use, Used};
use crate::fs::{FsError, Held, Kept, Result};
use crate::logic::name::DatasetName;
use crate::logic::point::PointName;

/// What follows the `@` of a throw-away snapshot begins so.
const LOOK: &str = "standin-look-";

/// Most snapshots of a role in one tree: each is a mount, which every reader of the table of mounts has to read.
const MOUNTS_MAX: usize = 2_000;

/// See `Filesystem::hold`.
pub fn hold(core: &Core, dataset: &DatasetName, held: &Held) -> Result<Kept> {
    let scene = core.look()?;
    let (name, held_by) = snapshot(&scene, dataset, held)?;
    let shown = Shown::open(&name)?;
    Ok(Kept::new(held.clone(), shown.path(), (shown, held_by)))
}

/// The name of a snapshot, and what keeps it.
pub fn snapshot(scene: &Scene<'_>, dataset: &DatasetName, held: &Held) -> Result<(String, Use)> {
    let core = scene.core;
    Ok(match held {
        Held::Point(id) => {
            let found = scene.find(id)?;
            let held = core.share(&found.manifest.name().to_string())?;
            let missing = || FsError::Missing(format!("dataset {dataset} in point {id}"));
            let local = found.local.datasets.get(dataset).ok_or_else(missing)?;
            (scene.snapshot(dataset, local.uuid)?.name(), held)
        }
        Held::Forked(fork, id) => {
            let held = forks::share(core, fork)?;
            (
                forks::snapshot(scene, fork, dataset, Some(id))?.name(),
                held,
            )
        }
        Held::Copy(name) => {
            let live = &core.place(dataset)?.zfs;
            (format!("{live}@{LOOK}{name}"), share(core, name)?)
        }
    })
}

/// See `Filesystem::hold_live`.
pub fn hold_live(core: &Arc<Core>, dataset: &DatasetName) -> Result<Kept> {
    let _turn = core.turn();
    let live = take::expect_live(&core.look()?, dataset)?.name.clone();
    let name = uuid::Uuid::new_v4().simple().to_string();
    let held = share(core, &name)?;
    let copy = Copy {
        snapshot: format!("{live}@{LOOK}{name}"),
        _held: held,
    };
    zfs(&["snapshot", &copy.snapshot]).with_context(|| format!("look at the live {live}"))?;
    freeze("look-copied");
    let shown = Shown::open(&copy.snapshot)?;
    // What is mounted cannot be destroyed: the mount goes first.
    Ok(Kept::new(Held::Copy(name), shown.path(), (shown, copy)))
}

fn share(core: &Core, name: &str) -> Result<Use> {
    let used = Used::Copy(core.role.clone(), name.to_owned());
    let held = core.uses.share(used);
    held.ok_or_else(|| FsError::Busy(format!("the copy {name} of live data")).into())
}

/// A throw-away snapshot, destroyed when this is dropped.
struct Copy {
    snapshot: String,
    _held: Use,
}

impl Drop for Copy {
    fn drop(&mut self) {
        if let Err(error) = zfs(&["destroy", &self.snapshot]) {
            tracing::debug!("{} stays until the next sweep: {error:#}", self.snapshot);
        }
    }
}

/// Takes away throw-away snapshots that nobody uses: of a daemon that was killed.
pub fn sweep(scene: &Scene<'_>) -> Result<()> {
    let core = scene.core;
    for (dataset, place) in &core.places {
        for snapshot in scene.family(dataset)?.of(&place.zfs) {
            let Some(name) = snapshot.short.strip_prefix(LOOK) else {
                continue;
            };
            let used = Used::Copy(core.role.clone(), name.to_owned());
            if core.uses.alone(used).is_some() {
                zfs(&["destroy", &snapshot.name()])?;
            }
        }
    }
    Ok(())
}

/// See `Filesystem::browse`.
pub fn browse(core: &Core, tree: &Path) -> Result<Browsed> {
    let scene = core.look()?;
    let mut wanted: BTreeMap<PathBuf, Branch<String>> = BTreeMap::new();
    let mut browsed = Browsed::default();
    for fork in forks::list(core, &scene.parts)? {
        let dir = Path::new(FORKS).join(fork.name.to_string());
        for dataset in forks::datasets(core, &fork.name)? {
            let snapshot = forks::snapshot(&scene, &fork.name, &dataset, None)?;
            wanted.insert(dir.join(&dataset), branch(snapshot));
        }
        browsed.shown += 1;
    }
    for found in scene.list()?.iter().rev() {
        let datasets = &found.local.datasets;
        if wanted.len() + datasets.len() > MOUNTS_MAX {
            browsed.left_out += 1;
            continue;
        }
        let dir = PathBuf::from(found.manifest.name().to_string());
        for (dataset, local) in datasets {
            let snapshot = scene.snapshot(dataset, local.uuid)?;
            wanted.insert(dir.join(dataset), branch(snapshot));
        }
        browsed.shown += 1;
    }
    let mut mount = |branch: &Branch<String>, at: &Path| show(&branch.from, at);
    bring(tree, core.role.as_str(), &wanted, &mut mount)?;
    Ok(browsed)
}

fn branch(snapshot: &Snapshot) -> Branch<String> {
    Branch {
        root: PathBuf::from("/"),
        source: Some(PathBuf::from(snapshot.name())),
        from: snapshot.name(),
    }
}

fn show(snapshot: &str, at: &Path) -> Result<()> {
    let attributes = MountAttrFlags::MOUNT_ATTR_RDONLY
        | MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NODEV
        | MountAttrFlags::MOUNT_ATTR_NOEXEC
        | MountAttrFlags::MOUNT_ATTR_NOATIME;
    let mount =
        store::mount(snapshot, true, attributes).with_context(|| format!("mount {snapshot}"))?;
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    rustix::mount::move_mount(&mount, "", CWD, at, flags)
        .with_context(|| format!("attach the mount at {}", at.display()))
}

/// Takes those of a point away from all trees, before it is destroyed.
pub fn take_point_away(scene: &Scene<'_>, name: &PointName) -> Result<()> {
    let Ok(Some(stored)) = scene.read(name) else {
        return Ok(());
    };
    for (dataset, local) in &stored.local.datasets {
        take_away(scene.snapshot(dataset, local.uuid)?)?;
    }
    Ok(())
}

/// Takes a snapshot away from all trees, before it is destroyed.
pub fn take_away(snapshot: &Snapshot) -> Result<()> {
    let source = PathBuf::from(snapshot.name());
    let mounts = mountinfo::read()?;
    let is_it = |mount: &mountinfo::Mount| mount.kind == "zfs" && mount.source == source;
    for at in showing(&mounts, is_it) {
        rustix::mount::unmount(&at, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW)
            .with_context(|| format!("unmount {}", at.display()))?;
    }
    Ok(())
}
