//! Workload g: many small roles with a history; then nothing changes, or one block of each.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use crate::contenders::{Ssh, Who};
use crate::courses::{Run, say};
use crate::gauge::{Group, Reading};
use crate::ground::{self, Room, Size};
use crate::nodes::{Node, Role};
use crate::support::fixture::{Loop, run as must};

/// Image sizes, in bytes: what they hold is small.
const IMAGE: u64 = 6 << 30;

fn subvolumes(top: &Path, size: &Size) -> Vec<PathBuf> {
    fs::create_dir(top.join("srv")).unwrap();
    let all: Vec<PathBuf> = (0..size.roles)
        .map(|n| top.join(format!("srv/m{n:03}")))
        .collect();
    for live in &all {
        ground::subvolume(live);
        ground::touch(live, 1);
    }
    all
}

fn touch_all(lives: &[PathBuf], seed: u64) {
    for live in lives {
        ground::touch(live, seed);
    }
    rustix::fs::sync();
}

pub fn run(room: &Room, size: &Size, rounds: usize, runs: &mut Vec<Run>) {
    let disks = || [0, 1].map(|n| room.filesystem(&format!("many{n}"), IMAGE, "noatime"));
    let rounds = rounds.min(3);
    standin(disks(), size, rounds, runs);
    btrbk(disks(), size, rounds, runs);
}

fn measure(
    who: Who,
    rounds: usize,
    lives: &[PathBuf],
    runs: &mut Vec<Run>,
    mut go: impl FnMut() -> Reading,
) {
    for round in 0..rounds {
        let mut note = |workload, reading| {
            say(workload, who, round, &reading);
            runs.push(Run {
                workload,
                who,
                round,
                reading,
            });
        };
        note("g-none", go());
        touch_all(lives, 1000 + round as u64);
        note("g-all", go());
    }
}

fn standin(disks: [Loop; 2], size: &Size, rounds: usize, runs: &mut Vec<Run>) {
    let lives = subvolumes(disks[0].path(), size);
    fs::create_dir(disks[1].join("srv")).unwrap();
    let group = Group::new("many");
    let roles = |top: &Path| -> Vec<Role> {
        let named = (0..size.roles).map(|n| format!("m{n:03}"));
        named
            .map(|name| Role {
                live: top.join("srv").join(&name),
                name,
            })
            .collect()
    };
    let alder = Node::start(
        &group,
        "alder",
        None,
        &["birch"],
        &roles(disks[0].path()),
        &[],
    );
    let birch = Node::start(
        &group,
        "birch",
        None,
        &["alder"],
        &roles(disks[1].path()),
        &[],
    );
    alder.pair_with(&birch);
    alder.wait_linked();
    for point in 0..size.points {
        touch_all(&lives, 2 + point as u64);
        alder.cycle(&group);
    }
    measure(Who::Standin, rounds, &lives, runs, || {
        group.measure(&[disks[1].path()], || alder.cycle(&group))
    });
    drop((alder, birch));
}

fn btrbk(disks: [Loop; 2], size: &Size, rounds: usize, runs: &mut Vec<Run>) {
    let lives = subvolumes(disks[0].path(), size);
    let (from, to) = (disks[0].path().display(), disks[1].path().display());
    fs::create_dir(disks[0].join("taken")).unwrap();
    // A history as btrbk names it, made without it: its own runs would take hours.
    for point in 0..size.points {
        touch_all(&lives, 2 + point as u64);
        let stamp =
            |point: usize| format!("202601{:02}T{:02}0000+0000", point / 24 + 1, point % 24);
        for live in &lives {
            let name = live.file_name().unwrap().to_str().unwrap();
            let new = format!("{from}/taken/{name}.{}", stamp(point));
            let parent = match point {
                0 => String::new(),
                _ => format!("-p {from}/taken/{name}.{}", stamp(point - 1)),
            };
            let script = format!(
                "set -e -o pipefail; btrfs -q subvolume snapshot -r {} {new}; btrfs -q send {parent} {new} | btrfs -q receive {to}",
                live.display()
            );
            must("bash", ["-c", &script]);
        }
    }
    let group = Group::new("many");
    let ssh = Ssh::start(&group);
    let at = |name: &str| ssh.dir.path().join(name).display().to_string();
    let mut text = format!(
        "timestamp_format long-iso\nsnapshot_preserve_min all\ntarget_preserve_min all\nsnapshot_create onchange\nsnapshot_dir taken\n\
         lockfile {}\nssh_identity {}\nssh_user root\nvolume {from}\n  target ssh://127.0.0.1{to}\n",
        at("lock"),
        at("key"),
    );
    for n in 0..size.roles {
        text += &format!("  subvolume srv/m{n:03}\n");
    }
    fs::write(at("btrbk.conf"), text).unwrap();
    let path = format!(
        "{}:{}",
        ssh.dir.path().display(),
        std::env::var("PATH").unwrap_or_default()
    );
    let go = || {
        let mut command = group.command("btrbk");
        command
            .args(["-q", "-c", &at("btrbk.conf"), "run"])
            .env("PATH", &path);
        let output = command.stdin(Stdio::null()).output().unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
    };
    measure(Who::Btrbk, rounds, &lives, runs, || {
        group.measure(&[disks[1].path()], go)
    });
    drop(ssh);
}
