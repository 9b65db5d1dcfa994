//! Text that fits a terminal: lines broken between words.
//!
//! Promise: no word is lost without an ellipsis in its place. Colours are measured as nothing.

use console::{measure_text_width, truncate_str};

/// Breaks lines that are wider than `columns` between words; what goes on is indented by four more than the line was.
pub fn fitted(text: &str, columns: usize) -> String {
    let lines: Vec<String> = text
        .lines()
        .flat_map(|line| broken(line, columns))
        .collect();
    lines.join("\n")
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
}
