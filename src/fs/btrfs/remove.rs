//! Destroys points and clears away what interruptions left.
//!
//! A point's directory is renamed into the trash first, which hides all of it at once, and taken apart there. In a role that
//! spans filesystems a mark (`.destroyed`) in each part comes before the first rename, so that the rest is known to be on
//! its way out whatever happens in between.
//!
//! Promise: a point that a send uses stays visible and whole. A crash leaves things in the trash or marked; `sweep` finishes
//! them. Nothing is removed that the catalogue shows, nor what an open transfer works on, nor what cannot be read.
//!
//! It deliberately does not know which points are wanted: that is decided by the caller.

use std::collections::BTreeSet;
use std::io;
use std::path::Path;

use anyhow::Context;

use super::catalogue::{Catalogue, entry_names, point_names};
use super::freeze::freeze;
use super::layout::{DESTROYED, NEW_PREFIX, Part};
use super::uses::{Use, Used};
use super::{browse, disk, look, subvolume, view};
use crate::fs::{FsError, Result};
use crate::logic::point::{PointId, PointName};

/// Removes the point `id`; one that is not here is success.
pub fn destroy(catalogue: &Catalogue<'_>, id: &PointId) -> Result<()> {
    for name in catalogue.names_of(id)? {
        let _alone = points_alone(catalogue, &name)
            .ok_or_else(|| FsError::Busy(format!("point {id} of {}", catalogue.role)))?;
        for part in &catalogue.parts {
            browse::take_away(part, &part.points().join(&name))?;
        }
        refuse_shown(catalogue, &name, id)?;
        discard_point(catalogue, &name).with_context(|| format!("destroy point {name}"))?;
    }
    Ok(())
}

/// The kernel destroys a subvolume that is mounted, and who reads it finds an empty directory.
fn refuse_shown(catalogue: &Catalogue<'_>, name: &str, id: &PointId) -> Result<()> {
    for part in &catalogue.parts {
        if let Some(at) = view::shown_at(part, name)? {
            let (role, at) = (catalogue.role, at.display());
            return Err(FsError::Busy(format!("point {id} of {role}, shown at {at},")).into());
        }
    }
    Ok(())
}

/// Finishes interrupted deletions and removes what no transfer can use any more.
pub fn sweep(catalogue: &Catalogue<'_>) -> Result<()> {
    for part in &catalogue.parts {
        empty_trash(part)?;
    }
    let newest = catalogue
        .list()?
        .last()
        .map(|found| found.stored.manifest.point.rank());
    for name in leftovers(catalogue, newest)? {
        clear(catalogue, &name).with_context(|| format!("clear the remains of point {name}"))?;
    }
    look::sweep(catalogue)?;
    super::forks::sweep(catalogue)
}

fn empty_trash(part: &Part) -> Result<()> {
    let _trash = part.top.trash();
    for name in entry_names(&part.trash())? {
        let path = part.trash().join(&name);
        freeze("trash-emptying");
        match disk::remove(&path) {
            Ok(()) => {}
            Err(e) if subvolume::is_busy(&e) => {
                tracing::info!("{name} in the trash is in use; the next sweep removes it");
            }
            Err(e) => {
                return Err(e).with_context(|| format!("remove {} from the trash", path.display()));
            }
        }
    }
    Ok(())
}

/// Names of points of which something lies around: taken half, received half and too old now, or marked as destroyed.
fn leftovers(catalogue: &Catalogue<'_>, newest: Option<(u64, u64)>) -> Result<BTreeSet<String>> {
    let mut names = BTreeSet::new();
    for part in &catalogue.parts {
        for entry in entry_names(&part.staging())? {
            let taken = entry.strip_prefix(NEW_PREFIX);
            let name = taken.unwrap_or(&entry);
            let Some(point) = PointName::parse(name) else {
                continue;
            };
            if taken.is_some()
                || newest.is_some_and(|newest| (point.epoch, point.sequence) <= newest)
            {
                names.insert(name.to_owned());
            }
        }
        for name in point_names(&part.points())? {
            if part.points().join(&name).join(DESTROYED).exists() {
                names.insert(name);
            }
        }
    }
    Ok(names)
}

/// Removes the staging of `name`, and what is visible of it where it is no complete point.
fn clear(catalogue: &Catalogue<'_>, name: &str) -> Result<()> {
    let Some(_staging) = staging_alone(catalogue, name) else {
        return Ok(());
    };
    // Asked only now: while somebody was at it, it may have become a point.
    let complete = catalogue.read(name)?.is_some();
    if !complete && catalogue.parts.len() > 1 {
        let Some(_points) = points_alone(catalogue, name) else {
            return Ok(());
        };
        discard_point(catalogue, name)?;
    }
    for part in &catalogue.parts {
        for entry in [format!("{NEW_PREFIX}{name}"), name.to_owned()] {
            let path = part.staging().join(entry);
            let _trash = part.top.trash();
            let trash = part.new_trash();
            if hide(&path, &trash)? {
                freeze("remains-hidden");
                disk::remove(&trash).with_context(|| format!("remove {}", trash.display()))?;
            }
        }
    }
    Ok(())
}

/// Has the point alone on all its filesystems; none while anybody uses it.
fn points_alone(catalogue: &Catalogue<'_>, name: &str) -> Option<Vec<Use>> {
    let used = Used::Point(catalogue.role.clone(), name.to_owned());
    catalogue
        .parts
        .iter()
        .map(|part| part.top.uses.alone(used.clone()))
        .collect()
}

fn staging_alone(catalogue: &Catalogue<'_>, name: &str) -> Option<Vec<Use>> {
    let mut uses = Vec::new();
    for part in &catalogue.parts {
        for entry in [format!("{NEW_PREFIX}{name}"), name.to_owned()] {
            uses.push(
                part.top
                    .uses
                    .alone(Used::Staging(catalogue.role.clone(), entry))?,
            );
        }
    }
    Some(uses)
}

/// Hides and removes the point's directories. The caller has it alone.
fn discard_point(catalogue: &Catalogue<'_>, name: &str) -> Result<()> {
    let parts: Vec<&Part> = catalogue
        .parts
        .iter()
        .filter(|part| part.points().join(name).is_dir())
        .collect();
    if catalogue.parts.len() > 1 {
        for part in &parts {
            disk::write_json(&part.points().join(name).join(DESTROYED), &true)?;
        }
    }
    for (done, part) in parts.iter().enumerate() {
        let _trash = part.top.trash();
        let point = part.points().join(name);
        let trash = part.new_trash();
        disk::make_dir(&part.trash())?;
        if !hide(&point, &trash)? {
            continue;
        }
        freeze("point-hidden");
        let Err((deleted, error)) = take_apart(&trash) else {
            continue;
        };
        if !subvolume::is_busy(&error) {
            return Err(error).with_context(|| format!("remove {}", trash.display()));
        }
        // Another program sends from it. Whole, it goes back; no longer whole, it stays hidden until the next sweep.
        if deleted == 0 && done == 0 {
            put_back(part, &trash, &point)?;
            for part in &parts {
                disk::remove(&part.points().join(name).join(DESTROYED))
                    .context("take the mark away")?;
            }
            return Err(FsError::Busy(format!("point {name} of {}", catalogue.role)).into());
        }
        tracing::info!("part of point {name} is in use; the next sweep removes it");
    }
    Ok(())
}

/// Hides and removes a directory of points (a fork). True: another program sends from it, and it is back where it was.
pub fn discard_dir(part: &Part, dir: &Path) -> Result<bool> {
    let _trash = part.top.trash();
    let trash = part.new_trash();
    disk::make_dir(&part.trash())?;
    if !hide(dir, &trash)? {
        return Ok(false);
    }
    freeze("fork-hidden");
    let snapshots = super::forks::subvolumes_in(&trash).context("look into the trash")?;
    for (deleted, path) in snapshots.iter().enumerate() {
        match disk::remove(path) {
            Ok(()) => freeze("fork-half-gone"),
            Err(e) if subvolume::is_busy(&e) && deleted == 0 => {
                put_back(part, &trash, dir)?;
                return Ok(true);
            }
            Err(e) if subvolume::is_busy(&e) => {
                tracing::info!(
                    "part of {} is in use; the next sweep removes it",
                    dir.display()
                );
                return Ok(false);
            }
            Err(e) => return Err(e).with_context(|| format!("remove {}", path.display())),
        }
    }
    disk::remove(&trash).with_context(|| format!("remove {}", trash.display()))?;
    Ok(false)
}

/// Hides and removes a point's directory of which another whole copy is kept. The caller has the point alone.
pub fn hide_and_remove(part: &Part, point: &Path) -> Result<()> {
    let _trash = part.top.trash();
    let trash = part.new_trash();
    disk::make_dir(&part.trash())?;
    if hide(point, &trash)? {
        disk::remove(&trash).with_context(|| format!("remove {}", trash.display()))?;
    }
    Ok(())
}

/// Renames `path` into the trash; false where there is nothing.
fn hide(path: &Path, trash: &Path) -> Result<bool> {
    match std::fs::rename(path, trash) {
        Ok(()) => Ok(true),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(e) => Err(e).with_context(|| format!("move {} to the trash", path.display())),
    }
}

fn put_back(part: &Part, trash: &Path, point: &Path) -> Result<()> {
    part.top
        .move_to(part.relative(trash), part.relative(point))
        .with_context(|| format!("put {} back", point.display()))
}

/// Deletes the snapshots, then the rest. On an error, with the number of snapshots that are gone.
fn take_apart(dir: &Path) -> std::result::Result<(), (usize, io::Error)> {
    let mut deleted = 0;
    let entries = std::fs::read_dir(dir).map_err(|e| (deleted, e))?;
    for entry in entries {
        let path = entry.map_err(|e| (deleted, e))?.path();
        // Files wait: a directory that is put back must still have its manifest.
        if path.symlink_metadata().is_ok_and(|found| found.is_dir()) {
            disk::remove(&path).map_err(|e| (deleted, e))?;
            deleted += 1;
            freeze("point-half-gone");
        }
    }
    disk::remove(dir).map_err(|e| (deleted, e))
}
