//! Scenarios on virtual machines: nodes with kernels, systemd and disks of their own, whose power and network can be cut.
//!
//!     scripts/vm --list                     the scenarios
//!     scripts/vm SCENARIO... [--seed S]     these; `--count N` for those that repeat something, `--at-once N`
//!     scripts/vm                            all, two at a time
//!     cargo test --test vm                  the same as tests, skipped where there is no QEMU or no image
//!
//! Promise: a line in a journal that warns or complains, and was not announced, fails a scenario; a failed one keeps its disks
//! and says how to look at them. Nothing on this machine is touched but a temporary directory. docs/vm-tests.md says more.
//!
//! In a machine the same program is the agent that the stage talks to (`vm agent`).
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::print_stderr,
    dead_code
)]

mod agent;
mod image;
mod nodes;
#[path = "../tests/support/random.rs"]
mod random;
mod run;
mod scenarios;
mod stage;
mod words;
mod writer;

use std::process::ExitCode;

use stage::{Kind, Stage, Start};

/// One play.
pub struct Scenario {
    pub name: &'static str,
    /// In a line.
    pub about: &'static str,
    pub machines: &'static [&'static str],
    /// Empty disks of each machine.
    pub disks: usize,
    /// Test targets that run in its machines.
    pub tests: &'static [&'static str],
    /// How it finds its machines.
    pub start: Start,
    /// What data lie on: it is played once on each.
    pub kinds: &'static [Kind],
    /// Panics when something is not as it should be.
    pub play: fn(&mut Stage),
}

/// A scenario on one kind of filesystem, as it is asked for by name.
#[derive(Clone, Copy)]
pub struct Play {
    pub scenario: &'static Scenario,
    pub kind: Kind,
}

impl Play {
    /// Those on btrfs first: machines that are saved are of one kind.
    pub fn all() -> Vec<Play> {
        let of = |kind| {
            let plays = SCENARIOS
                .iter()
                .filter(move |scenario| scenario.kinds.contains(&kind));
            plays.map(move |scenario| Play { scenario, kind })
        };
        Kind::ALL.iter().copied().flat_map(of).collect()
    }

    pub fn name(&self) -> String {
        match self.kind {
            Kind::Btrfs => self.scenario.name.to_owned(),
            Kind::Zfs => format!("{}_zfs", self.scenario.name),
        }
    }
}

/// What a person can say to a scenario.
#[derive(Clone, Copy)]
pub struct Given {
    pub seed: u64,
    /// How often to do what a scenario repeats; none: as often as is good for every day.
    pub count: Option<u64>,
}

/// The longest first, so that none runs alone at the end; then those that find machines ready.
pub const SCENARIOS: [Scenario; 18] = [
    scenarios::contract::SCENARIO,
    scenarios::full_receiver::SCENARIO,
    scenarios::active_reboots::SCENARIO,
    scenarios::active_pauses::SCENARIO,
    scenarios::power_cut_active::SCENARIO,
    scenarios::power_cut_receiver::SCENARIO,
    scenarios::link_cut::SCENARIO,
    scenarios::handover_under_load::SCENARIO,
    scenarios::bad_line::SCENARIO,
    scenarios::old_image::SCENARIO,
    scenarios::reversals::SCENARIO,
    scenarios::encrypted::SCENARIO,
    scenarios::databases::POSTGRES,
    scenarios::databases::MARIADB,
    scenarios::first_boot::SCENARIO,
    scenarios::units::SCENARIO,
    scenarios::three_nodes::SCENARIO,
    scenarios::upgrade::SCENARIO,
];

/// Tests of the gate: few enough for the time it has, and seen to pass more than once.
pub const GATE: [&str; 3] = ["power_cut_active", "active_reboots", "power_cut_active_zfs"];

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    if words.first().is_some_and(|word| word == "agent") {
        agent::serve();
    }
    match run::asked(&words) {
        run::Asked::Target => run::target(),
        run::Asked::List => run::list(),
        run::Asked::Play(chosen, given, at_once) => run::play(&chosen, given, at_once),
        run::Asked::Wrong(why) => {
            eprintln!("vm: {why}; scripts/vm --list names them");
            ExitCode::from(2)
        }
    }
}
