//! Live copies that are exchanged or taken away by a process that is killed at each step: the same call, repeated, comes to
//! the same end, and nothing is lost or kept twice.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use standin::fs::Filesystem;
use standin::fs::btrfs::Btrfs;

use super::stage::*;

#[derive(Clone, Copy, PartialEq)]
enum Verb {
    Restore,
    Retire,
}

fn open(live: &Path, fstab: &Path) -> Btrfs {
    btrfs(&[("web", live)]).fstab(fstab.to_owned())
}

fn act(fs: &Btrfs, verb: Verb, sequence: u64) -> bool {
    let keep = manifest(1, sequence);
    let done = match verb {
        Verb::Restore => fs.restore_live(&dataset("web"), &id(1, 1), None, keep),
        Verb::Retire => fs.retire_live(&dataset("web"), None, keep),
    };
    done.unwrap().late_writes
}

/// Not a test by itself: the process that is killed.
#[test]
fn killed_child() {
    let Some(words) = std::env::var_os("STANDIN_TEST_CHILD") else {
        return;
    };
    let words = words.into_string().unwrap();
    let [verb, live, fstab] = words.split(':').collect::<Vec<_>>()[..] else {
        panic!("{words}");
    };
    let verb = match verb {
        "restore" => Verb::Restore,
        _ => Verb::Retire,
    };
    act(&open(Path::new(live), Path::new(fstab)), verb, 2);
}

/// Runs the child until it has frozen there, and kills it.
fn kill_at(freeze: &str, verb: Verb, live: &Path, fstab: &Path) {
    let verb = match verb {
        Verb::Restore => "restore",
        Verb::Retire => "retire",
    };
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "killed::killed_child", "--nocapture"])
        .env(
            "STANDIN_TEST_CHILD",
            format!("{verb}:{}:{}", text(live), text(fstab)),
        )
        .env("STANDIN_FREEZE", freeze)
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let stat = format!("/proc/{}/stat", child.id());
    let deadline = Instant::now() + Duration::from_secs(60);
    while !fs::read_to_string(&stat).is_ok_and(|stat| stat.contains(") T ")) {
        let ended = child.try_wait().unwrap();
        assert!(ended.is_none(), "{freeze} is not reached: {ended:?}");
        assert!(Instant::now() < deadline, "{freeze} is never reached");
        std::thread::yield_now();
    }
    child.kill().unwrap();
    child.wait().unwrap();
}

/// The live copy holds writes that no point has. After the crash and a repetition they are in exactly one point.
fn check(freeze: &str, verb: Verb, live: &Path, fstab: &Path) {
    let fs = open(live, fstab);
    let state = |path: &Path| fs::read_to_string(path.join("state")).unwrap();
    fs.restore_live(&dataset("web"), &id(1, 1), None, manifest(1, 9))
        .unwrap();
    fs::write(live.join("state"), "late").unwrap();
    // Whoever holds the filesystem keeps the child's recovery from being the whole story.
    kill_at(freeze, verb, live, fstab);
    fs.prepare().unwrap();
    act(&fs, verb, 3);
    let points = listed(&fs);
    assert_eq!(points.len(), 2, "{freeze}: {points:?}");
    let late = id(1, points[1].1);
    let kept = fs.snapshot_path(&dataset("web"), &late).unwrap();
    assert_eq!(state(&kept), "late", "{freeze}");
    let now = fs.live_identity(&dataset("web")).unwrap();
    match verb {
        Verb::Restore => assert_eq!(state(live), "good", "{freeze}"),
        Verb::Retire => assert_eq!(now, None, "{freeze}"),
    }
    fs.destroy(&late).unwrap();
    fs.sweep().unwrap();
}

fn settles(disk: &Disk, live: &Path, fstab: &Path) {
    let fs = open(live, fstab);
    fs.prepare().unwrap();
    fs::write(live.join("state"), "good").unwrap();
    take(&fs, 1, 1);
    for freeze in [
        "restore-intended",
        "restore-exchanged",
        "point-taken",
        "point-shown",
        "restore-carried",
    ] {
        check(freeze, Verb::Restore, live, fstab);
    }
    for freeze in [
        "retire-intended",
        "retire-unmounted",
        "retire-moved",
        "point-taken",
        "restore-carried",
    ] {
        check(freeze, Verb::Retire, live, fstab);
    }
    let staging = disk.path().join(".standin/.staging/shop");
    let left: Vec<PathBuf> = fs::read_dir(staging)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    assert_eq!(left, [""; 0].map(PathBuf::from));
    assert!(!disk.path().join(".standin/.aside/shop").exists());
}

#[test]
fn a_repeated_move_comes_to_the_same_end() {
    if !ready("a_repeated_move_comes_to_the_same_end") {
        return;
    }
    let disk = Disk::new(256);
    let web = disk.subvolume("web");
    settles(&disk, &web, &disk.fstab(&[]));
}

#[test]
fn a_repeated_move_of_a_mount_comes_to_the_same_end() {
    if !ready("a_repeated_move_of_a_mount_comes_to_the_same_end") {
        return;
    }
    let mut disk = Disk::new(256);
    disk.subvolume("@web");
    let web = disk.mount_subvolume("web", "noatime", "@web");
    let fstab = disk.fstab(&[disk.line(&web, "@web")]);
    settles(&disk, &web, &fstab);
}
