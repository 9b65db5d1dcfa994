//! Commands that fill files: writes, clones, compressed pieces, sizes and holes.
//!
//! Promise: clones come only from the subvolume itself and the snapshots that were declared; where sharing is not possible
//! the bytes are copied, so that a clone never fails for a reason of this filesystem.

use std::os::fd::OwnedFd;

use rustix::fs::{FallocateFlags, OFlags};
use rustix::io::Errno;
use uuid::Uuid;

use super::fault::{Applied, Blame, refuse, shown};
use super::{Applier, OpenFile, decode, ioctl};
use crate::fs::btrfs::stream::{Cloned, Encoded};

/// Bytes copied at a time where they cannot be shared.
const COPY_BYTES: usize = 128 << 10;

/// Writeback of the open file is started after so many bytes: later than that, scattered writes pile up and the next
/// checkpoint waits for all of them.
const WRITEBACK_BYTES: u64 = 16 << 20;

/// Largest compressed piece, and largest when decompressed (BTRFS_MAX_COMPRESSED).
const ENCODED_BYTES_MAX: u64 = 128 << 10;

/// Modes of FALLOCATE that streams carry, as fallocate(2) numbers them.
const KEEP_SIZE: u32 = 1;
const PUNCH_HOLE: u32 = 2;

impl Applier {
    pub(super) fn write(&mut self, path: &[u8], offset: u64, data: &[u8]) -> Applied<()> {
        self.take_room(data.len() as u64)?;
        let file = self.file(path)?;
        write_all(file, offset, data).on("write", path)?;
        self.written(data.len() as u64);
        Ok(())
    }

    fn written(&mut self, bytes: u64) {
        self.unwritten += bytes;
        if self.unwritten >= WRITEBACK_BYTES {
            self.unwritten = 0;
            if let Some(open) = &self.open {
                ioctl::start_writeback(&open.file);
            }
        }
    }

    pub(super) fn truncate(&mut self, path: &[u8], size: u64) -> Applied<()> {
        rustix::fs::ftruncate(self.file(path)?, size).on("truncate", path)
    }

    pub(super) fn fallocate(
        &mut self,
        path: &[u8],
        mode: u32,
        offset: u64,
        len: u64,
    ) -> Applied<()> {
        let flags = match mode {
            0 => FallocateFlags::empty(),
            KEEP_SIZE => FallocateFlags::KEEP_SIZE,
            _ if mode == KEEP_SIZE | PUNCH_HOLE => {
                FallocateFlags::KEEP_SIZE | FallocateFlags::PUNCH_HOLE
            }
            _ => return refuse(format!("allocation mode {mode} is not known")),
        };
        if !flags.contains(FallocateFlags::PUNCH_HOLE) {
            self.expect_room(len)?;
        }
        rustix::fs::fallocate(self.file(path)?, flags, offset, len).on("allocate", path)
    }

    pub(super) fn encoded_write(&mut self, piece: &Encoded<'_>) -> Applied<()> {
        if piece.encryption != 0 {
            return refuse("encrypted data is not supported");
        }
        if piece.len > ENCODED_BYTES_MAX || piece.data.len() as u64 > ENCODED_BYTES_MAX {
            return refuse("compressed piece is too long");
        }
        self.take_room(piece.file_len)?;
        let file = self.file(piece.path)?;
        match ioctl::encoded_write(file, piece) {
            Ok(()) => {}
            // Not possible here (another sector size, a NOCOW file, an older kernel), not in one extent, or not with the
            // rights this process has kept.
            Err(Errno::INVAL | Errno::NOTTY | Errno::OPNOTSUPP | Errno::NOSPC | Errno::PERM) => {
                let data = decode::decoded(piece)?;
                write_all(file, piece.offset, &data).on("write", piece.path)?;
            }
            outcome => outcome.on("write", piece.path)?,
        }
        self.written(piece.file_len);
        Ok(())
    }

    pub(super) fn clone_range(&mut self, piece: &Cloned<'_>) -> Applied<()> {
        if piece.len == 0 {
            return refuse("clones nothing");
        }
        self.file(piece.path)?;
        let same = piece.source == self.identity.snapshot && piece.source_path == piece.path;
        if same {
            let distance = piece.offset.abs_diff(piece.source_offset);
            if distance < piece.len {
                return refuse("clones a range of a file onto itself");
            }
        } else {
            self.open_source(piece.source, piece.source_path)?;
        }
        let Some(open) = &self.open else {
            return refuse("no file is open");
        };
        let source = match &self.open_source {
            Some((_, source)) if !same => &source.file,
            _ => &open.file,
        };
        match ioctl::clone_range(
            &open.file,
            piece.offset,
            source,
            piece.source_offset,
            piece.len,
        ) {
            Err(
                Errno::INVAL
                | Errno::XDEV
                | Errno::OPNOTSUPP
                | Errno::NOTTY
                | Errno::TXTBSY
                | Errno::PERM,
            ) => {
                tracing::debug!(path = %shown(piece.path), len = piece.len, "copied, not shared");
                expect_source(source, piece)?;
                self.expect_room(piece.len)?;
                copy(&open.file, source, piece)
            }
            outcome => outcome.on("clone into", piece.path),
        }
    }

    /// Sees to it that `open_source` is this file of a snapshot that may be read.
    fn open_source(&mut self, uuid: Uuid, path: &[u8]) -> Applied<()> {
        if let Some((of, open)) = &self.open_source {
            if *of == uuid && open.path == path {
                return Ok(());
            }
        }
        let flags = OFlags::RDONLY | OFlags::NOATIME;
        let file = if uuid == self.identity.snapshot {
            self.tree.open_file(path, flags)?
        } else {
            if !self.sources.contains_key(&uuid) {
                let Some(tree) = self.outside.source(uuid)? else {
                    return refuse(format!(
                        "clones from {uuid}, which is not a snapshot of this dataset held here"
                    ));
                };
                self.sources.insert(uuid, tree);
            }
            match self.sources.get_mut(&uuid) {
                Some(tree) => tree.open_file(path, flags)?,
                None => return refuse("clone source is not open"),
            }
        };
        let path = path.to_vec();
        self.open_source = Some((uuid, OpenFile { path, file }));
        Ok(())
    }
}

fn write_all(file: &OwnedFd, mut offset: u64, mut data: &[u8]) -> rustix::io::Result<()> {
    while !data.is_empty() {
        match rustix::io::pwrite(file, data, offset) {
            Ok(0) => return Err(Errno::IO),
            Ok(count) => {
                data = &data[count..];
                offset += count as u64;
            }
            Err(Errno::INTR) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// A range beyond the end is refused before anything of it is copied.
fn expect_source(source: &OwnedFd, piece: &Cloned<'_>) -> Applied<()> {
    let path = piece.source_path;
    let size = rustix::fs::fstat(source).on("stat", path)?.st_size;
    let end = piece.source_offset.saturating_add(piece.len);
    if u64::try_from(size).unwrap_or(0) < end {
        return refuse(format!(
            "clone source {} ends before the range",
            shown(path)
        ));
    }
    Ok(())
}

fn copy(file: &OwnedFd, source: &OwnedFd, piece: &Cloned<'_>) -> Applied<()> {
    let mut buffer = vec![0; COPY_BYTES];
    let mut done = 0;
    while done < piece.len {
        let want =
            usize::try_from(piece.len - done).map_or(COPY_BYTES, |rest| rest.min(COPY_BYTES));
        let count = match rustix::io::pread(source, &mut buffer[..want], piece.source_offset + done)
        {
            Ok(0) => {
                let path = shown(piece.source_path);
                return refuse(format!("clone source {path} ends before the range"));
            }
            Ok(count) => count,
            Err(Errno::INTR) => continue,
            Err(error) => return Err(error).on("read clone source", piece.source_path),
        };
        write_all(file, piece.offset + done, &buffer[..count]).on("write", piece.path)?;
        done += count as u64;
    }
    Ok(())
}
