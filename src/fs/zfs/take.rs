//! Takes a point, and tells whether anything changed since one.
//!
//! One `zfs snapshot` for each pool: all snapshots of the call are in one transaction, or none is. What is about to be made is
//! written down first (`.taking`); the point's file is written when all snapshots are there.
//!
//! Promise: visible only when whole. A crash leaves snapshots that `.taking` names; `sweep` destroys them.
//!
//! It deliberately does not know why a point is taken.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use anyhow::Context;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::command::{trouble_of, zfs, zpool};
use super::core::{Core, Scene};
use super::family::{Family, identity};
use super::live;
use super::store::{self, SNAPSHOT_PREFIX, snapshot_name};
use super::text::{self, Trouble};
use crate::error::{Code, Failure};
use crate::fs::btrfs::freeze::freeze;
use crate::fs::{Bracket, FsError, Live, Result, Space, local_facts};
use crate::logic::manifest::{DatasetFacts, LocalDataset, Manifest, Stored};
use crate::logic::name::DatasetName;
use crate::logic::point::{PointId, PointName};

/// Snapshots that are about to be made.
#[derive(Debug, Serialize, Deserialize)]
pub struct Taking {
    pub snapshots: Vec<String>,
}

pub fn pool(dataset: &str) -> &str {
    dataset.split('/').next().unwrap_or(dataset)
}

/// Writes out what is dirty: until then no property tells of it.
pub fn sync(dataset: &str) -> Result<()> {
    let pool = pool(dataset);
    zpool(&["sync", pool]).with_context(|| format!("sync the pool {pool}"))?;
    Ok(())
}

/// Takes a point of all datasets of the role.
pub fn snapshot(core: &Core, manifest: Manifest, bracket: &mut dyn Bracket) -> Result<Stored> {
    let _turn = core.turn();
    let scene = core.look()?;
    let mut sources = Vec::new();
    for (dataset, place) in &core.places {
        expect_live(&scene, dataset)?;
        sources.push((dataset.clone(), place.zfs.clone()));
    }
    take(&scene, manifest, &sources, bracket)
}

/// The live dataset, which must be there.
pub fn expect_live<'a>(
    scene: &'a Scene<'_>,
    dataset: &DatasetName,
) -> Result<&'a super::family::Tree> {
    let place = scene.core.place(dataset)?;
    let found = scene.family(dataset)?.tree(&place.zfs);
    found.ok_or_else(|| FsError::Missing(format!("the live dataset {}", place.zfs)).into())
}

/// Takes a point of `sources`; the caller has the turn.
pub fn take(
    scene: &Scene<'_>,
    mut manifest: Manifest,
    sources: &[(DatasetName, String)],
    bracket: &mut dyn Bracket,
) -> Result<Stored> {
    let (core, name) = (scene.core, manifest.name());
    if scene.names()?.contains(&name.to_string()) {
        let what = format!("a point {name} of {} exists already", core.role);
        return Err(Failure::new(Code::Refused, what).into());
    }
    let short = snapshot_name(&name);
    let mut taking = Vec::new();
    for part in &scene.parts {
        let ours = |(dataset, _): &&(DatasetName, String)| part.datasets.contains(dataset);
        let snapshots: Vec<String> = sources
            .iter()
            .filter(ours)
            .map(|(_, tree)| format!("{tree}@{short}"))
            .collect();
        if !snapshots.is_empty() {
            let file = part
                .store
                .hidden(".taking", &core.role)
                .join(format!("{name}.json"));
            store::write_file(&file, &Taking { snapshots })?;
            taking.push(file);
        }
    }
    freeze("point-begun");
    let taken = take_within(&mut manifest, sources, &short, bracket)
        .and_then(|()| write_down(core, &mut manifest, sources));
    match taken {
        Ok(stored) => {
            freeze("point-shown");
            taking
                .iter()
                .try_for_each(|file| store::remove_file(file))?;
            Ok(stored)
        }
        Err(error) => {
            if let Err(left) = undo(core, &name, &taking) {
                tracing::warn!(
                    "what was made of point {name} stays until the next sweep: {left:#}"
                );
            }
            Err(error)
        }
    }
}

fn undo(core: &Core, name: &PointName, taking: &[PathBuf]) -> Result<()> {
    for part in core.parts()? {
        store::remove_file(&part.point_file(core, name))?;
    }
    taking.iter().try_for_each(|file| discard(file))
}

/// Destroys what a `.taking` file names, then the file. Another's snapshot is never meant: only ours are named so.
pub fn discard(file: &std::path::Path) -> Result<()> {
    let taking: Option<Taking> = store::read_file(file)?;
    for snapshot in taking.into_iter().flat_map(|taking| taking.snapshots) {
        if !snapshot.contains(&format!("@{SNAPSHOT_PREFIX}")) {
            continue;
        }
        let destroyed = zfs(&["destroy", &snapshot]);
        match destroyed.as_ref().err().and_then(trouble_of) {
            None | Some(Trouble::Missing) => {}
            Some(_) => {
                destroyed.with_context(|| {
                    format!("destroy {snapshot}, of a point that was not completed")
                })?;
            }
        }
    }
    store::remove_file(file)
}

fn take_within(
    manifest: &mut Manifest,
    sources: &[(DatasetName, String)],
    short: &str,
    bracket: &mut dyn Bracket,
) -> Result<()> {
    let late = bracket.late();
    let (late, first): (Vec<_>, Vec<_>) = sources
        .iter()
        .partition(|(dataset, _)| late.contains(dataset));
    bracket.hold()?;
    together(&first, short)?;
    freeze("point-held");
    bracket.release(manifest)?;
    together(&late, short)
}

fn together(sources: &[&(DatasetName, String)], short: &str) -> Result<()> {
    let pools: BTreeSet<&str> = sources.iter().map(|(_, tree)| pool(tree)).collect();
    for of in pools {
        let trees = sources
            .iter()
            .map(|(_, tree)| tree)
            .filter(|tree| pool(tree) == of);
        let mut arguments = vec!["snapshot".to_owned()];
        arguments.extend(trees.map(|tree| format!("{tree}@{short}")));
        zfs(&arguments).with_context(|| format!("take the snapshots in pool {of}"))?;
    }
    Ok(())
}

/// Fills in the manifest and writes the point's files.
fn write_down(
    core: &Core,
    manifest: &mut Manifest,
    sources: &[(DatasetName, String)],
) -> Result<Stored> {
    let scene = core.look()?;
    let short = snapshot_name(&manifest.name());
    let mut local = BTreeMap::new();
    manifest.datasets.clear();
    for (dataset, tree) in sources {
        let family = scene.family(dataset)?;
        let made = family.of(tree).find(|found| found.short == short);
        let made = made.with_context(|| format!("the snapshot {tree}@{short} is gone"))?;
        let facts = DatasetFacts {
            identity: identity(made.guid),
            not_replicated: not_replicated(core, family, tree),
            nested: Vec::new(),
        };
        manifest.datasets.insert(dataset.clone(), facts);
        let facts = LocalDataset {
            uuid: identity(made.guid),
            ctransid: made.txg,
            ..LocalDataset::default()
        };
        local.insert(dataset.clone(), facts);
    }
    let stored = Timestamp::now();
    for part in &scene.parts {
        let mut here = local.clone();
        here.retain(|dataset, _| part.datasets.contains(dataset));
        if !here.is_empty() {
            let point = Stored {
                manifest: manifest.clone(),
                local: local_facts(stored, None, here),
            };
            store::write_file(&part.point_file(core, &manifest.name()), &point)?;
        }
    }
    Ok(Stored {
        manifest: manifest.clone(),
        local: local_facts(stored, None, local),
    })
}

/// Datasets nested in one that are none of the role's, in sentences.
fn not_replicated(core: &Core, family: &Family, tree: &str) -> Vec<String> {
    let foreign = nested(core, family, tree);
    let sentence = |name: &String| {
        format!(
            "{name} is a dataset of its own: make it a dataset of the role to have it replicated"
        )
    };
    foreign.iter().map(sentence).collect()
}

fn nested(core: &Core, family: &Family, tree: &str) -> Vec<String> {
    let inside = family.inside(tree).map(|inside| inside.name.clone());
    let ours = |name: &String| core.places.values().any(|place| place.zfs == *name);
    let stored = |name: &String| name.split('/').any(|part| part == store::STANDIN);
    inside.filter(|name| !ours(name) && !stored(name)).collect()
}

/// See `Filesystem::live`.
pub fn live(core: &Core, dataset: &DatasetName) -> Result<Live> {
    let scene = core.look()?;
    let place = core.place(dataset)?;
    let tree = expect_live(&scene, dataset)?;
    let family = scene.family(dataset)?;
    let below = |name: String| {
        let rest = name.strip_prefix(&place.zfs).unwrap_or(&name);
        PathBuf::from(rest.trim_start_matches('/'))
    };
    Ok(Live {
        path: place.path.clone(),
        uuid: identity(tree.guid),
        not_replicated: not_replicated(core, family, &place.zfs),
        nested: nested(core, family, &place.zfs)
            .into_iter()
            .map(below)
            .collect(),
        prevents: Vec::new(),
    })
}

/// See `Filesystem::changed`. A snapshot that is not in the live dataset itself tells nothing of it.
pub fn changed(core: &Core, point: &Stored) -> Result<bool> {
    let scene = core.look()?;
    let Some(found) = scene.find_if_any(&point.manifest.point)? else {
        return Ok(true);
    };
    if found.local.from.is_some() {
        return Ok(true);
    }
    for (dataset, place) in &core.places {
        let family = scene.family(dataset)?;
        let (Some(live), Some(local)) =
            (family.tree(&place.zfs), found.local.datasets.get(dataset))
        else {
            return Ok(true);
        };
        live::have_log_read(core, dataset, live)?;
        let snapshot = scene.snapshot(dataset, local.uuid)?;
        if snapshot.dataset != place.zfs {
            return Ok(true);
        }
        sync(&place.zfs)?;
        if written(&place.zfs, &snapshot.name())? != Some(0) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Bytes that a filesystem holds and a snapshot does not; none where it did not grow from it.
pub fn written(tree: &str, snapshot: &str) -> Result<Option<u64>> {
    let property = format!("written@{snapshot}");
    match zfs(&["get", "-Hp", "-o", "value", &property, tree]) {
        Ok(said) => text::number(said.trim()),
        Err(error) if matches!(trouble_of(&error), Some(Trouble::Missing | Trouble::Base)) => {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// See `Filesystem::written_since`.
pub fn since(core: &Core, point: &PointId) -> Result<Option<u64>> {
    let scene = core.look()?;
    let Some(found) = scene.find_if_any(point)? else {
        return Ok(None);
    };
    let mut sum = 0;
    for (dataset, local) in &found.local.datasets {
        let place = core.place(dataset)?;
        if scene.family(dataset)?.tree(&place.zfs).is_none() {
            return Ok(None);
        }
        sync(&place.zfs)?;
        let snapshot = scene.snapshot(dataset, local.uuid)?.name();
        match written(&place.zfs, &snapshot)? {
            Some(bytes) => sum += bytes,
            None => return Ok(None),
        }
    }
    Ok(Some(sum))
}

/// See `Filesystem::space`. What the parent may still use: quotas above the dataset are counted in.
pub fn space(core: &Core, dataset: &DatasetName) -> Result<Space> {
    let place = core.place(dataset)?;
    let of = store::parent(&place.zfs).unwrap_or(&place.zfs);
    let store = core.store(&place.zfs)?;
    let (free, used) = store.space.or_list(&[pool(of)], || {
        let said = zfs(&["list", "-Hp", "-o", "available,used", of])
            .with_context(|| format!("ask for the space of {of}"))?;
        let rows = text::rows(&said, 2)?;
        let cell = |at: usize| {
            rows.first()
                .and_then(|row| text::number(row[at]).ok()?)
                .unwrap_or(0)
        };
        Ok((cell(0), cell(1)))
    })?;
    Ok(Space {
        total: free.saturating_add(used),
        free,
        room: free.saturating_sub(core.limits.reserve),
    })
}
