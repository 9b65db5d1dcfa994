//! What lies half-received, and how a wholly received point becomes visible.
//!
//! Promise: visible by one rename in each store, after every dataset's transfer is complete and its snapshot there. Repeatable
//! after a crash anywhere. It deliberately does not know streams.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::Context;
use jiff::Timestamp;

use super::aside;
use super::core::{Core, Part, Scene};
use super::receive::Transfer;
use super::store;
use crate::error::{Code, Failure};
use crate::fs::btrfs::freeze::freeze;
use crate::fs::{FsError, Receipt, Result, local_facts};
use crate::logic::manifest::{LocalDataset, Manifest, Stored};
use crate::logic::name::NodeName;
use crate::logic::point::PointName;
use crate::logic::transfer::Partial;

pub fn check_receipt(core: &Core, receipt: &Receipt) -> Result<()> {
    let manifest = &receipt.manifest;
    let refuse = |what: String| Err(Failure::new(Code::Refused, what).into());
    if manifest.role_name != core.role {
        let (point, role) = (&manifest.point, &manifest.role_name);
        return refuse(format!(
            "point {point} is of role {role}, not of {}",
            core.role
        ));
    }
    let Some(facts) = manifest.datasets.get(&receipt.dataset) else {
        let (point, dataset) = (&manifest.point, &receipt.dataset);
        return refuse(format!("point {point} has no dataset {dataset}"));
    };
    if facts.identity != receipt.identity.snapshot {
        let (dataset, snapshot) = (&receipt.dataset, &receipt.identity.snapshot);
        let said = facts.identity;
        return refuse(format!(
            "the stream of {dataset} is of snapshot {snapshot}, its manifest says {said}"
        ));
    }
    if super::family::guid(facts.identity).is_none() {
        let dataset = &receipt.dataset;
        return refuse(format!(
            "the snapshot of {dataset} is of another kind of filesystem; this node has ZFS"
        ));
    }
    if receipt.base.is_some() != receipt.identity.base.is_some() {
        let dataset = &receipt.dataset;
        return refuse(format!(
            "the stream of {dataset} names a base, or its offer does, but not both"
        ));
    }
    Ok(())
}

/// The dataset, where it needs no transfer any more: it is in a point, its transfer is complete, or its very snapshot is here
/// (of a fork, or received before a crash).
pub fn complete(scene: &Scene<'_>, receipt: &Receipt) -> Result<Option<LocalDataset>> {
    let (dataset, manifest) = (&receipt.dataset, &receipt.manifest);
    if let Ok(Some(found)) = scene.read(&manifest.name()) {
        if found.manifest != *manifest {
            let what = format!("another point is already stored as {}", manifest.name());
            return Err(Failure::new(Code::Diverged, what).into());
        }
        if let Some(local) = found.local.datasets.get(dataset) {
            return Ok(Some(local.clone()));
        }
    }
    let family = scene.family(dataset)?;
    let Some(found) = family.by_identity(receipt.identity.snapshot) else {
        return Ok(None);
    };
    let file = Transfer::file(scene, manifest, dataset)?;
    let known: Option<Transfer> = store::read_file(&file)?;
    if let Some(done) = known.as_ref().and_then(|known| known.done.clone()) {
        return Ok(Some(done));
    }
    let local = LocalDataset {
        uuid: receipt.identity.snapshot,
        ctransid: found.txg,
        ..LocalDataset::default()
    };
    let transfer = Transfer {
        manifest: manifest.clone(),
        dataset: dataset.clone(),
        identity: receipt.identity.clone(),
        into: known.and_then(|known| known.into),
        done: Some(local.clone()),
    };
    store::write_file(&file, &transfer)?;
    Ok(Some(local))
}

/// Every transfer there is a file of.
pub fn transfers(part: &Part, core: &Core) -> Result<Vec<(PathBuf, Transfer)>> {
    let staging = part.store.hidden(".staging", &core.role);
    let mut found = Vec::new();
    for point in store::names(&staging)? {
        if PointName::parse(&point).is_none() {
            continue;
        }
        let dir = staging.join(point);
        for name in store::names(&dir)?
            .iter()
            .filter(|name| name.ends_with(".json"))
        {
            let file = dir.join(name);
            found.extend(store::read_file(&file)?.map(|transfer| (file, transfer)));
        }
    }
    Ok(found)
}

/// See `Filesystem::partials`.
pub fn partials(core: &Core) -> Result<Vec<Partial>> {
    let scene = core.look()?;
    let mut partials = Vec::new();
    for part in &scene.parts {
        for (_, transfer) in transfers(part, core)? {
            let Ok(family) = scene.family(&transfer.dataset) else {
                continue;
            };
            let offset = match (&transfer.done, transfer.token(family)) {
                (Some(_), _) => None,
                // How much it is is in the token; what is asked here is whether there is any.
                (None, Some(_)) => Some(0),
                (None, None) => continue,
            };
            partials.push(Partial {
                point: transfer.manifest.point.clone(),
                dataset: transfer.dataset.clone(),
                offset,
            });
        }
    }
    Ok(partials)
}

/// See `Filesystem::publish`.
pub fn publish(core: &Core, manifest: &Manifest, from: &NodeName) -> Result<Stored> {
    let _turn = core.turn();
    let scene = core.look()?;
    let name = manifest.name();
    match scene.read(&name) {
        Ok(Some(found)) if found.manifest == *manifest => return Ok(found),
        Ok(None) => {}
        Ok(Some(_)) => {
            let what = format!("another point is already stored as {name}");
            return Err(Failure::new(Code::Diverged, what).into());
        }
        // It gives way, and nothing of it is lost.
        Err(error) => aside::move_aside(&scene, &scene.damaged(name, &error))?,
    }
    let stored = Timestamp::now();
    let mut whole = Vec::new();
    for part in &scene.parts {
        let mut local = BTreeMap::new();
        for dataset in manifest
            .datasets
            .keys()
            .filter(|name| part.datasets.contains(name))
        {
            let file = Transfer::file(&scene, manifest, dataset)?;
            let transfer: Option<Transfer> = store::read_file(&file)?;
            let same = transfer.filter(|transfer| transfer.manifest == *manifest);
            let done = same.and_then(|transfer| transfer.done);
            let done = done.filter(|done| scene.snapshot(dataset, done.uuid).is_ok());
            let missing = || FsError::Missing(format!("dataset {dataset} of {}", manifest.point));
            local.insert(dataset.clone(), done.ok_or_else(missing)?);
        }
        if !local.is_empty() {
            whole.push((part, local_facts(stored, Some(from.clone()), local)));
        }
    }
    if whole.is_empty() {
        let what = format!(
            "no dataset of point {} is configured in {}",
            manifest.point, core.role
        );
        return Err(Failure::new(Code::Refused, what).into());
    }
    freeze("publish-gathered");
    for (part, local) in whole {
        // Of a copy that was set aside.
        store::remove_file(&aside::mark(part, core, &name))?;
        let manifest = manifest.clone();
        store::write_file(&part.point_file(core, &name), &Stored { manifest, local })?;
        freeze("publish-shown");
    }
    for part in &scene.parts {
        let dir = part
            .store
            .hidden(".staging", &core.role)
            .join(name.to_string());
        remove_dir(&dir)?;
    }
    let found = scene.read(&name)?;
    found.with_context(|| format!("point {name} is not complete although it was published"))
}

/// Removes a directory of plain files.
pub fn remove_dir(dir: &std::path::Path) -> Result<()> {
    for name in store::names(dir)? {
        store::remove_file(&dir.join(name))?;
    }
    match std::fs::remove_dir(dir) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(()),
        removed => removed.with_context(|| format!("remove {}", dir.display())),
    }
}
