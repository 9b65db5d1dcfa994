//! How long the base of an absent peer is kept, and when somebody must hear of it.
//!
//! Promises: pure and total. Without a limit a base is never let go. A peer that is there, or was within the last hour, keeps
//! its base whatever the figures say; so does one whose base stays anyway, because letting it go frees nothing. At most one
//! base goes for want of free space at a time: the next look sees what that gave. What is going to happen is said long
//! before: from half of the way on.
//!
//! It deliberately does not know how the figures are found out, nor what is done with the answer.

use std::fmt;
use std::time::Duration;

use super::units::{human_bytes, human_duration};

/// Who was heard of within this time is not absent: a restart costs nobody a base.
pub const ABSENT_LEAST: Duration = Duration::from_secs(3600);

/// The same warning again after this time.
const AGAIN: Duration = Duration::from_secs(24 * 3600);

/// Without a limit, warnings begin after these times.
const NO_LIMIT_STEPS: [Duration; 3] = [
    Duration::from_secs(7 * 24 * 3600),
    Duration::from_secs(30 * 24 * 3600),
    Duration::from_secs(90 * 24 * 3600),
];

/// Parts of the way to a limit at which the warning grows, in percent.
const LIMIT_STEPS: [u64; 3] = [50, 75, 90];

/// The limits of a role; none of them: for ever.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Limits {
    /// Time without a word from the peer.
    pub longest: Option<Duration>,
    /// What the base holds that nothing else does, in bytes.
    pub bytes: Option<u64>,
    pub floor: Option<Floor>,
}

/// Free space below which bases go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Floor {
    Bytes(u64),
    /// Of the whole filesystem.
    Percent(u8),
}

impl Floor {
    pub fn bytes(self, total: u64) -> u64 {
        match self {
            Floor::Bytes(bytes) => bytes,
            Floor::Percent(percent) => total / 100 * u64::from(percent),
        }
    }
}

impl fmt::Display for Floor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Floor::Bytes(bytes) => f.write_str(&human_bytes(*bytes)),
            Floor::Percent(percent) => write!(f, "{percent} %"),
        }
    }
}

/// One peer that may be absent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// There is a link to it now.
    pub linked: bool,
    /// This node has looked for it long enough to know that it is away.
    pub settled: bool,
    /// Since the last word from it.
    pub silent: Duration,
    /// The base stays whatever becomes of the peer.
    pub stays_anyway: bool,
    /// About what only the base holds, in bytes of file data; none where it was not measured.
    pub held: Option<u64>,
    /// Of the fullest filesystem of the role, in bytes.
    pub free: u64,
    pub total: u64,
    /// The step that was warned of last, and how long ago.
    pub told: Option<(u8, Duration)>,
}

/// What is to be done now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// `step` is 0 where there is nothing to say. `tell`: somebody must hear it now.
    Keep { step: u8, percent: u64, tell: bool },
    /// Let the base go, and say so; half a sentence.
    Release { why: String },
}

/// Judges all peers of a role, in the order given.
pub fn judge(limits: &Limits, peers: &[Facts]) -> Vec<Verdict> {
    let judged = peers.iter().map(|facts| one(limits, facts));
    let mut verdicts: Vec<(Verdict, bool)> = judged.collect();
    // The one that gives most goes first; the others are judged again when the space is back.
    let for_space = |(_, (verdict, by_floor)): &(usize, &(Verdict, bool))| {
        *by_floor && matches!(verdict, Verdict::Release { .. })
    };
    let settled = |(at, _): &(usize, &(Verdict, bool))| peers[*at].settled;
    let first = verdicts
        .iter()
        .enumerate()
        .filter(for_space)
        .filter(settled)
        .max_by_key(|(at, _)| (peers[*at].held, peers[*at].silent, std::cmp::Reverse(*at)))
        .map(|(at, _)| at);
    for (at, (verdict, by_floor)) in verdicts.iter_mut().enumerate() {
        let goes = matches!(verdict, Verdict::Release { .. });
        if goes && !peers[at].settled || *by_floor && Some(at) != first {
            *verdict = keep(LIMIT_STEPS.len() as u8, 100, &peers[at]);
        }
    }
    verdicts.into_iter().map(|(verdict, _)| verdict).collect()
}

/// With it, whether free space alone says so.
fn one(limits: &Limits, facts: &Facts) -> (Verdict, bool) {
    if facts.linked || facts.silent < ABSENT_LEAST || facts.stays_anyway {
        return (keep(0, 0, facts), false);
    }
    let silent = facts.silent.as_secs();
    let mut percent = 0;
    if let Some(longest) = limits.longest {
        percent = percent.max(part(silent, longest.as_secs()));
        if facts.silent >= longest {
            let (away, limit) = (
                human_duration(silent as f64),
                human_duration(longest.as_secs_f64()),
            );
            let why = format!("it has been away for {away}, longer than {limit}");
            return (Verdict::Release { why }, false);
        }
    }
    if let (Some(bytes), Some(held)) = (limits.bytes, facts.held) {
        percent = percent.max(part(held, bytes));
        if held >= bytes {
            let (held, limit) = (human_bytes(held), human_bytes(bytes));
            let why = format!("it held about {held}, more than {limit}");
            return (Verdict::Release { why }, false);
        }
    }
    if let Some(floor) = limits.floor {
        let least = floor.bytes(facts.total);
        percent = percent.max(part(least, facts.free));
        if facts.free < least {
            let free = human_bytes(facts.free);
            let why = format!("{free} free is less than {floor}");
            return (Verdict::Release { why }, true);
        }
    }
    let step = match limits {
        Limits {
            longest: None,
            bytes: None,
            floor: None,
        } => steps(NO_LIMIT_STEPS.iter().map(|step| facts.silent >= *step)),
        _ => steps(LIMIT_STEPS.iter().map(|step| percent >= *step)),
    };
    (keep(step, percent, facts), false)
}

fn steps(passed: impl Iterator<Item = bool>) -> u8 {
    passed
        .take_while(|passed| *passed)
        .fold(0, |sum, _| sum + 1)
}

/// Percent of the way, below the end 99 at most.
fn part(of: u64, whole: u64) -> u64 {
    let percent = u128::from(of) * 100 / u128::from(whole.max(1));
    u64::try_from(percent).unwrap_or(u64::MAX).min(99)
}

fn keep(step: u8, percent: u64, facts: &Facts) -> Verdict {
    let tell = step > 0
        && facts
            .told
            .is_none_or(|(told, ago)| step > told || ago >= AGAIN);
    Verdict::Keep {
        step,
        percent,
        tell,
    }
}

/// `let go after 60d, from 50.0 GiB on, or when less than 10 % is free`; `never let go`.
impl fmt::Display for Limits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts: Vec<String> = [
            self.longest
                .map(|longest| format!("after {}", human_duration(longest.as_secs_f64()))),
            self.bytes
                .map(|bytes| format!("from {} on", human_bytes(bytes))),
            self.floor
                .map(|floor| format!("when less than {floor} is free")),
        ]
        .into_iter()
        .flatten()
        .collect();
        match parts.split_last() {
            None => f.write_str("never let go: no limit is set"),
            Some((last, [])) => write!(f, "let go {last}"),
            Some((last, before)) => write!(f, "let go {}, or {last}", before.join(", ")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const DAY: u64 = 24 * 3600;
    const GIB: u64 = 1 << 30;

    /// Words `for=60` (days), `bytes=50` (GiB), `free=10` (GiB), `free=10%`.
    fn limits(words: &str) -> Limits {
        let mut limits = Limits::default();
        for word in words.split_whitespace() {
            let (name, value) = word.split_once('=').unwrap();
            let number = || value.trim_end_matches('%').parse::<u64>().unwrap();
            match name {
                "for" => limits.longest = Some(Duration::from_secs(number() * DAY)),
                "bytes" => limits.bytes = Some(number() * GIB),
                "free" if value.ends_with('%') => {
                    limits.floor = Some(Floor::Percent(number() as u8));
                }
                "free" => limits.floor = Some(Floor::Bytes(number() * GIB)),
                other => panic!("{other}"),
            }
        }
        limits
    }

    /// Words `linked`, `stays`, `new` (this node just started), `hours=2`, `days=8`, `held=3` (GiB), `free=40` (GiB of 100), `told=1@5` (step, hours ago).
    fn facts(words: &str) -> Facts {
        let mut facts = Facts {
            linked: false,
            settled: true,
            silent: Duration::ZERO,
            stays_anyway: false,
            held: None,
            free: 90 * GIB,
            total: 100 * GIB,
            told: None,
        };
        for word in words.split_whitespace() {
            let (name, value) = word.split_once('=').unwrap_or((word, "0"));
            let number = |text: &str| text.parse::<u64>().unwrap();
            match name {
                "linked" => facts.linked = true,
                "new" => facts.settled = false,
                "stays" => facts.stays_anyway = true,
                "hours" => facts.silent = Duration::from_secs(number(value) * 3600),
                "days" => facts.silent = Duration::from_secs(number(value) * DAY),
                "held" => facts.held = Some(number(value) * GIB),
                "free" => facts.free = number(value) * GIB,
                "told" => {
                    let (step, hours) = value.split_once('@').unwrap();
                    let ago = Duration::from_secs(number(hours) * 3600);
                    facts.told = Some((number(step) as u8, ago));
                }
                other => panic!("{other}"),
            }
        }
        facts
    }

    /// Peers apart by `|`. Expected for each: `-`, `step N PERCENT%`, with `!` where it is told now, or why it goes.
    fn check(limit: &str, peers: &str, expected: &str) {
        let peers: Vec<Facts> = peers.split('|').map(facts).collect();
        let got: Vec<String> = judge(&limits(limit), &peers)
            .into_iter()
            .map(|verdict| match verdict {
                Verdict::Keep { step: 0, .. } => "-".to_owned(),
                Verdict::Keep {
                    step,
                    percent,
                    tell,
                } => format!("step {step} {percent}%{}", if tell { "!" } else { "" }),
                Verdict::Release { why } => why,
            })
            .collect();
        assert_eq!(got.join(" | "), expected, "{limit:?} {peers:?}");
    }

    #[test]
    fn without_a_limit_for_ever() {
        check("", "days=6", "-");
        check("", "days=7", "step 1 0%!");
        check("", "days=7 told=1@5", "step 1 0%");
        check("", "days=8 told=1@24", "step 1 0%!");
        check("", "days=30 told=1@5", "step 2 0%!");
        check("", "days=90", "step 3 0%!");
        check("", "days=30000 held=90 free=0", "step 3 0%!");
    }

    #[test]
    fn time() {
        check("for=60", "days=29", "-");
        check("for=60", "days=30", "step 1 50%!");
        check("for=60", "days=45 told=1@1", "step 2 75%!");
        check("for=60", "days=54 told=2@1", "step 3 90%!");
        check("for=60", "days=59 told=3@23", "step 3 98%");
        check(
            "for=60",
            "days=60",
            "it has been away for 60d, longer than 60d",
        );
    }

    #[test]
    fn bytes() {
        check("bytes=50", "days=1 held=24", "-");
        check("bytes=50", "days=1 held=25", "step 1 50%!");
        check("bytes=50", "days=1", "-");
        check(
            "bytes=50",
            "days=1 held=50",
            "it held about 50.0 GiB, more than 50.0 GiB",
        );
        check(
            "bytes=0",
            "days=1 held=0",
            "it held about 0 B, more than 0 B",
        );
    }

    #[test]
    fn free_space() {
        check("free=10%", "days=1 free=21", "-");
        check("free=10%", "days=1 free=20", "step 1 50%!");
        check("free=10", "days=1 free=10", "step 3 99%!");
        check(
            "free=10%",
            "days=1 free=9",
            "9.0 GiB free is less than 10 %",
        );
        check(
            "free=10",
            "days=1 free=9",
            "9.0 GiB free is less than 10.0 GiB",
        );
        // The one that gives most goes first, and alone.
        check(
            "free=10",
            "days=1 free=9 held=1 | days=1 free=9 held=5 | days=9 free=9 held=2",
            "step 3 100%! | 9.0 GiB free is less than 10.0 GiB | step 3 100%!",
        );
        check(
            "free=10",
            "days=1 free=9 | days=2 free=9",
            "step 3 100%! | 9.0 GiB free is less than 10.0 GiB",
        );
        // Time is another matter: it takes all whose time is up.
        check(
            "free=10 for=5",
            "days=6 free=9 | days=7 free=9 | days=1 free=9",
            "it has been away for 6d, longer than 5d | it has been away for 7d, longer than 5d | 9.0 GiB free is less than 10.0 GiB",
        );
    }

    #[test]
    fn who_is_there_keeps_its_base() {
        let all = "for=1 bytes=1 free=90%";
        check(all, "linked days=60 held=60 free=0", "-");
        check(all, "hours=0 held=60 free=0", "-");
        check(all, "new days=60 held=60 free=0", "step 3 100%!");
        check(
            "free=10",
            "new days=9 held=9 free=0 | days=1 free=0",
            "step 3 100%! | 0 B free is less than 10.0 GiB",
        );
        check(all, "stays days=60 held=60 free=0", "-");
        check(
            "bytes=1",
            "hours=1 held=60",
            "it held about 60.0 GiB, more than 1.0 GiB",
        );
    }

    #[test]
    fn words() {
        let check = |words: &str, expected: &str| assert_eq!(limits(words).to_string(), expected);
        check("", "never let go: no limit is set");
        check("for=60", "let go after 60d");
        check(
            "for=60 bytes=50 free=10%",
            "let go after 60d, from 50.0 GiB on, or when less than 10 % is free",
        );
    }

    proptest! {
        /// Whatever the figures: nothing goes without a limit or from who is there; of several at most one goes for space;
        /// steps never fall while an absence goes on; what goes was warned of before, had anybody looked in time.
        #[test]
        fn bases_are_safe(
            days in 0u64..200, held in 0u64..100, free in 0u64..100, linked: bool, stays: bool,
            longest in prop::option::of(1u64..100), bytes in prop::option::of(1u64..100), floor in prop::option::of(0u8..100),
        ) {
            let limits = Limits {
                longest: longest.map(|days| Duration::from_secs(days * DAY)),
                bytes: bytes.map(|gib| gib * GIB),
                floor: floor.map(Floor::Percent),
            };
            let of = |days: u64, held: u64| Facts {
                linked, settled: true, stays_anyway: stays, silent: Duration::from_secs(days * DAY), held: Some(held * GIB),
                free: free * GIB, total: 100 * GIB, told: None,
            };
            let now = judge(&limits, &[of(days, held)]).remove(0);
            let goes = |verdict: &Verdict| matches!(verdict, Verdict::Release { .. });
            if limits == Limits::default() || linked || stays || days == 0 {
                prop_assert!(!goes(&now));
            }
            let later = judge(&limits, &[of(days + 1, held)]).remove(0);
            match (&now, &later) {
                (Verdict::Keep { step, .. }, Verdict::Keep { step: then, .. }) => prop_assert!(then >= step),
                (Verdict::Release { .. }, then) => prop_assert!(goes(then)),
                _ => {}
            }
            if let (Some(longest), true) = (longest, goes(&now)) {
                let half = judge(&limits, &[of(longest.div_ceil(2), held)]).remove(0);
                let warned = matches!(half, Verdict::Keep { step: 1.., .. });
                prop_assert!(longest < 2 || goes(&half) || warned);
            }
            let many = judge(&limits, &[of(days, held), of(days, held), of(days, held)]);
            let only_floor = Limits { longest: None, bytes: None, ..limits };
            prop_assert!(judge(&only_floor, &[of(days, held), of(days, held)]).iter().filter(|v| goes(v)).count() <= 1);
            prop_assert!(many.len() == 3);
        }
    }
}
