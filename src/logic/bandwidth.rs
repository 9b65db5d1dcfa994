//! How much may be sent to a peer, and when: a list of limits by time of the local clock.
//!
//! The first limit of the list that covers the present moment is in force; where none does, there is no limit. One without
//! days and times covers everything and so stands last.
//!
//! Promises, whatever the clock and the zone do:
//! - at every moment exactly one answer, with the moment at which it changes next: asking at any time before that moment
//!   gives the same answer, asking at that moment another one;
//! - limits follow the wall clock: where summer time skips the times of one, it is not in force that day; where they come
//!   twice, it is in force twice;
//! - a time span that ends at or before the time it begins at ends on the following day, and belongs to the day on which it
//!   begins: `fri 22:00-06:00` ends on Saturday.
//!
//! It deliberately does not know the clock, nor how a limit is kept.

use std::fmt;

use jiff::civil::{Date, Time};
use jiff::tz::{AmbiguousOffset, TimeZone};
use jiff::{SignedDuration, Timestamp, ToSpan};

use super::units;

/// A span of weekly times that summer time skips comes a week later: twice a week, and a day at each end.
const DAYS_AHEAD: i64 = 16;

/// The end of a day, in minutes from its begin.
const DAY: u16 = 24 * 60;

/// As in schedules; Monday is 0.
const DAY_NAMES: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];

/// The limits towards one peer, in the order in which they are asked.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Bandwidth {
    limits: Vec<Limit>,
}

/// One line of the list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limit {
    /// None: at all times.
    times: Option<Times>,
    /// Bytes per second; none: no limit.
    rate: Option<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Times {
    /// Monday first.
    days: [bool; 7],
    /// Minutes from the day's begin, 0 to 1439.
    from: u16,
    /// 1 to 1440; at or before `from`: on the following day.
    to: u16,
}

/// What holds at a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InForce {
    /// Bytes per second; none: no limit.
    pub rate: Option<u64>,
    /// When the rate changes; none: it does not.
    pub until: Option<Timestamp>,
}

/// Why a text is not a limit.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BadLimit(String);

const FORMS: &str = "write \"2MB/s\", \"08:00-20:00 2MB/s\", \"mon..fri 08:00-20:00 2MB/s\", \"sat,sun 8MB/s\" or \"none\"";

impl Limit {
    /// Days, times and a rate, the first two optional.
    pub fn parse(text: &str) -> Result<Limit, BadLimit> {
        let words: Vec<&str> = text.split_whitespace().collect();
        let (times, rate) = match words.as_slice() {
            [rate] => (None, *rate),
            [when, rate] if when.contains(':') => (Some(([true; 7], span(when)?)), *rate),
            [days, rate] => (Some((days_of(days)?, (0, DAY))), *rate),
            [days, when, rate] if when.contains(':') => {
                (Some((days_of(days)?, span(when)?)), *rate)
            }
            _ => return Err(BadLimit(format!("not a limit: {FORMS}"))),
        };
        let times = times.map(|(days, (from, to))| Times { days, from, to });
        Ok(Limit {
            times,
            rate: rate_of(rate)?,
        })
    }

    /// Whether it covers every moment.
    pub fn is_always(&self) -> bool {
        self.times.is_none()
    }

    fn covers(&self, date: Date, minute: u16) -> bool {
        let Some(times) = self.times else { return true };
        let today = usize::from(date.weekday().to_monday_zero_offset().unsigned_abs());
        let (today, yesterday) = (times.days[today], times.days[(today + 6) % 7]);
        if times.from < times.to {
            return today && (times.from..times.to).contains(&minute);
        }
        (today && minute >= times.from) || (yesterday && minute < times.to)
    }
}

fn rate_of(word: &str) -> Result<Option<u64>, BadLimit> {
    if word == "none" {
        return Ok(None);
    }
    match units::parse_rate(word) {
        Ok(0) => Err(BadLimit(
            "nothing would ever be sent: write \"none\" for no limit".to_owned(),
        )),
        Ok(rate) => Ok(Some(rate)),
        Err(error) => Err(BadLimit(error.to_string())),
    }
}

/// `08:00-20:00`
fn span(word: &str) -> Result<(u16, u16), BadLimit> {
    let bad = || {
        BadLimit(format!(
            "{word:?} is not a span of times such as \"08:00-20:00\""
        ))
    };
    let (from, to) = word.split_once('-').ok_or_else(bad)?;
    let (from, to) = (time(from).ok_or_else(bad)?, time(to).ok_or_else(bad)?);
    if from == DAY || to == 0 {
        let what = format!("{word:?}: a day begins at 00:00 and ends at 24:00");
        return Err(BadLimit(what));
    }
    if from == to {
        let what = format!("{word:?} has no length: leave the times out for whole days");
        return Err(BadLimit(what));
    }
    Ok((from, to))
}

/// Minutes from the day's begin; `24:00` is its end.
fn time(word: &str) -> Option<u16> {
    let (hour, minute) = word.split_once(':')?;
    let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    if !(1..=2).contains(&hour.len()) || minute.len() != 2 || !digits(hour) || !digits(minute) {
        return None;
    }
    let (hour, minute): (u16, u16) = (hour.parse().ok()?, minute.parse().ok()?);
    let minutes = hour * 60 + minute;
    (minute < 60 && minutes <= DAY).then_some(minutes)
}

/// `daily`, `mon..fri`, `sat,sun`; a range may go over the week's end.
fn days_of(word: &str) -> Result<[bool; 7], BadLimit> {
    let number = |name: &str| {
        let found = DAY_NAMES
            .iter()
            .position(|day| day.eq_ignore_ascii_case(name));
        found.ok_or_else(|| {
            BadLimit(format!(
                "{name:?} is not a day: use mon, tue, wed, thu, fri, sat, sun or daily"
            ))
        })
    };
    if word == "daily" {
        return Ok([true; 7]);
    }
    let mut days = [false; 7];
    for part in word.split(',') {
        let (from, to) = part.split_once("..").unwrap_or((part, part));
        let (from, to) = (number(from)?, number(to)?);
        (0..=(to + 7 - from) % 7).for_each(|step| days[(from + step) % 7] = true);
    }
    Ok(days)
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(times) = &self.times {
            let names = DAY_NAMES.iter().zip(times.days);
            let names: Vec<&str> = names.filter(|(_, on)| *on).map(|(name, _)| *name).collect();
            match names.len() {
                7 => f.write_str("daily ")?,
                _ => write!(f, "{} ", names.join(","))?,
            }
            let clock = |minutes: u16| format!("{:02}:{:02}", minutes / 60, minutes % 60);
            write!(f, "{}-{} ", clock(times.from), clock(times.to))?;
        }
        match self.rate {
            Some(rate) => f.write_str(&units::exact_rate(rate)),
            None => f.write_str("none"),
        }
    }
}

impl Bandwidth {
    /// The first that covers a moment is in force.
    pub fn new(limits: Vec<Limit>) -> Bandwidth {
        Bandwidth { limits }
    }

    /// The list; empty: no limit, ever.
    pub fn limits(&self) -> &[Limit] {
        &self.limits
    }

    /// What holds now, and until when.
    pub fn in_force(&self, now: Timestamp, tz: &TimeZone) -> InForce {
        let rate = self.rate(now, tz);
        let mut moments = self.moments(now, tz);
        moments.sort();
        let until = moments
            .into_iter()
            .find(|moment| *moment > now && self.rate(*moment, tz) != rate);
        InForce { rate, until }
    }

    fn rate(&self, at: Timestamp, tz: &TimeZone) -> Option<u64> {
        let wall = tz.to_datetime(at);
        let minute = wall.hour().unsigned_abs() as u16 * 60 + wall.minute().unsigned_abs() as u16;
        let covers = |limit: &&Limit| limit.covers(wall.date(), minute);
        self.limits.iter().find(covers).and_then(|limit| limit.rate)
    }

    /// Every moment of the next days at which the answer can change: where the wall clock shows an end of a span or the
    /// begin of a day, with each offset it may have then; and where the zone's offset changes.
    fn moments(&self, now: Timestamp, tz: &TimeZone) -> Vec<Timestamp> {
        let mut minutes = vec![0];
        let times = self.limits.iter().filter_map(|limit| limit.times);
        minutes.extend(times.flat_map(|times| [times.from, times.to % DAY]));
        minutes.sort_unstable();
        minutes.dedup();
        let today = tz.to_datetime(now).date();
        let mut moments = Vec::new();
        for ahead in -1..=DAYS_AHEAD {
            let Ok(date) = today.checked_add(ahead.days()) else {
                continue;
            };
            for minute in &minutes {
                let (hour, minute) = ((minute / 60) as i8, (minute % 60) as i8);
                let wall = date.to_datetime(Time::constant(hour, minute, 0, 0));
                let offsets = match tz.to_ambiguous_timestamp(wall).offset() {
                    AmbiguousOffset::Unambiguous { offset } => [offset; 2],
                    AmbiguousOffset::Gap { before, after }
                    | AmbiguousOffset::Fold { before, after } => [before, after],
                };
                moments.extend(offsets.iter().filter_map(|o| o.to_timestamp(wall).ok()));
            }
        }
        let end = now
            .checked_add(SignedDuration::from_hours(24 * DAYS_AHEAD))
            .unwrap_or(Timestamp::MAX);
        let turns = tz.following(now).map(|turn| turn.timestamp());
        moments.extend(turns.take_while(|turn| *turn <= end));
        moments
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Rules of central Europe, so that the test needs no time zone database.
    fn berlin() -> TimeZone {
        TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3").unwrap()
    }

    /// Limits with a `;` between them.
    fn list(text: &str) -> Bandwidth {
        let limits = text.split(';').filter(|text| !text.trim().is_empty());
        Bandwidth::new(limits.map(|text| Limit::parse(text).unwrap()).collect())
    }

    /// `expected` is `rate until moment`, in the words `1B/s`, `none`, and `ever`.
    fn check(limits: &str, now: &str, expected: &str) {
        let now: Timestamp = now.parse().unwrap();
        let held = list(limits).in_force(now, &berlin());
        let rate = held.rate.map_or("none".to_owned(), units::exact_rate);
        let until = held.until.map_or("ever".to_owned(), |at| at.to_string());
        assert_eq!(
            format!("{rate} until {until}"),
            expected,
            "{limits:?} at {now}"
        );
    }

    const OFFICE: &str = "mon..fri 08:00-20:00 2B/s; sat 10:00-12:00 5B/s; 8B/s";

    #[test]
    fn one_for_ever() {
        check("", "2026-11-20T12:00:00Z", "none until ever");
        check("none", "2026-11-20T12:00:00Z", "none until ever");
        check("2MB/s", "2026-11-20T12:00:00Z", "2MB/s until ever");
        check("daily 2MB/s", "2026-11-20T12:00:00Z", "2MB/s until ever");
        // Different lines, one rate: nothing changes.
        check(
            "08:00-20:00 2B/s; 2B/s",
            "2026-11-20T12:00:00Z",
            "2B/s until ever",
        );
    }

    #[test]
    fn day_and_night() {
        // 20 November 2026 is a Friday; CET is an hour ahead.
        check(
            OFFICE,
            "2026-11-20T06:59:59Z",
            "8B/s until 2026-11-20T07:00:00Z",
        );
        check(
            OFFICE,
            "2026-11-20T07:00:00Z",
            "2B/s until 2026-11-20T19:00:00Z",
        );
        check(
            OFFICE,
            "2026-11-20T18:59:59.999Z",
            "2B/s until 2026-11-20T19:00:00Z",
        );
        check(
            OFFICE,
            "2026-11-20T19:00:00Z",
            "8B/s until 2026-11-21T09:00:00Z",
        );
        check(
            OFFICE,
            "2026-11-21T09:30:00Z",
            "5B/s until 2026-11-21T11:00:00Z",
        );
        check(
            OFFICE,
            "2026-11-21T11:00:00Z",
            "8B/s until 2026-11-23T07:00:00Z",
        );
    }

    #[test]
    fn whole_days() {
        check(
            "sat,sun 9B/s; 1B/s",
            "2026-11-20T12:00:00Z",
            "1B/s until 2026-11-20T23:00:00Z",
        );
        check(
            "sat,sun 9B/s; 1B/s",
            "2026-11-21T12:00:00Z",
            "9B/s until 2026-11-22T23:00:00Z",
        );
        check(
            "08:00-24:00 9B/s",
            "2026-11-20T12:00:00Z",
            "9B/s until 2026-11-20T23:00:00Z",
        );
        check(
            "08:00-24:00 9B/s",
            "2026-11-20T23:00:00Z",
            "none until 2026-11-21T07:00:00Z",
        );
    }

    #[test]
    fn over_midnight_the_day_of_the_begin_counts() {
        let night = "fri 22:00-06:00 9B/s; 1B/s";
        check(
            night,
            "2026-11-20T01:00:00Z",
            "1B/s until 2026-11-20T21:00:00Z",
        );
        check(
            night,
            "2026-11-20T22:59:59Z",
            "9B/s until 2026-11-21T05:00:00Z",
        );
        check(
            night,
            "2026-11-21T04:59:59Z",
            "9B/s until 2026-11-21T05:00:00Z",
        );
        check(
            night,
            "2026-11-21T22:00:00Z",
            "1B/s until 2026-11-27T21:00:00Z",
        );
        // Over the week's end, too.
        check(
            "sun 22:00-06:00 9B/s",
            "2026-11-23T04:00:00Z",
            "9B/s until 2026-11-23T05:00:00Z",
        );
        check(
            "daily 22:00-06:00 none; 1B/s",
            "2026-11-23T04:00:00Z",
            "none until 2026-11-23T05:00:00Z",
        );
    }

    #[test]
    fn the_first_that_covers_is_in_force() {
        let lunch = "12:00-13:00 none; mon..fri 08:00-20:00 2B/s; 8B/s";
        check(
            lunch,
            "2026-11-20T11:30:00Z",
            "none until 2026-11-20T12:00:00Z",
        );
        check(
            lunch,
            "2026-11-20T12:00:00Z",
            "2B/s until 2026-11-20T19:00:00Z",
        );
    }

    #[test]
    fn summer_time_skips() {
        // 29 March 2026, a Sunday: 02:00 becomes 03:00 at 01:00Z.
        check(
            "02:15-02:45 9B/s; 1B/s",
            "2026-03-29T00:30:00Z",
            "1B/s until 2026-03-30T00:15:00Z",
        );
        check(
            "sun 02:15-02:45 9B/s; 1B/s",
            "2026-03-29T00:30:00Z",
            "1B/s until 2026-04-05T00:15:00Z",
        );
        // A span with one end in the skipped hour ends, or begins, where the clock jumps.
        check(
            "01:00-02:30 9B/s; 1B/s",
            "2026-03-29T00:30:00Z",
            "9B/s until 2026-03-29T01:00:00Z",
        );
        check(
            "02:30-04:00 9B/s; 1B/s",
            "2026-03-29T00:30:00Z",
            "1B/s until 2026-03-29T01:00:00Z",
        );
        check(
            "02:30-04:00 9B/s; 1B/s",
            "2026-03-29T01:00:00Z",
            "9B/s until 2026-03-29T02:00:00Z",
        );
        check(
            "22:00-06:00 9B/s; 1B/s",
            "2026-03-28T22:00:00Z",
            "9B/s until 2026-03-29T04:00:00Z",
        );
    }

    #[test]
    fn summer_time_repeats() {
        // 25 October 2026: 03:00 becomes 02:00 at 01:00Z.
        let half = "02:00-02:30 9B/s; 1B/s";
        check(
            half,
            "2026-10-24T23:59:59Z",
            "1B/s until 2026-10-25T00:00:00Z",
        );
        check(
            half,
            "2026-10-25T00:00:00Z",
            "9B/s until 2026-10-25T00:30:00Z",
        );
        check(
            half,
            "2026-10-25T00:30:00Z",
            "1B/s until 2026-10-25T01:00:00Z",
        );
        check(
            half,
            "2026-10-25T01:10:00Z",
            "9B/s until 2026-10-25T01:30:00Z",
        );
        check(
            half,
            "2026-10-25T01:30:00Z",
            "1B/s until 2026-10-26T01:00:00Z",
        );
        check(
            "01:00-03:00 9B/s; 1B/s",
            "2026-10-24T23:30:00Z",
            "9B/s until 2026-10-25T02:00:00Z",
        );
    }

    #[test]
    fn spelling() {
        for (text, shown) in [
            ("none", "none"),
            ("16Mbit/s", "2MB/s"),
            (" 8:00-20:00  2MB/s", "daily 08:00-20:00 2MB/s"),
            ("fri..mon 2MB/s", "mon,fri,sat,sun 00:00-24:00 2MB/s"),
            ("SAT 22:00-6:00 none", "sat 22:00-06:00 none"),
        ] {
            let limit = Limit::parse(text).unwrap();
            assert_eq!(limit.to_string(), shown);
            assert_eq!(Limit::parse(shown).unwrap(), limit);
        }
    }

    fn refused(text: &str, why: &str) {
        let error = Limit::parse(text).unwrap_err().to_string();
        assert!(error.contains(why), "{text:?}: {error}");
    }

    #[test]
    fn what_is_no_limit() {
        refused("", "not a limit");
        refused("1 2 3 4", "not a limit");
        refused("mon fri 2MB/s", "not a limit");
        refused("2MB", "not a rate");
        refused("0MB/s", "write \"none\"");
        refused("08:00-20:00", "not a rate");
        refused("funday 2MB/s", "\"funday\" is not a day");
        refused("mon..funday 2MB/s", "\"funday\" is not a day");
        refused("mon, 2MB/s", "\"\" is not a day");
        refused("08:00 2MB/s", "not a span of times");
        refused("8-20 2MB/s", "is not a day");
        refused("08:00-08:60 2MB/s", "not a span");
        refused("08:00-25:00 2MB/s", "not a span");
        refused("+8:00-20:00 2MB/s", "not a span");
        refused("24:00-08:00 2MB/s", "begins at 00:00");
        refused("08:00-00:00 2MB/s", "ends at 24:00");
        refused("08:00-08:00 2MB/s", "no length");
    }

    #[test]
    fn the_ends_of_time() {
        for now in [Timestamp::MIN, Timestamp::MAX] {
            for tz in [berlin(), TimeZone::UTC] {
                let held = list(OFFICE).in_force(now, &tz);
                assert!(held.until.is_none_or(|until| until > now));
            }
        }
    }

    fn limits() -> impl Strategy<Value = Bandwidth> {
        let days = any::<[bool; 7]>();
        let times = (days, 0..DAY, 1..=DAY).prop_map(|(days, from, to)| Times { days, from, to });
        let limit = (proptest::option::weighted(0.9, times), 0..3u64);
        let limit = limit.prop_map(|(times, rate)| Limit {
            times,
            rate: (rate > 0).then_some(rate),
        });
        proptest::collection::vec(limit, 0..5).prop_map(Bandwidth::new)
    }

    proptest! {
        /// The promise about `until`, by asking at every few minutes of the time before it.
        #[test]
        fn nothing_changes_before_it_is_said_to(
            limits in limits(),
            // Around both changes of 2026, mostly.
            start in prop_oneof![1_774_500_000i64..1_774_900_000, 1_792_600_000i64..1_793_000_000, 0i64..4_000_000_000],
            steps in proptest::collection::vec(1i64..86_400 * 3, 30),
        ) {
            let now = Timestamp::from_second(start).unwrap();
            let held = limits.in_force(now, &berlin());
            if let Some(until) = held.until {
                prop_assert!(until > now);
                prop_assert!(limits.rate(until, &berlin()) != held.rate);
                let before = until.checked_sub(SignedDuration::from_nanos(1)).unwrap();
                prop_assert_eq!(limits.rate(before, &berlin()), held.rate);
            }
            for step in steps {
                let later = Timestamp::from_second(start + step).unwrap();
                if held.until.is_none_or(|until| later < until) {
                    prop_assert_eq!(limits.rate(later, &berlin()), held.rate, "at {}", later);
                }
            }
        }
    }
}
