//! Datasets that somebody reads for a while: snapshots of points and forks, and throw-away copies of live data.
//!
//! Live data move while they are read, so a copy is made: a read-only snapshot in a room of our own,
//!
//!     .looks/<role>/<unique>/<dataset>
//!
//! which is no point: it is neither listed, nor sent, nor a base.
//!
//! Promise: what is held is not destroyed by this process. A copy goes when its guard does; a crash leaves it there, until
//! `sweep`, at the next start at the latest, takes it away.
//!
//! It deliberately does not know what is looked for.

use std::path::PathBuf;

use anyhow::Context;

use super::catalogue::{Catalogue, entry_names};
use super::freeze::freeze;
use super::layout::Part;
use super::subvolume::{self, Access};
use super::uses::{Use, Used};
use super::{disk, forks, send, take, top};
use crate::fs::{FsError, Held, Kept, Result};
use crate::logic::name::DatasetName;

/// See `Filesystem::hold`.
pub fn hold(catalogue: &Catalogue<'_>, dataset: &DatasetName, held: &Held) -> Result<Kept> {
    let (part, path, uses) = match held {
        Held::Point(id) => {
            let found = catalogue.find(id)?;
            let held = send::hold(catalogue, &found, dataset)?;
            let path = catalogue.snapshot_path(&found, dataset)?;
            (catalogue.place(dataset)?.0, path, vec![held])
        }
        Held::Forked(fork, id) => {
            let (found, uses) = forks::snapshot(catalogue, fork, dataset, Some(id))?;
            (found.part, found.path, uses)
        }
        Held::Copy(name) => {
            let (path, held) = copy(catalogue, dataset, name)?;
            (catalogue.place(dataset)?.0, path, vec![held])
        }
    };
    // The path leads through the top level, which has to stay open too.
    Ok(Kept::new(held.clone(), path, (uses, part.top.clone())))
}

/// See `Filesystem::hold_live`.
pub fn hold_live(catalogue: &Catalogue<'_>, dataset: &DatasetName) -> Result<Kept> {
    let (part, place) = catalogue.place(dataset)?;
    let live = place.open_live()?;
    let name = uuid::Uuid::new_v4().simple().to_string();
    let held = share(catalogue, part, &name)?;
    let copy = Copy {
        part: part.clone(),
        dir: part.looks().join(&name),
        _held: held,
    };
    disk::make_dir(&copy.dir)?;
    let path = copy.dir.join(dataset);
    subvolume::snapshot(&top::fd_path(&live), &path, Access::ReadOnly)
        .map_err(|e| take::refused_snapshot(&place.live, e))?;
    freeze("look-copied");
    Ok(Kept::new(Held::Copy(name), path, copy))
}

/// The copy of that name, kept for as long as the use lives.
pub fn copy(
    catalogue: &Catalogue<'_>,
    dataset: &DatasetName,
    name: &str,
) -> Result<(PathBuf, Use)> {
    let (part, _) = catalogue.place(dataset)?;
    let held = share(catalogue, part, name)?;
    Ok((part.looks().join(name).join(dataset), held))
}

fn share(catalogue: &Catalogue<'_>, part: &Part, name: &str) -> Result<Use> {
    let used = Used::Copy(catalogue.role.clone(), name.to_owned());
    let held = part.top.uses.share(used);
    held.ok_or_else(|| FsError::Busy(format!("the copy {name} of live data")).into())
}

/// A copy of live data, removed when this is dropped.
struct Copy {
    part: Part,
    dir: PathBuf,
    _held: Use,
}

impl Drop for Copy {
    fn drop(&mut self) {
        if let Err(error) = disk::remove(&self.dir) {
            let dir = self.part.relative(&self.dir).display().to_string();
            tracing::warn!("a copy of live data, {dir}, stays until the next sweep: {error}");
        }
    }
}

/// Takes away copies that nobody in this process uses.
pub fn sweep(catalogue: &Catalogue<'_>) -> Result<()> {
    for part in &catalogue.parts {
        for name in entry_names(&part.looks())? {
            let used = Used::Copy(catalogue.role.clone(), name.clone());
            let Some(_alone) = part.top.uses.alone(used) else {
                continue;
            };
            let dir = part.looks().join(&name);
            match disk::remove(&dir) {
                Err(e) if subvolume::is_busy(&e) => {
                    tracing::info!("the copy {name} is in use; the next sweep removes it");
                }
                done => done.with_context(|| format!("remove {}", dir.display()))?,
            }
        }
    }
    Ok(())
}
