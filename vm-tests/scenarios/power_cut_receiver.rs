//! The receiver loses its power in the middle of a transfer.
//!
//! alder sends a point to birch over a slow line. At a moment that dice choose birch's power goes; what it had not flushed is
//! lost. It boots, the daemon is there again, and the transfer goes on from a checkpoint that is on its disk. When the point
//! stands on birch, find and tar say that it is the one alder has. All of it as often as asked, each time with new data on top
//! of what survived.

use crate::Scenario;
use crate::nodes::{self, LONG, two};
use crate::run::say;
use crate::stage::{Kind, Stage, Start};

pub const SCENARIO: Scenario = Scenario {
    name: "power_cut_receiver",
    about: "the receiver's power is cut at random moments of transfers (--count N, --seed S)",
    machines: &["alder", "birch"],
    disks: 1,
    tests: &[],
    start: Start::Ready,
    kinds: Kind::ALL,
    play,
};

/// What one round writes, and how fast the line is: some twelve seconds.
const FILES: usize = 24;
const KIB: usize = 512;
const RATE: u64 = 1 << 20;

fn play(stage: &mut Stage) {
    two(
        stage,
        "checkpoint = { bytes = \"1MiB\", every = \"1s\" }",
        "every = \"manual\"",
    );
    for words in nodes::PEER_IS_AWAY {
        stage.announce(words);
    }
    for round in 1..=stage.given.count.unwrap_or(3) {
        stage.wire.limit(RATE);
        let alder = stage.machine("alder");
        alder.write(&format!("round{round}"), FILES, KIB);
        let begun = stage.wire.passed_to("birch");
        let mut cycle = alder.begin(&["standin", "run", "web"], b"", LONG);
        let all = (FILES * KIB * 1024) as u64;
        let at = all / 20 + stage.dice.below(all * 17 / 20);
        while stage.wire.passed_to("birch") - begun < at {
            assert!(
                !cycle.has_ended(),
                "the cycle ended early: {:?}",
                cycle.end()
            );
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        stage.machine_mut("birch").cut_power();
        say(format!(
            "round {round}: power cut after {} KiB of {}",
            at >> 10,
            all >> 10
        ));
        stage.wire.mend();
        stage.machine_mut("birch").boot();
        let (alder, birch) = (stage.machine("alder"), stage.machine("birch"));
        // However the cycle took it, the next one brings the point over, and takes none where nothing changed.
        let _ = cycle.end();
        birch.wait_linked();
        alder.wait_linked();
        alder.standin(&["run", "web"]).ok();
        let short = format!("1.{round}");
        birch.wait_point(&short);
        assert_eq!(
            alder.fingerprint(&short),
            birch.fingerprint(&short),
            "{short}"
        );
    }
}
