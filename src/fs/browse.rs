//! The tree in which people browse points: a small tmpfs of our own over a directory of theirs, with read-only mounts in it.
//!
//!     DIR/ROLE/POINT/DATASET
//!     DIR/ROLE/forks/FORK/DATASET
//!
//! Everything that is known of a tree stands in the table of mounts: the source of the tmpfs says whose daemon made it, and
//! for which role. So a restart finds it again, and nothing has to be remembered or cleaned up on a disk.
//!
//! Promise: nothing is written to any disk, and nothing through the tree. Set-uid files, devices and programs of old data do
//! nothing there. A crash leaves a tree that is behind, which `bring` brings up to date; a reboot leaves the empty directory.
//!
//! It deliberately does not know how a snapshot is mounted: each filesystem does.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use anyhow::Context;
use rustix::mount::{MountFlags, UnmountFlags};

use super::Result;
use super::btrfs::freeze::freeze;
use super::btrfs::mountinfo::{self, Mount};
use crate::error::{Code, Failure};
use crate::logic::name::RoleName;

/// What the source of our tmpfs begins with, in the table of mounts: `standin-mount:ROLE:STATE-DIRECTORY`.
const SOURCE: &str = "standin-mount:";

/// Where the forks of a role are shown, beside its points; no point is called so.
pub const FORKS: &str = "forks";

/// In place of a role: all of them.
const ALL: &str = "*";

/// What `Filesystem::browse` came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Browsed {
    /// Points and forks that are shown.
    pub shown: usize,
    /// The oldest points, which are not: there are too many.
    pub left_out: usize,
}

/// Who besides root may enter a tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Allowed {
    pub user: Option<u32>,
    pub group: Option<u32>,
}

/// A tree that is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tree {
    pub at: PathBuf,
    /// None: all roles of the node.
    pub role: Option<RoleName>,
}

impl Tree {
    pub fn shows(&self, role: &RoleName) -> bool {
        self.role.as_ref().is_none_or(|only| only == role)
    }
}

fn flags() -> MountFlags {
    MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC | MountFlags::NOATIME
}

/// Makes an empty tree at `at`, an empty directory, for the daemon with that state directory. The path as the kernel has it.
pub fn plant(
    at: &Path,
    owner: &Path,
    role: Option<&RoleName>,
    allowed: Allowed,
) -> Result<PathBuf> {
    let shown = at.display();
    let refuse = |what: &str, hint: String| -> anyhow::Error {
        let what = format!("mount at {shown}: {what}");
        Failure::new(Code::Usage, what).hint(hint).into()
    };
    let Ok(at) = at.canonicalize() else {
        return Err(refuse("it does not exist", format!("mkdir {shown}")));
    };
    let name_another = "name an empty directory; nothing was touched".to_owned();
    match std::fs::read_dir(&at).map(|mut entries| entries.next().is_some()) {
        Err(error) => return Err(refuse(&error.to_string(), name_another)),
        Ok(true) => return Err(refuse("it is not empty", name_another)),
        Ok(false) => {}
    }
    let mounts = mountinfo::read()?;
    let holder = mountinfo::holding(&mounts, &at);
    if holder.is_some_and(|mount| {
        is_tree(mount) || trees_in(&mounts).any(|tree| at.starts_with(&tree.point))
    }) {
        return Err(refuse("it lies in a tree of points", name_another));
    }
    let source = format!(
        "{SOURCE}{}:{}",
        role.map_or(ALL, RoleName::as_str),
        owner.display()
    );
    let mode = match (allowed.user, allowed.group) {
        (None, None) => 0o700,
        (Some(_), None) => 0o500,
        (None, Some(_)) => 0o750,
        (Some(_), Some(_)) => 0o550,
    };
    let options = format!(
        "mode={mode:o},uid={},gid={},size=1m",
        allowed.user.unwrap_or(0),
        allowed.group.unwrap_or(0)
    );
    let options = std::ffi::CString::new(options).context("spell the mount options")?;
    rustix::mount::mount(
        source.as_str(),
        &at,
        "tmpfs",
        flags(),
        Some(options.as_c_str()),
    )
    .with_context(|| format!("mount a tmpfs at {shown}"))?;
    // The mount, not the filesystem: that one is written to whenever something else is to be shown.
    set(&at, MountFlags::RDONLY)?;
    freeze("tree-planted");
    Ok(at)
}

fn set(tree: &Path, flag: MountFlags) -> Result<()> {
    rustix::mount::mount_remount(tree, flags() | MountFlags::BIND | flag, c"")
        .with_context(|| format!("remount {}", tree.display()))
}

/// The trees of the daemon with that state directory.
pub fn trees(owner: &Path) -> Result<Vec<Tree>> {
    let mounts = mountinfo::read()?;
    let ours = trees_in(&mounts).filter_map(|mount| read(mount, owner));
    Ok(ours.collect())
}

fn is_tree(mount: &Mount) -> bool {
    mount.kind == "tmpfs" && mount.source.to_string_lossy().starts_with(SOURCE)
}

fn trees_in(mounts: &[Mount]) -> impl Iterator<Item = &Mount> {
    mounts.iter().filter(|mount| is_tree(mount))
}

fn read(mount: &Mount, owner: &Path) -> Option<Tree> {
    let source = mount.source.to_str()?.strip_prefix(SOURCE)?;
    let (role, of) = source.split_once(':')?;
    if Path::new(of) != owner {
        return None;
    }
    let role = match role {
        ALL => None,
        word => Some(RoleName::parse(word).ok()?),
    };
    Some(Tree {
        at: mount.point.clone(),
        role,
    })
}

/// Mounts that lie in a tree, whoever's, and show something that `is_meant`: where, the latest first.
pub(in crate::fs) fn showing(mounts: &[Mount], is_meant: impl Fn(&Mount) -> bool) -> Vec<PathBuf> {
    let trees: Vec<&Mount> = trees_in(mounts).collect();
    let in_a_tree = |mount: &&Mount| {
        trees
            .iter()
            .any(|tree| mount.point != tree.point && mount.point.starts_with(&tree.point))
    };
    let found = mounts.iter().rev().filter(in_a_tree);
    found
        .filter(|mount| is_meant(mount))
        .map(|mount| mount.point.clone())
        .collect()
}

/// Takes the tree at `at` down, with all that is shown in it. Who has files of it open keeps them.
pub fn fell(at: &Path) -> Result<()> {
    detach(at)
}

fn detach(at: &Path) -> Result<()> {
    rustix::mount::unmount(at, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW)
        .with_context(|| format!("unmount {}", at.display()))
}

/// What is to be shown at a path of a tree.
pub struct Branch<M> {
    /// What the table of mounts says of it (`Mount::root`).
    pub root: PathBuf,
    /// The same of its source, where the root does not tell which it is.
    pub source: Option<PathBuf>,
    /// What its filesystem needs to know to mount it.
    pub from: M,
}

impl<M> Branch<M> {
    fn shows(&self, mount: &Mount) -> bool {
        let source = self.source.as_ref();
        self.root == mount.root && source.is_none_or(|source| *source == mount.source)
    }
}

/// Makes everything below `top`, a directory of the tree (made where it is missing), as `wanted` says: paths relative to
/// `top`, each to be a directory at which `mount` mounts. One that cannot be mounted is told and left out.
pub fn bring<M>(
    tree: &Path,
    top: &str,
    wanted: &BTreeMap<PathBuf, Branch<M>>,
    mount: &mut dyn FnMut(&Branch<M>, &Path) -> Result<()>,
) -> Result<()> {
    let top = tree.join(top);
    let mounts = mountinfo::read()?;
    let mut stays = BTreeSet::new();
    for found in mounts
        .iter()
        .rev()
        .filter(|mount| mount.point.starts_with(&top))
    {
        let relative = found.point.strip_prefix(&top).unwrap_or(&found.point);
        if !is_branch(relative) {
            continue;
        }
        let is_right = wanted
            .get(relative)
            .is_some_and(|branch| branch.shows(found));
        // Of several at one place the latest is what people see.
        if !is_right || !stays.insert(relative.to_owned()) {
            detach(&found.point)?;
        }
    }
    let dirs: BTreeSet<PathBuf> = wanted
        .keys()
        .flat_map(|path| path.ancestors().map(Path::to_owned))
        .collect();
    let strays = strays(&top, Path::new(""), &dirs, wanted)?;
    let missing: Vec<_> = wanted
        .iter()
        .filter(|(path, _)| !stays.contains(*path))
        .collect();
    if strays.is_empty() && missing.is_empty() && top.is_dir() {
        return Ok(());
    }
    set(tree, MountFlags::empty())?;
    let brought = (|| -> Result<()> {
        make_dir(&top)?;
        for stray in strays {
            // Somebody may have mounted something there by hand: it stays, and its directory does.
            let _ = std::fs::remove_dir(top.join(stray));
        }
        for (path, branch) in missing {
            let at = top.join(path);
            make_dir(&at)?;
            if let Err(error) = mount(branch, &at) {
                tracing::warn!("could not show {}: {error:#}", at.display());
            }
            freeze("tree-branch");
        }
        Ok(())
    })();
    brought.and(set(tree, MountFlags::RDONLY))
}

/// Whether a mount at that path below a role is of our making; what others mounted deeper is theirs.
fn is_branch(relative: &Path) -> bool {
    let depth = if relative.starts_with(FORKS) { 3 } else { 2 };
    relative.components().count() == depth
}

/// Takes `top` out of the tree, with all that is shown there.
pub fn cut(tree: &Path, top: &str) -> Result<()> {
    bring::<()>(tree, top, &BTreeMap::new(), &mut |_, _| Ok(()))?;
    set(tree, MountFlags::empty())?;
    let at = tree.join(top);
    let removed = std::fs::remove_dir(&at).with_context(|| format!("remove {}", at.display()));
    removed.and(set(tree, MountFlags::RDONLY))
}

/// Directories of a tree, as their names; `forks` of a role is not looked into.
pub fn tops(tree: &Path) -> Result<Vec<String>> {
    let entries = std::fs::read_dir(tree).with_context(|| format!("list {}", tree.display()))?;
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    Ok(names.collect())
}

/// Directories that are of no use any more, innermost first.
fn strays<M>(
    top: &Path,
    relative: &Path,
    dirs: &BTreeSet<PathBuf>,
    wanted: &BTreeMap<PathBuf, Branch<M>>,
) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let entries = match std::fs::read_dir(top.join(relative)) {
        Ok(entries) => entries,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(found),
        Err(e) => return Err(e).with_context(|| format!("list {}", top.display())),
    };
    for entry in entries {
        let path = relative.join(
            entry
                .with_context(|| format!("list {}", top.display()))?
                .file_name(),
        );
        if wanted.contains_key(&path) {
            continue;
        }
        found.extend(strays(top, &path, dirs, wanted)?);
        if !dirs.contains(&path) {
            found.push(path);
        }
    }
    Ok(found)
}

/// Everybody who comes as far may go on: what is mounted has modes of its own.
fn make_dir(path: &Path) -> Result<()> {
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o755)
        .create(path)
        .with_context(|| format!("create {}", path.display()))
}
