//! Whether the wall clock can be believed when points are about to be destroyed.
//!
//! A clock that somebody or something set (a time service at its first word, a guest that was paused, an empty battery, a
//! typing error) makes points look older than they are. Between two looks the wall clock must have gone on as far as the
//! clock that counts since the boot, which nobody can set; where it has not, it is doubted.
//!
//! Promises:
//! - a clock that jumped is doubted from the next look on; one that jumps back to where it should be is believed at once;
//! - a doubt ends: when a peer's clock agrees, or when the new time has held for [`SETTLES`] without another jump;
//! - over a reboot, which ends the count, the clock must not have gone back, nor on by more than [`AWAY`].
//!
//! It deliberately does not know any clock, nor what is not done while one is doubted.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

/// Slewing, rounding and late looks make so much of a difference; no rule of retention feels it.
pub const TOLERANCE: SignedDuration = SignedDuration::from_mins(2);

/// A jumped clock that nobody confirms is believed after this time.
pub const SETTLES: Duration = Duration::from_secs(24 * 3600);

/// A machine that was off for longer than this may have a wrong clock as well.
pub const AWAY: SignedDuration = SignedDuration::from_hours(30 * 24);

/// Both clocks at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reading {
    pub wall: Timestamp,
    /// Since the boot, sleep included.
    pub up: Duration,
    /// Which boot: `up` of two boots cannot be compared.
    pub boot: String,
}

/// What is remembered from look to look.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Watch {
    /// The last that was believed.
    believed: Reading,
    doubt: Option<Doubt>,
}

/// Why the clock is not believed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Doubt {
    /// The first reading after the jump.
    since: Reading,
    /// The last one; the doubt is about one jump as long as these go on in step.
    last: Reading,
    /// How far the clock is from where it should be.
    pub jumped: SignedDuration,
}

/// What others say of the clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Witness {
    /// When the newest point was taken; asked only where nothing is remembered.
    pub newest: Option<Timestamp>,
    /// Whether a peer's clock agrees.
    pub peer_agrees: bool,
}

impl Watch {
    /// What is remembered after a look at the clocks.
    pub fn look(old: Option<Watch>, now: Reading, witness: Witness) -> Watch {
        let Some(old) = old else {
            return Watch::first(now, witness);
        };
        let jumped = jump(&old.believed, &now);
        if jumped.is_zero() || witness.peer_agrees {
            return Watch {
                believed: now,
                doubt: None,
            };
        }
        let doubt = match old.doubt {
            Some(doubt) if jump(&doubt.last, &now).is_zero() => Doubt {
                since: doubt.since,
                last: now.clone(),
                jumped,
            },
            _ => Doubt {
                since: now.clone(),
                last: now.clone(),
                jumped,
            },
        };
        if settled(&doubt) {
            return Watch {
                believed: now,
                doubt: None,
            };
        }
        Watch {
            believed: old.believed,
            doubt: Some(doubt),
        }
    }

    fn first(now: Reading, witness: Witness) -> Watch {
        let behind = witness.newest.map_or(SignedDuration::ZERO, |newest| {
            now.wall.duration_since(newest)
        });
        let jumped = beyond(behind, AWAY);
        let doubt = (!jumped.is_zero() && !witness.peer_agrees).then(|| Doubt {
            since: now.clone(),
            last: now.clone(),
            jumped,
        });
        // What is believed is then the point's own time, as of the boot before.
        let believed = match (&doubt, witness.newest) {
            (Some(_), Some(newest)) => Reading {
                wall: newest,
                up: Duration::ZERO,
                boot: String::new(),
            },
            _ => now,
        };
        Watch { believed, doubt }
    }

    pub fn doubt(&self) -> Option<&Doubt> {
        self.doubt.as_ref()
    }
}

impl Doubt {
    /// When the new time will be believed if it holds, by the wall clock.
    pub fn ends(&self) -> Timestamp {
        let settles = SignedDuration::try_from(SETTLES).unwrap_or(SignedDuration::MAX);
        let ends = self.since.wall.checked_add(settles);
        ends.unwrap_or(Timestamp::MAX)
    }
}

fn settled(doubt: &Doubt) -> bool {
    let (since, last) = (&doubt.since, &doubt.last);
    if since.boot == last.boot {
        return last.up.saturating_sub(since.up) >= SETTLES;
    }
    // Over a reboot, what is known for sure is the time since this one.
    last.up >= SETTLES
}

/// How far the clock is from where it should be; zero within what can be explained.
fn jump(from: &Reading, to: &Reading) -> SignedDuration {
    let wall = to.wall.duration_since(from.wall);
    if from.boot != to.boot {
        return beyond(wall, AWAY);
    }
    let up = SignedDuration::try_from(to.up).unwrap_or(SignedDuration::MAX);
    let up = up.saturating_sub(SignedDuration::try_from(from.up).unwrap_or(SignedDuration::MAX));
    let off = wall.saturating_sub(up);
    if off.abs() <= TOLERANCE {
        SignedDuration::ZERO
    } else {
        off
    }
}

/// A step back is one; a step on is one where it is longer than `most`.
fn beyond(step: SignedDuration, most: SignedDuration) -> SignedDuration {
    if step >= -TOLERANCE && step <= most {
        SignedDuration::ZERO
    } else {
        step
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Looks as words: `up/wall` in minutes since the boot and since noon; `boot` begins another boot, `agree` lets a peer
    /// agree at the next look. Expected: after each look `-` or the minutes jumped.
    fn check(looks: &str, expected: &str) {
        let noon: Timestamp = "2026-11-20T12:00:00Z".parse().unwrap();
        let (mut watch, mut boot, mut agrees, mut got) = (None, 0, false, Vec::new());
        for word in looks.split_whitespace() {
            match word {
                "boot" => boot += 1,
                "agree" => agrees = true,
                look => {
                    let (up, wall) = look.split_once('/').unwrap();
                    let reading = Reading {
                        wall: noon + SignedDuration::from_mins(wall.parse().unwrap()),
                        up: Duration::from_secs(up.parse::<u64>().unwrap() * 60),
                        boot: boot.to_string(),
                    };
                    let witness = Witness {
                        newest: None,
                        peer_agrees: std::mem::take(&mut agrees),
                    };
                    let seen = Watch::look(watch, reading, witness);
                    let doubt = seen.doubt().map(|doubt| doubt.jumped.as_mins().to_string());
                    got.push(doubt.unwrap_or("-".to_owned()));
                    watch = Some(seen);
                }
            }
        }
        assert_eq!(got.join(" "), expected, "{looks}");
    }

    #[test]
    fn a_clock_that_goes_is_believed() {
        check("10/0", "-");
        check("10/0 11/1 100/90", "- - -");
        // A second of drift in each look, for ever.
        check("0/0 60/61 120/122 180/183 240/244", "- - - - -");
        // Two weeks asleep: the count since the boot goes on.
        check("0/0 20000/20000", "- -");
    }

    #[test]
    fn a_jump_is_doubted_until_it_is_undone() {
        check("10/0 11/181 12/182 13/3", "- 180 180 -");
        check("10/0 11/-179 12/-178 13/3", "- -180 -180 -");
        // Years on, and back.
        check("10/0 11/2000000 12/2 13/3", "- 1999999 - -");
    }

    #[test]
    fn a_jump_that_holds_is_believed_after_a_day() {
        check("10/0 11/181 1450/1620 1451/1621 1452/1622", "- 180 180 - -");
        // Another jump begins the day anew.
        check(
            "10/0 11/181 1000/970 1451/1421 2440/2410",
            "- 180 -20 -20 -",
        );
        check(
            "10/0 11/181 1000/1230 1451/1681 2440/2670",
            "- 180 240 240 -",
        );
    }

    #[test]
    fn a_peer_that_agrees_ends_it() {
        check("10/0 agree 11/181 12/182", "- - -");
        check("10/0 11/181 agree 12/182 13/183", "- 180 - -");
    }

    #[test]
    fn over_a_reboot() {
        check("1000/0 boot 1/5", "- -");
        check("1000/0 boot 1/1440 boot 1/10080", "- - -");
        check("1000/0 boot 1/-10 2/-9", "- -10 -9");
        check("1000/0 boot 1/100000 2/100001", "- 100000 100001");
        check(
            "1000/0 boot 1/100000 1440/101439 1441/101440",
            "- 100000 101439 -",
        );
        // The jump before the reboot is the same one after it.
        check("10/0 11/181 boot 1/200 1440/1639", "- 180 - -");
    }

    #[test]
    fn with_nothing_remembered_the_newest_point_says() {
        let now = Reading {
            wall: "2026-11-20T12:00:00Z".parse().unwrap(),
            up: Duration::from_secs(60),
            boot: "a".to_owned(),
        };
        for (newest, doubted) in [
            (None, false),
            (Some("2026-11-20T11:00:00Z"), false),
            (Some("2026-11-20T12:01:00Z"), false),
            (Some("2026-11-20T13:00:00Z"), true),
            (Some("2020-11-20T13:00:00Z"), true),
        ] {
            let witness = Witness {
                newest: newest.map(|text: &str| text.parse().unwrap()),
                peer_agrees: false,
            };
            let watch = Watch::look(None, now.clone(), witness);
            assert_eq!(watch.doubt().is_some(), doubted, "{newest:?}");
            let again = Watch::look(Some(watch), now.clone(), witness);
            assert_eq!(again.doubt().is_some(), doubted, "{newest:?}, again");
        }
    }

    #[test]
    fn the_ends_of_time() {
        let at = |wall, up| Reading {
            wall,
            up,
            boot: "a".to_owned(),
        };
        let readings = [
            at(Timestamp::MIN, Duration::ZERO),
            at(Timestamp::MAX, Duration::MAX),
            at(Timestamp::MIN, Duration::MAX),
        ];
        let mut watch = None;
        for reading in readings.iter().chain(readings.iter().rev()) {
            let seen = Watch::look(watch, reading.clone(), Witness::default());
            assert!(
                seen.doubt()
                    .is_none_or(|doubt| doubt.ends() > Timestamp::MIN)
            );
            watch = Some(seen);
        }
    }
}
