//! Services that are systemd units, with a real systemd.
//!
//! The tests of `tests/play/units.rs` need systemd as the first process, which hardly any machine that builds has. Here they
//! run as they are, and none may be skipped.

use crate::Scenario;
use crate::nodes::LONG;
use crate::stage::{Kind, Stage, Start};

pub const SCENARIO: Scenario = Scenario {
    name: "units",
    about: "the tests of services that are systemd units, with a real systemd",
    machines: &["alder"],
    disks: 0,
    tests: &["play"],
    start: Start::Off,
    kinds: &[Kind::Btrfs],
    play,
};

fn play(stage: &mut Stage) {
    stage.boot();
    // Their units are made to fail and to ignore the end.
    stage.announce("standin-test-");
    let words = [
        "/tools/play",
        "units::",
        "--test-threads",
        "1",
        "--show-output",
    ];
    let said = stage.machine("alder").run_for(&words, b"", LONG).ok();
    let text = said.text();
    assert!(!text.contains("SKIPPED"), "{text}");
    assert!(text.contains("test result: ok. 4 passed"), "{text}");
}
