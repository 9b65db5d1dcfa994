//! Subvolumes by path: snapshot, delete, look at, list nested ones. Thin over libbtrfsutil, with errors as `io::Error`.
//!
//! Paths are our own (below the top level) or the configured live ones, never a peer's. It deliberately does not know
//! points or staging.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::IFlags;

use super::ioctl::{self, Subvolume};
use super::live;
use super::place::SUBVOLUME_INODE;

/// Whether a snapshot can be written to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    ReadOnly,
    Writable,
}

/// Facts about the subvolume at `path`; `InvalidInput` where something else is, `NotFound` where nothing is.
pub fn info(path: &Path) -> io::Result<Subvolume> {
    let dir = File::open(path)?;
    if dir.metadata()?.ino() != SUBVOLUME_INODE {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "not a subvolume",
        ));
    }
    ioctl::subvolume(&dir)
}

/// What `live` says of the subvolume at `path`; none where nothing is, errors as of [`info`].
pub fn live_if_any(path: &Path) -> io::Result<Option<Subvolume>> {
    match info(path).and_then(|_| live::subvolume(File::open(path)?)) {
        Ok(found) => Ok(Some(found)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e),
    }
}

/// Takes a snapshot; `target` must not exist. Dirty data of `source` is written out and the filesystem commits.
pub fn snapshot(source: &Path, target: &Path, access: Access) -> io::Result<()> {
    refuse_nul(source)?;
    refuse_nul(target)?;
    libbtrfsutil::CreateSnapshotOptions::new()
        .readonly(access == Access::ReadOnly)
        .create(source, target)
        .map_err(|e| e.os_error())
}

/// Deletes a subvolume, read-only ones too. One that holds nested subvolumes is refused (`DirectoryNotEmpty`).
pub fn delete(path: &Path) -> io::Result<()> {
    refuse_nul(path)?;
    let delete = || libbtrfsutil::delete_subvolume(path).map_err(|e| e.os_error());
    match delete() {
        Err(e) if is_busy(&e) && unlock(path)? => delete(),
        done => done,
    }
}

/// Takes the immutable and append-only attributes from the subvolume's own directory, which keep it from being deleted with
/// the same error as a running send. False where it has none.
fn unlock(path: &Path) -> io::Result<bool> {
    let dir = File::open(path)?;
    let locks = IFlags::IMMUTABLE | IFlags::APPEND;
    let flags = rustix::fs::ioctl_getflags(&dir)?;
    if !flags.intersects(locks) {
        return Ok(false);
    }
    libbtrfsutil::set_subvolume_read_only(path, false).map_err(|e| e.os_error())?;
    rustix::fs::ioctl_setflags(&dir, flags - locks)?;
    Ok(true)
}

/// Paths of the subvolumes nested in the one at `path`, relative to it.
pub fn nested(path: &Path) -> io::Result<Vec<PathBuf>> {
    refuse_nul(path)?;
    let mut found: Vec<PathBuf> = libbtrfsutil::IterateSubvolume::new(path)
        .iter_with_id()
        .and_then(|iterator| iterator.map(|entry| entry.map(|(path, _)| path)).collect())
        .map_err(|e| e.os_error())?;
    found.sort();
    Ok(found)
}

/// Whether the kernel refused because somebody sends from the subvolume (EPERM), or holds it otherwise.
pub fn is_busy(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EPERM | libc::EBUSY | libc::ETXTBSY)
    )
}

/// libbtrfsutil's wrapper panics on a NUL.
fn refuse_nul(path: &Path) -> io::Result<()> {
    let bytes = OsStr::as_bytes(path.as_os_str());
    if bytes.contains(&0) {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "path contains NUL",
        ));
    }
    Ok(())
}
