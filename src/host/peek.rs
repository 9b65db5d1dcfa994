//! Looks at paths in a tree without leaving it: facts of an entry, what a pattern matches, and the bytes of a file.
//!
//! Promise: reads and nothing else. Every path is resolved by the kernel beneath the tree's root, through no link and no mount, so
//! that neither a link in a point nor a peer's question leads out of it. Only plain files are read; a pipe or device is never
//! waited for. Looking ends at the limits given, and says so.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use glob::{MatchOptions, Pattern};
use rustix::fs::{Dir, FileType, Mode, OFlags, ResolveFlags, openat2};
use rustix::io::Errno;

use crate::logic::versions::{Facts, Kind};

const CONFINED: ResolveFlags = ResolveFlags::BENEATH
    .union(ResolveFlags::NO_SYMLINKS)
    .union(ResolveFlags::NO_MAGICLINKS)
    .union(ResolveFlags::NO_XDEV);

/// Deepest directory that `**` goes into.
const DEPTH_MAX: usize = 64;

/// A tree to look into.
#[derive(Debug)]
pub struct Tree {
    root: File,
}

impl Tree {
    /// Opens the tree at `root`, a directory of ours.
    pub fn open(root: &Path) -> io::Result<Tree> {
        let root = File::open(root)?;
        match root.metadata()?.is_dir() {
            true => Ok(Tree { root }),
            false => Err(io::ErrorKind::NotADirectory.into()),
        }
    }

    /// What is at `path`; none where nothing is, also where a link or a file stands in the way.
    pub fn facts(&self, path: &Path) -> io::Result<Option<Facts>> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let found = match openat2(&self.root, path, flags, Mode::empty(), CONFINED) {
            Ok(found) => found,
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::XDEV | Errno::NAMETOOLONG) => {
                return Ok(None);
            }
            Err(error) => return Err(error.into()),
        };
        facts(found).map(Some)
    }

    /// A plain file, to be read; its facts are those of what was opened.
    pub fn file(&self, path: &Path) -> io::Result<(File, Facts)> {
        let flags =
            OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let opened = File::from(openat2(&self.root, path, flags, Mode::empty(), CONFINED)?);
        let facts = of(&opened, None)?;
        match facts.kind {
            Kind::File => Ok((opened, facts)),
            kind => {
                let why = format!("it is a {}, not a file", kind.word());
                Err(io::Error::new(io::ErrorKind::InvalidInput, why))
            }
        }
    }

    /// What the pattern (relative, `*`, `?`, `[...]`, `**`) matches. Names that are no text are not matched. `left` counts down
    /// with every entry that is looked at, in this call and others; at 0 it ends.
    pub fn matching(
        &self,
        pattern: &Path,
        left: &AtomicU64,
    ) -> io::Result<BTreeMap<PathBuf, Facts>> {
        let parts: Vec<&OsStr> = pattern.iter().collect();
        let mut matched = BTreeMap::new();
        let mut walk = Walk {
            tree: self,
            left,
            matched: &mut matched,
        };
        walk.descend(Path::new(""), &parts, 0)?;
        Ok(matched)
    }

    fn entries(&self, dir: &Path) -> io::Result<Vec<(String, FileType)>> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let path = if dir.as_os_str().is_empty() {
            Path::new(".")
        } else {
            dir
        };
        let opened = match openat2(&self.root, path, flags, Mode::empty(), CONFINED) {
            Ok(opened) => opened,
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::XDEV) => return Ok(Vec::new()),
            Err(error) => return Err(error.into()),
        };
        let mut entries = Vec::new();
        for entry in Dir::new(opened)? {
            let entry = entry?;
            let name = OsStr::from_bytes(entry.file_name().to_bytes());
            match name.to_str() {
                Some("." | "..") | None => {}
                Some(name) => entries.push((name.to_owned(), entry.file_type())),
            }
        }
        Ok(entries)
    }
}

struct Walk<'a> {
    tree: &'a Tree,
    left: &'a AtomicU64,
    matched: &'a mut BTreeMap<PathBuf, Facts>,
}

impl Walk<'_> {
    /// Matches the rest of a pattern below `dir`.
    fn descend(&mut self, dir: &Path, parts: &[&OsStr], depth: usize) -> io::Result<()> {
        let Some((part, rest)) = parts.split_first() else {
            return Ok(());
        };
        if depth > DEPTH_MAX {
            return Ok(());
        }
        let text = part.to_string_lossy();
        let anywhere = text == "**";
        if !anywhere && !text.contains(['*', '?', '[']) {
            return self.take(&dir.join(part), rest, depth);
        }
        // What is no pattern after all can only be a name.
        let Ok(pattern) = Pattern::new(&text) else {
            return self.take(&dir.join(part), rest, depth);
        };
        if anywhere {
            self.descend(dir, rest, depth)?;
        }
        for (name, kind) in self.tree.entries(dir)? {
            if !self.may_look() {
                return Ok(());
            }
            let path = dir.join(&name);
            let shown = MatchOptions {
                require_literal_leading_dot: true,
                ..MatchOptions::new()
            };
            if anywhere {
                let goes_down = matches!(kind, FileType::Directory | FileType::Unknown);
                if goes_down && !name.starts_with('.') {
                    self.descend(&path, parts, depth + 1)?;
                }
                if rest.is_empty() {
                    self.take(&path, rest, depth)?;
                }
            } else if pattern.matches_with(&name, shown) {
                self.take(&path, rest, depth)?;
            }
        }
        // A name that has these characters in it.
        if !anywhere && self.tree.facts(&dir.join(part))?.is_some() {
            self.take(&dir.join(part), rest, depth)?;
        }
        Ok(())
    }

    fn take(&mut self, path: &Path, rest: &[&OsStr], depth: usize) -> io::Result<()> {
        if !rest.is_empty() {
            return self.descend(path, rest, depth + 1);
        }
        if let Some(facts) = self.tree.facts(path)? {
            self.matched.insert(path.to_owned(), facts);
        }
        Ok(())
    }

    fn may_look(&self) -> bool {
        let less = |left: u64| left.checked_sub(1);
        let counted = self
            .left
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
        counted.is_ok()
    }
}

fn facts(found: OwnedFd) -> io::Result<Facts> {
    let found = File::from(found);
    let target = match found.metadata()?.file_type().is_symlink() {
        true => {
            let target = rustix::fs::readlinkat(found.as_fd(), "", Vec::new())?;
            Some(String::from_utf8_lossy(target.as_bytes()).into_owned())
        }
        false => None,
    };
    of(&found, target)
}

fn of(found: &File, target: Option<String>) -> io::Result<Facts> {
    let facts = found.metadata()?;
    let kind = match facts.file_type() {
        kind if kind.is_file() => Kind::File,
        kind if kind.is_dir() => Kind::Directory,
        kind if kind.is_symlink() => Kind::Symlink,
        _ => Kind::Special,
    };
    let nanoseconds = |of: i64| u32::try_from(of).unwrap_or(0);
    Ok(Facts {
        kind,
        size: if kind == Kind::File { facts.size() } else { 0 },
        mtime: (facts.mtime(), nanoseconds(facts.mtime_nsec())),
        ctime: (facts.ctime(), nanoseconds(facts.ctime_nsec())),
        inode: facts.ino(),
        mode: facts.mode() & 0o7777,
        uid: facts.uid(),
        gid: facts.gid(),
        target,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree() -> (tempfile::TempDir, Tree) {
        let dir = tempfile::tempdir().unwrap();
        let at = dir.path();
        std::fs::create_dir_all(at.join("a/b/.git")).unwrap();
        for file in [
            "a/x.txt",
            "a/y.txt",
            "a/b/z.txt",
            "a/.hidden",
            "a/[1]",
            "a/b/.git/c.txt",
        ] {
            std::fs::write(at.join(file), "12345").unwrap();
        }
        std::os::unix::fs::symlink("/etc", at.join("out")).unwrap();
        std::os::unix::fs::symlink("a", at.join("in")).unwrap();
        let tree = Tree::open(at).unwrap();
        (dir, tree)
    }

    #[test]
    fn facts_of_what_is_in_it() {
        let (_dir, tree) = tree();
        let check = |path: &str, expected: Option<(Kind, u64)>| {
            let found = tree.facts(Path::new(path)).ok().flatten();
            assert_eq!(found.map(|f| (f.kind, f.size)), expected, "{path}");
        };
        check("a/x.txt", Some((Kind::File, 5)));
        check("a", Some((Kind::Directory, 0)));
        check("out", Some((Kind::Symlink, 0)));
        for nothing in [
            "b",
            "a/x.txt/b",
            "out/passwd",
            "in/x.txt",
            "/etc/passwd",
            "../x",
        ] {
            check(nothing, None);
        }
        let link = tree.facts(Path::new("out")).unwrap().unwrap();
        assert_eq!(link.target.as_deref(), Some("/etc"));
        assert!(tree.file(Path::new("a/x.txt")).is_ok());
        for refused in ["a", "out", "out/passwd", "../x", "none"] {
            assert!(tree.file(Path::new(refused)).is_err(), "{refused}");
        }
    }

    #[test]
    fn patterns() {
        let (_dir, tree) = tree();
        let check = |pattern: &str, most: u64, expected: &[&str]| {
            let left = AtomicU64::new(most);
            let found = tree.matching(Path::new(pattern), &left).unwrap();
            let found: Vec<&str> = found.keys().filter_map(|path| path.to_str()).collect();
            assert_eq!(found, expected, "{pattern}");
        };
        check("a/*.txt", 100, &["a/x.txt", "a/y.txt"]);
        check("*/x.txt", 100, &["a/x.txt"]);
        check("a/?.txt", 100, &["a/x.txt", "a/y.txt"]);
        check("**/*.txt", 100, &["a/b/z.txt", "a/x.txt", "a/y.txt"]);
        check("a/[1]", 100, &["a/[1]"]);
        check("a/[", 100, &[]);
        check("a/.*", 100, &["a/.hidden"]);
        check("out/*", 100, &[]);
        check("a/*.txt", 0, &[]);
    }
}
