//! When a role's cycle is due.
//!
//! Promises, whatever the clock does:
//! - a missed time is due now, and once, however many were missed: no storm after a long sleep;
//! - a last start that lies in the future (the clock went back) is due now: no stall until the clock has caught up;
//! - asking again before the cycle has started gives the same moment or "now": a late waker misses nothing;
//! - a time that the change to summer time skips runs once, as much later as the clock jumped; a time that the change
//!   back repeats runs once, except where the hour field is `*` or `*/n`: a schedule through all hours goes on through
//!   the repeated one.
//!
//! It deliberately does not know the clock, nor whether anything changed: a cycle that is due may still find nothing to do.

use std::fmt;
use std::time::Duration;

use croner::Cron;
use croner::parser::{CronParser, Seconds, Year};
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

use super::units;

/// How long `on-change` lets pass between two points of one that is written to all the time: as long as it may take to react.
pub const APART_DEFAULT: Duration = Duration::from_secs(1);

/// How often `on-change` looks, which costs nothing: with what a point takes to get to a peer, this is well within a second.
pub const LOOK_EVERY: Duration = Duration::from_millis(250);

/// Longest pause of [`Doubt`] after looks that took no time, and after slow ones.
const DOUBT_MAX: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(30));

/// One part in so many of the time may go into looks that find nothing.
const DOUBT_SHARE: u32 = 20;

/// Data that were written, and nobody knows to what: only a look that writes them out tells, which others pay for who keep
/// writing beside the role. So the pause before the next such look grows with each that found nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Doubt {
    pause: Duration,
}

impl Doubt {
    /// The time of a look after which the longest pause follows.
    pub const SLOW: Duration = DOUBT_MAX.1;

    /// How long after the last look, that found nothing, the next may be.
    pub fn pause(&self) -> Duration {
        self.pause
    }

    /// A look found nothing; it took so long, and came so long after the one before.
    pub fn in_vain(&mut self, took: Duration, after: Duration) {
        let (usual, longest) = DOUBT_MAX;
        // Those who wrote beside the role have been quiet for long: begin anew.
        let doubled = if after > 2 * longest {
            INTERVAL_MIN
        } else {
            (self.pause * 2).clamp(INTERVAL_MIN, usual)
        };
        self.pause = doubled.max(took * DOUBT_SHARE).min(longest);
    }

    /// A look found something.
    pub fn founded(&mut self) {
        *self = Doubt::default();
    }
}

/// Shortest interval.
pub const INTERVAL_MIN: Duration = Duration::from_secs(1);

/// A role's schedule.
#[derive(Debug, Clone, PartialEq)]
pub enum Every {
    /// This long after the last start.
    Interval(Duration),
    /// At certain times of the local clock.
    Calendar(Calendar),
    /// As soon as something changed, and this long after the last start at the earliest.
    OnChange { apart: Duration },
    /// Only when somebody asks.
    Manual,
}

/// Times of the local clock. Equal when spelled equally.
#[derive(Debug, Clone)]
pub struct Calendar {
    text: String,
    cron: Box<Cron>,
    /// The hour field is `*` or `*/n`.
    through_all_hours: bool,
}

impl PartialEq for Calendar {
    fn eq(&self, other: &Calendar) -> bool {
        self.text == other.text
    }
}

/// Why a text is not a schedule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BadSchedule(String);

const FORMS: &str = "write an interval (\"5m\"), \"on-change\", \"manual\", \"hourly\", \"daily 03:30\", \"mon..fri 03:30\", \
                     or five cron fields (\"*/15 8-19 * * 1-5\")";

impl Every {
    pub fn parse(text: &str) -> Result<Every, BadSchedule> {
        let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
        let words: Vec<&str> = text.split(' ').collect();
        match words.as_slice() {
            [""] => Err(BadSchedule(format!("empty: {FORMS}"))),
            ["manual"] => Ok(Every::Manual),
            ["on-change"] => Ok(Every::OnChange {
                apart: APART_DEFAULT,
            }),
            ["on-change", apart] => interval(apart).map(|apart| Every::OnChange { apart }),
            ["hourly"] => calendar(&text, "0 * * * *"),
            [days, time] => calendar(&text, &day_and_time(days, time)?),
            [_, _, _, _, _] => calendar(&text, &text),
            [word] if word.starts_with(|c: char| c.is_ascii_digit()) => {
                interval(word).map(Every::Interval)
            }
            _ => Err(BadSchedule(format!("not a schedule: {FORMS}"))),
        }
    }
}

impl fmt::Display for Every {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Every::Interval(interval) => f.write_str(&units::exact_duration(*interval)),
            Every::Calendar(calendar) => f.write_str(&calendar.text),
            Every::OnChange { apart } if *apart == APART_DEFAULT => f.write_str("on-change"),
            Every::OnChange { apart } => write!(f, "on-change {}", units::exact_duration(*apart)),
            Every::Manual => f.write_str("manual"),
        }
    }
}

/// The next moment a cycle should start: `now` when one is overdue or none ever ran; none for a schedule without times.
/// `last_start` is the last start of any cycle of the role, also of one that somebody asked for.
pub fn next_due(
    every: &Every,
    last_start: Option<Timestamp>,
    now: Timestamp,
    tz: &TimeZone,
) -> Option<Timestamp> {
    if *every == Every::Manual {
        return None;
    }
    let Some(last) = last_start.filter(|last| *last <= now) else {
        return Some(now);
    };
    let due = match every {
        Every::Manual => None,
        Every::Interval(interval) | Every::OnChange { apart: interval } => {
            Some(later(last, *interval))
        }
        Every::Calendar(calendar) => calendar.next_after(last, tz),
    };
    due.map(|due| due.max(now))
}

/// The end of time where the sum has no name.
fn later(last: Timestamp, interval: Duration) -> Timestamp {
    SignedDuration::try_from(interval)
        .ok()
        .and_then(|interval| last.checked_add(interval).ok())
        .unwrap_or(Timestamp::MAX)
}

fn interval(word: &str) -> Result<Duration, BadSchedule> {
    let interval = units::parse_duration(word).map_err(|e| BadSchedule(e.to_string()))?;
    if interval < INTERVAL_MIN {
        return Err(BadSchedule(format!(
            "too short: at least {}",
            units::exact_duration(INTERVAL_MIN)
        )));
    }
    Ok(interval)
}

/// `daily 03:30` or `mon..fri 03:30` as cron fields.
fn day_and_time(days: &str, time: &str) -> Result<String, BadSchedule> {
    let bad = || BadSchedule(format!("not a schedule: {FORMS}"));
    let two_digits = |text: &str, below: u8| -> Option<u8> {
        let digits = (1..=2).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
        text.parse().ok().filter(|n| digits && *n < below)
    };
    let (hour, minute) = time.split_once(':').ok_or_else(bad)?;
    let hour = two_digits(hour, 24).ok_or_else(bad)?;
    let minute = two_digits(minute, 60)
        .filter(|_| minute.len() == 2)
        .ok_or_else(bad)?;
    let days = match days {
        "daily" => "*".to_owned(),
        _ => weekdays(days).ok_or_else(bad)?,
    };
    Ok(format!("{minute} {hour} * * {days}"))
}

/// `mon..fri,sun` as a cron field.
fn weekdays(text: &str) -> Option<String> {
    const NAMES: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];
    let number = |name: &str| NAMES.iter().position(|n| *n == name.to_ascii_lowercase());
    let part = |part: &str| match part.split_once("..") {
        None => number(part).map(|day| day.to_string()),
        Some((from, to)) => {
            let (from, to) = (number(from)?, number(to)?);
            // A range over the week's end, such as fri..mon, is spelled out: cron counts upwards only.
            let length = (to + 7 - from) % 7;
            let days: Vec<String> = (0..=length).map(|i| ((from + i) % 7).to_string()).collect();
            Some(days.join(","))
        }
    };
    let parts: Option<Vec<String>> = text.split(',').map(part).collect();
    Some(parts?.join(","))
}

fn calendar(text: &str, fields: &str) -> Result<Every, BadSchedule> {
    let cron = CronParser::builder()
        .seconds(Seconds::Disallowed)
        .year(Year::Disallowed)
        .build()
        .parse(fields)
        .map_err(|e| BadSchedule(format!("not a schedule ({e}): {FORMS}")))?;
    // Any year will do: what does not come in the years after 2000, which has a 29 February, never comes.
    if cron
        .find_next_occurrence(&DateTime::constant(2000, 1, 1, 0, 0, 0, 0), true)
        .is_err()
    {
        return Err(BadSchedule(
            "this day never comes: check day and month".to_owned(),
        ));
    }
    let hours = fields.split(' ').nth(1).unwrap_or_default();
    Ok(Every::Calendar(Calendar {
        text: text.to_owned(),
        cron: Box::new(cron),
        through_all_hours: hours == "*" || hours.starts_with("*/"),
    }))
}

impl Calendar {
    /// The first time after `last`.
    fn next_after(&self, last: Timestamp, tz: &TimeZone) -> Option<Timestamp> {
        if self.through_all_hours {
            let next = self
                .cron
                .find_next_occurrence(&last.to_zoned(tz.clone()), false);
            return next.ok().map(|zoned| zoned.timestamp());
        }
        // Along the wall clock, each time once. In the repeated hour the wall clock's next time may be one whose moment
        // (the first of the two) is already past: go on to the following one.
        let mut wall = tz.to_datetime(last);
        loop {
            wall = self.cron.find_next_occurrence(&wall, false).ok()?;
            let moment = tz.to_ambiguous_timestamp(wall).compatible().ok()?;
            if moment > last {
                return Some(moment);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn berlin() -> TimeZone {
        // Rules of central Europe, so that the test needs no time zone database: summer from the last Sunday of March to
        // the last of October.
        TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3").unwrap()
    }

    /// `last` is empty where no cycle ever ran; `due` is empty where nothing is due.
    fn check(every: &str, last: &str, now: &str, due: &str) {
        let parsed = Every::parse(every).unwrap();
        let moment = |text: &str| (!text.is_empty()).then(|| at(text));
        let got = next_due(&parsed, moment(last), at(now), &berlin());
        assert_eq!(got, moment(due), "{every:?} after {last:?} at {now:?}");
    }

    /// Looks in vain, as milliseconds they took and seconds since the one before; the pauses after each, in milliseconds.
    fn check_doubt(looks: &[(u64, u64)], expected: &[u128]) {
        let mut doubt = Doubt::default();
        let mut pauses = Vec::new();
        for (took, after) in looks {
            doubt.in_vain(Duration::from_millis(*took), Duration::from_secs(*after));
            pauses.push(doubt.pause().as_millis());
        }
        assert_eq!(pauses, expected, "{looks:?}");
        doubt.founded();
        assert_eq!(doubt.pause(), Duration::ZERO);
    }

    #[test]
    fn looks_in_vain_become_fewer() {
        check_doubt(&[], &[]);
        check_doubt(
            &[(2, 99), (2, 1), (2, 2), (2, 4), (2, 5)],
            &[1000, 2000, 4000, 5000, 5000],
        );
        // A disk on which they are slow.
        check_doubt(&[(400, 99), (400, 8), (90, 8)], &[8000, 8000, 5000]);
        check_doubt(&[(9000, 99)], &[30_000]);
        // Quiet in between.
        check_doubt(&[(2, 99), (2, 1), (2, 61)], &[1000, 2000, 1000]);
    }

    #[test]
    fn intervals() {
        check(
            "5m",
            "2026-11-20T12:00:00Z",
            "2026-11-20T12:01:00Z",
            "2026-11-20T12:05:00Z",
        );
        check(
            "5m",
            "2026-11-20T12:00:00Z",
            "2026-11-20T12:05:00Z",
            "2026-11-20T12:05:00Z",
        );
        check("5m", "", "2026-11-20T12:01:00Z", "2026-11-20T12:01:00Z");
        check(
            "on-change",
            "2026-11-20T12:00:00Z",
            "2026-11-20T12:00:00.4Z",
            "2026-11-20T12:00:01Z",
        );
        check(
            "on-change 2m",
            "2026-11-20T12:00:00Z",
            "2026-11-20T12:00:10Z",
            "2026-11-20T12:02:00Z",
        );
    }

    #[test]
    fn many_missed_times_are_due_once_and_now() {
        check(
            "5m",
            "2026-11-01T00:00:00Z",
            "2026-11-20T12:01:00Z",
            "2026-11-20T12:01:00Z",
        );
        check(
            "*/5 * * * *",
            "2026-11-01T00:00:00Z",
            "2026-11-20T12:01:00Z",
            "2026-11-20T12:01:00Z",
        );
        // ... and after that start the next is the next time of the clock.
        check(
            "*/5 * * * *",
            "2026-11-20T12:01:00Z",
            "2026-11-20T12:01:01Z",
            "2026-11-20T12:05:00Z",
        );
    }

    #[test]
    fn a_clock_that_went_back_does_not_stall() {
        check(
            "5m",
            "2030-01-01T00:00:00Z",
            "2026-11-20T12:01:00Z",
            "2026-11-20T12:01:00Z",
        );
        check(
            "daily 03:30",
            "2030-01-01T00:00:00Z",
            "2026-11-20T12:01:00Z",
            "2026-11-20T12:01:00Z",
        );
    }

    #[test]
    fn manual_is_never_due() {
        check("manual", "", "2026-11-20T12:01:00Z", "");
        check("manual", "2030-01-01T00:00:00Z", "2026-11-20T12:01:00Z", "");
    }

    #[test]
    fn calendars_follow_the_local_clock() {
        check(
            "daily 03:30",
            "2026-11-20T12:00:00Z",
            "2026-11-20T12:01:00Z",
            "2026-11-21T02:30:00Z",
        );
        check(
            "daily 3:30",
            "2026-07-20T12:00:00Z",
            "2026-07-20T12:01:00Z",
            "2026-07-21T01:30:00Z",
        );
        check(
            "mon..fri 08:00",
            "2026-11-20T12:00:00Z",
            "2026-11-20T12:01:00Z",
            "2026-11-23T07:00:00Z",
        );
        check(
            "sat,sun 08:00",
            "2026-11-20T12:00:00Z",
            "2026-11-20T12:01:00Z",
            "2026-11-21T07:00:00Z",
        );
        check(
            "fri..mon 08:00",
            "2026-11-23T12:00:00Z",
            "2026-11-23T12:01:00Z",
            "2026-11-27T07:00:00Z",
        );
        check(
            "hourly",
            "2026-11-20T12:00:00Z",
            "2026-11-20T12:01:00Z",
            "2026-11-20T13:00:00Z",
        );
        check(
            "30 4 29 2 *",
            "2026-11-20T12:00:00Z",
            "2026-11-20T12:01:00Z",
            "2028-02-29T03:30:00Z",
        );
    }

    #[test]
    fn a_skipped_time_runs_once_and_late() {
        // 29 March 2026: 02:00 becomes 03:00 at 01:00Z.
        for every in ["daily 02:30", "30 2,14 * * *"] {
            check(
                every,
                "2026-03-28T20:00:00Z",
                "2026-03-28T20:00:00Z",
                "2026-03-29T01:30:00Z",
            );
        }
        check(
            "daily 02:30",
            "2026-03-29T01:30:00Z",
            "2026-03-29T01:30:01Z",
            "2026-03-30T00:30:00Z",
        );
        check(
            "*/15 * * * *",
            "2026-03-29T00:45:00Z",
            "2026-03-29T00:45:01Z",
            "2026-03-29T01:00:00Z",
        );
    }

    #[test]
    fn a_repeated_time_runs_once() {
        // 25 October 2026: 03:00 becomes 02:00 at 01:00Z.
        for (every, after) in [
            ("daily 02:30", "2026-10-26T01:30:00Z"),
            ("30 2,14 * * *", "2026-10-25T13:30:00Z"),
        ] {
            check(
                every,
                "2026-10-24T20:00:00Z",
                "2026-10-24T20:00:00Z",
                "2026-10-25T00:30:00Z",
            );
            check(every, "2026-10-25T00:30:00Z", "2026-10-25T00:30:01Z", after);
            check(every, "2026-10-25T01:10:00Z", "2026-10-25T01:10:01Z", after);
        }
    }

    #[test]
    fn a_schedule_through_all_hours_goes_on_through_the_repeated_one() {
        check(
            "*/15 * * * *",
            "2026-10-25T00:45:00Z",
            "2026-10-25T00:45:01Z",
            "2026-10-25T01:00:00Z",
        );
        check(
            "*/15 * * * *",
            "2026-10-25T01:00:00Z",
            "2026-10-25T01:00:01Z",
            "2026-10-25T01:15:00Z",
        );
        check(
            "hourly",
            "2026-10-25T00:00:00Z",
            "2026-10-25T00:00:01Z",
            "2026-10-25T01:00:00Z",
        );
    }

    #[test]
    fn spelling_survives() {
        for text in [
            "5m",
            "1h30m",
            "manual",
            "on-change",
            "on-change 2m",
            "hourly",
            "daily 03:30",
            "mon..fri 03:30",
            "*/15 8-19 * * 1-5",
        ] {
            let every = Every::parse(text).unwrap();
            assert_eq!(every.to_string(), text);
            assert_eq!(Every::parse(&every.to_string()).unwrap(), every);
        }
        assert_eq!(
            Every::parse(" daily   03:30 ").unwrap().to_string(),
            "daily 03:30"
        );
        assert_ne!(
            Every::parse("daily 03:30").unwrap(),
            Every::parse("daily 03:31").unwrap()
        );
    }

    #[test]
    fn refusals() {
        for (text, part) in [
            ("", "empty"),
            ("5", "no unit"),
            ("0s", "too short"),
            ("often", "not a schedule"),
            ("daily", "not a schedule"),
            ("daily 24:00", "not a schedule"),
            ("daily 03:3", "not a schedule"),
            ("daily +3:30", "not a schedule"),
            ("someday 03:30", "not a schedule"),
            ("61 * * * *", "not a schedule"),
            ("* * * * * *", "not a schedule"),
            ("0 0 30 2 *", "never comes"),
            ("on-change 1x", "not a duration"),
        ] {
            let error = Every::parse(text).unwrap_err().to_string();
            assert!(error.contains(part), "{text:?}: {error:?}");
        }
    }

    proptest::proptest! {
        /// Walking a schedule through a year of both time changes: every start moves on, and no gap is longer than the
        /// schedule's own plus the hour that a change can add.
        #[test]
        fn never_storms_never_stalls(hours in 0_i64..8760, late_s in 0_i64..4000) {
            let start = at("2026-01-01T00:00:00Z") + SignedDuration::from_hours(hours);
            for (text, gap_h) in [("*/20 * * * *", 1), ("hourly", 1), ("daily 02:30", 25), ("10 1,2,3 * * *", 24)] {
                let every = Every::parse(text).unwrap();
                let mut last = start;
                for _ in 0..5 {
                    let due = next_due(&every, Some(last), last, &berlin()).unwrap();
                    assert!(due > last && due <= last + SignedDuration::from_hours(gap_h), "{text} {last} {due}");
                    let late = due + SignedDuration::from_secs(late_s);
                    assert_eq!(next_due(&every, Some(last), late, &berlin()), Some(late));
                    last = late;
                }
            }
        }
    }
}
