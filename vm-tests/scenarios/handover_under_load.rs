//! The role moves while the machine is busy with it, there and back.
//!
//! On alder the service writes records, a second one writes files as fast as the disk takes them, and the line is that of an
//! office. There is a point, and a person hands the role to birch: what is there is copied ahead, both are stopped, the rest goes over, and they go
//! on at birch. Then the same back by failback. Every record is in the line, once, and no fork was made.

use crate::nodes::two;
use crate::stage::machine::Machine;
use crate::stage::{Kind, Stage, Start};
use crate::{Scenario, writer};

pub const SCENARIO: Scenario = Scenario {
    name: "handover_under_load",
    about: "the role is handed over and back while services write as fast as they can",
    machines: &["alder", "birch"],
    disks: 1,
    tests: &[],
    start: Start::Ready,
    kinds: Kind::ALL,
    play,
};

/// Bytes a second.
const LINE: u64 = 2 << 20;

const LOAD: &str = r#"#!/bin/sh
cd /srv/web
n=0
while true; do
    n=$(( (n + 1) % 16 ))
    head -c 128K /dev/urandom >load.$n.new
    mv load.$n.new load.$n
done
"#;

fn play(stage: &mut Stage) {
    for machine in stage.machines() {
        install(machine);
    }
    let services = "every = \"manual\"\nservices = [\"writer.service\", \"load.service\"]";
    two(stage, "", services);
    stage.wire.limit(LINE);
    let (alder, birch) = (stage.machine("alder"), stage.machine("birch"));
    writer::wait_written(alder, 5);
    alder.wait_until("files are written", "ls /srv/web/load.15");
    alder.standin(&["run", "web"]).ok();
    alder.standin(&["handover", "web", "--to", "birch"]).ok();
    moved(alder, birch);
    birch.wait_until(
        "files are written",
        "ls /srv/web/load.15.new /srv/web/load.15 2>/dev/null",
    );
    birch.standin(&["failback", "web"]).ok();
    moved(birch, alder);
    assert_eq!(writer::assert_kept(stage, "alder"), 0);
}

#[track_caller]
fn moved(from: &Machine, to: &Machine) {
    to.wait_state("active");
    from.wait_state("standby");
    writer::assert_runs(from, false);
    writer::wait_written(to, 5);
    assert_ne!(from.sh("systemctl is-active load").code, 0);
    to.sh("systemctl is-active load").ok();
}

#[track_caller]
fn install(machine: &Machine) {
    machine.put("/usr/local/bin/load", LOAD);
    let unit = "[Unit]\nDescription=files\n[Service]\nExecStart=/usr/local/bin/load\nNice=5\n";
    machine.put("/etc/systemd/system/load.service", unit);
    machine
        .sh("chmod 755 /usr/local/bin/load; systemctl daemon-reload")
        .ok();
}
