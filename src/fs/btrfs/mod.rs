//! btrfs: snapshots, send and receive, restore.
//!
//! One value of [`Btrfs`] serves one role. Nothing is remembered between calls but the mounts of the filesystems' top
//! levels: everything is looked up on disk anew, so that what an admin mounts, creates or deletes meanwhile is seen, and a
//! restart is like a first start.
//!
//! The pieces: `top` reaches the filesystem, `place` the datasets in it, `layout` names our own directories; `catalogue` lists,
//! `take`, `remove`, `forks`, `staging`, `restore` and `retire` (with `settle`) change; `changes` compares; `send` and
//! `receive` (with `stream`, `scan`, `flags` and `apply`) move bytes.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context;
use uuid::Uuid;

use self::catalogue::Catalogue;
use self::fstab::Fstab;
use self::layout::Part;
use self::place::{Occupant, Place};
use self::receive::Applying;
use self::room::Gauge;
use self::told::Doing;
use self::top::Top;
use crate::error::{Code, Failure};
use crate::fs::{
    AfterReboot, Bracket, Browsed, Filesystem, FsError, Held, Inspection, Kept, KeptAside, Limits,
    Live, Measured, Opened, Opening, Outgoing, Readable, Receipt, Restored, Result, Scan, Space,
    View, Watch,
};
use crate::logic::changes::Change;
use crate::logic::damage::Damaged;
use crate::logic::fork::Fork;
use crate::logic::manifest::{Manifest, Stored};
use crate::logic::name::{DatasetName, NodeName, RoleName};
use crate::logic::point::{PointId, PointName};
use crate::logic::transfer::{Kind, Partial};

mod apply;
mod aside;
mod browse;
mod catalogue;
mod changes;
mod copyout;
pub(in crate::fs) mod disk;
mod drill;
mod examine;
mod fill;
pub mod flags;
pub(in crate::fs) mod fork_mount;
mod forks;
pub(crate) mod freeze;
mod fstab;
mod ioctl;
mod layout;
mod live;
mod look;
mod measure;
pub(in crate::fs) mod mountinfo;
mod nested;
mod paths;
mod place;
mod reboot;
pub mod receive;
mod remount;
mod remove;
mod restore;
mod retire;
mod room;
mod same;
pub mod scan;
mod send;
mod settle;
mod staging;
pub mod stream;
mod subvolume;
mod take;
mod told;
mod top;
mod touch;
pub mod trial;
mod unreadable;
mod users;
pub(in crate::fs) mod uses;
mod view;
mod written;

pub use fork_mount::unmount as unmount_fork;

/// Newest send stream version that this program and the running kernel can both read and write. In a debug build
/// `STANDIN_STREAM_VERSION_MAX=1` makes it an older one, as an old kernel would.
pub fn stream_version_max() -> u32 {
    let newest = send::kernel_version().clamp(1, send::VERSION_MAX);
    let capped = cfg!(debug_assertions)
        .then(|| {
            std::env::var("STANDIN_STREAM_VERSION_MAX")
                .ok()?
                .parse()
                .ok()
        })
        .flatten();
    capped.map_or(newest, |capped: u32| newest.min(capped.max(1)))
}

/// In a debug build `STANDIN_FSTAB` names another file.
fn fstab_in_force() -> PathBuf {
    let named = cfg!(debug_assertions).then(|| std::env::var_os("STANDIN_FSTAB"));
    named.flatten().map_or(fstab::FSTAB.into(), PathBuf::from)
}

/// A role's datasets on btrfs.
#[derive(Debug)]
pub struct Btrfs {
    role: RoleName,
    datasets: BTreeMap<DatasetName, PathBuf>,
    limits: Limits,
    applying: Applying,
    /// Where fstab is.
    fstab: PathBuf,
    /// Keeps the mounts alive between calls.
    tops: Mutex<Vec<Arc<Top>>>,
    reported: Mutex<BTreeSet<String>>,
    doubts: fill::Doubts,
    spools: fill::Spools,
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
            applying: Applying::Here,
            fstab: fstab_in_force(),
            tops: Mutex::default(),
            reported: Mutex::default(),
            doubts: fill::Doubts::default(),
            spools: fill::Spools::default(),
        })
    }

    /// Lets what is to be sent be kept in nameless files in `dir`, where it has no room in memory.
    #[must_use]
    pub fn spooling(self, dir: PathBuf) -> Btrfs {
        let spools = fill::Spools::new(dir);
        Btrfs { spools, ..self }
    }

    /// Has streams applied so instead of in this process.
    #[must_use]
    pub fn applying(self, applying: Applying) -> Btrfs {
        Btrfs { applying, ..self }
    }

    /// Has another file read in place of /etc/fstab.
    #[must_use]
    pub fn fstab(self, fstab: PathBuf) -> Btrfs {
        Btrfs { fstab, ..self }
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
            doubts: &self.doubts,
            spools: &self.spools,
        })
    }

    /// Does `work` on the role's filesystems; an error is told in paths and codes that people know.
    fn run<T>(&self, what: String, work: impl FnOnce(&Catalogue<'_>) -> Result<T>) -> Result<T> {
        let run = || {
            let catalogue = self.catalogue()?;
            let doing = self.doing(&catalogue, what);
            work(&catalogue).map_err(|error| doing.explain(error))
        };
        run().map_err(told::plain)
    }

    fn doing(&self, catalogue: &Catalogue<'_>, what: String) -> Doing {
        Doing {
            what,
            tops: catalogue
                .parts
                .iter()
                .map(|part| part.top.clone())
                .collect(),
            reserve: self.limits.reserve,
        }
    }

    fn place_of(&self, dataset: &DatasetName) -> Result<Place> {
        let path = self
            .datasets
            .get(dataset)
            .ok_or_else(|| catalogue::not_configured(&self.role, dataset))?;
        self.place(dataset, path)
    }

    fn place(&self, dataset: &DatasetName, path: &Path) -> Result<Place> {
        let place = Fstab::read(&self.fstab)
            .and_then(|fstab| Place::find(dataset, path, &fstab))
            .with_context(|| format!("find dataset {dataset} of {}", self.role))?;
        let mut tops = self.tops.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = tops.iter().any(|top| top.fsid == place.top.fsid);
        if !kept && !place.top.is_read_only() {
            tops.push(place.top.clone());
        }
        Ok(place)
    }
}

impl Filesystem for Btrfs {
    fn role(&self) -> &RoleName {
        &self.role
    }

    fn kind(&self) -> Kind {
        Kind::Btrfs
    }

    fn datasets(&self) -> &BTreeMap<DatasetName, PathBuf> {
        &self.datasets
    }

    /// Also finishes or undoes a restore that was interrupted, and goes on moving points to a fork.
    fn prepare(&self) -> Result<()> {
        self.run(format!("prepare role {}", self.role), |catalogue| {
            self.doing(catalogue, format!("prepare role {}", self.role))
                .expect_writable()?;
            for part in &catalogue.parts {
                part.make_dirs()?;
            }
            forks::finish(catalogue)?;
            restore::recover(catalogue)
        })
    }

    fn list(&self) -> Result<Vec<Stored>> {
        let what = format!("list the points of {}", self.role);
        let points = self.run(what, |catalogue| catalogue.list())?;
        Ok(points.into_iter().map(|found| found.stored).collect())
    }

    fn inspect(&self) -> Result<Inspection> {
        let what = format!("inspect the points of {}", self.role);
        self.run(what, |catalogue| catalogue.inspect())
    }

    fn condemn(&self, point: &PointId, why: &str) -> Result<()> {
        self.run(format!("call {point} damaged"), |catalogue| {
            aside::condemn(catalogue, point, why)
        })
    }

    fn set_aside(&self, damaged: &Damaged) -> Result<()> {
        let what = format!("set {} aside", damaged.name);
        self.run(what, |catalogue| aside::set_aside(catalogue, damaged))
    }

    fn kept_aside(&self) -> Result<Vec<KeptAside>> {
        let what = format!("list what {} has set aside", self.role);
        self.run(what, aside::list)
    }

    fn live(&self, dataset: &DatasetName, scan: Scan) -> Result<Live> {
        let datasets: Vec<PathBuf> = self.datasets.values().cloned().collect();
        self.place_of(dataset)
            .and_then(|place| examine::live(&place, &datasets, scan))
            .map_err(told::plain)
    }

    fn changed(&self, point: &Stored) -> Result<bool> {
        take::changed(&self.catalogue()?, point)
    }

    fn watch(&self, point: &Stored) -> Result<Box<dyn Watch>> {
        let what = format!("watch for changes since {}", point.manifest.point);
        self.run(what, |catalogue| {
            touch::watch(catalogue, &catalogue.find(&point.manifest.point)?)
        })
    }

    fn written_since(&self, point: &PointId) -> Result<Option<u64>> {
        let what = format!("measure what was written since {point}");
        self.run(what, |catalogue| written::since(catalogue, point))
    }

    fn snapshot_within(&self, manifest: Manifest, bracket: &mut dyn Bracket) -> Result<Stored> {
        self.run(
            format!("take point {} of {}", manifest.point, self.role),
            |catalogue| take::snapshot(catalogue, manifest, bracket),
        )
    }

    fn measure(
        &self,
        dataset: &DatasetName,
        base: Option<&PointId>,
        point: &PointId,
        version_max: u32,
    ) -> Result<Measured> {
        self.run(format!("measure {dataset} of {point}"), |catalogue| {
            measure::measure(catalogue, dataset, base, point, version_max)
        })
    }

    fn send(
        &self,
        dataset: &DatasetName,
        base: Option<&PointId>,
        point: &PointId,
        version: u32,
    ) -> Result<Box<dyn Outgoing>> {
        self.run(format!("send {dataset} of {point}"), |catalogue| {
            send::send(catalogue, dataset, base, point, version)
        })
    }

    fn receive(&self, receipt: &Receipt) -> Result<Opened> {
        let what = format!("store {} of {}", receipt.dataset, receipt.manifest.point);
        self.run(what, |catalogue| {
            staging::receive(catalogue, receipt, &self.applying, self.limits)
        })
    }

    fn partials(&self) -> Result<Vec<Partial>> {
        let what = format!("list what {} has half received", self.role);
        self.run(what, staging::partials)
    }

    fn publish(&self, manifest: &Manifest, from: &NodeName) -> Result<Stored> {
        self.run(format!("publish {}", manifest.point), |catalogue| {
            staging::publish(catalogue, manifest, from)
        })
    }

    fn destroy(&self, point: &PointId) -> Result<()> {
        self.run(format!("destroy {point}"), |catalogue| {
            remove::destroy(catalogue, point)
        })
    }

    fn sweep(&self) -> Result<()> {
        self.run(format!("sweep role {}", self.role), remove::sweep)
    }

    fn restore_live(
        &self,
        dataset: &DatasetName,
        point: &PointId,
        kept: Option<&Stored>,
        keep: Manifest,
    ) -> Result<Restored> {
        let what = format!("restore {dataset} of {point} over its live copy");
        self.run(what, |catalogue| {
            restore::restore_live(catalogue, dataset, point, kept, keep)
        })
    }

    fn retire_live(
        &self,
        dataset: &DatasetName,
        kept: Option<&Stored>,
        keep: Manifest,
    ) -> Result<Restored> {
        let what = format!("take the live copy of {dataset} away");
        self.run(what, |catalogue| {
            retire::retire_live(catalogue, dataset, kept, keep)
        })
    }

    fn live_identity(&self, dataset: &DatasetName) -> Result<Option<Uuid>> {
        let look = || {
            let place = self.place_of(dataset)?;
            match place.occupant {
                Occupant::Nothing | Occupant::EmptyDirectory => Ok(None),
                Occupant::Subvolume | Occupant::Directory => {
                    let info = ioctl::subvolume(place.open_live()?)
                        .with_context(|| format!("look at {}", place.live.display()))?;
                    Ok(Some(info.uuid))
                }
            }
        };
        look().map_err(told::plain)
    }

    fn after_reboot(&self, dataset: &DatasetName) -> Result<AfterReboot> {
        let place = self.place_of(dataset).map_err(told::plain)?;
        Ok(reboot::after(&place))
    }

    fn restore_to(&self, dataset: &DatasetName, point: &PointId, target: &Path) -> Result<()> {
        let what = format!("restore {dataset} of {point} to {}", target.display());
        self.run(what, |catalogue| {
            copyout::restore_to(catalogue, dataset, point, target)
        })
    }

    fn snapshot_path(&self, dataset: &DatasetName, point: &PointId) -> Result<Readable> {
        self.run(format!("find {dataset} of {point}"), |catalogue| {
            let found = catalogue.find(point)?;
            let path = catalogue.snapshot_path(&found, dataset)?;
            let (part, _) = catalogue.place(dataset)?;
            Ok(paths::readable(part, &path))
        })
    }

    fn snapshot_paths(&self, dataset: &DatasetName) -> Result<Vec<(PointName, Opening<'_>)>> {
        self.run(format!("find {dataset} in every point"), |catalogue| {
            paths::all(catalogue, dataset)
        })
    }

    fn known_as(&self, points: &[Stored]) -> Result<Vec<BTreeMap<DatasetName, PathBuf>>> {
        let what = format!("find the points of {}", self.role);
        self.run(what, |catalogue| paths::known_as(catalogue, points))
    }

    fn fork(&self, points: &[PointId], fork: Fork) -> Result<()> {
        let what = format!("keep fork {} of {}", fork.short(), self.role);
        self.run(what, |catalogue| forks::fork(catalogue, points, fork))
    }

    fn forks(&self) -> Result<Vec<Fork>> {
        self.run(format!("list the forks of {}", self.role), forks::list)
    }

    fn fork_datasets(&self, fork: &PointName) -> Result<Vec<DatasetName>> {
        self.run(format!("look into fork {fork}"), |catalogue| {
            let found = forks::snapshots(catalogue, fork, None)?;
            Ok(found.into_iter().map(|found| found.dataset).collect())
        })
    }

    fn fork_path(
        &self,
        fork: &PointName,
        dataset: &DatasetName,
        point: Option<&PointId>,
    ) -> Result<Readable> {
        self.run(format!("find {dataset} of fork {fork}"), |catalogue| {
            let (found, _) = forks::snapshot(catalogue, fork, dataset, point)?;
            Ok(paths::readable(found.part, &found.path))
        })
    }

    fn discard_fork(&self, fork: &PointName) -> Result<()> {
        self.run(format!("discard fork {fork}"), |catalogue| {
            forks::discard(catalogue, fork)
        })
    }

    fn export_fork(&self, fork: &PointName, dataset: &DatasetName, target: &Path) -> Result<()> {
        let what = format!("export {dataset} of fork {fork} to {}", target.display());
        self.run(what, |catalogue| {
            let (found, _held) = forks::snapshot(catalogue, fork, dataset, None)?;
            copyout::copy_to(catalogue, found.part, &found.path, target)?;
            found.part.top.sync()
        })
    }

    fn mount_fork(&self, fork: &PointName, dir: &Path) -> Result<()> {
        let what = format!("mount fork {fork} at {}", dir.display());
        self.run(what, |catalogue| fork_mount::mount(catalogue, fork, dir))
    }

    fn fork_mounts(&self, fork: &PointName) -> Result<Vec<PathBuf>> {
        fork_mount::mounted(&self.role, fork)
    }

    fn changes(&self, dataset: &DatasetName, base: &Held, newer: &Held) -> Result<Vec<Change>> {
        let what = format!("compare two points of {dataset} of {}", self.role);
        self.run(what, |catalogue| {
            changes::changes(catalogue, dataset, base, newer)
        })
    }

    fn hold(&self, dataset: &DatasetName, held: &Held) -> Result<Kept> {
        self.run(format!("open {dataset} of a point"), |catalogue| {
            look::hold(catalogue, dataset, held)
        })
    }

    fn hold_live(&self, dataset: &DatasetName) -> Result<Kept> {
        self.run(format!("take a look at the live {dataset}"), |catalogue| {
            look::hold_live(catalogue, dataset)
        })
    }

    fn browse(&self, tree: &Path) -> Result<Browsed> {
        let what = format!("show the points of {} below {}", self.role, tree.display());
        self.run(what, |catalogue| browse::browse(catalogue, tree))
    }

    fn view(&self, dataset: &DatasetName, view: View<'_>, at: &Path) -> Result<()> {
        let what = format!("show {dataset} at {}", at.display());
        self.run(what, |catalogue| view::view(catalogue, dataset, view, at))
    }

    fn drill(&self, point: &PointId, at: &Path) -> Result<()> {
        let what = format!("make a copy of {point} for a drill");
        self.run(what, |catalogue| drill::make(catalogue, point, at))
    }

    fn drill_mounts(&self) -> Result<Vec<PathBuf>> {
        self.run("look for the copy of a drill".to_owned(), drill::mounts)
    }

    fn end_drill(&self) -> Result<bool> {
        self.run("discard the copy of a drill".to_owned(), drill::end)
    }

    fn let_go(&self) {
        let mut tops = self.tops.lock().unwrap_or_else(PoisonError::into_inner);
        tops.retain(|top| !top.is_read_only());
    }

    fn how_to_create(&self, dataset: &DatasetName) -> String {
        let path = self.datasets.get(dataset).map(|path| path.display());
        path.map_or_else(String::new, |path| format!("btrfs subvolume create {path}"))
    }

    fn how_to_remove(&self, dataset: &DatasetName) -> String {
        let path = self.datasets.get(dataset).map(|path| path.display());
        path.map_or_else(String::new, |path| format!("btrfs subvolume delete {path}"))
    }

    fn space(&self, dataset: &DatasetName) -> Result<Space> {
        let place = self.place_of(dataset).map_err(told::plain)?;
        let found = rustix::fs::statvfs(place.top.path())
            .map_err(|e| FsError::Missing(format!("space of {}: {e}", place.live.display())))?;
        Ok(Space {
            total: found.f_blocks.saturating_mul(found.f_frsize),
            free: found.f_bavail.saturating_mul(found.f_frsize),
            room: Gauge::new(place.top.dir(), self.limits.reserve).free(place.top.path(), 0)?,
        })
    }
}
