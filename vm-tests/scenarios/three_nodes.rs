//! One plays the role, two stand by; the first loses its power, and the other two go on.
//!
//! Every point goes to both. alder's power goes while its service writes. birch asks cedar, which answers, and a person states
//! that alder is stopped: birch is promoted. cedar hears of it and takes birch's points. alder returns, hears it from whoever is
//! first, keeps what only it has as a fork, and stands in.

use crate::nodes::{self, add_role, pair};
use crate::stage::machine::Machine;
use crate::stage::{Kind, Stage, Start};
use crate::{Scenario, writer};

pub const SCENARIO: Scenario = Scenario {
    name: "three_nodes",
    about: "one active node, two that stand by: power cut, promotion, the other follows, return with a fork",
    machines: &["alder", "birch", "cedar"],
    disks: 1,
    tests: &[],
    start: Start::Off,
    kinds: Kind::ALL,
    play,
};

fn play(stage: &mut Stage) {
    set_up(stage);
    let alder = stage.machine("alder");
    writer::wait_written(alder, 5);
    alder.standin(&["run", "web"]).ok();
    for name in ["birch", "cedar"] {
        stage.machine(name).wait_point("1.1");
    }
    writer::wait_written(alder, 10);
    for words in nodes::PEER_IS_AWAY {
        stage.announce(words);
    }
    stage.announce("fork");
    stage.machine_mut("alder").cut_power();

    let (birch, cedar) = (stage.machine("birch"), stage.machine("cedar"));
    let point = birch.points().first().expect("the point").clone();
    let words = [
        "promote",
        "web",
        "--assert-stopped",
        "alder",
        "--accept-loss-after",
        &point,
    ];
    birch.standin(&words).ok();
    birch.wait_state("active");
    writer::wait_written(birch, 5);
    birch.standin(&["run", "web"]);
    let newest = birch.points().last().expect("a point of birch's").clone();
    assert_ne!(newest, point);
    cedar.wait_point(&newest);
    assert_eq!(birch.fingerprint(&newest), cedar.fingerprint(&newest));
    cedar.wait_state("standby");

    stage.machine_mut("alder").boot();
    let (alder, birch) = (stage.machine("alder"), stage.machine("birch"));
    alder.wait_state("standby");
    writer::assert_runs(alder, false);
    birch.standin(&["run", "web"]).ok();
    let newest = birch.points().last().expect("a point of birch's").clone();
    for name in ["alder", "cedar"] {
        stage.machine(name).wait_point(&newest);
    }
    let forked = writer::assert_kept(stage, "birch");
    assert!(forked > 0, "what was written after the point is in a fork");
}

#[track_caller]
fn set_up(stage: &mut Stage) {
    stage.boot();
    stage.everywhere(nodes::set_up);
    let [alder, birch, cedar] = ["alder", "birch", "cedar"].map(|name| stage.machine(name));
    alder.make_live();
    let pairs: [(&Machine, &Machine); 3] = [(alder, birch), (alder, cedar), (birch, cedar)];
    for (inviting, accepting) in pairs {
        pair(inviting, accepting);
    }
    // The one that is to play it last: the others know their part when they are asked.
    for (machine, peers) in [
        (cedar, ["alder", "birch"]),
        (birch, ["alder", "cedar"]),
        (alder, ["birch", "cedar"]),
    ] {
        add_role(machine, &peers, nodes::WITH_WRITER);
        machine.standin(&["reload"]).ok();
    }
    stage.everywhere(|machine| {
        machine.wait_linked();
        machine.wait_state(match machine.name {
            "alder" => "active",
            _ => "standby",
        });
        machine.sh("sync").ok();
    });
}
