//! Two servers, from nothing to the first point.
//!
//! Two machines boot. The program and its units are installed as they are shipped, `standin init` writes a configuration, the
//! two are paired, and a role is added whose cycles systemd's timer starts. Both are enabled. The next quarter of an hour
//! comes, the timer fires, and the first point stands on the other machine with the same contents. After a reboot of both the
//! service is there again, and so is the link. No journal complains of anything but what a person did.

use crate::Scenario;
use crate::nodes::{LIVE, add_role, pair};
use crate::stage::Stage;
use crate::stage::machine::Machine;

pub const SCENARIO: Scenario = Scenario {
    name: "first_boot",
    about: "two servers are installed, paired and enabled; the timer brings the first point over; both reboot",
    machines: &["alder", "birch"],
    disks: 1,
    tests: &[],
    play,
};

fn play(stage: &mut Stage) {
    // The clocks are set to the timer's time; a role is known on one node before it is on the other; and a daemon that is stopped
    // while the machine has other things to do does not get to say goodbye.
    stage.announce("clock jumped ahead");
    stage.announce("has no role web that names");
    stage.announce("went away without a goodbye");
    stage.boot();
    let (alder, birch) = (stage.machine("alder"), stage.machine("birch"));
    for machine in [alder, birch] {
        machine.install();
        machine.make_filesystem();
        machine.standin(&["init"]).ok();
        machine.sh("systemctl start standin").ok();
    }
    alder.sh(&format!("btrfs -q subvolume create {LIVE}")).ok();
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

    // As they are to stay: and a little before the timer's time, which is every quarter of an hour.
    for machine in [alder, birch] {
        machine.sh("systemctl stop standin").ok();
        before_the_quarter(machine);
    }
    birch.sh("systemctl enable --now standin").ok();
    alder
        .sh("systemctl enable --now standin standin-run@web.timer")
        .ok();
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

/// Ten seconds before the next quarter of an hour.
fn before_the_quarter(machine: &Machine) {
    machine
        .sh("date --set=@$(( ($(date +%s) / 900 + 1) * 900 - 10 ))")
        .ok();
}
