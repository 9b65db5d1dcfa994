//! The promises of a filesystem, on real disks.
//!
//! The contract tests (`tests/contract.rs`), as they are, in a machine with a kernel of Debian and four disks, which the tests
//! take in place of files on loop devices.

use std::time::Duration;

use crate::Scenario;
use crate::image::STANDIN;
use crate::stage::machine::Machine;
use crate::stage::{Kind, Stage, Start};

/// Emulated, and one after the other.
const LIMIT: Duration = Duration::from_secs(1200);

pub const SCENARIO: Scenario = Scenario {
    name: "contract",
    about: "the promises of a filesystem, on real disks",
    machines: &["alder"],
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
    let alder = stage.machine("alder");
    // Where the tests look for the program that they start.
    alder
        .sh(&format!(
            "mkdir -p \"$(dirname {STANDIN})\"; ln -s /tools/standin {STANDIN}"
        ))
        .ok();
    match stage.kind {
        Kind::Btrfs => on_btrfs(alder),
        Kind::Zfs => on_zfs(alder),
    }
}

#[track_caller]
fn on_btrfs(alder: &Machine) {
    alder.sh("modprobe -a btrfs loop").ok();
    let disks: Vec<String> = (0..4)
        .map(|at| format!("/dev/disk/by-id/virtio-disk{at}"))
        .collect();
    promises(
        alder,
        "--skip zfs:: --skip quickly",
        &format!("STANDIN_TEST_DISKS='{}'", disks.join(" ")),
    );
    let formatted = alder.sh("blkid -t TYPE=btrfs -o device").text();
    assert!(
        formatted.contains("/dev/vd"),
        "no disk was used: {formatted}"
    );
}

#[track_caller]
fn on_zfs(alder: &Machine) {
    alder.make_filesystem();
    promises(alder, "zfs::", "STANDIN_TEST_POOL=tank");
}

/// The tests that these words choose.
#[track_caller]
fn promises(alder: &Machine, of: &str, given: &str) {
    let words = format!("cd /tmp; {given} CI=true exec /tools/contract --test-threads 1 {of}");
    let said = alder.run_for(&["bash", "-c", &words], b"", LIMIT).ok();
    let text = said.text();
    assert!(
        text.contains("test result: ok.") && !text.contains(" 0 passed"),
        "{text}"
    );
}
