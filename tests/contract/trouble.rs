//! What is told when the filesystem is full, read-only, or the wrong place.

use std::fs;
use std::path::Path;

use standin::error::{Code, Failure};
use standin::fs::btrfs::Btrfs;
use standin::fs::{Filesystem, FsError, Limits, Receipt};
use standin::logic::name::RoleName;

use super::stage::*;

#[test]
fn a_full_filesystem_is_told_before_the_first_write() {
    if !ready("a_full_filesystem_is_told_before_the_first_write") {
        return;
    }
    let (from, to) = (Disk::new(256), Disk::new(256));
    let source = btrfs(&[("web", &from.subvolume("web"))]);
    let point = take(&source, 1, 1);
    let (id, web) = (&point.manifest.point, dataset("web"));
    let measured = source.measure(&web, None, id, 2).unwrap();
    let receipt = Receipt {
        manifest: point.manifest.clone(),
        dataset: web.clone(),
        identity: measured.identity,
        base: None,
        data_bytes: 0,
        flags: measured.flags,
        accept: standin::logic::accept::Accept::default(),
    };
    let limits = Limits {
        reserve: 1 << 40,
        ..Limits::default()
    };
    let datasets = [(web, to.path().join("web"))].into();
    let full = Btrfs::new(RoleName::parse("shop").unwrap(), datasets, limits).unwrap();
    full.prepare().unwrap();
    let error = full.receive(&receipt).err().unwrap();
    assert_eq!(Failure::code_of(&error), Code::NoSpace);
    assert!(matches!(
        error.downcast_ref(),
        Some(FsError::NoSpace { .. })
    ));
    let shown = to.path().canonicalize().unwrap();
    let expected = format!("store web of {id}: {} is full (", text(&shown));
    assert!(format!("{error:#}").starts_with(&expected), "{error:#}");
    let staging = to.path().join(".standin/.staging/shop");
    assert_eq!(fs::read_dir(staging).unwrap().count(), 0);
}

#[test]
fn a_read_only_filesystem_is_told() {
    if !ready("a_read_only_filesystem_is_told") {
        return;
    }
    let disk = Disk::new(256);
    let fs = btrfs(&[("web", &disk.subvolume("web"))]);
    fs.prepare().unwrap();
    must("mount", &["-o", "remount,ro", text(disk.path())]);
    let (prepared, taken) = (said(fs.prepare()), said(fs.snapshot(manifest(1, 1))));
    must("mount", &["-o", "remount,rw", text(disk.path())]);
    for message in [prepared, taken] {
        assert!(message.contains("is mounted read-only"), "{message}");
        assert!(message.contains("remount"), "{message}");
        assert!(!message.contains("/proc/"), "{message}");
    }
}

#[test]
fn a_copy_does_not_go_into_live_data() {
    if !ready("a_copy_does_not_go_into_live_data") {
        return;
    }
    let mut disk = Disk::new(256);
    let web = disk.subvolume("web");
    let other = disk.mount_subvolume("seen", "noatime", "web");
    let fs = btrfs(&[("web", &web)]);
    let point = take(&fs, 1, 1).manifest.point;
    let restore = |target: &Path| fs.restore_to(&dataset("web"), &point, target);
    for target in [
        web.join("copy"),
        web.join("deep/er/copy"),
        other.join("copy"),
        disk.path().join(".standin/copy"),
        disk.path().join(".standin/shop/deep/copy"),
    ] {
        let error = restore(&target).unwrap_err();
        assert_eq!(Failure::code_of(&error), Code::Usage, "{error:#}");
        assert!(target.symlink_metadata().is_err());
    }
    assert!(!web.join("deep").exists());
    // Beside it, parents are made.
    restore(&disk.path().join("web-copies/one")).unwrap();
}
