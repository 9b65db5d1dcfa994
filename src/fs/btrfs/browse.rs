//! Shows points and forks in a tree for browsing (see `fs::browse`): one mount for each snapshot.
//!
//! Not one mount of `.standin/<role>`, which would be simpler: a role may span filesystems, what is damaged or half-made lies
//! there too, and its directories are for root alone.
//!
//! Promise: nothing is held up by it: a point or a fork that is destroyed is taken away from all trees first. A crash leaves a
//! tree that is behind; the next call brings it up to date. It deliberately does not know whose trees there are.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use anyhow::Context;
use rustix::fs::CWD;
use rustix::mount::{MountAttrFlags, MoveMountFlags};

use super::catalogue::Catalogue;
use super::layout::Part;
use super::mountinfo::Mount;
use super::{forks, mountinfo, remount, top};
use crate::fs::Result;
use crate::fs::browse::{Branch, Browsed, FORKS, bring, showing};

/// Most snapshots of a role that are shown in one tree. Each is a mount, of which the kernel allows 100,000 in a namespace
/// (`fs.mount-max`), and which every reader of the table of mounts has to read.
const MOUNTS_MAX: usize = 2_000;

/// See `Filesystem::browse`.
pub fn browse(catalogue: &Catalogue<'_>, tree: &Path) -> Result<Browsed> {
    let mut wanted: BTreeMap<PathBuf, Branch<&Part>> = BTreeMap::new();
    let mut browsed = Browsed::default();
    for fork in forks::list(catalogue)? {
        let dir = Path::new(FORKS).join(fork.name.to_string());
        for found in forks::snapshots(catalogue, &fork.name, None)? {
            let branch = branch(found.part, &found.path);
            wanted.insert(dir.join(&found.dataset), branch);
        }
        browsed.shown += 1;
    }
    for found in catalogue.list()?.iter().rev() {
        let datasets = found.stored.local.datasets.keys();
        if wanted.len() + datasets.len() > MOUNTS_MAX {
            browsed.left_out += 1;
            continue;
        }
        for dataset in datasets {
            let (part, _) = catalogue.place(dataset)?;
            let path = catalogue.snapshot_path(found, dataset)?;
            wanted.insert(Path::new(&found.name).join(dataset), branch(part, &path));
        }
        browsed.shown += 1;
    }
    let role = catalogue.role.as_str();
    let mut mount = |branch: &Branch<&Part>, at: &Path| show(branch.from, &branch.root, at);
    bring(tree, role, &wanted, &mut mount)?;
    Ok(browsed)
}

fn branch<'a>(part: &'a Part, path: &Path) -> Branch<&'a Part> {
    let root = Path::new("/").join(part.relative(path));
    Branch {
        root,
        source: None,
        from: part,
    }
}

fn show(part: &Part, root: &Path, at: &Path) -> Result<()> {
    let attributes = MountAttrFlags::MOUNT_ATTR_RDONLY
        | MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NODEV
        | MountAttrFlags::MOUNT_ATTR_NOEXEC
        | MountAttrFlags::MOUNT_ATTR_NOATIME;
    let (device, read_only) = (&part.top.device, part.top.is_read_only());
    let subvol = OsString::from(root);
    let mount = top::make_mount(device, ("subvol", &subvol), read_only, attributes)
        .with_context(|| format!("mount {}", root.display()))?;
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    rustix::mount::move_mount(&mount, "", CWD, at, flags)
        .with_context(|| format!("attach the mount at {}", at.display()))
}

/// Takes what lies below `dir`, a directory of snapshots, away from all trees: the kernel destroys a subvolume that is mounted
/// and leaves an empty directory to who reads it.
pub fn take_away(part: &Part, dir: &Path) -> Result<()> {
    let root = Path::new("/").join(part.relative(dir));
    let mounts = mountinfo::read()?;
    let is_meant = |mount: &Mount| {
        mount.kind == "btrfs"
            && mount.root.starts_with(&root)
            && part.is_seen_at(&mount.point).unwrap_or(true)
    };
    for at in showing(&mounts, is_meant) {
        remount::detach(&at)?;
    }
    Ok(())
}
