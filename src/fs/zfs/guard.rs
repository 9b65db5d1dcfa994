//! Guards the points on which peers go on: against people and other programs by holds, and against their loss by bookmarks.
//!
//!     hold `standin:<peer>` on the snapshots of a point      `zfs destroy` and `zfs rollback -r` refuse it
//!     bookmark `<dataset>#standin_<point>`                   a base for a send, when the snapshot itself is gone
//!     .marks/<role>/<point>.json                             what the bookmarks of a point stand for
//!
//! Promise: nothing of anybody else's is released or destroyed: only tags, bookmarks and files of these names. A crash leaves a hold
//! too many or a bookmark without its file; the next call puts it right. It deliberately does not know who decides what a base is.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use anyhow::Context;
use uuid::Uuid;

use super::command::{if_any, trouble_of, zfs, zfs_found};
use super::core::{Core, Part, Scene};
use super::family::Bookmark;
use super::store::{self, SNAPSHOT_PREFIX};
use super::text::{self, Trouble};
use crate::fs::btrfs::freeze::freeze;
use crate::fs::{Bases, Result};
use crate::logic::lineage::Entry;
use crate::logic::manifest::Stored;
use crate::logic::name::DatasetName;
use crate::logic::point::{PointId, PointName};

/// What every tag of ours begins with; the peer follows.
const TAG: &str = "standin:";

fn file(part: &Part, core: &Core, name: &PointName) -> PathBuf {
    part.store
        .hidden(".marks", &core.role)
        .join(format!("{name}.json"))
}

/// Nothing is sent on top of what is left of a point any more.
pub fn forget(part: &Part, core: &Core, name: &PointName) -> Result<()> {
    store::remove_file(&file(part, core, name))
}

/// Points of which bookmarks are kept, as each store describes them.
fn marked(scene: &Scene<'_>) -> Result<BTreeMap<String, Stored>> {
    let mut marked: BTreeMap<String, Stored> = BTreeMap::new();
    for part in &scene.parts {
        let dir = part.store.hidden(".marks", &scene.core.role);
        for (name, file) in store::point_files(&dir)? {
            let Some(stored) = store::read_file::<Stored>(&file)? else {
                continue;
            };
            match marked.get_mut(&name.to_string()) {
                Some(known) => known.local.datasets.extend(stored.local.datasets),
                None => {
                    marked.insert(name.to_string(), stored);
                }
            }
        }
    }
    Ok(marked)
}

/// Points that are not among `points`, of which bookmarks are left.
pub fn remnants(scene: &Scene<'_>, points: &[Stored]) -> Result<Vec<Entry>> {
    let mut found = Vec::new();
    for stored in marked(scene)?.into_values() {
        let is_here = |point: &Stored| point.manifest.point == stored.manifest.point;
        let whole = stored.local.datasets.iter().all(|(dataset, local)| {
            let family = scene.family(dataset);
            family.is_ok_and(|family| family.bookmark(local.uuid).is_some())
        });
        if whole && !points.iter().any(is_here) {
            found.push(Entry::of(&stored.manifest));
        }
    }
    Ok(found)
}

/// What is left of a dataset of a point: its bookmark, and the identity of the snapshot.
pub fn remnant(
    scene: &Scene<'_>,
    dataset: &DatasetName,
    point: &PointId,
) -> Result<Option<(Bookmark, Uuid)>> {
    let marked = marked(scene)?;
    let stored = marked
        .values()
        .find(|stored| stored.manifest.point == *point);
    let Some(stored) = stored else {
        return Ok(None);
    };
    let (facts, local) = (
        stored.manifest.datasets.get(dataset),
        stored.local.datasets.get(dataset),
    );
    let (Some(facts), Some(local)) = (facts, local) else {
        return Ok(None);
    };
    let bookmark = scene.family(dataset)?.bookmark(local.uuid);
    Ok(bookmark.map(|bookmark| (bookmark.clone(), facts.identity)))
}

/// See `Filesystem::guard`.
pub fn guard(core: &Core, bases: &Bases) -> Result<()> {
    let _turn = core.turn();
    let scene = core.look()?;
    let points = scene.list()?;
    mark(&scene, bases, &points)?;
    freeze("guard-marked");
    hold(&scene, bases, &points)
}

/// Has bookmarks of exactly the bases, and of those that were let go.
fn mark(scene: &Scene<'_>, bases: &Bases, points: &[Stored]) -> Result<()> {
    let core = scene.core;
    let held = bases.held.iter().map(|(_, point)| point);
    let wanted: Vec<&PointId> = held.chain(&bases.let_go).collect();
    let is_wanted = |stored: &&Stored| wanted.contains(&&stored.manifest.point);
    for stored in points.iter().filter(is_wanted) {
        for (dataset, local) in &stored.local.datasets {
            if scene.family(dataset)?.bookmark(local.uuid).is_none() {
                let snapshot = scene.snapshot(dataset, local.uuid)?;
                make(&snapshot.name(), &snapshot.bookmark_name())?;
            }
        }
        for part in &scene.parts {
            let mut here = stored.clone();
            let datasets = &mut here.local.datasets;
            datasets.retain(|dataset, _| part.datasets.contains(dataset));
            let file = file(part, core, &stored.manifest.name());
            if !here.local.datasets.is_empty() && !file.exists() {
                store::write_file(&file, &here)?;
            }
        }
    }
    let (kept, spent): (Vec<Stored>, Vec<Stored>) = marked(scene)?
        .into_values()
        .partition(|stored| is_wanted(&stored));
    for stored in spent {
        for part in &scene.parts {
            forget(part, core, &stored.manifest.name())?;
        }
    }
    for dataset in core.places.keys() {
        let locals = kept
            .iter()
            .filter_map(|stored| stored.local.datasets.get(dataset));
        let kept: BTreeSet<_> = locals
            .filter_map(|local| super::family::guid(local.uuid))
            .collect();
        for bookmark in &scene.family(dataset)?.bookmarks {
            let ours = bookmark.name.contains(&format!("#{SNAPSHOT_PREFIX}"));
            if ours && !kept.contains(&bookmark.guid) {
                let name = &bookmark.name;
                if_any(zfs(&["destroy", name]).with_context(|| format!("destroy {name}")))?;
            }
        }
    }
    Ok(())
}

/// Makes a bookmark, where there is none of that name.
pub fn make(snapshot: &str, bookmark: &str) -> Result<()> {
    let made = zfs(&["bookmark", snapshot, bookmark]);
    match made.as_ref().err().and_then(trouble_of) {
        Some(Trouble::Exists) => Ok(()),
        _ => made
            .map(|_| ())
            .with_context(|| format!("make a bookmark of {snapshot}")),
    }
}

/// Has holds on exactly the bases.
fn hold(scene: &Scene<'_>, bases: &Bases, points: &[Stored]) -> Result<()> {
    let mut wanted = BTreeSet::new();
    for (peer, base) in &bases.held {
        let stored = points.iter().find(|stored| stored.manifest.point == *base);
        let datasets = stored.iter().flat_map(|stored| &stored.local.datasets);
        for (dataset, local) in datasets {
            let snapshot = scene.snapshot(dataset, local.uuid)?;
            wanted.insert((format!("{TAG}{peer}"), snapshot.name()));
        }
    }
    let mut held = Vec::new();
    for dataset in scene.core.places.keys() {
        let family = scene.family(dataset)?.snapshots.iter();
        held.extend(family.filter(|found| found.held).map(|found| found.name()));
    }
    let held = held_by(&held)?;
    for (verb, pairs) in [
        ("hold", wanted.difference(&held)),
        ("release", held.difference(&wanted)),
    ] {
        for (tag, snapshot) in pairs {
            let done = zfs(&[verb, tag, snapshot]);
            match done.as_ref().err().and_then(trouble_of) {
                Some(Trouble::Exists | Trouble::Missing) => {}
                _ => {
                    done.with_context(|| format!("{verb} {snapshot}"))?;
                }
            }
        }
    }
    Ok(())
}

/// Our tags on snapshots, each with its snapshot.
fn held_by(snapshots: &[String]) -> Result<BTreeSet<(String, String)>> {
    if snapshots.is_empty() {
        return Ok(BTreeSet::new());
    }
    let mut words = vec!["holds", "-H"];
    words.extend(snapshots.iter().map(String::as_str));
    let said = zfs_found(&words).context("ask who holds the points")?;
    let mut held = BTreeSet::new();
    for row in text::rows(&said, 3)? {
        if row[1].starts_with(TAG) {
            held.insert((row[1].to_owned(), row[0].to_owned()));
        }
    }
    Ok(held)
}

/// Releases what we hold of a snapshot that is to go.
pub fn release(snapshot: &str) -> Result<()> {
    for (tag, snapshot) in held_by(&[snapshot.to_owned()])? {
        if_any(zfs(&["release", &tag, &snapshot]))
            .with_context(|| format!("release {snapshot}"))?;
    }
    Ok(())
}
