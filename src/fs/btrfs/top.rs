//! The top level (subvolid=5) of a btrfs filesystem, reached through a mount that belongs to this process alone.
//!
//! A role's live subvolume is often mounted by itself (`subvol=@web`), so that the tree everybody sees shows neither the
//! top nor a second name for it; and a rename between two mounts of one filesystem is refused (EXDEV). So all work on a
//! filesystem goes through one detached mount of its top: attached to no directory, seen in no mount table, gone with the
//! process whatever happens to it. Paths in it are spelled `/proc/self/fd/N/...`.
//!
//! Promise: one mount per filesystem and process, shared while anybody holds it. It keeps the filesystem busy for as long:
//! unmounting what people see does not detach the device. A crash leaves nothing.
//!
//! It deliberately does not know roles, datasets or points.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use anyhow::{Context, anyhow};
use rustix::fs::{AtFlags, Mode, OFlags, RenameFlags, ResolveFlags, StatVfsMountFlags};
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, UnmountFlags};
use uuid::Uuid;

use super::ioctl;
use super::mountinfo::{self, Mount};
use super::uses::Uses;
use crate::fs::Result;

/// Where the fallback mounts for the blink of an eye.
const PRIVATE_DIR: &str = "/run/standin";

/// What paths in a private mount begin with.
const PRIVATE_PATH: &str = "/proc/self/fd/";

/// One filesystem, held by its top level.
#[derive(Debug)]
pub struct Top {
    pub fsid: Uuid,
    /// The top directory, open for reading.
    dir: File,
    /// Keeps the detached mount alive; none where the old mount call was used.
    _mount: Option<OwnedFd>,
    path: PathBuf,
    /// The device it was mounted by.
    pub device: PathBuf,
    /// What this process is doing on the filesystem.
    pub uses: Uses,
    trash: Mutex<()>,
}

static TOPS: Mutex<BTreeMap<Uuid, Weak<Top>>> = Mutex::new(BTreeMap::new());

impl Top {
    /// The filesystem that holds `existing` (absolute, without symbolic links); the caller has seen that it is btrfs.
    pub fn holding(existing: &Path, fd: impl AsFd) -> Result<Arc<Top>> {
        let info = ioctl::fs_info(&fd)
            .with_context(|| format!("read the filesystem id of {}", existing.display()))?;
        let mut tops = TOPS.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(top) = tops.get(&info.fsid).and_then(Weak::upgrade) {
            return Ok(top);
        }
        let top = Arc::new(open(existing, fd.as_fd(), info)?);
        tops.retain(|_, top| top.strong_count() > 0);
        tops.insert(info.fsid, Arc::downgrade(&top));
        Ok(top)
    }

    /// The filesystem on `device` (a path without symbolic links), mounted anywhere or not.
    pub fn on(device: &Path) -> Result<Arc<Top>> {
        let mut tops = TOPS.lock().unwrap_or_else(PoisonError::into_inner);
        // A device that is in use by a filesystem of ours is that filesystem's, whatever it is called.
        let name = device.file_name().unwrap_or_default();
        let is_of = |fsid: &Uuid| {
            let devices = format!("/sys/fs/btrfs/{fsid}/devices");
            Path::new(&devices).join(name).exists()
        };
        let known = tops.iter().find(|(fsid, _)| is_of(fsid));
        if let Some(top) = known.and_then(|(_, top)| top.upgrade()) {
            return Ok(top);
        }
        let mounts = mountinfo::read().unwrap_or_default();
        let same = |mount: &&Mount| mount.kind == "btrfs" && mount.source == device;
        let top = Arc::new(open_device(
            device,
            None,
            is_read_only(mounts.iter().find(same)),
        )?);
        if let Some(top) = tops.get(&top.fsid).and_then(Weak::upgrade) {
            return Ok(top);
        }
        tops.insert(top.fsid, Arc::downgrade(&top));
        Ok(top)
    }

    /// The top level, as a path of this process (`/proc/self/fd/N`).
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The top directory, open.
    pub fn dir(&self) -> BorrowedFd<'_> {
        self.dir.as_fd()
    }

    /// Whether nothing can be written to the filesystem now: mounted so, or turned so by the kernel after an error.
    pub fn is_read_only(&self) -> bool {
        rustix::fs::statvfs(&self.path)
            .is_ok_and(|found| found.f_flag.contains(StatVfsMountFlags::RDONLY))
    }

    /// The same for any process with our rights.
    pub fn path_for_children(&self) -> PathBuf {
        PathBuf::from(format!(
            "/proc/{}/fd/{}",
            std::process::id(),
            self.dir.as_raw_fd()
        ))
    }

    /// A path below the top as a person knows it: through a mount of the whole filesystem where there is one, else by
    /// the device.
    pub fn shown(&self, path: &Path) -> String {
        self.shown_text(&path.display().to_string())
    }

    /// Spells the private path as `shown` does, wherever `text` holds it.
    fn shown_text(&self, text: &str) -> String {
        let private = self.path.display().to_string();
        let mut plain = String::new();
        let mut rest = text;
        while let Some(at) = rest.find(&private) {
            let (before, found) = rest.split_at(at);
            plain.push_str(before);
            let after = &found[private.len()..];
            if after.starts_with(|c: char| c.is_ascii_digit()) {
                plain.push_str(&private);
                rest = after;
                continue;
            }
            rest = after;
            if let Some(point) = self.visible() {
                // Below a mount at the root one slash is enough.
                plain.push_str(point.display().to_string().trim_end_matches('/'));
            } else {
                plain.push_str(&format!("subvolid=5 of {}", self.device.display()));
                if let Some(inside) = after.strip_prefix('/') {
                    plain.push_str(": ");
                    rest = inside;
                }
            }
        }
        plain.push_str(rest);
        plain
    }

    /// A mount of the whole filesystem that everybody sees.
    fn visible(&self) -> Option<PathBuf> {
        let mounts = mountinfo::read().ok()?;
        mounts
            .into_iter()
            .filter(|mount| mount.kind == "btrfs" && mount.root == Path::new("/"))
            .map(|mount| mount.point)
            .find(|point| {
                File::open(point)
                    .and_then(|dir| ioctl::fs_info(&dir))
                    .is_ok_and(|info| info.fsid == self.fsid)
            })
    }

    /// Writes everything out and commits.
    pub fn sync(&self) -> Result<()> {
        rustix::fs::syncfs(&self.dir).context("sync the filesystem")
    }

    /// Opens a directory below the top without following anything that leads elsewhere. `relative` may be empty.
    pub fn open_dir(&self, relative: &Path) -> io::Result<OwnedFd> {
        let relative = if relative.as_os_str().is_empty() {
            Path::new(".")
        } else {
            relative
        };
        Ok(rustix::fs::openat2(
            &self.dir,
            relative,
            OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
            ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS,
        )?)
    }

    /// Exchanges two directory entries, atomically.
    pub fn exchange(&self, one: &Path, other: &Path) -> io::Result<()> {
        self.rename_with(one, other, RenameFlags::EXCHANGE)
    }

    /// Moves an entry to a name that must not exist.
    pub fn move_to(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.rename_with(from, to, RenameFlags::NOREPLACE)
    }

    /// Moves an entry to a name where nothing is, or an empty directory.
    pub fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.rename_with(from, to, RenameFlags::empty())
    }

    /// Removes an empty directory.
    pub fn remove_dir(&self, relative: &Path) -> io::Result<()> {
        let (dir, name) = self.open_parent(relative)?;
        Ok(rustix::fs::unlinkat(dir, name, AtFlags::REMOVEDIR)?)
    }

    fn rename_with(&self, from: &Path, to: &Path, flags: RenameFlags) -> io::Result<()> {
        let (from_dir, from_name) = self.open_parent(from)?;
        let (to_dir, to_name) = self.open_parent(to)?;
        Ok(rustix::fs::renameat_with(
            from_dir, from_name, to_dir, to_name, flags,
        )?)
    }

    fn open_parent<'a>(&self, relative: &'a Path) -> io::Result<(OwnedFd, &'a OsStr)> {
        let name = relative
            .file_name()
            .ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
        let parent = relative.parent().unwrap_or(Path::new(""));
        Ok((self.open_dir(parent)?, name))
    }

    /// Held by whoever fills or empties the trash, so that nobody empties what another may still put back.
    pub fn trash(&self) -> MutexGuard<'_, ()> {
        self.trash.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Text for people: private paths of every filesystem in use are spelled as [`Top::shown`] does.
pub fn plain(text: &str) -> String {
    if !text.contains(PRIVATE_PATH) {
        return text.to_owned();
    }
    let tops: Vec<Arc<Top>> = {
        let tops = TOPS.lock().unwrap_or_else(PoisonError::into_inner);
        tops.values().filter_map(Weak::upgrade).collect()
    };
    tops.iter()
        .fold(text.to_owned(), |text, top| top.shown_text(&text))
}

/// The path of an open directory, for libraries that take paths.
pub fn fd_path(fd: impl AsFd) -> PathBuf {
    PathBuf::from(format!("{PRIVATE_PATH}{}", fd.as_fd().as_raw_fd()))
}

fn open(existing: &Path, fd: BorrowedFd<'_>, info: ioctl::FsInfo) -> Result<Top> {
    let mounts = mountinfo::read().unwrap_or_default();
    let seen = mountinfo::holding(&mounts, existing).filter(|mount| mount.kind == "btrfs");
    let read_only = is_read_only(seen);
    let devices = devices(seen, fd, info.max_id);
    let mut failure = anyhow!(
        "no device of the filesystem that holds {} is known",
        existing.display()
    );
    for device in &devices {
        match open_device(device, Some(info.fsid), read_only) {
            Ok(top) => return Ok(top),
            Err(e) => failure = e,
        }
    }
    Err(failure).with_context(|| {
        format!(
            "reach the top level of the filesystem that holds {}",
            existing.display()
        )
    })
}

/// A mount that asks for less than read-only would turn a filesystem writable that somebody mounted read-only.
fn is_read_only(seen: Option<&Mount>) -> bool {
    seen.is_some_and(|mount| mount.super_options.iter().any(|word| word == "ro"))
}

/// Devices to mount by: the one in the mount table first, then those the filesystem itself names (the table may say
/// `/dev/root`, or a name of another mount namespace).
fn devices(seen: Option<&Mount>, fd: BorrowedFd<'_>, max_id: u64) -> Vec<PathBuf> {
    let mut devices: Vec<PathBuf> = seen.iter().map(|mount| mount.source.clone()).collect();
    // Ids are small and dense; a bound keeps a damaged answer from costing more than a moment.
    for devid in 0..=max_id.min(1024) {
        if let Some(path) = ioctl::device_path(fd, devid) {
            devices.push(PathBuf::from(OsStr::from_bytes(&path)));
        }
    }
    devices
}

/// The filesystem on `device`, which must be `expected` where that is known.
fn open_device(device: &Path, expected: Option<Uuid>, read_only: bool) -> Result<Top> {
    let (dir, mount) = match mount_detached(device, read_only) {
        Ok((dir, mount)) => (dir, Some(mount)),
        Err(new_api) => {
            let name = expected.unwrap_or_else(Uuid::new_v4);
            let dir = mount_briefly(device, name, read_only)
                .map_err(|old_api| anyhow!("{old_api:#} (and by the new mount calls: {new_api})"))
                .with_context(|| format!("mount {}", device.display()))?;
            (dir, None)
        }
    };
    let found = ioctl::fs_info(&dir).with_context(|| format!("look at {}", device.display()))?;
    if expected.is_some_and(|fsid| fsid != found.fsid) {
        return Err(anyhow!(
            "{} holds another filesystem ({})",
            device.display(),
            found.fsid
        ));
    }
    Ok(Top {
        fsid: found.fsid,
        path: fd_path(&dir),
        dir,
        device: device.to_owned(),
        _mount: mount,
        uses: Uses::default(),
        trash: Mutex::new(()),
    })
}

/// The new mount calls (Linux 5.2): a mount that is never attached anywhere.
fn mount_detached(device: &Path, read_only: bool) -> io::Result<(File, OwnedFd)> {
    let mount = make_mount(
        device,
        ("subvolid", OsStr::new("5")),
        read_only,
        MountAttrFlags::MOUNT_ATTR_NOATIME
            | MountAttrFlags::MOUNT_ATTR_NOSUID
            | MountAttrFlags::MOUNT_ATTR_NODEV,
    )?;
    let dir = rustix::fs::openat(
        &mount,
        ".",
        OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )?;
    Ok((File::from(dir), mount))
}

/// A detached mount of one subvolume of the filesystem on `device`; `which` is the mount option that picks it. `read_only`
/// is what is asked of the filesystem, not of this mount: made writable later, it is writable through this mount too.
pub fn make_mount(
    device: &Path,
    which: (&str, &OsStr),
    read_only: bool,
    attributes: MountAttrFlags,
) -> io::Result<OwnedFd> {
    let context = rustix::mount::fsopen("btrfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    rustix::mount::fsconfig_set_string(&context, "source", device)?;
    rustix::mount::fsconfig_set_string(&context, which.0, which.1)?;
    if read_only {
        rustix::mount::fsconfig_set_flag(&context, "ro")?;
    }
    rustix::mount::fsconfig_create(&context)?;
    Ok(rustix::mount::fsmount(
        &context,
        FsMountFlags::FSMOUNT_CLOEXEC,
        attributes,
    )?)
}

/// The old mount call: attached to a private directory only until its top is open; an open descriptor keeps the detached
/// mount alive.
fn mount_briefly(device: &Path, fsid: Uuid, read_only: bool) -> Result<File> {
    let point = Path::new(PRIVATE_DIR).join(format!("top-{fsid}-{}", std::process::id()));
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&point)
        .with_context(|| format!("create {}", point.display()))?;
    let mut flags = MountFlags::NOATIME | MountFlags::NOSUID | MountFlags::NODEV;
    flags.set(MountFlags::RDONLY, read_only);
    let mounted = rustix::mount::mount(device, &point, "btrfs", flags, Some(c"subvolid=5"))
        .context("call mount");
    let dir = mounted.and_then(|()| {
        let dir = File::open(&point).with_context(|| format!("open {}", point.display()));
        let detached =
            rustix::mount::unmount(&point, UnmountFlags::DETACH).context("detach the mount");
        detached.and(dir)
    });
    // An empty directory under /run is all that a failure here can leave.
    let _ = std::fs::remove_dir(&point);
    dir
}

#[cfg(test)]
#[path = "../../../tests/support/fixture.rs"]
#[allow(dead_code, clippy::unwrap_used, clippy::print_stdout)]
pub mod fixture;

#[cfg(test)]
mod tests {
    use super::fixture::{Loop, ready};
    use super::*;

    fn works(dir: &File, device: &Path) {
        let path = fd_path(dir);
        std::fs::write(path.join("a"), device.as_os_str().as_bytes()).unwrap();
        std::fs::rename(path.join("a"), path.join("b")).unwrap();
        rustix::fs::syncfs(dir).unwrap();
        let seen = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert!(!seen.contains(PRIVATE_DIR));
    }

    /// The mount outlives its name, whichever way it was made.
    #[test]
    fn both_ways_of_mounting_reach_the_top() {
        if !ready("both_ways_of_mounting_reach_the_top") {
            return;
        }
        let disk = Loop::new(256 << 20);
        let shown = disk.path().canonicalize().unwrap();
        let fd = File::open(&shown).unwrap();
        let info = ioctl::fs_info(&fd).unwrap();
        let mounts = mountinfo::read().unwrap();
        let known = devices(mountinfo::holding(&mounts, &shown), fd.as_fd(), info.max_id);
        assert!(
            known.len() >= 2,
            "from the table and from the filesystem: {known:?}"
        );
        for device in &known {
            let (dir, _mount) = mount_detached(device, false).unwrap();
            works(&dir, device);
            works(&mount_briefly(device, info.fsid, false).unwrap(), device);
        }
        let one = Top::holding(&shown, &fd).unwrap();
        let same = Top::holding(&shown, &fd).unwrap();
        assert!(Arc::ptr_eq(&one, &same));
    }
}
