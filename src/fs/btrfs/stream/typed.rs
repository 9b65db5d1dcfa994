//! From a command's number and attributes to its typed value.
//!
//! Promise: every attribute that the command needs is there and in range. It deliberately does not know framing.

use super::attrs::Attrs;
use super::{Cloned, Command, Encoded, Kind, attr};

type Read<'a> = Result<Command<'a>, String>;

pub(super) fn typed<'a>(kind: Kind, attrs: &Attrs<'a>) -> Read<'a> {
    match kind {
        Kind::End => Ok(Command::End),
        Kind::Subvol
        | Kind::Snapshot
        | Kind::Mkfile
        | Kind::Mkdir
        | Kind::Mkfifo
        | Kind::Mksock
        | Kind::Mknod
        | Kind::Symlink => making(kind, attrs),
        Kind::Rename | Kind::Link | Kind::Unlink | Kind::Rmdir => naming(kind, attrs),
        Kind::SetXattr
        | Kind::RemoveXattr
        | Kind::Truncate
        | Kind::Chmod
        | Kind::Chown
        | Kind::Utimes
        | Kind::Fileattr
        | Kind::EnableVerity => describing(kind, attrs),
        Kind::Write | Kind::Clone | Kind::UpdateExtent | Kind::Fallocate | Kind::EncodedWrite => {
            filling(kind, attrs)
        }
    }
}

fn making<'a>(kind: Kind, attrs: &Attrs<'a>) -> Read<'a> {
    let path = attrs.path(attr::PATH)?;
    Ok(match kind {
        Kind::Subvol => Command::Subvol {
            path,
            uuid: attrs.uuid(attr::UUID)?,
            ctransid: attrs.u64(attr::CTRANSID)?,
        },
        Kind::Snapshot => Command::Snapshot {
            path,
            uuid: attrs.uuid(attr::UUID)?,
            ctransid: attrs.u64(attr::CTRANSID)?,
            base: attrs.uuid(attr::CLONE_UUID)?,
            base_ctransid: attrs.u64(attr::CLONE_CTRANSID)?,
        },
        Kind::Mkfile => Command::Mkfile {
            path,
            inode: attrs.u64_if_any(attr::INO)?,
        },
        Kind::Mkdir => Command::Mkdir {
            path,
            inode: attrs.u64_if_any(attr::INO)?,
        },
        Kind::Mkfifo => Command::Mkfifo { path },
        Kind::Mksock => Command::Mksock { path },
        Kind::Mknod => Command::Mknod {
            path,
            mode: attrs.u64(attr::MODE)?,
            device: attrs.u64(attr::RDEV)?,
        },
        _ => Command::Symlink {
            path,
            target: attrs.path(attr::PATH_LINK)?,
        },
    })
}

fn naming<'a>(kind: Kind, attrs: &Attrs<'a>) -> Read<'a> {
    let path = attrs.path(attr::PATH)?;
    Ok(match kind {
        Kind::Rename => Command::Rename {
            from: path,
            to: attrs.path(attr::PATH_TO)?,
        },
        Kind::Link => Command::Link {
            path,
            existing: attrs.path(attr::PATH_LINK)?,
        },
        Kind::Unlink => Command::Unlink { path },
        _ => Command::Rmdir { path },
    })
}

fn describing<'a>(kind: Kind, attrs: &Attrs<'a>) -> Read<'a> {
    let path = attrs.path(attr::PATH)?;
    Ok(match kind {
        Kind::SetXattr => Command::SetXattr {
            path,
            name: attrs.xattr_name()?,
            value: attrs.bytes(attr::XATTR_DATA)?,
        },
        Kind::RemoveXattr => Command::RemoveXattr {
            path,
            name: attrs.xattr_name()?,
        },
        Kind::Truncate => {
            let size = attrs.u64(attr::SIZE)?;
            in_range(0, size)?;
            Command::Truncate { path, size }
        }
        Kind::Chmod => Command::Chmod {
            path,
            mode: attrs.u64(attr::MODE)?,
        },
        Kind::Chown => Command::Chown {
            path,
            uid: attrs.u64(attr::UID)?,
            gid: attrs.u64(attr::GID)?,
        },
        Kind::Utimes => Command::Utimes {
            path,
            accessed: attrs.moment(attr::ATIME)?,
            modified: attrs.moment(attr::MTIME)?,
            changed: attrs.moment(attr::CTIME)?,
        },
        Kind::Fileattr => Command::Fileattr {
            path,
            flags: attrs.u64(attr::FILEATTR)?,
        },
        _ => Command::EnableVerity { path },
    })
}

fn filling<'a>(kind: Kind, attrs: &Attrs<'a>) -> Read<'a> {
    let path = attrs.path(attr::PATH)?;
    let offset = attrs.u64(attr::FILE_OFFSET)?;
    let (command, len) = match kind {
        Kind::Clone => {
            let piece = cloned(path, offset, attrs)?;
            (Command::Clone(piece), piece.len)
        }
        Kind::EncodedWrite => {
            let piece = encoded(path, offset, attrs)?;
            (Command::EncodedWrite(piece), piece.file_len)
        }
        Kind::UpdateExtent => {
            let len = attrs.u64(attr::SIZE)?;
            (Command::UpdateExtent { path, offset, len }, len)
        }
        Kind::Fallocate => {
            let mode = attrs.u32(attr::FALLOCATE_MODE)?;
            let len = attrs.u64(attr::SIZE)?;
            let command = Command::Fallocate {
                path,
                mode,
                offset,
                len,
            };
            (command, len)
        }
        _ => {
            let data = attrs.bytes(attr::DATA)?;
            (Command::Write { path, offset, data }, data.len() as u64)
        }
    };
    in_range(offset, len)?;
    Ok(command)
}

fn cloned<'a>(path: &'a [u8], offset: u64, attrs: &Attrs<'a>) -> Result<Cloned<'a>, String> {
    let piece = Cloned {
        path,
        offset,
        len: attrs.u64(attr::CLONE_LEN)?,
        source: attrs.uuid(attr::CLONE_UUID)?,
        source_ctransid: attrs.u64(attr::CLONE_CTRANSID)?,
        source_path: attrs.path(attr::CLONE_PATH)?,
        source_offset: attrs.u64(attr::CLONE_OFFSET)?,
    };
    in_range(piece.source_offset, piece.len)?;
    Ok(piece)
}

fn encoded<'a>(path: &'a [u8], offset: u64, attrs: &Attrs<'a>) -> Result<Encoded<'a>, String> {
    let piece = Encoded {
        path,
        offset,
        file_len: attrs.u64(attr::UNENCODED_FILE_LEN)?,
        len: attrs.u64(attr::UNENCODED_LEN)?,
        skip: attrs.u64(attr::UNENCODED_OFFSET)?,
        compression: attrs.u32_or_zero(attr::COMPRESSION)?,
        encryption: attrs.u32_or_zero(attr::ENCRYPTION)?,
        data: attrs.bytes(attr::DATA)?,
    };
    let end = piece.skip.checked_add(piece.file_len);
    if end.is_none_or(|end| end > piece.len) {
        return Err("the part of the file is not inside the decompressed data".into());
    }
    Ok(piece)
}

/// File offsets are signed in the kernel.
fn in_range(offset: u64, len: u64) -> Result<(), String> {
    match offset.checked_add(len) {
        Some(end) if i64::try_from(end).is_ok() => Ok(()),
        _ => Err(format!(
            "{len} bytes at {offset} are beyond the largest file"
        )),
    }
}
