//! ZFS: snapshots, send and receive, restore, by the programs `zfs` and `zpool`.
//!
//! One value of [`Zfs`] serves one role. Nothing is remembered between calls but mounts: everything is looked up anew, so that
//! what an admin renames, creates or destroys meanwhile is seen, and a restart is like a first start. Where things lie, and what a
//! crash at each step leaves: docs/decisions, "On ZFS a point is a set of guids in a small file".
//!
//! The pieces: `command` runs the programs, `text` knows their words; `store` holds small files, `family` finds snapshots by guid,
//! `core` puts both together; `catalogue` lists, `take`, `remove`, `aside`, `forks`, `live` and `publish` change; `guard` keeps bases; `send` and `receive`
//! (with `header`) move bytes; `key` opens what is encrypted, `ground` is what `check` asks; `show` mounts; `compare` compares; `watch` waits for
//! changes.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;
use uuid::Uuid;

use self::core::Core;
pub use self::core::Place;
use crate::error::{Code, Failure};
use crate::fs::{
    AfterReboot, Bases, Bracket, Browsed, Filesystem, FsError, Ground, Held, Inspection, Kept,
    KeptAside, Limits, Live, Measured, Opened, Opening, Outgoing, Readable, Receipt, Restored,
    Result, Scan, Space, View, Watch,
};
use crate::logic::changes::Change;
use crate::logic::damage::Damaged;
use crate::logic::fork::Fork;
use crate::logic::manifest::{Manifest, Stored};
use crate::logic::name::{DatasetName, NodeName, RoleName, is_zfs_filesystem};
use crate::logic::point::{PointId, PointName};
use crate::logic::transfer::{Kind, Partial};

mod aside;
mod catalogue;
mod command;
mod compare;
mod core;
mod family;
mod forks;
mod ground;
mod guard;
mod header;
mod key;
mod live;
mod look;
mod mark;
mod publish;
mod receive;
mod remove;
mod send;
mod show;
mod store;
mod take;
mod text;
mod watch;

/// A role's datasets on ZFS.
#[derive(Debug)]
pub struct Zfs {
    core: Arc<Core>,
    paths: BTreeMap<DatasetName, PathBuf>,
}

impl Zfs {
    /// Touches nothing yet: the pools may come later. At least one place, each with an absolute path.
    pub fn new(
        role: RoleName,
        places: BTreeMap<DatasetName, Place>,
        limits: Limits,
    ) -> Result<Zfs> {
        let usage = |what: String| Err(Failure::new(Code::Usage, what).into());
        if places.is_empty() {
            return usage(format!("role {role} has no datasets"));
        }
        for (dataset, place) in &places {
            if !place.path.is_absolute() {
                return usage(format!(
                    "the path of {dataset}, {:?}, is not absolute",
                    place.path
                ));
            }
            if !is_zfs_filesystem(&place.zfs) {
                return usage(format!(
                    "{:?} is not the name of a ZFS filesystem in a pool, such as tank/www",
                    place.zfs
                ));
            }
        }
        let paths = places
            .iter()
            .map(|(name, place)| (name.clone(), place.path.clone()));
        Ok(Zfs {
            paths: paths.collect(),
            core: Arc::new(Core::new(role, places, limits)),
        })
    }
}

impl Filesystem for Zfs {
    fn role(&self) -> &RoleName {
        &self.core.role
    }

    fn kind(&self) -> Kind {
        Kind::Zfs
    }

    fn datasets(&self) -> &BTreeMap<DatasetName, PathBuf> {
        &self.paths
    }

    /// Also goes on with a restore that was interrupted, and with moving points to a fork.
    fn prepare(&self) -> Result<()> {
        let prepare = || {
            forks::finish(&self.core)?;
            let _turn = self.core.turn();
            live::recover(&self.core)
        };
        prepare().with_context(|| format!("prepare role {}", self.core.role))
    }

    fn list(&self) -> Result<Vec<Stored>> {
        let listed = self.core.look().and_then(|scene| scene.list());
        listed.with_context(|| format!("list the points of {}", self.core.role))
    }

    fn inspect(&self) -> Result<Inspection> {
        let inspected = self.core.look().and_then(|scene| scene.inspect());
        inspected.with_context(|| format!("inspect the points of {}", self.core.role))
    }

    fn condemn(&self, point: &PointId, why: &str) -> Result<()> {
        aside::condemn(&self.core, point, why).with_context(|| format!("call {point} damaged"))
    }

    fn guard(&self, bases: &Bases) -> Result<()> {
        guard::guard(&self.core, bases)
            .with_context(|| format!("guard the bases of {}", self.core.role))
    }

    fn leaves_remnants(&self) -> bool {
        true
    }

    fn set_aside(&self, damaged: &Damaged) -> Result<()> {
        aside::set_aside(&self.core, damaged).with_context(|| format!("set {} aside", damaged.name))
    }

    fn kept_aside(&self) -> Result<Vec<KeptAside>> {
        aside::kept_aside(&self.core)
    }

    /// The whole dataset is never looked through: ZFS carries everything but nested datasets, which are known at once.
    fn live(&self, dataset: &DatasetName, _: Scan) -> Result<Live> {
        take::live(&self.core, dataset)
    }

    fn changed(&self, point: &Stored) -> Result<bool> {
        take::changed(&self.core, point)
    }

    fn watch(&self, point: &Stored) -> Result<Box<dyn Watch>> {
        watch::watch(&self.core, point)
            .with_context(|| format!("watch the live data of {}", self.core.role))
    }

    fn written_since(&self, point: &PointId) -> Result<Option<u64>> {
        take::since(&self.core, point)
            .with_context(|| format!("measure what was written since {point}"))
    }

    fn snapshot_within(&self, manifest: Manifest, bracket: &mut dyn Bracket) -> Result<Stored> {
        // Without a context: an error of the bracket's is the outermost one.
        take::snapshot(&self.core, manifest, bracket)
    }

    fn measure(
        &self,
        dataset: &DatasetName,
        base: Option<&PointId>,
        point: &PointId,
        version_max: u32,
    ) -> Result<Measured> {
        send::measure(&self.core, dataset, base, point, version_max)
            .with_context(|| format!("measure {dataset} of {point}"))
    }

    fn send(
        &self,
        dataset: &DatasetName,
        base: Option<&PointId>,
        point: &PointId,
        _: u32,
    ) -> Result<Box<dyn Outgoing>> {
        send::send(&self.core, dataset, base, point)
            .with_context(|| format!("send {dataset} of {point}"))
    }

    fn resume(
        &self,
        dataset: &DatasetName,
        base: Option<&PointId>,
        point: &PointId,
        token: &str,
    ) -> Result<Option<Box<dyn Outgoing>>> {
        send::resume(&self.core, dataset, base, point, token)
            .with_context(|| format!("go on with {dataset} of {point}"))
    }

    fn receive(&self, receipt: &Receipt) -> Result<Opened> {
        receive::receive(&self.core, receipt)
            .with_context(|| format!("store {} of {}", receipt.dataset, receipt.manifest.point))
    }

    fn partials(&self) -> Result<Vec<Partial>> {
        publish::partials(&self.core)
    }

    fn publish(&self, manifest: &Manifest, from: &NodeName) -> Result<Stored> {
        publish::publish(&self.core, manifest, from)
            .with_context(|| format!("publish {}", manifest.point))
    }

    fn destroy(&self, point: &PointId) -> Result<()> {
        remove::destroy(&self.core, point).with_context(|| format!("destroy {point}"))
    }

    fn sweep(&self) -> Result<()> {
        remove::sweep(&self.core).with_context(|| format!("sweep role {}", self.core.role))
    }

    fn restore_live(
        &self,
        dataset: &DatasetName,
        point: &PointId,
        _: Option<&Stored>,
        keep: Manifest,
    ) -> Result<Restored> {
        live::restore(&self.core, dataset, point, keep)
            .with_context(|| format!("restore {dataset} of {point} over its live copy"))
    }

    fn retire_live(
        &self,
        dataset: &DatasetName,
        _: Option<&Stored>,
        keep: Manifest,
    ) -> Result<Restored> {
        live::retire(&self.core, dataset, keep)
            .with_context(|| format!("take the live copy of {dataset} away"))
    }

    fn live_identity(&self, dataset: &DatasetName) -> Result<Option<Uuid>> {
        live::live_identity(&self.core, dataset)
    }

    fn after_reboot(&self, dataset: &DatasetName) -> Result<AfterReboot> {
        live::after_reboot(&self.core, dataset)
    }

    /// A clone would lie in the pool, at no path: the caller copies the files.
    fn restore_to(&self, dataset: &DatasetName, point: &PointId, target: &Path) -> Result<()> {
        snapshot_of(&self.core.look()?, dataset, point)?;
        Err(FsError::OtherFilesystem(target.to_owned()).into())
    }

    fn snapshot_path(&self, dataset: &DatasetName, point: &PointId) -> Result<Readable> {
        let scene = self.core.look()?;
        show::readable(&self.core, snapshot_of(&scene, dataset, point)?)
    }

    fn snapshot_paths(&self, dataset: &DatasetName) -> Result<Vec<(PointName, Opening<'_>)>> {
        show::openings(&self.core, dataset)
            .with_context(|| format!("find {dataset} in every point"))
    }

    fn known_as(&self, points: &[Stored]) -> Result<Vec<BTreeMap<DatasetName, PathBuf>>> {
        let scene = self.core.look()?;
        let name = |dataset: &DatasetName, uuid| Some(scene.snapshot(dataset, uuid).ok()?.name());
        let names = |stored: &Stored| {
            let datasets = stored.local.datasets.iter();
            let named = datasets.filter_map(|(dataset, local)| {
                Some((dataset.clone(), name(dataset, local.uuid)?.into()))
            });
            named.collect()
        };
        Ok(points.iter().map(names).collect())
    }

    fn fork(&self, points: &[PointId], fork: Fork) -> Result<()> {
        let what = format!("keep fork {} of {}", fork.short(), self.core.role);
        forks::fork(&self.core, points, fork).context(what)
    }

    fn forks(&self) -> Result<Vec<Fork>> {
        forks::list(&self.core, &self.core.parts()?)
    }

    fn fork_datasets(&self, fork: &PointName) -> Result<Vec<DatasetName>> {
        forks::datasets(&self.core, fork)
    }

    fn fork_path(
        &self,
        fork: &PointName,
        dataset: &DatasetName,
        point: Option<&PointId>,
    ) -> Result<Readable> {
        let scene = self.core.look()?;
        let snapshot = forks::snapshot(&scene, fork, dataset, point)?;
        show::readable(&self.core, snapshot)
    }

    fn discard_fork(&self, fork: &PointName) -> Result<()> {
        forks::discard(&self.core, fork).with_context(|| format!("discard fork {fork}"))
    }

    fn export_fork(&self, fork: &PointName, dataset: &DatasetName, target: &Path) -> Result<()> {
        forks::snapshot(&self.core.look()?, fork, dataset, None)?;
        Err(FsError::OtherFilesystem(target.to_owned()).into())
    }

    fn mount_fork(&self, fork: &PointName, dir: &Path) -> Result<()> {
        show::mount_fork(&self.core, fork, dir)
            .with_context(|| format!("mount fork {fork} at {}", dir.display()))
    }

    fn fork_mounts(&self, fork: &PointName) -> Result<Vec<PathBuf>> {
        show::fork_mounts(&self.core, fork)
    }

    fn changes(&self, dataset: &DatasetName, base: &Held, newer: &Held) -> Result<Vec<Change>> {
        let scene = self.core.look()?;
        let mut held = Vec::new();
        let mut side = |side: &Held| -> Result<show::Shown> {
            let (name, kept) = look::snapshot(&scene, dataset, side)?;
            held.push(kept);
            show::Shown::open(&name)
        };
        let (base, newer) = (side(base)?, side(newer)?);
        compare::changes(&base.path(), &newer.path())
            .with_context(|| format!("compare two points of {dataset} of {}", self.core.role))
    }

    fn hold(&self, dataset: &DatasetName, held: &Held) -> Result<Kept> {
        look::hold(&self.core, dataset, held)
            .with_context(|| format!("open {dataset} of a point of {}", self.core.role))
    }

    fn hold_live(&self, dataset: &DatasetName) -> Result<Kept> {
        look::hold_live(&self.core, dataset)
    }

    fn browse(&self, tree: &Path) -> Result<Browsed> {
        let (role, at) = (&self.core.role, tree.display());
        look::browse(&self.core, tree)
            .with_context(|| format!("show the points of {role} below {at}"))
    }

    fn view(&self, dataset: &DatasetName, view: View<'_>, at: &Path) -> Result<()> {
        show::view(&self.core, dataset, view, at)
            .with_context(|| format!("show {dataset} at {}", at.display()))
    }

    fn drill(&self, point: &PointId, at: &Path) -> Result<()> {
        show::drill(&self.core, point, at)
            .with_context(|| format!("make a copy of {point} for a drill"))
    }

    fn drill_mounts(&self) -> Result<Vec<PathBuf>> {
        show::drill_mounts(&self.core)
    }

    fn end_drill(&self) -> Result<bool> {
        show::end_drill(&self.core).context("discard the copy of a drill")
    }

    fn ground(&self) -> Vec<Ground> {
        ground::look(&self.core)
    }

    fn expect_openable(&self, point: &PointId) -> Result<()> {
        ground::expect_openable(&self.core, point)
    }

    fn how_to_create(&self, dataset: &DatasetName) -> String {
        let place = self.core.places.get(dataset);
        place.map_or_else(String::new, |place| {
            let path = place.path.display();
            format!("zfs create -p -o mountpoint={path} {}", place.zfs)
        })
    }

    fn how_to_remove(&self, dataset: &DatasetName) -> String {
        let place = self.core.places.get(dataset);
        place.map_or_else(String::new, |place| {
            let zfs = &place.zfs;
            format!(
                "release what is held in it (docs/zfs.md has the line), then zfs destroy -r {zfs}"
            )
        })
    }

    fn space(&self, dataset: &DatasetName) -> Result<Space> {
        take::space(&self.core, dataset)
    }

    /// A store that cannot be written stays so until its pool is imported anew; snapshots that are shown may be read now.
    fn let_go(&self) {}
}

fn snapshot_of<'a>(
    scene: &'a core::Scene<'_>,
    dataset: &DatasetName,
    point: &PointId,
) -> Result<&'a family::Snapshot> {
    let found = scene.find(point)?;
    let missing = || FsError::Missing(format!("dataset {dataset} in point {point}"));
    let local = found.local.datasets.get(dataset).ok_or_else(missing)?;
    scene.snapshot(dataset, local.uuid)
}
