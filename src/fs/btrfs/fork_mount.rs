//! Shows a fork to people: read-only mounts of its datasets side by side, on a small tmpfs over a directory of theirs.
//!
//! Promise: nothing is written to any disk, so that unmounting, or the next boot, leaves the directory as empty as it was.
//! Set-uid files and devices of old data do nothing here, and only root enters. A crash while mounting leaves the tmpfs with some of
//! the datasets, which `unmount` takes down.
//!
//! It deliberately does not know where forks lie.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use anyhow::Context;
use rustix::fs::CWD;
use rustix::mount::{MountAttrFlags, MountFlags, MoveMountFlags, UnmountFlags};

use super::catalogue::Catalogue;
use super::forks::{self, Forked};
use super::{mountinfo, top};
use crate::error::{Code, Failure};
use crate::fs::Result;
use crate::logic::name::RoleName;
use crate::logic::point::PointName;

/// What the source of our tmpfs begins with, in the table of mounts.
const SOURCE: &str = "standin-fork:";

/// The source of the tmpfs of a fork.
pub fn source(role: &RoleName, fork: &PointName) -> String {
    format!("{SOURCE}{role}:{fork}")
}

/// See `Filesystem::mount_fork`.
pub fn mount(catalogue: &Catalogue<'_>, fork: &PointName, dir: &Path) -> Result<()> {
    let snapshots = forks::snapshots(catalogue, fork, None)?;
    let shown = dir.display();
    let refuse = |what: String, hint: String| -> Result<()> {
        let what = format!("mount a fork at {shown}: {what}");
        Err(Failure::new(Code::Usage, what).hint(hint).into())
    };
    let Ok(dir) = dir.canonicalize() else {
        return refuse("it does not exist".into(), format!("mkdir {shown}"));
    };
    let holds_something = std::fs::read_dir(&dir).map(|mut entries| entries.next().is_some());
    match holds_something {
        Err(error) => return refuse(error.to_string(), "name an empty directory".into()),
        Ok(true) => return refuse("it is not empty".into(), "name an empty directory".into()),
        Ok(false) => {}
    }
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    rustix::mount::mount(
        source(catalogue.role, fork).as_str(),
        &dir,
        "tmpfs",
        flags,
        Some(c"mode=0700,size=1m"),
    )
    .with_context(|| format!("mount a tmpfs at {shown}"))?;
    let mounted = snapshots
        .iter()
        .try_for_each(|snapshot| show(snapshot, &dir))
        .and_then(|()| {
            let flags = flags | MountFlags::RDONLY;
            rustix::mount::mount_remount(&dir, flags, c"mode=0700,size=1m")
                .context("make the tmpfs read-only")
        });
    if mounted.is_err() {
        let detached = rustix::mount::unmount(&dir, UnmountFlags::DETACH);
        detached.with_context(|| format!("take down what was mounted at {shown}"))?;
    }
    mounted
}

fn show(snapshot: &Forked<'_>, dir: &Path) -> Result<()> {
    let target = dir.join(&snapshot.dataset);
    std::fs::create_dir(&target).with_context(|| format!("create {}", target.display()))?;
    let mut subvol = OsString::from("/");
    subvol.push(snapshot.part.relative(&snapshot.path));
    let attributes = MountAttrFlags::MOUNT_ATTR_RDONLY
        | MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NODEV
        | MountAttrFlags::MOUNT_ATTR_NOATIME;
    let device = &snapshot.part.top.device;
    let mount = top::make_mount(device, ("subvol", &subvol), false, attributes)
        .with_context(|| format!("mount the snapshot of {}", snapshot.dataset))?;
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    rustix::mount::move_mount(&mount, "", CWD, &target, flags)
        .with_context(|| format!("attach the mount at {}", target.display()))
}

/// Where the fork is shown.
pub fn mounted(role: &RoleName, fork: &PointName) -> Result<Vec<PathBuf>> {
    let wanted = PathBuf::from(source(role, fork));
    let mounts = mountinfo::read()?.into_iter();
    let ours = mounts.filter(|mount| mount.kind == "tmpfs" && mount.source == wanted);
    Ok(ours.map(|mount| mount.point).collect())
}

/// Takes down what `mount_fork` put over `dir`, whichever role's fork it is.
pub fn unmount(dir: &Path) -> Result<()> {
    let shown = dir.display();
    let refuse = |what: String, hint: String| -> Result<()> {
        let what = format!("unmount {shown}: {what}");
        Err(Failure::new(Code::Refused, what).hint(hint).into())
    };
    let dir = dir.canonicalize().unwrap_or_else(|_| dir.to_owned());
    let mounts = mountinfo::read()?;
    let here = mounts.iter().rev().find(|mount| mount.point == dir);
    let ours = here.is_some_and(|mount| {
        mount.kind == "tmpfs" && mount.source.to_string_lossy().starts_with(SOURCE)
    });
    if !ours {
        let hint = "standin fork list names the directories at which forks are mounted";
        return refuse("no fork is mounted there".into(), hint.into());
    }
    let mut points: Vec<&PathBuf> = mountinfo::below(&mounts, &dir).map(|m| &m.point).collect();
    if let Some(deeper) = points.iter().find(|point| point.parent() != Some(&dir)) {
        let what = format!("something is mounted inside it, at {}", deeper.display());
        return refuse(what, format!("umount {} first", deeper.display()));
    }
    points.push(&dir);
    for point in points {
        match rustix::mount::unmount(point, UnmountFlags::NOFOLLOW) {
            Err(rustix::io::Errno::BUSY) => {
                let hint = format!("fuser -vm {} names the processes", point.display());
                return refuse("somebody uses it".into(), hint);
            }
            done => done.with_context(|| format!("unmount {}", point.display()))?,
        }
    }
    Ok(())
}
