//! A piece of the stream to be: commands as the kernel wrote them, and writes whose data are still to be read.
//!
//! Promise: rendered, a write is byte for byte what the kernel would have written: the order of attributes, the size of writes
//! and the checksums are those of its `send_write` (fs/btrfs/send.c), so that a transfer may go on from one kind of stream to the
//! other.
//!
//! It deliberately does not know what the stream is for, nor in which order segments are rendered.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use rustix::fs::{Advice, Mode, OFlags, ResolveFlags};

use super::super::ioctl;
use super::super::stream::{COMMAND_HEADER_BYTES, Kind, attr, checksum};
use super::names::Whose;

/// Most file data in a write, in bytes: BTRFS_SEND_READ_SIZE in version 1, the buffer of 144 KiB less 16 KiB from 2 on.
pub fn write_bytes_max(version: u32) -> u64 {
    match version {
        1 => 48 << 10,
        _ => 128 << 10,
    }
}

/// Where files are read.
#[derive(Debug)]
pub struct Source {
    /// The snapshot that is sent, and its id.
    pub snapshot: File,
    pub root: u64,
    pub base: Option<File>,
    pub version: u32,
}

#[derive(Debug)]
pub enum Part {
    /// Whole commands.
    Plain(Vec<u8>),
    Extent(Extent),
}

/// One write.
#[derive(Debug)]
pub struct Extent {
    pub whose: Whose,
    /// The receiver's.
    pub path: Arc<[u8]>,
    pub offset: u64,
    /// At most [`write_bytes_max`].
    pub bytes: u64,
}

#[derive(Debug, Default)]
pub struct Segment {
    pub parts: Vec<Part>,
    /// What it comes to, about, in bytes.
    pub bytes: usize,
}

impl Segment {
    pub fn plain(&mut self, raw: &[u8]) {
        self.bytes += raw.len();
        match self.parts.last_mut() {
            Some(Part::Plain(bytes)) => bytes.extend_from_slice(raw),
            _ => self.parts.push(Part::Plain(raw.to_vec())),
        }
    }

    pub fn extent(&mut self, extent: Extent) {
        self.bytes += extent.bytes as usize + extent.path.len() + 64;
        self.parts.push(Part::Extent(extent));
    }

    /// Reads what is missing. An error that is not of the disk: the file cannot be told or found.
    pub fn render(self, source: &Source) -> Result<Vec<u8>, Trouble> {
        let mut out = Vec::with_capacity(self.bytes);
        let mut open: Option<(Whose, File)> = None;
        for part in self.parts {
            match part {
                Part::Plain(bytes) => out.extend_from_slice(&bytes),
                Part::Extent(extent) => {
                    let file = match open.take() {
                        Some((whose, file)) if whose == extent.whose => file,
                        _ => source.open(&extent.whose).map_err(Trouble::Lost)?,
                    };
                    write(&mut out, &extent, &file, source.version)?;
                    open = Some((extent.whose, file));
                }
            }
        }
        Ok(out)
    }
}

/// Why a segment could not be rendered.
#[derive(Debug, thiserror::Error)]
pub enum Trouble {
    /// The kernel has to be asked in our place.
    #[error("a file of the stream was not found: {0}")]
    Lost(#[source] io::Error),
    #[error("read {file:?}: {error}")]
    Unreadable {
        file: String,
        #[source]
        error: io::Error,
    },
}

impl Source {
    fn open(&self, whose: &Whose) -> io::Result<File> {
        let (inode, generation) = match whose {
            Whose::New { inode, generation } => (*inode, *generation),
            Whose::Old(path) => self.of_base(path)?,
        };
        let file = ioctl::open_inode(self.snapshot.as_fd(), self.root, inode, generation)?;
        Ok(File::from(file))
    }

    /// Inode and generation, which are the same in both snapshots.
    fn of_base(&self, path: &[u8]) -> io::Result<(u64, u64)> {
        let base = self.base.as_ref().ok_or(io::ErrorKind::NotFound)?;
        let file = rustix::fs::openat2(
            base,
            OsStr::from_bytes(path),
            OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC,
            Mode::empty(),
            ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV,
        )?;
        ioctl::inode_of(file.as_fd())
    }
}

/// Appends one write command.
fn write(out: &mut Vec<u8>, extent: &Extent, file: &File, version: u32) -> Result<(), Trouble> {
    let start = out.len();
    out.extend_from_slice(&[0; COMMAND_HEADER_BYTES]);
    let attribute = |out: &mut Vec<u8>, number: u16, value: &[u8]| {
        out.extend_from_slice(&number.to_le_bytes());
        // Paths have at most 4096 bytes, which the parser has seen to.
        out.extend_from_slice(&(value.len() as u16).to_le_bytes());
        out.extend_from_slice(value);
    };
    attribute(out, attr::PATH, &extent.path);
    attribute(out, attr::FILE_OFFSET, &extent.offset.to_le_bytes());
    out.extend_from_slice(&attr::DATA.to_le_bytes());
    if version == 1 {
        out.extend_from_slice(&(extent.bytes as u16).to_le_bytes());
    }
    let data = out.len();
    out.resize(data + extent.bytes as usize, 0);
    let unreadable = |error| Trouble::Unreadable {
        file: String::from_utf8_lossy(&extent.path).into_owned(),
        error,
    };
    // An extent ends at the end of the file at the latest: less is another file.
    let read = file.read_exact_at(&mut out[data..], extent.offset);
    read.map_err(|error| match error.kind() {
        io::ErrorKind::UnexpectedEof => Trouble::Lost(error),
        _ => unreadable(error),
    })?;
    // Nobody reads it again soon: the machine's memory is for its own work. As the kernel's send does.
    let bytes = std::num::NonZeroU64::new(extent.bytes);
    let _ = rustix::fs::fadvise(file, extent.offset, bytes, Advice::DontNeed);
    let length = (out.len() - start - COMMAND_HEADER_BYTES) as u32;
    let (head, payload) = out[start..].split_at_mut(COMMAND_HEADER_BYTES);
    head[..4].copy_from_slice(&length.to_le_bytes());
    head[4..6].copy_from_slice(&(Kind::Write as u16).to_le_bytes());
    let sum = checksum(&head[..6], payload);
    head[6..].copy_from_slice(&sum.to_le_bytes());
    Ok(())
}
