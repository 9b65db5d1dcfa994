//! Restores of live data that only btrfs can get wrong: nothing there, something in the way, a crash in between.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use standin::fs::btrfs::Btrfs;
use standin::fs::{Filesystem, Scan};
use standin::logic::manifest::Stored;

use super::stage::*;

#[test]
fn a_restore_makes_what_was_not_there() {
    if !ready("a_restore_makes_what_was_not_there") {
        return;
    }
    let disk = Disk::new(256);
    let web = disk.subvolume("web");
    fs::write(web.join("state"), "good").unwrap();
    let fs = btrfs(&[("web", &web)]);
    let point = take(&fs, 1, 1);
    let restore = |sequence| {
        fs.restore_live(
            &dataset("web"),
            &point.manifest.point,
            Some(&point),
            manifest(1, sequence),
        )
    };
    let good = || fs::read_to_string(web.join("state")).unwrap() == "good";

    must("btrfs", &["subvolume", "delete", text(&web)]);
    assert!(!restore(2).unwrap().late_writes && good());

    must("btrfs", &["subvolume", "delete", text(&web)]);
    fs::create_dir(&web).unwrap();
    assert!(!restore(3).unwrap().late_writes && good());

    fs::create_dir(web.join("m")).unwrap();
    must("mount", &["-t", "tmpfs", "tmpfs", text(&web.join("m"))]);
    let message = said(restore(4));
    must("umount", &[text(&web.join("m"))]);
    assert!(message.contains("mounted inside"), "{message}");
}

fn create(path: &Path) {
    must("btrfs", &["subvolume", "create", text(path)]);
}

fn read_only(path: &Path, word: &str) {
    must("btrfs", &["property", "set", "-ts", text(path), "ro", word]);
}

/// What is nested in the live copy stays at its path; what cannot be moved is kept, and named.
fn carries(disk: &Disk, web: &Path) {
    let file = |path: &str| fs::read_to_string(web.join(path).join("file")).ok();
    let fs = btrfs(&[("web", web)]);
    for path in ["cache", "cache/inner", "locked"] {
        create(&web.join(path));
        fs::write(web.join(path).join("file"), path).unwrap();
    }
    fs::create_dir_all(web.join("dir/taken")).unwrap();
    fs::write(web.join("dir/taken/file"), "mine").unwrap();
    let point = take(&fs, 1, 1);
    fs::remove_dir_all(web.join("dir")).unwrap();
    for path in ["later", "dir", "dir/taken"] {
        create(&web.join(path));
        fs::write(web.join(path).join("file"), path).unwrap();
    }
    read_only(&web.join("locked"), "true");
    let open = fs::File::open(web.join("cache/file")).unwrap();
    let live = fs.live(&dataset("web"), Scan::Root).unwrap();
    assert_eq!(live.nested.len(), 6);
    let kept = take(&fs, 1, 2);
    let paths = |found: &[PathBuf]| -> Vec<String> {
        found.iter().map(|path| text(path).to_owned()).collect()
    };
    let restore = |sequence| {
        fs.restore_live(
            &dataset("web"),
            &point.manifest.point,
            Some(&kept),
            manifest(1, sequence),
        )
        .unwrap()
    };
    let restored = restore(3);
    assert!(!restored.late_writes);
    assert_eq!(paths(&restored.nested_moved), ["cache", "later"]);
    assert_eq!(paths(&restored.nested_aside), ["dir", "locked"]);
    for path in ["cache", "cache/inner", "later"] {
        assert_eq!(file(path).as_deref(), Some(path));
    }
    assert_eq!(file("locked"), None);
    assert_eq!(file("dir/taken").as_deref(), Some("mine"));
    let mut word = String::new();
    (&open).read_to_string(&mut word).unwrap();
    assert_eq!(word, "cache", "open files stay");
    let aside = restored.aside.unwrap();
    assert!(aside.why.contains("dir, locked"), "{aside:?}");
    let seen = must(
        "find",
        &[text(&disk.path().join(".standin/.aside")), "-name", "file"],
    );
    assert_eq!(seen.lines().count(), 3, "{seen}");
    // The top is mounted: the path can be gone to.
    let kept_locked = Path::new(&aside.path).join("tree/locked/file");
    assert_eq!(fs::read_to_string(kept_locked).unwrap(), "locked");

    let restored = restore(4);
    assert!(
        !restored.late_writes,
        "a copy of a point, but for what was moved over"
    );
    assert_eq!(paths(&restored.nested_moved), ["cache", "later"]);
    assert_eq!((restored.nested_aside.len(), restored.aside), (0, None));
    assert_eq!(file("cache/inner").as_deref(), Some("cache/inner"));
}

#[test]
fn nested_subvolumes_stay_where_they_are() {
    if !ready("nested_subvolumes_stay_where_they_are") {
        return;
    }
    let mut disk = Disk::new(256);
    let web = disk.subvolume("web");
    carries(&disk, &web);
    disk = Disk::new(256);
    disk.subvolume("@web");
    let web = disk.mount_subvolume("web", "noatime", "@web");
    carries(&disk, &web);
}

/// A restore of `point` that was prepared and then cut; gives its directory.
fn interrupted(disk: &Disk, fs: &Btrfs, point: &Stored, name: &str, keep: u64) -> PathBuf {
    let dir = disk.path().join(".standin/.staging/shop/.restore-web");
    fs::create_dir(&dir).unwrap();
    let snapshot = fs
        .snapshot_path(&dataset("web"), &point.manifest.point)
        .unwrap();
    let tree = dir.join("tree");
    must(
        "btrfs",
        &["subvolume", "snapshot", text(&snapshot), text(&tree)],
    );
    let new = must("btrfs", &["subvolume", "show", text(&tree)]);
    let new = new
        .lines()
        .find_map(|line| line.trim().strip_prefix("UUID:"));
    let intent = serde_json::json!({
        "dataset": "web",
        "live": fs.datasets()[&dataset("web")],
        "relative": name,
        "new": new.unwrap().trim(),
        "kept": null,
        "keep": manifest(1, keep),
    });
    fs::write(dir.join("intent.json"), intent.to_string()).unwrap();
    dir
}

/// A crash on either side of the exchange: `prepare` undoes the one and finishes the other.
fn settles(disk: &Disk, web: &Path, name: &str) {
    let state = |path: &Path| fs::read_to_string(path.join("state")).unwrap();
    fs::write(web.join("state"), "good").unwrap();
    for path in ["cache", "early"] {
        create(&web.join(path));
        fs::write(web.join(path).join("state"), path).unwrap();
    }
    let fs = btrfs(&[("web", web)]);
    fs.prepare().unwrap();
    let point = take(&fs, 1, 1);

    fs::write(web.join("state"), "bad").unwrap();
    let dir = interrupted(disk, &fs, &point, name, 2);
    fs.prepare().unwrap();
    assert_eq!(state(web), "bad", "undone");
    assert!(!dir.exists());
    assert_eq!(listed(&fs), [(1, 1)]);

    let dir = interrupted(disk, &fs, &point, name, 3);
    let flags = rustix::fs::RenameFlags::EXCHANGE;
    let here = rustix::fs::CWD;
    rustix::fs::renameat_with(here, dir.join("tree"), here, disk.path().join(name), flags).unwrap();
    assert_eq!(listed(&fs), [(1, 1)]);
    // One of them was moved before the crash.
    fs::rename(dir.join("tree/early"), disk.path().join(name).join("early")).unwrap();
    fs.prepare().unwrap();
    assert_eq!(state(web), "good", "finished");
    for path in ["cache", "early"] {
        assert_eq!(state(&web.join(path)), path);
    }
    assert!(!dir.exists());
    assert_eq!(listed(&fs), [(1, 1), (1, 3)]);
    let late = fs.snapshot_path(&dataset("web"), &id(1, 3)).unwrap();
    assert_eq!(state(&late), "bad");

    fs::create_dir(&dir).unwrap();
    fs::write(dir.join("intent.json"), "damaged").unwrap();
    fs.prepare().unwrap();
    assert!(!dir.exists(), "set aside");
}

#[test]
fn an_interrupted_restore_is_settled_at_the_next_start() {
    if !ready("an_interrupted_restore_is_settled_at_the_next_start") {
        return;
    }
    let mut disk = Disk::new(256);
    let web = disk.subvolume("web");
    settles(&disk, &web, "web");
    disk = Disk::new(256);
    disk.subvolume("@web");
    let web = disk.mount_subvolume("web", "noatime", "@web");
    settles(&disk, &web, "@web");
}

/// A snapshot whose own directory is immutable is no harder to destroy.
#[test]
fn locked_trees_come_and_go() {
    if !ready("locked_trees_come_and_go") {
        return;
    }
    let disk = Disk::new(256);
    let web = disk.subvolume("web");
    let fs = btrfs(&[("web", &web)]);
    must("chattr", &["+i", text(&web)]);
    let point = take(&fs, 1, 1);
    must("chattr", &["-i", text(&web)]);
    fs.destroy(&point.manifest.point).unwrap();
    assert_eq!(listed(&fs), []);
}
