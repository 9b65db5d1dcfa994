//! The kind `kills`: daemons are killed (SIGKILL) at random bytes of a transfer and at named places (src/fs/btrfs/freeze.rs),
//! and stopped (SIGTERM) at random bytes, one of them or both, several times in one transfer.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::case::{Case, Kind};
use crate::course::{Course, Life, Turn, family, life, remains};
use crate::shots::{Shot, Shots};
use crate::support::cluster::{PATIENCE, TestNode};
use crate::support::proxy::Way;

pub const KIND: Kind = Kind {
    name: "kills",
    what: "Daemons are killed at random bytes and at named places; what was finished stays, the transfer ends equal",
    short: 3,
    run,
};

/// Places of the standby, in the order of a transfer.
const STANDBY: [&str; 18] = [
    "offer-base-recorded",
    "resume-cleared",
    "checkpoint-flushed",
    "checkpoint-state-written",
    "checkpoint-taken",
    "checkpoint-rotated",
    "finish-moved",
    "finish-read-only",
    "finish-recorded",
    "publish-told",
    "publish-gathered",
    "publish-shown",
    "commit-published",
    "commit-unanswered",
    "point-hidden",
    "point-half-gone",
    "remains-hidden",
    "trash-emptying",
];

/// Places of the active node, in the order of a cycle.
const ACTIVE: [&str; 14] = [
    "sequence-recorded",
    "point-begun",
    "point-taken",
    "point-shown",
    "cycle-taken",
    "sending-recorded",
    "sent-uncommitted",
    "committed-unrecorded",
    "committed-recorded",
    "cycle-sent",
    "point-hidden",
    "point-half-gone",
    "remains-hidden",
    "trash-emptying",
];

fn run(case: &mut Case) -> Result<(), String> {
    let mut course = Course::new(case);
    let shots = Shots::default();
    for _ in 0..2 + case.below(3) {
        let bytes = course.change(case);
        let mut left = 1 + case.below(5);
        arm(&mut course, &shots, case, bytes)?;
        course.begin();
        loop {
            match course.wait(case)? {
                Turn::Done if shots.recall(&course.pair.link)? == 0 => break,
                Turn::Done | Turn::Fired | Turn::Fell => {}
            }
            shots.recall(&course.pair.link)?;
            if !bury(&mut course, case)? {
                continue;
            }
            course.judge_now()?;
            left = left.saturating_sub(1);
            if case.chance(10) {
                course.go_on(case);
            }
            revive(&mut course, &shots, case, left > 0, bytes);
        }
        course.judge_round(case)?;
        case.count("transfers that ended equal");
    }
    Ok(())
}

/// Before a round: a signal at some byte, or a daemon that will stop itself at some place.
fn arm(course: &mut Course, shots: &Shots, case: &mut Case, bytes: u64) -> Result<(), String> {
    course.fired.store(false, Ordering::SeqCst);
    if case.chance(60) {
        signal_after(course, shots, case, bytes);
        return Ok(());
    }
    let standby = case.chance(60);
    let env = place(case, standby);
    node(course, standby).signal("TERM");
    // Its first thread may be gone a moment before the process is.
    while node(course, standby).is_started() {
        await_fall(course)?;
        bury(course, case)?;
    }
    node(course, standby).launch(&[("STANDIN_FREEZE", &env)]);
    Ok(())
}

fn node(course: &mut Course, standby: bool) -> &mut TestNode {
    match standby {
        true => &mut course.pair.birch,
        false => &mut course.pair.alder,
    }
}

/// A place, and the how-manieth time.
fn place(case: &mut Case, standby: bool) -> String {
    let places: &[&str] = if standby { &STANDBY } else { &ACTIVE };
    let place = *case.pick(places);
    let most = if place.starts_with("checkpoint") {
        5
    } else {
        2
    };
    format!("{place}:{}", 1 + case.below(most))
}

fn signal_after(course: &mut Course, shots: &Shots, case: &mut Case, bytes: u64) {
    let moment = moment(case, bytes);
    let signal = if case.chance(75) {
        Signal::KILL
    } else {
        Signal::TERM
    };
    let pids: Vec<u32> = match case.below(10) {
        0..=5 => vec![course.pair.birch.pid()],
        6..=8 => vec![course.pair.alder.pid()],
        _ => vec![course.pair.birch.pid(), course.pair.alder.pid()],
    };
    let delay = case.below(250) * u64::from(case.chance(30));
    let shot = Shot {
        signal,
        pids,
        delay: Duration::from_millis(delay),
    };
    shots.arm(&course.pair.link, moment, shot, &course.fired);
}

/// A direction and a byte: mostly somewhere in a transfer of so many bytes.
pub fn moment(case: &mut Case, bytes: u64) -> (Way, u64) {
    match case.below(10) {
        // Answers are few.
        0 => (Way::ToDialler, 1 + case.below(2000)),
        // Handshakes, greetings, questions, offers.
        1 => (Way::ToTarget, 1 + case.below(6000)),
        _ => (Way::ToTarget, 1 + case.below(bytes)),
    }
}

/// A daemon was told to stop: waits until one has fallen.
fn await_fall(course: &mut Course) -> Result<(), String> {
    let begun = Instant::now();
    while begun.elapsed() < PATIENCE {
        let pair = &mut course.pair;
        if life(&mut pair.birch) != Life::Runs || life(&mut pair.alder) != Life::Runs {
            return Ok(());
        }
        std::thread::park_timeout(std::time::Duration::from_millis(2));
    }
    Err(course.told("a signal does not end the daemon"))
}

/// Kills who is frozen, counts who ended; whether anybody did.
fn bury(course: &mut Course, case: &mut Case) -> Result<bool, String> {
    let mut fell = false;
    for standby in [true, false] {
        let node = node(course, standby);
        if !node.is_started() {
            continue;
        }
        let mut children = Vec::new();
        match life(node) {
            Life::Runs => continue,
            Life::Frozen => {
                children = family(node.pid());
                node.kill();
                let log = node.log();
                let last = log.lines().rfind(|line| line.contains(" frozen place="));
                let mut places = STANDBY.iter().chain(&ACTIVE);
                let at = places
                    .find(|place| last.is_some_and(|last| last.contains(&format!("\"{place}\""))));
                case.count_at(at.ok_or("a daemon stopped itself at no place that is known here")?);
                case.count(match standby {
                    true => "kills of the receiver at named places",
                    false => "kills of the sender at named places",
                });
            }
            Life::Ended => match node.ended() {
                None => continue,
                Some(status) if status.success() => case.count("orderly stops"),
                Some(status) if status.to_string().contains("SIGKILL") => {
                    case.count(match standby {
                        true => "kills of the receiver at random bytes",
                        false => "kills of the sender at random bytes",
                    })
                }
                Some(status) => {
                    let why = format!("the daemon of {} ended by itself: {status}", node.name);
                    return Err(course.told(&why));
                }
            },
        }
        fell = true;
        orphans(children)?;
    }
    Ok(fell)
}

/// No worker outlives its daemon.
fn orphans(children: Vec<u32>) -> Result<(), String> {
    let begun = Instant::now();
    let lives = |pid: &u32| std::path::Path::new(&format!("/proc/{pid}")).exists();
    while let Some(pid) = children.iter().find(|pid| lives(pid)) {
        if begun.elapsed() > PATIENCE {
            return Err(format!("process {pid} outlives its daemon"));
        }
        std::thread::park_timeout(std::time::Duration::from_millis(2));
    }
    Ok(())
}

/// Starts who fell; with `again`, the next trouble is armed.
fn revive(course: &mut Course, shots: &Shots, case: &mut Case, again: bool, bytes: u64) {
    let mut freezing = again && case.chance(50);
    for standby in [true, false] {
        let node = node(course, standby);
        let left = remains(node);
        let is_swept = left
            .iter()
            .any(|name| name.contains(".trash/") || name.contains(".new-"));
        // A start clears away what lies there: a kill in that, too.
        let env = match is_swept && case.chance(50) {
            true => case
                .pick(&["trash-emptying:1", "remains-hidden:1"])
                .to_string(),
            false => place(case, standby),
        };
        if node.is_started() {
            continue;
        }
        match std::mem::take(&mut freezing) {
            true => node.launch(&[("STANDIN_FREEZE", &env)]),
            false => node.launch(&[]),
        }
    }
    course.fired.store(false, Ordering::SeqCst);
    if again && case.chance(50) {
        signal_after(course, shots, case, bytes / 2);
    }
}
