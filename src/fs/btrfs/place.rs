//! Where a dataset lies: its filesystem, its live path as people see it, and the same place spelled from the top level.
//!
//! Promise: looked up anew each time, so that what was mounted, created or exchanged since is seen; a path that cannot hold
//! a dataset (another filesystem, a plain directory with files in it) is refused with the way out. A path that /etc/fstab
//! mounts, and that is not mounted now, is found where that line says, never on the filesystem below. Writes nothing.
//!
//! It deliberately does not know points.

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;
use rustix::fs::OFlags;

use super::fstab::{Entry, Fstab};
use super::top::Top;
use super::{ioctl, mountinfo};
use crate::error::{Code, Failure};
use crate::fs::{FsError, Result};
use crate::logic::name::DatasetName;

/// Inode number of a subvolume's root directory (BTRFS_FIRST_FREE_OBJECTID).
pub const SUBVOLUME_INODE: u64 = 256;

/// Inode number of the empty directory that a snapshot has in the place of a nested subvolume
/// (BTRFS_EMPTY_SUBVOL_DIR_OBJECTID). It answers no ioctl, but can be removed and renamed over.
const STUB_INODE: u64 = 2;

/// What is at the live path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Occupant {
    Subvolume,
    Nothing,
    /// A directory with nothing in it: counts as nothing, a restore takes its place.
    EmptyDirectory,
    /// A directory with something in it: not a dataset.
    Directory,
}

/// One dataset's place.
#[derive(Debug, Clone)]
pub struct Place {
    pub top: Arc<Top>,
    pub dataset: DatasetName,
    /// The live path, symbolic links resolved as far as it exists.
    pub live: PathBuf,
    /// The same from the top level.
    pub relative: PathBuf,
    pub occupant: Occupant,
    /// Something is mounted at the live path itself.
    pub is_mount: bool,
    /// What fstab says of the live path itself.
    pub entry: Option<Entry>,
}

impl Place {
    /// Finds `dataset` by its configured path. The nearest existing parent tells the filesystem where there is nothing yet.
    pub fn find(dataset: &DatasetName, configured: &Path, fstab: &Fstab) -> Result<Place> {
        let (existing, missing) =
            nearest(configured).with_context(|| format!("look for {}", configured.display()))?;
        let live = join(existing.clone(), &missing);
        let mut mounts = mountinfo::read()?;
        // What an automount waits for is not mounted; opening its path would wait for it.
        mounts.retain(|mount| mount.kind != "autofs");
        let mounted = mountinfo::holding(&mounts, &live).map(|mount| &mount.point);
        let spellings = [configured, &live];
        let entry = spellings
            .iter()
            .filter_map(|path| fstab.covering(path))
            .max_by_key(|entry| entry.point.components().count());
        let is_own = |entry: &Entry| spellings.contains(&entry.point.as_path());
        let is_nearer = |entry: &&Entry| {
            mounted
                .is_none_or(|point| entry.point.components().count() > point.components().count())
        };
        if let Some(entry) = entry.filter(is_nearer) {
            if entry.is_btrfs() && is_own(entry) {
                return Place::unmounted(dataset, live, entry);
            }
            return Err(not_mounted(configured, entry).into());
        }
        let is_mount = mounted.is_some_and(|point| *point == live);
        let entry = entry.filter(|entry| is_mount && is_own(entry)).cloned();
        let (existing, missing, is_stub) = above_stub(existing, missing, is_mount);
        let dir = open_dir(&existing).with_context(|| format!("open {}", existing.display()))?;
        refuse_other_filesystems(configured, &existing, &dir)?;
        let inode = dir
            .metadata()
            .with_context(|| format!("look at {}", existing.display()))?
            .ino();
        let occupant = if is_stub {
            Occupant::EmptyDirectory
        } else if !missing.as_os_str().is_empty() {
            Occupant::Nothing
        } else {
            self::occupant(&existing, inode)?
        };
        let top = Top::holding(&existing, &dir)?;
        let relative = path_from_top(&top, &dir, inode)
            .with_context(|| format!("find {} from the top level", existing.display()))?;
        let relative = join(relative, &missing);
        if relative.as_os_str().is_empty() {
            return Err(top_level(&existing).into());
        }
        Ok(Place {
            live,
            relative,
            top,
            dataset: dataset.clone(),
            occupant,
            is_mount,
            entry,
        })
    }

    /// The place that fstab names for a path that is not mounted.
    fn unmounted(dataset: &DatasetName, live: PathBuf, entry: &Entry) -> Result<Place> {
        let top = Top::on(&entry.device()?)?;
        let relative = named_by(entry, &top)?;
        if relative.as_os_str().is_empty() {
            return Err(top_level(&live).into());
        }
        let occupant = match top.open_dir(&relative) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Occupant::Nothing,
            Err(e) => {
                return Err(e)
                    .with_context(|| format!("open {}", top.shown(&top.path().join(&relative))));
            }
            Ok(dir) => {
                let inode = File::from(dir).metadata().map(|found| found.ino());
                let inode = inode.context("look at the subvolume")?;
                self::occupant(&top.path().join(&relative), inode)?
            }
        };
        Ok(Place {
            live,
            relative,
            top,
            dataset: dataset.clone(),
            occupant,
            is_mount: false,
            entry: Some(entry.clone()),
        })
    }

    /// The same after something may have been taken away from there.
    pub fn now(&self) -> Place {
        let mut place = self.clone();
        let gone = |e: io::Error| e.kind() == io::ErrorKind::NotFound;
        if self.top.open_dir(&self.relative).is_err_and(gone) {
            place.occupant = Occupant::Nothing;
        }
        place
    }

    /// The live subvolume, open; `FsError::Missing` where there is none, a `Failure` where something else is.
    pub fn open_live(&self) -> Result<File> {
        match self.occupant {
            Occupant::Subvolume => {}
            Occupant::Nothing | Occupant::EmptyDirectory => return Err(self.missing()),
            Occupant::Directory => return Err(not_a_subvolume(&self.live).into()),
        }
        if self.relative.starts_with(super::layout::STANDIN) {
            return Err(Failure::new(
                Code::Failed,
                format!(
                    "{} still shows what an interrupted restore put aside",
                    self.live.display()
                ),
            )
            .hint("restart the daemon: it finishes or undoes the restore")
            .into());
        }
        let opened = match self.entry {
            Some(_) if !self.is_mount => self.top.open_dir(&self.relative).map(File::from),
            _ => open_dir(&self.live),
        };
        opened.with_context(|| format!("open {}", self.live.display()))
    }

    fn missing(&self) -> anyhow::Error {
        let path = match self.entry {
            Some(_) if !self.is_mount => self.top.shown(&self.top.path().join(&self.relative)),
            _ => self.live.display().to_string(),
        };
        let mut what = format!("find dataset {}", self.dataset);
        let mut hint = format!("btrfs subvolume create {path}, or restore a point of it");
        if self.occupant == Occupant::EmptyDirectory {
            what.push_str(&format!(": {path} is an empty directory"));
            hint = format!("rmdir {path} && {hint}");
        }
        let missing = FsError::Missing(format!("the live subvolume {path}"));
        anyhow::Error::new(missing).context(Failure::new(Code::NotFound, what).hint(hint))
    }
}

/// The subvolume that `entry` mounts, from the top level; empty where that is the top level itself. It need not be there.
pub fn named_by(entry: &Entry, top: &Top) -> Result<PathBuf> {
    if let Some(path) = entry.subvolume() {
        return Ok(path);
    }
    let (file, point) = (entry.file.display(), entry.point.display());
    let refuse = |what: String| {
        Failure::new(Code::Usage, what)
            .hint("name the subvolume there by its path: subvol=/NAME")
            .into()
    };
    // The default subvolume may be another one at any time: a dataset must have a name.
    let Some(id) = entry.subvolume_id().filter(|id| *id != 0) else {
        let what = format!("{file} does not say which subvolume is mounted at {point}");
        return Err(refuse(what));
    };
    libbtrfsutil::subvolume_path_with_id(top.path(), id).map_err(|e| {
        let cause = e.os_error();
        refuse(format!(
            "{file} mounts subvolume number {id} at {point}, which cannot be found: {cause}"
        ))
    })
}

/// The failure for a path that is on a filesystem which is not mounted now.
fn not_mounted(configured: &Path, entry: &Entry) -> Failure {
    let (point, file) = (entry.point.display(), entry.file.display());
    Failure::new(
        Code::Failed,
        format!(
            "{} is not reachable: {point} is not mounted, though {file} has a line for it",
            configured.display()
        ),
    )
    .hint(format!("mount {point}, or remove its line from {file}"))
}

/// `path`, of which the end need not exist, from the top level; none where it lies on another filesystem.
pub fn below(top: &Top, path: &Path) -> Result<Option<PathBuf>> {
    let (existing, missing) =
        nearest(path).with_context(|| format!("look for {}", path.display()))?;
    let dir = open_dir(&existing).with_context(|| format!("open {}", existing.display()))?;
    if !ioctl::fs_info(&dir).is_ok_and(|info| info.fsid == top.fsid) {
        return Ok(None);
    }
    let inode = dir
        .metadata()
        .with_context(|| format!("look at {}", existing.display()))?
        .ino();
    let relative = path_from_top(top, &dir, inode)
        .with_context(|| format!("find {} from the top level", existing.display()))?;
    Ok(Some(join(relative, &missing)))
}

pub fn join(base: PathBuf, tail: &Path) -> PathBuf {
    // Joining an empty path would leave a slash at the end.
    if tail.as_os_str().is_empty() {
        base
    } else {
        base.join(tail)
    }
}

/// The longest existing part of `path`, symbolic links resolved, and what is missing below it.
pub fn nearest(path: &Path) -> io::Result<(PathBuf, PathBuf)> {
    let mut existing = path;
    loop {
        match existing.canonicalize() {
            Ok(found) => {
                let missing = path.strip_prefix(existing).unwrap_or(Path::new(""));
                return Ok((found, missing.to_owned()));
            }
            // A dangling link is not a missing path: what it points to would be made somewhere unexpected.
            Err(e)
                if e.kind() == io::ErrorKind::NotFound && existing.symlink_metadata().is_err() =>
            {
                existing = existing.parent().ok_or(e)?;
            }
            Err(e) => return Err(e),
        }
    }
}

fn open_dir(path: &Path) -> io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(File::from(rustix::fs::open(
        path,
        flags,
        rustix::fs::Mode::empty(),
    )?))
}

/// What is at a directory that exists.
fn occupant(path: &Path, inode: u64) -> Result<Occupant> {
    Ok(if inode == SUBVOLUME_INODE {
        Occupant::Subvolume
    } else if is_empty(path)? {
        Occupant::EmptyDirectory
    } else {
        Occupant::Directory
    })
}

/// Where the path, which is no mount of its own, ends at the stub of a nested subvolume: the directory above, which answers
/// for it. A stub has the device number of the filesystem, no subvolume's, and no other directory of btrfs its inode number.
fn above_stub(existing: PathBuf, missing: PathBuf, is_mount: bool) -> (PathBuf, PathBuf, bool) {
    let inode = || existing.symlink_metadata().map(|found| found.ino());
    let is_stub = missing.as_os_str().is_empty()
        && !is_mount
        && inode().is_ok_and(|inode| inode == STUB_INODE);
    match (is_stub, existing.parent(), existing.file_name()) {
        (true, Some(parent), Some(name)) => (parent.to_owned(), name.into(), true),
        _ => (existing, missing, false),
    }
}

fn is_empty(path: &Path) -> Result<bool> {
    let mut entries =
        std::fs::read_dir(path).with_context(|| format!("list {}", path.display()))?;
    Ok(entries.next().is_none())
}

fn refuse_other_filesystems(configured: &Path, existing: &Path, dir: &File) -> Result<()> {
    let error = match ioctl::fs_info(dir) {
        Ok(_) => return Ok(()),
        Err(e) => e,
    };
    if error.raw_os_error() != Some(libc::ENOTTY) {
        return Err(error)
            .with_context(|| format!("read the filesystem id of {}", existing.display()));
    }
    let what = if configured == existing {
        format!("{} is not on a btrfs filesystem", configured.display())
    } else {
        format!(
            "{} is not on a btrfs filesystem ({}, which exists, is not)",
            configured.display(),
            existing.display()
        )
    };
    Err(Failure::new(Code::Usage, what)
        .hint("mount the btrfs filesystem that is meant to hold it, or correct the dataset's path in the configuration")
        .into())
}

/// The failure for a plain directory where a subvolume belongs.
fn not_a_subvolume(live: &Path) -> Failure {
    let path = live.display();
    Failure::new(
        Code::Usage,
        format!("{path} is a directory, not a btrfs subvolume"),
    )
    .hint(format!(
        "with its services stopped: btrfs subvolume create {path}.new && cp -a --reflink=always {path}/. {path}.new/ \
         && mv {path} {path}.old && mv {path}.new {path}"
    ))
}

/// The failure for a dataset that is the whole filesystem: our own snapshots would lie inside it, and it cannot be exchanged.
fn top_level(live: &Path) -> Failure {
    let path = live.display();
    Failure::new(
        Code::Usage,
        format!("{path} is the top level of its filesystem, which cannot be a dataset"),
    )
    .hint(format!(
        "keep the data in a subvolume of it (btrfs subvolume create {path}/data) and configure that"
    ))
}

fn path_from_top(top: &Top, dir: &File, inode: u64) -> Result<PathBuf> {
    let (id, inside) = ioctl::path_in_subvolume(dir, inode).context("look up the inode")?;
    let subvolume = libbtrfsutil::subvolume_path_with_id(top.path(), id)
        .map_err(|e| anyhow::Error::new(e.os_error()))
        .context("look up the subvolume")?;
    let inside = PathBuf::from(OsString::from_vec(inside));
    // Component by component: the kernel ends a directory with a slash.
    Ok(subvolume.components().chain(inside.components()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nearest_stops_at_what_exists() {
        let dir = tempfile::tempdir().unwrap();
        let base = dir.path().canonicalize().unwrap();
        std::fs::create_dir(base.join("a")).unwrap();
        std::os::unix::fs::symlink("a", base.join("link")).unwrap();
        std::os::unix::fs::symlink("nowhere", base.join("dangling")).unwrap();
        let check = |path: &str, existing: &str, missing: &str| {
            let (found, rest) = nearest(&base.join(path)).unwrap();
            assert_eq!(found, base.join(existing), "{path}");
            assert_eq!(rest, Path::new(missing), "{path}");
        };
        check("a", "a", "");
        check("a/b/c", "a", "b/c");
        check("link/b", "a", "b");
        check("x/y", "", "x/y");
        assert!(nearest(&base.join("dangling/x")).is_err());
    }
}
