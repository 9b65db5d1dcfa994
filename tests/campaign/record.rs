//! Writes a run into the table of docs/reliability.md.

use std::path::Path;

use crate::case::Kind;
use crate::run::Outcome;
use crate::support::reliability::Row;

pub fn write(file: &Path, kind: &Kind, seed: u64, outcome: &Outcome) -> Result<(), String> {
    let count = outcome.passed + outcome.failed;
    let done = outcome
        .tally
        .iter()
        .map(|(what, times)| format!("{times} {what}"));
    let row = Row {
        name: kind.name,
        what: kind.what,
        done: done.collect::<Vec<_>>().join(", "),
        seeds: format!("{seed} to {}", seed + count - 1),
        passed: outcome.passed,
        failed: outcome.failed,
        minutes: outcome.took.as_secs().div_ceil(60),
    };
    row.write(file)
}
