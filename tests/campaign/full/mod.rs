//! The kind `full`: disks that are full, fail or turn read-only on either side, and peers that are away for weeks.
//!
//! The scenario is the seed modulo their number, so that seeds in a row take them all; sizes, moments and places are drawn.
//! After each the same judgement (`stage`): finished points intact, live data of another role unharmed and writable, the
//! transfer finished and equal without anybody asking, staging empty.

mod away;
mod disks;
mod sources;
mod space;
mod stage;

use crate::case::{Case, Kind};

pub const KIND: Kind = Kind {
    name: "full",
    what: "Disks fill, fail or turn read-only, peers stay away; live data is untouched and the transfer goes on when it can",
    short: 5,
    run,
};

/// What may go wrong.
type Scenario = fn(&mut Case);

const SCENARIOS: [Scenario; 11] = [
    away::base_is_let_go,
    space::refused_early,
    space::filled_midway,
    disks::target_read_only,
    sources::unreadable_file,
    sources::state_disk_full,
    space::metadata_exhausted,
    disks::target_fails,
    disks::source_read_only,
    sources::source_full,
    away::base_stays,
];

fn run(case: &mut Case) -> Result<(), String> {
    let scenario = SCENARIOS[(case.seed % SCENARIOS.len() as u64) as usize];
    scenario(case);
    Ok(())
}
