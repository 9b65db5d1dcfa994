//! The active node restarts while nobody can tell it whether it still is.
//!
//! alder plays the role and birch has no power. alder reboots. It does not know whether somebody was promoted meanwhile, so it
//! waits, and the service does not run. birch comes back and says that nothing happened: alder goes on by itself.

use crate::nodes::{self, two};
use crate::stage::journal::Line;
use crate::stage::machine::Machine;
use crate::stage::{Kind, Stage, Start};
use crate::{Scenario, writer};

pub const SCENARIO: Scenario = Scenario {
    name: "active_reboots",
    about: "the active node reboots while its peer is off: it waits, and goes on when the peer has answered",
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
    // By itself only birch dials: it was alder that invited.
    stage
        .machine("alder")
        .sh("sed -i 's|^.peer.birch.$|&\\naddress = \"birch:7321\"|' /etc/standin/standin.toml; sync; standin reload")
        .ok();
    writer::wait_written(stage.machine("alder"), 5);
    stage.machine("alder").standin(&["run", "web"]).ok();
    stage.machine_mut("birch").cut_power();
    let alder = stage.machine("alder");
    let tried = tries(alder);
    alder.reboot();
    let before = writer::written(alder).len();
    alder.wait_state("waking");
    alder.wait_until_here("it has tried to reach birch in vain", || {
        tries(alder) > tried
    });
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

fn tries(alder: &Machine) -> usize {
    let lines = alder.journal();
    let vain = |line: &&Line| line.text.contains("could not link to birch");
    lines.iter().filter(vain).count()
}
