//! Writes send streams: what tests and fuzzers feed to the parser and the applier.
//!
//! Promise: what [`Encoder::put`] writes, the parser reads back equal; [`Encoder::raw`] writes anything that can be framed,
//! right or wrong, with a correct checksum.

use super::{COMMAND_HEADER_BYTES, Cloned, Command, MAGIC, Moment, attr, checksum};

/// A stream being built.
#[derive(Debug, Clone)]
pub struct Encoder {
    version: u32,
    bytes: Vec<u8>,
}

type Attr = (u16, Vec<u8>);

impl Encoder {
    /// Begins with a stream header.
    pub fn new(version: u32) -> Encoder {
        let mut bytes = MAGIC.to_vec();
        bytes.extend_from_slice(&version.to_le_bytes());
        Encoder { version, bytes }
    }

    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    /// A command of any number with any attributes, in that order.
    pub fn raw(&mut self, number: u16, attrs: &[(u16, &[u8])]) -> &mut Encoder {
        let mut payload = Vec::new();
        for (number, value) in attrs {
            payload.extend_from_slice(&number.to_le_bytes());
            if *number != attr::DATA || self.version < 2 {
                payload.extend_from_slice(&(value.len() as u16).to_le_bytes());
            }
            payload.extend_from_slice(value);
        }
        self.framed(number, &payload)
    }

    /// A command of any number with any payload.
    pub fn framed(&mut self, number: u16, payload: &[u8]) -> &mut Encoder {
        let mut head = [0; COMMAND_HEADER_BYTES];
        head[..4].copy_from_slice(&(payload.len() as u32).to_le_bytes());
        head[4..6].copy_from_slice(&number.to_le_bytes());
        let crc = checksum(&head[..6], payload);
        head[6..].copy_from_slice(&crc.to_le_bytes());
        self.bytes.extend_from_slice(&head);
        self.bytes.extend_from_slice(payload);
        self
    }

    pub fn put(&mut self, command: &Command<'_>) -> &mut Encoder {
        let attrs = attributes(command);
        let attrs: Vec<(u16, &[u8])> = attrs
            .iter()
            .map(|(number, value)| (*number, value.as_slice()))
            .collect();
        self.raw(command.kind() as u16, &attrs)
    }
}

fn number(kind: u16, value: u64) -> Attr {
    (kind, value.to_le_bytes().to_vec())
}

fn number32(kind: u16, value: u32) -> Attr {
    (kind, value.to_le_bytes().to_vec())
}

fn bytes(kind: u16, value: &[u8]) -> Attr {
    (kind, value.to_vec())
}

fn time(kind: u16, moment: Moment) -> Attr {
    let mut value = moment.seconds.to_le_bytes().to_vec();
    value.extend_from_slice(&moment.nanoseconds.to_le_bytes());
    (kind, value)
}

/// In the kernel's order.
fn attributes(command: &Command<'_>) -> Vec<Attr> {
    let path = |path: &[u8]| bytes(attr::PATH, path);
    let with = |of: &[u8], rest: Vec<Attr>| std::iter::once(path(of)).chain(rest).collect();
    match *command {
        Command::Mkfile { path: of, inode } | Command::Mkdir { path: of, inode } => {
            let inode = inode.map(|inode| number(attr::INO, inode));
            with(of, inode.into_iter().collect())
        }
        Command::Mkfifo { path: of }
        | Command::Mksock { path: of }
        | Command::Unlink { path: of }
        | Command::Rmdir { path: of }
        | Command::EnableVerity { path: of } => vec![path(of)],
        Command::Mknod {
            path: of,
            mode,
            device,
        } => with(
            of,
            vec![number(attr::RDEV, device), number(attr::MODE, mode)],
        ),
        Command::Symlink { path: of, target } => with(of, vec![bytes(attr::PATH_LINK, target)]),
        Command::Rename { from, to } => with(from, vec![bytes(attr::PATH_TO, to)]),
        Command::Link { path: of, existing } => with(of, vec![bytes(attr::PATH_LINK, existing)]),
        Command::SetXattr {
            path: of,
            name,
            value,
        } => with(
            of,
            vec![
                bytes(attr::XATTR_NAME, name),
                bytes(attr::XATTR_DATA, value),
            ],
        ),
        Command::RemoveXattr { path: of, name } => with(of, vec![bytes(attr::XATTR_NAME, name)]),
        Command::Truncate { path: of, size } => with(of, vec![number(attr::SIZE, size)]),
        Command::Chmod { path: of, mode } => with(of, vec![number(attr::MODE, mode)]),
        Command::Chown { path: of, uid, gid } => {
            with(of, vec![number(attr::UID, uid), number(attr::GID, gid)])
        }
        Command::Utimes {
            path: of,
            accessed,
            modified,
            changed,
        } => with(
            of,
            vec![
                time(attr::ATIME, accessed),
                time(attr::MTIME, modified),
                time(attr::CTIME, changed),
            ],
        ),
        Command::Fileattr { path: of, flags } => with(of, vec![number(attr::FILEATTR, flags)]),
        Command::End => Vec::new(),
        Command::Subvol { .. }
        | Command::Snapshot { .. }
        | Command::Write { .. }
        | Command::Clone(_)
        | Command::UpdateExtent { .. }
        | Command::Fallocate { .. }
        | Command::EncodedWrite(_) => of_data(command),
    }
}

/// The attributes of commands that name a subvolume or carry data.
fn of_data(command: &Command<'_>) -> Vec<Attr> {
    let start =
        |path: &[u8], offset: u64| vec![bytes(attr::PATH, path), number(attr::FILE_OFFSET, offset)];
    let identity = |path: &[u8], uuid: uuid::Uuid, ctransid: u64| {
        vec![
            bytes(attr::PATH, path),
            bytes(attr::UUID, uuid.as_bytes()),
            number(attr::CTRANSID, ctransid),
        ]
    };
    let (mut attrs, rest) = match *command {
        Command::Subvol {
            path,
            uuid,
            ctransid,
        } => (identity(path, uuid, ctransid), vec![]),
        Command::Snapshot {
            path,
            uuid,
            ctransid,
            base,
            base_ctransid,
        } => (
            identity(path, uuid, ctransid),
            vec![
                bytes(attr::CLONE_UUID, base.as_bytes()),
                number(attr::CLONE_CTRANSID, base_ctransid),
            ],
        ),
        Command::Write { path, offset, data } => {
            (start(path, offset), vec![bytes(attr::DATA, data)])
        }
        Command::Clone(piece) => (of_clone(&piece), vec![]),
        Command::UpdateExtent { path, offset, len } => {
            (start(path, offset), vec![number(attr::SIZE, len)])
        }
        Command::Fallocate {
            path,
            mode,
            offset,
            len,
        } => (
            vec![
                bytes(attr::PATH, path),
                number32(attr::FALLOCATE_MODE, mode),
            ],
            vec![number(attr::FILE_OFFSET, offset), number(attr::SIZE, len)],
        ),
        Command::EncodedWrite(piece) => (
            start(piece.path, piece.offset),
            vec![
                number(attr::UNENCODED_FILE_LEN, piece.file_len),
                number(attr::UNENCODED_LEN, piece.len),
                number(attr::UNENCODED_OFFSET, piece.skip),
                number32(attr::COMPRESSION, piece.compression),
                number32(attr::ENCRYPTION, piece.encryption),
                bytes(attr::DATA, piece.data),
            ],
        ),
        _ => (vec![], vec![]),
    };
    attrs.extend(rest);
    attrs
}

fn of_clone(piece: &Cloned<'_>) -> Vec<Attr> {
    vec![
        number(attr::FILE_OFFSET, piece.offset),
        number(attr::CLONE_LEN, piece.len),
        bytes(attr::PATH, piece.path),
        bytes(attr::CLONE_UUID, piece.source.as_bytes()),
        number(attr::CLONE_CTRANSID, piece.source_ctransid),
        bytes(attr::CLONE_PATH, piece.source_path),
        number(attr::CLONE_OFFSET, piece.source_offset),
    ]
}
