//! What differs between two snapshots, folded from the deeds of the stream that makes the one into the other.
//!
//! A stream speaks in names of the moment: what is new begins under a name of the stream's own (`o257-7-0`), what is in the
//! way is put under one, and a file that moves is linked and unlinked. So the fold keeps the part of the tree that the
//! stream speaks of, as objects with the name they had and the names they have, and compares the two at the end.
//!
//! Promise: pure; memory grows with what the stream names, not with the trees. Paths are bytes. What was there before is
//! only known as far as the stream tells: the kind of a file that was removed, or a further hard link of a file that
//! changed, is not. It deliberately does not know where streams come from.

use std::collections::BTreeMap;

/// What an entry of a tree is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EntryKind {
    File,
    Directory,
    Symlink,
    /// A device, a pipe or a socket.
    Special,
}

/// What became of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum What {
    Added,
    Removed,
    /// Its content, or all of it: another file of the same name.
    Changed,
    /// Moved; its content may have changed too.
    Renamed,
    /// Nothing but owner, mode, times or attributes.
    Metadata,
}

/// Bytes of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    pub offset: u64,
    pub len: u64,
}

/// One difference. Paths are relative to the top of the dataset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    pub what: What,
    /// Where it is; of what was removed, where it was.
    pub path: Vec<u8>,
    /// Where it was, when that is another path. Of a further name of a file (a hard link): the file's first name.
    pub from: Option<Vec<u8>>,
    /// None where the stream does not tell.
    pub kind: Option<EntryKind>,
    /// Ranges of the file that were written, in order, not touching one another.
    pub written: Vec<Span>,
    /// File data that only the newer one holds: the ranges without what it shares with others.
    pub bytes: u64,
    /// The size it was cut or extended to.
    pub resized: Option<u64>,
    /// Whether another file took its name: then all of its content is new, holes between what was written included. Also of a
    /// directory that another one took the name of.
    pub replaced: bool,
    /// Whether owner, mode or attributes changed as well.
    pub metadata: bool,
    /// When, in seconds since 1970; of what was removed, when its directory last changed.
    pub at: Option<i64>,
}

impl Change {
    pub fn is_directory(&self) -> bool {
        self.kind == Some(EntryKind::Directory)
    }
}

/// One command of a stream, as far as it changes what there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deed<'a> {
    Make {
        path: &'a [u8],
        kind: EntryKind,
    },
    Rename {
        from: &'a [u8],
        to: &'a [u8],
    },
    /// A further name, `path`, for `existing`.
    Link {
        path: &'a [u8],
        existing: &'a [u8],
    },
    Unlink {
        path: &'a [u8],
    },
    Rmdir {
        path: &'a [u8],
    },
    /// `own` bytes of it are in no other file.
    Write {
        path: &'a [u8],
        span: Span,
        own: u64,
    },
    Resize {
        path: &'a [u8],
        size: u64,
    },
    /// Owner, mode or attributes.
    Describe {
        path: &'a [u8],
    },
    /// `changed` in seconds since 1970.
    Times {
        path: &'a [u8],
        changed: i64,
    },
}

/// A deed that cannot be done: its path leads through what is not there.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the stream names {0}, which is not there at that point")]
pub struct Astray(pub String);

const ROOT: usize = 0;

/// A name in a directory (by its number).
type Name = (usize, Box<[u8]>);

#[derive(Debug, Default)]
struct Object {
    /// Where it was; none for what is new.
    origin: Option<Name>,
    names: Vec<Name>,
    kind: Option<EntryKind>,
    /// Entries that were spoken of; none where nothing is any more.
    entries: BTreeMap<Box<[u8]>, Option<usize>>,
    written: Vec<Span>,
    own: u64,
    resized: Option<u64>,
    described: bool,
    at: Option<i64>,
}

/// The part of the tree that a stream has spoken of so far.
#[derive(Debug)]
pub struct Fold {
    objects: Vec<Object>,
    /// Whether there is a base: what is not spoken of exists.
    based: bool,
}

impl Fold {
    /// For a stream on top of a base, or (`based` false) for a whole one.
    pub fn new(based: bool) -> Fold {
        let root = Object {
            kind: Some(EntryKind::Directory),
            ..Object::default()
        };
        Fold {
            objects: vec![root],
            based,
        }
    }

    /// Takes the next deed in.
    pub fn push(&mut self, deed: Deed<'_>) -> Result<(), Astray> {
        match deed {
            Deed::Make { path, kind } => {
                let object = Object {
                    kind: Some(kind),
                    ..Object::default()
                };
                self.objects.push(object);
                self.put(path, self.objects.len() - 1)?;
            }
            Deed::Rename { from, to } => {
                let object = self.take(from)?;
                self.put(to, object)?;
            }
            Deed::Link { path, existing } => {
                let object = self.find(existing)?;
                self.put(path, object)?;
            }
            Deed::Unlink { path } => {
                self.take(path)?;
            }
            Deed::Rmdir { path } => {
                let object = self.take(path)?;
                self.objects[object].kind = Some(EntryKind::Directory);
            }
            Deed::Write { path, span, own } => {
                let object = self.at(path)?;
                object.kind = Some(EntryKind::File);
                object.own = object.own.saturating_add(own);
                add_span(&mut object.written, span);
            }
            Deed::Resize { path, size } => {
                let object = self.at(path)?;
                object.kind = Some(EntryKind::File);
                object.resized = Some(size);
            }
            Deed::Describe { path } => self.at(path)?.described = true,
            Deed::Times { path, changed } => {
                let object = self.at(path)?;
                object.at = object.at.max(Some(changed));
            }
        }
        Ok(())
    }

    /// What differs, by path.
    pub fn finish(mut self) -> Vec<Change> {
        let mut changes = Vec::new();
        for number in 1..self.objects.len() {
            self.tell(number, &mut changes);
        }
        changes.sort_by(|a, b| (&a.path, a.what).cmp(&(&b.path, b.what)));
        replaced(changes)
    }

    fn at(&mut self, path: &[u8]) -> Result<&mut Object, Astray> {
        let number = self.find(path)?;
        Ok(&mut self.objects[number])
    }

    fn find(&mut self, path: &[u8]) -> Result<usize, Astray> {
        let mut dir = ROOT;
        for name in path.split(|&b| b == b'/').filter(|name| !name.is_empty()) {
            dir = self
                .entry(dir, name)
                .ok_or_else(|| Astray(format!("{:?}", shown(path))))?;
        }
        Ok(dir)
    }

    /// The entry of a directory. One never spoken of is where the base has it.
    fn entry(&mut self, dir: usize, name: &[u8]) -> Option<usize> {
        let exists_unspoken = self.based && (dir == ROOT || self.objects[dir].origin.is_some());
        match self.objects[dir].entries.get(name) {
            Some(known) => *known,
            None if exists_unspoken => {
                let place: Name = (dir, name.into());
                let number = self.objects.len();
                self.objects.push(Object {
                    origin: Some(place.clone()),
                    names: vec![place],
                    ..Object::default()
                });
                self.objects[dir].kind = Some(EntryKind::Directory);
                self.objects[dir].entries.insert(name.into(), Some(number));
                Some(number)
            }
            None => None,
        }
    }

    /// Takes the name away from what has it.
    fn take(&mut self, path: &[u8]) -> Result<usize, Astray> {
        let object = self.find(path)?;
        let (parent, name) = split(path);
        let dir = self.find(parent)?;
        self.objects[dir].entries.insert(name.into(), None);
        let names = &mut self.objects[object].names;
        names.retain(|(held, called)| (*held, &**called) != (dir, name));
        Ok(object)
    }

    fn put(&mut self, path: &[u8], object: usize) -> Result<(), Astray> {
        let (parent, name) = split(path);
        let dir = self.find(parent)?;
        let before = self.objects[dir].entries.insert(name.into(), Some(object));
        if let Some(over) = before.flatten().filter(|&over| over != object) {
            let names = &mut self.objects[over].names;
            names.retain(|(held, called)| (*held, &**called) != (dir, name));
        }
        self.objects[object].names.push((dir, name.into()));
        Ok(())
    }

    /// What became of one object.
    fn tell(&mut self, number: usize, changes: &mut Vec<Change>) {
        let was = self.objects[number].origin.is_some();
        let was = was.then(|| self.path(number, |object| object.origin.as_ref()));
        let paths = self.paths(number, was.as_deref());
        let parent = self.objects[number].origin.as_ref().map(|(dir, _)| *dir);
        let parent_at = parent.and_then(|dir| self.objects[dir].at);
        let object = &mut self.objects[number];
        // The times of a directory follow its entries, those of a file its further names.
        let touched = object.at.is_some() && object.entries.is_empty() && paths.len() == 1;
        let bare = |what, path, from, at| Change {
            what,
            path,
            from,
            kind: object.kind,
            written: Vec::new(),
            bytes: 0,
            resized: None,
            replaced: false,
            metadata: false,
            at,
        };
        let mut paths = paths.into_iter();
        let Some((path, stays)) = paths.next() else {
            changes.extend(was.map(|was| bare(What::Removed, was, None, parent_at)));
            return;
        };
        for (other, _) in paths {
            let first = Some(path.clone());
            changes.push(bare(What::Added, other, first, object.at));
        }
        let rewritten = !object.written.is_empty() || object.resized.is_some();
        let what = match (&was, stays) {
            (None, _) => What::Added,
            (Some(_), false) => What::Renamed,
            (Some(_), true) if rewritten => What::Changed,
            (Some(_), true) if object.described || touched => What::Metadata,
            // Only passed through.
            (Some(_), true) => return,
        };
        let from = was.filter(|was| *was != path);
        changes.push(Change {
            bytes: object.own,
            resized: object.resized,
            metadata: object.described,
            written: merged(object.written.clone()),
            ..bare(what, path, from, object.at)
        });
    }

    /// Where it is now, and whether that is where it was; what stays first, then by name.
    fn paths(&self, number: usize, was: Option<&[u8]>) -> Vec<(Vec<u8>, bool)> {
        let object = &self.objects[number];
        let told = object.names.iter().map(|place| {
            let path = self.path_to(place, |object| object.names.first());
            let stays = object.origin.as_ref() == Some(place) || was == Some(&path);
            (path, stays)
        });
        let mut paths: Vec<(Vec<u8>, bool)> = told.collect();
        paths.sort_by(|a, b| (!a.1, &a.0).cmp(&(!b.1, &b.0)));
        paths
    }

    /// The path of an object by the names that `which` gives.
    fn path(&self, number: usize, which: fn(&Object) -> Option<&Name>) -> Vec<u8> {
        match which(&self.objects[number]) {
            Some(place) => self.path_to(place, which),
            None => Vec::new(),
        }
    }

    fn path_to(&self, place: &Name, which: fn(&Object) -> Option<&Name>) -> Vec<u8> {
        let mut parts: Vec<&[u8]> = vec![&place.1];
        let mut dir = place.0;
        while let Some((above, name)) = which(&self.objects[dir]) {
            parts.push(name);
            dir = *above;
        }
        parts.reverse();
        parts.join(&b'/')
    }
}

/// What was removed and what was added under one name is one change, when both are directories or neither is.
fn replaced(changes: Vec<Change>) -> Vec<Change> {
    let mut folded: Vec<Change> = Vec::with_capacity(changes.len());
    for change in changes {
        let pair = folded.last_mut().filter(|last| {
            last.what == What::Added
                && last.from.is_none()
                && change.what == What::Removed
                && last.path == change.path
                && last.is_directory() == change.is_directory()
        });
        match pair {
            Some(added) => {
                added.what = match added.is_directory() {
                    true => What::Metadata,
                    false => What::Changed,
                };
                added.replaced = true;
            }
            None => folded.push(change),
        }
    }
    folded
}

fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|&b| b == b'/') {
        Some(at) => (&path[..at], &path[at + 1..]),
        None => (&[], path),
    }
}

/// Streams mostly write in order: the last span grows.
fn add_span(spans: &mut Vec<Span>, new: Span) {
    if new.len == 0 {
        return;
    }
    match spans.last_mut() {
        Some(last) if last.offset.saturating_add(last.len) == new.offset => {
            last.len = last.len.saturating_add(new.len);
        }
        _ => spans.push(new),
    }
}

fn merged(mut spans: Vec<Span>) -> Vec<Span> {
    spans.sort_by_key(|span| span.offset);
    let mut merged: Vec<Span> = Vec::new();
    for span in spans {
        match merged.last_mut() {
            Some(last) if span.offset <= last.offset.saturating_add(last.len) => {
                let end = span.offset.saturating_add(span.len);
                last.len = last.len.max(end - last.offset);
            }
            _ => merged.push(span),
        }
    }
    merged
}

/// A path as people may see it: on one line, whatever its bytes.
pub fn shown(path: &[u8]) -> String {
    let mut text = String::new();
    for c in String::from_utf8_lossy(path).chars() {
        if c.is_control() {
            text.extend(c.escape_default());
        } else {
            text.push(c);
        }
    }
    text
}

#[cfg(test)]
mod tests;
