//! Filesystems that turn read-only, by hand or by the kernel after a device failed.

use std::path::PathBuf;

use super::stage::{Stage, disks};
use crate::case::Case;
use crate::support::cluster::{MIB, TestNode};
use crate::support::fixture::{Loop, run};

fn remount(node: &TestNode, how: &str) {
    let options = format!("remount,{how}");
    run(
        "mount",
        ["-o", options.as_str(), node.disk.path().to_str().unwrap()],
    );
}

/// Read-only before or while a transfer runs, writable again later.
pub fn target_read_only(case: &mut Case) {
    let mut stage = Stage::new(case, disks(2048, 2048), "");
    stage.first_point();
    let mib = 40 + case.below(40);
    stage.grow(mib, 1024);
    if case.chance(50) {
        stage.slow(20);
        let alder = stage.alder();
        let mut child = alder.command(&["run", "web"]).spawn().unwrap();
        let begin = case.below(mib / 2) * MIB;
        alder.wait_for("a part is sent", || {
            let transfer = alder.transfer();
            transfer.is_some_and(|transfer| transfer["done_bytes"].as_u64().unwrap() > begin)
        });
        // The kernel refuses while a file is open for writing; between two of them it does not.
        let path = stage.birch().disk.path().to_str().unwrap().to_owned();
        let turned = crate::support::cluster::wait(|| {
            let done = std::process::Command::new("mount")
                .args(["-o", "remount,ro", &path])
                .output();
            done.is_ok_and(|output| output.status.success()) || stage.birch().points().len() > 1
        });
        assert!(turned, "never could be made read-only");
        child.wait().unwrap();
        case.count("targets turned read-only midway");
    } else {
        remount(stage.birch(), "ro");
        let said = stage.alder().run(&["run", "web"]);
        assert_eq!(said.code, 1, "{said:?}");
        case.count("targets read-only from the start");
    }
    if stage.birch().points().len() == 1 {
        stage.wait_failed(&["read-only"]);
        assert!(!stage.replica()["retry_at"].is_null());
        // Nobody made it writable behind the admin's back.
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        let path = stage.birch().disk.path().display().to_string();
        let line = mounts.lines().find(|line| line.contains(&path)).unwrap();
        assert!(line.split(" - ").nth(1).unwrap().contains(" ro"), "{line}");
    }
    if case.chance(50) {
        // A fresh process finds it read-only before it has a mount of its own.
        stage.pair.birch.stop();
        stage.pair.birch.start();
        stage.pair.wait_linked();
    }
    remount(stage.birch(), "rw");
    stage.judge("1.2");
}

/// The source is read-only: no point can be taken, which is said; afterwards all is well without a restart.
pub fn source_read_only(case: &mut Case) {
    let mut stage = Stage::new(case, disks(2048, 2048), "");
    stage.first_point();
    stage.grow(10 + case.below(20), 512);
    remount(stage.alder(), "ro");
    let restarted = case.chance(50);
    if restarted {
        stage.pair.alder.stop();
        stage.pair.alder.start();
        stage.pair.wait_linked();
    }
    let said = stage.alder().run(&["run", "web"]);
    assert_ne!(said.code, 0, "{said:?}");
    let told = format!("{}{}", said.out, said.err);
    assert!(told.contains("read-only"), "{told}");
    assert!(told.contains("remount"), "what to do: {told}");
    remount(stage.alder(), "rw");
    stage.alder().run(&["run", "web"]).ok();
    // The failed attempt used a number up.
    let newest = stage.alder().points().pop().unwrap();
    stage.judge(&newest);
    case.count("sources turned read-only");
}

/// A tmpfs that gives out: a device that was promised more than there is.
struct Thin {
    path: PathBuf,
    _dir: tempfile::TempDir,
}

impl Thin {
    fn new(mib: u64) -> Thin {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().to_owned();
        let size = format!("size={mib}M");
        run(
            "mount",
            ["-t", "tmpfs", "-o", &size, "tmpfs", path.to_str().unwrap()],
        );
        Thin { path, _dir: dir }
    }

    fn resize(&self, mib: u64) {
        let options = format!("remount,size={mib}M");
        run("mount", ["-o", &options, self.path.to_str().unwrap()]);
    }
}

impl Drop for Thin {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount")
            .arg("-l")
            .arg(&self.path)
            .output();
    }
}

/// Writes to birch's device fail with EIO, the kernel gives the filesystem up; a fresh mount mends it.
pub fn target_fails(case: &mut Case) {
    let mib = 60 + case.below(60);
    let thin = Thin::new(32 + case.below(mib / 2));
    let image = thin.path.join("image");
    let birch = Loop::in_image(Some(&image), 1024 * MIB, "noatime");
    let mut stage = Stage::new(case, [Loop::new(2048 * MIB), birch], "");
    stage.first_point();
    stage.grow(mib, 1024);
    let said = stage.alder().run(&["run", "web"]);
    assert_ne!(said.code, 0, "{said:?}");
    let said = stage.wait_failed(&["the peer refused"]);
    let path = stage.birch().disk.path().display().to_string();
    assert!(
        said.contains(&format!("{path}: the disk gave an input/output error"))
            || said.contains(&format!("{path}: the filesystem is mounted read-only")),
        "{said}"
    );
    thin.resize(1024);
    // What the admin does, with the daemon running: everything on the filesystem goes, then a fresh mount.
    let path = stage.birch().disk.path().to_owned();
    stage.birch().wait_for("a fresh mount can be written", || {
        let command = |program: &str, args: &[&str]| {
            let done = std::process::Command::new(program)
                .args(args)
                .arg(&path)
                .output();
            done.is_ok_and(|output| output.status.success())
        };
        // Not mounted is as good as unmounted.
        command("umount", &[]);
        command("mount", &["-o", "loop,noatime", image.to_str().unwrap()])
            && std::fs::write(path.join("probe"), "x").is_ok()
            && std::fs::remove_file(path.join("probe")).is_ok()
    });
    stage.judge("1.2");
    case.count("devices that failed");
    drop(stage);
    drop(thin);
}
