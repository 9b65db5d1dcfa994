//! Reads a tree that does not change, and says of it by hashes what is in it.
//!
//! Promise: follows no link and leaves the subvolume for none; files are read by several threads, directories by one. What
//! was hashed before and cannot have changed since is not read again ([`Memory`]). A file that the disk does not give back is
//! named, and the rest is read all the same. Writes nothing, so a crash leaves nothing. Memory is needed for the directories, and
//! for the listings on the way from the top to where the walk is.
//!
//! It deliberately does not know points, nor which filesystem it is on.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, bail};
use rustix::fs::{FileType, Stat};

use super::Result;
use crate::logic::prefix::hex;
use crate::logic::verify::{Entry, Hash, Kind, Leave, TOLD_MAX};

mod facts;
mod names;

pub use facts::Seen;
use facts::meta;
pub use names::shown;
use names::{below, inside, kind, names, open_dir, open_file, open_top};

/// Directories in one another: each holds a descriptor while the walk is in it.
const DEPTH_MAX: usize = 512;

/// Files open and waiting to be read.
const WAITING_MAX: usize = 16;

/// Read at a time.
const PIECE_BYTES: usize = 256 << 10;

/// What was hashed before.
pub trait Memory: Sync {
    /// The hash of a file's content, when it is known to be that of this very state of it.
    fn get(&self, seen: &Seen) -> Option<Hash>;
    fn put(&self, seen: &Seen, hash: &Hash);
}

/// How fast, and whether at all.
pub trait Pace: Sync {
    /// Called after so many bytes were read; an error ends it all.
    fn take(&self, bytes: u64) -> Result<()>;
    /// A file is done.
    fn done(&self, bytes: u64);
}

/// How a tree is read.
pub struct Reading<'a> {
    pub leave: Leave,
    /// Paths in it that are not compared: the places of nested subvolumes.
    pub without: &'a BTreeSet<Vec<u8>>,
    pub threads: usize,
    pub memory: &'a dyn Memory,
    pub pace: &'a dyn Pace,
}

/// A tree, as hashes.
#[derive(Debug, Default)]
pub struct Tree {
    pub root: Hash,
    /// Of every directory, by its path; the top's is empty.
    dirs: BTreeMap<Vec<u8>, Hash>,
    pub files: u64,
    /// Of all files.
    pub bytes: u64,
    /// Paths that could not be read.
    pub unreadable: Vec<Vec<u8>>,
}

/// What the disk says when it cannot give back what it was given.
fn is_bad_disk(error: &std::io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EIO | libc::EUCLEAN | libc::EBADMSG)
    )
}

/// One name of a directory that has been looked at.
struct Item {
    name: Vec<u8>,
    kind: Kind,
    meta: Hash,
    data: Option<Hash>,
}

impl Item {
    fn digest(&self) -> Hash {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&[self.kind as u8]);
        hasher.update(&self.meta);
        hasher.update(&self.data.unwrap_or_default());
        *hasher.finalize().as_bytes()
    }
}

/// A directory of which something is still being read.
struct Open {
    path: Vec<u8>,
    /// Its own place in its parent.
    parent: Option<(usize, usize)>,
    items: Vec<Item>,
    waiting: usize,
}

/// A directory that the walk has yet to go into.
struct Step {
    parent: Arc<OwnedFd>,
    path: Vec<u8>,
    /// Its place in its parent.
    at: Option<(usize, usize)>,
    depth: usize,
}

/// A file to be read, and where its hash goes.
struct Job {
    file: File,
    seen: Seen,
    at: (usize, usize),
    path: Vec<u8>,
}

struct Work<'a> {
    reading: &'a Reading<'a>,
    open: Mutex<(BTreeMap<usize, Open>, usize)>,
    tree: Mutex<Tree>,
    failed: Mutex<Option<anyhow::Error>>,
}

/// Hashes the tree at `root`.
pub fn hash(root: &Path, reading: &Reading<'_>) -> Result<Tree> {
    let work = Work {
        reading,
        open: Mutex::default(),
        tree: Mutex::default(),
        failed: Mutex::default(),
    };
    let top = open_top(root)?;
    let (jobs, queue) = sync_channel::<Job>(WAITING_MAX);
    let queue = Mutex::new(queue);
    std::thread::scope(|scope| {
        for _ in 0..reading.threads.max(1) {
            scope.spawn(|| work.read_all(&queue));
        }
        if let Err(error) = work.walk(top, &jobs) {
            work.fail(error);
        }
        drop(jobs);
    });
    if let Some(error) = work
        .failed
        .into_inner()
        .unwrap_or_else(PoisonError::into_inner)
    {
        return Err(error.context(format!("read {}", root.display())));
    }
    Ok(work
        .tree
        .into_inner()
        .unwrap_or_else(PoisonError::into_inner))
}

/// The names of one directory of a tree that was hashed, in their order.
pub fn list(root: &Path, dir: &[u8], tree: &Tree, reading: &Reading<'_>) -> Result<Vec<Entry>> {
    let mut at = open_top(root)?;
    for name in dir.split(|b| *b == b'/').filter(|name| !name.is_empty()) {
        at = open_dir(&at, name).with_context(|| format!("open {}", shown(dir)))?;
    }
    let mut entries = Vec::new();
    for (name, stat) in names(&at, dir, reading)? {
        let path = below(dir, &name);
        let meta = meta(&at, &name, &stat, reading.leave)?;
        let mut kind = kind(&stat, reading.leave);
        let mut data = None;
        if tree.unreadable.contains(&path) {
            kind = Kind::Unreadable;
        } else if kind == Kind::Directory {
            data = tree.dirs.get(&path).copied();
        } else if kind == Kind::File {
            match content(&at, &name, &stat, reading) {
                Ok(hash) => data = Some(hash),
                Err(error) if bad_disk(&error) => kind = Kind::Unreadable,
                Err(error) => return Err(error),
            }
        }
        entries.push(Entry {
            name: hex(&name),
            kind,
            meta: hex(&meta),
            data: data.map_or_else(String::new, |data| hex(&data)),
        });
    }
    Ok(entries)
}

fn bad_disk(error: &anyhow::Error) -> bool {
    let io = |cause: &(dyn std::error::Error + 'static)| {
        let io = cause.downcast_ref::<std::io::Error>();
        io.is_some_and(is_bad_disk)
    };
    error.chain().any(io)
}

/// The hash of one file's content, remembered or read.
fn content(at: &OwnedFd, name: &[u8], stat: &Stat, reading: &Reading<'_>) -> Result<Hash> {
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Ok(*blake3::hash(b"").as_bytes());
    }
    let seen = Seen::of(stat);
    if let Some(hash) = reading.memory.get(&seen) {
        return Ok(hash);
    }
    let hash = read(&mut open_file(at, name)?, reading.pace)?;
    reading.memory.put(&seen, &hash);
    Ok(hash)
}

fn read(file: &mut File, pace: &dyn Pace) -> Result<Hash> {
    let mut hasher = blake3::Hasher::new();
    let mut piece = vec![0; PIECE_BYTES];
    loop {
        match file.read(&mut piece) {
            Ok(0) => break,
            Ok(count) => {
                hasher.update(&piece[..count]);
                pace.take(count as u64)?;
            }
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error.into()),
        };
    }
    // What was read for this must not push out what somebody works with.
    let advice = rustix::fs::Advice::DontNeed;
    let _ = rustix::fs::fadvise(file.as_fd(), 0, None, advice);
    Ok(*hasher.finalize().as_bytes())
}

impl Work<'_> {
    fn fail(&self, error: anyhow::Error) {
        let mut failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        failed.get_or_insert(error);
    }

    fn has_failed(&self) -> bool {
        let failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        failed.is_some()
    }

    /// Goes through all directories, the deepest first as they come, and hands files to the readers.
    fn walk(&self, top: OwnedFd, jobs: &SyncSender<Job>) -> Result<()> {
        let stat = rustix::fs::fstat(&top).map_err(std::io::Error::from)?;
        let root_meta = meta(&top, b".", &stat, self.reading.leave)?;
        let device = stat.st_dev;
        self.tree
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .root = root_meta;
        // Opened when it is their turn: what is open is what the walk is in.
        let mut stack = vec![Step {
            parent: Arc::new(top),
            path: Vec::new(),
            at: None,
            depth: 0,
        }];
        while let Some(step) = stack.pop() {
            if self.has_failed() {
                break;
            }
            self.reading.pace.take(0)?;
            self.directory(step, device, jobs, &mut stack)?;
        }
        Ok(())
    }

    /// One directory: its names are looked at, its files handed on, its directories left for later.
    fn directory(
        &self,
        step: Step,
        device: u64,
        jobs: &SyncSender<Job>,
        stack: &mut Vec<Step>,
    ) -> Result<()> {
        let Step {
            parent,
            path,
            at: place_of,
            depth,
        } = step;
        if depth > DEPTH_MAX {
            bail!("go deeper than {DEPTH_MAX} directories: {}", shown(&path));
        }
        let name = path.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
        let opened = match depth {
            0 => Ok(parent),
            _ => open_dir(&parent, name).map(Arc::new),
        };
        let at = match opened {
            Ok(at) => at,
            Err(error) if is_bad_disk(&error) => {
                self.unreadable(&path, place_of);
                return Ok(());
            }
            Err(error) => return Err(error).with_context(|| format!("open {}", shown(&path))),
        };
        let listed = match names(&at, &path, self.reading) {
            Ok(listed) => listed,
            Err(error) if bad_disk(&error) => {
                self.unreadable(&path, place_of);
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        let id = self.begin(&path, place_of);
        let mut found = Vec::new();
        for (name, stat) in listed {
            found.push(self.look(&at, &path, name, &stat, device)?);
        }
        self.fill(id, &found);
        for (place, (item, stat)) in found.iter().enumerate() {
            if item.data.is_some() {
                continue;
            }
            let path = below(&path, &item.name);
            match item.kind {
                Kind::Directory => stack.push(Step {
                    parent: at.clone(),
                    path,
                    at: Some((id, place)),
                    depth: depth + 1,
                }),
                Kind::File => self.hand_on(&at, item, stat, (id, place), path, jobs)?,
                _ => {}
            }
        }
        self.less(id);
        Ok(())
    }

    fn hand_on(
        &self,
        dir: &OwnedFd,
        item: &Item,
        stat: &Stat,
        at: (usize, usize),
        path: Vec<u8>,
        jobs: &SyncSender<Job>,
    ) -> Result<()> {
        match open_file(dir, &item.name) {
            Ok(file) => {
                let seen = Seen::of(stat);
                // Nobody takes it where it all has failed; the walk is about to notice.
                let _ = jobs.send(Job {
                    file,
                    seen,
                    at,
                    path,
                });
                Ok(())
            }
            Err(error) if is_bad_disk(&error) => {
                self.unreadable(&path, Some(at));
                Ok(())
            }
            Err(error) => Err(error).with_context(|| format!("open {}", shown(&path))),
        }
    }

    /// One name: all of it that can be told without reading it.
    fn look(
        &self,
        at: &OwnedFd,
        dir: &[u8],
        name: Vec<u8>,
        stat: &Stat,
        device: u64,
    ) -> Result<(Item, Stat)> {
        let kind = kind(stat, self.reading.leave);
        let path = || shown(&below(dir, &name));
        if kind == Kind::Directory && stat.st_dev != device {
            bail!(
                "go into {}: another filesystem or subvolume begins there",
                path()
            );
        }
        let meta = meta(at, &name, stat, self.reading.leave)
            .with_context(|| format!("look at {}", path()))?;
        let mut item = Item {
            name,
            kind,
            meta,
            data: None,
        };
        if kind == Kind::File {
            let is_device = FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile;
            item.data = match is_device || stat.st_size == 0 {
                true => Some(*blake3::hash(b"").as_bytes()),
                false => self.reading.memory.get(&Seen::of(stat)),
            };
            let mut tree = self.tree.lock().unwrap_or_else(PoisonError::into_inner);
            tree.files += 1;
            tree.bytes += u64::try_from(stat.st_size).unwrap_or(0);
            drop(tree);
            if item.data.is_some() {
                self.reading
                    .pace
                    .done(u64::try_from(stat.st_size).unwrap_or(0));
            }
        }
        Ok((item, *stat))
    }

    fn begin(&self, path: &[u8], parent: Option<(usize, usize)>) -> usize {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.1 += 1;
        let id = open.1;
        let dir = Open {
            path: path.to_vec(),
            parent,
            items: Vec::new(),
            // The walk itself, until it has gone through.
            waiting: 1,
        };
        open.0.insert(id, dir);
        id
    }

    fn fill(&self, id: usize, found: &[(Item, Stat)]) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(dir) = open.0.get_mut(&id) else {
            return;
        };
        for (item, _) in found {
            let reads = matches!(item.kind, Kind::Directory | Kind::File) && item.data.is_none();
            dir.waiting += usize::from(reads);
            dir.items.push(Item {
                name: item.name.clone(),
                ..*item
            });
        }
    }

    /// The hash of what was waited for.
    fn known(&self, (id, place): (usize, usize), data: Option<Hash>) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(item) = open.0.get_mut(&id).and_then(|dir| dir.items.get_mut(place)) {
            match data {
                Some(data) => item.data = Some(data),
                None => item.kind = Kind::Unreadable,
            }
        }
        drop(open);
        self.less(id);
    }

    /// One thing less is waited for; where nothing is, the directory has its hash, and its parent waits for one thing less.
    fn less(&self, mut id: usize) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            let Some(dir) = open.0.get_mut(&id) else {
                return;
            };
            dir.waiting = dir.waiting.saturating_sub(1);
            if dir.waiting > 0 {
                return;
            }
            let Some(dir) = open.0.remove(&id) else {
                return;
            };
            let mut hasher = blake3::Hasher::new();
            for item in &dir.items {
                hasher.update(&(item.name.len() as u64).to_le_bytes());
                hasher.update(&item.name);
                hasher.update(&item.digest());
            }
            let hash = *hasher.finalize().as_bytes();
            let mut tree = self.tree.lock().unwrap_or_else(PoisonError::into_inner);
            tree.dirs.insert(dir.path, hash);
            let Some((parent, place)) = dir.parent else {
                // The top has no entry of its own.
                let whole = [tree.root, hash].concat();
                tree.root = *blake3::hash(&whole).as_bytes();
                return;
            };
            drop(tree);
            if let Some(item) = open
                .0
                .get_mut(&parent)
                .and_then(|dir| dir.items.get_mut(place))
            {
                item.data = Some(hash);
            }
            id = parent;
        }
    }

    fn unreadable(&self, path: &[u8], at: Option<(usize, usize)>) {
        let mut tree = self.tree.lock().unwrap_or_else(PoisonError::into_inner);
        if tree.unreadable.len() < TOLD_MAX {
            tree.unreadable.push(path.to_vec());
        }
        drop(tree);
        match at {
            Some(at) => self.known(at, None),
            None => self.fail(std::io::Error::from_raw_os_error(libc::EIO).into()),
        }
    }

    /// A reader: hashes files until there are no more.
    fn read_all(&self, queue: &Mutex<Receiver<Job>>) {
        loop {
            let next = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
            let Ok(mut job) = next else { return };
            if self.has_failed() {
                // The walk notices; what it still sends is taken and forgotten.
                continue;
            }
            match read(&mut job.file, self.reading.pace) {
                Ok(hash) => {
                    self.reading.memory.put(&job.seen, &hash);
                    self.reading.pace.done(job.seen.size);
                    self.known(job.at, Some(hash));
                }
                Err(error) if bad_disk(&error) => self.unreadable(&job.path, Some(job.at)),
                Err(error) => {
                    self.fail(error.context(format!("read {}", shown(&job.path))));
                }
            }
        }
    }
}
