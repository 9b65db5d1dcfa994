//! The promises of `fs::Filesystem`, asserted on real filesystems: whatever the kind and the layout of the datasets, `contract`
//! must hold. The rest is what only btrfs can get wrong: mounts, exchanges, sends in progress; and, in `zfs`, what only ZFS can.
//! ZFS is tried where `STANDIN_TEST_POOL` names a pool (see there).

#![allow(clippy::unwrap_used, clippy::print_stderr)]

#[path = "contract/drills.rs"]
mod drills;
#[path = "contract/forks.rs"]
mod forks;
#[path = "contract/replayed.rs"]
mod replayed;
#[path = "contract/restores.rs"]
mod restores;
#[path = "contract/stage.rs"]
mod stage;
mod support;
#[path = "contract/trouble.rs"]
mod trouble;
#[path = "contract/written.rs"]
mod written;
#[path = "contract/zfs.rs"]
mod zfs;

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use stage::*;
use standin::error::{Code, Failure};
use standin::fs::{Filesystem, FsError, Scan, Touch};
use standin::logic::transfer::Kind;

fn is_busy<T>(result: standin::fs::Result<T>) -> bool {
    matches!(result.err().unwrap().downcast_ref(), Some(FsError::Busy(_)))
}

fn is_missing<T>(result: standin::fs::Result<T>) -> bool {
    matches!(
        result.err().unwrap().downcast_ref(),
        Some(FsError::Missing(_))
    )
}

/// What every implementation promises. The live datasets exist; points of epochs 1 to 3 are made and destroyed.
fn contract(fs: &dyn Filesystem) {
    fs.prepare().unwrap();
    fs.prepare().unwrap();
    assert_eq!(listed(fs), []);
    assert_eq!(fs.partials().unwrap(), []);
    points_come_and_go(fs);
    changes_are_seen(fs);
    streams_are_measured_and_repeatable(fs);
    a_point_in_use_is_not_destroyed(fs);
    drills::copies_come_and_go(fs);
    forks::points_fork(fs);
    live_data_is_replaced_without_loss(fs);
    live_data_comes_and_goes(fs);
    fs.sweep().unwrap();
}

fn live_paths(fs: &dyn Filesystem) -> Vec<PathBuf> {
    fs.datasets().values().cloned().collect()
}

fn points_come_and_go(fs: &dyn Filesystem) {
    for path in live_paths(fs) {
        fs::write(path.join("file"), "one").unwrap();
    }
    let one = take(fs, 1, 1);
    assert_eq!(one.manifest.datasets.len(), fs.datasets().len());
    assert_eq!(fs.list().unwrap(), std::slice::from_ref(&one));
    for (dataset, path) in fs.datasets() {
        fs::write(path.join("file"), "two").unwrap();
        let shown = fs.snapshot_path(dataset, &one.manifest.point).unwrap();
        assert_eq!(fs::read_to_string(shown.join("file")).unwrap(), "one");
        assert!(
            fs::write(shown.join("file"), "x").is_err(),
            "a point is read-only"
        );
        assert!(fs.space(dataset).unwrap().free > 0);
        assert_eq!(
            fs.live(dataset, Scan::Whole).unwrap().not_replicated,
            [""; 0]
        );
    }
    assert!(
        said(fs.snapshot(manifest(1, 1))).contains("exists"),
        "an id is taken once"
    );
    take(fs, 2, 2);
    take(fs, 1, 3);
    assert_eq!(listed(fs), [(1, 1), (1, 3), (2, 2)], "by rank");
    fs.sweep().unwrap();
    assert_eq!(
        listed(fs),
        [(1, 1), (1, 3), (2, 2)],
        "a sweep takes no point"
    );
    for point in [id(1, 1), id(1, 3), id(1, 1), id(9, 9), id(2, 2)] {
        fs.destroy(&point).unwrap();
    }
    assert_eq!(listed(fs), []);
    let dataset = fs.datasets().keys().next().unwrap();
    assert!(is_missing(fs.snapshot_path(dataset, &id(1, 1))));
    assert!(is_missing(fs.measure(dataset, None, &id(1, 1), 2)));
}

fn changes_are_seen(fs: &dyn Filesystem) {
    let last = live_paths(fs).pop().unwrap();
    fs::write(last.join("c"), "1").unwrap();
    let mut sequence = 10;
    let mut check = |what: &str, change: &dyn Fn(&Path)| {
        sequence += 1;
        let point = take(fs, 1, sequence);
        for _ in 0..3 {
            assert!(
                !fs.changed(&point).unwrap(),
                "nothing was written, before {what}"
            );
        }
        let mut watch = fs.watch(&point).unwrap();
        assert_eq!(watch.look(), Touch::Quiet, "nothing written, before {what}");
        change(&last.join("c"));
        assert_ne!(watch.look(), Touch::Quiet, "{what}");
        assert!(fs.changed(&point).unwrap(), "{what}");
        assert_eq!(watch.look(), Touch::Changed, "{what}, after a sync");
        assert!(fs.changed(&point).unwrap(), "{what}, asked again");
        fs.destroy(&point.manifest.point).unwrap();
        assert!(
            fs.changed(&point).unwrap(),
            "a point that is gone tells nothing"
        );
    };
    check("write", &|path| fs::write(path, "2").unwrap());
    let long_open = fs::File::options()
        .append(true)
        .open(last.join("c"))
        .unwrap();
    check("append", &|_| (&long_open).write_all(b"line\n").unwrap());
    check("fsync", &|_| {
        (&long_open).write_all(b"line\n").unwrap();
        long_open.sync_data().unwrap();
    });
    check("truncate", &|_| long_open.set_len(1).unwrap());
    check("mode", &|path| {
        fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap()
    });
    check("attribute", &|path| {
        rustix::fs::setxattr(path, "user.a", b"b", rustix::fs::XattrFlags::empty()).unwrap()
    });
    check("rename", &|path| {
        fs::rename(path, path.with_extension("d")).unwrap();
        fs::rename(path.with_extension("d"), path).unwrap();
    });
    check("unlink", &|path| fs::remove_file(path).unwrap());
    let open = fs::File::create(last.join("open")).unwrap();
    fs::remove_file(last.join("open")).unwrap();
    check("a write beside a file deleted while it is open", &|path| {
        fs::write(path, "4").unwrap()
    });
    drop(open);
}

fn streams_are_measured_and_repeatable(fs: &dyn Filesystem) {
    let (dataset, path) = fs.datasets().iter().next().unwrap();
    // Where sizes are estimates: metadata.
    let slack = if fs.kind() == Kind::Zfs { 100_000 } else { 0 };
    fs::write(path.join("big"), noise(5, 3_000_000)).unwrap();
    let one = take(fs, 1, 20);
    fs::write(path.join("more"), noise(6, 50_000)).unwrap();
    fs::rename(path.join("big"), path.join("renamed")).unwrap();
    let two = take(fs, 1, 21);
    let (one_id, two_id) = (&one.manifest.point, &two.manifest.point);
    for version in [1, 2] {
        let full = fs.measure(dataset, None, one_id, version).unwrap();
        assert_eq!(
            full.identity.snapshot,
            one.manifest.datasets[dataset].identity
        );
        assert_eq!((full.identity.base, full.identity.version), (None, version));
        let whole = stream(fs, dataset, None, one_id, version);
        assert!(full.data_bytes >= 3_000_000 && whole.len() as u64 > full.data_bytes);
        assert_eq!(
            whole,
            stream(fs, dataset, None, one_id, version),
            "repeatable"
        );
        let step = fs.measure(dataset, Some(one_id), two_id, version).unwrap();
        assert_eq!(
            step.identity.base,
            Some(one.manifest.datasets[dataset].identity)
        );
        let difference = stream(fs, dataset, Some(one_id), two_id, version);
        assert!((50_000..80_000 + slack).contains(&difference.len()));
        assert!((50_000..60_000 + slack as u64).contains(&step.data_bytes));
    }
    assert_eq!(
        fs.measure(dataset, None, one_id, 99)
            .unwrap()
            .identity
            .version,
        2
    );
    fs.destroy(one_id).unwrap();
    let gone = fs.send(dataset, Some(one_id), two_id, 1);
    assert!(matches!(
        gone.err().unwrap().downcast_ref(),
        Some(FsError::BadBase { .. })
    ));
    fs.destroy(two_id).unwrap();
}

fn a_point_in_use_is_not_destroyed(fs: &dyn Filesystem) {
    let (dataset, path) = fs.datasets().iter().next().unwrap();
    fs::write(path.join("big"), vec![5; 8_000_000]).unwrap();
    let one = take(fs, 1, 30).manifest.point;
    let two = take(fs, 1, 31).manifest.point;
    let mut outgoing = fs.send(dataset, None, &one, 1).unwrap();
    outgoing.read_exact(&mut [0; 100]).unwrap();
    assert!(is_busy(fs.destroy(&one)));
    assert_eq!(listed(fs), [(1, 30), (1, 31)]);
    fs.destroy(&two).unwrap();
    drop(outgoing);
    fs.destroy(&one).unwrap();
    assert_eq!(listed(fs), []);
}

fn live_data_is_replaced_without_loss(fs: &dyn Filesystem) {
    let read = |path: &Path| fs::read_to_string(path.join("state")).unwrap();
    for path in live_paths(fs) {
        fs::write(path.join("state"), "good").unwrap();
    }
    let good = take(fs, 2, 40);
    for path in live_paths(fs) {
        fs::write(path.join("state"), "bad").unwrap();
    }
    let kept = take(fs, 2, 41);
    let mut sequence = 41;
    for (dataset, path) in fs.datasets() {
        sequence += 1;
        let before = fs.live(dataset, Scan::Root).unwrap();
        let keep = manifest(2, sequence);
        let restored = fs
            .restore_live(dataset, &good.manifest.point, Some(&kept), keep)
            .unwrap();
        assert!(!restored.late_writes);
        assert_eq!((read(path), &restored.path), ("good".to_owned(), path));
        assert_ne!(fs.live(dataset, Scan::Root).unwrap().uuid, before.uuid);
        fs::write(path.join("state"), "writable").unwrap();
    }
    assert_eq!(listed(fs), [(2, 40), (2, 41)], "nothing to keep");
    assert!(fs.changed(&kept).unwrap(), "another subvolume is live now");

    // Written to after the last point: that is kept, in a point of this dataset alone.
    let kept = take(fs, 2, 50);
    let (dataset, path) = fs.datasets().iter().next().unwrap();
    fs::write(path.join("state"), "late").unwrap();
    let restored = fs
        .restore_live(dataset, &good.manifest.point, Some(&kept), manifest(2, 51))
        .unwrap();
    assert!(restored.late_writes);
    assert_eq!(read(path), "good");
    let late = fs.snapshot_path(dataset, &id(2, 51)).unwrap();
    assert_eq!(read(&late), "late");
    drop(late);
    assert_eq!(listed(fs), [(2, 40), (2, 41), (2, 50), (2, 51)]);

    let aside = path.parent().unwrap().join("aside-copy");
    match fs.restore_to(dataset, &id(2, 51), &aside) {
        Ok(()) => {
            fs::write(aside.join("new"), "writable").unwrap();
            assert_eq!(read(&aside), "late");
            assert!(said(fs.restore_to(dataset, &id(2, 51), &aside)).contains("exists already"));
        }
        Err(e) => assert!(matches!(
            e.downcast_ref(),
            Some(FsError::OtherFilesystem(_))
        )),
    }
    for point in [id(2, 40), id(2, 41), id(2, 50), id(2, 51)] {
        fs.destroy(&point).unwrap();
    }
}

/// A role that moves away and comes back: nothing is live in between, and nothing is kept that a point holds.
fn live_data_comes_and_goes(fs: &dyn Filesystem) {
    let (web, path) = fs.datasets().iter().next_back().unwrap();
    let read = || fs::read_to_string(path.join("state")).unwrap();
    let write = |word: &str| fs::write(path.join("state"), word).unwrap();
    let live = || fs.live_identity(web).unwrap();
    write("one");
    let one = take(fs, 3, 1);
    write("two");
    let two = take(fs, 3, 2);
    assert!(live().is_some());

    let mut sequence = 2;
    let mut keep = || {
        sequence += 1;
        manifest(3, sequence)
    };
    for kept in [Some(&two), None] {
        // Repeated, it is done already.
        let retired = fs.retire_live(web, kept, keep()).unwrap();
        let none = (false, uuid::Uuid::nil(), None);
        assert_eq!((retired.late_writes, retired.uuid, retired.aside), none);
        assert_eq!(live(), None);
        assert!(is_missing(fs.live(web, Scan::Root)));
    }
    assert_eq!(listed(fs), [(3, 1), (3, 2)]);

    let restored = fs
        .restore_live(web, &one.manifest.point, None, keep())
        .unwrap();
    assert_eq!((restored.late_writes, live()), (false, Some(restored.uuid)));
    // An attempt that came as far as the exchange is repeated, with the same point and with another.
    let again = fs
        .restore_live(web, &one.manifest.point, None, keep())
        .unwrap();
    assert_eq!(again.uuid, restored.uuid);
    let other = fs
        .restore_live(web, &two.manifest.point, None, keep())
        .unwrap();
    assert_eq!((other.late_writes, live()), (false, Some(other.uuid)));
    assert_ne!(other.uuid, restored.uuid);
    assert_eq!(listed(fs), [(3, 1), (3, 2)], "an untouched copy is held");
    assert_eq!(read(), "two");

    write("late");
    let late = keep();
    let retired = fs.retire_live(web, Some(&two), late.clone()).unwrap();
    assert!(retired.late_writes && live().is_none());
    let shown = fs.snapshot_path(web, &late.point).unwrap();
    assert_eq!(fs::read_to_string(shown.join("state")).unwrap(), "late");
    drop(shown);
    fs.restore_live(web, &one.manifest.point, None, keep())
        .unwrap();
    assert_eq!(read(), "one");
    for point in [one.manifest.point, two.manifest.point, late.point] {
        fs.destroy(&point).unwrap();
    }
}

#[test]
fn in_a_mounted_tree() {
    if !ready("in_a_mounted_tree") {
        return;
    }
    let disk = Disk::new(512);
    fs::create_dir(disk.path().join("srv")).unwrap();
    let (web, db) = (disk.subvolume("srv/web"), disk.subvolume("srv/db"));
    contract(&btrfs(&[("web", &web), ("db", &db)]));
    assert_nothing_left(&disk);
}

#[test]
fn as_a_mount_of_its_own() {
    if !ready("as_a_mount_of_its_own") {
        return;
    }
    let mut disk = Disk::new(512);
    disk.subvolume("@web");
    disk.subvolume("@db");
    let web = disk.mount_subvolume("web", "noatime,nosuid", "@web");
    let db = disk.mount_subvolume("db", "relatime", "@db");
    let options = |path: &Path| must("findmnt", &["-n", "-o", "VFS-OPTIONS", text(path)]);
    let before = (options(&web), options(&db));
    let lines = [disk.line(&web, "@web"), disk.line(&db, "/@db")];
    let lines = lines.map(|line| line.replace("noatime", "nosuid,noatime"));
    let fstab = disk.fstab(&lines);
    contract(&btrfs(&[("web", &web), ("db", &db)]).fstab(fstab));
    assert_eq!((options(&web), options(&db)), before);
    let roots = must("findmnt", &["-n", "-o", "FSROOT", text(&web)]);
    assert_eq!(roots.trim(), "/@web", "one mount, of the name in fstab");
    assert_nothing_left(&disk);
}

#[test]
fn on_two_filesystems() {
    if !ready("on_two_filesystems") {
        return;
    }
    let (one, two) = (Disk::new(400), Disk::new(400));
    let (web, db) = (one.subvolume("web"), two.subvolume("db"));
    contract(&btrfs(&[("web", &web), ("db", &db)]));
    assert_nothing_left(&one);
    assert_nothing_left(&two);
}

/// After everything was destroyed and swept, no snapshot is left anywhere.
fn assert_nothing_left(disk: &Disk) {
    let found = must("btrfs", &["subvolume", "list", "-o", text(disk.path())]);
    assert!(!found.contains(".standin"), "{found}");
}

#[test]
fn a_thousand_points_are_listed_quickly() {
    if !ready("a_thousand_points_are_listed_quickly") {
        return;
    }
    let disk = Disk::new(1024);
    let web = disk.subvolume("web");
    let fs = btrfs(&[("web", &web)]);
    fs.prepare().unwrap();
    for sequence in 0..1000 {
        take(&fs, 1, sequence);
    }
    let start = Instant::now();
    assert_eq!(listed(&fs).len(), 1000);
    let took = start.elapsed();
    eprintln!("1,000 points listed in {took:?}");
    assert!(took.as_millis() < 200, "{took:?}");
}

#[test]
fn wrong_places_are_refused_with_a_way_out() {
    if !ready("wrong_places_are_refused_with_a_way_out") {
        return;
    }
    let disk = Disk::new(256);
    let plain = disk.path().join("plain");
    fs::create_dir(&plain).unwrap();
    fs::write(plain.join("file"), "x").unwrap();
    let snapshot = |path: &Path| said(btrfs(&[("web", path)]).snapshot(manifest(1, 1)));
    let message = snapshot(&plain);
    assert!(
        message.contains("not a btrfs subvolume") && message.contains("btrfs subvolume create"),
        "{message}"
    );
    let message = snapshot(disk.path());
    assert!(message.contains("top level"), "{message}");
    let elsewhere = || btrfs(&[("web", Path::new("/proc/self/x"))]).prepare();
    let message = said(elsewhere());
    assert!(message.contains("not on a btrfs filesystem"), "{message}");
    let code = |result: standin::fs::Result<_>| Failure::code_of(&result.err().unwrap());
    assert_eq!(code(elsewhere()), Code::Usage);
    let taken = |path: &Path| code(btrfs(&[("web", path)]).snapshot(manifest(1, 1)).map(|_| ()));
    assert_eq!(taken(&plain), Code::Usage);
    assert_eq!(taken(&disk.path().join("absent")), Code::NotFound);
    fs::remove_file(plain.join("file")).unwrap();
    assert_eq!(taken(&plain), Code::NotFound);
    assert!(snapshot(&plain).contains("is an empty directory"));
    let absent = btrfs(&[("web", &disk.path().join("a/b"))]);
    absent.prepare().unwrap();
    assert_eq!(listed(&absent), []);
    assert!(is_missing(absent.snapshot(manifest(1, 1))));
    assert!(is_missing(absent.live(&dataset("web"), Scan::Root)));
}

#[test]
fn what_is_not_replicated_is_told() {
    if !ready("what_is_not_replicated_is_told") {
        return;
    }
    let disk = Disk::new(256);
    let web = disk.subvolume("web");
    disk.subvolume("web/cache");
    fs::create_dir(web.join("db")).unwrap();
    must("chattr", &["+C", text(&web.join("db"))]);
    fs::write(web.join("db/table"), "x").unwrap();
    fs::write(web.join("locked"), "x").unwrap();
    must("chattr", &["+i", text(&web.join("locked"))]);
    let fs = btrfs(&[("web", &web)]);
    let root = fs.live(&dataset("web"), Scan::Root).unwrap().not_replicated;
    assert_eq!(root.len(), 1, "{root:?}");
    assert!(root[0].starts_with("cache is a nested subvolume"));
    let whole = fs
        .live(&dataset("web"), Scan::Whole)
        .unwrap()
        .not_replicated;
    assert_eq!(whole, root, "flags of files are carried");
    let taken = take(&fs, 1, 1);
    assert_eq!(
        taken.manifest.datasets[&dataset("web")].not_replicated,
        root
    );
    // Looking changes nothing.
    fs.live(&dataset("web"), Scan::Whole).unwrap();
    assert!(!fs.changed(&taken).unwrap());
    must("chattr", &["-i", text(&web.join("locked"))]);
    must("chattr", &["+a", text(&web)]);
    let root = fs.live(&dataset("web"), Scan::Root).unwrap().not_replicated;
    assert!(root[1].starts_with("the top directory is immutable or append-only"));
    must("chattr", &["-a", text(&web)]);

    must("fallocate", &["-l", "1M", text(&web.join("reserved"))]);
    must("btrfs", &["quota", "enable", text(disk.path())]);
    must("btrfs", &["qgroup", "limit", "100M", text(&web)]);
    let live = fs.live(&dataset("web"), Scan::Whole).unwrap();
    let said = live.not_replicated.join("\n");
    assert!(said.contains("1 files have or had preallocated"), "{said}");
    assert!(said.contains("a quota limit is set"), "{said}");
    let taken = take(&fs, 1, 2);
    let told = &taken.manifest.datasets[&dataset("web")].not_replicated;
    assert!(told.join(" ").contains("a quota limit is set"), "{told:?}");
    must("btrfs", &["quota", "disable", text(disk.path())]);

    // A swap file in use keeps snapshots from being taken, but not one in a subvolume of its own.
    assert_eq!(live.prevents, [""; 0]);
    for (dir, prevents) in [("cache", 0), ("db", 1)] {
        let file = web.join(dir).join("swap");
        must(
            "btrfs",
            &["filesystem", "mkswapfile", "--size", "16M", text(&file)],
        );
        // Not where swapping is forbidden, as in many containers.
        if !Command::new("swapon")
            .arg(&file)
            .status()
            .is_ok_and(|status| status.success())
        {
            println!("SKIPPED the swap file of what_is_not_replicated_is_told: swapon is refused");
            break;
        }
        let live = fs.live(&dataset("web"), Scan::Whole);
        let taken = fs.snapshot(manifest(2, 3));
        must("swapoff", &[text(&file)]);
        let live = live.unwrap();
        assert_eq!(live.prevents.len(), prevents, "{:?}", live.prevents);
        assert_eq!(taken.is_err(), prevents == 1);
        let named = live.prevents.iter().all(|said| said.contains(text(&file)));
        assert!(named, "{:?}", live.prevents);
    }

    // One that is a dataset is not complained about.
    let both = btrfs(&[("web", &web), ("cache", &web.join("cache"))]);
    let live = both.live(&dataset("web"), Scan::Root).unwrap();
    assert_eq!(live.nested, [""; 0].map(std::path::PathBuf::from));
    assert!(!live.not_replicated.join(" ").contains("cache"));
}

#[test]
fn a_point_another_program_sends_goes_back() {
    if !ready("a_point_another_program_sends_goes_back") {
        return;
    }
    let disk = Disk::new(256);
    let web = disk.subvolume("web");
    fs::write(web.join("big"), vec![7; 20_000_000]).unwrap();
    let fs = btrfs(&[("web", &web)]);
    let point = take(&fs, 1, 1);
    let snapshot = fs
        .snapshot_path(&dataset("web"), &point.manifest.point)
        .unwrap();
    let mut other = std::process::Command::new("btrfs")
        .args(["send", "-q", text(&snapshot)])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut out = other.stdout.take().unwrap();
    out.read_exact(&mut [0; 100]).unwrap();
    assert!(is_busy(fs.destroy(&point.manifest.point)));
    assert_eq!(
        fs.list().unwrap(),
        std::slice::from_ref(&point),
        "whole again"
    );
    drop(out);
    other.wait().unwrap();
    fs.destroy(&point.manifest.point).unwrap();
    assert_eq!(listed(&fs), []);
}

#[test]
fn tampering_is_noticed() {
    if !ready("tampering_is_noticed") {
        return;
    }
    let disk = Disk::new(256);
    let web = disk.subvolume("web");
    fs::write(web.join("file"), "x").unwrap();
    let fs = btrfs(&[("web", &web)]);
    let (one, two) = (take(&fs, 1, 1), take(&fs, 1, 2));
    let snapshot = fs
        .snapshot_path(&dataset("web"), &one.manifest.point)
        .unwrap();
    must(
        "btrfs",
        &["property", "set", "-ts", text(&snapshot), "ro", "false"],
    );
    assert_eq!(listed(&fs), [(1, 2)], "a writable snapshot is no point");
    fs::write(snapshot.join("file"), "y").unwrap();
    must(
        "btrfs",
        &["property", "set", "-ts", text(&snapshot), "ro", "true"],
    );
    let base = Some(&one.manifest.point);
    let send = fs.send(&dataset("web"), base, &two.manifest.point, 1);
    assert!(matches!(
        send.err().unwrap().downcast_ref(),
        Some(FsError::BadBase { .. })
    ));
    let message = said(fs.send(&dataset("web"), None, &one.manifest.point, 1));
    assert!(message.contains("changed after it was stored"), "{message}");
}
