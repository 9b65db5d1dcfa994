//! The role changes sides again and again.
//!
//! It is handed over, and every third time the node that plays it loses its power with records that nobody else has: the other
//! one is promoted, the first comes back, keeps them as a fork and stands in. After each change both have the same newest point:
//! `find` and `tar` say so, and on ZFS `zfs list` says that it is the same snapshot. At the end every record that was promised is
//! in the line or in a fork, there are as many forks as there were deaths, and only the very first point was sent whole.

use crate::Scenario;
use crate::nodes::{self, two};
use crate::run::say;
use crate::stage::machine::Machine;
use crate::stage::{Kind, Stage, Start};
use crate::writer;

pub const SCENARIO: Scenario = Scenario {
    name: "reversals",
    about: "the role changes sides again and again, every third time by a death; nothing is sent whole twice (--count N)",
    machines: &["alder", "birch"],
    disks: 1,
    tests: &[],
    start: Start::Ready,
    kinds: Kind::ALL,
    play,
};

/// How often every day.
const ROUNDS: u64 = 4;

fn play(stage: &mut Stage) {
    two(stage, "", nodes::WITH_WRITER);
    for words in nodes::PEER_IS_AWAY {
        stage.announce(words);
    }
    stage.announce("fork");
    writer::wait_written(stage.machine("alder"), 5);
    stage.machine("alder").standin(&["run", "web"]).ok();
    let (mut from, mut to) = ("alder", "birch");
    let mut deaths = 0;
    for round in 0..stage.given.count.unwrap_or(ROUNDS) {
        writer::wait_written(stage.machine(from), 3);
        if round % 3 == 1 {
            dies(stage, from, to);
            deaths += 1;
        } else {
            let giving = stage.machine(from);
            giving.standin(&["handover", "web", "--to", to]).ok();
        }
        let (gave, plays) = (stage.machine(from), stage.machine(to));
        plays.wait_state("active");
        gave.wait_state("standby");
        writer::assert_runs(gave, false);
        writer::wait_written(plays, 3);
        plays.wait_linked();
        plays.standin(&["run", "web"]).ok();
        same_newest(plays, gave);
        say(format!("round {}: {to} plays the role", round + 1));
        std::mem::swap(&mut from, &mut to);
    }
    writer::assert_kept(stage, from);
    let forks: usize = stage.machines().iter().map(forks).sum();
    assert_eq!(forks, deaths, "a fork for each death");
    for machine in stage.machines() {
        let lines = machine.journal();
        let whole = lines.iter().filter(|line| line.text.contains(" whole to "));
        let first = usize::from(machine.name == "alder");
        assert_eq!(whole.count(), first, "sent whole by {}", machine.name);
    }
}

/// Its power goes, the other one is promoted, and it comes back.
#[track_caller]
fn dies(stage: &mut Stage, from: &str, to: &str) {
    stage.machine_mut(from).cut_power();
    let heir = stage.machine(to);
    let last = heir.points().pop().expect("the points that were sent");
    let accepted = ["--assert-stopped", from, "--accept-loss-after", &last];
    let words = [&["promote", "web"][..], &accepted].concat();
    heir.standin(&words).ok();
    stage.machine_mut(from).boot();
}

#[track_caller]
fn same_newest(one: &Machine, other: &Machine) {
    let newest = one.points().pop().expect("a point that was just taken");
    other.wait_point(&newest);
    assert_eq!(
        one.fingerprint(&newest),
        other.fingerprint(&newest),
        "{newest}"
    );
    if one.kind == Kind::Zfs {
        assert_eq!(guids(one, &newest), guids(other, &newest), "{newest}");
    }
}

/// Of the snapshots of a point, as ZFS knows them.
#[track_caller]
fn guids(machine: &Machine, short: &str) -> Vec<String> {
    let said = machine.sh("zfs list -Hpt snapshot -o name,guid -r tank");
    let text = said.ok().text();
    let rows = text.lines().filter_map(|line| line.split_once('\t'));
    let end = format!("Z.{short}");
    let found = rows.filter(|(name, _)| name.ends_with(&end));
    let found: Vec<String> = found.map(|(_, guid)| guid.to_owned()).collect();
    assert_eq!(found.len(), 1, "{short} on {}: {text}", machine.name);
    found
}

#[track_caller]
fn forks(machine: &Machine) -> usize {
    let said = machine.standin(&["fork", "list", "web", "--json"]).ok();
    let forks = said.json()["roles"][0]["forks"].as_array().cloned();
    forks.unwrap_or_default().len()
}
