//! The catalogue of a role's points: files in the stores, each checked against the snapshots there are.
//!
//! Promise: a point is in it only when every dataset of its manifest that is configured here has its snapshot, with the guid
//! and the transaction that were recorded. What is damaged is logged once and told by `inspect`, never deleted.
//!
//! It deliberately does not know how points come and go.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::PoisonError;

use anyhow::bail;

use super::core::{Core, Part, Scene};
use super::{aside, guard, store};
use crate::error::{Code, Failure};
use crate::fs::{FsError, Inspection, Result};
use crate::logic::damage::{self, Damaged, Harm, SnapshotFacts};
use crate::logic::lineage::Entry;
use crate::logic::manifest::{LocalFacts, MANIFEST_VERSION, Manifest, Stored};
use crate::logic::point::{PointId, PointName};

impl Part {
    pub fn point_file(&self, core: &Core, name: &PointName) -> PathBuf {
        self.store.points(&core.role).join(format!("{name}.json"))
    }
}

impl Scene<'_> {
    /// Names of points, complete or not.
    pub fn names(&self) -> Result<BTreeSet<String>> {
        let mut names = BTreeSet::new();
        for part in &self.parts {
            let files = store::point_files(&part.store.points(&self.core.role))?;
            names.extend(files.into_iter().map(|(name, _)| name.to_string()));
        }
        Ok(names)
    }

    pub fn inspect(&self) -> Result<Inspection> {
        let mut inspection = Inspection::default();
        for name in self
            .names()?
            .iter()
            .filter_map(|name| PointName::parse(name))
        {
            match self.read(&name) {
                Ok(Some(stored)) => {
                    let mut reported = self
                        .core
                        .reported
                        .lock()
                        .unwrap_or_else(PoisonError::into_inner);
                    reported.remove(&name.to_string());
                    inspection.points.push(stored);
                }
                Ok(None) => {}
                Err(error) => {
                    self.report(&name, &error);
                    inspection.damaged.push(self.damaged(name, &error));
                }
            }
        }
        inspection.remnants = guard::remnants(self, &inspection.points)?;
        inspection
            .points
            .sort_by_key(|stored| stored.manifest.point.rank());
        inspection
            .damaged
            .sort_by_key(|damaged| (damaged.name.epoch, damaged.name.sequence));
        Ok(inspection)
    }

    pub fn list(&self) -> Result<Vec<Stored>> {
        Ok(self.inspect()?.points)
    }

    /// Names of points with the identity `id`, complete or not.
    pub fn names_of(&self, id: &PointId) -> Result<Vec<PointName>> {
        let mut found = BTreeSet::new();
        for part in &self.parts {
            for (name, file) in store::point_files(&part.store.points(&self.core.role))? {
                let ranked = (name.epoch, name.sequence) == id.rank();
                let stored: Option<Stored> = match ranked {
                    true => store::read_file(&file).ok().flatten(),
                    false => None,
                };
                if stored.is_some_and(|stored| stored.manifest.point == *id) {
                    found.insert(name.to_string());
                }
            }
        }
        Ok(found
            .iter()
            .filter_map(|name| PointName::parse(name))
            .collect())
    }

    pub fn find_if_any(&self, id: &PointId) -> Result<Option<Stored>> {
        for name in self.names_of(id)? {
            match self.read(&name) {
                Ok(Some(stored)) => return Ok(Some(stored)),
                Ok(None) => {}
                Err(error) => self.report(&name, &error),
            }
        }
        Ok(None)
    }

    /// The point; `FsError::Missing` where it is not here, a refusal that says why where it is damaged.
    pub fn find(&self, id: &PointId) -> Result<Stored> {
        if let Some(found) = self.find_if_any(id)? {
            return Ok(found);
        }
        for name in self.names_of(id)? {
            if let Err(error) = self.read(&name) {
                let role = &self.core.role;
                let why = self.damaged(name, &error).why;
                let what = format!("point {id} of {role} {why}; it is not used");
                return Err(Failure::new(Code::Refused, what)
                    .hint(format!(
                        "standin rescan {role} fetches it again from a peer that holds it"
                    ))
                    .into());
            }
        }
        Err(FsError::Missing(format!("point {id} of {}", self.core.role)).into())
    }

    /// The point of that name; none where it is not (wholly) here, an error where it is damaged.
    pub fn read(&self, name: &PointName) -> Result<Option<Stored>> {
        let mut manifest: Option<Manifest> = None;
        let mut local = LocalFacts::default();
        for part in &self.parts {
            let Some(stored) = store::read_file::<Stored>(&part.point_file(self.core, name))?
            else {
                continue;
            };
            if manifest
                .as_ref()
                .is_some_and(|known| *known != stored.manifest)
            {
                return Err(Harm::ManifestsDiffer.into());
            }
            local.stored = local.stored.max(stored.local.stored);
            local.from = local.from.take().or(stored.local.from);
            local.datasets.extend(stored.local.datasets);
            manifest = Some(stored.manifest);
        }
        let Some(manifest) = manifest else {
            return Ok(None);
        };
        if manifest.version > MANIFEST_VERSION {
            bail!(
                "its manifest is of version {}, this program reads up to {MANIFEST_VERSION}",
                manifest.version
            );
        }
        if manifest.name() != *name || manifest.role_name != self.core.role {
            let other = format!("{} of {}", manifest.name(), manifest.role_name);
            return Err(Harm::OtherManifest(other).into());
        }
        if let Some(why) = aside::condemned(self, name)? {
            return Err(Harm::Condemned(why).into());
        }
        let mut datasets = BTreeMap::new();
        for (dataset, facts) in &manifest.datasets {
            if !self.core.places.contains_key(dataset) {
                continue;
            }
            let Some(recorded) = local.datasets.remove(dataset) else {
                // Its file in another store is not there yet, or not any more.
                return Ok(None);
            };
            let Some(found) = self.family(dataset)?.by_identity(recorded.uuid) else {
                return Err(Harm::Gone(dataset.clone()).into());
            };
            let seen = SnapshotFacts {
                uuid: super::family::identity(found.guid),
                identity: super::family::identity(found.guid),
                read_only: true,
                ctransid: found.txg,
            };
            damage::judge(dataset, &recorded, Some(facts.identity), seen)?;
            datasets.insert(dataset.clone(), recorded);
        }
        let local = LocalFacts { datasets, ..local };
        Ok((!local.datasets.is_empty()).then_some(Stored { manifest, local }))
    }

    pub fn damaged(&self, name: PointName, error: &anyhow::Error) -> Damaged {
        let believed = !matches!(
            error.downcast_ref(),
            Some(Harm::OtherManifest(_) | Harm::ManifestsDiffer)
        );
        let mut files = self
            .parts
            .iter()
            .map(|part| part.point_file(self.core, &name));
        let stored: Option<Stored> = files.find_map(|file| store::read_file(&file).ok().flatten());
        let stored = stored.filter(|stored| believed && stored.manifest.name() == name);
        Damaged {
            name,
            entry: stored.map(|stored| Entry::of(&stored.manifest)),
            why: match error.downcast_ref::<Harm>() {
                Some(harm) => harm.to_string(),
                None => format!("cannot be read: {error:#}"),
            },
        }
    }

    /// Once a point, until it is whole again.
    fn report(&self, name: &PointName, error: &anyhow::Error) {
        let mut reported = self
            .core
            .reported
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if reported.insert(name.to_string()) {
            let why = self.damaged(*name, error).why;
            tracing::warn!(role = %self.core.role, point = %name, "this point is not used any more: it {why}");
        }
    }
}
