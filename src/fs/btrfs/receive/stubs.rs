//! Takes the empty directories away that stand for nested subvolumes in a snapshot taken here.
//!
//! The copy of such a snapshot on another node has nothing at these places, so what comes back on top of it may put a file
//! there, or remove the directory around it. A base is first made what its copies are.
//!
//! Promise: only what is such a directory is removed, nothing outside the tree is touched, and what is not there is no error.
//! It deliberately does not know where the paths come from, nor trusts them.

use std::fs::File;
use std::path::{Component, Path};

use anyhow::Context;
use rustix::fs::{AtFlags, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use crate::fs::Result;

/// BTRFS_EMPTY_SUBVOL_DIR_OBJECTID (linux/btrfs_tree.h): the inode number of every such directory.
const STUB_INODE: u64 = 2;

/// Removes those of `paths` from the writable subvolume `tree`.
pub(super) fn remove(tree: &Path, paths: &[String]) -> Result<()> {
    if paths.is_empty() {
        return Ok(());
    }
    let top = File::open(tree).with_context(|| format!("open {}", tree.display()))?;
    for path in paths {
        remove_one(&top, Path::new(path)).with_context(|| {
            format!("remove the empty directory of a nested subvolume, {path:?}")
        })?;
    }
    Ok(())
}

fn remove_one(top: &File, path: &Path) -> Result<()> {
    let plain = |part: Component<'_>| matches!(part, Component::Normal(_));
    let (Some(name), true) = (path.file_name(), path.components().all(plain)) else {
        return Ok(());
    };
    let parent = path
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty());
    let confined = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let parent = parent.unwrap_or(Path::new("."));
    let dir = match rustix::fs::openat2(top, parent, flags, Mode::empty(), confined) {
        Ok(dir) => dir,
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::XDEV) => return Ok(()),
        Err(e) => return Err(e.into()),
    };
    match rustix::fs::statat(&dir, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(found) if found.st_ino == STUB_INODE => {}
        Ok(_) | Err(Errno::NOENT) => return Ok(()),
        Err(e) => return Err(e.into()),
    }
    let before = rustix::fs::fstat(&dir)?;
    rustix::fs::unlinkat(&dir, name, AtFlags::REMOVEDIR)?;
    // The directory around it is as it was in the copies: the stream says nothing of it.
    let times = rustix::fs::Timestamps {
        last_access: time(before.st_atime, before.st_atime_nsec),
        last_modification: time(before.st_mtime, before.st_mtime_nsec),
    };
    rustix::fs::utimensat(&dir, "", &times, AtFlags::EMPTY_PATH)?;
    Ok(())
}

fn time(seconds: i64, nanoseconds: u64) -> rustix::fs::Timespec {
    rustix::fs::Timespec {
        tv_sec: seconds,
        tv_nsec: i64::try_from(nanoseconds).unwrap_or(0),
    }
}
