//! Text as the other verbs print it, in the terms of the terminal library.
//!
//! Promise: of the escape sequences in a text only colours and weights have an effect; no other one, and nothing else that
//! a terminal would obey, reaches it, whoever wrote the text.

use console::AnsiCodeIterator;
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};

/// Lines with the colours that the text has. What is left open at the end of a line goes on in the next.
pub fn lines<'l>(text: impl IntoIterator<Item = &'l str>) -> Vec<Line<'static>> {
    let mut style = Style::new();
    let mut painted = Vec::new();
    for line in text {
        let mut spans = Vec::new();
        for (part, is_code) in AnsiCodeIterator::new(line) {
            match is_code {
                true => style = styled(style, part),
                false => spans.push(Span::styled(printable(part), style)),
            }
        }
        painted.push(Line::from(spans));
    }
    painted
}

/// The widgets of the library pass control characters on.
fn printable(text: &str) -> String {
    let safe = |c: char| if c.is_control() { '\u{fffd}' } else { c };
    text.chars().map(safe).collect()
}

/// The style after a code; any code that is not about colours changes nothing.
fn styled(style: Style, code: &str) -> Style {
    let Some(numbers) = code
        .strip_prefix("\x1b[")
        .and_then(|rest| rest.strip_suffix('m'))
    else {
        return style;
    };
    // https://www.ecma-international.org/publications-and-standards/standards/ecma-48/, SGR.
    let apply = |style: Style, number| match number {
        "" | "0" => Style::new(),
        "1" => style.add_modifier(Modifier::BOLD),
        "31" => style.fg(Color::Red),
        "32" => style.fg(Color::Green),
        "33" => style.fg(Color::Yellow),
        _ => style,
    };
    numbers.split(';').fold(style, apply)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: &[(&str, Style)]) {
        let painted = lines(text.lines());
        let spans = painted.iter().flat_map(|line| line.spans.iter());
        let spans: Vec<(&str, Style)> = spans
            .map(|span| (span.content.as_ref(), span.style))
            .filter(|(text, _)| !text.is_empty())
            .collect();
        assert_eq!(spans, expected, "{text:?}");
    }

    #[test]
    fn colours_and_weights() {
        let (plain, bold) = (Style::new(), Style::new().add_modifier(Modifier::BOLD));
        let (red, yellow) = (plain.fg(Color::Red), plain.fg(Color::Yellow));
        check("web  active", &[("web  active", plain)]);
        check(
            "\x1b[1mrole web\x1b[0m  x",
            &[("role web", bold), ("  x", plain)],
        );
        check("\x1b[31mFAILED\x1b[0m", &[("FAILED", red)]);
        check(
            "\x1b[33ma\nb\x1b[0mc",
            &[("a", yellow), ("b", yellow), ("c", plain)],
        );
        check("\x1b[1;31mx", &[("x", red.add_modifier(Modifier::BOLD))]);
        check("a\x1b[2Jb", &[("a", plain), ("b", plain)]);
    }
}
