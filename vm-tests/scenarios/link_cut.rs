//! The line between the two nodes goes dead in the middle of a transfer, in three ways.
//!
//! Nothing passes any more, though both cables are plugged in; then only one direction is dead; then the cable of the receiver
//! is unplugged. Each time both notice, the line comes back, and the next cycle brings the point over. At the end the line is
//! bad instead of dead: slow to answer, and every fiftieth frame is lost.

use std::time::Duration;

use crate::Scenario;
use crate::nodes::{self, LONG, two};
use crate::stage::{Kind, Stage, Start};

pub const SCENARIO: Scenario = Scenario {
    name: "link_cut",
    about: "the line is cut in the middle of transfers, both ways, one way, at the cable; and is bad",
    machines: &["alder", "birch"],
    disks: 1,
    tests: &[],
    start: Start::Ready,
    kinds: Kind::ALL,
    play,
};

const FILES: usize = 8;
const KIB: usize = 512;

fn play(stage: &mut Stage) {
    two(
        stage,
        "checkpoint = { bytes = \"1MiB\", every = \"1s\" }",
        "every = \"manual\"",
    );
    for words in nodes::PEER_IS_AWAY {
        stage.announce(words);
    }
    let cuts: [fn(&Stage); 3] = [
        |stage| stage.wire.cut("alder", "birch"),
        |stage| stage.wire.cut_one_way("alder", "birch"),
        |stage| stage.machine("birch").plug(false),
    ];
    for (round, cut) in (1..).zip(cuts) {
        stage.wire.limit(512 << 10);
        let (alder, birch) = (stage.machine("alder"), stage.machine("birch"));
        alder.write(&format!("round{round}"), FILES, KIB);
        let begun = stage.wire.passed_to("birch");
        let mut cycle = alder.begin(&["standin", "run", "web"], b"", LONG);
        while stage.wire.passed_to("birch") - begun < (FILES * KIB * 1024 / 3) as u64 {
            assert!(
                !cycle.has_ended(),
                "the cycle ended early: {:?}",
                cycle.end()
            );
            std::thread::sleep(Duration::from_millis(5));
        }
        cut(stage);
        for machine in [alder, birch] {
            machine.wait_until_here("it notices", || {
                machine.status()["peers"][0]["linked"] == false
            });
        }
        stage.wire.mend();
        birch.plug(true);
        alder.wait_linked();
        birch.wait_linked();
        let _ = cycle.end();
        alder.standin(&["run", "web"]).ok();
        arrived(stage, round);
    }
    stage.wire.degrade(Duration::from_millis(40), 20);
    let alder = stage.machine("alder");
    alder.write("bad", 2, KIB);
    alder.standin(&["run", "web"]).ok();
    arrived(stage, 4);
}

#[track_caller]
fn arrived(stage: &Stage, round: usize) {
    let (alder, birch) = (stage.machine("alder"), stage.machine("birch"));
    let short = format!("1.{round}");
    birch.wait_point(&short);
    assert_eq!(
        alder.fingerprint(&short),
        birch.fingerprint(&short),
        "{short}"
    );
}
