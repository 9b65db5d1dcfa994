//! `on-change` between two real daemons: how soon a write is committed on the peer, how many points a steady writer makes, and
//! what a node does while nothing is written.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod support;

use std::fs;
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use support::cluster::{Pair, TestNode, wait};
use support::fixture;

const ON_CHANGE: &str = "every = \"on-change\"\nkeep = { last = 5 }";

/// From the end of a write to the point on the peer. The median may take no longer; on a machine that does other things
/// meanwhile single ones do.
const REACTION_MAX: Duration = Duration::from_secs(1);

/// What two programs may say of the time it takes a debug build on a machine that is shared.
const SLACK: u32 = 2;

fn stored(node: &TestNode) -> usize {
    let highest = |entry: fs::DirEntry| {
        let name = entry.file_name().into_string().ok()?;
        name.rsplit('.').next()?.parse().ok()
    };
    let entries = fs::read_dir(node.points_dir()).into_iter().flatten();
    entries.flatten().filter_map(highest).max().unwrap_or(0)
}

/// Waits for a point above `before`, or until nothing new has come for some time.
fn next_point(node: &TestNode, before: usize) -> Duration {
    let begun = Instant::now();
    while stored(node) <= before {
        assert!(begun.elapsed() < Duration::from_secs(60), "{}", node.log());
        std::thread::park_timeout(Duration::from_millis(2));
    }
    begun.elapsed()
}

fn settled(pair: &Pair) {
    let mut seen = (0, Instant::now());
    let quiet = || {
        let now = stored(&pair.birch);
        if now != seen.0 || now == 0 || stored(&pair.alder) != now {
            seen = (now, Instant::now());
        }
        seen.1.elapsed() > Duration::from_secs(2)
    };
    assert!(wait(quiet), "no rest: {}", pair.alder.log());
}

fn check_reaction(pair: &Pair, what: &str, mut write: impl FnMut(usize)) {
    let mut took = Vec::new();
    for turn in 0..5 {
        settled(pair);
        let before = stored(&pair.birch);
        write(turn);
        took.push(next_point(&pair.birch, before));
    }
    took.sort();
    println!("{what}: {took:?}");
    assert!(took[2] < REACTION_MAX * SLACK, "{what}: {took:?}");
}

#[test]
fn reacts_within_a_second() {
    if !fixture::ready("reacts_within_a_second") {
        return;
    }
    let pair = Pair::new(&["files"], "", ON_CHANGE);
    let live = pair.alder.live("files");
    let mut log = fs::File::options()
        .create(true)
        .append(true)
        .open(live.join("log"))
        .unwrap();
    check_reaction(&pair, "append to a file open for long", |turn| {
        writeln!(log, "line {turn}").unwrap()
    });
    check_reaction(&pair, "new file", |turn| {
        fs::write(live.join(format!("new{turn}")), "data").unwrap()
    });
    check_reaction(&pair, "removal", |turn| {
        fs::remove_file(live.join(format!("new{turn}"))).unwrap()
    });
}

#[test]
fn a_steady_writer_makes_no_storm() {
    if !fixture::ready("a_steady_writer_makes_no_storm") {
        return;
    }
    const APART: u32 = 3;
    let every = format!("every = \"on-change {APART}s\"\nkeep = {{ last = 5 }}");
    let pair = Pair::new(&["files"], "", &every);
    settled(&pair);
    let mut log = fs::File::create(pair.alder.live("files").join("log")).unwrap();
    let (before, begun) = (stored(&pair.alder), Instant::now());
    let mut lines = 0;
    while begun.elapsed() < Duration::from_secs(10) {
        writeln!(log, "line {lines}").unwrap();
        lines += 1;
        std::thread::park_timeout(Duration::from_millis(20));
    }
    let made = stored(&pair.alder) - before;
    println!("{made} points of {lines} writes in 10 s, {APART} s apart");
    assert!((2..=5).contains(&made), "{made} points");
    let newest = |node: &TestNode| {
        let entries = fs::read_dir(node.points_dir()).unwrap().flatten();
        entries.max_by_key(|entry| entry.file_name()).unwrap()
    };
    pair.birch.wait_for("the last line has arrived", || {
        let log = newest(&pair.birch).path().join("files/log");
        let text = fs::read_to_string(log).unwrap_or_default();
        text.lines().count() == lines
    });
}

/// Writes to the device below a filesystem since boot: requests, sectors (Documentation/block/stat.rst).
fn device_writes(mount: &Path) -> (u64, u64) {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let of_mount = |line: &&str| line.split(' ').nth(4) == mount.to_str();
    let line = table.lines().find(of_mount).unwrap();
    let device = line.split(" - ").nth(1).unwrap().split(' ').nth(1).unwrap();
    let device = device.trim_start_matches("/dev/");
    let stat = fs::read_to_string(format!("/sys/block/{device}/stat")).unwrap();
    let fields: Vec<u64> = stat
        .split_whitespace()
        .map(|word| word.parse().unwrap())
        .collect();
    (fields[4], fields[6])
}

/// CPU time of the daemon in ticks of 10 ms, those of ended threads too, and bytes it had written to any disk (proc(5)).
fn used(node: &TestNode) -> (u64, u64) {
    let stat = fs::read_to_string(format!("/proc/{}/stat", node.pid())).unwrap();
    let fields: Vec<&str> = stat.rsplit(") ").next().unwrap().split(' ').collect();
    let ticks = |at: usize| fields[at].parse::<u64>().unwrap();
    let busy = ticks(11) + ticks(12);
    let io = fs::read_to_string(format!("/proc/{}/io", node.pid())).unwrap();
    let written = io
        .lines()
        .find_map(|line| line.strip_prefix("write_bytes: "));
    (busy, written.unwrap().parse().unwrap())
}

#[test]
fn idle_writes_nothing() {
    if !fixture::ready("idle_writes_nothing") {
        return;
    }
    let seconds = std::env::var("STANDIN_IDLE_S")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(12);
    let pair = Pair::new(&["files"], "", ON_CHANGE);
    fs::write(pair.alder.live("files").join("a"), "data").unwrap();
    settled(&pair);
    let facts = |node: &TestNode| {
        let (busy, written) = used(node);
        (device_writes(node.disk.path()), written, busy)
    };
    // What the kernel still has to write of the last commit, it writes now.
    rustix::fs::syncfs(fs::File::open(pair.alder.disk.path()).unwrap()).unwrap();
    rustix::fs::syncfs(fs::File::open(pair.birch.disk.path()).unwrap()).unwrap();
    let before = [facts(&pair.alder), facts(&pair.birch)];
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(seconds) {
        std::thread::park_timeout(Duration::from_millis(500));
    }
    for (node, before) in [&pair.alder, &pair.birch].into_iter().zip(before) {
        let after = facts(node);
        let cpu = after.2.saturating_sub(before.2) as f64 / seconds as f64;
        println!(
            "{} idle for {seconds} s: {} writes to the disk of the datasets, {} bytes written by the daemon, {cpu:.2} % CPU",
            node.name,
            after.0.0 - before.0.0,
            after.1 - before.1
        );
        assert_eq!(after.0, before.0, "{} wrote to its disk", node.name);
        assert_eq!(after.1, before.1, "{} wrote somewhere", node.name);
    }
}
