//! The store: a small dataset of our own beside the live ones (`<parent>/.standin`), and the names of what lies in it.
//!
//! It is reached through a mount that is attached nowhere, so nobody stumbles over it, and its own mountpoint stays `none`.
//! Layout: docs/decisions, "On ZFS a point is a set of guids in a small file".
//!
//! It deliberately does not know what the files say.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use anyhow::Context;
use rustix::fs::{Mode, OFlags};
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags};

use super::command::{trouble_of, zfs};
use super::mark::Listed;
use super::text::Trouble;
use crate::error::{Code, Failure};
use crate::fs::Result;
use crate::fs::btrfs::disk;
use crate::logic::name::{DatasetName, RoleName};
use crate::logic::point::PointName;

pub const STANDIN: &str = ".standin";
/// Largest file read, in bytes: it holds a manifest and local facts.
pub const FILE_BYTES_MAX: usize = 4 << 20;
/// What the short name of every snapshot of ours begins with.
pub const SNAPSHOT_PREFIX: &str = "standin_";
/// Marks a holder of which no write is wanted any more.
pub const SETTLED: &str = "standin:settled";

/// A mounted store.
#[derive(Debug)]
pub struct Store {
    /// `tank/.standin`.
    pub name: String,
    /// What the parent may still use, and uses, in bytes.
    pub space: Listed<(u64, u64)>,
    dir: File,
    _mount: OwnedFd,
}

/// `standin_<point>`.
pub fn snapshot_name(point: &PointName) -> String {
    format!("{SNAPSHOT_PREFIX}{point}")
}

/// The dataset that holds the store beside `live`; none where `live` is a whole pool.
pub fn parent(live: &str) -> Option<&str> {
    Some(live.rsplit_once('/')?.0)
}

impl Store {
    /// Opens the store below `parent`, and makes it where it is missing.
    pub fn open(parent: &str) -> Result<Store> {
        let name = format!("{parent}/{STANDIN}");
        let attributes = MountAttrFlags::MOUNT_ATTR_NOATIME
            | MountAttrFlags::MOUNT_ATTR_NOSUID
            | MountAttrFlags::MOUNT_ATTR_NODEV;
        let mount = match mount(&name, false, attributes) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                make(parent, &name)?;
                mount(&name, false, attributes)
            }
            mounted => mounted,
        };
        let mount = mount.with_context(|| format!("mount the dataset {name}"))?;
        let dir = open_root(&mount).with_context(|| format!("open the dataset {name}"))?;
        Ok(Store {
            name,
            space: Listed::default(),
            dir,
            _mount: mount,
        })
    }

    /// The whole points of a role.
    pub fn points(&self, role: &RoleName) -> PathBuf {
        self.path().join(role)
    }

    /// One of the hidden directories of a role.
    pub fn hidden(&self, what: &str, role: &RoleName) -> PathBuf {
        self.path().join(what).join(role)
    }

    /// The dataset below which a dataset's holders lie.
    pub fn room(&self, role: &RoleName, dataset: &DatasetName) -> String {
        format!("{}/{role}/{dataset}", self.name)
    }

    /// Makes the room where it is missing; a fresh name in it.
    pub fn new_holder(&self, role: &RoleName, dataset: &DatasetName, kind: &str) -> Result<String> {
        let room = self.room(role, dataset);
        zfs(&["create", "-p", "-u", "-o", "canmount=off", &room])
            .or_else(|_| zfs(&["create", "-p", "-o", "canmount=off", &room]))
            .with_context(|| format!("create the dataset {room}"))?;
        let unique = uuid::Uuid::new_v4().simple().to_string();
        Ok(format!("{room}/{kind}-{}", &unique[..8]))
    }

    fn path(&self) -> PathBuf {
        fd_path(&self.dir)
    }
}

fn make(parent: &str, name: &str) -> Result<()> {
    let arguments = [
        "create",
        "-o",
        "canmount=noauto",
        "-o",
        "mountpoint=none",
        "-o",
        "com.sun:auto-snapshot=false",
        name,
    ];
    let made = zfs(&arguments);
    match made.as_ref().err().and_then(trouble_of) {
        None | Some(Trouble::Exists) => Ok(()),
        Some(Trouble::Missing) => {
            let what = format!(
                "make a place for recovery points below {parent}: there is no such dataset"
            );
            Err(Failure::new(Code::NotFound, what)
                .hint(format!("zpool import, or zfs create -p {parent}"))
                .into())
        }
        Some(_) => made
            .map(|_| ())
            .with_context(|| format!("create the dataset {name}")),
    }
}

/// A mount of a filesystem or a snapshot that is attached nowhere.
pub fn mount(source: &str, read_only: bool, attributes: MountAttrFlags) -> io::Result<OwnedFd> {
    let context = rustix::mount::fsopen("zfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    rustix::mount::fsconfig_set_string(&context, "source", source)?;
    if read_only {
        rustix::mount::fsconfig_set_flag(&context, "ro")?;
    }
    rustix::mount::fsconfig_create(&context)?;
    let flags = FsMountFlags::FSMOUNT_CLOEXEC;
    Ok(rustix::mount::fsmount(&context, flags, attributes)?)
}

/// The top directory of a detached mount.
pub fn open_root(mount: &OwnedFd) -> io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::openat(mount, ".", flags, Mode::empty())?;
    Ok(File::from(root))
}

/// A path by which this process and its children reach an open directory.
pub fn fd_path(dir: &File) -> PathBuf {
    PathBuf::from(format!(
        "/proc/{}/fd/{}",
        std::process::id(),
        dir.as_raw_fd()
    ))
}

/// Files in a directory whose names are those of points, with the points. A directory not made yet has none.
pub fn point_files(dir: &Path) -> Result<Vec<(PointName, PathBuf)>> {
    let mut found = Vec::new();
    for name in names(dir)? {
        let point = name.strip_suffix(".json").and_then(PointName::parse);
        found.extend(point.map(|point| (point, dir.join(&name))));
    }
    Ok(found)
}

/// Names in a directory that are text, sorted.
pub fn names(dir: &Path) -> Result<Vec<String>> {
    let entries = match std::fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(e).context("list the files of a role"),
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.context("list the files of a role")?;
        names.extend(entry.file_name().into_string().ok());
    }
    names.sort();
    Ok(names)
}

/// Moves a file durably, making the directory it goes to.
pub fn move_file(from: &Path, to: &Path) -> Result<()> {
    let to_dir = to.parent().context("no directory to move to")?;
    disk::make_dir(to_dir)?;
    std::fs::rename(from, to)
        .with_context(|| format!("move {} to {}", from.display(), to.display()))?;
    disk::sync_dir(to_dir)?;
    disk::sync_dir(from.parent().context("no directory to move from")?)
}

/// Removes a file durably; nothing there is success.
pub fn remove_file(path: &Path) -> Result<()> {
    match std::fs::remove_file(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        removed => removed.with_context(|| format!("remove {}", path.display()))?,
    }
    disk::sync_dir(path.parent().context("no directory")?)
}

/// Writes a file durably, making its directory.
pub fn write_file(path: &Path, value: &impl serde::Serialize) -> Result<()> {
    disk::make_dir(path.parent().context("no directory")?)?;
    disk::write_json(path, value)
}

pub fn read_file<T: serde::de::DeserializeOwned>(path: &Path) -> Result<Option<T>> {
    disk::read_json(path, FILE_BYTES_MAX)
}
