//! The btrfs send stream: its commands as typed values, borrowed from the bytes they came in.
//!
//! Promise: what [`Parser`] yields passed its length bounds and checksum, has every attribute it needs, exactly once and
//! of the right size. Paths are byte strings and no more: whether one may be followed is decided where it is used
//! (`apply`). [`Encoder`] writes the same format, for tests and fuzzing.
//!
//! Source of every number here: the kernel's fs/btrfs/send.h. It deliberately does not know the disk.

mod attrs;
mod encode;
mod parser;
#[cfg(test)]
mod tests;
mod typed;

pub use encode::Encoder;
pub use parser::{Parser, Piece, Step, Taken};

use uuid::Uuid;

/// First bytes of every stream, before the version.
pub const MAGIC: &[u8; 13] = b"btrfs-stream\0";

/// Magic and version, in bytes.
pub const HEADER_BYTES: usize = 17;

/// Length, number and checksum of a command, in bytes.
pub const COMMAND_HEADER_BYTES: usize = 10;

/// Newest version whose format is known. Version 3 only adds fs-verity.
pub const VERSION_MAX: u32 = 3;

/// Longest command, header included, in bytes. Version 1: the kernel's 64 KiB buffer; from 2 on 16 KiB + 128 KiB, rounded
/// up to a page, which has 64 KiB on some machines.
pub fn command_bytes_max(version: u32) -> usize {
    if version < 2 {
        64 << 10
    } else {
        (16 << 10) + (128 << 10) + (64 << 10)
    }
}

/// Checksum of a command: CRC32C with seed 0 and no final inversion, over the header with a zero checksum and the payload.
pub(crate) fn checksum(length_and_number: &[u8], payload: &[u8]) -> u32 {
    let crc = crc32c::crc32c_append(!0, length_and_number);
    let crc = crc32c::crc32c_append(crc, &[0; 4]);
    !crc32c::crc32c_append(crc, payload)
}

macro_rules! kinds {
    ($($kind:ident = $number:literal $name:literal,)*) => {
        /// The commands by number.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[repr(u16)]
        pub enum Kind { $($kind = $number,)* }

        impl Kind {
            pub const ALL: &'static [Kind] = &[$(Kind::$kind,)*];

            pub fn of(number: u16) -> Option<Kind> {
                match number { $($number => Some(Kind::$kind),)* _ => None }
            }

            /// As `btrfs receive --dump` spells it.
            pub fn name(self) -> &'static str {
                match self { $(Kind::$kind => $name,)* }
            }
        }
    };
}

kinds! {
    Subvol = 1 "subvol",
    Snapshot = 2 "snapshot",
    Mkfile = 3 "mkfile",
    Mkdir = 4 "mkdir",
    Mknod = 5 "mknod",
    Mkfifo = 6 "mkfifo",
    Mksock = 7 "mksock",
    Symlink = 8 "symlink",
    Rename = 9 "rename",
    Link = 10 "link",
    Unlink = 11 "unlink",
    Rmdir = 12 "rmdir",
    SetXattr = 13 "set_xattr",
    RemoveXattr = 14 "remove_xattr",
    Write = 15 "write",
    Clone = 16 "clone",
    Truncate = 17 "truncate",
    Chmod = 18 "chmod",
    Chown = 19 "chown",
    Utimes = 20 "utimes",
    End = 21 "end",
    UpdateExtent = 22 "update_extent",
    Fallocate = 23 "fallocate",
    Fileattr = 24 "fileattr",
    EncodedWrite = 25 "encoded_write",
    EnableVerity = 26 "enable_verity",
}

/// Attribute numbers.
pub mod attr {
    pub const UUID: u16 = 1;
    pub const CTRANSID: u16 = 2;
    pub const INO: u16 = 3;
    pub const SIZE: u16 = 4;
    pub const MODE: u16 = 5;
    pub const UID: u16 = 6;
    pub const GID: u16 = 7;
    pub const RDEV: u16 = 8;
    pub const CTIME: u16 = 9;
    pub const MTIME: u16 = 10;
    pub const ATIME: u16 = 11;
    pub const OTIME: u16 = 12;
    pub const XATTR_NAME: u16 = 13;
    pub const XATTR_DATA: u16 = 14;
    pub const PATH: u16 = 15;
    pub const PATH_TO: u16 = 16;
    pub const PATH_LINK: u16 = 17;
    pub const FILE_OFFSET: u16 = 18;
    /// From version 2 on without a length: it is the last attribute and runs to the end of the command.
    pub const DATA: u16 = 19;
    pub const CLONE_UUID: u16 = 20;
    pub const CLONE_CTRANSID: u16 = 21;
    pub const CLONE_PATH: u16 = 22;
    pub const CLONE_OFFSET: u16 = 23;
    pub const CLONE_LEN: u16 = 24;
    pub const FALLOCATE_MODE: u16 = 25;
    pub const FILEATTR: u16 = 26;
    pub const UNENCODED_FILE_LEN: u16 = 27;
    pub const UNENCODED_LEN: u16 = 28;
    pub const UNENCODED_OFFSET: u16 = 29;
    pub const COMPRESSION: u16 = 30;
    pub const ENCRYPTION: u16 = 31;
    pub const VERITY_ALGORITHM: u16 = 32;
    pub const VERITY_BLOCK_SIZE: u16 = 33;
    pub const VERITY_SALT: u16 = 34;
    pub const VERITY_SIGNATURE: u16 = 35;
}

/// A moment of a file's times.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Moment {
    /// Seconds since 1970; negative before.
    pub seconds: i64,
    /// Below 1,000,000,000.
    pub nanoseconds: u32,
}

/// A piece of compressed file data, as the source's disk holds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Encoded<'a> {
    pub path: &'a [u8],
    pub offset: u64,
    /// Bytes of the file that it covers.
    pub file_len: u64,
    /// Bytes when decompressed; at most 128 KiB.
    pub len: u64,
    /// Where in the decompressed bytes those of the file begin.
    pub skip: u64,
    /// 1 zlib, 2 zstd, 3 to 7 lzo by sector size (linux/btrfs.h).
    pub compression: u32,
    pub encryption: u32,
    pub data: &'a [u8],
}

/// Where a clone takes its bytes from and where they go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cloned<'a> {
    pub path: &'a [u8],
    pub offset: u64,
    pub len: u64,
    pub source: Uuid,
    pub source_ctransid: u64,
    pub source_path: &'a [u8],
    pub source_offset: u64,
}

/// One command. Paths are relative to the subvolume; the empty path is its top directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command<'a> {
    Subvol {
        path: &'a [u8],
        uuid: Uuid,
        ctransid: u64,
    },
    Snapshot {
        path: &'a [u8],
        uuid: Uuid,
        ctransid: u64,
        base: Uuid,
        base_ctransid: u64,
    },
    Mkfile {
        path: &'a [u8],
        /// Its inode number at the source; kernels always tell.
        inode: Option<u64>,
    },
    Mkdir {
        path: &'a [u8],
        inode: Option<u64>,
    },
    Mknod {
        path: &'a [u8],
        mode: u64,
        device: u64,
    },
    Mkfifo {
        path: &'a [u8],
    },
    Mksock {
        path: &'a [u8],
    },
    Symlink {
        path: &'a [u8],
        target: &'a [u8],
    },
    Rename {
        from: &'a [u8],
        to: &'a [u8],
    },
    /// A further name, `path`, for what `existing` names.
    Link {
        path: &'a [u8],
        existing: &'a [u8],
    },
    Unlink {
        path: &'a [u8],
    },
    Rmdir {
        path: &'a [u8],
    },
    SetXattr {
        path: &'a [u8],
        name: &'a [u8],
        value: &'a [u8],
    },
    RemoveXattr {
        path: &'a [u8],
        name: &'a [u8],
    },
    Write {
        path: &'a [u8],
        offset: u64,
        data: &'a [u8],
    },
    Clone(Cloned<'a>),
    Truncate {
        path: &'a [u8],
        size: u64,
    },
    Chmod {
        path: &'a [u8],
        mode: u64,
    },
    Chown {
        path: &'a [u8],
        uid: u64,
        gid: u64,
    },
    Utimes {
        path: &'a [u8],
        accessed: Moment,
        modified: Moment,
        changed: Moment,
    },
    End,
    /// Stands for a write in a stream without file data.
    UpdateExtent {
        path: &'a [u8],
        offset: u64,
        len: u64,
    },
    Fallocate {
        path: &'a [u8],
        mode: u32,
        offset: u64,
        len: u64,
    },
    /// Inode flags as btrfs stores them (`BTRFS_INODE_*`), not those of chattr.
    Fileattr {
        path: &'a [u8],
        flags: u64,
    },
    EncodedWrite(Encoded<'a>),
    EnableVerity {
        path: &'a [u8],
    },
}

impl<'a> Command<'a> {
    pub fn kind(&self) -> Kind {
        match self {
            Command::Subvol { .. } => Kind::Subvol,
            Command::Snapshot { .. } => Kind::Snapshot,
            Command::Mkfile { .. } => Kind::Mkfile,
            Command::Mkdir { .. } => Kind::Mkdir,
            Command::Mknod { .. } => Kind::Mknod,
            Command::Mkfifo { .. } => Kind::Mkfifo,
            Command::Mksock { .. } => Kind::Mksock,
            Command::Symlink { .. } => Kind::Symlink,
            Command::Rename { .. } => Kind::Rename,
            Command::Link { .. } => Kind::Link,
            Command::Unlink { .. } => Kind::Unlink,
            Command::Rmdir { .. } => Kind::Rmdir,
            Command::SetXattr { .. } => Kind::SetXattr,
            Command::RemoveXattr { .. } => Kind::RemoveXattr,
            Command::Write { .. } => Kind::Write,
            Command::Clone(_) => Kind::Clone,
            Command::Truncate { .. } => Kind::Truncate,
            Command::Chmod { .. } => Kind::Chmod,
            Command::Chown { .. } => Kind::Chown,
            Command::Utimes { .. } => Kind::Utimes,
            Command::End => Kind::End,
            Command::UpdateExtent { .. } => Kind::UpdateExtent,
            Command::Fallocate { .. } => Kind::Fallocate,
            Command::Fileattr { .. } => Kind::Fileattr,
            Command::EncodedWrite(_) => Kind::EncodedWrite,
            Command::EnableVerity { .. } => Kind::EnableVerity,
        }
    }

    /// File data it carries, in bytes as the file will hold them.
    pub fn data_bytes(&self) -> u64 {
        match self {
            Command::Write { data, .. } => data.len() as u64,
            Command::EncodedWrite(piece) => piece.file_len,
            Command::UpdateExtent { len, .. } => *len,
            _ => 0,
        }
    }

    /// The file whose data it carries.
    pub fn data_path(&self) -> Option<&'a [u8]> {
        match self {
            Command::Write { path, .. } | Command::UpdateExtent { path, .. } => Some(path),
            Command::EncodedWrite(piece) => Some(piece.path),
            Command::Clone(piece) => Some(piece.path),
            _ => None,
        }
    }
}
