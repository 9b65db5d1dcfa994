//! Takes a point: read-only snapshots of all live subvolumes, and tells whether anything changed since.
//!
//! The snapshots are asked for by one thread per dataset, all released at once: the kernel makes those that meet in one
//! transaction at the same instant. They and their manifest are made in a hidden directory, `.staging/<role>/.new-<point>`,
//! and the whole directory is renamed into place when it is on disk.
//!
//! Promise: visible only when whole. A crash leaves a `.new-` directory, which `sweep` removes; in a role that spans
//! filesystems it may leave a point that is complete on some of them, which the catalogue does not show and `sweep` removes too.
//!
//! It deliberately does not know why a point is taken.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Barrier;

use anyhow::Context;
use jiff::Timestamp;

use super::catalogue::{Catalogue, Found};
use super::freeze::freeze;
use super::layout::{LOCAL, MANIFEST, NEW_PREFIX, Part};
use super::subvolume::{self, Access};
use super::top;
use super::uses::{Use, Used};
use super::{disk, ioctl, live};
use crate::error::{Code, Failure};
use crate::fs::{Bracket, FsError, Result, local_facts};
use crate::logic::manifest::{DatasetFacts, LocalDataset, Manifest, Stored};
use crate::logic::name::DatasetName;

/// What to take a snapshot of.
pub struct Source {
    pub dataset: DatasetName,
    /// An open writable subvolume.
    pub dir: File,
    /// The path people know it by.
    pub shown: PathBuf,
}

/// Takes a point of all datasets of the role.
pub fn snapshot(
    catalogue: &Catalogue<'_>,
    manifest: Manifest,
    bracket: &mut dyn Bracket,
) -> Result<Stored> {
    let mut sources = Vec::new();
    for place in catalogue.parts.iter().flat_map(|part| &part.places) {
        sources.push(Source {
            dataset: place.dataset.clone(),
            dir: place.open_live()?,
            shown: place.live.clone(),
        });
    }
    take(catalogue, manifest, sources, bracket)
}

/// Takes a point of `sources`, each of which lies on the filesystem of its dataset.
pub fn take(
    catalogue: &Catalogue<'_>,
    mut manifest: Manifest,
    sources: Vec<Source>,
    bracket: &mut dyn Bracket,
) -> Result<Stored> {
    let name = manifest.name().to_string();
    if catalogue.names()?.contains(&name) {
        let what = format!("a point {name} of {} exists already", catalogue.role);
        return Err(Failure::new(Code::Refused, what).into());
    }
    let mut making = Vec::new();
    for part in &catalogue.parts {
        if sources.iter().any(|source| part.holds(&source.dataset)) {
            making.push(Making::begin(catalogue, part, &name)?);
        }
    }
    for source in &sources {
        heal_identity(source)?;
    }
    freeze("point-begun");
    let taken = take_within(&mut manifest, &sources, &making, bracket)
        .and_then(|()| describe(&mut manifest, &sources, &making))
        .and_then(|local| write_down(&manifest, local, &making));
    match taken {
        Ok(stored) => {
            freeze("point-taken");
            for made in &making {
                made.show()?;
            }
            Ok(stored)
        }
        Err(e) => {
            for made in &making {
                if let Err(left) = disk::remove(&made.dir) {
                    tracing::warn!(
                        "what was made of point {name} stays until the next sweep: {left}"
                    );
                }
            }
            Err(e)
        }
    }
}

/// Whether any live subvolume differs from its snapshot in `point`.
///
/// The kernel notes in a subvolume the transaction of its last change (ctransid) and in a snapshot the transaction that
/// made it (otransid). What a snapshot holds was changed in that transaction at the latest; whatever comes after is in a
/// later one. The generation says less: taking any snapshot raises it. The snapshot's own ctransid can be later than the
/// live one's, because files deleted while open are cleaned out of it when it is made.
pub fn changed(catalogue: &Catalogue<'_>, point: &Stored) -> Result<bool> {
    let Some(found) = catalogue.find_if_any(&point.manifest.point)? else {
        return Ok(true);
    };
    for part in &catalogue.parts {
        part.top.sync()?;
        for place in &part.places {
            let dataset = &place.dataset;
            if !found.stored.local.datasets.contains_key(dataset) {
                return Ok(true);
            }
            let live = match place.open_live() {
                Ok(dir) => live::subvolume(&dir)
                    .with_context(|| format!("look at {}", place.live.display()))?,
                Err(e) if matches!(e.downcast_ref(), Some(FsError::Missing(_))) => return Ok(true),
                Err(e) => return Err(e),
            };
            if differs(&live, &snapshot_info(catalogue, &found, dataset)?) {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

/// Whether `live` may hold anything that `snapshot` does not.
pub fn differs(live: &ioctl::Subvolume, snapshot: &ioctl::Subvolume) -> bool {
    snapshot.parent_uuid != Some(live.uuid) || live.ctransid > snapshot.otransid
}

/// The kernel's facts about a dataset's snapshot in a point.
pub fn snapshot_info(
    catalogue: &Catalogue<'_>,
    found: &Found,
    dataset: &DatasetName,
) -> Result<ioctl::Subvolume> {
    let path = catalogue.snapshot_path(found, dataset)?;
    subvolume::info(&path).with_context(|| format!("look at the snapshot {}", path.display()))
}

/// One filesystem's part of a point being taken.
struct Making<'a> {
    part: &'a Part,
    dir: PathBuf,
    point: PathBuf,
    _alone: Use,
}

impl<'a> Making<'a> {
    fn begin(catalogue: &Catalogue<'_>, part: &'a Part, name: &str) -> Result<Making<'a>> {
        let hidden = format!("{NEW_PREFIX}{name}");
        let alone = part
            .top
            .uses
            .alone(Used::Staging(catalogue.role.clone(), hidden.clone()))
            .ok_or_else(|| FsError::Busy(format!("point {name}, which is being taken,")))?;
        part.make_dirs()?;
        let dir = part.staging().join(hidden);
        disk::remove(&dir).context("remove the remains of an interrupted snapshot")?;
        disk::make_dir(&dir)?;
        Ok(Making {
            part,
            dir,
            point: part.points().join(name),
            _alone: alone,
        })
    }

    fn show(&self) -> Result<()> {
        std::fs::rename(&self.dir, &self.point)
            .with_context(|| format!("show the point as {}", self.point.display()))?;
        freeze("point-shown");
        self.part.top.sync()
    }
}

fn making_of<'a, 'b>(making: &'b [Making<'a>], dataset: &DatasetName) -> Result<&'b Making<'a>> {
    making
        .iter()
        .find(|made| made.part.holds(dataset))
        .with_context(|| format!("dataset {dataset} has no filesystem"))
}

/// A live subvolume that was received once and then made writable by hand still carries the identity of what was received,
/// and so would every snapshot of it. It is another thing now.
fn heal_identity(source: &Source) -> Result<()> {
    let shown = source.shown.display();
    let info = ioctl::subvolume(&source.dir).with_context(|| format!("look at {shown}"))?;
    if info.read_only {
        let what = format!("the live subvolume {shown} is read-only");
        return Err(Failure::new(Code::Refused, what)
            .hint(format!("it was made so by hand or by another tool; undo it with: btrfs property set -ts {shown} ro false"))
            .into());
    }
    if info.received_uuid.is_some() {
        tracing::warn!(dataset = %source.dataset, "{shown} carries the identity of a received snapshot; taking it away");
        ioctl::forget_received(&source.dir)
            .with_context(|| format!("take the received uuid from {shown}"))?;
    }
    Ok(())
}

/// The snapshots, with what is to be done around them.
fn take_within(
    manifest: &mut Manifest,
    sources: &[Source],
    making: &[Making<'_>],
    bracket: &mut dyn Bracket,
) -> Result<()> {
    let late = bracket.late();
    let (late, first): (Vec<&Source>, Vec<&Source>) = sources
        .iter()
        .partition(|source| late.contains(&source.dataset));
    // What is dirty now is written out here, so that little is left to do between the first snapshot and the last, and
    // while anybody waits.
    for made in making {
        made.part.top.sync()?;
    }
    bracket.hold()?;
    take_together(&first, making)?;
    freeze("point-held");
    bracket.release(manifest)?;
    take_together(&late, making)
}

fn take_together(sources: &[&Source], making: &[Making<'_>]) -> Result<()> {
    let start = Barrier::new(sources.len());
    let mut jobs = Vec::new();
    for source in sources {
        let target = making_of(making, &source.dataset)?
            .dir
            .join(&source.dataset);
        jobs.push((source, top::fd_path(&source.dir), target));
    }
    let results: Vec<io::Result<()>> = std::thread::scope(|scope| {
        let threads: Vec<_> = jobs
            .iter()
            .map(|(_, live, target)| {
                let start = &start;
                scope.spawn(move || {
                    start.wait();
                    subvolume::snapshot(live, target, Access::ReadOnly)
                })
            })
            .collect();
        let panicked = |_| Err(io::Error::other("the snapshot thread panicked"));
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap_or_else(panicked))
            .collect()
    });
    for ((source, _, _), result) in jobs.iter().zip(results) {
        result.map_err(|e| refused_snapshot(&source.shown, e))?;
    }
    Ok(())
}

/// Why the kernel made no snapshot of what lives there.
pub fn refused_snapshot(live: &Path, error: io::Error) -> anyhow::Error {
    let doing = format!("take a snapshot of {}", live.display());
    if error.raw_os_error() != Some(libc::ETXTBSY) {
        return anyhow::Error::new(error).context(doing);
    }
    let what = format!("could not {doing}: a swap file in it is in use");
    Failure::new(Code::Refused, what)
        .hint("move the swap file to a subvolume of its own (btrfs refuses snapshots of active swap files)")
        .into()
}

/// Fills in the manifest and returns the local facts. Ctransid is read after a sync: only then is it final.
fn describe(
    manifest: &mut Manifest,
    sources: &[Source],
    making: &[Making<'_>],
) -> Result<BTreeMap<DatasetName, LocalDataset>> {
    for made in making {
        made.part.top.sync()?;
    }
    let mut local = BTreeMap::new();
    let datasets: Vec<PathBuf> = sources.iter().map(|source| source.shown.clone()).collect();
    manifest.datasets.clear();
    for source in sources {
        let dataset = &source.dataset;
        let path = making_of(making, dataset)?.dir.join(dataset);
        let info = subvolume::info(&path)
            .with_context(|| format!("look at the new snapshot of {dataset}"))?;
        let around = super::examine::look_around(&source.dir, &source.shown, &datasets)?;
        let facts = DatasetFacts {
            identity: info.received_uuid.unwrap_or(info.uuid),
            not_replicated: around.sentences(),
            // A name that is no text stays where it is: its empty directory is harmless.
            nested: around
                .stubs
                .iter()
                .filter_map(|path| path.to_str().map(str::to_owned))
                .collect(),
        };
        manifest.datasets.insert(dataset.clone(), facts);
        let ours = LocalDataset {
            uuid: info.uuid,
            ctransid: info.ctransid,
            ..LocalDataset::default()
        };
        local.insert(dataset.clone(), ours);
    }
    Ok(local)
}

fn write_down(
    manifest: &Manifest,
    local: BTreeMap<DatasetName, LocalDataset>,
    making: &[Making<'_>],
) -> Result<Stored> {
    let stored = Timestamp::now();
    for made in making {
        let mut here = local.clone();
        here.retain(|dataset, _| made.part.holds(dataset));
        disk::write_json(&made.dir.join(MANIFEST), manifest)?;
        disk::write_json(&made.dir.join(LOCAL), &local_facts(stored, None, here))?;
    }
    Ok(Stored {
        manifest: manifest.clone(),
        local: local_facts(stored, None, local),
    })
}
