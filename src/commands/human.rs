//! What the verbs print beyond [`units`]: ages between two times, local times, parts of a whole.
//!
//! Promise: never a negative age (the clocks of two nodes differ).

use jiff::Timestamp;

use crate::logic::units;

/// `1.2 of 2.0 GiB`: once the unit, where both have the same.
pub fn part(done: u64, total: u64) -> String {
    let (done, total) = (units::human_bytes(done), units::human_bytes(total));
    let unit = |text: &str| text.rsplit(' ').next().map(str::to_owned);
    match done.rsplit_once(' ') {
        Some((number, _)) if unit(&done) == unit(&total) => format!("{number} of {total}"),
        _ => format!("{done} of {total}"),
    }
}

/// Seconds from `then` to `now`, never negative.
pub fn seconds_between(then: Timestamp, now: Timestamp) -> f64 {
    now.duration_since(then).as_secs_f64().max(0.0)
}

/// `3m 12s`.
pub fn between(then: Timestamp, now: Timestamp) -> String {
    units::human_duration(seconds_between(then, now))
}

/// `3m 12s ago`.
pub fn ago(then: Timestamp, now: Timestamp) -> String {
    units::human_age(seconds_between(then, now))
}

/// Local time with its zone, `2026-11-20 12:30:05 +01:00`.
pub fn local_zoned(at: Timestamp) -> String {
    format!("{} {}", local(at), offset(at))
}

/// How far local time is from UTC at that time: `UTC`, `+01:00`.
pub fn offset(at: Timestamp) -> String {
    let zoned = at.to_zoned(zone());
    if zoned.offset().seconds() == 0 {
        "UTC".into()
    } else {
        zoned.strftime("%:z").to_string()
    }
}

/// A local time within the next days, to the minute: `20:00`, `Mon 08:00`.
pub fn soon(at: Timestamp, now: Timestamp) -> String {
    let (at, now) = (at.to_zoned(zone()), now.to_zoned(zone()));
    let today = at.date() == now.date();
    let spelling = if today { "%H:%M" } else { "%a %H:%M" };
    at.strftime(spelling).to_string()
}

/// The local time of day.
pub fn clock(at: Timestamp) -> String {
    at.to_zoned(zone()).strftime("%H:%M:%S").to_string()
}

/// When something was: `12:35:05` today, `Nov 19 12:35:05` before.
pub fn moment(at: Timestamp, now: Timestamp) -> String {
    let (zoned, today) = (at.to_zoned(zone()), now.to_zoned(zone()).date());
    let spelling = if zoned.date() == today {
        "%H:%M:%S"
    } else {
        "%b %d %H:%M:%S"
    };
    zoned.strftime(spelling).to_string()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts() {
        let check = |done, total, text: &str| assert_eq!(part(done, total), text);
        check(0, 0, "0 of 0 B");
        check(512 << 20, 2 << 30, "512.0 MiB of 2.0 GiB");
        check(1 << 30, 2 << 30, "1.0 of 2.0 GiB");
        check(3, 900, "3 of 900 B");
    }

    #[test]
    fn the_day_is_told_where_it_is_another() {
        let at = |word: &str| word.parse::<Timestamp>().unwrap();
        let check = |then: &str, text: &str| {
            assert_eq!(moment(at(then), at("2026-11-20T12:35:45Z")), text);
        };
        check("2026-11-20T09:05:01Z", "09:05:01");
        check("2026-11-19T23:59:59Z", "Nov 19 23:59:59");
    }

    #[test]
    fn a_clock_that_is_ahead() {
        let at = |word: &str| word.parse::<Timestamp>().unwrap();
        let (earlier, later) = (at("2026-11-20T12:00:00Z"), at("2026-11-20T12:03:12Z"));
        assert_eq!(ago(earlier, later), "3m 12s ago");
        assert_eq!(ago(later, earlier), "now");
    }
}
