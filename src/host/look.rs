//! Looks at single entries of a tree that others filled: what they are, and what a text file says.
//!
//! Promise: nothing outside of the tree is opened, whatever links are in it, and nothing that is no plain file is read; reads
//! are bounded. Writes nothing. It deliberately does not know whose tree it is.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use anyhow::{Context, Result};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags, Statx, StatxFlags};

use crate::logic::changes::EntryKind;
use crate::logic::compare::Entry;

/// A tree, by its top.
pub struct Tree {
    top: File,
}

/// What a file says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Told {
    Text(String),
    /// Bytes that are no text.
    Binary,
    TooLarge,
}

impl Tree {
    pub fn open(top: &Path) -> Result<Tree> {
        let top = File::open(top).with_context(|| format!("open {}", top.display()))?;
        Ok(Tree { top })
    }

    /// When its top was made: equal for a subvolume and all that descends from it. None where the filesystem does not say.
    pub fn born(&self) -> Option<(i64, u32)> {
        let found =
            rustix::fs::statx(&self.top, "", AtFlags::EMPTY_PATH, StatxFlags::BTIME).ok()?;
        let says = found.stx_mask & StatxFlags::BTIME.bits() != 0;
        says.then_some((found.stx_btime.tv_sec, found.stx_btime.tv_nsec))
    }

    /// None where nothing is there.
    pub fn entry(&self, path: &[u8]) -> io::Result<Option<Entry>> {
        let opened = self.inside(path, OFlags::PATH | OFlags::NOFOLLOW);
        let entry = match opened {
            Err(e)
                if e.kind() == io::ErrorKind::NotFound
                    || e.kind() == io::ErrorKind::NotADirectory =>
            {
                return Ok(None);
            }
            opened => opened?,
        };
        let found = rustix::fs::statx(&entry, "", AtFlags::EMPTY_PATH, StatxFlags::BASIC_STATS)?;
        Ok(Some(entry_of(&found)))
    }

    /// The text of a plain file of at most so many bytes.
    pub fn text(&self, path: &[u8], bytes_max: u64) -> io::Result<Told> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK;
        let file = File::from(self.inside(path, flags)?);
        if !file.metadata()?.is_file() {
            return Ok(Told::Binary);
        }
        let mut bytes = Vec::new();
        file.take(bytes_max + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > bytes_max {
            return Ok(Told::TooLarge);
        }
        // Texts have none of the first control characters, whatever else is in them.
        if bytes.iter().any(|byte| *byte < 8) {
            return Ok(Told::Binary);
        }
        Ok(String::from_utf8(bytes).map_or(Told::Binary, Told::Text))
    }

    fn inside(&self, path: &[u8], flags: OFlags) -> io::Result<OwnedFd> {
        let path = match path {
            b"" => OsStr::new("."),
            path => OsStr::from_bytes(path),
        };
        let resolve =
            ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        let flags = flags | OFlags::CLOEXEC;
        Ok(rustix::fs::openat2(
            &self.top,
            path,
            flags,
            Mode::empty(),
            resolve,
        )?)
    }
}

fn entry_of(found: &Statx) -> Entry {
    let kind = match FileType::from_raw_mode(found.stx_mode.into()) {
        FileType::RegularFile => EntryKind::File,
        FileType::Directory => EntryKind::Directory,
        FileType::Symlink => EntryKind::Symlink,
        _ => EntryKind::Special,
    };
    Entry {
        kind,
        inode: found.stx_ino,
        bytes: found.stx_size,
        mode: found.stx_mode,
        uid: found.stx_uid,
        gid: found.stx_gid,
        modified: (found.stx_mtime.tv_sec, found.stx_mtime.tv_nsec),
        attributes: found.stx_attributes.bits(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_there() {
        let dir = tempfile::tempdir().unwrap();
        let outside = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(outside.path(), "secret").unwrap();
        let at = |name: &str| dir.path().join(name);
        std::fs::create_dir(at("d")).unwrap();
        std::fs::write(at("d/text"), "line\n").unwrap();
        std::fs::write(at("d/binary"), b"a\x01b").unwrap();
        std::fs::write(at("d/latin"), b"\xe9").unwrap();
        std::os::unix::fs::symlink(outside.path(), at("link")).unwrap();
        std::os::unix::fs::symlink("d", at("inside")).unwrap();
        let tree = Tree::open(dir.path()).unwrap();
        let kind = |path: &str| tree.entry(path.as_bytes()).unwrap().map(|entry| entry.kind);
        assert_eq!(kind(""), Some(EntryKind::Directory));
        assert_eq!(kind("d/text"), Some(EntryKind::File));
        assert_eq!(kind("link"), Some(EntryKind::Symlink));
        assert_eq!(kind("d/none"), None);
        assert_eq!(kind("d/text/x"), None);
        assert!(tree.entry(b"inside/text").is_err(), "no link is followed");
        assert!(tree.entry(b"../x").is_err());
        assert_eq!(
            tree.text(b"d/text", 9).unwrap(),
            Told::Text("line\n".into())
        );
        assert_eq!(tree.text(b"d/text", 4).unwrap(), Told::TooLarge);
        assert_eq!(tree.text(b"d/binary", 9).unwrap(), Told::Binary);
        assert_eq!(tree.text(b"d/latin", 9).unwrap(), Told::Binary);
        assert_eq!(tree.text(b"d", 9).unwrap(), Told::Binary);
        assert!(tree.text(b"link", 9).is_err());
    }
}
