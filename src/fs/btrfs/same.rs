//! Tells whether two read-only snapshots hold the same, where the kernel's notes say only that something was written.
//!
//! An access time that is recorded is a change of a subvolume, and so is a nested subvolume that is moved out of it or into
//! it: neither is anything a person would miss. The kernel's own comparison decides (a send without file data): it names
//! every file of which anything differs.
//!
//! Promise: two that differ in anything but access and change times are never called the same, nor are two of which that is
//! not known; the time of modification is let go only of directories that hold a nested subvolume. Two that are the same may be called different: data
//! written anew count as others, equal or not. Reads only, and stops at the first difference.
//!
//! It deliberately does not know points.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use anyhow::Context;
use rustix::fs::{AtFlags, FileType, IFlags, Mode, OFlags, StatxFlags};
use rustix::pipe::PipeFlags;

use super::ioctl;
use super::stream::{Command, Parser, Piece};
use crate::fs::Result;

/// Read size, in bytes.
const READ_BYTES: usize = 64 << 10;

/// Whether `other` holds what `held` does. `holders`: directories, by their paths inside, that hold a nested subvolume in
/// one of them.
pub fn same(held: &Path, other: &Path, holders: &BTreeSet<Vec<u8>>) -> Result<bool> {
    let open = |path: &Path| File::open(path).with_context(|| format!("open {}", path.display()));
    let (held, other) = (open(held)?, open(other)?);
    let base = ioctl::subvolume(&held).context("look at the held snapshot")?;
    let (reader, writer) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC).context("make a pipe")?;
    std::thread::scope(|scope| {
        let source = other.as_fd();
        let sending = scope.spawn(move || {
            ioctl::block_sigpipe();
            let flags = ioctl::SEND_NO_FILE_DATA;
            ioctl::send(source, writer.as_fd(), Some(base.id), 1, flags)
        });
        // Closed before the thread is waited for: that ends a send whose reader has seen enough.
        let compared = compare(File::from(reader), &held, &other, holders);
        let sent = sending
            .join()
            .map_err(|_| anyhow::anyhow!("the sending thread panicked"))?;
        if compared? {
            sent.context("compare by a send without data")?;
            return Ok(true);
        }
        Ok(false)
    })
}

/// Reads the stream until it ends, or something in it is a difference.
fn compare(
    mut stream: File,
    held: &File,
    other: &File,
    holders: &BTreeSet<Vec<u8>>,
) -> Result<bool> {
    let mut parser = Parser::new();
    let mut buffer = vec![0; READ_BYTES];
    loop {
        let bytes = stream.read(&mut buffer).context("read the comparison")?;
        if bytes == 0 {
            return Ok(parser.has_ended());
        }
        let mut rest = &buffer[..bytes];
        while !rest.is_empty() {
            let taken = parser.next(rest)?;
            rest = &rest[taken.used..];
            let Some(step) = taken.step else {
                continue;
            };
            let is_nothing = match step.piece {
                Piece::Header { .. } | Piece::Command(Command::Snapshot { .. } | Command::End) => {
                    true
                }
                Piece::Command(Command::Utimes { path, .. }) => {
                    let holds = holders.contains(path);
                    facts(held, path, holds)? == facts(other, path, holds)?
                }
                Piece::Command(_) => false,
            };
            if !is_nothing {
                return Ok(false);
            }
        }
    }
}

/// What a change of times may hide: the time of modification, but of a directory that `holds` a nested subvolume, and the
/// flags, which no stream tells.
#[derive(PartialEq, Eq)]
struct Facts {
    modified: Option<(i64, u32)>,
    flags: Option<IFlags>,
}

fn facts(root: &File, path: &[u8], holds: bool) -> Result<Facts> {
    let path = match path {
        b"" => Path::new("."),
        path => Path::new(OsStr::from_bytes(path)),
    };
    let looked = || -> std::io::Result<Facts> {
        let wanted = StatxFlags::TYPE | StatxFlags::MTIME;
        let found = rustix::fs::statx(root, path, AtFlags::SYMLINK_NOFOLLOW, wanted)?;
        let kind = FileType::from_raw_mode(found.stx_mode.into());
        let modified = (found.stx_mtime.tv_sec, found.stx_mtime.tv_nsec);
        let flags = match kind {
            FileType::RegularFile | FileType::Directory => {
                let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
                let file: OwnedFd = rustix::fs::openat(root, path, flags, Mode::empty())?;
                Some(rustix::fs::ioctl_getflags(&file)?)
            }
            _ => None,
        };
        let is_let_go = holds && kind == FileType::Directory;
        Ok(Facts {
            modified: (!is_let_go).then_some(modified),
            flags,
        })
    };
    looked().with_context(|| format!("look at {}", path.display()))
}
