//! The active node loses its power while its service writes; the other one takes over; the first returns.
//!
//! alder plays the role, a service writes records and says of each when it is on disk. A point goes to birch, more is written,
//! and the power of alder goes. On birch a person is refused until everything is stated that has to be, and then birch plays the
//! role. alder gets its power back: nothing of the role starts there, what only it has becomes a fork, and it stands in. By
//! failback the role goes home. Every record that was said to be on disk is in the line or in a fork.

use crate::nodes::{self, two};
use crate::stage::{Kind, Stage, Start};
use crate::{Scenario, writer};

pub const SCENARIO: Scenario = Scenario {
    name: "power_cut_active",
    about: "the active node's power is cut while it writes; promotion, return with a fork, failback",
    machines: &["alder", "birch"],
    disks: 1,
    tests: &[],
    start: Start::Ready,
    kinds: Kind::ALL,
    play,
};

fn play(stage: &mut Stage) {
    two(stage, "", nodes::WITH_WRITER);
    let alder = stage.machine("alder");
    writer::wait_written(alder, 5);
    alder.standin(&["run", "web"]).ok();
    writer::wait_written(alder, 10);
    stage.machine_mut("alder").cut_power();
    for words in nodes::PEER_IS_AWAY {
        stage.announce(words);
    }
    stage.announce("fork");

    let birch = stage.machine("birch");
    let point = birch
        .points()
        .first()
        .expect("the point that was sent")
        .clone();
    let accepted = [
        "promote",
        "web",
        "--assert-stopped",
        "alder",
        "--accept-loss-after",
        &point,
    ];
    for enough in [2, 4] {
        let said = birch.standin(&accepted[..enough]);
        assert_ne!(said.code, 0, "{}", said.text());
    }
    birch.standin(&accepted).ok();
    birch.wait_state("active");
    writer::wait_written(birch, 5);

    stage.machine_mut("alder").boot();
    let (alder, birch) = (stage.machine("alder"), stage.machine("birch"));
    alder.wait_state("standby");
    writer::assert_runs(alder, false);
    writer::wait_written(birch, 5);
    birch.standin(&["failback", "web"]).ok();
    alder.wait_state("active");
    birch.wait_state("standby");
    writer::assert_runs(birch, false);
    writer::wait_written(alder, 5);
    let forked = writer::assert_kept(stage, "alder");
    assert!(forked > 0, "what was written after the point is in a fork");
}
