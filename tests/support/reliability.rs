//! The table of docs/reliability.md: one row for each kind of run, replaced by the newest run of that kind.
//!
//! The table stands between two marks; everything else in the file is left alone.

use std::path::Path;

const BEGIN: &str = "<!-- campaigns: written by the program -->";
const END: &str = "<!-- end -->";
const HEAD: &str = "| what | done | seeds | result | time |\n|---|---|---|---|---|\n";

/// One run.
pub struct Row<'a> {
    /// As typed; names the row.
    pub name: &'a str,
    pub what: &'a str,
    /// What was done how often.
    pub done: String,
    pub seeds: String,
    pub passed: u64,
    pub failed: u64,
    pub minutes: u64,
}

impl Row<'_> {
    pub fn write(&self, file: &Path) -> Result<(), String> {
        let told = |error: std::io::Error| format!("{}: {error}", file.display());
        let text = std::fs::read_to_string(file).map_err(told)?;
        let text = with_row(&text, self.name, &self.line())
            .ok_or_else(|| format!("{}: no `{BEGIN}` and `{END}`", file.display()))?;
        std::fs::write(file, text).map_err(told)
    }

    fn line(&self) -> String {
        format!(
            "| `{}`: {} | {} | {} | {} passed, {} failed | {} min |",
            self.name, self.what, self.done, self.seeds, self.passed, self.failed, self.minutes,
        )
    }
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
