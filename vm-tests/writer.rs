//! A service that writes numbered records to the live data of a role, and what became of all of them.
//!
//! Promise: a record counts as written when the service said so after fsync; it says so in the journal, which leaves the machine
//! at once, so that what it had promised is known after its power was cut. Records are read from files by this code alone, not
//! from what standin says of them.

use std::collections::BTreeSet;

use crate::nodes::LIVE;
use crate::stage::Stage;
use crate::stage::machine::Machine;

/// The unit, as it stands in `services`.
pub const UNIT: &str = "writer.service";

const PROGRAM: &str = r#"#!/usr/bin/python3
import os, socket, time, uuid
me, n = f"{socket.gethostname()}-{uuid.uuid4().hex[:8]}", 0
records = os.open("/srv/web/records", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
while True:
    n += 1
    os.write(records, f"{me}-{n}\n".encode())
    os.fsync(records)
    print(f"wrote {me}-{n}", flush=True)
    time.sleep(0.1)
"#;

/// Its unit is there and not enabled: who plays the role starts it, once systemd has read its units again.
#[track_caller]
pub fn install(machine: &Machine) {
    machine.put("/usr/local/bin/writer", PROGRAM);
    let unit =
        "[Unit]\nDescription=writer of records\n[Service]\nExecStart=/usr/local/bin/writer\n";
    machine.put(&format!("/etc/systemd/system/{UNIT}"), unit);
    machine.sh("chmod 755 /usr/local/bin/writer").ok();
}

/// Every record that was promised on a machine.
pub fn written(machine: &Machine) -> Vec<String> {
    let lines = machine
        .journal()
        .into_iter()
        .filter(|line| line.from == UNIT);
    let records = lines.filter_map(|line| Some(line.text.strip_prefix("wrote ")?.to_owned()));
    records.collect()
}

/// Waits until it has written `count` more there.
#[track_caller]
pub fn wait_written(machine: &Machine, count: usize) {
    let before = written(machine).len();
    machine.wait_until_here("records are written", || {
        written(machine).len() >= before + count
    });
}

#[track_caller]
pub fn assert_runs(machine: &Machine, runs: bool) {
    let said = machine.sh(&format!("systemctl is-active {UNIT}"));
    assert_eq!(
        said.code == 0,
        runs,
        "{UNIT} on {}: {}",
        machine.name,
        said.text()
    );
}

/// Stops the service where it runs, and looks where every promised record is: in the live data of `active`, once, or in a fork
/// of any machine. How many are in forks alone.
#[track_caller]
pub fn assert_kept(stage: &Stage, active: &str) -> usize {
    assert_kept_but(stage, active, &[])
}

/// The same, but for records that went with a disk that is no more.
#[track_caller]
pub fn assert_kept_but(stage: &Stage, active: &str, gone: &[String]) -> usize {
    let alive = stage.machine(active);
    alive.sh(&format!("systemctl stop {UNIT}")).ok();
    let text = alive.get(&format!("{LIVE}/records"));
    let line: Vec<String> = records(&text);
    let once: BTreeSet<&String> = line.iter().collect();
    assert_eq!(once.len(), line.len(), "a record is in the line twice");
    let mut forked = BTreeSet::new();
    let mut promised = Vec::new();
    for machine in stage.machines() {
        machine.flush_journal();
        promised.extend(written(machine));
        forked.extend(in_forks(machine));
    }
    assert!(!promised.is_empty(), "nothing was written");
    let lost: Vec<&String> = promised
        .iter()
        .filter(|record| !once.contains(record) && !forked.contains(*record))
        .filter(|record| !gone.contains(record))
        .collect();
    assert!(
        lost.is_empty(),
        "{} of {} records are lost: {lost:?}",
        lost.len(),
        promised.len()
    );
    forked
        .iter()
        .filter(|record| !once.contains(record))
        .count()
}

fn in_forks(machine: &Machine) -> Vec<String> {
    let said = machine
        .standin(&["fork", "list", "web", "--json"])
        .ok()
        .json();
    let mut found = Vec::new();
    for fork in said["roles"][0]["forks"].as_array().into_iter().flatten() {
        let name = fork["name"].as_str().unwrap();
        let to = format!("/srv/fork-{name}");
        machine.standin(&["fork", "export", "web", name, &to]).ok();
        found.extend(records(&machine.get(&format!("{to}/web/records"))));
    }
    found
}

fn records(bytes: &[u8]) -> Vec<String> {
    String::from_utf8_lossy(bytes)
        .lines()
        .map(str::to_owned)
        .collect()
}
