//! The promises of a filesystem, on real disks.
//!
//! The contract tests (`tests/contract.rs`), as they are, in machines with a kernel of Debian and four disks each, which the
//! tests take in place of files on loop devices. Two machines, so that both processors have something to do: whichever is done
//! with a test takes the next.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::image::STANDIN;
use crate::stage::machine::Machine;
use crate::stage::{Kind, Stage, Start};
use crate::{Scenario, run};

/// Of one test, emulated.
const LIMIT: Duration = Duration::from_secs(1200);

pub const SCENARIO: Scenario = Scenario {
    name: "contract",
    about: "the promises of a filesystem, on real disks",
    machines: &["alder", "birch"],
    disks: 4,
    tests: &["contract"],
    start: Start::Off,
    kinds: Kind::ALL,
    play,
};

fn play(stage: &mut Stage) {
    // What nobody can delete while it is sent is tried.
    stage.announce("attempt to delete subvolume");
    stage.boot();
    let of = match stage.kind {
        Kind::Btrfs => "--skip zfs:: --skip quickly",
        Kind::Zfs => "zfs::",
    };
    let said = stage.machine("alder");
    let said = said.sh(&format!("/tools/contract --list {of}")).ok().text();
    let names = said.lines().filter_map(|line| line.strip_suffix(": test"));
    let left: Vec<String> = names.map(str::to_owned).collect();
    assert!(!left.is_empty(), "no tests: {said}");
    let left = Mutex::new(left);
    stage.everywhere(|machine| {
        let given = make_ready(machine);
        // Not held while it runs.
        let next = || left.lock().unwrap().pop();
        while let Some(name) = next() {
            keeps(machine, &given, &name);
        }
        was_used(machine);
    });
}

/// Disks, and where the tests look for the program that they start; what tells them of the disks.
#[track_caller]
fn make_ready(machine: &Machine) -> String {
    machine
        .sh(&format!(
            "mkdir -p \"$(dirname {STANDIN})\"; ln -s /tools/standin {STANDIN}"
        ))
        .ok();
    match machine.kind {
        Kind::Btrfs => {
            machine.sh("modprobe -a btrfs loop").ok();
            let disks = (0..4).map(|at| format!("/dev/disk/by-id/virtio-disk{at}"));
            let disks: Vec<String> = disks.collect();
            format!("STANDIN_TEST_DISKS='{}'", disks.join(" "))
        }
        Kind::Zfs => {
            machine.make_filesystem();
            "STANDIN_TEST_POOL=tank".to_owned()
        }
    }
}

/// A test that does not run is none that passes.
#[track_caller]
fn keeps(machine: &Machine, given: &str, name: &str) {
    let words =
        format!("cd /tmp; {given} CI=true exec /tools/contract --test-threads 1 --exact {name}");
    let began = Instant::now();
    let said = machine.run_for(&["bash", "-c", &words], b"", LIMIT);
    let took = began.elapsed().as_secs();
    run::say(format!("{}: {name}, {took} s", machine.name));
    let text = said.text();
    assert!(
        text.contains("test result: ok. 1 passed"),
        "{}: {name}\n{text}\n{}",
        machine.name,
        said.errors()
    );
}

/// Tests that took other disks than those of the machine would prove nothing of it.
#[track_caller]
fn was_used(machine: &Machine) {
    let used = match machine.kind {
        Kind::Btrfs => machine.sh("blkid -t TYPE=btrfs -o device").text(),
        Kind::Zfs => machine.sh("zpool history tank").text(),
    };
    let sign = match machine.kind {
        Kind::Btrfs => "/dev/vd",
        Kind::Zfs => "zfs create",
    };
    assert!(
        used.contains(sign),
        "{}: no disk was used: {used}",
        machine.name
    );
}
