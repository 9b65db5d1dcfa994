//! The catalogue of a role's points, rebuilt from disk each time it is asked for: directory names, manifests, local facts,
//! and one ioctl per snapshot.
//!
//! Promise: a point is in it only when every dataset of its manifest that is configured here is there, read-only and the
//! very subvolume that the local facts name. What cannot be read is logged once and left out, never deleted. No child
//! processes: a thousand points take some tens of milliseconds.
//!
//! It deliberately does not know how points come and go.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, bail};

use super::layout::{DESTROYED, LOCAL, LOCAL_BYTES_MAX, MANIFEST, Part};
use super::place::Place;
use super::{disk, subvolume, told};
use crate::error::{Code, Failure};
use crate::fs::{FsError, Result};
use crate::logic::manifest::{
    LocalDataset, LocalFacts, MANIFEST_BYTES_MAX, MANIFEST_VERSION, Manifest, Stored,
};
use crate::logic::name::{DatasetName, RoleName};
use crate::logic::point::{PointId, PointName};

/// A role's points on all its filesystems.
pub struct Catalogue<'a> {
    pub role: &'a RoleName,
    pub parts: Vec<Part>,
    /// Points already complained about.
    pub reported: &'a Mutex<BTreeSet<String>>,
}

/// A complete point and its directory name.
#[derive(Debug, Clone)]
pub struct Found {
    pub name: String,
    pub stored: Stored,
}

/// One filesystem's files of a point.
struct PartOfPoint<'a> {
    part: &'a Part,
    dir: PathBuf,
    manifest: Manifest,
    local: LocalFacts,
}

impl Catalogue<'_> {
    /// Every complete point, oldest first by rank.
    pub fn list(&self) -> Result<Vec<Found>> {
        let mut points: Vec<Found> = self
            .names()?
            .into_iter()
            .filter_map(|name| self.read_or_report(&name))
            .collect();
        points.sort_by_key(|found| found.stored.manifest.point.rank());
        Ok(points)
    }

    /// The point `id`; `FsError::Missing` where it is not (completely) here.
    pub fn find(&self, id: &PointId) -> Result<Found> {
        self.find_if_any(id)?
            .ok_or_else(|| FsError::Missing(format!("point {id} of {}", self.role)).into())
    }

    pub fn find_if_any(&self, id: &PointId) -> Result<Option<Found>> {
        let mut candidates = self.names()?.into_iter().filter(|name| {
            PointName::parse(name).is_some_and(|name| (name.epoch, name.sequence) == id.rank())
        });
        Ok(candidates.find_map(|name| {
            self.read_or_report(&name)
                .filter(|found| found.stored.manifest.point == *id)
        }))
    }

    /// Directory names of points with the identity `id`, complete or not.
    pub fn names_of(&self, id: &PointId) -> Result<BTreeSet<String>> {
        let mut names = BTreeSet::new();
        for name in self.names()? {
            let ranked =
                PointName::parse(&name).is_some_and(|n| (n.epoch, n.sequence) == id.rank());
            let mut manifests = self
                .parts
                .iter()
                .map(|part| read_manifest(&part.points().join(&name)));
            if ranked
                && manifests.any(|read| matches!(read, Ok(Some(manifest)) if manifest.point == *id))
            {
                names.insert(name);
            }
        }
        Ok(names)
    }

    /// Directory names of points, complete or not.
    pub fn names(&self) -> Result<BTreeSet<String>> {
        let mut names = BTreeSet::new();
        for part in &self.parts {
            names.extend(point_names(&part.points())?);
        }
        Ok(names)
    }

    /// The part and place of a configured dataset.
    pub fn place(&self, dataset: &DatasetName) -> Result<(&Part, &Place)> {
        self.parts
            .iter()
            .find_map(|part| {
                let place = part.places.iter().find(|place| place.dataset == *dataset)?;
                Some((part, place))
            })
            .ok_or_else(|| not_configured(self.role, dataset).into())
    }

    /// Path of a dataset's snapshot in a point.
    pub fn snapshot_path(&self, found: &Found, dataset: &DatasetName) -> Result<PathBuf> {
        let (part, _) = self.place(dataset)?;
        if !found.stored.manifest.datasets.contains_key(dataset) {
            let point = &found.stored.manifest.point;
            return Err(FsError::Missing(format!("dataset {dataset} in point {point}")).into());
        }
        Ok(part.points().join(&found.name).join(dataset))
    }

    /// The point in the directories `name`; none where it is incomplete.
    pub fn read(&self, name: &str) -> Result<Option<Found>> {
        let mut parts = Vec::new();
        for part in &self.parts {
            let dir = part.points().join(name);
            let Some(manifest) = read_manifest(&dir)? else {
                continue;
            };
            let local = read_local(&dir)?.context("no local facts beside the manifest")?;
            parts.push(PartOfPoint {
                part,
                dir,
                manifest,
                local,
            });
        }
        let Some(first) = parts.first() else {
            return Ok(None);
        };
        let manifest = first.manifest.clone();
        self.check_manifest(name, &parts)?;
        if self.parts.len() > 1 && parts.iter().any(|p| p.dir.join(DESTROYED).exists()) {
            return Ok(None);
        }
        let mut datasets = BTreeMap::new();
        for dataset in manifest.datasets.keys() {
            let Some(part) = self.parts.iter().position(|part| part.holds(dataset)) else {
                continue;
            };
            let top = &self.parts[part].top;
            let Some(holder) = parts.iter().find(|p| p.part.top.fsid == top.fsid) else {
                return Ok(None);
            };
            let facts = holder.check_snapshot(dataset)?;
            datasets.insert(dataset.clone(), facts);
        }
        if datasets.is_empty() {
            return Ok(None);
        }
        let local = LocalFacts {
            stored: parts.iter().filter_map(|p| p.local.stored).max(),
            from: parts.iter().find_map(|p| p.local.from.clone()),
            datasets,
        };
        Ok(Some(Found {
            name: name.to_owned(),
            stored: Stored { manifest, local },
        }))
    }

    fn check_manifest(&self, name: &str, parts: &[PartOfPoint<'_>]) -> Result<()> {
        let [first, others @ ..] = parts else {
            return Ok(());
        };
        let manifest = &first.manifest;
        if manifest.version > MANIFEST_VERSION {
            bail!(
                "its manifest is of version {}, this program reads up to {MANIFEST_VERSION}",
                manifest.version
            );
        }
        if manifest.name().to_string() != name || manifest.role_name != *self.role {
            bail!(
                "its manifest is that of {} of {}",
                manifest.name(),
                manifest.role_name
            );
        }
        if others.iter().any(|p| p.manifest != *manifest) {
            bail!("its manifests differ between filesystems");
        }
        Ok(())
    }

    fn read_or_report(&self, name: &str) -> Option<Found> {
        match self.read(name) {
            Ok(found) => found,
            Err(e) => {
                let mut reported = self.reported.lock().unwrap_or_else(PoisonError::into_inner);
                if reported.insert(name.to_owned()) {
                    tracing::warn!(role = %self.role, point = name, "point left out of the catalogue: {:#}", told::plain(e));
                }
                None
            }
        }
    }
}

impl PartOfPoint<'_> {
    fn check_snapshot(&self, dataset: &DatasetName) -> Result<LocalDataset> {
        let local = self
            .local
            .datasets
            .get(dataset)
            .with_context(|| format!("no local facts of {dataset}"))?;
        let info = subvolume::info(&self.dir.join(dataset))
            .with_context(|| format!("look at the snapshot of {dataset}"))?;
        if !info.read_only {
            bail!("the snapshot of {dataset} was made writable");
        }
        if info.uuid != local.uuid {
            bail!("the snapshot of {dataset} is not the one that was stored");
        }
        let identity = info.received_uuid.unwrap_or(info.uuid);
        if self
            .manifest
            .datasets
            .get(dataset)
            .is_none_or(|facts| facts.identity != identity)
        {
            bail!(
                "the snapshot of {dataset} has another identity ({identity}) than its manifest says"
            );
        }
        Ok(local.clone())
    }
}

/// The failure for a dataset the role does not have on this node.
pub fn not_configured(role: &RoleName, dataset: &DatasetName) -> Failure {
    Failure::new(
        Code::NotFound,
        format!("role {role} has no dataset {dataset} on this node"),
    )
    .hint("name it in the role's datasets in the configuration of this node")
}

pub fn read_manifest(dir: &Path) -> Result<Option<Manifest>> {
    disk::read_json(&dir.join(MANIFEST), MANIFEST_BYTES_MAX)
}

pub fn read_local(dir: &Path) -> Result<Option<LocalFacts>> {
    disk::read_json(&dir.join(LOCAL), LOCAL_BYTES_MAX)
}

/// Names of points in a directory; anything else in it is not ours to judge. A directory not made yet has none.
pub fn point_names(dir: &Path) -> Result<Vec<String>> {
    let names = entry_names(dir)?;
    Ok(names
        .into_iter()
        .filter(|name| PointName::parse(name).is_some())
        .collect())
}

/// Names of entries that are text.
pub fn entry_names(dir: &Path) -> Result<Vec<String>> {
    let entries = match std::fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(e).with_context(|| format!("list {}", dir.display())),
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.with_context(|| format!("list {}", dir.display()))?;
        names.extend(entry.file_name().into_string().ok());
    }
    Ok(names)
}
