//! Real btrfs filesystems on loop devices for the contract, and short verbs to act on them.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::Command;

use standin::fs::btrfs::Btrfs;
use standin::fs::{Filesystem, Limits};
use standin::logic::manifest::{MANIFEST_VERSION, Manifest, Reason, Stored};
use standin::logic::name::{DatasetName, NodeName, RoleName};
use standin::logic::point::{PointId, RoleId, Term};

/// Whether this machine can run the test; says why not. A missing capability is a failure in CI.
pub fn can_run(test: &str) -> bool {
    let why = if !rustix::process::geteuid().is_root() {
        "needs root"
    } else if !run("mkfs.btrfs", &["--version"]).0 || !Path::new("/dev/loop-control").exists() {
        "needs btrfs-progs and loop devices"
    } else {
        return true;
    };
    assert!(std::env::var_os("CI").is_none(), "{test} cannot run: {why}");
    eprintln!("SKIPPED {test}: {why}");
    false
}

/// Runs a program; success and what it said.
pub fn run(program: &str, arguments: &[&str]) -> (bool, String) {
    match Command::new(program).args(arguments).output() {
        Ok(output) => {
            let said = [output.stdout, output.stderr].concat();
            (
                output.status.success(),
                String::from_utf8_lossy(&said).into_owned(),
            )
        }
        Err(e) => (false, e.to_string()),
    }
}

pub fn must(program: &str, arguments: &[&str]) -> String {
    let (done, said) = run(program, arguments);
    assert!(done, "{program} {arguments:?}: {said}");
    said
}

/// A btrfs filesystem on a sparse file, mounted at `path()`; taken down when dropped, also by a panic.
pub struct Disk {
    home: tempfile::TempDir,
    mounts: Vec<PathBuf>,
}

impl Disk {
    pub fn new(mib: u64) -> Disk {
        let home = tempfile::tempdir().unwrap();
        let image = home.path().join("image");
        fs::File::create(&image)
            .unwrap()
            .set_len(mib << 20)
            .unwrap();
        must("mkfs.btrfs", &["-q", "-m", "single", text(&image)]);
        let mut disk = Disk {
            home,
            mounts: Vec::new(),
        };
        disk.mount("fs", &["-o", "loop,noatime"], &image);
        disk
    }

    fn mount(&mut self, name: &str, options: &[&str], what: &Path) -> PathBuf {
        let point = self.home.path().canonicalize().unwrap().join(name);
        fs::create_dir_all(&point).unwrap();
        let mut arguments = options.to_vec();
        arguments.extend([text(what), text(&point)]);
        must("mount", &arguments);
        self.mounts.push(point.clone());
        point
    }

    pub fn path(&self) -> &Path {
        &self.mounts[0]
    }

    /// Mounts one of its subvolumes by itself.
    pub fn mount_subvolume(&mut self, name: &str, options: &str, subvolume: &str) -> PathBuf {
        let device = must("findmnt", &["-n", "-o", "SOURCE", text(self.path())]);
        let device = device.trim().split('[').next().unwrap().to_owned();
        let option = format!("{options},subvol={subvolume}");
        self.mount(name, &["-o", &option], Path::new(&device))
    }

    pub fn subvolume(&self, name: &str) -> PathBuf {
        let path = self.path().join(name);
        must("btrfs", &["subvolume", "create", text(&path)]);
        path
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        for point in self.mounts.iter().rev() {
            let (done, said) = run("umount", &["-l", text(point)]);
            if !done {
                eprintln!("umount {}: {said}", point.display());
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
    Btrfs::new(RoleName::parse("shop").unwrap(), datasets, limits).unwrap()
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

/// The failure's words, with its hint.
pub fn said<T>(result: anyhow::Result<T>) -> String {
    let error = result.err().expect("it should have failed");
    let hint = standin::error::Failure::of(&error).and_then(|failure| failure.hint.clone());
    format!("{error:#} / {}", hint.unwrap_or_default())
}
