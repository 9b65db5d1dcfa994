//! The active node stands still, none of its clocks goes on, and it wakes after another one was promoted.
//!
//! alder plays the role and is paused, as a host does to a machine that it moves or saves. To birch it is dead, a person says
//! that it is stopped, and birch is promoted. alder wakes in the middle of what it did, and no clock of its own tells it that
//! anything happened. It hears of the higher term, stops the service, keeps what only it has as a fork, and stands in.

use crate::nodes::{self, two};
use crate::stage::{Kind, Stage, Start};
use crate::{Scenario, writer};

pub const SCENARIO: Scenario = Scenario {
    name: "active_pauses",
    about: "the active node is paused, another one is promoted, and it wakes",
    machines: &["alder", "birch"],
    disks: 1,
    tests: &[],
    start: Start::Ready,
    kinds: Kind::ALL,
    play,
};

fn play(stage: &mut Stage) {
    two(stage, "", nodes::WITH_WRITER);
    for words in nodes::PEER_IS_AWAY {
        stage.announce(words);
    }
    stage.announce("fork");
    let (alder, birch) = (stage.machine("alder"), stage.machine("birch"));
    writer::wait_written(alder, 5);
    alder.standin(&["run", "web"]).ok();
    writer::wait_written(alder, 5);
    alder.pause();
    let point = birch
        .points()
        .first()
        .expect("the point that was sent")
        .clone();
    let words = [
        "promote",
        "web",
        "--assert-stopped",
        "alder",
        "--accept-loss-after",
        &point,
    ];
    // While the link still counts as one, alder may have a word; then the same words are enough.
    birch.wait_until_here("it may be promoted", || birch.standin(&words).code == 0);
    birch.wait_state("active");
    writer::wait_written(birch, 5);
    alder.resume();
    alder.wait_state("standby");
    writer::assert_runs(alder, false);
    writer::wait_written(birch, 5);
    birch.standin(&["run", "web"]).ok();
    let forked = writer::assert_kept(stage, "birch");
    assert!(forked > 0, "what was written after the point is in a fork");
}
