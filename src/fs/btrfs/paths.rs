//! Paths by which snapshots are read and known: through a mount of the whole filesystem that everybody sees, where there is one,
//! else through the top directory that this process has open.
//!
//! Promise: reads only. A path through the top directory keeps it open. It deliberately does not know what is read.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::catalogue::{self, Catalogue};
use super::layout::Part;
use super::top::Top;
use super::{mountinfo, subvolume};
use crate::fs::{Opening, Readable, Result};
use crate::logic::manifest::Stored;
use crate::logic::name::DatasetName;
use crate::logic::point::PointName;

/// A path by which this process and its children can read what lies at `path`.
pub fn readable(part: &Part, path: &Path) -> Readable {
    let relative = part.relative(path);
    seen_from(part, relative).below(relative)
}

/// See `Filesystem::snapshot_paths`. By the names of directories alone.
pub fn all(
    catalogue: &Catalogue<'_>,
    dataset: &DatasetName,
) -> Result<Vec<(PointName, Opening<'static>)>> {
    let (part, _) = catalogue.place(dataset)?;
    let names = catalogue::point_names(&part.points())?;
    let Some(room) = room(part, &names, dataset) else {
        return Ok(Vec::new());
    };
    let opening = |name: String| -> Option<(PointName, Opening<'static>)> {
        let path = room.below(&Path::new(&name).join(dataset));
        Some((PointName::parse(&name)?, Box::new(move || Ok(path.clone()))))
    };
    Ok(names.into_iter().filter_map(opening).collect())
}

/// See `Filesystem::known_as`.
pub fn known_as(
    catalogue: &Catalogue<'_>,
    points: &[Stored],
) -> Result<Vec<BTreeMap<DatasetName, PathBuf>>> {
    let names = points.iter().map(|stored| stored.manifest.name());
    let names: Vec<String> = names.map(|name| name.to_string()).collect();
    let mut known = vec![BTreeMap::new(); points.len()];
    let held = points
        .iter()
        .flat_map(|stored| stored.manifest.datasets.keys());
    for dataset in held.collect::<BTreeSet<_>>() {
        // One that is not configured any more lies nowhere that is known.
        let Ok((part, _)) = catalogue.place(dataset) else {
            continue;
        };
        let Some(room) = room(part, &names, dataset) else {
            continue;
        };
        for ((stored, name), known) in points.iter().zip(&names).zip(&mut known) {
            if stored.manifest.datasets.contains_key(dataset) {
                known.insert(dataset.clone(), room.join(name).join(dataset));
            }
        }
    }
    Ok(known)
}

/// The directory of a part that holds its points. They lie side by side: where one can be read, all can.
fn room(part: &Part, names: &[String], dataset: &DatasetName) -> Option<Readable> {
    let mut paths = names
        .iter()
        .map(|name| part.points().join(name).join(dataset));
    let path = paths.find(|path| path.is_dir())?;
    let relative = part.relative(&path);
    Some(seen_from(part, relative).below(relative.ancestors().nth(2)?))
}

/// The top directory, through which a snapshot can be read.
fn seen_from(part: &Part, relative: &Path) -> Readable {
    match visible(&part.top, relative) {
        Some(path) => path.into(),
        None => Readable::guarded(part.top.path_for_children(), part.top.clone()),
    }
}

/// A mount of the whole filesystem that everybody sees, where there is one that shows the snapshot.
fn visible(top: &Top, relative: &Path) -> Option<PathBuf> {
    let mounts = mountinfo::read().ok()?;
    let ours = subvolume::info(&top.path().join(relative)).ok()?;
    let mut points = mounts
        .iter()
        .filter(|mount| mount.kind == "btrfs" && mount.root == Path::new("/"))
        .map(|mount| mount.point.clone());
    points.find(|point| {
        subvolume::info(&point.join(relative)).is_ok_and(|found| found.uuid == ours.uuid)
    })
}
