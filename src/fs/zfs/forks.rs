//! Forks: points whose files lie in `.forks/<role>/<fork>/` instead of the catalogue. Their snapshots stay where they are.
//!
//! Promise: at every moment a point is in the catalogue or in the fork. The fork is described before the first file moves, so
//! `finish` goes on after a crash. Discarding takes the description away first.
//!
//! It deliberately does not know why points are of no line.

use std::path::PathBuf;

use super::core::{Core, Part, Scene};
use super::store;
use super::{publish, remove, show};
use crate::error::{Code, Failure};
use crate::fs::btrfs::freeze::freeze;
use crate::fs::btrfs::uses::{Use, Used};
use crate::fs::{FsError, Result};
use crate::logic::fork::{Fork, ForkPoint};
use crate::logic::manifest::Stored;
use crate::logic::name::DatasetName;
use crate::logic::point::{PointId, PointName};

const DESCRIPTION: &str = ".fork.json";

fn dir(part: &Part, core: &Core, fork: &PointName) -> PathBuf {
    part.store
        .hidden(".forks", &core.role)
        .join(fork.to_string())
}

fn names(part: &Part, core: &Core) -> Result<Vec<PointName>> {
    let names = store::names(&part.store.hidden(".forks", &core.role))?;
    Ok(names
        .iter()
        .filter_map(|name| PointName::parse(name))
        .collect())
}

/// Files of all points in forks.
pub fn files(part: &Part, core: &Core) -> Result<Vec<(PointName, PathBuf)>> {
    let mut files = Vec::new();
    for fork in names(part, core)? {
        files.extend(store::point_files(&dir(part, core, &fork))?);
    }
    Ok(files)
}

fn description(part: &Part, core: &Core, fork: &PointName) -> Result<Option<Fork>> {
    let told: Option<Fork> = store::read_file(&dir(part, core, fork).join(DESCRIPTION))?;
    Ok(told.filter(|told| told.name == *fork))
}

/// See `Filesystem::fork`.
pub fn fork(core: &Core, points: &[PointId], fork: Fork) -> Result<()> {
    let _turn = core.turn();
    let scene = core.look()?;
    let known = list(core, &scene.parts)?;
    let mut moved = Vec::new();
    for id in points {
        let found = scene.names_of(id)?;
        if found.is_empty() && !known.iter().any(|fork| fork.holds(id)) {
            return Err(FsError::Missing(format!("point {id} of {}", core.role)).into());
        }
        moved.extend(found);
    }
    if moved.is_empty() {
        return Ok(());
    }
    let alone: Result<Vec<Use>> = moved
        .iter()
        .map(|name| core.alone(&name.to_string()))
        .collect();
    let _alone = alone?;
    for name in &moved {
        if show::is_shown(&scene, name)? {
            return Err(FsError::Busy(format!("point {name} of {}", core.role)).into());
        }
    }
    for part in &scene.parts {
        let mut told = fork.clone();
        if let Some(mut known) = description(part, core, &fork.name)? {
            known.extend(told);
            told = known;
        }
        store::write_file(&dir(part, core, &fork.name).join(DESCRIPTION), &told)?;
    }
    freeze("fork-described");
    move_files(core, &scene.parts, &fork.name, &moved)
}

fn move_files(core: &Core, parts: &[Part], fork: &PointName, points: &[PointName]) -> Result<()> {
    for name in points {
        for part in parts {
            let from = part.point_file(core, name);
            if from.exists() {
                store::move_file(&from, &dir(part, core, fork).join(format!("{name}.json")))?;
                freeze("fork-part-moved");
            }
        }
    }
    Ok(())
}

/// Goes on with moves that were interrupted.
pub fn finish(core: &Core) -> Result<()> {
    let _turn = core.turn();
    let parts = core.parts()?;
    for part in &parts {
        for fork in names(part, core)? {
            let Some(told) = description(part, core, &fork)? else {
                continue;
            };
            let waiting: Vec<PointName> = told
                .points
                .iter()
                .map(ForkPoint::name)
                .filter(|name| part.point_file(core, name).exists())
                .collect();
            let alone: Result<Vec<Use>> = waiting
                .iter()
                .map(|name| core.alone(&name.to_string()))
                .collect();
            // What is in use moves the next time.
            if alone.is_ok() {
                move_files(core, &parts, &fork, &waiting)?;
            }
        }
    }
    Ok(())
}

/// Every fork that holds a point, oldest first.
pub fn list(core: &Core, parts: &[Part]) -> Result<Vec<Fork>> {
    let mut forks: Vec<Fork> = Vec::new();
    for part in parts {
        for name in names(part, core)? {
            let held = store::point_files(&dir(part, core, &name))?;
            let Some(mut fork) = description(part, core, &name)? else {
                continue;
            };
            fork.points
                .retain(|point| held.iter().any(|(name, _)| *name == point.name()));
            match forks.iter_mut().find(|known| known.name == name) {
                Some(known) => known.extend(fork),
                None if fork.points.is_empty() => {}
                None => forks.push(fork),
            }
        }
    }
    forks.sort_by_key(|fork| (fork.name.epoch, fork.name.sequence));
    Ok(forks)
}

fn short(fork: &PointName) -> String {
    format!("{}.{}", fork.epoch, fork.sequence)
}

/// A point of a fork, as its stores describe it; its newest where none is named.
pub fn stored(
    core: &Core,
    parts: &[Part],
    fork: &PointName,
    point: Option<&PointId>,
) -> Result<Stored> {
    let missing = |what: String| FsError::Missing(format!("{what} of {}", core.role));
    let known = list(core, parts)?
        .into_iter()
        .find(|known| known.name == *fork);
    let known = known.ok_or_else(|| missing(format!("fork {}", short(fork))))?;
    let mut held = known.points.iter().rev();
    let wanted = held
        .find(|held| point.is_none_or(|id| held.id == *id))
        .map(ForkPoint::name);
    let wanted = wanted.ok_or_else(|| missing(format!("that point in fork {}", short(fork))))?;
    let mut found: Option<Stored> = None;
    for part in parts {
        let file = dir(part, core, fork).join(format!("{wanted}.json"));
        if let Some(stored) = store::read_file::<Stored>(&file)? {
            match &mut found {
                Some(found) => found.local.datasets.extend(stored.local.datasets),
                None => found = Some(stored),
            }
        }
    }
    Ok(found.ok_or_else(|| missing(format!("the newest point in fork {}", short(fork))))?)
}

/// Keeps a fork from being discarded by this process.
pub fn share(core: &Core, fork: &PointName) -> Result<Use> {
    let used = Used::Fork(core.role.clone(), fork.to_string());
    let busy = || FsError::Busy(format!("fork {}, which is being discarded,", short(fork)));
    Ok(core.uses.share(used).ok_or_else(busy)?)
}

pub fn datasets(core: &Core, fork: &PointName) -> Result<Vec<DatasetName>> {
    let stored = stored(core, &core.parts()?, fork, None)?;
    Ok(stored.local.datasets.into_keys().collect())
}

/// The snapshot of a dataset in a fork: its guid.
pub fn snapshot<'a>(
    scene: &'a Scene<'_>,
    fork: &PointName,
    dataset: &DatasetName,
    point: Option<&PointId>,
) -> Result<&'a super::family::Snapshot> {
    let stored = stored(scene.core, &scene.parts, fork, point)?;
    let missing = || FsError::Missing(format!("dataset {dataset} in fork {}", short(fork)));
    let local = stored.local.datasets.get(dataset).ok_or_else(missing)?;
    scene.snapshot(dataset, local.uuid)
}

/// See `Filesystem::discard_fork`.
pub fn discard(core: &Core, fork: &PointName) -> Result<()> {
    let _turn = core.turn();
    let used = Used::Fork(core.role.clone(), fork.to_string());
    let busy = || FsError::Busy(format!("fork {} of {}", short(fork), core.role));
    let _alone = core.uses.alone(used).ok_or_else(busy)?;
    if let Some(at) = show::fork_mounts(core, fork)?.first() {
        let (at, role) = (at.display(), &core.role);
        let what = format!(
            "discard fork {} of {role}: it is mounted at {at}",
            short(fork)
        );
        return Err(Failure::new(Code::Refused, what)
            .hint(format!("standin fork unmount {at}"))
            .into());
    }
    let scene = core.look()?;
    for part in &scene.parts {
        let dir = dir(part, core, fork);
        store::remove_file(&dir.join(DESCRIPTION))?;
        freeze("fork-hidden");
        let files = store::point_files(&dir)?.into_iter().map(|(_, file)| file);
        remove::discard_files(&scene, part, &files.collect::<Vec<_>>())?;
        publish::remove_dir(&dir)?;
    }
    Ok(())
}

/// Goes on with discarding what was begun: a fork without a description.
pub fn sweep(scene: &Scene<'_>) -> Result<()> {
    for part in &scene.parts {
        for fork in names(part, scene.core)? {
            let dir = dir(part, scene.core, &fork);
            if dir.join(DESCRIPTION).exists() {
                continue;
            }
            let files = store::point_files(&dir)?.into_iter().map(|(_, file)| file);
            remove::discard_files(scene, part, &files.collect::<Vec<_>>())?;
            publish::remove_dir(&dir)?;
        }
    }
    Ok(())
}
