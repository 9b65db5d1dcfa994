//! The receiving side around the stream: opens transfers into staging, tells what lies there, and publishes whole points.
//!
//! Promise: a point becomes visible in one rename per filesystem, after all its datasets are complete, checked and on disk;
//! the catalogue shows it only after the last of them. Publishing can be repeated after a crash anywhere. Only this role's
//! staging is touched; the base of a transfer stays in use, and so undestroyed, while the transfer is open.
//!
//! It deliberately does not know streams (`receive` does) nor who sends them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::Context;
use jiff::Timestamp;

use super::catalogue::{Catalogue, point_names, read_local, read_manifest, read_part};
use super::freeze::freeze;
use super::layout::{LOCAL, MANIFEST, Part};
use super::receive::{self, Applying, Coming, Source, WORK};
use super::told::{self, Doing};
use super::uses::{Use, Used};
use super::{aside, disk, room, send, subvolume};
use crate::error::{Code, Failure};
use crate::fs::{FsError, Incoming, Limits, Opened, Receipt, Result, Standing, local_facts};
use crate::logic::damage::Damaged;
use crate::logic::manifest::{LocalDataset, Manifest, Stored};
use crate::logic::name::{DatasetName, NodeName};
use crate::logic::shortage::least_needed;
use crate::logic::transfer::Partial;

/// Opens a transfer.
pub fn receive(
    catalogue: &Catalogue<'_>,
    receipt: &Receipt,
    applying: &Applying,
    limits: Limits,
) -> Result<Opened> {
    let dataset = &receipt.dataset;
    let (part, _) = catalogue.place(dataset)?;
    check_receipt(catalogue, receipt)?;
    let name = receipt.manifest.name().to_string();
    if let Published::Whole(local) = published(catalogue, part, &receipt.manifest, &name)? {
        let local = local.get(dataset).cloned();
        return Ok(Opened::Complete(
            local.context("no local facts of a published dataset")?,
        ));
    }
    let doing = Doing {
        what: format!("store {dataset} of {}", receipt.manifest.point),
        tops: vec![part.top.clone()],
        reserve: limits.reserve,
    };
    let place = receive::Place {
        point_dir: part.staging().join(&name),
        dataset: dataset.clone(),
    };
    expect_room(&doing, &place, part, receipt.data_bytes)?;
    let point_dir = prepare_dir(catalogue, part, &receipt.manifest, &name)?;
    if let Some(local) = gathered(&point_dir, dataset)? {
        return Ok(Opened::Complete(local));
    }
    let busy = || {
        FsError::Busy(format!(
            "the transfer of {dataset} of {}",
            receipt.manifest.point
        ))
    };
    let role = || catalogue.role.clone();
    let uses = &part.top.uses;
    let mut held = vec![
        uses.share(Used::Staging(role(), name.clone()))
            .ok_or_else(busy)?,
        uses.alone(Used::Transfer(role(), name, dataset.clone()))
            .ok_or_else(busy)?,
    ];
    let (base, clones) = sources(catalogue, receipt, &mut held)?;
    let coming = Coming {
        identity: &receipt.identity,
        base: base.as_ref(),
        clones: &clones,
        flags: &receipt.flags,
        data_bytes: receipt.data_bytes,
    };
    let limits = Limits {
        accept: receipt.accept,
        ..limits
    };
    let opened = receive::open(applying, &place, coming, limits)?;
    Ok(match opened {
        Opened::Complete(local) => Opened::Complete(local),
        Opened::Transfer(incoming) => Opened::Transfer(Box::new(Held {
            incoming,
            doing,
            _held: held,
        })),
    })
}

/// A dataset of a point whose publishing was interrupted after it had gathered the local facts.
fn gathered(point_dir: &Path, dataset: &DatasetName) -> Result<Option<LocalDataset>> {
    let local = read_local(point_dir)?.and_then(|mut local| local.datasets.remove(dataset));
    let Some(local) = local else {
        return Ok(None);
    };
    if receive::is_intact(&point_dir.join(dataset), &local) {
        return Ok(Some(local));
    }
    disk::remove(&point_dir.join(LOCAL)).context("forget what was gathered of the point")?;
    Ok(None)
}

/// Before the first write. What is complete already takes no more room.
fn expect_room(doing: &Doing, place: &receive::Place, part: &Part, data_bytes: u64) -> Result<()> {
    if receive::complete(place).is_some() {
        return Ok(());
    }
    doing.expect_writable()?;
    // How much of a part is applied is known only when it is opened, which writes.
    let needed = match receive::partial(place)? {
        Some(_) => 0,
        None => least_needed(data_bytes, room::compresses(part.top.dir())),
    };
    doing.expect_room(needed)
}

/// What lies in staging, and what was published on one filesystem while another still waits.
pub fn partials(catalogue: &Catalogue<'_>) -> Result<Vec<Partial>> {
    let mut partials = Vec::new();
    for part in &catalogue.parts {
        for name in point_names(&part.staging())? {
            let dir = part.staging().join(&name);
            let Some(manifest) = read_manifest(&dir)? else {
                continue;
            };
            for dataset in manifest
                .datasets
                .keys()
                .filter(|dataset| part.holds(dataset))
            {
                let place = receive::Place {
                    point_dir: dir.clone(),
                    dataset: dataset.clone(),
                };
                let offset = match dir.join(LOCAL).exists() {
                    true => Some(None),
                    false => receive::partial(&place)?,
                };
                partials.extend(offset.map(|offset| partial(&manifest, dataset, offset)));
            }
        }
        if catalogue.parts.len() < 2 {
            continue;
        }
        for name in point_names(&part.points())? {
            let Some(manifest) = read_manifest(&part.points().join(&name))? else {
                continue;
            };
            if catalogue.read(&name)?.is_none() {
                let here = manifest
                    .datasets
                    .keys()
                    .filter(|dataset| part.holds(dataset));
                partials.extend(here.map(|dataset| partial(&manifest, dataset, None)));
            }
        }
    }
    Ok(partials)
}

fn partial(manifest: &Manifest, dataset: &DatasetName, offset: Option<u64>) -> Partial {
    Partial {
        point: manifest.point.clone(),
        dataset: dataset.clone(),
        offset,
    }
}

/// Makes a received point visible.
pub fn publish(catalogue: &Catalogue<'_>, manifest: &Manifest, from: &NodeName) -> Result<Stored> {
    let name = manifest.name().to_string();
    let mut alone = Vec::new();
    let mut waiting = Vec::new();
    for part in &catalogue.parts {
        if !manifest.datasets.keys().any(|dataset| part.holds(dataset)) {
            continue;
        }
        let used = Used::Staging(catalogue.role.clone(), name.clone());
        let held = part.top.uses.alone(used);
        alone.push(
            held.ok_or_else(|| FsError::Busy(format!("staging of point {}", manifest.point)))?,
        );
        let damaged = match published(catalogue, part, manifest, &name)? {
            Published::Whole(_) => continue,
            Published::Damaged(damaged) => Some(damaged),
            Published::Nothing => None,
        };
        let dir = part.staging().join(&name);
        let local = complete(part, &dir, manifest)?;
        waiting.push((part, dir, local, damaged));
    }
    if alone.is_empty() {
        let what = format!(
            "no dataset of point {} is configured in {}",
            manifest.point, catalogue.role
        );
        return Err(Failure::new(Code::Refused, what).into());
    }
    let stored = Timestamp::now();
    for (part, dir, local, _) in &waiting {
        let facts = local_facts(stored, Some(from.clone()), local.clone());
        disk::write_json(&dir.join(LOCAL), &facts)?;
        freeze("publish-told");
        disk::remove(&dir.join(WORK)).context("remove the workshop of a complete point")?;
        part.top.sync()?;
    }
    freeze("publish-gathered");
    for (part, dir, _, damaged) in &waiting {
        let point = part.points().join(&name);
        // Only now that the whole one is on disk does it give way.
        if let Some(damaged) = damaged {
            aside::move_part(part, &name, damaged)?;
            freeze("publish-made-way");
        }
        part.top
            .move_to(part.relative(dir), part.relative(&point))
            .with_context(|| format!("show the point as {}", point.display()))?;
        freeze("publish-shown");
        part.top.sync()?;
    }
    let found = catalogue.read(&name)?;
    Ok(found
        .with_context(|| format!("point {name} is not complete although it was published"))?
        .stored)
}

/// A transfer and what it keeps in use.
struct Held {
    incoming: Box<dyn Incoming>,
    doing: Doing,
    _held: Vec<Use>,
}

impl Held {
    fn told<T>(&self, outcome: Result<T>) -> Result<T> {
        outcome.map_err(|error| told::plain(self.doing.explain(error)))
    }
}

impl Incoming for Held {
    fn standing(&self) -> Standing {
        self.incoming.standing()
    }

    fn progress(&self) -> Standing {
        self.incoming.progress()
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        let outcome = self.incoming.write(bytes);
        self.told(outcome)
    }

    fn take(&mut self, bytes: Vec<u8>) -> Result<()> {
        let outcome = self.incoming.take(bytes);
        self.told(outcome)
    }

    fn settle(&mut self) -> Result<()> {
        let outcome = self.incoming.settle();
        self.told(outcome)
    }

    fn checkpoint(&mut self) -> Result<()> {
        let outcome = self.incoming.checkpoint();
        self.told(outcome)
    }

    fn restart(&mut self) -> Result<()> {
        let outcome = self.incoming.restart();
        self.told(outcome)
    }

    fn finish(self: Box<Self>, bytes: u64, hash: &str) -> Result<LocalDataset> {
        let Held {
            incoming, doing, ..
        } = *self;
        let outcome = incoming.finish(bytes, hash);
        outcome.map_err(|error| told::plain(doing.explain(error)))
    }
}

fn check_receipt(catalogue: &Catalogue<'_>, receipt: &Receipt) -> Result<()> {
    let manifest = &receipt.manifest;
    let refuse = |what: String| Err(Failure::new(Code::Refused, what).into());
    if manifest.role_name != *catalogue.role {
        return refuse(format!(
            "point {} is of role {}, not of {}",
            manifest.point, manifest.role_name, catalogue.role
        ));
    }
    let Some(facts) = manifest.datasets.get(&receipt.dataset) else {
        return refuse(format!(
            "point {} has no dataset {}",
            manifest.point, receipt.dataset
        ));
    };
    if facts.identity != receipt.identity.snapshot {
        return refuse(format!(
            "the stream of {} is of snapshot {}, its manifest says {}",
            receipt.dataset, receipt.identity.snapshot, facts.identity
        ));
    }
    if receipt.base.is_some() != receipt.identity.base.is_some() {
        return refuse(format!(
            "the stream of {} names a base, or its offer does, but not both",
            receipt.dataset
        ));
    }
    Ok(())
}

/// The point's directory in staging, with its manifest. What an equally named but different point left is removed.
fn prepare_dir(
    catalogue: &Catalogue<'_>,
    part: &Part,
    manifest: &Manifest,
    name: &str,
) -> Result<PathBuf> {
    part.make_dirs()?;
    let dir = part.staging().join(name);
    // Another dataset of the point may be starting at this moment: both write the same manifest.
    let matches = match read_manifest(&dir) {
        Ok(Some(found)) => found == *manifest,
        Ok(None) => !dir.join(WORK).exists(),
        Err(_) => false,
    };
    if matches && dir.join(MANIFEST).exists() {
        return Ok(dir);
    }
    if !matches {
        let used = Used::Staging(catalogue.role.clone(), name.to_owned());
        let _alone = part
            .top
            .uses
            .alone(used)
            .ok_or_else(|| FsError::Busy(format!("staging of point {}", manifest.point)))?;
        disk::remove(&dir).context("remove what another point of that name left")?;
    }
    disk::make_dir(&dir)?;
    disk::write_json(&dir.join(MANIFEST), manifest)?;
    Ok(dir)
}

/// The base and the other snapshots a stream may clone from. The base is added to what is `held`.
fn sources(
    catalogue: &Catalogue<'_>,
    receipt: &Receipt,
    held: &mut Vec<Use>,
) -> Result<(Option<Source>, Vec<Source>)> {
    let dataset = &receipt.dataset;
    let (Some(base), Some(identity)) = (&receipt.base, receipt.identity.base) else {
        return Ok((None, Vec::new()));
    };
    let bad = |why: String| FsError::BadBase {
        dataset: dataset.clone(),
        why,
    };
    let mut chosen = None;
    let mut clones = Vec::new();
    for found in catalogue.list()? {
        let manifest = &found.stored.manifest;
        let Some(facts) = manifest.datasets.get(dataset) else {
            continue;
        };
        let source = Source {
            identity: facts.identity,
            nested: facts.nested.clone(),
            path: catalogue.snapshot_path(&found, dataset)?,
            ctransid: found
                .stored
                .local
                .datasets
                .get(dataset)
                .map(|local| local.ctransid),
        };
        if manifest.point == *base {
            held.push(send::hold(catalogue, &found, dataset)?);
            chosen = Some(source);
        } else {
            clones.push(source);
        }
    }
    let chosen = chosen.ok_or_else(|| bad(format!("point {base} is not here")))?;
    if chosen.identity != identity {
        let why = format!(
            "point {base} holds snapshot {}, the stream needs {identity}",
            chosen.identity
        );
        return Err(bad(why).into());
    }
    Ok((Some(chosen), clones))
}

/// What lies at a point's place on one filesystem.
enum Published {
    Nothing,
    Whole(BTreeMap<DatasetName, LocalDataset>),
    /// Not used any more: a whole copy may take its place.
    Damaged(Damaged),
}

/// Whether this part of the point is visible already.
fn published(
    catalogue: &Catalogue<'_>,
    part: &Part,
    manifest: &Manifest,
    name: &str,
) -> Result<Published> {
    let (found, local) = match read_part(part, name) {
        Ok(None) => return Ok(Published::Nothing),
        Ok(Some(found)) => found,
        Err(error) => {
            let damaged = catalogue.damaged(name, &error);
            return damaged.map(Published::Damaged).ok_or(error);
        }
    };
    if found != *manifest {
        // Whole by itself, but at odds with its parts on other filesystems.
        if let Err(error) = catalogue.read(name) {
            return catalogue
                .damaged(name, &error)
                .map(Published::Damaged)
                .ok_or(error);
        }
        let what = format!("another point is already stored as {name}");
        return Err(Failure::new(Code::Diverged, what).into());
    }
    Ok(Published::Whole(local.datasets))
}

/// Local facts of all datasets of this part; an error where one is not complete.
fn complete(
    part: &Part,
    dir: &std::path::Path,
    manifest: &Manifest,
) -> Result<BTreeMap<DatasetName, LocalDataset>> {
    let incomplete = |what: String| {
        Failure::new(
            Code::Refused,
            format!("point {} cannot be published: {what}", manifest.point),
        )
    };
    let staged =
        read_manifest(dir)?.ok_or_else(|| incomplete("nothing of it is in staging".to_owned()))?;
    if staged != *manifest {
        return Err(incomplete("staging holds another point of that name".to_owned()).into());
    }
    // An earlier attempt came as far as this file.
    let written = read_local(dir)?.map(|local| local.datasets);
    let mut complete = BTreeMap::new();
    for (dataset, facts) in manifest
        .datasets
        .iter()
        .filter(|(dataset, _)| part.holds(dataset))
    {
        let gathered = written.as_ref().and_then(|datasets| datasets.get(dataset));
        let place = receive::Place {
            point_dir: dir.to_owned(),
            dataset: dataset.clone(),
        };
        let local = gathered.cloned().or_else(|| receive::complete(&place));
        let local =
            local.ok_or_else(|| incomplete(format!("dataset {dataset} is not complete")))?;
        let path = dir.join(dataset);
        let info = subvolume::info(&path).with_context(|| format!("look at {}", path.display()))?;
        if !info.read_only
            || info.uuid != local.uuid
            || info.received_uuid != Some(facts.identity)
            || info.ctransid != local.ctransid
        {
            return Err(incomplete(format!("dataset {dataset} is not what was received")).into());
        }
        complete.insert(dataset.clone(), local);
    }
    Ok(complete)
}
