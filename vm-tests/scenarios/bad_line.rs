//! The line is slow, late and lossy, as far as a line can be that still is one.
//!
//! The kernels of both machines hold every packet back for a tenth of a second, lose one of thirty, and let two megabits
//! through. A first point goes over, then a small one. The link stays up all the time, and a person who asks gets an answer.

use crate::Scenario;
use crate::nodes::{LONG, two};
use crate::stage::{Kind, Stage, Start};

pub const SCENARIO: Scenario = Scenario {
    name: "bad_line",
    about: "the line is slow, late and lossy (netem in both kernels): points go over, the link stays",
    machines: &["alder", "birch"],
    disks: 1,
    tests: &[],
    start: Start::Ready,
    kinds: Kind::ALL,
    play,
};

fn play(stage: &mut Stage) {
    two(stage, "", "every = \"manual\"");
    let (alder, birch) = (stage.machine("alder"), stage.machine("birch"));
    for machine in [alder, birch] {
        machine
            .sh("modprobe sch_netem; tc qdisc add dev eth0 root netem delay 100ms 20ms loss 3% rate 2mbit limit 2000")
            .ok();
    }
    alder.write("first", 4, 512);
    let mut cycle = alder.begin(&["standin", "run", "web"], b"", LONG);
    let mut seen = false;
    alder.wait_until_here("the cycle is done", || {
        for machine in [alder, birch] {
            let status = machine.status();
            assert_eq!(status["peers"][0]["linked"], true, "{status}");
            seen |= status["transfers"]
                .as_array()
                .is_some_and(|all| !all.is_empty());
        }
        cycle.has_ended()
    });
    cycle.end().expect("it ended").ok();
    assert!(seen, "nobody could see the transfer");
    alder.write("second", 1, 64);
    alder.standin(&["run", "web"]).ok();
    for short in ["1.1", "1.2"] {
        birch.wait_point(short);
        assert_eq!(
            alder.fingerprint(short),
            birch.fingerprint(short),
            "{short}"
        );
    }
}
