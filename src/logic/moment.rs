//! A moment in the past as people write it: `3h`, `2 days ago`, `yesterday 14:00`, `2026-11-20T12:00`.
//!
//! Promise: pure; "now", and with it the local time zone, comes in. What could mean two moments means the one said here, or is
//! refused. Spans in days and longer go back by the calendar: `2 days ago` is the same time of the local clock. A time that the
//! local clock showed twice, or skipped (summer time), is read as the offset before the change has it.

use jiff::civil::{Date, DateTime, Time, Weekday};
use jiff::{Span, Timestamp, Zoned};

use super::units;

/// Why words are not a moment, with examples.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BadMoment(String);

const EXAMPLES: &str =
    "write \"3h\", \"2 days ago\", \"yesterday\", \"yesterday 14:00\" or \"2026-11-20T12:00\"";

/// The moment that the words mean at `now`. `today`, `yesterday`, a weekday and a date without a time mean the beginning of that
/// day; a time without a day is the last time the local clock showed it.
pub fn parse(words: &str, now: &Zoned) -> Result<Timestamp, BadMoment> {
    let words = words.trim();
    let none = || BadMoment(format!("{words:?} is not a time: {EXAMPLES}"));
    let small = words.to_ascii_lowercase();
    let meant = ago(&small, now)
        .or_else(|| exact(words))
        .or_else(|| day_and_time(&small, now))
        .ok_or_else(none)?;
    if meant > now.timestamp() {
        let why = "lies in the future: only what was can be brought back";
        return Err(BadMoment(format!("{words:?} {why}")));
    }
    Ok(meant)
}

/// `3h`, `2d ago`, `2 days ago`, `a week ago`.
fn ago(words: &str, now: &Zoned) -> Option<Timestamp> {
    if words == "now" {
        return Some(now.timestamp());
    }
    let span = words.strip_suffix("ago").map_or(words, str::trim_end);
    if let Some((count, unit)) = span.split_once(' ') {
        let count: i64 = match count {
            "a" | "an" | "one" => 1,
            count => count.parse().ok().filter(|count| *count >= 0)?,
        };
        let span = Span::new();
        let span = match unit.trim().trim_end_matches('s') {
            "second" | "sec" => span.try_seconds(count),
            "minute" | "min" => span.try_minutes(count),
            "hour" => span.try_hours(count),
            "day" => span.try_days(count),
            "week" => span.try_weeks(count),
            "month" => span.try_months(count),
            "year" => span.try_years(count),
            _ => return None,
        };
        return Some(now.checked_sub(span.ok()?).ok()?.timestamp());
    }
    let whole_days = |unit: &str, days: i64| -> Option<i64> {
        let count: i64 = span.strip_suffix(unit)?.parse().ok()?;
        count.checked_mul(days).filter(|days| *days >= 0)
    };
    if let Some(days) = whole_days("d", 1).or_else(|| whole_days("w", 7)) {
        let span = Span::new().try_days(days).ok()?;
        return Some(now.checked_sub(span).ok()?.timestamp());
    }
    let span = units::parse_duration(span).ok()?;
    now.timestamp().checked_sub(span).ok()
}

/// A time with its offset, or one spelled as points are named.
fn exact(words: &str) -> Option<Timestamp> {
    let named = || DateTime::strptime("%Y%m%dT%H%M%SZ", words).ok();
    let utc = |at: DateTime| Some(at.to_zoned(jiff::tz::TimeZone::UTC).ok()?.timestamp());
    words.parse().ok().or_else(|| named().and_then(utc))
}

/// `yesterday`, `monday 9:30`, `2026-11-20`, `2026-11-20 12:00`, `14:05`.
fn day_and_time(words: &str, now: &Zoned) -> Option<Timestamp> {
    let local = |at: DateTime| Some(at.to_zoned(now.time_zone().clone()).ok()?.timestamp());
    if let Some(time) = time(words) {
        let today = local(now.date().to_datetime(time))?;
        return match today <= now.timestamp() {
            true => Some(today),
            false => local(now.date().yesterday().ok()?.to_datetime(time)),
        };
    }
    // `2026-11-20t12:00`: the letter stands behind ten others.
    let cut = words.find(' ').or(words.find('t').filter(|at| *at == 10));
    let (date, clock) = match cut {
        Some(at) => (&words[..at], time(&words[at + 1..])?),
        None => (words, Time::midnight()),
    };
    local(day(date, now)?.to_datetime(clock))
}

fn day(word: &str, now: &Zoned) -> Option<Date> {
    let today = now.date();
    match word {
        "today" => return Some(today),
        "yesterday" => return today.yesterday().ok(),
        _ => {}
    }
    let days = [
        ("monday", Weekday::Monday),
        ("tuesday", Weekday::Tuesday),
        ("wednesday", Weekday::Wednesday),
        ("thursday", Weekday::Thursday),
        ("friday", Weekday::Friday),
        ("saturday", Weekday::Saturday),
        ("sunday", Weekday::Sunday),
    ];
    let named = days.iter().find(|(name, _)| {
        word == *name || word.len() == 3 && name.starts_with(word) && word.is_ascii()
    });
    if let Some((_, weekday)) = named {
        // The last one before today: on a Monday, "monday" is a week ago.
        return today.nth_weekday(-1, *weekday).ok();
    }
    (word.len() == 10).then(|| word.parse().ok()).flatten()
}

/// `14:05`, `9:30`, `14:05:30`.
fn time(words: &str) -> Option<Time> {
    let mut parts = words.split(':');
    let mut number = |required: bool| -> Option<i8> {
        match parts.next() {
            Some(part) if part.len() <= 2 && part.bytes().all(|b| b.is_ascii_digit()) => {
                part.parse().ok()
            }
            None if !required => Some(0),
            _ => None,
        }
    };
    let (hour, minute, second) = (number(true)?, number(true)?, number(false)?);
    if parts.next().is_some() {
        return None;
    }
    Time::new(hour, minute, second, 0).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A Saturday in winter.
    const NOW: &str = "2026-11-21T12:30:00+01:00[Europe/Berlin]";

    fn check(words: &str, expected: &str) {
        let now: Zoned = NOW.parse().unwrap();
        let found = match parse(words, &now) {
            Ok(at) => at
                .to_zoned(now.time_zone().clone())
                .strftime("%Y-%m-%d %H:%M:%S")
                .to_string(),
            Err(why) => format!("refused: {why}"),
        };
        assert!(
            found.starts_with(expected),
            "{words:?}: {found}, not {expected}"
        );
    }

    #[test]
    fn spans() {
        check("now", "2026-11-21 12:30:00");
        check("3h", "2026-11-21 09:30:00");
        check("1h30m", "2026-11-21 11:00:00");
        check("90s ago", "2026-11-21 12:28:30");
        check("2d", "2026-11-19 12:30:00");
        check("1w ago", "2026-11-14 12:30:00");
        check("2 days ago", "2026-11-19 12:30:00");
        check("an hour ago", "2026-11-21 11:30:00");
        check("A week ago", "2026-11-14 12:30:00");
        check("3 months ago", "2026-08-21 12:30:00");
        check("1 year", "2025-11-21 12:30:00");
        check("5 min ago", "2026-11-21 12:25:00");
        // Over the end of summer time (25 October): the same time of the clock.
        check("30 days ago", "2026-10-22 12:30:00");
        check("30d", "2026-10-22 12:30:00");
    }

    #[test]
    fn days_and_times() {
        check("today", "2026-11-21 00:00:00");
        check("yesterday", "2026-11-20 00:00:00");
        check("Yesterday 14:00", "2026-11-20 14:00:00");
        check("monday", "2026-11-16 00:00:00");
        check("tue 9:30", "2026-11-17 09:30:00");
        check("saturday", "2026-11-14 00:00:00");
        check("sat", "2026-11-14 00:00:00");
        check("2026-11-20", "2026-11-20 00:00:00");
        check("2026-11-20T12:00", "2026-11-20 12:00:00");
        check("2026-11-20 12:00:05", "2026-11-20 12:00:05");
        check("2026-11-20T12:00:00Z", "2026-11-20 13:00:00");
        check("2026-11-20T12:00:00+05:00", "2026-11-20 08:00:00");
        check("20261120T123105Z", "2026-11-20 13:31:05");
        check("9:05", "2026-11-21 09:05:00");
        check("14:05", "2026-11-20 14:05:00");
        // Shown twice on that morning, and skipped on that one.
        check("2026-10-25 02:30", "2026-10-25 02:30:00");
        check("2026-03-29 02:30", "2026-03-29 03:30:00");
    }

    #[test]
    fn what_is_no_moment() {
        for words in [
            "",
            "soon",
            "ago",
            "-3h",
            "-2 days ago",
            "3 parsecs ago",
            "25:00",
            "12",
            "2026-13-01",
            "2026-11-20T",
            "yesterday noon",
            "latest",
            "1.42",
            "99999999999999999999d",
            "9999999 years ago",
            "t1:00",
            "äöü",
            "mö",
        ] {
            check(words, "refused: ");
        }
        check("2026-11-22", "refused: \"2026-11-22\" lies in the future");
        check("13 days", "2026-11-08 12:30");
    }
}
