//! Text that fits a terminal: lines broken between words, and the rest counted where there are too many lines.
//!
//! Promise: no word is lost without an ellipsis or a count in its place. Colours are measured as nothing.

use console::{measure_text_width, truncate_str};

/// Breaks lines that are wider than `columns` between words; what goes on is indented by four more than the line was.
pub fn fitted(text: &str, columns: usize) -> String {
    let lines: Vec<String> = text
        .lines()
        .flat_map(|line| broken(line, columns))
        .collect();
    lines.join("\n")
}

/// At most `rows` lines; the last one says how many more there would be.
pub fn shortened(text: &str, rows: usize) -> Vec<String> {
    let lines: Vec<String> = text.lines().map(str::to_owned).collect();
    if lines.len() <= rows {
        return lines;
    }
    let shown = rows.saturating_sub(1);
    let mut short = lines[..shown].to_vec();
    short.push(format!("... {} more lines", lines.len() - shown));
    short
}

fn broken(line: &str, columns: usize) -> Vec<String> {
    if measure_text_width(line) <= columns {
        return vec![line.to_owned()];
    }
    let indent = line.len() - line.trim_start_matches(' ').len() + 4;
    let mut lines = Vec::new();
    let mut current = String::new();
    // Blanks are kept as empty words, so that columns stay where they are.
    for (index, word) in line.split(' ').enumerate() {
        let width = measure_text_width(&current) + 1 + measure_text_width(word);
        if index > 0 && width > columns && !current.trim().is_empty() {
            lines.push(current.trim_end().to_owned());
            current = " ".repeat(indent) + word;
            continue;
        }
        if index > 0 && !(current.trim().is_empty() && word.is_empty() && !lines.is_empty()) {
            current.push(' ');
        }
        current.push_str(word);
    }
    lines.push(current.trim_end().to_owned());
    lines.retain(|line| !line.is_empty());
    lines
        .into_iter()
        .map(|line| truncate_str(&line, columns, "...").into_owned())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, columns: usize, lines: &[&str]) {
        let fitted = fitted(text, columns);
        assert_eq!(fitted.lines().collect::<Vec<_>>(), lines);
    }

    #[test]
    fn lines_break_between_words() {
        check("a line\n\n  another", 20, &["a line", "", "  another"]);
        check(
            "  web: could not reach birch: refused",
            24,
            &["  web: could not reach", "      birch: refused"],
        );
        check("one  two  three", 10, &["one  two", "    three"]);
        check("abcdefghijklmnop", 10, &["abcdefg..."]);
    }

    #[test]
    fn what_is_left_out_is_counted() {
        assert_eq!(shortened("a\nb", 2), ["a", "b"]);
        assert_eq!(shortened("a\nb\nc\nd", 3), ["a", "b", "... 2 more lines"]);
    }
}
