//! Wall clocks that are set while daemons run: hours and days forth and back, summer time, the year 2030 and back.
//!
//! Judged after each step: points stay in order on both nodes, pruning destroys nothing that it would not destroy by the
//! right clock, schedules neither storm nor stall, the link lives on, ages are sane, and both nodes say whose clock is wrong.
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::print_stderr)]

mod support;

use std::time::{Duration, Instant};

use serde_json::Value;
use support::clock::{self, Clock};
use support::cluster::{MANUAL, Pair, TestNode, noise, same_on_both};

const BERLIN: &str = "CET-1CEST,M3.5.0,M10.5.0/3";
const HOUR: i64 = 3600;
const DAY: i64 = 24 * HOUR;

/// Two linked nodes, of which alder lives by the clock given back.
fn begin(role: &str) -> (Pair, Clock) {
    let mut pair = Pair::new(&["files"], "", MANUAL);
    for node in [&pair.alder, &pair.birch] {
        node.edit(MANUAL, role);
    }
    pair.birch.run(&["reload"]).ok();
    pair.alder.stop();
    let clock = Clock::new(&pair.alder.dir, BERLIN);
    pair.alder.start_with(&clock.env());
    pair.wait_linked();
    (pair, clock)
}

/// Writes something, and takes and sends a point.
fn point(pair: &Pair, seed: u64) -> String {
    std::fs::write(pair.alder.live("files").join("data"), noise(seed, 5000)).unwrap();
    pair.alder.run(&["run"]).ok();
    pair.alder.points().pop().unwrap()
}

fn now(node: &TestNode) -> jiff::Timestamp {
    node.status()["now"].as_str().unwrap().parse().unwrap()
}

/// Waits until the daemon itself sees its clock so far from the real one, in seconds.
fn stepped(node: &TestNode, seconds: i64) {
    node.wait_for("its clock is set", || {
        let off = now(node).as_second() - jiff::Timestamp::now().as_second();
        (off - seconds).abs() < 5
    });
}

fn warnings(node: &TestNode) -> String {
    node.status()["warnings"].to_string()
}

/// What `status` says of times must be possible.
#[track_caller]
fn sane(pair: &Pair, begun: Instant) {
    for node in [&pair.alder, &pair.birch] {
        let status = node.status();
        let time = |value: &Value| -> jiff::Timestamp { value.as_str().unwrap().parse().unwrap() };
        let now = time(&status["now"]);
        let up = now.duration_since(time(&status["started"])).as_secs_f64();
        let most = begun.elapsed().as_secs_f64() + 90.0;
        assert!((0.0..most).contains(&up), "up {up} s: {status}");
        let peer = &status["peers"][0];
        assert_eq!(peer["linked"], true, "{status}");
        let linked = now.duration_since(time(&peer["since"])).as_secs_f64();
        assert!(
            (-1.0..most).contains(&linked),
            "linked {linked} s: {status}"
        );
        let human = node.run(&["status"]).ok().out;
        let negative = |word: &str| {
            let digits = word.strip_prefix('-').unwrap_or_default();
            digits.starts_with(|c: char| c.is_ascii_digit())
        };
        assert!(!human.split_whitespace().any(negative), "{human}");
        for replica in status["roles"][0]["replicas"].as_array().unwrap() {
            let exposure = replica["exposure_s"].as_f64().unwrap();
            assert!((0.0..most).contains(&exposure), "{replica}");
        }
    }
}

fn ranks(points: &[String]) -> Vec<u64> {
    let sequence = |point: &String| point.split('.').nth(1).unwrap().parse().unwrap();
    points.iter().map(sequence).collect()
}

/// Both hold the points in the order in which they were taken.
#[track_caller]
fn in_order(pair: &Pair) {
    for node in [&pair.alder, &pair.birch] {
        let ranks = ranks(&node.points());
        assert!(ranks.is_sorted(), "{}: {ranks:?}", node.name);
    }
}

/// Steps of alder's clock, one after the other; after each a point, which must arrive. Both keep what they would have kept.
#[test]
fn steps_lose_no_point_and_no_link() {
    if !clock::ready("steps_lose_no_point_and_no_link") {
        return;
    }
    let begun = Instant::now();
    let keep = "every = \"manual\"\nkeep = { last = 2, hourly = 24, daily = 7, yearly = 1 }";
    let (pair, clock) = begin(keep);
    // By the right clock: the two newest stay, which are the last of their hour, day and year, too.
    for seed in 0..4 {
        point(&pair, seed);
    }
    let before = pair.alder.points();
    assert!((2..=3).contains(&before.len()), "{before:?}");
    let far = 4 * 365 * DAY;
    let steps = [3 * HOUR, 0, -3 * HOUR, 0, -2 * DAY, 0, far, 0];
    for (seed, step) in steps.into_iter().enumerate() {
        clock.shift(step);
        stepped(&pair.alder, step);
        // Told by the heartbeats, on both sides.
        let text = "one of them is wrong";
        for node in [&pair.alder, &pair.birch] {
            node.wait_for("it is told whose clock is wrong", || {
                warnings(node).contains(text) == (step != 0)
            });
        }
        let kept = pair.alder.points();
        point(&pair, 100 + seed as u64);
        sane(&pair, begun);
        in_order(&pair);
        if step != 0 {
            let left = pair.alder.points();
            assert!(
                kept.iter().all(|point| left.contains(point)),
                "{kept:?}: {left:?}"
            );
            let said = warnings(&pair.alder);
            assert!(said.contains("nothing is pruned"), "{said}");
            let pruned = pair.alder.run(&["prune", "--json"]).json();
            let verdicts = pruned["roles"][0]["verdicts"].as_array().unwrap();
            let gone = |verdict: &&Value| verdict["keep"] == false && verdict["error"].is_null();
            assert_eq!(verdicts.iter().filter(gone).count(), 0, "{pruned}");
            assert_eq!(pair.alder.points(), left, "pruned by a wrong clock");
            let check = pair.alder.run(&["check"]);
            assert!(check.out.contains("clock"), "{check:?}");
        } else {
            pair.alder.wait_for("the clock is believed again", || {
                !warnings(&pair.alder).contains("nothing is pruned")
            });
        }
        // The base and the newest are on both, whatever happened.
        let theirs = pair.birch.points();
        assert!(
            theirs.contains(pair.alder.points().last().unwrap()),
            "{theirs:?}"
        );
        assert!(!warnings(&pair.birch).contains("nothing is pruned"));
    }
    let newest = point(&pair, 999);
    same_on_both(&pair, &newest, &["files"]);
    // One link all the time since the restart.
    let ups = pair.alder.log().matches("link to birch is up").count();
    let since = pair.alder.status()["peers"][0]["since"].clone();
    println!(
        "{ups} links, the last since {since}; {:?}",
        pair.alder.points()
    );
    assert!(
        !pair.alder.log().contains("nothing was heard"),
        "{}",
        pair.alder.log()
    );
}

/// Points taken in a while of real time by a schedule of so many seconds.
fn taken_in(pair: &Pair, real: Duration) -> usize {
    let (begun, before) = (Instant::now(), *ranks(&pair.alder.points()).last().unwrap());
    while begun.elapsed() < real {
        std::thread::sleep(Duration::from_millis(50));
    }
    (ranks(&pair.alder.points()).last().unwrap() - before) as usize
}

#[test]
fn schedules_neither_storm_nor_stall() {
    if !clock::ready("schedules_neither_storm_nor_stall") {
        return;
    }
    let often = "every = \"4s\"\nsnapshot-unchanged = true\nkeep = { last = 100 }";
    let (pair, clock) = begin(often);
    pair.alder
        .wait_for("it takes points", || pair.alder.points().len() > 1);
    for step in [3 * HOUR, 0, -3 * HOUR, -2 * DAY, 4 * 365 * DAY, 0] {
        clock.shift(step);
        stepped(&pair.alder, step);
        // 12 s hold three intervals, and a fourth begins; the step may bring one point at once. A storm brings dozens.
        let taken = taken_in(&pair, Duration::from_secs(12));
        assert!(
            (2..=5).contains(&taken),
            "{taken} points in 12 s after {step} s"
        );
        pair.alder.wait_for("both hold the same", || {
            pair.birch.points().last() == pair.alder.points().last()
        });
        in_order(&pair);
    }
}

/// A schedule by the clock of Berlin over both changes of summer time, at a few seconds before each.
#[test]
fn summer_time_comes_and_goes() {
    if !clock::ready("summer_time_comes_and_goes") {
        return;
    }
    let (pair, clock) =
        begin("every = \"0,1 * * * *\"\nsnapshot-unchanged = true\nkeep = { last = 100 }");
    pair.alder
        .wait_for("a first point", || !pair.alder.points().is_empty());
    // 02:00 becomes 03:00: the full hour comes once. 03:00 becomes 02:00: it comes again.
    for (time, hour) in [
        ("2026-03-29T00:59:52Z", "20260329T0100"),
        ("2026-10-24T23:59:52Z", "20261025T0000"),
        ("2026-10-25T00:59:52Z", "20261025T0100"),
    ] {
        clock.set(time);
        let named = || {
            let said = pair.alder.run(&["points", "web", "--json"]).ok().json();
            let points = said["roles"][0]["points"].as_array().unwrap().clone();
            let of_hour = |point: &&Value| point["name"].as_str().unwrap().starts_with(hour);
            points.iter().filter(of_hour).count()
        };
        pair.alder
            .wait_for("the full hour brings a point", || named() > 0);
        let more = taken_in(&pair, Duration::from_secs(5));
        assert_eq!((named(), more), (1, 0), "after {time}");
    }
    pair.alder.wait_for("both hold the same", || {
        pair.birch.points().last() == pair.alder.points().last()
    });
    in_order(&pair);
}

#[test]
fn invitations_end_whatever_the_clock_does() {
    if !clock::ready("invitations_end_whatever_the_clock_does") {
        return;
    }
    let (pair, clock) = begin(MANUAL);
    let cedar = TestNode::new("cedar", 256 << 20);
    let mut cedar = cedar;
    cedar.configure("nobody", &[], "", "");
    let text = std::fs::read_to_string(cedar.config_path()).unwrap();
    let node = text.split("[peer.").next().unwrap();
    std::fs::write(cedar.config_path(), node).unwrap();
    cedar.make_key();
    cedar.start();
    let invited = || {
        let said = pair.alder.run(&["pair", "invite", "--json"]).ok().json();
        said["line"].as_str().unwrap().to_owned()
    };
    for step in [-2 * DAY, 3 * HOUR] {
        let line = invited();
        clock.shift(step);
        stepped(&pair.alder, step);
        let said = cedar.run(&["pair", "accept", &line]);
        assert_ne!(said.code, 0, "after {step} s: {said:?}");
        assert!(said.err.contains("expired"), "{said:?}");
        clock.shift(0);
        stepped(&pair.alder, 0);
    }
    cedar.run(&["pair", "accept", &invited()]).ok();
}
