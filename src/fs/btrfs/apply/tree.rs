//! A directory tree that cannot be left: every path of a stream is followed through here.
//!
//! Promise: nothing outside the tree is opened, whatever the path says and whatever links the tree holds. Parents are
//! resolved by the kernel with openat2 (beneath the top, no symbolic or magic links, no mount points), the last component
//! by `*at` calls that do not follow links. Only regular files are opened for data: opening a device or a pipe has effects
//! of its own.
//!
//! Directories in use stay open in two generations, so that a tree of any size costs a bounded number of descriptors.
//! It deliberately does not know commands.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::ops::Bound;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::{Arc, OnceLock};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags, Stat};
use rustix::process::{Resource, Rlimit};

use super::fault::{Applied, Blame, refuse, shown};

/// Longest name of a directory entry, in bytes (NAME_MAX).
const NAME_BYTES_MAX: usize = 255;

const CONFINED: ResolveFlags = ResolveFlags::BENEATH
    .union(ResolveFlags::NO_SYMLINKS)
    .union(ResolveFlags::NO_MAGICLINKS)
    .union(ResolveFlags::NO_XDEV);

/// An open directory.
pub(super) type Directory = Arc<OwnedFd>;

type Cache = BTreeMap<Vec<u8>, Directory>;

/// The tree, by its top directory.
#[derive(Debug)]
pub(in crate::fs::btrfs) struct Tree {
    top: Directory,
    young: Cache,
    old: Cache,
    /// Whether this process works on nothing else, and may have its working directory moved about.
    alone: bool,
}

/// Refuses every path but those that name something inside a tree by plain components.
pub(super) fn check(path: &[u8]) -> Applied<()> {
    if path.is_empty() {
        return refuse("path is empty");
    }
    if path.contains(&0) {
        return refuse("path holds a zero byte");
    }
    for component in path.split(|byte| *byte == b'/') {
        match component {
            b"" => return refuse(format!("path {} has an empty component", shown(path))),
            b"." | b".." => return refuse(format!("path {} has a dot component", shown(path))),
            _ if component.len() > NAME_BYTES_MAX => {
                return refuse(format!("path {} has too long a component", shown(path)));
            }
            _ => {}
        }
    }
    Ok(())
}

fn cut(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|byte| *byte == b'/') {
        Some(slash) => (&path[..slash], &path[slash + 1..]),
        None => (&[], path),
    }
}

impl Tree {
    pub fn open(path: &Path) -> rustix::io::Result<Tree> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(Tree {
            alone: false,
            ..Tree::alone(rustix::fs::open(path, flags, Mode::empty())?)
        })
    }

    /// The tree below `top` in a process of one thread that has no /proc: the working directory is used instead.
    pub fn alone(top: OwnedFd) -> Tree {
        Tree {
            top: Arc::new(top),
            young: Cache::new(),
            old: Cache::new(),
            alone: true,
        }
    }

    pub fn is_alone(&self) -> bool {
        self.alone
    }

    pub fn top(&self) -> BorrowedFd<'_> {
        self.top.as_fd()
    }

    /// The directory that holds `path`, and the name in it.
    pub fn parent<'p>(&mut self, path: &'p [u8]) -> Applied<(Directory, &'p [u8])> {
        check(path)?;
        let (parent, name) = cut(path);
        Ok((self.directory(parent)?, name))
    }

    /// A directory by its path; empty for the top.
    pub fn directory(&mut self, path: &[u8]) -> Applied<Directory> {
        if path.is_empty() {
            return Ok(self.top.clone());
        }
        if let Some(found) = self.young.get(path) {
            return Ok(found.clone());
        }
        let found = match self.old.remove(path) {
            Some(found) => found,
            None => {
                let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let fd = rustix::fs::openat2(&self.top, path, flags, Mode::empty(), CONFINED)
                    .on("open directory", path)?;
                Arc::new(fd)
            }
        };
        if self.young.len() >= room() {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(path.to_vec(), found.clone());
        Ok(found)
    }

    /// `path` names something else from now on, and so does everything below it.
    pub fn forget(&mut self, path: &[u8]) {
        for cache in [&mut self.young, &mut self.old] {
            cache.remove(path);
            for below in below(cache, path) {
                cache.remove(&below);
            }
        }
    }

    /// What `path` is, without following it. The top for the empty path.
    pub fn stat(&mut self, path: &[u8]) -> Applied<Stat> {
        if path.is_empty() {
            return rustix::fs::fstat(&self.top).on("stat", path);
        }
        let (parent, name) = self.parent(path)?;
        rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW).on("stat", path)
    }

    /// Opens a regular file.
    pub fn open_file(&mut self, path: &[u8], flags: OFlags) -> Applied<OwnedFd> {
        let kind = FileType::from_raw_mode(self.stat(path)?.st_mode);
        if kind != FileType::RegularFile {
            return refuse(format!("{} is not a regular file", shown(path)));
        }
        let (parent, name) = self.parent(path)?;
        let flags = flags | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        rustix::fs::openat(parent, name, flags, Mode::empty()).on("open", path)
    }

    /// A path for calls that know no descriptors: the directory by its descriptor, then a name they do not follow.
    pub fn path_of(&mut self, path: &[u8]) -> Applied<CString> {
        let (parent, name) = self.parent(path)?;
        let mut spelled = Vec::new();
        if self.alone {
            rustix::process::fchdir(&parent).on("enter directory", path)?;
        } else {
            spelled = format!("/proc/self/fd/{}/", parent.as_raw_fd()).into_bytes();
        }
        spelled.extend_from_slice(name);
        // Names come from `parent()`, which refuses zero bytes.
        Ok(CString::new(spelled).unwrap_or_default())
    }

    /// Opens whatever it is without any effect (O_PATH); the top for the empty path.
    pub fn open_place(&mut self, path: &[u8]) -> Applied<OwnedFd> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let (parent, name) = if path.is_empty() {
            (self.top.clone(), &b"."[..])
        } else {
            self.parent(path)?
        };
        rustix::fs::openat(parent, name, flags, Mode::empty()).on("look up", path)
    }

    /// Opens a regular file or a directory for reading; none for anything else.
    pub fn open_plain(&mut self, path: &[u8]) -> Applied<Option<OwnedFd>> {
        let kind = FileType::from_raw_mode(self.stat(path)?.st_mode);
        if !matches!(kind, FileType::RegularFile | FileType::Directory) {
            return Ok(None);
        }
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let (parent, name) = if path.is_empty() {
            (self.top.clone(), &b"."[..])
        } else {
            self.parent(path)?
        };
        let fd = rustix::fs::openat(parent, name, flags, Mode::empty()).on("open", path)?;
        Ok(Some(fd))
    }
}

/// Keys below the directory `path`.
pub(super) fn below<V>(map: &BTreeMap<Vec<u8>, V>, path: &[u8]) -> Vec<Vec<u8>> {
    let mut prefix = path.to_vec();
    prefix.push(b'/');
    map.range::<[u8], _>((Bound::Included(prefix.as_slice()), Bound::Unbounded))
        .take_while(|(key, _)| key.starts_with(&prefix))
        .map(|(key, _)| key.clone())
        .collect()
}

/// Directories per generation. Raises the process's limit of descriptors towards its hard limit, modestly, when first asked.
pub(in crate::fs::btrfs) fn room() -> usize {
    static ROOM: OnceLock<usize> = OnceLock::new();
    *ROOM.get_or_init(raise_room)
}

fn raise_room() -> usize {
    const WANTED: u64 = 1 << 16;
    let limit = rustix::process::getrlimit(Resource::Nofile);
    let mut current = limit.current.unwrap_or(WANTED);
    let goal = limit.maximum.unwrap_or(WANTED).min(WANTED);
    if current < goal {
        let raised = Rlimit {
            current: Some(goal),
            maximum: limit.maximum,
        };
        if rustix::process::setrlimit(Resource::Nofile, raised).is_ok() {
            current = goal;
        }
    }
    usize::try_from(current / 32).map_or(16, |room| room.clamp(16, 2048))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths() {
        let good: [&[u8]; 5] = [b"a", b"a/b", b"\xff\xfe/..x", b"...", &[b'x'; 255]];
        for path in good {
            assert!(check(path).is_ok(), "{path:?}");
        }
        let bad: [&[u8]; 11] = [
            b"",
            b"/",
            b"/a",
            b"a/",
            b"a//b",
            b".",
            b"..",
            b"a/../b",
            b"a/.",
            b"a\0b",
            &[b'x'; 256],
        ];
        for path in bad {
            assert!(check(path).is_err(), "{path:?}");
        }
    }

    #[test]
    fn keys_below_a_directory() {
        let map: BTreeMap<Vec<u8>, ()> = ["a", "a/b", "a/b/c", "a.b", "a0", "ab/c"]
            .iter()
            .map(|key| (key.as_bytes().to_vec(), ()))
            .collect();
        assert_eq!(below(&map, b"a"), [b"a/b".to_vec(), b"a/b/c".to_vec()]);
        assert!(below(&map, b"x").is_empty());
    }
}
