//! Drills: rehearsals of a role from a copy of a point. What a role's config says of them, when one is due, and what the
//! steps of one come to.
//!
//! Promise: a drill passes only when every step of it ended well; what failed first is told. A schedule's first drill is due
//! at once, and one that ended early counts as begun, so that what ends drills early cannot make them storm.
//!
//! It deliberately does not know how a step is done, nor the clock.

use std::time::Duration;

use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::role::State;
use super::schedule::{Every, next_due};

/// Default of `timeout`.
pub const TIMEOUT_DEFAULT: Duration = Duration::from_secs(600);

/// The most that a drill without checks reads, in bytes: an hour of a slow disk, and no more of a large role.
pub const READ_BYTES_MAX: u64 = 256 << 30;

/// What a role's config says of drills.
#[derive(Debug, Clone, PartialEq)]
pub struct Drill {
    /// None: only when somebody asks.
    pub every: Option<Every>,
    /// Commands that end with 0 when the copy is good. None at all: every file is read instead.
    pub checks: Vec<Vec<String>>,
    /// Starts services from the copy, before the checks.
    pub start: Option<Vec<String>>,
    /// Stops them, after the checks, whatever became of those.
    pub stop: Option<Vec<String>>,
    /// For each of the commands, and for reading.
    pub timeout: Duration,
}

impl Default for Drill {
    fn default() -> Drill {
        Drill {
            every: None,
            checks: Vec::new(),
            start: None,
            stop: None,
            timeout: TIMEOUT_DEFAULT,
        }
    }
}

/// A step that is over: its sentence, and why it failed, if it did.
pub type Over<'a> = (&'a str, Option<&'a str>);

/// What failed first; none: the drill passed.
pub fn first_failure<'a>(steps: impl IntoIterator<Item = Over<'a>>) -> Option<String> {
    let failed = |(text, error): Over| Some(format!("{text}: {}", error?));
    steps.into_iter().find_map(failed)
}

/// Why no drill can begin in this state; none: one can.
pub fn hindrance(state: &State) -> Option<String> {
    match state {
        State::Standby | State::Active => None,
        other => Some(format!("this node is {other} in it")),
    }
}

/// When the next one begins by itself: `now` where one is due. `begun` is the beginning of the last one, however it ended.
pub fn due(
    drill: &Drill,
    begun: Option<Timestamp>,
    now: Timestamp,
    tz: &TimeZone,
) -> Option<Timestamp> {
    next_due(drill.every.as_ref()?, begun, now, tz)
}

/// Whether a second drill was due, and is overdue, since the last one `ended`.
pub fn overdue(drill: &Drill, ended: Timestamp, now: Timestamp, tz: &TimeZone) -> bool {
    let after = |last: Timestamp| next_due(drill.every.as_ref()?, Some(last), last, tz);
    after(ended)
        .and_then(after)
        .is_some_and(|second| second < now)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(word: &str) -> Timestamp {
        format!("2026-11-{word}Z").parse().unwrap()
    }

    fn every(word: &str) -> Drill {
        Drill {
            every: Some(Every::parse(word).unwrap()),
            ..Drill::default()
        }
    }

    #[test]
    fn due_times() {
        let check = |drill: &Drill, begun: Option<&str>, expected: Option<&str>| {
            let due = due(drill, begun.map(at), at("20T12:00:00"), &TimeZone::UTC);
            assert_eq!(due, expected.map(at), "{drill:?} {begun:?}");
        };
        let now = Some("20T12:00:00");
        check(&Drill::default(), None, None);
        check(&every("7d"), None, now);
        check(&every("7d"), Some("19T12:00:00"), Some("26T12:00:00"));
        check(&every("7d"), Some("01T12:00:00"), now);
        check(
            &every("daily 03:30"),
            Some("20T03:30:00"),
            Some("21T03:30:00"),
        );
    }

    #[test]
    fn overdue_after_the_second_time() {
        let check = |drill: &Drill, ended: &str, expected: bool| {
            let overdue = overdue(drill, at(ended), at("20T12:00:00"), &TimeZone::UTC);
            assert_eq!(overdue, expected, "{drill:?} {ended}");
        };
        check(&Drill::default(), "01T00:00:00", false);
        check(&every("2d"), "17T12:00:00", false);
        check(&every("2d"), "16T11:59:00", true);
        check(&every("daily 03:30"), "19T04:00:00", false);
        check(&every("daily 03:30"), "18T04:00:00", true);
    }

    #[test]
    fn what_failed_first_is_told() {
        let check = |steps: &[Over], expected: Option<&str>| {
            assert_eq!(first_failure(steps.iter().copied()).as_deref(), expected);
        };
        check(&[("copy", None), ("check a", None)], None);
        check(
            &[
                ("copy", None),
                ("check a", Some("exit status: 1")),
                ("check b", Some("x")),
            ],
            Some("check a: exit status: 1"),
        );
    }

    #[test]
    fn none_on_the_way() {
        assert_eq!(hindrance(&State::Standby), None);
        assert_eq!(hindrance(&State::Active), None);
        assert!(hindrance(&State::Fenced).is_some());
    }
}
