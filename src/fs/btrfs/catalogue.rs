//! The catalogue of a role's points, rebuilt from disk each time it is asked for: directory names, manifests, local facts,
//! and one ioctl per snapshot.
//!
//! Promise: a point is in it only when every dataset of its manifest that is configured here is there, read-only, the very
//! subvolume that the local facts name, and unchanged since they were written. What is damaged is logged once and told by
//! `inspect`, never deleted. No child processes: a thousand points take some tens of milliseconds.
//!
//! It deliberately does not know how points come and go.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, bail};

use super::fill::{Doubts, Spools};
use super::layout::{CONDEMNED, DESTROYED, LOCAL, LOCAL_BYTES_MAX, MANIFEST, Part};
use super::place::Place;
use super::{disk, subvolume};
use crate::error::{Code, Failure};
use crate::fs::{FsError, Inspection, Result};
use crate::logic::damage::{self, Damaged, Harm, SnapshotFacts};
use crate::logic::lineage::Entry;
use crate::logic::manifest::{
    LocalDataset, LocalFacts, MANIFEST_BYTES_MAX, MANIFEST_VERSION, Manifest, Stored,
};
use crate::logic::name::{DatasetName, RoleName};
use crate::logic::point::{PointId, PointName};

/// Points that one thread reads in a moment.
const FEW: usize = 64;

/// Threads that read more than that.
const READERS: usize = 4;

/// A role's points on all its filesystems.
pub struct Catalogue<'a> {
    pub role: &'a RoleName,
    pub parts: Vec<Part>,
    /// Points already complained about.
    pub reported: &'a Mutex<BTreeSet<String>>,
    /// Of what the kernel alone makes streams.
    pub doubts: &'a Doubts,
    /// What is kept of passes that measured.
    pub spools: &'a Spools,
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
    /// Every point: the complete ones, oldest first by rank, and what is wrong with the others.
    pub fn inspect(&self) -> Result<Inspection> {
        let mut inspection = Inspection::default();
        let names: Vec<String> = self.names()?.into_iter().collect();
        for (name, read) in names.iter().zip(self.read_all(&names)) {
            match read {
                Ok(Some(found)) => {
                    self.forget(name);
                    inspection.points.push(found.stored);
                }
                // Published, destroyed or set aside while it was looked at.
                _ if self.is_on_its_way(name) => {}
                Ok(None) => inspection
                    .damaged
                    .extend(self.damaged(name, &Harm::PartMissing.into())),
                Err(error) => {
                    self.report(name, &error);
                    inspection.damaged.extend(self.damaged(name, &error));
                }
            }
        }
        let rank = |stored: &Stored| stored.manifest.point.rank();
        inspection.points.sort_by_key(rank);
        let rank = |damaged: &Damaged| (damaged.name.epoch, damaged.name.sequence);
        inspection.damaged.sort_by_key(rank);
        Ok(inspection)
    }

    /// What [`Catalogue::read`] says of each, in their order. Many are read by several threads, which wait for the disk together.
    fn read_all(&self, names: &[String]) -> Vec<Result<Option<Found>>> {
        let read = |names: &[String]| names.iter().map(|name| self.read(name)).collect();
        if names.len() < FEW {
            return read(names);
        }
        std::thread::scope(|scope| {
            let shares = names.chunks(names.len().div_ceil(READERS));
            let readers: Vec<_> = shares
                .map(|share| (share, scope.spawn(move || read(share))))
                .collect();
            let read = readers.into_iter().flat_map(|(share, reader)| {
                // One that panicked is asked for again where its panic is everybody's.
                let shares: Vec<_> = reader.join().unwrap_or_else(|_| read(share));
                shares
            });
            read.collect()
        })
    }

    /// Whether a point that is not whole is coming or going.
    fn is_on_its_way(&self, name: &str) -> bool {
        let marked = |part: &Part| part.points().join(name).join(DESTROYED).exists();
        let staged = |part: &Part| part.staging().join(name).exists();
        let many = self.parts.len() > 1;
        self.parts
            .iter()
            .all(|part| !part.points().join(name).exists())
            || many && self.parts.iter().any(|part| marked(part) || staged(part))
            || many && super::forks::holds_part(self, name)
    }

    /// What is told of a point that cannot be used because of `error`.
    pub fn damaged(&self, name: &str, error: &anyhow::Error) -> Option<Damaged> {
        // A manifest that is another point's, or differs from its twin, says nothing of this one.
        let believed = !matches!(
            error.downcast_ref(),
            Some(Harm::OtherManifest(_) | Harm::ManifestsDiffer)
        );
        let mut dirs = self.parts.iter().map(|part| part.points().join(name));
        let manifest = dirs.find_map(|dir| read_manifest(&dir).ok().flatten());
        let manifest = manifest.filter(|manifest| believed && manifest.name().to_string() == name);
        let why = match error.downcast_ref::<Harm>() {
            Some(harm) => harm.to_string(),
            None => format!("cannot be read: {error:#}"),
        };
        Some(Damaged {
            name: PointName::parse(name)?,
            entry: manifest.as_ref().map(Entry::of),
            why: super::top::plain(&why),
        })
    }

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

    /// The point `id`; `FsError::Missing` where it is not (completely) here, a refusal that says why where it is damaged.
    pub fn find(&self, id: &PointId) -> Result<Found> {
        if let Some(found) = self.find_if_any(id)? {
            return Ok(found);
        }
        for name in self.names()? {
            let ranked =
                PointName::parse(&name).is_some_and(|n| (n.epoch, n.sequence) == id.rank());
            let Some(Err(error)) = ranked.then(|| self.read(&name)) else {
                continue;
            };
            let damaged = self.damaged(&name, &error);
            if let Some(damaged) =
                damaged.filter(|d| d.entry.as_ref().is_none_or(|e| e.point == *id))
            {
                let role = self.role;
                let what = format!("point {id} of {role} {}; it is not used", damaged.why);
                return Err(Failure::new(Code::Refused, what)
                    .hint(format!(
                        "standin rescan {role} fetches it again from a peer that holds it"
                    ))
                    .into());
            }
        }
        Err(FsError::Missing(format!("point {id} of {}", self.role)).into())
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
            parts.extend(PartOfPoint::read(part, name)?);
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
            let other = format!("{} of {}", manifest.name(), manifest.role_name);
            return Err(Harm::OtherManifest(other).into());
        }
        if others.iter().any(|p| p.manifest != *manifest) {
            return Err(Harm::ManifestsDiffer.into());
        }
        Ok(())
    }

    fn read_or_report(&self, name: &str) -> Option<Found> {
        match self.read(name) {
            Ok(found) => found,
            Err(error) => {
                if !self.is_on_its_way(name) {
                    self.report(name, &error);
                }
                None
            }
        }
    }

    /// Once a point, until it is whole again.
    fn report(&self, name: &str, error: &anyhow::Error) {
        let mut reported = self.reported.lock().unwrap_or_else(PoisonError::into_inner);
        if reported.insert(name.to_owned()) {
            let why = super::top::plain(&format!("{error:#}"));
            tracing::warn!(role = %self.role, point = name, "this point is not used any more: it {why}");
        }
    }

    fn forget(&self, name: &str) {
        let mut reported = self.reported.lock().unwrap_or_else(PoisonError::into_inner);
        reported.remove(name);
    }
}

/// One filesystem's part of the point `name`, by itself: its manifest and local facts; none where nothing is. An error where
/// it is damaged.
pub fn read_part(part: &Part, name: &str) -> Result<Option<(Manifest, LocalFacts)>> {
    read_part_at(part, &part.points().join(name))
}

/// The same for a point that lies elsewhere.
pub fn read_part_at(part: &Part, dir: &Path) -> Result<Option<(Manifest, LocalFacts)>> {
    let Some(read) = PartOfPoint::read_at(part, dir.to_owned())? else {
        return Ok(None);
    };
    let here = |dataset: &&DatasetName| part.holds(dataset);
    for dataset in read.manifest.datasets.keys().filter(here) {
        read.check_snapshot(dataset)?;
    }
    Ok(Some((read.manifest, read.local)))
}

impl<'a> PartOfPoint<'a> {
    fn read(part: &'a Part, name: &str) -> Result<Option<PartOfPoint<'a>>> {
        PartOfPoint::read_at(part, part.points().join(name))
    }

    fn read_at(part: &'a Part, dir: PathBuf) -> Result<Option<PartOfPoint<'a>>> {
        if !dir.exists() {
            return Ok(None);
        }
        if let Some(why) = disk::read_json(&dir.join(CONDEMNED), LOCAL_BYTES_MAX)? {
            return Err(Harm::Condemned(why).into());
        }
        let manifest = read_manifest(&dir)?.ok_or(Harm::NoManifest)?;
        let local = read_local(&dir)?.ok_or(Harm::NoFacts)?;
        Ok(Some(PartOfPoint {
            part,
            dir,
            manifest,
            local,
        }))
    }

    fn check_snapshot(&self, dataset: &DatasetName) -> Result<LocalDataset> {
        let facts = &self.local.datasets;
        if let Some(unnamed) = facts
            .keys()
            .find(|name| !self.manifest.datasets.contains_key(*name))
        {
            return Err(Harm::Unnamed(unnamed.clone()).into());
        }
        let local = facts
            .get(dataset)
            .ok_or_else(|| Harm::Unrecorded(dataset.clone()))?;
        let path = self.dir.join(dataset);
        // What a link shows may be changed without this directory.
        if !path.symlink_metadata().is_ok_and(|found| found.is_dir()) {
            return Err(Harm::Gone(dataset.clone()).into());
        }
        let info = match subvolume::info(&path) {
            Err(e) if e.kind() == io::ErrorKind::InvalidInput => {
                return Err(Harm::Gone(dataset.clone()).into());
            }
            info => info.with_context(|| format!("look at the snapshot of {dataset}"))?,
        };
        let found = SnapshotFacts {
            uuid: info.uuid,
            identity: info.received_uuid.unwrap_or(info.uuid),
            read_only: info.read_only,
            ctransid: info.ctransid,
        };
        let named = self.manifest.datasets.get(dataset);
        damage::judge(dataset, local, named.map(|facts| facts.identity), found)?;
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
