//! What differs between two read-only snapshots, from the stream that makes the one into the other.
//!
//! The kernel compares the trees by their metadata and names what changed; file data is neither read nor sent. Nothing is
//! walked, so the cost follows the changes, not the trees.
//!
//! Promise: what it says is what a send of the same two snapshots would carry. Writes nothing: a crash leaves nothing.
//! The work of making sense of the commands is `logic::changes`; it deliberately does not know forks or lines.

use anyhow::Context;

use super::catalogue::Catalogue;
use super::forks;
use super::look;
use super::send::{self, Side};
use super::stream::{Command, Parser, Piece};
use crate::fs::{Held, Result};
use crate::logic::changes::{Change, Deed, EntryKind, Fold, Span};
use crate::logic::name::DatasetName;

/// Read size, in bytes.
const READ_BYTES: usize = 256 << 10;

/// Format of a file (S_IFMT and its values for a directory and a plain file, stat(2)): `mknod` can make any.
const FORMAT: u64 = 0o170_000;

/// See `Filesystem::changes`.
pub fn changes(
    catalogue: &Catalogue<'_>,
    dataset: &DatasetName,
    base: &Held,
    newer: &Held,
) -> Result<Vec<Change>> {
    let label = format!("the changes of {dataset}");
    let base = side(catalogue, dataset, base)?;
    let newer = side(catalogue, dataset, newer)?;
    let mut stream = send::difference(dataset, label, base, newer)?;
    let mut buffer = vec![0; READ_BYTES];
    let mut parser = Parser::new();
    let mut fold = Fold::new(true);
    loop {
        let bytes = stream.read(&mut buffer).context("read the changes")?;
        if bytes == 0 {
            break;
        }
        let mut rest = &buffer[..bytes];
        while !rest.is_empty() {
            let taken = parser.next(rest)?;
            if let Some(Piece::Command(command)) = taken.step.map(|step| step.piece) {
                if let Some(deed) = deed(&command) {
                    fold.push(deed)?;
                }
            }
            rest = &rest[taken.used..];
        }
    }
    stream.finish().context("compare the two snapshots")?;
    Ok(fold.finish())
}

fn side(catalogue: &Catalogue<'_>, dataset: &DatasetName, held: &Held) -> Result<Side> {
    match held {
        Held::Point(id) => Side::open(catalogue, &catalogue.find(id)?, dataset),
        Held::Forked(fork, id) => {
            let (found, uses) = forks::snapshot(catalogue, fork, dataset, Some(id))?;
            Side::at(&found.path, uses)
        }
        Held::Copy(name) => {
            let (path, held) = look::copy(catalogue, dataset, name)?;
            Side::at(&path, vec![held])
        }
    }
}

/// What a command does to the tree; none where it does nothing to it.
fn deed<'a>(command: &Command<'a>) -> Option<Deed<'a>> {
    let make = |path, kind| Some(Deed::Make { path, kind });
    let write = |path, offset, len, own| {
        let span = Span { offset, len };
        Some(Deed::Write { path, span, own })
    };
    match *command {
        Command::Mkfile { path, .. } => make(path, EntryKind::File),
        Command::Mkdir { path, .. } => make(path, EntryKind::Directory),
        Command::Symlink { path, .. } => make(path, EntryKind::Symlink),
        Command::Mknod { path, mode, .. } => match mode & FORMAT {
            0o040_000 => make(path, EntryKind::Directory),
            0o100_000 => make(path, EntryKind::File),
            _ => make(path, EntryKind::Special),
        },
        Command::Mkfifo { path } | Command::Mksock { path } => make(path, EntryKind::Special),
        Command::Rename { from, to } => Some(Deed::Rename { from, to }),
        Command::Link { path, existing } => Some(Deed::Link { path, existing }),
        Command::Unlink { path } => Some(Deed::Unlink { path }),
        Command::Rmdir { path } => Some(Deed::Rmdir { path }),
        Command::Write { path, offset, data } => {
            write(path, offset, data.len() as u64, data.len() as u64)
        }
        Command::UpdateExtent { path, offset, len } => write(path, offset, len, len),
        Command::EncodedWrite(piece) => {
            write(piece.path, piece.offset, piece.file_len, piece.file_len)
        }
        // Shared with another file, or nothing at all.
        Command::Clone(piece) => write(piece.path, piece.offset, piece.len, 0),
        Command::Fallocate {
            path, offset, len, ..
        } => write(path, offset, len, 0),
        Command::Truncate { path, size } => Some(Deed::Resize { path, size }),
        Command::SetXattr { path, .. }
        | Command::RemoveXattr { path, .. }
        | Command::Chmod { path, .. }
        | Command::Chown { path, .. }
        | Command::Fileattr { path, .. }
        | Command::EnableVerity { path } => Some(Deed::Describe { path }),
        Command::Utimes { path, changed, .. } => Some(Deed::Times {
            path,
            changed: changed.seconds,
        }),
        Command::Subvol { .. } | Command::Snapshot { .. } | Command::End => None,
    }
}
