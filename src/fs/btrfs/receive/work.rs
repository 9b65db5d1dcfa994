//! The place of one dataset being received: where its parts lie, and what of it is durable.
//!
//! Promise: a file is replaced whole or not at all, and is on disk when the call returns; a file that cannot be read is as
//! good as absent. Complete means: `local.json` is there, it is written last. Only one receiver works in a place at a time.
//!
//! A crash leaves at most a `.new` file and subvolumes that nothing names; opening the place again removes them.

use std::collections::BTreeSet;
use std::fs::{DirBuilder, File};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::Context;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::super::apply::ioctl;
use super::super::top::plain;
use super::Place;
use crate::fs::{FsError, Result};

/// Largest file of ours that is read, in bytes.
const FILE_BYTES_MAX: u64 = 32 << 20;

pub(super) const IDENTITY: &str = "identity.json";
pub(super) const LOCAL: &str = "local.json";
const TREE: &str = "tree";

/// One dataset's place, locked for as long as this lives.
#[derive(Debug)]
pub(super) struct Work {
    dir: PathBuf,
    finished: PathBuf,
    _lock: Lock,
}

/// Places in use in this process, which is the only one that receives. A lock on a file would live on in every child that is
/// being started at the moment of its release.
static IN_USE: Mutex<BTreeSet<Key>> = Mutex::new(BTreeSet::new());

/// Device and inode: a place can be reached by several paths.
type Key = (u64, u64);

fn in_use() -> MutexGuard<'static, BTreeSet<Key>> {
    IN_USE.lock().unwrap_or_else(PoisonError::into_inner)
}

#[derive(Debug)]
struct Lock(Key);

impl Drop for Lock {
    fn drop(&mut self) {
        in_use().remove(&self.0);
    }
}

impl Work {
    /// Makes the place if it is not there.
    pub fn open(place: &Place) -> Result<Work> {
        let dir = dir_of(place);
        if !dir.is_dir() {
            let parent = place.point_dir.join(super::WORK);
            for path in [&parent, &dir] {
                match DirBuilder::new().mode(0o700).create(path) {
                    Err(error) if error.kind() != ErrorKind::AlreadyExists => {
                        return Err(error).with_context(|| format!("create {}", path.display()));
                    }
                    _ => {}
                }
            }
            sync_dir(&place.point_dir)?;
            sync_dir(&parent)?;
        }
        Work::locked(place, dir)
    }

    /// None when there is no place.
    pub fn find(place: &Place) -> Result<Option<Work>> {
        let dir = dir_of(place);
        if dir.is_dir() {
            Work::locked(place, dir).map(Some)
        } else {
            Ok(None)
        }
    }

    fn locked(place: &Place, dir: PathBuf) -> Result<Work> {
        let stat = rustix::fs::stat(&dir).with_context(|| format!("stat {}", dir.display()))?;
        let key = (stat.st_dev, stat.st_ino);
        if !in_use().insert(key) {
            return Err(FsError::Busy(format!("the staging place of {}", place.dataset)).into());
        }
        Ok(Work {
            dir,
            finished: finished_of(place),
            _lock: Lock(key),
        })
    }

    /// The writable subvolume being received.
    pub fn tree(&self) -> PathBuf {
        self.dir.join(TREE)
    }

    /// Where the subvolume goes when it is whole.
    pub fn finished(&self) -> &Path {
        &self.finished
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Removes everything but the place itself, the sign of completeness first.
    pub fn clear(&self) -> Result<()> {
        remove_file(&self.dir.join(LOCAL))?;
        sync_dir(&self.dir)?;
        delete_subvolume(&self.finished)?;
        self.clear_but(&[])
    }

    /// Removes everything inside the work directory but these names.
    pub fn clear_but(&self, kept: &[String]) -> Result<()> {
        for entry in std::fs::read_dir(&self.dir).context("list staging")? {
            let entry = entry.context("list staging")?;
            let name = entry.file_name();
            if kept.iter().any(|kept| name == kept.as_str()) {
                continue;
            }
            let kind = entry.file_type().context("list staging")?;
            if kind.is_dir() {
                delete_subvolume(&entry.path())?;
            } else {
                remove_file(&entry.path())?;
            }
        }
        Ok(())
    }

    pub fn write<T: Serialize>(&self, name: &str, value: &T) -> Result<()> {
        let text = serde_json::to_vec(value).with_context(|| format!("write {name}"))?;
        let path = self.dir.join(name);
        let new = self.dir.join(format!("{name}.new"));
        let mut file = File::create(&new).with_context(|| format!("create {}", new.display()))?;
        file.write_all(&text)
            .and_then(|()| file.sync_all())
            .and_then(|()| std::fs::rename(&new, &path))
            .with_context(|| format!("write {}", path.display()))?;
        sync_dir(&self.dir)
    }

    pub fn read<T: DeserializeOwned>(&self, name: &str) -> Option<T> {
        read(&self.dir.join(name))
    }
}

pub(super) fn dir_of(place: &Place) -> PathBuf {
    place.point_dir.join(super::WORK).join(&place.dataset)
}

pub(super) fn finished_of(place: &Place) -> PathBuf {
    place.point_dir.join(&place.dataset)
}

/// What a file of ours says; none when it is absent, too large or damaged.
pub(super) fn read<T: DeserializeOwned>(path: &Path) -> Option<T> {
    let file = File::open(path).ok()?;
    let mut text = Vec::new();
    file.take(FILE_BYTES_MAX).read_to_end(&mut text).ok()?;
    match serde_json::from_slice(&text) {
        Ok(value) => Some(value),
        Err(error) => {
            tracing::warn!(path = %plain(&path.display().to_string()), %error, "damaged, taken as absent");
            None
        }
    }
}

pub(super) fn sync_dir(dir: &Path) -> Result<()> {
    File::open(dir)
        .and_then(|file| file.sync_all())
        .with_context(|| format!("sync {}", dir.display()))
}

pub(super) fn remove_file(path: &Path) -> Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).with_context(|| format!("remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

/// Deletes a subvolume or an empty directory, read-only or not. One that is not there is success.
pub(super) fn delete_subvolume(path: &Path) -> Result<()> {
    if path.symlink_metadata().is_err() {
        return Ok(());
    }
    if !libbtrfsutil::is_subvolume(path).with_context(|| format!("look at {}", path.display()))? {
        return std::fs::remove_dir(path).with_context(|| format!("remove {}", path.display()));
    }
    let first = libbtrfsutil::delete_subvolume(path);
    let outcome = match first {
        // The copy of a base whose top directory is immutable or append-only.
        Err(ref error) if error.errno() == libc::EPERM && unlock_top(path) => {
            libbtrfsutil::delete_subvolume(path)
        }
        outcome => outcome,
    };
    outcome.with_context(|| format!("delete subvolume {}", path.display()))
}

fn unlock_top(path: &Path) -> bool {
    let locks = ioctl::xflag::IMMUTABLE | ioctl::xflag::APPEND;
    libbtrfsutil::set_subvolume_read_only(path, false).is_ok()
        && File::open(path).is_ok_and(|top| ioctl::set_xflags(&top, locks, 0).is_ok())
}
