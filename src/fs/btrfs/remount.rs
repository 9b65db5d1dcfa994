//! Makes a live path that is a mount of its own show another subvolume.
//!
//! After an exchange the name (`@web`) leads to the new subvolume, but a mount shows the directory it was made of. So a new
//! mount, with the same options, takes its place: beneath the old one first and then uncovered (Linux 6.5), so that the path
//! is never unmounted for those who watch; where that is not to be had, after it. A path that is not mounted, and that fstab
//! says is, is mounted.
//!
//! Promise: when `show` returns, who opens the path gets the new subvolume; who has files of the old one open keeps them.
//! Entries of fstab that name the subvolume (`subvol=`) stay right. A crash in between leaves the path unmounted at worst.
//!
//! It deliberately does not know why the subvolume was exchanged.

use std::ffi::{CString, OsString};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, anyhow};
use rustix::fs::{CWD, Mode, OFlags};
use rustix::mount::{MountAttrFlags, MountFlags, MoveMountFlags, UnmountFlags};
use uuid::Uuid;

use super::fstab::Entry;
use super::mountinfo::{self, Mount};
use super::place::Place;
use super::top::{self, Top};
use super::{ioctl, subvolume};
use crate::error::{Code, Failure};
use crate::fs::Result;

/// Makes the mount at the live path show the subvolume `uuid`, which lies in its place: the mount that is there, or the one
/// that fstab says should be there. A path that is no mount of its own shows it already.
pub fn show(place: &Place, uuid: Uuid) -> Result<()> {
    let (top, live, relative) = (&*place.top, place.live.as_path(), place.relative.as_path());
    let shows = || subvolume::info(live).is_ok_and(|info| info.uuid == uuid);
    if shows() {
        return Ok(());
    }
    let mounts = mountinfo::read()?;
    let here = |mount: &&Mount| mount.point == live && mount.kind != "autofs";
    let Some(mount) = mounts.iter().rev().find(here) else {
        return match &place.entry {
            Some(entry) => mount_as_written(place, entry).and_then(|()| {
                shows()
                    .then_some(())
                    .ok_or_else(|| anyhow!("{} shows another subvolume", live.display()))
            }),
            None => {
                tracing::info!(
                    "{} is not mounted now; it shows the restored copy when it is",
                    live.display()
                );
                Ok(())
            }
        };
    };
    let replaced = replace(top, mount, relative, uuid).and_then(|()| {
        if shows() {
            Ok(())
        } else {
            Err(anyhow!("the mount still shows another subvolume"))
        }
    });
    replaced.map_err(|e| {
        let what = format!(
            "{} was restored, but its mount could not be replaced: {e:#}",
            live.display()
        );
        Failure::new(Code::Failed, what)
            .hint(format!(
                "umount -l {0} && mount {0}, then restart the daemon",
                live.display()
            ))
            .into()
    })
}

/// Mounts the place as its line of fstab says, but by its path: a number there is that of an older subvolume.
fn mount_as_written(place: &Place, entry: &Entry) -> Result<()> {
    let shown = place.live.display();
    std::fs::create_dir_all(&place.live).with_context(|| format!("create {shown}"))?;
    let output = Command::new("mount")
        .args(["-t", "btrfs", "-o"])
        .arg(entry.options_naming(&place.relative, &[]))
        .arg(&place.top.device)
        .arg(&place.live)
        .stdin(Stdio::null())
        .output()
        .context("run mount")?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let what = format!(
        "{shown} was restored, but it could not be mounted: {}",
        said.trim()
    );
    Err(Failure::new(Code::Failed, what)
        .hint(format!(
            "look at its line in {}, then: mount {shown}",
            entry.file.display()
        ))
        .into())
}

fn replace(top: &Top, mount: &Mount, relative: &Path, uuid: Uuid) -> Result<()> {
    let mut subvol = OsString::from("/");
    subvol.push(relative);
    let new = match top::make_mount(&top.device, ("subvol", &subvol), false, attributes(mount)) {
        Ok(new) => new,
        Err(e) => {
            return replace_by_old_calls(top, mount, subvol)
                .map_err(|old| anyhow!("{old:#} (and by the new mount calls: {e})"));
        }
    };
    put(&new, uuid, &mount.point, true)
}

/// Puts the detached mount `new`, which must show the subvolume `uuid`, at `point`; with `over`, in place of the one there.
pub fn put(new: &OwnedFd, uuid: Uuid, point: &Path, over: bool) -> Result<()> {
    let root = rustix::fs::openat(
        new,
        ".",
        OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )
    .context("open the new mount")?;
    let shown = ioctl::subvolume(&root).context("look at the new mount")?;
    if shown.uuid != uuid {
        return Err(anyhow!("it is another subvolume by now"));
    }
    drop(root);
    if over {
        if attach(new, point, MoveMountFlags::MOVE_MOUNT_BENEATH).is_ok() {
            return detach(point);
        }
        detach(point)?;
    }
    attach(new, point, MoveMountFlags::empty()).context("attach the new mount")
}

fn attach(new: &OwnedFd, point: &Path, flags: MoveMountFlags) -> io::Result<()> {
    let flags = flags | MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    Ok(rustix::mount::move_mount(
        new.as_fd(),
        "",
        CWD,
        point,
        flags,
    )?)
}

/// Detaches the uppermost mount at `point`; who has files of it open keeps them.
pub fn detach(point: &Path) -> Result<()> {
    rustix::mount::unmount(point, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW)
        .with_context(|| format!("detach the old mount of {}", point.display()))
}

fn replace_by_old_calls(top: &Top, mount: &Mount, subvol: OsString) -> Result<()> {
    let mut data = b"subvol=".to_vec();
    data.extend(subvol.into_vec());
    let data = CString::new(data).context("spell the mount options")?;
    detach(&mount.point)?;
    rustix::mount::mount(
        &top.device,
        &mount.point,
        "btrfs",
        flags(mount),
        Some(data.as_c_str()),
    )
    .with_context(|| format!("mount {}", mount.point.display()))
}

/// The mount's own options for fsmount(2).
fn attributes(mount: &Mount) -> MountAttrFlags {
    const TABLE: [(&str, MountAttrFlags); 8] = [
        ("ro", MountAttrFlags::MOUNT_ATTR_RDONLY),
        ("nosuid", MountAttrFlags::MOUNT_ATTR_NOSUID),
        ("nodev", MountAttrFlags::MOUNT_ATTR_NODEV),
        ("noexec", MountAttrFlags::MOUNT_ATTR_NOEXEC),
        ("noatime", MountAttrFlags::MOUNT_ATTR_NOATIME),
        ("relatime", MountAttrFlags::MOUNT_ATTR_RELATIME),
        ("nodiratime", MountAttrFlags::MOUNT_ATTR_NODIRATIME),
        ("nosymfollow", MountAttrFlags::MOUNT_ATTR_NOSYMFOLLOW),
    ];
    let has = |word: &str| mount.options.iter().any(|option| option == word);
    let mut attributes = TABLE
        .iter()
        .filter(|(word, _)| has(word))
        .fold(MountAttrFlags::empty(), |sum, (_, flag)| sum | *flag);
    // The table of mounts says nothing where every access is recorded.
    if !has("noatime") && !has("relatime") {
        attributes |= MountAttrFlags::MOUNT_ATTR_STRICTATIME;
    }
    attributes
}

/// The same for mount(2).
fn flags(mount: &Mount) -> MountFlags {
    const TABLE: [(&str, MountFlags); 7] = [
        ("ro", MountFlags::RDONLY),
        ("nosuid", MountFlags::NOSUID),
        ("nodev", MountFlags::NODEV),
        ("noexec", MountFlags::NOEXEC),
        ("noatime", MountFlags::NOATIME),
        ("relatime", MountFlags::RELATIME),
        ("nodiratime", MountFlags::NODIRATIME),
    ];
    TABLE
        .iter()
        .filter(|(word, _)| mount.options.iter().any(|option| option == word))
        .fold(MountFlags::empty(), |sum, (_, flag)| sum | *flag)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(options: &str, expected: MountAttrFlags) {
        let mount = Mount {
            id: 1,
            device: "0:1".to_owned(),
            root: "/@".into(),
            point: "/x".into(),
            options: options.split(',').map(str::to_owned).collect(),
            kind: "btrfs".to_owned(),
            source: "/dev/x".into(),
            super_options: vec![],
        };
        assert_eq!(attributes(&mount), expected, "{options}");
    }

    #[test]
    fn options_survive() {
        check("rw,relatime", MountAttrFlags::MOUNT_ATTR_RELATIME);
        check("rw", MountAttrFlags::MOUNT_ATTR_STRICTATIME);
        check(
            "ro,nosuid,noatime",
            MountAttrFlags::MOUNT_ATTR_RDONLY
                | MountAttrFlags::MOUNT_ATTR_NOSUID
                | MountAttrFlags::MOUNT_ATTR_NOATIME,
        );
    }

    use super::super::top::fixture::{Loop, ready, run};

    /// Both ways of replacing a mount leave one mount, of the new subvolume, with the options of the old.
    #[test]
    fn a_mount_shows_another_subvolume() {
        if !ready("a_mount_shows_another_subvolume") {
            return;
        }
        let disk = Loop::new(256 << 20);
        let shown = disk.path().canonicalize().unwrap();
        let dir = std::fs::File::open(&shown).unwrap();
        let top = Top::holding(&shown, &dir).unwrap();
        let home = tempfile::tempdir().unwrap();
        let point = home.path().canonicalize().unwrap();
        let uuid = |name: &str| subvolume::info(&shown.join(name)).unwrap().uuid;
        for name in ["old", "new", "newer"] {
            libbtrfsutil::create_subvolume(shown.join(name)).unwrap();
        }
        let device = top.device.to_str().unwrap().to_owned();
        let target = point.to_str().unwrap().to_owned();
        run(
            "mount",
            ["-o", "subvol=old,nosuid,noatime", &device, &target],
        );
        let seen = || -> Vec<Mount> {
            let mounts = mountinfo::read().unwrap();
            mounts
                .into_iter()
                .filter(|mount| mount.point == point)
                .collect()
        };
        let before = seen().remove(0);
        let place = Place {
            top: top.clone(),
            dataset: crate::logic::name::DatasetName::parse("web").unwrap(),
            live: point.clone(),
            relative: "new".into(),
            occupant: crate::fs::btrfs::place::Occupant::Subvolume,
            is_mount: true,
            entry: None,
        };
        show(&place, uuid("new")).unwrap();
        assert_eq!(subvolume::info(&point).unwrap().uuid, uuid("new"));
        replace_by_old_calls(&top, &before, "/newer".into()).unwrap();
        assert_eq!(subvolume::info(&point).unwrap().uuid, uuid("newer"));
        let after = seen();
        run("umount", [&target]);
        assert_eq!(after.len(), 1, "{after:?}");
        assert_eq!(after[0].options, before.options);
        assert_eq!(after[0].root, Path::new("/newer"));
    }
}
