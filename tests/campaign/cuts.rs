//! The kind `cuts`: the link ends in every way a line can end, at random bytes, several times in one transfer: reset, closed,
//! silent, silent in one direction, refused for a while. The daemons live on, so nothing may be received twice.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::case::{Case, Kind};
use crate::course::{Course, Turn};
use crate::kills::moment;
use crate::support::proxy::{Cut, Way};

pub const KIND: Kind = Kind {
    name: "cuts",
    what: "The link is cut, blackholed, reset or half-open at random bytes; the transfer goes on from its checkpoint and ends equal",
    short: 2,
    run,
};

/// What is done to the link.
#[derive(Debug, Clone, Copy)]
struct Trouble {
    told: &'static str,
    cut: Cut,
    /// How long new connections are refused.
    refused: Duration,
}

fn run(case: &mut Case) -> Result<(), String> {
    let mut course = Course::new(case);
    for _ in 0..2 + case.below(3) {
        let bytes = course.change(case);
        let mut left = 1 + case.below(5);
        let mut trouble = arm(&mut course, case, bytes);
        course.begin();
        loop {
            match course.wait(case)? {
                Turn::Done => break,
                Turn::Fell => return Err(course.told("a daemon ended by itself")),
                Turn::Fired => {}
            }
            case.count(trouble.told);
            let begun = Instant::now();
            while begun.elapsed() < trouble.refused {
                std::thread::park_timeout(trouble.refused);
            }
            course.pair.link.mend();
            course.judge_now()?;
            left -= 1;
            if case.chance(10) {
                course.go_on(case);
            }
            if left == 0 {
                continue;
            }
            trouble = arm(&mut course, case, bytes / 2);
        }
        course.pair.link.disarm();
        course.judge_round(case)?;
        case.count("transfers that ended equal");
    }
    Ok(())
}

/// Draws what is done to the link, and at which byte.
fn arm(course: &mut Course, case: &mut Case, bytes: u64) -> Trouble {
    let trouble = draw(case);
    let (way, bytes) = moment(case, bytes);
    let (link, fired) = (course.pair.link.clone(), course.fired.clone());
    course.pair.link.after(way, bytes, move || {
        if !trouble.refused.is_zero() {
            link.refuse();
        }
        link.end(trouble.cut);
        fired.store(true, Ordering::SeqCst);
    });
    trouble
}

fn draw(case: &mut Case) -> Trouble {
    let (told, cut) = match case.below(10) {
        0..=3 => ("resets", Cut::Reset),
        4..=6 => ("orderly ends of the connection", Cut::Close),
        7 => ("silences", Cut::Silence),
        8 => ("silences towards the receiver", Cut::Half(Way::ToTarget)),
        _ => ("silences towards the sender", Cut::Half(Way::ToDialler)),
    };
    let is_refused = matches!(cut, Cut::Reset | Cut::Close) && case.chance(25);
    let refused = case.below(1000) * u64::from(is_refused);
    Trouble {
        told,
        cut,
        refused: Duration::from_millis(refused),
    }
}
