//! What the applier needs from outside its tree: snapshots to clone from, and attributes it may have no right to set.
//!
//! Promise: nothing beyond its tree reaches the applier but through here. It deliberately does not know processes: applied
//! in the daemon it is [`Here`]; a confined worker asks the daemon (`receive::worker`).

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::os::fd::BorrowedFd;
use std::path::PathBuf;

use rustix::fs::XattrFlags;
use uuid::Uuid;

use super::fault::{Applied, Blame};
use super::tree::Tree;

/// What lies outside of the tree.
pub(in crate::fs::btrfs) trait Outside: Debug + Send + Sync {
    /// A snapshot that may be cloned from, by its identity; none: it was not declared.
    fn source(&self, identity: Uuid) -> Applied<Option<Tree>>;

    /// Whether an attribute of this name is set by [`Outside::set_xattr`], because it takes rights the applier lacks.
    fn sets(&self, name: &[u8]) -> bool;

    /// Sets an attribute, or removes it (`value` none), of what `file` (O_PATH) is open on.
    fn set_xattr(
        &self,
        file: BorrowedFd<'_>,
        name: &[u8],
        value: Option<&[u8]>,
    ) -> rustix::io::Result<()>;
}

/// Everything is at hand: paths of the declared snapshots, by identity.
#[derive(Debug)]
pub(in crate::fs::btrfs) struct Here(pub BTreeMap<Uuid, PathBuf>);

impl Outside for Here {
    fn source(&self, identity: Uuid) -> Applied<Option<Tree>> {
        let path = self.0.get(&identity);
        path.map(|path| Tree::open(path).on("open clone source", b""))
            .transpose()
    }

    fn sets(&self, _name: &[u8]) -> bool {
        false
    }

    fn set_xattr(
        &self,
        file: BorrowedFd<'_>,
        name: &[u8],
        value: Option<&[u8]>,
    ) -> rustix::io::Result<()> {
        set_xattr(file, name, value)
    }
}

/// Sets or removes an attribute of any kind of file, open by O_PATH: links, devices and pipes cannot be opened otherwise
/// without effects.
pub(in crate::fs::btrfs) fn set_xattr(
    file: BorrowedFd<'_>,
    name: &[u8],
    value: Option<&[u8]>,
) -> rustix::io::Result<()> {
    // Following this link ends at the very file, even where that is a symbolic link (proc(5)).
    let path = crate::fs::btrfs::top::fd_path(file);
    match value {
        Some(value) => rustix::fs::setxattr(path, name, value, XattrFlags::empty()),
        None => rustix::fs::removexattr(path, name),
    }
}
