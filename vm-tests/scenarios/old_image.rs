//! A node comes back from an older image of its disks.
//!
//! alder plays the role; an image of its disks is made. The role is handed to birch. alder loses its power and is restored from
//! the image: its disk says that it plays the role, under a term that is over. It asks before it starts anything, hears better,
//! and stands in. Then the role is at home again, and the same is done with an image of the same term: nobody played the role
//! meanwhile, but birch has points of this term that the disk does not know. alder does not go on as if it were the newest. A
//! person promotes birch. Every record of before the last point is in the line or in a fork.

use crate::nodes::{self, two};
use crate::stage::{Kind, Stage, Start};
use crate::{Scenario, writer};

pub const SCENARIO: Scenario = Scenario {
    name: "old_image",
    about: "the active node is restored from an older image of its disks: of an older term, and of the same",
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
    stage.announce(nodes::STOPPED);
    stage.announce("kept as fork");
    stage.announce("the base so far is of no use");
    writer::wait_written(stage.machine("alder"), 5);
    stage.machine("alder").standin(&["run", "web"]).ok();
    image(stage);
    let (alder, birch) = (stage.machine("alder"), stage.machine("birch"));
    alder.standin(&["handover", "web", "--to", "birch"]).ok();
    birch.wait_state("active");
    writer::wait_written(birch, 5);
    restored(stage);
    let (alder, birch) = (stage.machine("alder"), stage.machine("birch"));
    writer::wait_written(birch, 5);
    birch.standin(&["failback", "web"]).ok();
    alder.wait_state("active");

    writer::wait_written(alder, 5);
    image(stage);
    let in_point = writer::written(stage.machine("alder")).len();
    stage.machine("alder").standin(&["run", "web"]).ok();
    writer::wait_written(stage.machine("alder"), 5);
    restored(stage);
    // What was written after the last point went with the disk that the older one took the place of.
    let gone = writer::written(stage.machine("alder")).split_off(in_point);
    let birch = stage.machine("birch");
    birch.standin(&["promote", "web"]).ok();
    birch.wait_state("active");
    writer::wait_written(birch, 5);
    writer::assert_kept_but(stage, "birch", &gone);
}

/// alder goes down in order, its disks are copied, and it goes on.
#[track_caller]
fn image(stage: &mut Stage) {
    let alder = stage.machine_mut("alder");
    alder.power_off();
    alder.copy_disks();
    alder.boot();
    alder.wait_state("active");
    writer::wait_written(alder, 5);
}

/// alder loses its power, and gets the copy back; nothing runs there, and it stands in.
#[track_caller]
fn restored(stage: &mut Stage) {
    let alder = stage.machine_mut("alder");
    alder.cut_power();
    alder.put_disks_back();
    alder.boot();
    let before = writer::written(alder).len();
    alder.wait_state("standby");
    writer::assert_runs(alder, false);
    assert_eq!(
        writer::written(alder).len(),
        before,
        "it wrote without asking"
    );
}
