//! A new small file is made in one go: under its last name, with its data, owner, mode and times, instead of step by step.
//!
//! Streams make a file under a temporary name and rename it, write, and then set owner, mode and times, each a transaction of
//! its own in the filesystem: for trees of small files that is where a receiver's time went (docs/benchmarks.md).
//!
//! Promise: the tree is the same as if every command had been applied in its turn; a command that does not belong to the row has
//! it made first ([`Applier::make_fresh`]), and so has whoever looks at the tree (a checkpoint, the end). What waits is at most
//! [`DATA_BYTES_MAX`] of data.
//!
//! A crash loses what waits, which no checkpoint has counted.

use rustix::fs::{IFlags, Mode};
use rustix::io::Errno;

use super::fault::{Applied, Blame, Fault};
use super::names::PRIVATE;
use super::{Applier, Command, Moment};

/// Data of a file that waits, in bytes: a write of version 1, and a little more.
const DATA_BYTES_MAX: usize = 64 << 10;

/// Bits of a mode that a file may be made with.
const PERMISSIONS: u64 = 0o777;

/// Flags that a directory gives to what is made in it.
const INHERITED: IFlags = IFlags::NOCOW
    .union(IFlags::COMPRESSED)
    .union(IFlags::from_bits_retain(NOT_COMPRESSED));

/// FS_NOCOMP_FL (include/uapi/linux/fs.h).
const NOT_COMPRESSED: u32 = 0x400;

/// The list that it gives.
const ACCESS_LIST: &str = "system.posix_acl_default";

/// Directories of which it is remembered what they give.
const PLAIN_MAX: usize = 2048;

/// A file that is yet to be made.
#[derive(Debug)]
pub(super) struct Fresh {
    /// Under which the stream made it.
    made: Vec<u8>,
    /// What it is called now.
    path: Vec<u8>,
    inode: Option<u64>,
    data: Vec<u8>,
    owner: Option<(u64, u64)>,
    mode: Option<u64>,
    times: Option<(Moment, Moment)>,
}

impl Fresh {
    pub fn new(path: &[u8], inode: Option<u64>) -> Fresh {
        Fresh {
            made: path.to_vec(),
            path: path.to_vec(),
            inode,
            data: Vec::new(),
            owner: None,
            mode: None,
            times: None,
        }
    }

    /// Takes in what belongs to the row; whether it did. Data come before the owner, that before the mode, and times are the end.
    pub fn takes(&mut self, command: &Command<'_>) -> bool {
        if self.times.is_some() {
            return false;
        }
        let rest = self.owner.is_none() && self.mode.is_none();
        match *command {
            Command::Rename { from, to } if from == self.path && self.made == self.path => {
                let first = rest && self.data.is_empty();
                if first {
                    self.path = to.to_vec();
                }
                first
            }
            Command::Write { path, offset, data } => {
                let next = path == self.path && offset == self.data.len() as u64;
                let takes = rest && next && self.data.len() + data.len() <= DATA_BYTES_MAX;
                if takes {
                    self.data.extend_from_slice(data);
                }
                takes
            }
            // Of an owner that cannot be, the fault is the command's own.
            Command::Chown { path, uid, gid }
                if path == self.path && rest && uid.max(gid) < u64::from(u32::MAX) =>
            {
                self.owner = Some((uid, gid));
                true
            }
            Command::Chmod { path, mode } if path == self.path && self.mode.is_none() => {
                self.mode = Some(mode);
                true
            }
            Command::Utimes {
                path,
                accessed,
                modified,
                ..
            } if path == self.path => {
                self.times = Some((accessed, modified));
                true
            }
            _ => false,
        }
    }
}

impl Applier {
    /// Makes the file that waits, if one does.
    pub(super) fn make_fresh(&mut self) -> Applied<()> {
        let Some(fresh) = self.fresh.take() else {
            return Ok(());
        };
        let made = self.make(&fresh);
        made.map_err(|fault| Fault::Earlier(Box::new(fault)))
    }

    fn make(&mut self, fresh: &Fresh) -> Applied<()> {
        let path = &fresh.path[..];
        let at_once = self.create(fresh)?;
        if !fresh.data.is_empty() {
            self.write(path, 0, &fresh.data)?;
        }
        if let Some((uid, gid)) = fresh.owner {
            let stat = rustix::fs::fstat(self.file(path)?).on("stat", path)?;
            if (u64::from(stat.st_uid), u64::from(stat.st_gid)) != (uid, gid) {
                self.chown(path, uid, gid)?;
            }
        }
        match fresh.mode {
            Some(mode) if !at_once => self.chmod(path, mode)?,
            _ => {}
        }
        match fresh.times {
            Some((accessed, modified)) => self.utimes(path, accessed, modified),
            None => Ok(()),
        }
    }

    /// Whether it was made with its last mode.
    fn create(&mut self, fresh: &Fresh) -> Applied<bool> {
        // Where other threads make files too, the mask that modes go through is theirs as well.
        let bits = fresh
            .mode
            .filter(|mode| mode & 0o7777 == mode & PERMISSIONS);
        let bits = bits.filter(|_| self.tree.is_alone());
        let mode = bits.map_or(PRIVATE, |bits| {
            Mode::from_raw_mode((bits & PERMISSIONS) as u32)
        });
        let renamed = fresh.made != fresh.path;
        if !renamed || self.is_plain(&fresh.path)? {
            match self.mkfile_now(&fresh.path, fresh.inode, mode) {
                // A rename would have replaced it.
                Err(Fault::Denied(_, Errno::EXIST)) if renamed => {}
                made => return made.map(|()| bits.is_some()),
            }
        }
        self.mkfile_now(&fresh.made, fresh.inode, PRIVATE)?;
        self.rename(&fresh.made, &fresh.path)?;
        Ok(false)
    }

    /// Whether a file made in the directory of `path` inherits nothing from it that one renamed into it would not have: flags, a
    /// compression, an access list. Looked up once for each directory.
    fn is_plain(&mut self, path: &[u8]) -> Applied<bool> {
        let slash = path.iter().rposition(|byte| *byte == b'/');
        let dir = slash.map_or(&path[..0], |slash| &path[..slash]);
        if let Some(plain) = self.plain.get(dir) {
            return Ok(*plain);
        }
        let Some(open) = self.tree.open_plain(dir)? else {
            return Ok(false);
        };
        let flags = rustix::fs::ioctl_getflags(&open).on("read flags of", dir)?;
        let mut value = [0; 1];
        let list = rustix::fs::fgetxattr(&open, ACCESS_LIST, &mut value[..]);
        let none = matches!(list, Err(Errno::NODATA | Errno::OPNOTSUPP));
        let plain = none && !flags.intersects(INHERITED);
        if self.plain.len() >= PLAIN_MAX {
            self.plain.clear();
        }
        self.plain.insert(dir.to_vec(), plain);
        Ok(plain)
    }
}
