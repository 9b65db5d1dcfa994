//! Looks for a path in every point, fork and live copy of a dataset on this node.
//!
//! Promise: a thousand points take a fraction of a second, cold: the points are told by their names, looked into by a few threads,
//! while another one reads the catalogue, which says which of them are whole. A point that is pruned meanwhile is left out. What
//! cannot be looked at is noted, and the rest goes on.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result};

use super::super::api::Source;
use super::super::node::{Node, RoleRun, blocking, lock};
use crate::error::{Code, Failure};
use crate::fs::{Filesystem, FsError, Inspection, Opening, Readable};
use crate::host::peek::Tree;
use crate::logic::lineage::{Entry, Lineage};
use crate::logic::locate::{self, Located};
use crate::logic::name::{DatasetName, NodeName};
use crate::logic::point::PointName;
use crate::logic::versions::told::PATHS_MAX;
use crate::logic::versions::{Facts, Forked, History, Seen};

/// Threads that look: each mostly waits for the disk.
const THREADS: usize = 8;

/// Entries of directories that are looked at for one pattern, over all points.
const ENTRIES_MAX: u64 = 1_000_000;

/// Sentences about what could not be looked at.
const NOTES_MAX: usize = 5;

type Matches = BTreeMap<PathBuf, Facts>;

/// A point that was looked into.
struct Point {
    name: PointName,
    taken_by: Option<NodeName>,
    on: Vec<NodeName>,
    found: Matches,
}

struct ForkPoints {
    fork: PointName,
    base: Option<(u64, u64)>,
    points: Vec<Point>,
}

/// What was seen on this node.
pub struct Looked {
    line: Vec<Point>,
    live: Option<Matches>,
    forks: Vec<ForkPoints>,
    pub cut: bool,
    pub notes: Vec<String>,
}

impl Looked {
    /// Every path that was seen somewhere, at most [`PATHS_MAX`].
    pub fn paths(&self) -> Vec<PathBuf> {
        self.all_paths()
            .into_iter()
            .take(PATHS_MAX)
            .cloned()
            .collect()
    }

    fn all_paths(&self) -> BTreeSet<&PathBuf> {
        let forked = self.forks.iter().flat_map(|fork| &fork.points);
        let points = self.line.iter().chain(forked).map(|point| &point.found);
        points.chain(&self.live).flat_map(BTreeMap::keys).collect()
    }

    pub fn history(&self, path: &Path) -> History {
        let seen = |point: &Point| Seen {
            point: point.name,
            taken_by: point.taken_by.clone(),
            on: point.on.clone(),
            facts: point.found.get(path).cloned(),
        };
        let forks = self.forks.iter().map(|fork| Forked {
            fork: fork.fork,
            base: fork.base,
            seen: fork.points.iter().map(seen).collect(),
        });
        History {
            line: self.line.iter().map(seen).collect(),
            live: self.live.as_ref().map(|live| live.get(path).cloned()),
            forks: forks.collect(),
        }
    }
}

/// With `live`, also at what is live here.
pub async fn look(
    node: &Arc<Node>,
    run: &Arc<RoleRun>,
    at: &Located,
    live: bool,
) -> Result<Looked> {
    let (fs, at, ours) = (run.fs.clone(), at.clone(), node.name());
    let known = |(peer, replica): (&NodeName, &super::super::node::Replica)| {
        Some((peer.clone(), replica.lineage.clone()?))
    };
    let replicas: Vec<(NodeName, Lineage)> = lock(&run.replicas).iter().filter_map(known).collect();
    blocking(move || {
        let looking = Looking {
            fs: &*fs,
            at: &at,
            pattern: locate::is_pattern(&at.inner),
            left: AtomicU64::new(ENTRIES_MAX),
            notes: Mutex::default(),
        };
        looking
            .everywhere(&ours, &replicas, live)
            .with_context(|| format!("look for {}", at.live.display()))
    })
    .await
}

struct Looking<'a> {
    fs: &'a dyn Filesystem,
    at: &'a Located,
    pattern: bool,
    /// Entries that may still be looked at.
    left: AtomicU64,
    notes: Mutex<Vec<String>>,
}

impl Looking<'_> {
    fn everywhere(
        &self,
        ours: &NodeName,
        replicas: &[(NodeName, Lineage)],
        live: bool,
    ) -> Result<Looked> {
        let paths = self.fs.snapshot_paths(&self.at.dataset)?;
        let (found, inspected) = std::thread::scope(|scope| {
            let inspection = scope.spawn(|| self.fs.inspect());
            let found = self.all(&paths);
            (found, inspection.join())
        });
        let inspected = inspected.map_err(|_| anyhow::anyhow!("a worker thread ended"))??;
        let mut looked = Looked {
            line: line(&inspected, found, ours, replicas),
            live: None,
            forks: self.forks(ours)?,
            cut: false,
            notes: Vec::new(),
        };
        // What cannot be asked for its identity cannot be looked at either; the points still can.
        if live && matches!(self.fs.live_identity(&self.at.dataset), Ok(Some(_))) {
            let live = &self.fs.datasets()[&self.at.dataset];
            looked.live = self.one(|| Ok(live.clone().into()), "the live data");
        }
        let mut notes = self.notes.lock().unwrap_or_else(PoisonError::into_inner);
        looked.notes.append(&mut notes);
        let damaged = inspected.damaged.iter();
        looked
            .notes
            .extend(damaged.map(|d| d.sentence(ours)).take(NOTES_MAX));
        looked.cut = self.left.load(Ordering::Relaxed) == 0 || looked.all_paths().len() > PATHS_MAX;
        Ok(looked)
    }

    /// Looks into all of them, by several threads.
    fn all(&self, paths: &[(PointName, Opening<'_>)]) -> HashMap<PointName, Matches> {
        let next = AtomicUsize::new(0);
        let work = || {
            let mut found = Vec::new();
            while let Some((name, open)) = paths.get(next.fetch_add(1, Ordering::Relaxed)) {
                let short = format!("{}.{}", name.epoch, name.sequence);
                let matches = self.one(open, &short);
                found.extend(matches.map(|matches| (*name, matches)));
            }
            found
        };
        std::thread::scope(|scope| {
            let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(work)).collect();
            // A thread that panicked found nothing: its points are left out.
            let found = threads.into_iter().filter_map(|thread| thread.join().ok());
            found.flatten().collect()
        })
    }

    /// None: there is no such tree, or it cannot be looked at.
    fn one(&self, open: impl Fn() -> Result<Readable>, shown: &str) -> Option<Matches> {
        let look = || -> Result<Option<Matches>> {
            let root = open()?;
            let tree = Tree::open(&root)?;
            let matches: Matches = match self.pattern {
                true => tree.matching(&self.at.inner, &self.left)?,
                false => {
                    let facts = tree.facts(&self.at.inner)?;
                    let found = facts.map(|facts| (self.at.inner.clone(), facts));
                    found.into_iter().collect()
                }
            };
            // Gone from under the look: an empty tree tells nothing then.
            let gone = matches.is_empty() && root.symlink_metadata().is_err();
            Ok((!gone).then_some(matches))
        };
        match look() {
            Ok(matches) => matches,
            Err(error) if is_gone(&error) => None,
            Err(error) => {
                let mut notes = self.notes.lock().unwrap_or_else(PoisonError::into_inner);
                if notes.len() < NOTES_MAX {
                    notes.push(format!("could not look into {shown}: {error:#}"));
                }
                None
            }
        }
    }

    fn forks(&self, ours: &NodeName) -> Result<Vec<ForkPoints>> {
        let mut forks = Vec::new();
        for fork in self.fs.forks()? {
            let mut points = Vec::new();
            for point in &fork.points {
                // It may not hold the dataset, or be discarded at this moment.
                let dataset = &self.at.dataset;
                let Ok(root) = self.fs.fork_path(&fork.name, dataset, Some(&point.id)) else {
                    continue;
                };
                let short = format!("fork {}", fork.short());
                let Some(found) = self.one(|| Ok(root.clone()), &short) else {
                    continue;
                };
                points.push(Point {
                    name: point.name(),
                    taken_by: Some(point.id.term.holder.clone()),
                    on: vec![ours.clone()],
                    found,
                });
            }
            forks.push(ForkPoints {
                fork: fork.name,
                base: fork.base.as_ref().map(|base| base.rank()),
                points,
            });
        }
        Ok(forks)
    }
}

/// Whether it went before it could be looked at.
fn is_gone(error: &anyhow::Error) -> bool {
    let missing = |error: &std::io::Error| error.kind() == std::io::ErrorKind::NotFound;
    error.chain().any(|cause| {
        cause.downcast_ref().is_some_and(missing)
            || matches!(cause.downcast_ref(), Some(FsError::Missing(_)))
    })
}

fn line(
    inspected: &Inspection,
    mut found: HashMap<PointName, Matches>,
    ours: &NodeName,
    replicas: &[(NodeName, Lineage)],
) -> Vec<Point> {
    let whole = inspected.points.iter().filter_map(|stored| {
        let (manifest, name) = (&stored.manifest, stored.manifest.name());
        let entry = Entry::of(manifest);
        let holding = replicas.iter().filter(|(_, lineage)| lineage.holds(&entry));
        let mut on = vec![ours.clone()];
        on.extend(holding.map(|(peer, _)| peer.clone()));
        Some(Point {
            found: found.remove(&name)?,
            name,
            taken_by: Some(manifest.node.clone()),
            on,
        })
    });
    whole.collect()
}

/// The tree in which a source of this node is read. A damaged point is refused.
pub fn root_of(fs: &dyn Filesystem, dataset: &DatasetName, source: &Source) -> Result<Readable> {
    let Some(point) = &source.point else {
        return Ok(fs.datasets()[dataset].clone().into());
    };
    let missing = |what: String| Failure::new(Code::NotFound, what);
    if let Some(name) = &source.fork {
        let forks = fs.forks()?;
        let fork = forks.iter().find(|fork| fork.name == *name);
        let held = fork.and_then(|fork| fork.points.iter().find(|held| held.name() == *point));
        let held = held.ok_or_else(|| missing(format!("find fork {name}: it is gone")))?;
        return fs.fork_path(name, dataset, Some(&held.id));
    }
    let points = fs.list()?;
    let stored = points.iter().find(|s| s.manifest.name() == *point);
    let stored = stored.ok_or_else(|| {
        missing(format!("find point {point}: it is gone, or damaged"))
            .hint("standin find lists what there is now")
    })?;
    fs.snapshot_path(dataset, &stored.manifest.point)
}
