//! A running transfer on one line: its name, and its figures as far as they fit.
//!
//! Promise: a part is shown whole or not at all, and nothing of a file name can steer the terminal.

use crate::commands::human;
use crate::logic::progress::{Bottleneck, Direction, TransferView};
use crate::logic::units;

/// Parts that are always shown: per cent, amount, rate.
const NEEDED: usize = 3;

/// `web/files -> birch  1.43 on 1.42`.
pub fn transfer_name(t: &TransferView) -> String {
    let arrow = match t.direction {
        Direction::Sending => "->",
        Direction::Receiving => "<-",
    };
    let base = t.base.as_ref().map_or("whole".to_owned(), |base| {
        format!("on {}.{}", base.epoch, base.sequence)
    });
    format!(
        "{}/{} {arrow} {}  {}.{} {base}",
        t.role, t.dataset, t.peer, t.point.epoch, t.point.sequence
    )
}

/// `61 %  1.2 of 2.0 GiB  34 MiB/s  23s left  link is the slow side  var/www/x.jpg`.
pub fn transfer(t: &TransferView) -> String {
    transfer_within(t, usize::MAX)
}

/// The same, without what does not fit into `columns`: the file name goes first, the amount and the rate never.
pub fn transfer_within(t: &TransferView, columns: usize) -> String {
    let percent = match t.total_bytes {
        0 => 100,
        total => (t.done_bytes.min(total) as f64 * 100.0 / total as f64) as u64,
    };
    let mut parts = vec![
        format!("{percent:3} %"),
        human::part(t.done_bytes, t.total_bytes),
        units::human_rate(t.rate),
    ];
    if let Some(eta) = t.eta_s {
        parts.push(format!("{} left", units::human_duration(eta)));
    }
    if t.resumed_at > 0 {
        parts.push(format!("resumed at {}", units::human_bytes(t.resumed_at)));
    }
    match t.bottleneck {
        Some(Bottleneck::Source) => parts.push("reading is the slow side".into()),
        Some(Bottleneck::Link) => parts.push("the link is the slow side".into()),
        Some(Bottleneck::Target) => parts.push("writing is the slow side".into()),
        None => {}
    }
    if !t.file.is_empty() {
        parts.push(printable(&t.file));
    }
    let mut text = parts[..NEEDED].join("  ");
    for part in &parts[NEEDED..] {
        if console::measure_text_width(&text) + 2 + console::measure_text_width(part) > columns {
            break;
        }
        text.push_str("  ");
        text.push_str(part);
    }
    text
}

/// A file name from a stream, with nothing in it that a terminal would obey.
fn printable(name: &str) -> String {
    let safe = |c: char| if c.is_control() { '\u{fffd}' } else { c };
    name.chars().map(safe).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::samples;

    #[test]
    fn a_hostile_file_name_cannot_steer_the_terminal() {
        let mut view = samples::transfer();
        view.file = "a\x1b[2Jb\nc".into();
        let text = transfer(&view);
        assert!(!text.contains(['\x1b', '\n']), "{text:?}");
    }

    #[test]
    fn parts_go_whole() {
        let check = |columns, text: &str| {
            assert_eq!(transfer_within(&samples::transfer(), columns), text);
        };
        check(10, " 61 %  1.2 of 2.0 GiB  34.0 MiB/s");
        check(45, " 61 %  1.2 of 2.0 GiB  34.0 MiB/s  24s left");
        check(
            75,
            " 61 %  1.2 of 2.0 GiB  34.0 MiB/s  24s left  resumed at 512.0 MiB",
        );
    }
}
