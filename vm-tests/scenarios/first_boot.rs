//! Two servers, from nothing to the first point.
//!
//! Two machines boot. The program and its units are installed as they are shipped, `standin init` writes a configuration, the
//! two are paired, and a role is added whose cycles systemd's timer starts. Both are enabled. The next quarter of an hour
//! comes, the timer fires, and the first point stands on the other machine with the same contents. After a reboot of both the
//! service is there again, and so is the link. No journal complains of anything but what a person did.

use crate::Scenario;
use crate::nodes::{STOPPED, add_role, pair};
use crate::stage::machine::Machine;
use crate::stage::{Kind, Stage, Start};

pub const SCENARIO: Scenario = Scenario {
    name: "first_boot",
    about: "two servers are installed, paired and enabled; the timer brings the first point over; both reboot",
    machines: &["alder", "birch"],
    disks: 1,
    tests: &[],
    start: Start::Off,
    kinds: Kind::ALL,
    play,
};

fn play(stage: &mut Stage) {
    // The clocks are set to the timer's time.
    stage.announce("this node's clock jumped ahead");
    stage.announce(STOPPED);
    stage.boot();
    let (alder, birch) = (stage.machine("alder"), stage.machine("birch"));
    for machine in [alder, birch] {
        machine.install();
        machine.make_filesystem();
        machine.standin(&["init"]).ok();
        machine.sh("systemctl start standin").ok();
    }
    alder.make_live();
    alder.write("first", 20, 64);
    pair(alder, birch);
    for (machine, peer) in [(alder, "birch"), (birch, "alder")] {
        add_role(machine, &[peer], "every = \"manual\"");
        machine.standin(&["reload"]).ok();
        machine.wait_linked();
    }
    alder.wait_state("active");
    birch.wait_state("standby");
    assert_eq!(birch.points(), [""; 0], "nobody asked for a point yet");

    // As they are to stay.
    birch.sh("systemctl enable standin").ok();
    alder
        .sh("systemctl enable standin; systemctl enable --now standin-run@web.timer")
        .ok();
    for machine in [alder, birch] {
        after_the_quarter(machine);
    }
    birch.wait_point("1.1");
    alder.wait_until(
        "the timer's service is done",
        "! systemctl is-active standin-run@web.service",
    );
    alder
        .sh("! systemctl is-failed standin-run@web.service")
        .ok();
    assert_eq!(alder.fingerprint("1.1"), birch.fingerprint("1.1"));
    for machine in [alder, birch] {
        let said = machine.standin(&["check"]);
        assert!(
            said.code == 0,
            "check on {}: {} {}",
            machine.name,
            said.text(),
            said.errors()
        );
    }

    alder.reboot();
    birch.reboot();
    for machine in [alder, birch] {
        machine.sh("systemctl is-active standin").ok();
        machine.wait_linked();
    }
    alder.wait_state("active");
    birch.wait_state("standby");
    assert!(alder.sh("systemctl is-active standin-run@web.timer").code == 0);
}

/// The next quarter of an hour, and what the timer may add to it.
fn after_the_quarter(machine: &Machine) {
    machine.set_clock("($(date +%s) / 900 + 1) * 900 + 35");
}
