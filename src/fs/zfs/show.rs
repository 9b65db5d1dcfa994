//! Lets snapshots be read: at a private path for this process and its children, or mounted where people look (views, forks).
//! And throw-away clones for drills.
//!
//! A snapshot is mounted by itself (`pool/ds@snap` is a source of mount(2)), never through the automounts below `.zfs`. The kernel
//! destroys no snapshot that is mounted.
//!
//! Promise: nothing but our own mounts is ever unmounted or covered: they are known by their source. Private mounts go with who
//! reads, at the latest with the process, so that a person can destroy what nobody reads; a reboot leaves none. It deliberately does not know points' history.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, Weak};

use anyhow::Context;
use rustix::fs::CWD;
use rustix::mount::{MountAttrFlags, MountFlags, MoveMountFlags, UnmountFlags};

use super::command::zfs;
use super::core::{Core, Scene};
use super::family::{Family, Snapshot};
use super::forks;
use super::store::{self, STANDIN};
use crate::error::{Code, Failure};
use crate::fs::btrfs::freeze::freeze;
use crate::fs::btrfs::{fork_mount, mountinfo};
use crate::fs::{FsError, Opening, Readable, Result, View};
use crate::logic::name::DatasetName;
use crate::logic::point::{PointId, PointName};

/// Of everything that is not live: neither set-user-ID bits nor devices count there.
fn inert() -> MountAttrFlags {
    MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NODEV
        | MountAttrFlags::MOUNT_ATTR_NOATIME
}

/// A snapshot mounted for as long as this lives.
#[derive(Debug)]
pub struct Shown {
    dir: File,
    _mount: OwnedFd,
}

impl Shown {
    pub fn open(snapshot: &str) -> Result<Shown> {
        let attributes = inert() | MountAttrFlags::MOUNT_ATTR_RDONLY;
        let mount = store::mount(snapshot, true, attributes)
            .with_context(|| format!("mount {snapshot}"))?;
        let dir = store::open_root(&mount).with_context(|| format!("open {snapshot}"))?;
        Ok(Shown { dir, _mount: mount })
    }

    /// The descriptor itself is a symbolic link: a program that follows none is led into it by the dot.
    pub fn path(&self) -> PathBuf {
        store::fd_path(&self.dir).join(".")
    }
}

/// A path by which a snapshot can be read for as long as somebody has it. Those who read at once have one mount.
pub fn readable(core: &Core, snapshot: &Snapshot) -> Result<Readable> {
    let mut read = core.read.lock().unwrap_or_else(PoisonError::into_inner);
    let known = read.get(&snapshot.guid).and_then(Weak::upgrade);
    let shown = match known {
        Some(known) => known,
        None => {
            read.retain(|_, shown| shown.strong_count() > 0);
            let new = Arc::new(Shown::open(&snapshot.name())?);
            read.insert(snapshot.guid, Arc::downgrade(&new));
            new
        }
    };
    Ok(Readable::guarded(shown.path(), shown))
}

/// See `Filesystem::snapshot_paths`. Each is mounted when its turn comes: a thousand at once would be more than a process may open.
pub fn openings<'a>(
    core: &'a Core,
    dataset: &DatasetName,
) -> Result<Vec<(PointName, Opening<'a>)>> {
    let scene = core.look()?;
    let mut openings: Vec<(PointName, Opening<'a>)> = Vec::new();
    for found in scene.list()? {
        let Some(local) = found.local.datasets.get(dataset) else {
            continue;
        };
        let snapshot = scene.snapshot(dataset, local.uuid)?.clone();
        let open = move || readable(core, &snapshot);
        openings.push((found.manifest.name(), Box::new(open)));
    }
    Ok(openings)
}

/// A snapshot of the dataset that this process reads now.
pub fn being_read<'a>(core: &Core, family: &'a Family) -> Option<&'a Snapshot> {
    let read = core.read.lock().unwrap_or_else(PoisonError::into_inner);
    let is_read = |guid| read.get(guid).is_some_and(|it| it.strong_count() > 0);
    family.snapshots.iter().find(|known| is_read(&known.guid))
}

/// Whether somebody can see a snapshot of the point at a path.
pub fn is_shown(scene: &Scene<'_>, name: &PointName) -> Result<bool> {
    let Ok(Some(stored)) = scene.read(name) else {
        return Ok(false);
    };
    let mounts = mountinfo::read()?;
    for (dataset, local) in &stored.local.datasets {
        let snapshot = PathBuf::from(scene.snapshot(dataset, local.uuid)?.name());
        if mounts
            .iter()
            .any(|mount| mount.kind == "zfs" && mount.source == snapshot)
        {
            return Ok(true);
        }
    }
    Ok(false)
}

/// See `Filesystem::view`.
pub fn view(core: &Core, dataset: &DatasetName, view: View<'_>, at: &Path) -> Result<()> {
    let _turn = core.turn();
    let scene = core.look()?;
    let place = core.place(dataset)?;
    let at = &settled(at)?;
    let _held;
    let wanted = match view {
        View::Nothing => None,
        View::Live => {
            super::take::expect_live(&scene, dataset)?;
            Some(place.zfs.clone())
        }
        View::Point(id) => {
            let found = scene.find(id)?;
            _held = core.share(&found.manifest.name().to_string())?;
            let local = found.local.datasets.get(dataset);
            let local = local
                .ok_or_else(|| FsError::Missing(format!("dataset {dataset} in point {id}")))?;
            Some(scene.snapshot(dataset, local.uuid)?.name())
        }
    };
    let mut shown = mountinfo::read()?;
    shown.retain(|mount| mount.point == *at);
    let room = format!("/{STANDIN}/{}/{dataset}/", core.role);
    let is_ours = |mount: &&mountinfo::Mount| {
        let source = mount.source.to_string_lossy();
        mount.kind == "zfs"
            && mount.options.iter().any(|word| word == "ro")
            && (source.contains(&room) || source.split('@').next() == Some(&place.zfs))
    };
    if let Some(other) = shown.iter().find(|mount| !is_ours(mount)) {
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
    for _ in usize::from(wanted.is_some())..shown.len() {
        detach(at)?;
    }
    let Some(wanted) = wanted else { return Ok(()) };
    if shown
        .first()
        .is_some_and(|mount| mount.source == Path::new(&wanted))
    {
        return Ok(());
    }
    if shown.is_empty() {
        expect_good_place(core, at)?;
    }
    let attributes = inert() | MountAttrFlags::MOUNT_ATTR_RDONLY;
    let new = store::mount(&wanted, wanted.contains('@'), attributes)
        .with_context(|| format!("mount {wanted}"))?;
    put(&new, at, !shown.is_empty()).with_context(|| format!("show it at {}", at.display()))
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
    let known = parent
        .ancestors()
        .find_map(|dir| Some((dir, dir.canonicalize().ok()?)));
    let (dir, real) = known.with_context(|| format!("look for {}", parent.display()))?;
    let missing = parent.strip_prefix(dir).unwrap_or(Path::new(""));
    Ok(real.join(missing).join(name))
}

fn refused(at: &Path, why: &str) -> anyhow::Error {
    Failure::new(Code::Usage, format!("{} {why}", at.display()))
        .hint("a view needs a path that is an empty directory, or nothing yet, outside of all datasets")
        .into()
}

fn expect_good_place(core: &Core, at: &Path) -> Result<()> {
    for (dataset, place) in &core.places {
        if at.starts_with(&place.path) {
            return Err(refused(at, &format!("lies in the dataset {dataset}")));
        }
        if place.path.starts_with(at) {
            return Err(refused(at, &format!("would hide the dataset {dataset}")));
        }
    }
    std::fs::create_dir_all(at).with_context(|| format!("create {}", at.display()))?;
    let mut entries = std::fs::read_dir(at).with_context(|| format!("list {}", at.display()))?;
    match entries.next() {
        None => Ok(()),
        Some(_) => Err(refused(at, "is not empty")),
    }
}

/// Puts a detached mount at a path; with `over`, in place of the one there, at once where the kernel can (Linux 6.5).
fn put(new: &OwnedFd, at: &Path, over: bool) -> Result<()> {
    if over {
        if attach(new, at, MoveMountFlags::MOVE_MOUNT_BENEATH).is_ok() {
            return detach(at);
        }
        detach(at)?;
    }
    attach(new, at, MoveMountFlags::empty()).context("attach the new mount")
}

fn attach(new: &OwnedFd, at: &Path, flags: MoveMountFlags) -> io::Result<()> {
    let flags = flags | MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    Ok(rustix::mount::move_mount(new.as_fd(), "", CWD, at, flags)?)
}

fn detach(at: &Path) -> Result<()> {
    rustix::mount::unmount(at, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW)
        .with_context(|| format!("unmount {}", at.display()))
}

/// See `Filesystem::mount_fork`. The outer mount is the same as on btrfs, and so is unmounting.
pub fn mount_fork(core: &Core, fork: &PointName, dir: &Path) -> Result<()> {
    let scene = core.look()?;
    let stored = forks::stored(core, &scene.parts, fork, None)?;
    let _held = forks::share(core, fork)?;
    let shown = dir.display();
    let refuse = |what: String| -> Result<()> {
        let what = format!("mount a fork at {shown}: {what}");
        Err(Failure::new(Code::Usage, what)
            .hint("name an empty directory")
            .into())
    };
    let Ok(dir) = dir.canonicalize() else {
        return refuse("it does not exist".into());
    };
    match std::fs::read_dir(&dir).map(|mut entries| entries.next().is_some()) {
        Err(error) => return refuse(error.to_string()),
        Ok(true) => return refuse("it is not empty".into()),
        Ok(false) => {}
    }
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    let options = c"mode=0700,size=1m";
    let source = fork_mount::source(&core.role, fork);
    rustix::mount::mount(source.as_str(), &dir, "tmpfs", flags, Some(options))
        .with_context(|| format!("mount a tmpfs at {shown}"))?;
    let mounted = stored
        .local
        .datasets
        .iter()
        .try_for_each(|(dataset, local)| {
            let snapshot = scene.snapshot(dataset, local.uuid)?.name();
            let target = dir.join(dataset);
            std::fs::create_dir(&target).with_context(|| format!("create {}", target.display()))?;
            let attributes = inert() | MountAttrFlags::MOUNT_ATTR_RDONLY;
            let mount = store::mount(&snapshot, true, attributes)
                .with_context(|| format!("mount {snapshot}"))?;
            put(&mount, &target, false)
        })
        .and_then(|()| {
            rustix::mount::mount_remount(&dir, flags | MountFlags::RDONLY, options)
                .context("make the tmpfs read-only")
        });
    if mounted.is_err() {
        let detached = rustix::mount::unmount(&dir, UnmountFlags::DETACH);
        detached.with_context(|| format!("take down what was mounted at {shown}"))?;
    }
    mounted
}

pub fn fork_mounts(core: &Core, fork: &PointName) -> Result<Vec<PathBuf>> {
    fork_mount::mounted(&core.role, fork)
}

/// See `Filesystem::drill`.
pub fn drill(core: &Core, point: &PointId, at: &Path) -> Result<()> {
    end_drill(core)?;
    let _turn = core.turn();
    let scene = core.look()?;
    let found = scene.find(point)?;
    let _held = core.share(&found.manifest.name().to_string())?;
    let mut copies = Vec::new();
    for (dataset, local) in &found.local.datasets {
        let source = scene.snapshot(dataset, local.uuid)?.name();
        let copy = scene
            .part(dataset)?
            .store
            .new_holder(&core.role, dataset, "drill")?;
        zfs(&[
            "clone",
            "-o",
            "canmount=noauto",
            "-o",
            "mountpoint=none",
            "-o",
            "readonly=off",
            &source,
            &copy,
        ])
        .with_context(|| format!("make a writable copy of {dataset}"))?;
        copies.push((dataset, copy));
    }
    freeze("drill-copied");
    for (dataset, copy) in copies {
        let at = at.join(dataset);
        std::fs::create_dir_all(&at).with_context(|| format!("create {}", at.display()))?;
        let mount = store::mount(&copy, false, inert())
            .with_context(|| format!("mount the copy of {dataset}"))?;
        put(&mount, &at, false)
            .with_context(|| format!("show the copy of {dataset} at {}", at.display()))?;
    }
    Ok(())
}

/// Mounts of copies for drills, with their datasets, the latest first.
fn drills(core: &Core) -> Result<Vec<(String, PathBuf)>> {
    let rooms: Vec<String> = core
        .parts()?
        .iter()
        .flat_map(|part| {
            part.datasets
                .iter()
                .map(|name| format!("{}/drill-", part.store.room(&core.role, name)))
        })
        .collect();
    let mounts = mountinfo::read()?.into_iter().rev();
    let ours = mounts.filter_map(|mount| {
        let source = mount.source.to_str()?.to_owned();
        let is_ours = mount.kind == "zfs" && rooms.iter().any(|room| source.starts_with(room));
        is_ours.then_some((source, mount.point))
    });
    Ok(ours.collect())
}

pub fn drill_mounts(core: &Core) -> Result<Vec<PathBuf>> {
    Ok(drills(core)?.into_iter().map(|(_, at)| at).collect())
}

/// See `Filesystem::end_drill`. A copy that somebody still has open goes with the next sweep.
pub fn end_drill(core: &Core) -> Result<bool> {
    let _turn = core.turn();
    let mut any = false;
    for (_, at) in drills(core)? {
        any = true;
        detach(&at)?;
        // Empty directories: who comes next makes them again, or uses them.
        for dir in at.ancestors().take(2) {
            let _ = std::fs::remove_dir(dir);
        }
    }
    let scene = core.look()?;
    for part in &scene.parts {
        for dataset in &part.datasets {
            let room = format!("{}/drill-", part.store.room(&core.role, dataset));
            let copies = scene.family(dataset)?.trees.iter().map(|tree| &tree.name);
            for copy in copies.filter(|name| name.starts_with(&room)) {
                any = true;
                remove_copy(part, core, dataset, copy)?;
            }
        }
    }
    Ok(any)
}

fn remove_copy(
    part: &super::core::Part,
    core: &Core,
    dataset: &DatasetName,
    copy: &str,
) -> Result<()> {
    if zfs(&["destroy", copy]).is_ok() {
        return Ok(());
    }
    let spent = part.store.new_holder(&core.role, dataset, "new")?;
    zfs(&["rename", "-u", copy, &spent]).with_context(|| format!("put {copy} away"))?;
    Ok(())
}
