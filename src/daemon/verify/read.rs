//! Reads a dataset of a point on this node, at a measured pace, and remembers what it read.
//!
//! Promise: ends soon after it is cancelled. A hash is kept for later only of a file that had been left alone for a while when
//! the point was complete: what is written in the same moment as a snapshot is taken could change without a trace.
//! It deliberately does not know what the hashes are compared with.

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use tokio_util::sync::CancellationToken;

use super::super::node::{Node, RoleRun, lock};
use crate::fs::Readable;
use crate::fs::tree::{self, Memory, Pace, Reading, Seen, Tree};
use crate::host::hashes::{Hashes, Kept};
use crate::logic::manifest::Stored;
use crate::logic::name::DatasetName;
use crate::logic::verify::{Entry, Hash, Leave};

/// Threads that read files: a disk is kept busy, and leaves cores to others.
const THREADS: usize = 2;

/// A file that changed so shortly before its point was complete is read each time, in seconds.
const RACY: i64 = 2;

/// Hashes that wait to be written.
const BATCH: usize = 4_000;

/// Hashes of one reading that are kept in memory, since they must not be kept for later.
const FRESH_MAX: usize = 1_000_000;

/// Longest sleep in one piece.
const NAP: Duration = Duration::from_millis(100);

/// How far it is, and how fast it may go.
pub struct Paced {
    cancel: CancellationToken,
    rate: Option<u64>,
    due: Mutex<Instant>,
    pub files: AtomicU64,
    pub bytes: AtomicU64,
    pub read: AtomicU64,
}

impl Paced {
    /// `rate` in bytes a second.
    pub fn new(rate: Option<u64>, cancel: CancellationToken) -> Paced {
        Paced {
            cancel,
            rate: rate.filter(|rate| *rate > 0),
            due: Mutex::new(Instant::now()),
            files: AtomicU64::default(),
            bytes: AtomicU64::default(),
            read: AtomicU64::default(),
        }
    }

    fn wait_until(&self, due: Instant) -> Result<()> {
        loop {
            if self.cancel.is_cancelled() {
                bail!("read on: cancelled");
            }
            let left = due.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            std::thread::sleep(left.min(NAP));
        }
    }
}

impl Pace for Paced {
    fn take(&self, bytes: u64) -> Result<()> {
        self.read.fetch_add(bytes, Ordering::Relaxed);
        let due = match self.rate {
            None => Instant::now(),
            Some(rate) => {
                let mut due = lock(&self.due);
                // What was not used is not made up for.
                *due = (*due).max(Instant::now())
                    + Duration::from_secs_f64(bytes as f64 / rate as f64);
                *due
            }
        };
        self.wait_until(due)
    }

    fn done(&self, bytes: u64) {
        self.files.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }
}

/// What was read before.
struct Remembered {
    hashes: Option<Hashes>,
    scope: String,
    /// Everything is read again.
    full: bool,
    /// Seconds since 1970: only what changed before is remembered.
    before: i64,
    batch: Mutex<Vec<Kept>>,
    /// Of this reading alone: what is not kept for later, by inode.
    fresh: Mutex<HashMap<u64, ([u8; 32], Hash)>>,
}

fn stamp(seen: &Seen) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    for number in [seen.size, seen.changed.1, seen.modified.1] {
        hasher.update(&number.to_le_bytes());
    }
    for number in [seen.changed.0, seen.modified.0] {
        hasher.update(&number.to_le_bytes());
    }
    *hasher.finalize().as_bytes()
}

impl Remembered {
    fn flush(&self) {
        let batch = std::mem::take(&mut *lock(&self.batch));
        if let Some(hashes) = self.hashes.as_ref().filter(|_| !batch.is_empty()) {
            if let Err(error) = hashes.put(&self.scope, &batch) {
                tracing::debug!("could not {error:#}");
            }
        }
    }
}

impl Memory for Remembered {
    fn get(&self, seen: &Seen) -> Option<Hash> {
        if let Some((stamped, hash)) = lock(&self.fresh).get(&seen.inode) {
            return (*stamped == stamp(seen)).then_some(*hash);
        }
        let hashes = self.hashes.as_ref().filter(|_| !self.full)?;
        hashes.get(&self.scope, seen.inode, &stamp(seen))
    }

    fn put(&self, seen: &Seen, hash: &Hash) {
        if seen.changed.0 >= self.before {
            let mut fresh = lock(&self.fresh);
            if fresh.len() < FRESH_MAX {
                fresh.insert(seen.inode, (stamp(seen), *hash));
            }
            return;
        }
        let mut batch = lock(&self.batch);
        batch.push(Kept {
            inode: seen.inode,
            stamp: stamp(seen),
            hash: *hash,
        });
        let full = batch.len() >= BATCH;
        drop(batch);
        if full {
            self.flush();
        }
    }
}

/// What is to be read.
#[derive(Clone)]
pub struct Wanted {
    pub run: Arc<RoleRun>,
    pub point: Stored,
    pub dataset: DatasetName,
    pub leave: Leave,
    pub full: bool,
}

/// A dataset that was read.
pub struct Whole {
    root: Readable,
    without: BTreeSet<Vec<u8>>,
    leave: Leave,
    memory: Remembered,
    pace: Arc<Paced>,
    pub tree: Tree,
}

/// Reads it. Blocks.
pub fn read(node: &Node, wanted: Wanted, pace: Arc<Paced>) -> Result<Whole> {
    let Wanted {
        run,
        point,
        dataset,
        leave,
        full,
    } = wanted;
    let manifest = &point.manifest;
    let root = run.fs.snapshot_path(&dataset, &manifest.point)?;
    let facts = manifest.datasets.get(&dataset);
    let nested = facts.into_iter().flat_map(|facts| &facts.nested);
    let complete = match point.local.from {
        Some(_) => point.local.stored.unwrap_or(manifest.taken),
        None => manifest.taken,
    };
    let hashes = match Hashes::open(&node.config().node.state_dir) {
        Ok(hashes) => Some(hashes),
        Err(error) => {
            tracing::warn!("every file is read: could not {error:#}");
            None
        }
    };
    let mut whole = Whole {
        root,
        without: nested.map(|path| path.clone().into_bytes()).collect(),
        leave,
        memory: Remembered {
            hashes,
            scope: format!("{}/{dataset}", run.name),
            full,
            before: complete.as_second() - RACY,
            batch: Mutex::default(),
            fresh: Mutex::default(),
        },
        pace,
        tree: Tree::default(),
    };
    let tree = tree::hash(&whole.root, &whole.reading());
    // Also of what was cut short: it is not read again then.
    whole.memory.flush();
    whole.tree = tree?;
    // From here on, what was just read is good enough.
    whole.memory.full = false;
    Ok(whole)
}

impl Whole {
    fn reading(&self) -> Reading<'_> {
        Reading {
            leave: self.leave,
            without: &self.without,
            threads: THREADS,
            memory: &self.memory,
            pace: &*self.pace,
        }
    }

    /// One directory, by its path. Blocks.
    pub fn list(&self, dir: &[u8]) -> Result<Vec<Entry>> {
        tree::list(&self.root, dir, &self.tree, &self.reading())
    }
}

/// What is not compared of a dataset, because this node leaves it out, or has left it out once.
pub fn left_out(node: &Node, points: &[Stored], dataset: &DatasetName) -> Leave {
    let peers = node.peers();
    let policies = peers.iter().map(|peer| Leave::of(&lock(&peer.accept)));
    let facts = points
        .iter()
        .filter_map(|point| point.local.datasets.get(dataset));
    let dropped = facts.map(|facts| Leave::dropped(&facts.dropped));
    policies.chain(dropped).fold(Leave::default(), Leave::and)
}

/// A point is being read for as long as this lives.
pub struct Hold {
    run: Arc<RoleRun>,
    point: crate::logic::point::PointId,
}

impl Hold {
    pub fn new(run: &Arc<RoleRun>, point: &Stored) -> Hold {
        let point = point.manifest.point.clone();
        lock(&run.read).push(point.clone());
        Hold {
            run: run.clone(),
            point,
        }
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        let mut read = lock(&self.run.read);
        if let Some(at) = read.iter().position(|point| *point == self.point) {
            read.swap_remove(at);
        }
    }
}
