//! Commands that make, move and remove names.
//!
//! Promise: see `tree`. Modes given here are private ones; the stream sets owner, mode and times afterwards.

use std::os::fd::OwnedFd;

use rustix::fs::{AtFlags, Dev, FileType, Mode, OFlags};
use rustix::io::Errno;

use super::fault::{Applied, Blame, refuse, shown};
use super::fresh::Fresh;
use super::tree::Tree;
use super::{Applier, Fault};

pub(super) const PRIVATE: Mode = Mode::RUSR.union(Mode::WUSR);

/// How new files are opened.
const NEW: OFlags = OFlags::CREATE
    .union(OFlags::EXCL)
    .union(OFlags::RDWR)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC)
    .union(OFlags::NOATIME);

impl Applier {
    pub(super) fn mkfile(&mut self, path: &[u8], inode: Option<u64>) -> Applied<()> {
        super::tree::check(path)?;
        self.fresh = Some(Fresh::new(path, inode));
        Ok(())
    }

    pub(super) fn mkfile_now(
        &mut self,
        path: &[u8],
        inode: Option<u64>,
        mode: Mode,
    ) -> Applied<()> {
        let file: OwnedFd = self.unlocking(&[path], |tree| {
            let (parent, name) = tree.parent(path)?;
            rustix::fs::openat(parent, name, NEW, mode).on("create", path)
        })?;
        self.give_flags(path, &file, inode)?;
        self.keep_open(path, file);
        Ok(())
    }

    pub(super) fn mkdir(&mut self, path: &[u8], inode: Option<u64>) -> Applied<()> {
        self.unlocking(&[path], |tree| {
            let (parent, name) = tree.parent(path)?;
            rustix::fs::mkdirat(parent, name, Mode::RWXU).on("create directory", path)
        })?;
        if self.has_flags(inode) {
            if let Some(directory) = self.tree.open_plain(path)? {
                self.give_flags(path, &directory, inode)?;
            }
        }
        Ok(())
    }

    pub(super) fn mknod(&mut self, path: &[u8], mode: u64, device: u64) -> Applied<()> {
        let mode = u32::try_from(mode).unwrap_or(0);
        let kind = FileType::from_raw_mode(mode);
        if !matches!(kind, FileType::CharacterDevice | FileType::BlockDevice) {
            return refuse(format!("mode {mode:o} is not that of a device"));
        }
        if !self.accepts_device(path)? {
            return self.mkfile(path, None);
        }
        self.node(path, kind, device)
    }

    pub(super) fn mkfifo(&mut self, path: &[u8]) -> Applied<()> {
        self.node(path, FileType::Fifo, 0)
    }

    pub(super) fn mksock(&mut self, path: &[u8]) -> Applied<()> {
        self.node(path, FileType::Socket, 0)
    }

    fn node(&mut self, path: &[u8], kind: FileType, device: Dev) -> Applied<()> {
        self.unlocking(&[path], |tree| {
            let (parent, name) = tree.parent(path)?;
            rustix::fs::mknodat(parent, name, kind, PRIVATE, device).on("create node", path)
        })
    }

    pub(super) fn symlink(&mut self, path: &[u8], target: &[u8]) -> Applied<()> {
        if target.is_empty() || target.contains(&0) {
            return refuse("target of a symbolic link is empty or holds a zero byte");
        }
        self.unlocking(&[path], |tree| {
            let (parent, name) = tree.parent(path)?;
            rustix::fs::symlinkat(target, parent, name).on("create link", path)
        })
    }

    pub(super) fn rename(&mut self, from: &[u8], to: &[u8]) -> Applied<()> {
        self.unlocking(&[from, to], |tree| {
            let (old_parent, old_name) = tree.parent(from)?;
            let (new_parent, new_name) = tree.parent(to)?;
            rustix::fs::renameat(old_parent, old_name, new_parent, new_name).on("rename", from)
        })?;
        // The file just made and renamed is the one that is written next: it stays open.
        let open = self.open.take_if(|open| open.path == from);
        self.forget(from);
        self.forget(to);
        if let Some(mut open) = open {
            open.path = to.to_vec();
            self.open = Some(open);
        }
        self.later.renamed(from, to);
        Ok(())
    }

    pub(super) fn link(&mut self, path: &[u8], existing: &[u8]) -> Applied<()> {
        self.unlocking(&[existing, path], |tree| {
            let (old_parent, old_name) = tree.parent(existing)?;
            let (new_parent, new_name) = tree.parent(path)?;
            let flags = AtFlags::empty();
            rustix::fs::linkat(old_parent, old_name, new_parent, new_name, flags).on("link", path)
        })?;
        self.later.linked(path, existing);
        Ok(())
    }

    pub(super) fn unlink(&mut self, path: &[u8]) -> Applied<()> {
        self.remove(path, AtFlags::empty(), "unlink")
    }

    pub(super) fn rmdir(&mut self, path: &[u8]) -> Applied<()> {
        self.remove(path, AtFlags::REMOVEDIR, "remove directory")
    }

    fn remove(&mut self, path: &[u8], flags: AtFlags, what: &str) -> Applied<()> {
        let mut names = 0;
        self.unlocking(&[path], |tree| {
            names = tree.stat(path)?.st_nlink;
            let (parent, name) = tree.parent(path)?;
            rustix::fs::unlinkat(parent, name, flags).on(what, path)
        })?;
        self.forget(path);
        if self.later.removed(path) && names > 1 {
            self.lost(
                path,
                "immutable or append-only flag of a file with other names",
            );
        }
        Ok(())
    }

    /// Does `work`. If that is not permitted because the base holds one of `paths` or its directory immutable or
    /// append-only, takes the lock off until the end and does it again.
    pub(super) fn unlocking<T>(
        &mut self,
        paths: &[&[u8]],
        mut work: impl FnMut(&mut Tree) -> Applied<T>,
    ) -> Applied<T> {
        let first = match work(&mut self.tree) {
            Err(Fault::Denied(what, Errno::PERM)) => what,
            outcome => return outcome,
        };
        let mut unlocked = false;
        for path in paths {
            let slash = path.iter().rposition(|byte| *byte == b'/');
            let parent = slash.map_or(&path[..0], |slash| &path[..slash]);
            for place in [parent, path] {
                unlocked |= self.take_lock_off(place)?;
            }
        }
        if unlocked {
            tracing::debug!(path = %shown(paths[0]), "lock of the base taken off until the end");
            work(&mut self.tree)
        } else {
            Err(Fault::Denied(first, Errno::PERM))
        }
    }
}
