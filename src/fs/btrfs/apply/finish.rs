//! The beginning and the end of applying: holding back what must wait, and doing it then.
//!
//! A crash in here leaves a subvolume that is not yet moved to its place: it is thrown away like any half-applied one.

use rustix::fs::{IFlags, XattrFlags};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use super::fault::{Applied, Blame};
use super::later::INHERITED;
use super::{Applier, ioctl, timestamps};
use crate::fs::btrfs::stream::Moment;
use crate::logic::accept::Dropped;

/// Longest value worth holding back, in bytes: an ACL or the name of an algorithm.
const VALUE_BYTES_MAX: usize = 64 << 10;

/// The tree is as the stream wants it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::fs::btrfs) struct Settled {
    /// The ctransid that the stream stated.
    pub ctransid: u64,
    /// Facts of the source that could not be carried over, counted.
    pub lost: u64,
    /// What the policy left out.
    pub dropped: Dropped,
}

impl Applier {
    /// Of an incremental stream: the top directory of the base's copy already has what must be held back.
    pub(super) fn hold_back_top(&mut self) -> Applied<()> {
        let stat = self.tree.stat(b"")?;
        let moment = |seconds, nanoseconds| Moment {
            seconds,
            nanoseconds,
        };
        self.later.top_times = Some((
            moment(stat.st_atime as _, stat.st_atime_nsec as _),
            moment(stat.st_mtime as _, stat.st_mtime_nsec as _),
        ));
        // A locked one could not be moved into its place.
        self.take_lock_off(b"")?;
        let flags = rustix::fs::ioctl_getflags(self.tree.top()).on("read flags of", b"")?;
        if flags.contains(IFlags::NOCOW) {
            self.set_top_nocow(false)?;
            self.later.top_nocow = true;
        }
        for name in INHERITED {
            let mut value = vec![0; VALUE_BYTES_MAX];
            match rustix::fs::fgetxattr(self.tree.top(), name, &mut value[..]) {
                Ok(length) => {
                    value.truncate(length);
                    self.unlocking(&[b""], |tree| {
                        rustix::fs::fremovexattr(tree.top(), name).on("remove attribute", b"")
                    })?;
                    self.later.top_xattrs.insert(name.to_vec(), value);
                }
                Err(Errno::NODATA | Errno::OPNOTSUPP) => {}
                outcome => {
                    outcome.on("read attribute", b"")?;
                }
            }
        }
        Ok(())
    }

    fn set_top_nocow(&mut self, nocow: bool) -> Applied<()> {
        match self.tree.open_plain(b"")? {
            Some(top) => self.set_nocow(b"", &top, nocow),
            None => Ok(()),
        }
    }

    /// Does what waited, except for what would keep the subvolume from being moved.
    pub fn settle(mut self) -> Applied<Settled> {
        self.make_fresh()?;
        self.open = None;
        self.open_source = None;
        let xattrs = std::mem::take(&mut self.later.top_xattrs);
        for (name, value) in xattrs {
            let flags = XattrFlags::empty();
            match rustix::fs::fsetxattr(self.tree.top(), &*name, &value, flags) {
                Err(Errno::INVAL) if name.starts_with(b"btrfs.") => {
                    self.lost(b"", "compression property");
                }
                outcome => outcome.on("set attribute", b"")?,
            }
        }
        if self.later.top_nocow {
            self.set_top_nocow(true)?;
        }
        let locked = self.later.locked().clone();
        for (path, lock) in &locked {
            if path.is_empty() {
                // A locked top directory could be neither moved into its place nor ever deleted.
                self.lost(path, "immutable or append-only flag of the top directory");
                continue;
            }
            match self.tree.open_plain(path) {
                Ok(Some(file)) => {
                    ioctl::set_xflags(&file, lock.xflags, lock.xflags).on("set flags of", path)?;
                }
                _ => self.lost(path, "immutable or append-only flag"),
            }
        }
        if let Some((accessed, modified)) = self.later.top_times {
            let times = timestamps(accessed, modified);
            rustix::fs::futimens(self.tree.top(), &times).on("set times of", b"")?;
        }
        Ok(Settled {
            ctransid: self.later.ctransid.unwrap_or_default(),
            lost: self.later.lost,
            dropped: self.later.dropped,
        })
    }
}
