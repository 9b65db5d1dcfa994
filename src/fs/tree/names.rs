//! Names in a directory, opened one step at a time so that no link is followed on the way.

use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use anyhow::Context;
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, Stat};

use super::Reading;
use crate::fs::Result;
use crate::logic::verify::{Kind, Leave};

/// A path in the tree, for people.
pub fn shown(path: &[u8]) -> String {
    if path.is_empty() {
        return "its top directory".to_owned();
    }
    String::from_utf8_lossy(path).escape_debug().to_string()
}

pub(super) fn open_top(root: &Path) -> Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    rustix::fs::open(root, flags, Mode::empty()).with_context(|| format!("open {}", root.display()))
}

pub(super) fn open_dir(at: &OwnedFd, name: &[u8]) -> std::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    Ok(rustix::fs::openat(at, name, flags, Mode::empty())?)
}

pub(super) fn open_file(at: &OwnedFd, name: &[u8]) -> std::io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
    Ok(rustix::fs::openat(at, name, flags, Mode::empty())?.into())
}

pub(super) fn below(dir: &[u8], name: &[u8]) -> Vec<u8> {
    match dir {
        [] => name.to_vec(),
        dir => [dir, name].join(&b'/'),
    }
}

pub(super) fn kind(stat: &Stat, leave: Leave) -> Kind {
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => Kind::File,
        FileType::Directory => Kind::Directory,
        FileType::Symlink => Kind::Link,
        // In whose place a copy may have an empty file.
        FileType::CharacterDevice | FileType::BlockDevice if leave.devices => Kind::File,
        FileType::CharacterDevice | FileType::BlockDevice => Kind::Device,
        FileType::Fifo => Kind::Pipe,
        FileType::Socket => Kind::Socket,
        FileType::Unknown => Kind::Unknown,
    }
}

/// What is in a directory, but for what is not compared, in the order of names.
pub(super) fn names(
    at: &OwnedFd,
    dir: &[u8],
    reading: &Reading<'_>,
) -> Result<Vec<(Vec<u8>, Stat)>> {
    let mut found = Vec::new();
    for entry in Dir::read_from(at).map_err(std::io::Error::from)? {
        let entry = entry.map_err(std::io::Error::from)?;
        let name = entry.file_name().to_bytes();
        if name == b"." || name == b".." || reading.without.contains(&below(dir, name)) {
            continue;
        }
        found.push(name.to_vec());
    }
    found.sort_unstable();
    let mut names = Vec::with_capacity(found.len());
    for name in found {
        let stat = rustix::fs::statat(at, name.as_slice(), AtFlags::SYMLINK_NOFOLLOW);
        let stat = stat.map_err(std::io::Error::from);
        let stat = stat.with_context(|| format!("look at {}", shown(&below(dir, &name))))?;
        names.push((name, stat));
    }
    Ok(names)
}

/// A path by which this process reaches what is in a directory it has open.
pub(super) fn inside(at: &OwnedFd, name: &[u8]) -> std::path::PathBuf {
    Path::new("/proc/self/fd")
        .join(at.as_raw_fd().to_string())
        .join(std::ffi::OsStr::from_bytes(name))
}
