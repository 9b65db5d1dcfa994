//! What is said of a name in a directory without reading its content.

use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;

use anyhow::Context;
use rustix::fs::{FileType, Stat};

use super::{inside, kind};
use crate::fs::Result;
use crate::logic::verify::{Hash, Kind, Leave};

/// Longest list of attributes, and longest attribute, in bytes (Linux: XATTR_LIST_MAX, XATTR_SIZE_MAX).
const XATTR_BYTES_MAX: usize = 64 << 10;

/// Setuid and setgid bits.
const SETUID: u32 = 0o6000;

/// A state of a file: as long as none of this changes, its content has not. The change time is the kernel's: no program sets
/// it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    pub inode: u64,
    pub size: u64,
    /// Seconds and nanoseconds.
    pub changed: (i64, u64),
    pub modified: (i64, u64),
}

impl Seen {
    // The width of these fields differs from machine to machine.
    #[allow(clippy::unnecessary_cast)]
    pub(super) fn of(stat: &Stat) -> Seen {
        Seen {
            inode: stat.st_ino,
            size: u64::try_from(stat.st_size).unwrap_or(0),
            changed: (stat.st_ctime as i64, stat.st_ctime_nsec as u64),
            modified: (stat.st_mtime as i64, stat.st_mtime_nsec as u64),
        }
    }
}

/// The hash of everything that a stream carries beside content: kind, mode, owner, time of change of content, size, links,
/// device number, target and attributes.
#[allow(clippy::unnecessary_cast)]
pub(super) fn meta(at: &OwnedFd, name: &[u8], stat: &Stat, leave: Leave) -> Result<Hash> {
    let kind = kind(stat, leave);
    let mut mode = stat.st_mode & 0o7777;
    if leave.setuid && kind != Kind::Directory {
        mode &= !SETUID;
    }
    let is_device = matches!(
        FileType::from_raw_mode(stat.st_mode),
        FileType::CharacterDevice | FileType::BlockDevice
    );
    let mut hasher = blake3::Hasher::new();
    let mut number = |number: u64| {
        hasher.update(&number.to_le_bytes());
    };
    number(u64::from(mode));
    number(u64::from(stat.st_uid));
    number(u64::from(stat.st_gid));
    number(stat.st_mtime as u64);
    number(stat.st_mtime_nsec as u64);
    if kind != Kind::Directory {
        number(stat.st_nlink as u64);
    }
    if kind == Kind::File && !is_device {
        number(u64::try_from(stat.st_size).unwrap_or(0));
    }
    if kind == Kind::Device {
        number(stat.st_rdev as u64);
    }
    if kind == Kind::Link {
        let target = rustix::fs::readlinkat(at, name, Vec::new()).map_err(std::io::Error::from)?;
        part(&mut hasher, target.as_bytes());
    }
    for (name, value) in attributes(at, name, leave)? {
        part(&mut hasher, &name);
        part(&mut hasher, &value);
    }
    Ok(*hasher.finalize().as_bytes())
}

fn part(hasher: &mut blake3::Hasher, bytes: &[u8]) {
    hasher.update(&(bytes.len() as u64).to_le_bytes());
    hasher.update(bytes);
}

/// Extended attributes, in the order of their names.
fn attributes(at: &OwnedFd, name: &[u8], leave: Leave) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
    let path = inside(at, name);
    let mut none: [u8; 0] = [];
    let length = match rustix::fs::llistxattr(&path, &mut none) {
        Ok(0) | Err(rustix::io::Errno::NOTSUP) => return Ok(Vec::new()),
        Ok(length) => length.min(XATTR_BYTES_MAX),
        Err(error) => return Err(std::io::Error::from(error)).context("list its attributes"),
    };
    let mut names = vec![0; length];
    let length = rustix::fs::llistxattr(&path, &mut names[..])
        .map_err(std::io::Error::from)
        .context("list its attributes")?;
    names.truncate(length);
    let mut found = Vec::new();
    let left_out = |name: &[u8]| {
        leave.security && name.starts_with(b"security.")
            || leave.trusted && name.starts_with(b"trusted.")
    };
    for name in names.split(|byte| *byte == 0) {
        if name.is_empty() || left_out(name) {
            continue;
        }
        let mut value = vec![0; XATTR_BYTES_MAX];
        let length = rustix::fs::lgetxattr(&path, OsStr::from_bytes(name), &mut value[..])
            .map_err(std::io::Error::from)
            .context("read an attribute")?;
        value.truncate(length);
        found.push((name.to_vec(), value));
    }
    found.sort_unstable();
    Ok(found)
}
