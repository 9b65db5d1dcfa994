//! Roles on real btrfs filesystems, and short verbs to act on them.
#![allow(dead_code, clippy::print_stderr)]

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::Command;

use standin::fs::btrfs::Btrfs;
use standin::fs::{Filesystem, Limits};
use standin::logic::fork::{Fork, ForkPoint, Why};
use standin::logic::manifest::{MANIFEST_VERSION, Manifest, Reason, Stored};
use standin::logic::name::{DatasetName, NodeName, RoleName};
use standin::logic::point::{PointId, RoleId, Term};

pub use super::support::fixture::ready;
use super::support::fixture::{self, Loop};
use super::support::random::Random;
use super::support::receiving::applying;

/// Runs a program that must succeed; what it said.
pub fn must(program: &str, arguments: &[&str]) -> String {
    String::from_utf8(fixture::run(program, arguments)).unwrap()
}

/// A btrfs filesystem of its own, mounted at `path()`, and mounts of its subvolumes; taken down when dropped.
pub struct Disk {
    mounts: tempfile::TempDir,
    points: Vec<PathBuf>,
    disk: Loop,
}

impl Disk {
    pub fn new(mib: u64) -> Disk {
        Disk {
            mounts: tempfile::tempdir().unwrap(),
            points: Vec::new(),
            disk: Loop::new(mib << 20),
        }
    }

    pub fn path(&self) -> &Path {
        self.disk.path()
    }

    /// Mounts one of its subvolumes by itself.
    pub fn mount_subvolume(&mut self, name: &str, options: &str, subvolume: &str) -> PathBuf {
        let device = self.device();
        let point = self.mounts.path().canonicalize().unwrap().join(name);
        fs::create_dir(&point).unwrap();
        let options = format!("{options},subvol={subvolume}");
        must("mount", &["-o", &options, &device, text(&point)]);
        self.points.push(point.clone());
        point
    }

    pub fn device(&self) -> String {
        let device = must("findmnt", &["-n", "-o", "SOURCE", text(self.path())]);
        device.trim().split('[').next().unwrap().to_owned()
    }

    pub fn uuid(&self) -> String {
        must("findmnt", &["-n", "-o", "UUID", text(self.path())])
            .trim()
            .to_owned()
    }

    /// A file in place of /etc/fstab.
    pub fn fstab(&self, lines: &[String]) -> PathBuf {
        let path = self.mounts.path().join("fstab");
        fs::write(&path, lines.join("\n")).unwrap();
        path
    }

    /// A line that mounts a subvolume by its path.
    pub fn line(&self, point: &Path, subvolume: &str) -> String {
        let (device, point) = (self.device(), text(point));
        format!("{device} {point} btrfs noatime,nofail,subvol={subvolume} 0 0")
    }

    pub fn subvolume(&self, name: &str) -> PathBuf {
        let path = self.path().join(name);
        must("btrfs", &["subvolume", "create", text(&path)]);
        path
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        for point in &self.points {
            // A live copy that was taken away is not mounted.
            let mounted = Command::new("mountpoint").arg("-q").arg(point).status();
            if mounted.is_ok_and(|status| !status.success()) {
                continue;
            }
            let unmounted = Command::new("umount").arg("-l").arg(point).status();
            if !unmounted.is_ok_and(|status| status.success()) {
                eprintln!("{} stays mounted", point.display());
            }
        }
    }
}

pub fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

pub fn dataset(word: &str) -> DatasetName {
    DatasetName::parse(word).unwrap()
}

pub fn node(word: &str) -> NodeName {
    NodeName::parse(word).unwrap()
}

pub fn btrfs(datasets: &[(&str, &Path)]) -> Btrfs {
    let limits = Limits {
        reserve: 0,
        ..Limits::default()
    };
    let datasets: BTreeMap<DatasetName, PathBuf> = datasets
        .iter()
        .map(|(name, path)| (dataset(name), path.to_path_buf()))
        .collect();
    let role = RoleName::parse("shop").unwrap();
    Btrfs::new(role, datasets, limits)
        .unwrap()
        .applying(applying())
}

pub fn id(epoch: u64, sequence: u64) -> PointId {
    PointId {
        term: Term {
            epoch,
            holder: node("alder"),
            nonce: epoch * 7,
        },
        sequence,
    }
}

/// A manifest as the cycle hands it to `snapshot`.
pub fn manifest(epoch: u64, sequence: u64) -> Manifest {
    Manifest {
        version: MANIFEST_VERSION,
        role: RoleId(uuid::Uuid::from_u128(7)),
        role_name: RoleName::parse("shop").unwrap(),
        point: id(epoch, sequence),
        taken: jiff::Timestamp::from_second(1_790_000_000 + sequence as i64).unwrap(),
        node: node("alder"),
        reason: Reason::Asked,
        datasets: BTreeMap::new(),
        dumps: Vec::new(),
    }
}

/// Ranks of the listed points.
pub fn listed(fs: &dyn Filesystem) -> Vec<(u64, u64)> {
    let points = fs.list().unwrap();
    points
        .iter()
        .map(|stored| stored.manifest.point.rank())
        .collect()
}

pub fn take(fs: &dyn Filesystem, epoch: u64, sequence: u64) -> Stored {
    fs.snapshot(manifest(epoch, sequence)).unwrap()
}

/// Data that no filesystem makes smaller.
pub fn noise(seed: u64, bytes: usize) -> Vec<u8> {
    let mut random = Random::new(seed);
    let words = (0..bytes.div_ceil(8)).flat_map(|_| random.next().to_le_bytes());
    words.take(bytes).collect()
}

/// The whole stream.
pub fn stream(
    fs: &dyn Filesystem,
    dataset: &DatasetName,
    base: Option<&PointId>,
    point: &PointId,
    version: u32,
) -> Vec<u8> {
    let mut outgoing = fs.send(dataset, base, point, version).unwrap();
    let mut bytes = Vec::new();
    outgoing.read_to_end(&mut bytes).unwrap();
    outgoing.finish().unwrap();
    bytes
}

/// The description of a fork of these points.
pub fn described(base: Option<&Stored>, points: &[&Stored]) -> Fork {
    let newest = points.last().unwrap();
    let point = |stored: &&Stored| ForkPoint {
        id: stored.manifest.point.clone(),
        taken: stored.manifest.taken,
    };
    Fork {
        name: newest.manifest.name(),
        role: newest.manifest.role,
        base: base.map(|stored| stored.manifest.point.clone()),
        term: newest.manifest.point.term.clone(),
        points: points.iter().map(point).collect(),
        found: jiff::Timestamp::from_second(1_790_000_000).unwrap(),
        why: Why::LeftBehind,
        measured: None,
    }
}

pub fn ids(points: &[&Stored]) -> Vec<PointId> {
    let ids = points.iter().map(|stored| stored.manifest.point.clone());
    ids.collect()
}

/// The failure's words, with its hint.
pub fn said<T>(result: anyhow::Result<T>) -> String {
    let error = result.err().unwrap();
    let hint = standin::error::Failure::of(&error).and_then(|failure| failure.hint.clone());
    format!("{error:#} / {}", hint.unwrap_or_default())
}
