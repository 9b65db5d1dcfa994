//! Commands that set owner, mode, times, extended attributes and flags.
//!
//! Promise: applied in the stream's order, which matters (a change of owner drops setuid bits and capabilities, and the
//! stream sets them again after it). Links are never followed. What has to wait goes to `later`; what cannot be carried is
//! counted there as lost and logged.

use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, FileType, Gid, IFlags, Mode, Uid, XattrFlags};
use rustix::io::Errno;

use super::fault::{Applied, Blame, refuse, shown};
use super::later::INHERITED;
use super::{Applier, ioctl, timestamps};
use crate::fs::btrfs::stream::Moment;
use crate::logic::transfer::Flagged;

/// `BTRFS_INODE_*` as streams carry them (linux/btrfs_tree.h).
mod inode_flag {
    pub const NODATACOW: u64 = 1 << 1;
    pub const SYNC: u64 = 1 << 5;
    pub const IMMUTABLE: u64 = 1 << 6;
    pub const APPEND: u64 = 1 << 7;
    pub const NODUMP: u64 = 1 << 8;
    pub const NOATIME: u64 = 1 << 9;
}

/// Flags that keep a file from being worked on.
const LOCKS: u32 = ioctl::xflag::IMMUTABLE | ioctl::xflag::APPEND;

/// Flags set at once.
const PLAIN: u32 = ioctl::xflag::SYNC | ioctl::xflag::NOATIME | ioctl::xflag::NODUMP;

const COMPRESSION: &[u8] = b"btrfs.compression";

/// Largest value of an extended attribute, in bytes (XATTR_SIZE_MAX).
const XATTR_BYTES_MAX: usize = 65_536;

fn locks(flagged: Flagged) -> u32 {
    let one = |has: bool, xflag: u32| if has { xflag } else { 0 };
    one(flagged.immutable, ioctl::xflag::IMMUTABLE) | one(flagged.append, ioctl::xflag::APPEND)
}

fn put(file: BorrowedFd<'_>, name: &[u8], value: Option<&[u8]>) -> rustix::io::Result<()> {
    match value {
        Some(value) => rustix::fs::fsetxattr(file, name, value, XattrFlags::empty()),
        None => rustix::fs::fremovexattr(file, name),
    }
}

impl Applier {
    pub(super) fn chmod(&mut self, path: &[u8], mode: u64) -> Applied<()> {
        let bits = self.accepted_mode(path, (mode & 0o7777) as u32)?;
        let mode = Mode::from_raw_mode(bits);
        if path.is_empty() {
            return self.unlocking(&[path], |tree| {
                rustix::fs::fchmod(tree.top(), mode).on("chmod", path)
            });
        }
        if let Some(file) = self.opened(path) {
            return rustix::fs::fchmod(file, mode).on("chmod", path);
        }
        self.unlocking(&[path], |tree| {
            let (parent, name) = tree.parent(path)?;
            let name = CString::new(name).unwrap_or_default();
            match ioctl::chmod_nofollow(&parent, &name, bits) {
                Err(Errno::NOSYS) => {
                    let kind = FileType::from_raw_mode(tree.stat(path)?.st_mode);
                    if kind == FileType::Symlink {
                        return refuse(format!("mode of the symbolic link {}", shown(path)));
                    }
                    rustix::fs::chmodat(parent, &*name, mode, AtFlags::empty()).on("chmod", path)
                }
                outcome => outcome.on("chmod", path),
            }
        })
    }

    pub(super) fn chown(&mut self, path: &[u8], uid: u64, gid: u64) -> Applied<()> {
        // The highest number means "leave it as it is" to the kernel.
        let id = |id: u64| u32::try_from(id).ok().filter(|id| *id != u32::MAX);
        let (Some(uid), Some(gid)) = (id(uid), id(gid)) else {
            return refuse(format!("owner {uid}:{gid} does not exist"));
        };
        let (uid, gid) = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
        if path.is_empty() {
            return self.unlocking(&[path], |tree| {
                rustix::fs::fchown(tree.top(), uid, gid).on("chown", path)
            });
        }
        if let Some(file) = self.opened(path) {
            return rustix::fs::fchown(file, uid, gid).on("chown", path);
        }
        self.unlocking(&[path], |tree| {
            let (parent, name) = tree.parent(path)?;
            let flags = AtFlags::SYMLINK_NOFOLLOW;
            rustix::fs::chownat(parent, name, uid, gid, flags).on("chown", path)
        })
    }

    pub(super) fn utimes(
        &mut self,
        path: &[u8],
        accessed: Moment,
        modified: Moment,
    ) -> Applied<()> {
        if path.is_empty() {
            self.later.top_times = Some((accessed, modified));
            return Ok(());
        }
        let times = timestamps(accessed, modified);
        if let Some(file) = self.opened(path) {
            return rustix::fs::futimens(file, &times).on("set times of", path);
        }
        self.unlocking(&[path], |tree| {
            let (parent, name) = tree.parent(path)?;
            let flags = AtFlags::SYMLINK_NOFOLLOW;
            rustix::fs::utimensat(parent, name, &times, flags).on("set times of", path)
        })
    }

    pub(super) fn set_xattr(&mut self, path: &[u8], name: &[u8], value: &[u8]) -> Applied<()> {
        if value.len() > XATTR_BYTES_MAX {
            return refuse("value of an extended attribute is too long");
        }
        if !self.accepts_attribute(path, name)? {
            return Ok(());
        }
        if path.is_empty() && INHERITED.contains(&name) {
            self.later.top_xattrs.insert(name.to_vec(), value.to_vec());
            return Ok(());
        }
        let outcome = self.put_xattr(path, name, Some(value));
        // An older kernel may not know the algorithm, and NOCOW files take none: that costs space, not data.
        if name == COMPRESSION {
            if let Err(super::Fault::Denied(_, Errno::INVAL)) = outcome {
                self.lost(path, "compression property");
                return Ok(());
            }
        }
        outcome
    }

    pub(super) fn remove_xattr(&mut self, path: &[u8], name: &[u8]) -> Applied<()> {
        if path.is_empty() && INHERITED.contains(&name) {
            self.later.top_xattrs.remove(name);
            return Ok(());
        }
        let outcome = self.put_xattr(path, name, None);
        match outcome {
            // Gone already: a write or a change of owner drops capabilities by itself.
            Err(super::Fault::Denied(_, Errno::NODATA)) => Ok(()),
            outcome => outcome,
        }
    }

    /// Sets an attribute, or removes it (`value` none).
    fn put_xattr(&mut self, path: &[u8], name: &[u8], value: Option<&[u8]>) -> Applied<()> {
        self.plain.remove(path);
        let what = match value {
            Some(_) => "set attribute of",
            None => "remove attribute of",
        };
        if self.outside.sets(name) {
            let outside = self.outside.clone();
            return self.unlocking(&[path], |tree| {
                let place = tree.open_place(path)?;
                outside.set_xattr(place.as_fd(), name, value).on(what, path)
            });
        }
        if let Some(file) = self.opened(path) {
            return put(file.as_fd(), name, value).on(what, path);
        }
        self.unlocking(&[path], |tree| {
            if path.is_empty() {
                return put(tree.top(), name, value).on(what, path);
            }
            let place = tree.path_of(path)?;
            match value {
                Some(value) => rustix::fs::lsetxattr(&*place, name, value, XattrFlags::empty()),
                None => rustix::fs::lremovexattr(&*place, name),
            }
            .on(what, path)
        })
    }

    /// The kernel sends this for files that were in the base and whose flags changed since.
    pub(super) fn fileattr(&mut self, path: &[u8], flags: u64) -> Applied<()> {
        self.plain.remove(path);
        let Some(file) = self.tree.open_plain(path)? else {
            return Ok(());
        };
        let pairs = [
            (inode_flag::SYNC, ioctl::xflag::SYNC),
            (inode_flag::NOATIME, ioctl::xflag::NOATIME),
            (inode_flag::NODUMP, ioctl::xflag::NODUMP),
            (inode_flag::IMMUTABLE, ioctl::xflag::IMMUTABLE),
            (inode_flag::APPEND, ioctl::xflag::APPEND),
        ];
        let wanted = pairs
            .iter()
            .filter(|(flag, _)| flags & flag != 0)
            .fold(0, |sum, (_, xflag)| sum | xflag);
        // Any lock comes off now: it is set in the end, and other flags cannot be changed under it.
        ioctl::set_xflags(&file, LOCKS | PLAIN, wanted & PLAIN).on("set flags of", path)?;
        let inode = rustix::fs::fstat(&file).on("stat", path)?.st_ino;
        self.later.lock(path, inode, wanted & LOCKS);
        let nocow = flags & inode_flag::NODATACOW != 0;
        if path.is_empty() {
            self.later.top_nocow = nocow;
            return Ok(());
        }
        self.set_nocow(path, &file, nocow)
    }

    fn flagged(&self, inode: u64) -> Flagged {
        Flagged {
            nocow: self.flags.nocow.contains(inode),
            immutable: self.flags.immutable.contains(inode),
            append: self.flags.append.contains(inode),
        }
    }

    /// Whether the sender told flags of its file of that inode number.
    pub(super) fn has_flags(&self, inode: Option<u64>) -> bool {
        inode.is_some_and(|inode| self.flagged(inode) != Flagged::default())
    }

    /// A file or directory was just made, for the source's file of that inode number: it gets what the sender told of it.
    /// Only an empty file can become NOCOW.
    pub(super) fn give_flags(
        &mut self,
        path: &[u8],
        file: &OwnedFd,
        inode: Option<u64>,
    ) -> Applied<()> {
        let flagged = inode.map(|inode| self.flagged(inode)).unwrap_or_default();
        if flagged.nocow {
            self.set_nocow(path, file, true)?;
        }
        let locks = locks(flagged);
        if locks != 0 {
            let inode = rustix::fs::fstat(file).on("stat", path)?.st_ino;
            self.later.lock_new(path, inode, locks);
        }
        Ok(())
    }

    /// Of a full stream: nothing makes the top directory, and what it has must wait.
    pub(super) fn flag_top(&mut self) -> Applied<()> {
        let inode = self.tree.stat(b"")?.st_ino;
        // The top directory has the same inode number in every subvolume.
        let flagged = self.flagged(inode);
        self.later.top_nocow = flagged.nocow;
        self.later.lock(b"", inode, locks(flagged));
        Ok(())
    }

    /// Files that hold data keep the mode they were written in.
    pub(super) fn set_nocow(&mut self, path: &[u8], file: &OwnedFd, nocow: bool) -> Applied<()> {
        self.plain.remove(path);
        let before = rustix::fs::ioctl_getflags(file).on("read flags of", path)?;
        let mut after = before;
        after.set(IFlags::NOCOW, nocow);
        if after == before {
            return Ok(());
        }
        // FS_IOC_SETFLAGS resets the compression property along the way.
        let mut value = [0; 64];
        let kept = rustix::fs::fgetxattr(file, COMPRESSION, &mut value[..]);
        let outcome = rustix::fs::ioctl_setflags(file, after);
        let now = rustix::fs::ioctl_getflags(file).on("read flags of", path)?;
        if let (Ok(length), false) = (kept, nocow) {
            let flags = XattrFlags::empty();
            rustix::fs::fsetxattr(file, COMPRESSION, &value[..length], flags)
                .on("set attribute", path)?;
        }
        if outcome.is_err() || now.contains(IFlags::NOCOW) != nocow {
            self.lost(path, "NOCOW flag");
        }
        Ok(())
    }

    /// Takes immutable and append-only off a file or directory, to be set again in the end. Whether there was one.
    pub(super) fn take_lock_off(&mut self, path: &[u8]) -> Applied<bool> {
        // What does not exist (yet), or cannot be opened, has no lock that stands in the way.
        let Ok(Some(file)) = self.tree.open_plain(path) else {
            return Ok(false);
        };
        let locks = ioctl::xflags(&file).on("read flags of", path)? & LOCKS;
        if locks == 0 {
            return Ok(false);
        }
        ioctl::set_xflags(&file, LOCKS, 0).on("set flags of", path)?;
        let inode = rustix::fs::fstat(&file).on("stat", path)?.st_ino;
        self.later.lock(path, inode, locks);
        Ok(true)
    }

    pub(super) fn lost(&mut self, path: &[u8], what: &str) {
        self.later.lost += 1;
        tracing::warn!(path = %shown(path), what, "not carried over");
    }
}
