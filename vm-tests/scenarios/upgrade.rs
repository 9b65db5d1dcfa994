//! Two nodes get a newer standin, one after the other, as a distribution's packages would bring it.
//!
//! Both run the version of before, and have a role and a point. birch, which stands by, is upgraded first: a version of now takes
//! points from one of before. Then alder is: it finds its state and its part in the role again, and goes on when birch has
//! answered. The role moves to birch and back. (The program of before is what a person put there: docs/vm-tests.md.)

use crate::nodes::{self, STOPPED, add_role, pair};
use crate::stage::machine::Machine;
use crate::stage::{Kind, Stage, Start};
use crate::{Scenario, image, writer};

pub const SCENARIO: Scenario = Scenario {
    name: "upgrade",
    about: "two nodes are upgraded one after the other, and work together in between (needs an older program)",
    machines: &["alder", "birch"],
    disks: 1,
    tests: &[],
    start: Start::Off,
    kinds: Kind::ALL,
    play,
};

fn play(stage: &mut Stage) {
    if image::before().is_none() {
        stage.skipped =
            Some("no program of an older version is in the cache (scripts/vm-before builds one)");
        return;
    }
    stage.announce(STOPPED);
    // What a version of before warned of, and this one does not.
    stage.announce("went away without a goodbye");
    stage.announce("has no role web that names");
    stage.boot();
    stage.everywhere(|machine| {
        machine.sh("install -m 755 /tools/standin-before /tools/standin -t /usr/local/lib; ln -sf /usr/local/lib/standin-before /usr/local/bin/standin").ok();
        writer::install(machine);
        machine.install_units();
        machine.make_filesystem();
        machine.standin(&["init"]).ok();
        machine.sh("systemctl enable --now standin").ok();
    });
    let (alder, birch) = (stage.machine("alder"), stage.machine("birch"));
    alder.make_live();
    pair(alder, birch);
    for (machine, peer) in [(birch, "alder"), (alder, "birch")] {
        add_role(machine, &[peer], nodes::WITH_WRITER);
        machine.standin(&["reload"]).ok();
        machine.wait_linked();
    }
    alder.wait_state("active");
    cycle(alder, birch, "1.1");
    upgrade(birch, "standby");
    alder.wait_linked();
    cycle(alder, birch, "1.2");
    upgrade(alder, "active");
    birch.wait_linked();
    cycle(alder, birch, "1.3");
    alder.standin(&["handover", "web", "--to", "birch"]).ok();
    birch.wait_state("active");
    writer::wait_written(birch, 5);
    birch.standin(&["failback", "web"]).ok();
    alder.wait_state("active");
    writer::wait_written(alder, 5);
    assert_eq!(writer::assert_kept(stage, "alder"), 0);
}

#[track_caller]
fn cycle(alder: &Machine, birch: &Machine, short: &str) {
    writer::wait_written(alder, 5);
    alder.standin(&["run", "web"]).ok();
    birch.wait_point(short);
    assert_eq!(
        alder.fingerprint(short),
        birch.fingerprint(short),
        "{short}"
    );
}

#[track_caller]
fn upgrade(machine: &Machine, state: &str) {
    machine
        .sh("ln -sf /usr/local/lib/standin /usr/local/bin/standin; systemctl restart standin")
        .ok();
    machine.wait_state(state);
    machine.wait_linked();
}
