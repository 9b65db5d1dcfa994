//! Small files that must be whole or absent, and the removal of what is not wanted any more.
//!
//! Promise: after `write_json` returns, file and directory entry are on disk; a crash during it leaves the old file or the
//! new one (and perhaps a stray `.tmp`,
//! which goes with its directory). `read_json` never reads more than its bound. `remove` takes a tree apart that may
//! contain subvolumes, following no links and entering no subvolume; it can be repeated after a crash.
//!
//! It deliberately does not know what the files mean.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

use anyhow::{Context, bail};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::place::SUBVOLUME_INODE;
use super::subvolume;
use crate::fs::Result;

/// Makes a root-only directory and its parents; existing ones are left as they are.
pub fn make_dir(path: &Path) -> Result<()> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .with_context(|| format!("create directory {}", path.display()))
}

/// Puts `value` at `path`, durably and in one step.
pub fn write_json(path: &Path, value: &impl Serialize) -> Result<()> {
    let write = || -> Result<()> {
        let mut text = serde_json::to_vec_pretty(value)?;
        text.push(b'\n');
        let mut name = path.file_name().context("no file name")?.to_owned();
        // Two threads may write the same file at once (the manifest of a point whose datasets arrive together).
        name.push(format!(".{}.tmp", uuid::Uuid::new_v4().simple()));
        let temporary = path.with_file_name(name);
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&temporary)?;
        file.write_all(&text)?;
        file.sync_all()?;
        std::fs::rename(&temporary, path)?;
        sync_dir(path.parent().context("no parent")?)
    };
    write().with_context(|| format!("write {}", path.display()))
}

/// Reads what `write_json` wrote; none where there is no such file. What is no plain file is an error, not followed.
pub fn read_json<T: DeserializeOwned>(path: &Path, bytes_max: usize) -> Result<Option<T>> {
    let read = || -> Result<Option<T>> {
        let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK;
        let opened = OpenOptions::new().read(true).custom_flags(flags).open(path);
        let file = match opened {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) if e.raw_os_error() == Some(libc::ELOOP) => bail!("it is a symbolic link"),
            Err(e) => return Err(e.into()),
        };
        if !file.metadata()?.is_file() {
            bail!("it is no file");
        }
        let mut text = Vec::new();
        file.take(bytes_max as u64 + 1).read_to_end(&mut text)?;
        if text.len() > bytes_max {
            bail!("longer than {bytes_max} bytes");
        }
        Ok(Some(serde_json::from_slice(&text)?))
    };
    read().with_context(|| format!("read {}", path.display()))
}

/// Makes the entries of a directory durable.
pub fn sync_dir(path: &Path) -> Result<()> {
    File::open(path)
        .and_then(|dir| dir.sync_all())
        .with_context(|| format!("sync directory {}", path.display()))
}

/// Removes a file, a directory tree, or subvolumes in one; nothing there is success. An error leaves the rest in place.
pub fn remove(path: &Path) -> io::Result<()> {
    match remove_existing(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

fn remove_existing(path: &Path) -> io::Result<()> {
    let found = path.symlink_metadata()?;
    if !found.is_dir() {
        return std::fs::remove_file(path);
    }
    if found.ino() == SUBVOLUME_INODE {
        return subvolume::delete(path);
    }
    for entry in std::fs::read_dir(path)? {
        remove(&entry?.path())?;
    }
    std::fs::remove_dir(path)
}
