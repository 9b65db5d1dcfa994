//! Writes a run into the table of docs/reliability.md: one row a kind, replaced by the newest run.
//!
//! The table stands between two marks; everything else in the file is left alone.

use std::path::Path;

use crate::case::Kind;
use crate::run::Outcome;

const BEGIN: &str = "<!-- campaigns: written by the program -->";
const END: &str = "<!-- end -->";
const HEAD: &str = "| what | done | seeds | result | time |\n|---|---|---|---|---|\n";

pub fn write(file: &Path, kind: &Kind, seed: u64, outcome: &Outcome) -> Result<(), String> {
    let told = |error: std::io::Error| format!("{}: {error}", file.display());
    let text = std::fs::read_to_string(file).map_err(told)?;
    let count = outcome.passed + outcome.failed;
    let done = outcome
        .tally
        .iter()
        .map(|(what, times)| format!("{times} {what}"));
    let row = format!(
        "| `{}`: {} | {} | {seed} to {} | {} passed, {} failed | {} min |",
        kind.name,
        kind.what,
        done.collect::<Vec<_>>().join(", "),
        seed + count - 1,
        outcome.passed,
        outcome.failed,
        outcome.took.as_secs().div_ceil(60),
    );
    let text = with_row(&text, kind.name, &row)
        .ok_or_else(|| format!("{}: no `{BEGIN}` and `{END}`", file.display()))?;
    std::fs::write(file, text).map_err(told)
}

fn with_row(text: &str, name: &str, row: &str) -> Option<String> {
    let (before, rest) = text.split_once(BEGIN)?;
    let (table, after) = rest.split_once(END)?;
    let mark = format!("| `{name}`");
    let mut rows: Vec<&str> = table
        .lines()
        .filter(|line| line.starts_with("| `") && !line.starts_with(&mark))
        .collect();
    rows.push(row);
    rows.sort_unstable();
    Some(format!(
        "{before}{BEGIN}\n{HEAD}{}\n{END}{after}",
        rows.join("\n")
    ))
}
