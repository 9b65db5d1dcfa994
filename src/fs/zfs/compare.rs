//! What differs between two trees, found by walking them side by side.
//!
//! ZFS keeps the number of a file for as long as it lives, in snapshots and clones alike; so an equal number and an equal change
//! time mean an equal file, and a number that is gone here and new there is a rename. `zfs diff` would say as much of mounted
//! datasets only, and nothing of bytes. Files that differ are read and compared.
//!
//! Promise: reads only; memory grows with what differs and with the largest directory. It deliberately does not know points.

use std::collections::BTreeMap;
use std::fs::{File, Metadata};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use anyhow::Context;

use crate::fs::Result;
use crate::logic::changes::{Change, EntryKind, Span, What};

/// Compared at a time, in bytes.
const BLOCK: usize = 64 << 10;

/// What differs between `base` and `newer`, by path.
pub fn changes(base: &Path, newer: &Path) -> Result<Vec<Change>> {
    let mut walk = Walk {
        base,
        newer,
        gone: BTreeMap::new(),
        come: BTreeMap::new(),
        changes: Vec::new(),
    };
    let mut waiting = vec![PathBuf::new()];
    while let Some(at) = waiting.pop() {
        walk.directory(&at, &mut waiting)?;
    }
    walk.finish()
}

/// By number and path: a file may have several names.
type Noted = BTreeMap<(u64, PathBuf), Metadata>;

struct Walk<'a> {
    base: &'a Path,
    newer: &'a Path,
    /// What is not at its path any more, and what was not there.
    gone: Noted,
    come: Noted,
    changes: Vec<Change>,
}

impl Walk<'_> {
    fn directory(&mut self, at: &Path, waiting: &mut Vec<PathBuf>) -> Result<()> {
        let old = entries(&self.base.join(at))?;
        let new = entries(&self.newer.join(at))?;
        for (name, was) in &old {
            let path = at.join(std::ffi::OsStr::from_bytes(name));
            match new.get(name) {
                Some(is)
                    if is.ino() == was.ino() && is.mode() & 0o170_000 == was.mode() & 0o170_000 =>
                {
                    if was.is_dir() {
                        waiting.push(path.clone());
                    }
                    if let Some(change) = self.changed((&path, was), (&path, is))? {
                        self.changes.push(change);
                    }
                }
                Some(is) if !is.is_dir() && !was.is_dir() => {
                    let mut change = self.content(None, (&path, is), What::Changed)?;
                    change.replaced = true;
                    self.changes.push(change);
                }
                _ => self.all(self.base, &path, was, true)?,
            }
        }
        for (name, is) in &new {
            let same = old.get(name).is_some_and(|was| {
                was.ino() == is.ino() && is.mode() & 0o170_000 == was.mode() & 0o170_000
                    || !was.is_dir() && !is.is_dir()
            });
            if !same {
                let path = at.join(std::ffi::OsStr::from_bytes(name));
                self.all(self.newer, &path, is, false)?;
            }
        }
        Ok(())
    }

    /// Notes an entry, and all that is below it, as gone or come.
    fn all(&mut self, root: &Path, path: &Path, found: &Metadata, gone: bool) -> Result<()> {
        let mut waiting = vec![(path.to_owned(), found.clone())];
        while let Some((path, found)) = waiting.pop() {
            if found.is_dir() {
                for (name, below) in entries(&root.join(&path))? {
                    waiting.push((path.join(std::ffi::OsString::from_vec(name)), below));
                }
            }
            let noted = match gone {
                true => &mut self.gone,
                false => &mut self.come,
            };
            noted.insert((found.ino(), path), found);
        }
        Ok(())
    }

    /// What differs in one file that has the same number.
    fn changed(
        &self,
        (from, was): (&Path, &Metadata),
        (path, is): (&Path, &Metadata),
    ) -> Result<Option<Change>> {
        let times = |m: &Metadata| (m.ctime(), m.ctime_nsec());
        if times(was) == times(is) && was.size() == is.size() {
            return Ok(None);
        }
        let described = |m: &Metadata| (m.mode(), m.uid(), m.gid());
        let mut change = match is.is_file() {
            true => self.content(Some(from), (path, is), What::Changed)?,
            false => plain(What::Metadata, path, is),
        };
        change.metadata = described(was) != described(is);
        change.resized = (is.is_file() && was.size() != is.size()).then(|| is.size());
        if change.written.is_empty() && change.resized.is_none() {
            // A directory whose entries changed is told by its entries.
            if is.is_dir() && !change.metadata {
                return Ok(None);
            }
            change.what = What::Metadata;
            change.metadata = true;
        }
        Ok(Some(change))
    }

    /// A file with what is written in it: all of it, or what differs from the older one at `from`.
    fn content(
        &self,
        from: Option<&Path>,
        (path, is): (&Path, &Metadata),
        what: What,
    ) -> Result<Change> {
        let mut change = plain(what, path, is);
        if !is.is_file() {
            return Ok(change);
        }
        let open = |root: &Path, path: &Path| {
            File::open(root.join(path)).with_context(|| format!("open {}", path.display()))
        };
        let new = open(self.newer, path)?;
        let old = from.map(|from| open(self.base, from)).transpose()?;
        change.written =
            spans(old.as_ref(), &new).with_context(|| format!("read {}", path.display()))?;
        change.bytes = change.written.iter().map(|span| span.len).sum();
        Ok(change)
    }

    fn finish(mut self) -> Result<Vec<Change>> {
        let come = std::mem::take(&mut self.come);
        for ((inode, path), is) in come {
            let mut same = self.gone.range((inode, PathBuf::new())..);
            let was = same.next().filter(|((number, _), was)| {
                *number == inode && was.mode() & 0o170_000 == is.mode() & 0o170_000
            });
            let was = was.map(|(key, was)| (key.clone(), was.clone()));
            let change = match was {
                Some((key, was)) => {
                    self.gone.remove(&key);
                    let from = key.1;
                    let changed = self.changed((&from, &was), (&path, &is))?;
                    let mut change = changed.unwrap_or_else(|| plain(What::Renamed, &path, &is));
                    change.what = What::Renamed;
                    change.from = Some(from.into_os_string().into_vec());
                    change
                }
                None => self.content(None, (&path, &is), What::Added)?,
            };
            self.changes.push(change);
        }
        for ((_, path), was) in std::mem::take(&mut self.gone) {
            self.changes.push(plain(What::Removed, &path, &was));
        }
        self.changes.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(self.changes)
    }
}

fn plain(what: What, path: &Path, found: &Metadata) -> Change {
    let kind = found.file_type();
    let special =
        kind.is_fifo() || kind.is_socket() || kind.is_block_device() || kind.is_char_device();
    Change {
        what,
        path: path.as_os_str().as_bytes().to_vec(),
        from: None,
        kind: Some(match (found.is_dir(), found.is_symlink(), special) {
            (true, ..) => EntryKind::Directory,
            (_, true, _) => EntryKind::Symlink,
            (_, _, true) => EntryKind::Special,
            _ => EntryKind::File,
        }),
        written: Vec::new(),
        bytes: 0,
        resized: None,
        replaced: false,
        metadata: false,
        at: Some(found.ctime()),
    }
}

/// The entries of a directory by name; none where there is no directory.
fn entries(dir: &Path) -> Result<BTreeMap<Vec<u8>, Metadata>> {
    let list = || -> std::io::Result<BTreeMap<Vec<u8>, Metadata>> {
        let mut found = BTreeMap::new();
        for entry in std::fs::read_dir(dir)? {
            let entry = entry?;
            found.insert(entry.file_name().into_vec(), entry.metadata()?);
        }
        Ok(found)
    };
    list().with_context(|| format!("list {}", dir.display()))
}

/// Where the newer file differs from the older one, to the end of the newer.
fn spans(old: Option<&File>, new: &File) -> std::io::Result<Vec<Span>> {
    let (mut offset, mut spans) = (0_u64, Vec::<Span>::new());
    let (mut ours, mut theirs) = (vec![0; BLOCK], vec![0; BLOCK]);
    loop {
        let len = fill(new, &mut ours, offset)?;
        if len == 0 {
            return Ok(spans);
        }
        let had = match old {
            Some(old) => fill(old, &mut theirs, offset)?,
            None => 0,
        };
        if had < len || ours[..len] != theirs[..len] {
            match spans.last_mut() {
                Some(last) if last.offset + last.len == offset => last.len += len as u64,
                _ => spans.push(Span {
                    offset,
                    len: len as u64,
                }),
            }
        }
        offset += len as u64;
    }
}

fn fill(file: &File, buffer: &mut [u8], offset: u64) -> std::io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read_at(&mut buffer[filled..], offset + filled as u64)? {
            0 => break,
            got => filled += got,
        }
    }
    Ok(filled)
}

#[cfg(test)]
mod tests;
