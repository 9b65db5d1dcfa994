//! Live paths that are mounts of their own: what fstab says of them decides, mounted or not.

use std::fs;
use std::path::Path;

use standin::fs::{AfterReboot, Filesystem};

use super::stage::*;
use super::support::cluster::Pair;

fn unmount(path: &Path) {
    must("umount", &[text(path)]);
}

fn root(path: &Path) -> String {
    must("findmnt", &["-n", "-o", "FSROOT", text(path)])
        .trim()
        .to_owned()
}

/// The path lies on one btrfs filesystem, and what belongs there on another.
#[test]
fn points_go_where_the_data_are_meant_to_be() {
    if !ready("points_go_where_the_data_are_meant_to_be") {
        return;
    }
    let (below, disk) = (Disk::new(256), Disk::new(256));
    let www = below.path().canonicalize().unwrap().join("www");
    let label = format!("web-{}", std::process::id());
    must("btrfs", &["filesystem", "label", text(disk.path()), &label]);
    disk_sync(&disk);
    for how in [
        disk.device(),
        format!("UUID={}", disk.uuid()),
        format!("UUID=\"{}\"", disk.uuid()),
        format!("LABEL={label}"),
    ] {
        let line = format!("{how} {}/ btrfs noatime,subvol=@www,nofail 0 0", text(&www));
        let fs = btrfs(&[("web", &www)]).fstab(disk.fstab(&[line]));
        fs.prepare().unwrap();
        assert_eq!(fs.live_identity(&dataset("web")).unwrap(), None, "{how}");
        let said = fs.after_reboot(&dataset("web")).unwrap();
        assert!(said.sentence.contains("nothing") && !said.is_problem);
    }
    assert!(disk.path().join(".standin/shop").is_dir());
    assert!(!below.path().join(".standin").exists());

    // What is live there is seen, taken, taken away and brought back while nothing is mounted; then it is mounted.
    disk.subvolume("@www");
    fs::write(disk.path().join("@www/state"), "one").unwrap();
    let fs = btrfs(&[("web", &www)]).fstab(disk.fstab(&[disk.line(&www, "/@www")]));
    assert!(fs.live_identity(&dataset("web")).unwrap().is_some());
    let one = take(&fs, 1, 1);
    fs.retire_live(&dataset("web"), Some(&one), manifest(1, 2))
        .unwrap();
    assert!(!disk.path().join("@www").exists());
    let restored = fs
        .restore_live(&dataset("web"), &id(1, 1), None, manifest(1, 2))
        .unwrap();
    assert_eq!(root(&www), "/@www");
    assert_eq!(fs::read_to_string(www.join("state")).unwrap(), "one");
    assert_eq!(
        fs.live_identity(&dataset("web")).unwrap(),
        Some(restored.uuid)
    );
    let options = must("findmnt", &["-n", "-o", "VFS-OPTIONS", text(&www)]);
    assert_eq!(options.trim(), "rw,noatime", "as the line says");
    assert_eq!(listed(&fs), [(1, 1)]);
    unmount(&www);
    assert!(!below.path().join(".standin").exists());
}

#[test]
fn a_path_below_one_that_is_not_mounted_is_refused() {
    if !ready("a_path_below_one_that_is_not_mounted_is_refused") {
        return;
    }
    let disk = Disk::new(256);
    let srv = disk.path().canonicalize().unwrap().join("srv");
    let www = srv.join("www");
    let fstab = |line: String| btrfs(&[("web", &www)]).fstab(disk.fstab(&[line]));
    let check = |line: String, words: &str| {
        let message = said(fstab(line).prepare());
        assert!(message.contains(words), "{message}");
    };
    check(disk.line(&srv, "@srv"), "srv is not mounted, though");
    check(
        format!("UUID=no-such {} btrfs subvol=x 0 0", text(&www)),
        "which is not here",
    );
    check(
        format!("{} {} btrfs defaults 0 0", disk.device(), text(&www)),
        "does not say which subvolume",
    );
    check(
        format!("{} {} btrfs subvolid=999 0 0", disk.device(), text(&www)),
        "subvol=/NAME",
    );
    assert!(!disk.path().join(".standin").exists());
}

/// What is in use stays, and is told; what nobody could find again stays too.
#[test]
fn a_mount_that_cannot_go_is_left_alone() {
    if !ready("a_mount_that_cannot_go_is_left_alone") {
        return;
    }
    let mut disk = Disk::new(256);
    disk.subvolume("@web");
    let web = disk.mount_subvolume("web", "noatime", "@web");
    fs::write(web.join("state"), "one").unwrap();
    let fs = btrfs(&[("web", &web)]).fstab(disk.fstab(&[disk.line(&web, "@web")]));
    let one = take(&fs, 1, 1);
    let live = fs.live_identity(&dataset("web")).unwrap();
    let retire = |fs: &dyn Filesystem| {
        let retired = fs.retire_live(&dataset("web"), Some(&one), manifest(1, 2));
        let message = said(retired);
        assert_eq!(fs.live_identity(&dataset("web")).unwrap(), live);
        assert_eq!((root(&web).as_str(), listed(fs).len()), ("/@web", 1));
        message
    };
    let open = fs::File::open(web.join("state")).unwrap();
    let message = retire(&fs);
    let me = format!("({})", std::process::id());
    assert!(
        message.contains("in use by") && message.contains(&me),
        "{message}"
    );
    drop(open);
    for lines in [
        vec![],
        vec![disk.line(&web, "@other")],
        vec![format!(
            "{} {} btrfs subvolid=256 0 0",
            disk.device(),
            text(&web)
        )],
    ] {
        let fs = btrfs(&[("web", &web)]).fstab(disk.fstab(&lines));
        let message = retire(&fs);
        assert!(message.contains("subvol=/@web 0 0"), "{message}");
    }
    let fs = btrfs(&[("web", &web)]).fstab(disk.fstab(&[disk.line(&web, "@web")]));
    fs.retire_live(&dataset("web"), Some(&one), manifest(1, 2))
        .unwrap();
    assert_eq!(fs.live_identity(&dataset("web")).unwrap(), None);
    assert_eq!(listed(&fs), [(1, 1)]);
}

/// A nested subvolume is in no point: it goes aside with what it lies in, and is named.
#[test]
fn what_no_point_holds_goes_aside() {
    if !ready("what_no_point_holds_goes_aside") {
        return;
    }
    let disk = Disk::new(256);
    let web = disk.subvolume("web");
    disk.subvolume("web/cache");
    fs::write(web.join("cache/file"), "cached").unwrap();
    let fs = btrfs(&[("web", &web)]).fstab(disk.fstab(&[]));
    let one = take(&fs, 1, 1);
    let retired = fs
        .retire_live(&dataset("web"), Some(&one), manifest(1, 2))
        .unwrap();
    assert!(!retired.late_writes && !web.exists());
    assert_eq!(retired.nested_aside, [Path::new("cache")]);
    let aside = Path::new(&retired.aside.unwrap().path).join("tree/cache/file");
    assert_eq!(fs::read_to_string(aside).unwrap(), "cached");
    fs::create_dir(&web).unwrap();
    fs::write(web.join("file"), "x").unwrap();
    let message = said(fs.retire_live(&dataset("web"), None, manifest(1, 2)));
    assert!(message.contains("is a directory"), "{message}");
    assert!(fs.live_identity(&dataset("web")).is_err());
}

/// What is done to a copy of a point before another takes its place, and whether it is kept then.
fn touched(options: &str, is_kept: bool, touch: &dyn Fn(&Path)) {
    let mut disk = Disk::new(256);
    disk.subvolume("@web");
    let web = disk.mount_subvolume("web", options, "@web");
    let fs = btrfs(&[("web", &web)]).fstab(disk.fstab(&[disk.line(&web, "@web")]));
    fs::create_dir_all(web.join("deep/er")).unwrap();
    disk.subvolume("@web/deep/nested");
    for file in ["state", "deep/er/file"] {
        fs::write(web.join(file), "one").unwrap();
    }
    let one = take(&fs, 1, 1);
    fs::write(web.join("state"), "two").unwrap();
    let two = take(&fs, 1, 2);
    let restore = |point, keep| {
        fs.restore_live(&dataset("web"), point, None, manifest(1, keep))
            .unwrap()
    };
    // The nested subvolume is moved over, which changes both copies.
    assert!(!restore(&one.manifest.point, 3).late_writes);
    assert!(web.join("deep/nested").metadata().is_ok());
    touch(&web);
    disk_sync(&disk);
    let restored = restore(&two.manifest.point, 4);
    assert_eq!(restored.late_writes, is_kept);
    assert_eq!(listed(&fs).len(), 2 + usize::from(is_kept));
    assert_eq!((restored.nested_moved.len(), restored.aside), (1, None));
}

/// What only the kernel's notes tell apart is held; whatever a person could miss is kept.
#[test]
fn a_copy_is_kept_for_what_was_done_to_it() {
    if !ready("a_copy_is_kept_for_what_was_done_to_it") {
        return;
    }
    let look = |web: &Path| {
        assert_eq!(fs::read_to_string(web.join("state")).unwrap(), "one");
        assert!(fs::read_dir(web.join("deep")).unwrap().count() > 0);
    };
    for options in ["noatime", "relatime", "strictatime"] {
        touched(options, false, &look);
    }
    let kept = |touch: &dyn Fn(&Path)| touched("noatime", true, touch);
    kept(&|web| fs::write(web.join("state"), "one").unwrap());
    kept(&|web| fs::rename(web.join("state"), web.join("other")).unwrap());
    kept(&|web| drop(must("touch", &[text(&web.join("state"))])));
    kept(&|web| drop(must("touch", &[text(&web.join("deep/er"))])));
    kept(&|web| drop(must("chattr", &["+C", text(&web.join("deep/er"))])));
    kept(&|web| drop(must("chattr", &["+A", text(&web.join("state"))])));
    kept(&|web| fs::remove_dir_all(web.join("deep/er")).unwrap());
    kept(&|web| {
        let name = web.join("state");
        rustix::fs::setxattr(name, "user.a", b"b", rustix::fs::XattrFlags::empty()).unwrap();
    });
}

/// A dataset in another one: the inner one goes first and comes last, and taking it out of the outer one is no change of that.
#[test]
fn datasets_in_one_another_come_and_go() {
    if !ready("datasets_in_one_another_come_and_go") {
        return;
    }
    let disk = Disk::new(256);
    let web = disk.subvolume("web");
    fs::create_dir(web.join("deep")).unwrap();
    let db = disk.subvolume("web/deep/db");
    let fs = btrfs(&[("web", &web), ("db", &db)]).fstab(disk.fstab(&[]));
    for path in [&web, &db] {
        fs::write(path.join("state"), "one").unwrap();
    }
    let one = take(&fs, 1, 1);
    for _ in 0..2 {
        for name in ["db", "web"] {
            let retired = fs
                .retire_live(&dataset(name), Some(&one), manifest(1, 2))
                .unwrap();
            assert!(
                !retired.late_writes && retired.aside.is_none(),
                "{retired:?}"
            );
        }
        assert!(!web.exists());
        for name in ["web", "db"] {
            let restored = fs.restore_live(&dataset(name), &id(1, 1), None, manifest(1, 2));
            assert!(!restored.unwrap().late_writes);
        }
        assert_eq!(fs::read_to_string(db.join("state")).unwrap(), "one");
        assert_eq!(listed(&fs), [(1, 1)]);
    }
}

fn disk_sync(disk: &Disk) {
    must("btrfs", &["filesystem", "sync", text(disk.path())]);
}

#[test]
fn a_reboot_is_foretold() {
    if !ready("a_reboot_is_foretold") {
        return;
    }
    let mut disk = Disk::new(256);
    disk.subvolume("@other");
    disk.subvolume("@web");
    let web = disk.mount_subvolume("web", "noatime", "@web");
    let (device, point) = (disk.device(), text(&web).to_owned());
    let number = must("btrfs", &["inspect-internal", "rootid", &point]);
    let line = |options: &str| vec![format!("{device} {point} btrfs {options} 0 0")];
    let ask = |lines: &[String]| {
        let fs = btrfs(&[("web", &web)]).fstab(disk.fstab(lines));
        fs.after_reboot(&dataset("web")).unwrap()
    };
    let check = |lines: &[String], is_problem: bool, words: &str, write: &str| {
        let said: AfterReboot = ask(lines);
        let AfterReboot { sentence, hint, .. } = &said;
        assert!(sentence.contains(words), "{lines:?}: {said:?}");
        assert_eq!(said.is_problem, is_problem, "{said:?}");
        let hint = hint.clone().unwrap_or_default();
        assert!(hint.ends_with(write), "{hint}");
    };
    check(&line("subvol=@web"), false, "mounts the live copy", "");
    let right = format!("{device} {point} btrfs noatime,subvol=/@web 0 0");
    let by_number = format!("noatime,subvolid={}", number.trim());
    check(&line(&by_number), true, "only until the next", &right);
    check(
        &line("noatime,subvolid=5"),
        true,
        "another subvolume",
        &right,
    );
    check(
        &line("noatime,subvol=@other"),
        true,
        "says subvol=/@other",
        &right,
    );
    check(&line("noatime"), true, "says no subvolume", &right);
    check(&line("noauto,subvol=@web"), false, "noauto", "");
    let other = format!(
        "UUID={} {point} btrfs subvol=@web",
        uuid::Uuid::from_u128(1)
    );
    let whole = format!("UUID={} {point} btrfs subvol=/@web 0 0", disk.uuid());
    check(&[other], true, "another filesystem", &whole);
    check(&[], false, "has no line for it", &whole);

    let fs = btrfs(&[("web", &web)]).fstab(disk.fstab(&line("noatime,subvol=@web")));
    fs.prepare().unwrap();
    fs.retire_live(&dataset("web"), None, manifest(1, 1))
        .unwrap();
    let right = format!("{device} {point} btrfs noatime,nofail,subvol=/@web 0 0");
    check(&line("noatime,subvol=@web"), true, "may stop at", &right);
    check(&line("nofail,subvol=@web"), false, "mounts nothing", "");
}

/// A node that stands in, whose live path is a mount that is not mounted: the daemon stores on the filesystem that is meant,
/// and tells what a reboot will do.
#[test]
fn a_daemon_stores_where_fstab_says() {
    if !ready("a_daemon_stores_where_fstab_says") {
        return;
    }
    let role = "every = \"manual\"\nkeep = { last = 2 }";
    let mut pair = Pair::new(&["files"], "", role);
    let disk = Disk::new(256);
    let live = pair.birch.live("files").canonicalize();
    let live = live.unwrap_or_else(|_| {
        let top = pair.birch.disk.path().canonicalize().unwrap();
        top.join("srv/files")
    });
    let line = disk.line(&live, "@files");
    let fstab = disk.fstab(&[line.replace(",nofail", "")]);
    pair.birch.stop();
    let word = text(&fstab).to_owned();
    pair.birch.env.push(("STANDIN_FSTAB", word));
    pair.birch.start();
    fs::write(pair.alder.live("files").join("state"), "one").unwrap();
    pair.alder.wait_for("the nodes are linked again", || {
        pair.alder.run(&["run", "web"]).code == 0
    });
    pair.birch
        .wait_for("the point is there", || pair.birch.points() == ["1.1"]);
    let points = |top: &Path| {
        let entries = fs::read_dir(top.join(".standin/web"));
        entries.map_or(0, |entries| entries.count())
    };
    assert_eq!(
        (points(disk.path()), points(pair.birch.disk.path())),
        (1, 0)
    );
    let check = || pair.birch.run(&["check"]).out;
    let said = check();
    assert!(said.contains("lacks nofail"), "{said}");
    fs::write(&fstab, line).unwrap();
    let said = check();
    assert!(said.contains("says nofail"), "{said}");
}
