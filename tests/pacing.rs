//! Bandwidth limits of a running daemon: kept within 5 % over ten seconds, changed by reload and by the calendar without
//! disturbing the transfer, and told by `status`.
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::print_stderr)]

mod support;

use std::time::{Duration, Instant};

use support::clock::{self, Clock};
use support::cluster::{MANUAL, MIB, Pair, fill, same_on_both, wait};
use support::fixture;

/// How long a rate is measured.
const MEASURED: Duration = Duration::from_secs(10);

/// TLS, yamux and the answers are not counted by the limit, but by the relay.
const OVERHEAD: f64 = 0.01;

/// Bytes per second through the relay, from now on.
fn measured(pair: &Pair) -> f64 {
    let (begun, before) = (Instant::now(), pair.link.bytes());
    while begun.elapsed() < MEASURED {
        std::thread::sleep(Duration::from_millis(5));
    }
    (pair.link.bytes() - before) as f64 / begun.elapsed().as_secs_f64()
}

fn check(pair: &Pair, rate: f64) {
    let got = measured(pair);
    println!("{got:.0} B/s at a limit of {rate:.0} B/s");
    let (least, most) = (0.95 * rate, (1.05 + OVERHEAD) * rate);
    assert!(
        (least..=most).contains(&got),
        "{got:.0} B/s at a limit of {rate:.0} B/s"
    );
}

fn limit(pair: &Pair, line: &str) {
    let text = std::fs::read_to_string(pair.alder.config_path()).unwrap();
    match text.lines().find(|line| line.starts_with("bandwidth = ")) {
        Some(old) => pair.alder.edit(old, line),
        None => pair
            .alder
            .edit("[peer.birch]\n", &format!("[peer.birch]\n{line}\n")),
    }
}

/// A transfer of `mib` MiB that has begun to move, and how it was asked for.
fn begin(pair: &Pair, mib: usize) -> (u64, std::process::Child) {
    fill(&pair.alder.live("files"), mib, MIB as usize, 9);
    let asked = pair.alder.command(&["run", "web"]).spawn().unwrap();
    let moving = || {
        let moved = |t: serde_json::Value| t["done_bytes"].as_u64().unwrap() > 0;
        pair.birch.transfer().is_some_and(moved)
    };
    assert!(wait(moving), "nothing moves: {}", pair.alder.log());
    (running(pair), asked)
}

fn running(pair: &Pair) -> u64 {
    let transfer = pair.alder.transfer().expect("a running transfer");
    transfer["id"].as_u64().unwrap()
}

#[test]
fn the_limit_is_kept_and_a_reload_changes_it() {
    if !fixture::ready("the_limit_is_kept_and_a_reload_changes_it") {
        return;
    }
    let pair = Pair::new(&["files"], "", MANUAL);
    limit(&pair, "bandwidth = \"8Mbit/s\"");
    pair.alder.run(&["reload"]).ok();
    let (id, mut asked) = begin(&pair, 64);
    check(&pair, 1e6);
    limit(&pair, "bandwidth = [\"32Mbit/s\"]");
    pair.alder.run(&["reload"]).ok();
    assert_eq!(pair.alder.status()["peers"][0]["limit"], 4_000_000);
    check(&pair, 4e6);
    assert_eq!(running(&pair), id, "the transfer was begun anew");
    limit(&pair, "bandwidth = \"none\"");
    pair.alder.run(&["reload"]).ok();
    assert!(asked.wait().unwrap().success());
    same_on_both(&pair, "1.1", &["files"]);
}

#[test]
fn cancel_stops_what_goes_on_beside_a_cycle() {
    if !fixture::ready("cancel_stops_what_goes_on_beside_a_cycle") {
        return;
    }
    let mut pair = Pair::new(&["files"], "", MANUAL);
    limit(&pair, "bandwidth = \"8Mbit/s\"");
    pair.alder.run(&["reload"]).ok();
    pair.birch.stop();
    fill(&pair.alder.live("files"), 32, MIB as usize, 9);
    assert_eq!(pair.alder.run(&["run", "web"]).code, 13);
    pair.birch.start();
    // It catches up by itself; a cycle that is asked for now has to wait for that.
    pair.alder
        .wait_for("it catches up", || pair.alder.transfer().is_some());
    let mut asked = pair.alder.command(&["run", "web"]).spawn().unwrap();
    let waits = || pair.alder.role()["phase"] == "transfer";
    pair.alder.wait_for("the cycle waits", waits);
    let said = pair.alder.run(&["cancel"]);
    assert!(said.out.contains("stopped"), "{}", said.out);
    assert_eq!(asked.wait().unwrap().code(), Some(130));
    pair.alder
        .wait_for("it stops", || pair.alder.transfer().is_none());
    assert!(pair.birch.points().is_empty());
    limit(&pair, "bandwidth = \"none\"");
    pair.alder.run(&["reload"]).ok();
    pair.alder.run(&["run", "web"]).ok();
    same_on_both(&pair, "1.1", &["files"]);
    let said = pair.alder.run(&["cancel"]);
    assert!(said.out.contains("nothing was running"), "{}", said.out);
}

#[test]
fn the_calendar_changes_it_under_a_running_transfer() {
    if !clock::ready("the_calendar_changes_it_under_a_running_transfer") {
        return;
    }
    let mut pair = Pair::new(&["files"], "", MANUAL);
    limit(&pair, "bandwidth = [\"08:00-20:00 8Mbit/s\", \"32Mbit/s\"]");
    pair.alder.stop();
    let clock = Clock::new(&pair.alder.dir, "CET-1CEST,M3.5.0,M10.5.0/3");
    // 20 s before eight in the evening, in central Europe.
    clock.set("2026-11-20T18:59:40Z");
    let eight = Instant::now() + Duration::from_secs(20);
    pair.alder.start_with(&clock.env());
    pair.wait_linked();
    let (id, mut asked) = begin(&pair, 72);
    assert!(eight - Instant::now() > MEASURED, "it took too long");
    check(&pair, 1e6);
    let peer = pair.alder.status()["peers"][0].clone();
    assert_eq!(peer["limit"], 1_000_000, "{peer}");
    assert_eq!(peer["limit_until"], "2026-11-20T19:00:00Z", "{peer}");
    assert!(Instant::now() < eight, "it took too long");
    pair.alder.wait_for("the evening has come", || {
        pair.alder.status()["peers"][0]["limit"] == 4_000_000
    });
    // The fake clock is set to the second, not finer.
    let late = Instant::now().saturating_duration_since(eight);
    assert!(late < Duration::from_secs(3), "{late:?} late");
    check(&pair, 4e6);
    assert_eq!(running(&pair), id, "the transfer was begun anew");
    let peer = pair.alder.status()["peers"][0].clone();
    assert_eq!(peer["limit_until"], "2026-11-21T07:00:00Z", "{peer}");
    assert!(asked.wait().unwrap().success());
    same_on_both(&pair, "1.1", &["files"]);
}
