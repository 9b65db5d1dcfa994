//! Which points stay.
//!
//! Promises, asserted here and again by whoever destroys:
//! - the newest point is never let go, nor is a pinned one, whatever the rules say;
//! - a point from the future (some clock was wrong) stays, and uses up no rule's count;
//! - what was live before a restore uses up no rule's count while it is pinned: it is not a point of the schedule, and some
//!   restores in a row must not cost the points that people restore from;
//! - where the clock had been set back, so that a newer point bears the earlier time, both the newest and the latest point
//!   of a period stay: points with wrong times never take the place of those with right ones;
//! - every point that stays says all the reasons why;
//! - thinning out twice changes nothing: what stayed once stays while neither the time nor the pins change.
//!
//! The rules are those people know from other tools: of each of the `n` newest hours, days, weeks, months or years that
//! have points, the last point stays. Periods are those of the local clock; weeks are ISO weeks. Hours, days without points
//! are not counted, so that a machine that was off for a month does not lose its history when it comes back.
//!
//! It deliberately does not know what pins a point (a base, a running send), nor how a point is destroyed.

use std::collections::{HashMap, HashSet};
use std::fmt;

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp, Zoned};

use super::manifest::Reason;
use super::name::NodeName;
use super::point::{PointId, PointName};

/// How many points stay, by rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Keep {
    pub last: u32,
    pub hourly: u32,
    pub daily: u32,
    pub weekly: u32,
    pub monthly: u32,
    pub yearly: u32,
}

impl Keep {
    /// The rules by name, as the config spells them.
    pub fn rules(&self) -> [(&'static str, u32); 6] {
        [
            ("last", self.last),
            ("hourly", self.hourly),
            ("daily", self.daily),
            ("weekly", self.weekly),
            ("monthly", self.monthly),
            ("yearly", self.yearly),
        ]
    }

    /// Whether it keeps nothing at all.
    pub fn is_empty(&self) -> bool {
        *self == Keep::default()
    }
}

/// `last 3, daily 7`; `nothing` where it is empty.
impl fmt::Display for Keep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rules: Vec<String> = self
            .rules()
            .iter()
            .filter(|(_, count)| *count > 0)
            .map(|(name, count)| format!("{name} {count}"))
            .collect();
        if rules.is_empty() {
            return f.write_str("nothing");
        }
        f.write_str(&rules.join(", "))
    }
}

/// Why a point must not go now, whatever the rules say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Pin {
    /// The newest point of the role.
    Newest,
    /// The newest point that this node and the peer both hold.
    BaseOf(NodeName),
    /// A send to the peer reads it, as the point sent or as its base.
    Sending(NodeName),
    /// A half-received point from the peer builds on it.
    Receiving(NodeName),
    /// It is the target of an unfinished transfer to the peer, which resumes only while the point exists.
    Unfinished(NodeName),
    /// It is being compared with a peer's copy.
    Verifying,
    /// A restore reads it.
    Restoring,
    /// It holds what was live before a restore replaced it, and people find out late that they chose the wrong point.
    BeforeRestore { until: Timestamp },
}

impl fmt::Display for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Pin::Newest => f.write_str("newest"),
            Pin::BaseOf(peer) => write!(f, "base of {peer}"),
            Pin::Sending(peer) => write!(f, "being sent to {peer}"),
            Pin::Receiving(peer) => write!(f, "base of what {peer} is sending"),
            Pin::Unfinished(peer) => write!(f, "half sent to {peer}"),
            Pin::Verifying => f.write_str("being compared"),
            Pin::Restoring => f.write_str("being restored"),
            Pin::BeforeRestore { until } => {
                write!(
                    f,
                    "kept before a restore, until {}",
                    until.strftime("%Y-%m-%d")
                )
            }
        }
    }
}

/// How long what was live before a restore is kept, whatever the rules say.
pub const BEFORE_RESTORE_KEPT: SignedDuration = SignedDuration::from_hours(7 * 24);

/// The pin of a point that was taken before a restore, while it lasts.
pub fn before_restore(reason: Reason, taken: Timestamp, now: Timestamp) -> Option<Pin> {
    let until = taken.checked_add(BEFORE_RESTORE_KEPT).ok()?;
    (reason == Reason::BeforeRestore && now < until).then_some(Pin::BeforeRestore { until })
}

/// A point that may stay or go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    pub id: PointId,
    pub name: PointName,
    pub taken: Timestamp,
    pub pins: Vec<Pin>,
}

impl Candidate {
    /// Whether it is kept to undo a restore: then no rule counts it.
    fn is_undo(&self) -> bool {
        let undo = |pin: &Pin| matches!(pin, Pin::BeforeRestore { .. });
        self.pins.iter().any(undo)
    }
}

/// What becomes of one point.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    pub id: PointId,
    pub name: PointName,
    pub taken: Timestamp,
    pub keep: bool,
    /// Why, in words: `newest`, `last 2 of 3`, `daily 2026-11-20`, `base of birch`; for one that goes: `no rule keeps it`.
    pub reasons: Vec<String>,
}

/// Judges all points of one role on one node; newest first by rank, in whatever order they come.
pub fn verdicts(points: &[Candidate], keep: &Keep, now: Timestamp, tz: &TimeZone) -> Vec<Verdict> {
    let mut points: Vec<&Candidate> = points.iter().collect();
    points.sort_by_key(|point| std::cmp::Reverse(point.id.rank()));

    let mut last_left = keep.last;
    let mut periods = Periods::new(keep);
    let past = points
        .iter()
        .filter(|point| point.taken <= now && !point.is_undo());
    past.for_each(|point| periods.see(&point.taken.to_zoned(tz.clone())));
    let mut verdicts: Vec<Verdict> = Vec::with_capacity(points.len());
    for (index, point) in points.iter().enumerate() {
        let mut reasons: Vec<String> = Vec::new();
        if index == 0 {
            reasons.push(Pin::Newest.to_string());
        }
        if point.taken > now {
            reasons.push("taken in the future: some clock was wrong".to_owned());
        } else if !point.is_undo() {
            if last_left > 0 {
                reasons.push(format!(
                    "last {} of {}",
                    keep.last - last_left + 1,
                    keep.last
                ));
                last_left -= 1;
            }
            reasons.extend(periods.claim(&point.taken.to_zoned(tz.clone())));
        }
        for pin in &point.pins {
            let reason = pin.to_string();
            if !reasons.contains(&reason) {
                reasons.push(reason);
            }
        }
        let keep = !reasons.is_empty();
        if !keep {
            reasons.push("no rule keeps it".to_owned());
        }
        // The lock on the door of destruction: stays on in release builds.
        assert!(keep || (index > 0 && point.pins.is_empty()));
        verdicts.push(Verdict {
            id: point.id.clone(),
            name: point.name,
            taken: point.taken,
            keep,
            reasons,
        });
    }
    verdicts
}

/// One rule: how many periods it may still claim, and which it has.
struct Period {
    rule: &'static str,
    left: u32,
    /// `strftime` spelling of a period, equal for all moments in it and for no others.
    spelling: &'static str,
    claimed: HashSet<String>,
    /// The latest time of a point in each period, until that point has its reason.
    latest: HashMap<String, Timestamp>,
}

struct Periods(Vec<Period>);

impl Periods {
    fn new(keep: &Keep) -> Periods {
        let period = |rule, left, spelling| Period {
            rule,
            left,
            spelling,
            claimed: HashSet::new(),
            latest: HashMap::new(),
        };
        // The hour that the end of summer time repeats counts as one: local hours are what the rule promises. %G is the
        // year that an ISO week belongs to.
        Periods(vec![
            period("hourly", keep.hourly, "%Y-%m-%d %H:00"),
            period("daily", keep.daily, "%Y-%m-%d"),
            period("weekly", keep.weekly, "%G-W%V"),
            period("monthly", keep.monthly, "%Y-%m"),
            period("yearly", keep.yearly, "%Y"),
        ])
    }

    /// Notes when a point was taken, before any claims.
    fn see(&mut self, taken: &Zoned) {
        for period in self.0.iter_mut().filter(|period| period.left > 0) {
            let spelled = taken.strftime(period.spelling).to_string();
            let latest = period.latest.entry(spelled).or_insert(Timestamp::MIN);
            *latest = taken.timestamp().max(*latest);
        }
    }

    /// The reasons of a point, given that all newer ones have made their claims.
    fn claim(&mut self, taken: &Zoned) -> Vec<String> {
        let mut reasons = Vec::new();
        for period in self.0.iter_mut().filter(|period| !period.latest.is_empty()) {
            let spelled = taken.strftime(period.spelling).to_string();
            let latest = period.latest.get(&spelled) == Some(&taken.timestamp());
            let claimed = period.claimed.contains(&spelled);
            if !claimed && period.left > 0 {
                period.left -= 1;
                period.claimed.insert(spelled.clone());
                reasons.push(format!("{} {spelled}", period.rule));
            } else if claimed && latest {
                reasons.push(format!("{} {spelled} by its time", period.rule));
            }
            if latest {
                period.latest.remove(&spelled);
            }
        }
        reasons
    }
}

#[cfg(test)]
mod tests {
    use super::super::point::Term;
    use super::*;
    use proptest::prelude::*;

    fn candidate(sequence: u64, taken: Timestamp, pins: Vec<Pin>) -> Candidate {
        let holder = NodeName::parse("alder").unwrap();
        let term = Term {
            epoch: 1,
            holder,
            nonce: 7,
        };
        let id = PointId { term, sequence };
        Candidate {
            name: PointName::of(&id, taken),
            id,
            taken,
            pins,
        }
    }

    fn berlin() -> TimeZone {
        TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3").unwrap()
    }

    fn birch() -> NodeName {
        NodeName::parse("birch").unwrap()
    }

    fn keep(rules: &str) -> Keep {
        let mut keep = Keep::default();
        for rule in rules.split(' ').filter(|rule| !rule.is_empty()) {
            let (name, count) = rule.split_once('=').unwrap();
            let field = match name {
                "last" => &mut keep.last,
                "hourly" => &mut keep.hourly,
                "daily" => &mut keep.daily,
                "weekly" => &mut keep.weekly,
                "monthly" => &mut keep.monthly,
                "yearly" => &mut keep.yearly,
                other => panic!("{other}"),
            };
            *field = count.parse().unwrap();
        }
        keep
    }

    /// Points are times, oldest first, each with `*` behind it when it is a base of birch, `^` when it undoes a restore. Expected: one line per point,
    /// newest first: its number from 1 and its reasons, or nothing behind the number when it goes.
    fn check(rules: &str, points: &[&str], expected: &[&str]) {
        let candidates: Vec<Candidate> = points
            .iter()
            .zip(1..)
            .map(|(text, sequence)| {
                let taken = text.trim_end_matches(['*', '^']).parse().unwrap();
                let pins = match text.chars().last() {
                    Some('*') => vec![Pin::BaseOf(birch())],
                    Some('^') => {
                        let until = "2026-11-27T12:00:00Z".parse().unwrap();
                        vec![Pin::BeforeRestore { until }]
                    }
                    _ => vec![],
                };
                candidate(sequence, taken, pins)
            })
            .collect();
        let now = "2026-11-20T12:00:00Z".parse().unwrap();
        let got: Vec<String> = verdicts(&candidates, &keep(rules), now, &berlin())
            .iter()
            .map(|verdict| {
                let reasons = if verdict.keep {
                    verdict.reasons.join("; ")
                } else {
                    assert_eq!(verdict.reasons, ["no rule keeps it"]);
                    String::new()
                };
                format!("{} {reasons}", verdict.id.sequence)
                    .trim()
                    .to_owned()
            })
            .collect();
        assert_eq!(got, expected);
    }

    #[test]
    fn nothing_to_judge() {
        check("last=3", &[], &[]);
    }

    #[test]
    fn the_newest_stays_even_when_no_rule_keeps_it() {
        check(
            "",
            &["2026-11-19T12:00:00Z", "2026-11-20T11:00:00Z"],
            &["2 newest", "1"],
        );
    }

    #[test]
    fn last_counts_points() {
        check(
            "last=2",
            &[
                "2026-11-19T12:00:00Z",
                "2026-11-19T13:00:00Z",
                "2026-11-20T11:00:00Z",
            ],
            &["3 newest; last 1 of 2", "2 last 2 of 2", "1"],
        );
    }

    #[test]
    fn what_undoes_a_restore_takes_no_place() {
        let undo = "kept before a restore, until 2026-11-27";
        check(
            "last=2 daily=1",
            &[
                "2026-11-19T12:00:00Z",
                "2026-11-20T09:00:00Z",
                "2026-11-20T10:00:00Z^",
                "2026-11-20T11:00:00Z^",
            ],
            &[
                &format!("4 newest; {undo}"),
                &format!("3 {undo}"),
                "2 last 1 of 2; daily 2026-11-20",
                "1 last 2 of 2",
            ],
        );
    }

    #[test]
    fn of_each_period_the_last_point_stays() {
        check(
            "daily=2",
            &[
                "2026-11-18T12:00:00Z",
                "2026-11-19T08:00:00Z",
                "2026-11-19T09:00:00Z",
                "2026-11-20T11:00:00Z",
            ],
            &["4 newest; daily 2026-11-20", "3 daily 2026-11-19", "2", "1"],
        );
    }

    #[test]
    fn days_are_local() {
        // 23:30Z is already the next day in Berlin.
        check(
            "daily=2",
            &[
                "2026-11-18T22:30:00Z",
                "2026-11-18T23:30:00Z",
                "2026-11-19T22:00:00Z",
            ],
            &["3 newest; daily 2026-11-19", "2", "1 daily 2026-11-18"],
        );
    }

    #[test]
    fn periods_without_points_are_not_counted() {
        check(
            "hourly=2 yearly=2",
            &[
                "2020-01-01T12:00:00Z",
                "2026-11-01T09:10:00Z",
                "2026-11-20T11:00:00Z",
            ],
            &[
                "3 newest; hourly 2026-11-20 12:00; yearly 2026",
                "2 hourly 2026-11-01 10:00",
                "1 yearly 2020",
            ],
        );
    }

    #[test]
    fn iso_weeks_belong_to_their_own_year() {
        // 1 January 2026 is in week 1 of 2026, as is 31 December 2025; 1 January 2023 is in week 52 of 2022.
        check(
            "weekly=5 monthly=1",
            &[
                "2022-12-31T12:00:00Z",
                "2023-01-01T12:00:00Z",
                "2025-12-31T12:00:00Z",
                "2026-01-01T12:00:00Z",
            ],
            &[
                "4 newest; weekly 2026-W01; monthly 2026-01",
                "3",
                "2 weekly 2022-W52",
                "1",
            ],
        );
    }

    #[test]
    fn pins_win() {
        check(
            "last=1",
            &[
                "2026-11-18T12:00:00Z*",
                "2026-11-19T12:00:00Z",
                "2026-11-20T11:00:00Z*",
            ],
            &[
                "3 newest; last 1 of 1; base of birch",
                "2",
                "1 base of birch",
            ],
        );
    }

    #[test]
    fn the_future_stays_and_uses_up_nothing() {
        check(
            "last=1 daily=1",
            &[
                "2026-11-19T12:00:00Z",
                "2030-01-01T00:00:00Z",
                "2026-11-20T11:00:00Z",
                "2031-01-01T00:00:00Z",
            ],
            &[
                "4 newest; taken in the future: some clock was wrong",
                "3 last 1 of 1; daily 2026-11-20",
                "2 taken in the future: some clock was wrong",
                "1",
            ],
        );
    }

    #[test]
    fn points_with_wrong_times_displace_nothing() {
        // The clock was two days back for the points 4 and 5.
        check(
            "daily=3",
            &[
                "2026-11-17T20:00:00Z",
                "2026-11-18T20:00:00Z",
                "2026-11-19T20:00:00Z",
                "2026-11-18T07:00:00Z",
                "2026-11-18T08:00:00Z",
                "2026-11-20T09:00:00Z",
            ],
            &[
                "6 newest; daily 2026-11-20",
                "5 daily 2026-11-18",
                "4",
                "3 daily 2026-11-19",
                "2 daily 2026-11-18 by its time",
                "1",
            ],
        );
    }

    #[test]
    fn words() {
        assert_eq!(keep("last=3 daily=7").to_string(), "last 3, daily 7");
        assert_eq!(Keep::default().to_string(), "nothing");
        assert!(Keep::default().is_empty());
        assert_eq!(Pin::Sending(birch()).to_string(), "being sent to birch");
    }

    prop_compose! {
        /// Times that need not follow the order of the points: clocks step.
        fn points()(facts in prop::collection::vec((0_i64..80_000_000, prop::bool::weighted(0.1)), 0..60)) -> Vec<Candidate> {
            let start: Timestamp = "2025-01-01T00:00:00Z".parse().unwrap();
            facts.into_iter().zip(1..).map(|((seconds, pinned), sequence)| {
                let pins = if pinned { vec![Pin::Sending(birch())] } else { vec![] };
                candidate(sequence, start + jiff::SignedDuration::from_secs(seconds), pins)
            }).collect()
        }
    }

    proptest! {
        #[test]
        fn safe_and_settled(points in points(), counts in prop::array::uniform6(0_u32..5)) {
            let [last, hourly, daily, weekly, monthly, yearly] = counts;
            let keep = Keep { last, hourly, daily, weekly, monthly, yearly };
            let now = "2026-11-20T12:00:00Z".parse().unwrap();
            let first = verdicts(&points, &keep, now, &berlin());
            prop_assert_eq!(first.len(), points.len());
            for (index, verdict) in first.iter().enumerate() {
                let point = points.iter().find(|p| p.id == verdict.id).unwrap();
                let protected = index == 0 || !point.pins.is_empty() || point.taken > now;
                prop_assert!(verdict.keep || !protected);
                prop_assert!(!verdict.reasons.is_empty());
            }
            let stays = |id: &PointId| first.iter().any(|v| v.keep && v.id == *id);
            let left: Vec<Candidate> = points.iter().filter(|p| stays(&p.id)).cloned().collect();
            let second = verdicts(&left, &keep, now, &berlin());
            let kept: Vec<Verdict> = first.into_iter().filter(|v| v.keep).collect();
            prop_assert_eq!(second, kept);
        }
    }
}
