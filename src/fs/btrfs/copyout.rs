//! Copies a point to a path beside the live data.
//!
//! Promise: the target is the whole tree or nothing, and never inside live data or among our own files. A crash leaves at
//! worst missing parents made, or a whole copy that was not announced.
//!
//! It deliberately does not know what the copy is for.

use std::path::{Component, Path};

use anyhow::Context;

use super::catalogue::Catalogue;
use super::layout::{Part, STANDIN};
use super::place::{self, Occupant, Place};
use super::send;
use super::subvolume::{self, Access};
use crate::error::{Code, Failure};
use crate::fs::{FsError, Result};
use crate::logic::name::DatasetName;
use crate::logic::point::PointId;

/// A writable copy at any path of the same filesystem. Missing parents are made.
pub fn restore_to(
    catalogue: &Catalogue<'_>,
    dataset: &DatasetName,
    point: &PointId,
    target: &Path,
) -> Result<()> {
    let (part, _) = catalogue.place(dataset)?;
    let found = catalogue.find(point)?;
    let _held = send::hold(catalogue, &found, dataset)?;
    copy_to(
        catalogue,
        part,
        &catalogue.snapshot_path(&found, dataset)?,
        target,
    )?;
    if let Err(changed) = still_whole(catalogue, point) {
        subvolume::delete(target)
            .with_context(|| format!("remove the copy at {}", target.display()))?;
        return Err(changed);
    }
    part.top.sync()
}

/// A writable copy of the snapshot at `source`, which the caller keeps there. Not yet on disk when this returns.
pub fn copy_to(catalogue: &Catalogue<'_>, part: &Part, source: &Path, target: &Path) -> Result<()> {
    let shown = target.display();
    if target.symlink_metadata().is_ok() {
        return Err(Failure::new(Code::Refused, format!("{shown} exists already")).into());
    }
    refuse_our_own(catalogue, target)?;
    if place::below(&part.top, target)?.is_none() {
        return Err(FsError::OtherFilesystem(target.to_owned()).into());
    }
    if let Some(parent) = target.parent() {
        std::fs::create_dir_all(parent).with_context(|| format!("create {}", parent.display()))?;
    }
    subvolume::snapshot(source, target, Access::Writable)
        .with_context(|| format!("make a writable copy at {shown}"))
}

/// A point may be changed between the look at it and the copy of it: such a copy is not put anywhere.
pub fn still_whole(catalogue: &Catalogue<'_>, point: &PointId) -> Result<()> {
    let again = catalogue.find(point).map(|_| ());
    again.context("find it whole after it was copied")
}

/// Refuses a target inside live data or among our own files, on whichever filesystem of the role.
fn refuse_our_own(catalogue: &Catalogue<'_>, target: &Path) -> Result<()> {
    let shown = target.display();
    let refuse = |what: String, hint: &str| Err(Failure::new(Code::Usage, what).hint(hint).into());
    if target.components().any(|part| part == Component::ParentDir) {
        return refuse(
            format!("{shown}: `..` has no place here"),
            "write the path plainly; nothing was touched",
        );
    }
    for part in &catalogue.parts {
        let Some(relative) = place::below(&part.top, target)? else {
            continue;
        };
        if relative.starts_with(STANDIN) {
            return refuse(
                format!("{shown} is among the files of standin itself"),
                "name a directory outside of .standin; nothing was touched",
            );
        }
        let inside = |place: &&Place| {
            place.occupant == Occupant::Subvolume && relative.starts_with(&place.relative)
        };
        if let Some(place) = part.places.iter().find(inside) {
            return refuse(
                format!(
                    "{shown} is inside the live dataset {} ({}): the copy would be a nested subvolume, which no point holds",
                    place.dataset,
                    place.live.display()
                ),
                "name a directory outside of the role's datasets; nothing was touched",
            );
        }
    }
    Ok(())
}
