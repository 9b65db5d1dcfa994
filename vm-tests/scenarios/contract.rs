//! The promises of a filesystem, on real disks.
//!
//! The contract tests (`tests/contract.rs`), as they are, in a machine with a kernel of Debian and four disks, which the tests
//! take in place of files on loop devices.

use std::time::Duration;

use crate::Scenario;
use crate::image::STANDIN;
use crate::stage::{Stage, Start};

/// Emulated, and one after the other.
const LIMIT: Duration = Duration::from_secs(1200);

pub const SCENARIO: Scenario = Scenario {
    name: "contract",
    about: "the promises of a filesystem, on real disks with btrfs",
    machines: &["alder"],
    disks: 4,
    tests: &["contract"],
    start: Start::Off,
    play,
};

fn play(stage: &mut Stage) {
    stage.boot();
    let alder = stage.machine("alder");
    // Where the tests look for the program that they start.
    alder
        .sh(&format!("modprobe -a btrfs loop; mkdir -p \"$(dirname {STANDIN})\"; ln -s /tools/standin {STANDIN}"))
        .ok();
    let disks: Vec<String> = (0..4)
        .map(|at| format!("/dev/disk/by-id/virtio-disk{at}"))
        .collect();
    let words = format!(
        "cd /tmp; STANDIN_TEST_DISKS='{}' CI=true exec /tools/contract --test-threads 1",
        disks.join(" ")
    );
    let said = alder.run_for(&["bash", "-c", &words], b"", LIMIT).ok();
    let text = said.text();
    assert!(text.contains("test result: ok."), "{text}");
    let formatted = alder.sh("blkid -t TYPE=btrfs -o device").text();
    assert!(
        formatted.contains("/dev/vd"),
        "no disk was used: {formatted}"
    );
}
