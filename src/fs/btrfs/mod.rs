//! btrfs: snapshots, send and receive, restore.
//!
//! One value of [`Btrfs`] serves one role. Nothing is remembered between calls but the mounts of the filesystems' top
//! levels: everything is looked up on disk anew, so that what an admin mounts, creates or deletes meanwhile is seen, and a
//! restart is like a first start.
//!
//! The pieces: `top` reaches the filesystem, `place` the datasets in it, `layout` names our own directories; `catalogue` lists,
//! `take`, `remove`, `staging` and `restore` change; `send` and `receive` (with `stream`, `scan`, `flags` and `apply`) move bytes.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context;

use self::catalogue::Catalogue;
use self::layout::Part;
use self::place::Place;
use self::top::Top;
use crate::error::{Code, Failure};
use crate::fs::{
    Filesystem, FsError, Limits, Live, Measured, Opened, Outgoing, Receipt, Restored, Result, Scan,
    Space,
};
use crate::logic::manifest::{Manifest, Stored};
use crate::logic::name::{DatasetName, NodeName, RoleName};
use crate::logic::point::PointId;
use crate::logic::transfer::Partial;

mod apply;
mod catalogue;
mod disk;
mod examine;
pub mod flags;
mod freeze;
mod ioctl;
mod layout;
mod mountinfo;
mod nested;
mod place;
pub mod receive;
mod remount;
mod remove;
mod restore;
pub mod scan;
mod send;
mod staging;
pub mod stream;
mod subvolume;
mod take;
mod top;
mod uses;

/// Newest send stream version that this program and the running kernel can both read and write.
pub fn stream_version_max() -> u32 {
    send::kernel_version().clamp(1, send::VERSION_MAX)
}

/// A role's datasets on btrfs.
#[derive(Debug)]
pub struct Btrfs {
    role: RoleName,
    datasets: BTreeMap<DatasetName, PathBuf>,
    limits: Limits,
    /// Keeps the mounts alive between calls.
    tops: Mutex<Vec<Arc<Top>>>,
    reported: Mutex<BTreeSet<String>>,
}

impl Btrfs {
    /// Touches nothing yet: the filesystems may come later. `datasets` are absolute live paths, at least one.
    pub fn new(
        role: RoleName,
        datasets: BTreeMap<DatasetName, PathBuf>,
        limits: Limits,
    ) -> Result<Btrfs> {
        let usage = |what: String| Err(Failure::new(Code::Usage, what).into());
        if datasets.is_empty() {
            return usage(format!("role {role} has no datasets"));
        }
        for (dataset, path) in &datasets {
            let text = path.as_os_str().as_encoded_bytes();
            if !path.is_absolute() || text.contains(&0) {
                return usage(format!("the path of {dataset}, {path:?}, is not absolute"));
            }
        }
        Ok(Btrfs {
            role,
            datasets,
            limits,
            tops: Mutex::default(),
            reported: Mutex::default(),
        })
    }

    /// Looks up all datasets, by filesystem.
    fn catalogue(&self) -> Result<Catalogue<'_>> {
        let mut parts: Vec<Part> = Vec::new();
        for (dataset, path) in &self.datasets {
            let place = self.place(dataset, path)?;
            match parts
                .iter_mut()
                .find(|part| part.top.fsid == place.top.fsid)
            {
                Some(part) => part.places.push(place),
                None => {
                    let mut part = Part::new(&self.role, place.top.clone());
                    part.places.push(place);
                    parts.push(part);
                }
            }
        }
        Ok(Catalogue {
            role: &self.role,
            parts,
            reported: &self.reported,
        })
    }

    fn place_of(&self, dataset: &DatasetName) -> Result<Place> {
        let path = self
            .datasets
            .get(dataset)
            .ok_or_else(|| catalogue::not_configured(&self.role, dataset))?;
        self.place(dataset, path)
    }

    fn place(&self, dataset: &DatasetName, path: &Path) -> Result<Place> {
        let place = Place::find(dataset, path)
            .with_context(|| format!("find dataset {dataset} of {}", self.role))?;
        let mut tops = self.tops.lock().unwrap_or_else(PoisonError::into_inner);
        if !tops.iter().any(|top| top.fsid == place.top.fsid) {
            tops.push(place.top.clone());
        }
        Ok(place)
    }
}

impl Filesystem for Btrfs {
    fn role(&self) -> &RoleName {
        &self.role
    }

    fn datasets(&self) -> &BTreeMap<DatasetName, PathBuf> {
        &self.datasets
    }

    /// Also finishes or undoes a restore that was interrupted.
    fn prepare(&self) -> Result<()> {
        let catalogue = self.catalogue()?;
        for part in &catalogue.parts {
            part.make_dirs()?;
        }
        restore::recover(&catalogue)
    }

    fn list(&self) -> Result<Vec<Stored>> {
        let points = self.catalogue()?.list()?;
        Ok(points.into_iter().map(|found| found.stored).collect())
    }

    fn live(&self, dataset: &DatasetName, scan: Scan) -> Result<Live> {
        examine::live(&self.place_of(dataset)?, scan)
    }

    fn changed(&self, point: &Stored) -> Result<bool> {
        take::changed(&self.catalogue()?, point)
    }

    fn snapshot(&self, manifest: Manifest) -> Result<Stored> {
        take::snapshot(&self.catalogue()?, manifest)
    }

    fn measure(
        &self,
        dataset: &DatasetName,
        base: Option<&PointId>,
        point: &PointId,
        version_max: u32,
    ) -> Result<Measured> {
        send::measure(&self.catalogue()?, dataset, base, point, version_max)
    }

    fn send(
        &self,
        dataset: &DatasetName,
        base: Option<&PointId>,
        point: &PointId,
        version: u32,
    ) -> Result<Box<dyn Outgoing>> {
        send::send(&self.catalogue()?, dataset, base, point, version)
    }

    fn receive(&self, receipt: &Receipt) -> Result<Opened> {
        staging::receive(&self.catalogue()?, receipt, self.limits)
    }

    fn partials(&self) -> Result<Vec<Partial>> {
        staging::partials(&self.catalogue()?)
    }

    fn publish(&self, manifest: &Manifest, from: &NodeName) -> Result<Stored> {
        staging::publish(&self.catalogue()?, manifest, from)
    }

    fn destroy(&self, point: &PointId) -> Result<()> {
        remove::destroy(&self.catalogue()?, point)
    }

    fn sweep(&self) -> Result<()> {
        remove::sweep(&self.catalogue()?)
    }

    fn restore_live(
        &self,
        dataset: &DatasetName,
        point: &PointId,
        kept: &Stored,
        keep: Manifest,
    ) -> Result<Restored> {
        restore::restore_live(&self.catalogue()?, dataset, point, kept, keep)
    }

    fn restore_to(&self, dataset: &DatasetName, point: &PointId, target: &Path) -> Result<()> {
        restore::restore_to(&self.catalogue()?, dataset, point, target)
    }

    fn snapshot_path(&self, dataset: &DatasetName, point: &PointId) -> Result<PathBuf> {
        let catalogue = self.catalogue()?;
        let found = catalogue.find(point)?;
        let path = catalogue.snapshot_path(&found, dataset)?;
        let (part, _) = catalogue.place(dataset)?;
        let relative = part.relative(&path);
        Ok(visible(&part.top, relative)
            .unwrap_or_else(|| part.top.path_for_children().join(relative)))
    }

    fn space(&self, dataset: &DatasetName) -> Result<Space> {
        let place = self.place_of(dataset)?;
        let found = rustix::fs::statvfs(place.top.path())
            .map_err(|e| FsError::Missing(format!("space of {}: {e}", place.live.display())))?;
        Ok(Space {
            total: found.f_blocks.saturating_mul(found.f_frsize),
            free: found.f_bavail.saturating_mul(found.f_frsize),
        })
    }
}

/// The same path in a mount of the whole filesystem that everybody sees, where there is one.
fn visible(top: &Top, relative: &Path) -> Option<PathBuf> {
    let mounts = mountinfo::read().ok()?;
    let ours = subvolume::info(&top.path().join(relative)).ok()?;
    mounts
        .iter()
        .filter(|mount| mount.kind == "btrfs" && mount.root == Path::new("/"))
        .map(|mount| mount.point.join(relative))
        .find(|path| subvolume::info(path).is_ok_and(|found| found.uuid == ours.uuid))
}
