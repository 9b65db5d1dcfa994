//! The active node restarts while nobody can tell it whether it still is.
//!
//! alder plays the role and birch has no power. alder reboots. It does not know whether somebody was promoted meanwhile, so it
//! waits, and the service does not run. birch comes back and says that nothing happened: alder goes on by itself.

use crate::nodes::{self, two};
use crate::stage::Stage;
use crate::{Scenario, writer};

pub const SCENARIO: Scenario = Scenario {
    name: "active_reboots",
    about: "the active node reboots while its peer is off: it waits, and goes on when the peer has answered",
    machines: &["alder", "birch"],
    disks: 1,
    tests: &[],
    play,
};

fn play(stage: &mut Stage) {
    two(stage, "", nodes::WITH_WRITER);
    for words in nodes::PEER_IS_AWAY {
        stage.announce(words);
    }
    writer::wait_written(stage.machine("alder"), 5);
    stage.machine("alder").standin(&["run", "web"]).ok();
    stage.machine_mut("birch").cut_power();
    let alder = stage.machine("alder");
    alder.reboot();
    let before = writer::written(alder).len();
    alder.wait_state("waking");
    // It has dialled in vain by now, and more than once.
    alder.wait_until(
        "it has tried to reach birch",
        "standin status --json | python3 -c 'import json, sys; sys.exit(json.load(sys.stdin)[\"peers\"][0][\"linked\"])'; ss -tn state syn-sent | grep -q 10.9.0.2",
    );
    alder.wait_state("waking");
    writer::assert_runs(alder, false);
    assert_eq!(
        writer::written(alder).len(),
        before,
        "it wrote without asking"
    );

    stage.machine_mut("birch").boot();
    let alder = stage.machine("alder");
    alder.wait_state("active");
    writer::wait_written(alder, 5);
    writer::assert_runs(stage.machine("birch"), false);
    let forked = writer::assert_kept(stage, "alder");
    assert_eq!(forked, 0);
}
