//! Points that are not of the line, moved out of the catalogue and kept until an operator discards them.
//!
//!     .forks/<role>/<fork>/.fork.json          logic::fork::Fork, written before anything is moved
//!     .forks/<role>/<fork>/<point-name>/       the point's directory as it was
//!     .forks/<role>/<fork>/.destroyed          on its way out, in a role that spans filesystems
//!
//! A read-only subvolume cannot change its directory, but the directory it is in can: a point is moved whole, by one rename
//! on each filesystem. The fork's name is that of its newest point when it was made.
//!
//! Promise: at every moment a point is in the catalogue or in a fork. A crash leaves points of the fork in the catalogue,
//! or, in a role that spans filesystems, one whose parts are not all moved and which is then neither listed nor called
//! damaged; `finish`, at the next start, moves them too, and so does the same call. A fork is discarded like a point: hidden
//! by one rename, taken apart in the trash, which the next sweep empties.
//!
//! It deliberately does not know which points are of the line.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::PathBuf;

use anyhow::{Context, bail};
use jiff::Timestamp;

use super::catalogue::{self, Catalogue, entry_names, point_names, read_manifest};
use super::freeze::freeze;
use super::layout::{DESTROYED, Part};
use super::uses::{Use, Used};
use super::{browse, disk, fork_mount, remove, subvolume};
use crate::error::{Code, Failure};
use crate::fs::{FsError, Result};
use crate::logic::fork::{Fork, ForkPoint, Why};
use crate::logic::name::DatasetName;
use crate::logic::point::{PointId, PointName};

const DESCRIPTION: &str = ".fork.json";

/// Largest description read, in bytes: some 200 for each point.
const DESCRIPTION_BYTES_MAX: usize = 16 << 20;

/// See `Filesystem::fork`.
pub fn fork(catalogue: &Catalogue<'_>, points: &[PointId], fork: Fork) -> Result<()> {
    let mut names = BTreeSet::new();
    for id in points {
        let found = catalogue.names_of(id)?;
        if found.is_empty() && !list(catalogue)?.iter().any(|fork| fork.holds(id)) {
            return Err(FsError::Missing(format!("point {id} of {}", catalogue.role)).into());
        }
        names.extend(found);
    }
    if names.is_empty() {
        return Ok(());
    }
    let name = fork.name;
    if is_going(catalogue, &name) {
        // One of that name was being discarded: nothing may be moved into it.
        discard(catalogue, &name)?;
    }
    let _alone = points_alone(catalogue, &names)?;
    let _fork = share(catalogue, &name)?;
    let mut told = fork;
    if let Some(mut known) = description(catalogue, &name)? {
        known.extend(told);
        told = known;
    }
    for part in &catalogue.parts {
        let dir = part.forks().join(name.to_string());
        let here = names.iter().any(|point| part.points().join(point).is_dir());
        if here || dir.is_dir() {
            disk::make_dir(&dir)?;
            disk::write_json(&dir.join(DESCRIPTION), &told)?;
            // The entries above it too.
            part.top.sync()?;
        }
    }
    freeze("fork-described");
    move_points(catalogue, &name, &names)
}

/// Goes on with moves that were interrupted, and leaves alone what is in use.
pub fn finish(catalogue: &Catalogue<'_>) -> Result<()> {
    for name in names(catalogue)? {
        finish_one(catalogue, &name)
            .with_context(|| format!("finish moving points to fork {name}"))?;
    }
    Ok(())
}

fn finish_one(catalogue: &Catalogue<'_>, name: &PointName) -> Result<()> {
    let waiting = waiting(catalogue, name)?;
    if waiting.is_empty() {
        return Ok(());
    }
    match points_alone(catalogue, &waiting) {
        Ok(_alone) => move_points(catalogue, name, &waiting),
        Err(_) => Ok(()),
    }
}

/// Points that the fork's description names and that lie in the catalogue still, or a part of them does.
fn waiting(catalogue: &Catalogue<'_>, name: &PointName) -> Result<BTreeSet<String>> {
    let Some(fork) = description(catalogue, name)? else {
        return Ok(BTreeSet::new());
    };
    let word = name.to_string();
    let waits = |point: &String| {
        let moved = |part: &Part| part.forks().join(&word).join(point).exists();
        let left = |part: &Part| part.points().join(point).is_dir() && !moved(part);
        catalogue.parts.iter().any(left)
    };
    let points = fork.points.iter().map(|point| point.name().to_string());
    Ok(points.filter(waits).collect())
}

/// Whether somebody has begun to discard it.
fn is_going(catalogue: &Catalogue<'_>, name: &PointName) -> bool {
    let dir = name.to_string();
    let marked = |part: &Part| part.forks().join(&dir).join(DESTROYED).exists();
    catalogue.parts.iter().any(marked)
}

/// Has the points alone on all their filesystems.
fn points_alone(catalogue: &Catalogue<'_>, names: &BTreeSet<String>) -> Result<Vec<Use>> {
    let mut alone = Vec::new();
    for name in names {
        for part in &catalogue.parts {
            let used = Used::Point(catalogue.role.clone(), name.clone());
            let held = part.top.uses.alone(used);
            let busy = || FsError::Busy(format!("point {name} of {}", catalogue.role));
            alone.push(held.ok_or_else(busy)?);
        }
    }
    Ok(alone)
}

/// Keeps a fork from being discarded by this process.
fn share(catalogue: &Catalogue<'_>, name: &PointName) -> Result<Vec<Use>> {
    let held = catalogue.parts.iter().map(|part| {
        let used = Used::Fork(catalogue.role.clone(), name.to_string());
        part.top.uses.share(used)
    });
    let held: Option<Vec<Use>> = held.collect();
    held.ok_or_else(|| {
        let what = format!("fork {}, which is being discarded,", short(name));
        FsError::Busy(what).into()
    })
}

/// Oldest first, so that what an interruption leaves in the catalogue still ends in the point that names the fork.
fn move_points(
    catalogue: &Catalogue<'_>,
    name: &PointName,
    points: &BTreeSet<String>,
) -> Result<()> {
    let mut points: Vec<&String> = points.iter().collect();
    points.sort_by_key(|point| PointName::parse(point).map(|p| (p.epoch, p.sequence)));
    for point in points {
        for part in &catalogue.parts {
            let dir = part.forks().join(name.to_string());
            if !part.points().join(point).is_dir() {
                continue;
            }
            disk::make_dir(&dir)?;
            let (from, to) = (part.points().join(point), dir.join(point));
            match std::fs::rename(&from, &to) {
                Ok(()) => freeze("fork-part-moved"),
                Err(e) if to.exists() => held_twice(part, point, &to)
                    .with_context(|| format!("move {}: {e}", from.display()))?,
                Err(e) => return Err(e).with_context(|| format!("move {}", from.display())),
            }
        }
    }
    for part in &catalogue.parts {
        part.top.sync()?;
    }
    Ok(())
}

/// The fork has this very point already (it came back to the catalogue from a peer): one whole copy is enough.
fn held_twice(part: &Part, point: &str, kept: &std::path::Path) -> Result<()> {
    let there = catalogue::read_part_at(part, kept)?;
    let here = read_manifest(&part.points().join(point))?;
    if there.is_none_or(|(manifest, _)| Some(manifest) != here) {
        bail!("the fork holds another point {point}");
    }
    remove::hide_and_remove(part, &part.points().join(point))
}

/// Every fork that holds a point, oldest first.
pub fn list(catalogue: &Catalogue<'_>) -> Result<Vec<Fork>> {
    let mut forks = Vec::new();
    for name in names(catalogue)? {
        let held = held(catalogue, &name)?;
        if held.is_empty() {
            // Described, and nothing moved yet.
            continue;
        }
        let mut fork = match description(catalogue, &name) {
            Ok(Some(fork)) => fork,
            Ok(None) => rebuilt(&name, &held)?,
            Err(error) => {
                tracing::warn!(role = %catalogue.role, "fork {name}: its description is not used: {error:#}");
                rebuilt(&name, &held)?
            }
        };
        fork.points
            .retain(|point| held.contains_key(&point.name().to_string()));
        forks.push(fork);
    }
    forks.sort_by_key(|fork| (fork.name.epoch, fork.name.sequence));
    Ok(forks)
}

/// Names of forks that nobody has begun to discard.
fn names(catalogue: &Catalogue<'_>) -> Result<Vec<PointName>> {
    let mut names: BTreeMap<String, bool> = BTreeMap::new();
    for part in &catalogue.parts {
        for name in point_names(&part.forks())? {
            let going = part.forks().join(&name).join(DESTROYED).exists();
            *names.entry(name).or_default() |= going;
        }
    }
    let staying = names.into_iter().filter(|(_, going)| !going);
    Ok(staying
        .filter_map(|(name, _)| PointName::parse(&name))
        .collect())
}

fn description(catalogue: &Catalogue<'_>, name: &PointName) -> Result<Option<Fork>> {
    let mut told = None;
    for part in &catalogue.parts {
        let path = part.forks().join(name.to_string()).join(DESCRIPTION);
        let found: Option<Fork> = disk::read_json(&path, DESCRIPTION_BYTES_MAX)?;
        told = match (told, found.filter(|fork| fork.name == *name)) {
            (None, found) => found,
            (Some(told), None) => Some(told),
            // A crash between two filesystems: one of them has not heard of the later points.
            (Some(mut told), Some(found)) => {
                Fork::extend(&mut told, found);
                Some(told)
            }
        };
    }
    Ok(told)
}

/// Directories of the points that lie in the fork, by the points' names.
fn held(catalogue: &Catalogue<'_>, name: &PointName) -> Result<BTreeMap<String, Vec<PathBuf>>> {
    let mut held: BTreeMap<String, Vec<PathBuf>> = BTreeMap::new();
    for part in &catalogue.parts {
        let dir = part.forks().join(name.to_string());
        for point in point_names(&dir)? {
            held.entry(point.clone()).or_default().push(dir.join(point));
        }
    }
    Ok(held)
}

/// What the manifests say of a fork whose description is lost.
fn rebuilt(name: &PointName, held: &BTreeMap<String, Vec<PathBuf>>) -> Result<Fork> {
    let mut points = Vec::new();
    let mut role = None;
    for dir in held.values().flatten() {
        if let Ok(Some(manifest)) = read_manifest(dir) {
            role = Some(manifest.role);
            let (id, taken) = (manifest.point, manifest.taken);
            points.push(ForkPoint { id, taken });
        }
    }
    points.sort_by_key(|point| point.id.rank());
    points.dedup();
    let newest = points.last().map(|point| point.id.term.clone());
    let (Some(role), Some(term)) = (role, newest) else {
        let what = format!("fork {name} holds neither a description nor a manifest");
        return Err(Failure::new(Code::Failed, format!("read the forks: {what}"))
            .hint("its snapshots are whole: look at them in .standin/.forks, and move its directory elsewhere")
            .into());
    };
    Ok(Fork {
        name: *name,
        role,
        base: None,
        term,
        points,
        found: Timestamp::UNIX_EPOCH,
        why: Why::Unknown,
        measured: None,
    })
}

/// Whether some fork holds a part of the point: then what is missing of it in the catalogue is no damage.
pub fn holds_part(catalogue: &Catalogue<'_>, point: &str) -> bool {
    catalogue.parts.iter().any(|part| {
        let forks = point_names(&part.forks()).unwrap_or_default();
        forks
            .iter()
            .any(|fork| part.forks().join(fork).join(point).exists())
    })
}

/// A snapshot in a fork.
pub struct Forked<'a> {
    pub part: &'a Part,
    pub dataset: DatasetName,
    pub path: PathBuf,
}

/// The snapshots of one point of a fork, by dataset; of its newest point where none is named. They are found by what lies
/// there: the configuration may have forgotten a dataset.
pub fn snapshots<'a>(
    catalogue: &'a Catalogue<'_>,
    name: &PointName,
    point: Option<&PointId>,
) -> Result<Vec<Forked<'a>>> {
    let missing = |what: String| FsError::Missing(format!("{what} of {}", catalogue.role));
    let fork = list(catalogue)?.into_iter().find(|f| f.name == *name);
    let fork = fork.ok_or_else(|| missing(format!("fork {}", short(name))))?;
    let wanted = fork.points.iter().rev();
    let mut wanted = wanted.filter(|held| point.is_none_or(|id| held.id == *id));
    let wanted = wanted.next().map(ForkPoint::name);
    let wanted = wanted.ok_or_else(|| missing(format!("that point in fork {}", short(name))))?;
    let mut found = Vec::new();
    for part in &catalogue.parts {
        let forked = part.forks().join(name.to_string()).join(wanted.to_string());
        // One that a crash left half moved has its other parts in the catalogue still.
        let dir = match forked.is_dir() {
            true => forked,
            false => part.points().join(wanted.to_string()),
        };
        for entry in entry_names(&dir)? {
            let path = dir.join(&entry);
            if let (Ok(dataset), Ok(_)) = (DatasetName::parse(&entry), subvolume::info(&path)) {
                found.push(Forked {
                    part,
                    dataset,
                    path,
                });
            }
        }
    }
    found.sort_by(|a, b| a.dataset.cmp(&b.dataset));
    Ok(found)
}

/// One snapshot of a fork, kept from being discarded for as long as the uses live.
pub fn snapshot<'a>(
    catalogue: &'a Catalogue<'_>,
    name: &PointName,
    dataset: &DatasetName,
    point: Option<&PointId>,
) -> Result<(Forked<'a>, Vec<Use>)> {
    let held = share(catalogue, name)?;
    let found = snapshots(catalogue, name, point)?;
    let found = found.into_iter().find(|found| found.dataset == *dataset);
    let missing = || FsError::Missing(format!("dataset {dataset} in fork {}", short(name)));
    Ok((found.ok_or_else(missing)?, held))
}

/// See `Filesystem::discard_fork`.
pub fn discard(catalogue: &Catalogue<'_>, name: &PointName) -> Result<()> {
    let busy = || FsError::Busy(format!("fork {} of {}", short(name), catalogue.role));
    let mut alone = Vec::new();
    for part in &catalogue.parts {
        let used = Used::Fork(catalogue.role.clone(), name.to_string());
        alone.push(part.top.uses.alone(used).ok_or_else(busy)?);
    }
    if let Some(at) = fork_mount::mounted(catalogue.role, name)?.first() {
        let at = at.display();
        let what = format!(
            "discard fork {} of {}: it is mounted at {at}",
            short(name),
            catalogue.role
        );
        return Err(Failure::new(Code::Refused, what)
            .hint(format!("standin fork unmount {at}"))
            .into());
    }
    // More than anybody was shown: first it is moved, then a person looks again.
    if !is_going(catalogue, name) && !waiting(catalogue, name)?.is_empty() {
        finish_one(catalogue, name)?;
        return Err(busy().into());
    }
    let word = name.to_string();
    let here = |part: &&Part| part.forks().join(&word).is_dir();
    let parts: Vec<&Part> = catalogue.parts.iter().filter(here).collect();
    if catalogue.parts.len() > 1 {
        for part in &parts {
            disk::write_json(&part.forks().join(&word).join(DESTROYED), &true)?;
        }
        freeze("fork-marked");
    }
    for part in &parts {
        browse::take_away(part, &part.forks().join(&word))?;
    }
    for (done, part) in parts.iter().enumerate() {
        let whole = remove::discard_dir(part, &part.forks().join(&word))?;
        if whole && done == 0 {
            for part in &parts {
                let mark = part.forks().join(&word).join(DESTROYED);
                disk::remove(&mark).context("take the mark away")?;
            }
            return Err(busy().into());
        }
    }
    Ok(())
}

/// Goes on with discarding what was begun.
pub fn sweep(catalogue: &Catalogue<'_>) -> Result<()> {
    let mut going = BTreeSet::new();
    for part in &catalogue.parts {
        for name in point_names(&part.forks())? {
            if part.forks().join(&name).join(DESTROYED).exists() {
                going.extend(PointName::parse(&name).map(|name| name.to_string()));
            }
        }
    }
    for name in going.iter().filter_map(|name| PointName::parse(name)) {
        match discard(catalogue, &name) {
            Err(error) if matches!(error.downcast_ref(), Some(FsError::Busy(_))) => {
                tracing::info!("fork {name} is in use; the next sweep discards it");
            }
            done => done.with_context(|| format!("finish discarding fork {name}"))?,
        }
    }
    Ok(())
}

/// Subvolumes in a directory of directories, such as a fork.
pub fn subvolumes_in(dir: &std::path::Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        if !path.symlink_metadata()?.is_dir() {
            continue;
        }
        match subvolume::info(&path) {
            Ok(_) => found.push(path),
            Err(_) => found.extend(subvolumes_in(&path)?),
        }
    }
    Ok(found)
}

fn short(name: &PointName) -> String {
    format!("{}.{}", name.epoch, name.sequence)
}
