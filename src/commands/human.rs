//! Sizes, rates, spans and ages as the verbs print them.
//!
//! Promise: at most three significant figures, binary units, never a negative age (clocks of two nodes differ).

use jiff::Timestamp;

/// `1.2 GiB`.
pub fn bytes(bytes: u64) -> String {
    let (value, unit) = scaled(bytes as f64);
    if unit == "B" {
        format!("{value} B")
    } else {
        format!("{} {unit}", figures(value))
    }
}

/// `34.1 MiB/s`.
pub fn rate(bytes_per_s: f64) -> String {
    let (value, unit) = scaled(bytes_per_s.max(0.0));
    format!("{} {unit}/s", figures(value))
}

/// `1.2 of 2.0 GiB`: both in the unit of the whole.
pub fn part(done: u64, total: u64) -> String {
    let (value, unit) = scaled(total as f64);
    if total == 0 || unit == "B" {
        return format!("{done} of {total} B");
    }
    let scale = total as f64 / value;
    format!(
        "{} of {} {unit}",
        figures(done as f64 / scale),
        figures(value)
    )
}

/// `45s`, `3m 12s`, `2h 05m`, `3d 04h`: two units at most.
pub fn span(seconds: f64) -> String {
    let s = seconds.max(0.0).round() as u64;
    match s {
        0..60 => format!("{s}s"),
        60..3600 => format!("{}m {:02}s", s / 60, s % 60),
        3600..86400 => format!("{}h {:02}m", s / 3600, s % 3600 / 60),
        _ => format!("{}d {:02}h", s / 86400, s % 86400 / 3600),
    }
}

/// Seconds from `then` to `now`, never negative.
pub fn seconds_between(then: Timestamp, now: Timestamp) -> f64 {
    (now.duration_since(then).as_secs_f64()).max(0.0)
}

/// `3m 12s ago`.
pub fn ago(then: Timestamp, now: Timestamp) -> String {
    format!("{} ago", span(seconds_between(then, now)))
}

/// Local time, to the second.
pub fn local(at: Timestamp) -> String {
    at.to_zoned(zone())
        .strftime("%Y-%m-%d %H:%M:%S")
        .to_string()
}

/// The zone people here live in; in tests always UTC, so that they read the same everywhere.
fn zone() -> jiff::tz::TimeZone {
    if cfg!(test) {
        jiff::tz::TimeZone::UTC
    } else {
        jiff::tz::TimeZone::system()
    }
}

/// `1 point`, `3 points`.
pub fn count(number: usize, word: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {word}{plural}")
}

fn scaled(value: f64) -> (f64, &'static str) {
    let mut value = value;
    for unit in ["B", "KiB", "MiB", "GiB", "TiB"] {
        if value < 1023.5 {
            return (value, unit);
        }
        value /= 1024.0;
    }
    (value, "PiB")
}

fn figures(value: f64) -> String {
    if value < 9.95 {
        format!("{value:.1}")
    } else {
        format!("{value:.0}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        let check = |value, text: &str| assert_eq!(bytes(value), text);
        check(0, "0 B");
        check(1023, "1023 B");
        check(1024, "1.0 KiB");
        check(10 << 20, "10 MiB");
        check((1 << 30) + (200 << 20), "1.2 GiB");
        check(u64::MAX, "16384 PiB");
    }

    #[test]
    fn parts() {
        let check = |done, total, text: &str| assert_eq!(part(done, total), text);
        check(0, 0, "0 of 0 B");
        check(512 << 20, 2 << 30, "0.5 of 2.0 GiB");
        check(2 << 30, 2 << 30, "2.0 of 2.0 GiB");
        check(3, 900, "3 of 900 B");
    }

    #[test]
    fn spans() {
        let check = |seconds, text: &str| assert_eq!(span(seconds), text);
        check(-5.0, "0s");
        check(59.4, "59s");
        check(192.0, "3m 12s");
        check(7500.0, "2h 05m");
        check(273_600.0, "3d 04h");
    }
}
