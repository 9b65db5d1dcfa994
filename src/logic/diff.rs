//! The difference of two texts, for people.
//!
//! Promise: bounded: texts that differ too much to be compared in a moment are told so, in a line. The result may hold whatever
//! the texts hold: who prints it makes it harmless.

use std::time::Duration;

use similar::TextDiff;

/// Lines around a difference.
const CONTEXT: usize = 3;

/// Longest the comparison may take; what it then shows is right, and longer than need be.
const TIME_MAX: Duration = Duration::from_millis(500);

/// Longest difference that is shown, in bytes.
const SHOWN_BYTES_MAX: usize = 256 << 10;

/// A unified diff from `old` to `new` under these two names; none where they are equal.
pub fn unified(old: &str, new: &str, names: (&str, &str)) -> Option<String> {
    if old == new {
        return None;
    }
    let diff = TextDiff::configure().timeout(TIME_MAX).diff_lines(old, new);
    let mut text = diff
        .unified_diff()
        .context_radius(CONTEXT)
        .header(names.0, names.1)
        .to_string();
    if text.len() > SHOWN_BYTES_MAX {
        let end = (0..=SHOWN_BYTES_MAX)
            .rev()
            .find(|at| text.is_char_boundary(*at));
        text.truncate(end.unwrap_or(0));
        text.push_str("\n... (the rest is not shown)\n");
    }
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(old: &str, new: &str, expected: &str) {
        let told = unified(old, new, ("alder", "birch")).unwrap_or_default();
        assert_eq!(told, expected);
    }

    #[test]
    fn differences() {
        check("a\n", "a\n", "");
        check(
            "a\nb\n",
            "a\nc\n",
            "--- alder\n+++ birch\n@@ -1,2 +1,2 @@\n a\n-b\n+c\n",
        );
        check(
            "",
            "a",
            "--- alder\n+++ birch\n@@ -0,0 +1 @@\n+a\n\\ No newline at end of file\n",
        );
        let long = "x\n".repeat(SHOWN_BYTES_MAX);
        let told = unified("", &long, ("a", "b")).unwrap();
        assert!(told.len() < SHOWN_BYTES_MAX + 100 && told.ends_with("not shown)\n"));
    }
}
