//! Planned moves: there and back, under load, without a byte lost and without a full transfer.

use std::fs;

use crate::stage::Stage;
use crate::support::cluster::fill;
use crate::support::fixture;
use crate::{BUSY, MANUAL};

/// Time from the last service that stopped to the first that started, in seconds, with a small last transfer: half of the
/// moves must be quicker, however busy the machine.
const MOVED_MOST_S: f64 = 2.0;

#[test]
fn there_and_back_ten_times() {
    if !fixture::ready("there_and_back_ten_times") {
        return;
    }
    let mut stage = Stage::new(&["alder", "birch"], &["db", "mail"], BUSY);
    fill(&stage.node("alder").live("db"), 20, 100_000, 1);
    stage.wait_written("alder", 20);
    stage.node("alder").run(&["run", "--attach", "web"]).ok();
    let mut times = Vec::new();
    for round in 0..5 {
        for (from, to, verb) in [
            (
                "alder",
                "birch",
                vec!["handover", "web", "--to", "birch", "--json"],
            ),
            ("birch", "alder", vec!["failback", "web", "--json"]),
        ] {
            let report = stage.node(from).run(&verb).ok().json();
            assert_eq!(stage.active(), [to], "round {round}");
            let moved = report["moved_s"].as_f64().unwrap();
            println!("{from} -> {to}: {moved:.2} s from stopped to started");
            times.push(moved);
            stage.wait_written(to, 5);
        }
    }
    times.sort_by(f64::total_cmp);
    assert!(times[times.len() / 2] < MOVED_MOST_S, "{times:?}");
    let active = stage.active()[0];
    let records = stage.records(active);
    records.whole();
    assert_eq!(records.forked(), 0, "nothing was to be lost");
    for node in &stage.nodes {
        let log = node.log();
        let whole = log.matches(" whole to ").count();
        let first = usize::from(node.name == "alder");
        assert_eq!(
            whole, first,
            "{} sent a point whole again:\n{log}",
            node.name
        );
    }
}

/// The peer dies in the middle: the role stays, and serves again.
#[test]
fn fails_before_the_release() {
    if !fixture::ready("fails_before_the_release") {
        return;
    }
    let mut stage = Stage::new(&["alder", "birch"], &[], MANUAL);
    stage.wait_written("alder", 5);
    stage.node("alder").run(&["run", "--attach", "web"]).ok();
    // Somebody has a live file open for writing: no proof.
    let held = stage.node("alder").live("files").join("held");
    let file = fs::File::create(&held).unwrap();
    let said = stage
        .node("alder")
        .run(&["handover", "web", "--to", "birch"]);
    assert_eq!(said.code, 15, "{said:?}");
    assert!(said.err.contains("open for writing"), "{said:?}");
    assert!(
        said.err.contains(&std::process::id().to_string()),
        "{said:?}"
    );
    assert_eq!(stage.active(), ["alder"]);
    stage.wait_written("alder", 5);
    drop(file);
    stage.die("birch");
    let said = stage
        .node("alder")
        .run(&["handover", "web", "--to", "birch"]);
    assert_eq!(said.code, 13, "{said:?}");
    stage.wait_written("alder", 5);
    assert_eq!(stage.active(), ["alder"]);
    // A dry run changes nothing and predicts what then happens.
    stage.node_mut("birch").start();
    stage.wait_linked();
    let before = stage.node("alder").points();
    let said = stage
        .node("alder")
        .run(&["handover", "web", "--to", "birch", "--dry-run"])
        .ok();
    assert!(said.out.contains("nothing was changed"), "{said:?}");
    assert_eq!(stage.node("alder").points(), before);
    assert_eq!(stage.active(), ["alder"]);
    stage
        .node("alder")
        .run(&["handover", "web", "--to", "birch"])
        .ok();
    assert_eq!(stage.active(), ["birch"]);
}

#[test]
fn a_third_node_follows_without_a_full_transfer() {
    if !fixture::ready("a_third_node_follows_without_a_full_transfer") {
        return;
    }
    let mut stage = Stage::new(&["alder", "birch", "cedar"], &[], BUSY);
    stage.wait_written("alder", 20);
    stage.node("alder").run(&["run", "--attach", "web"]).ok();
    stage
        .node("alder")
        .run(&["handover", "web", "--to", "birch"])
        .ok();
    stage.wait_written("birch", 20);
    stage.node("birch").run(&["run", "--attach", "web"]).ok();
    // The one that died knows nothing of the next promotion; the third hears of it.
    stage.die("birch");
    let last = stage.node("cedar").points().pop().unwrap();
    let promote = [
        "promote",
        "web",
        "--assert-stopped",
        "birch",
        "--accept-loss-after",
        &last,
    ];
    stage.node("cedar").run(&promote).ok();
    stage.wait_written("cedar", 5);
    stage.node("cedar").run(&["run", "--attach", "web"]);
    stage.node_mut("birch").start();
    stage.wait_state("birch", "standby");
    stage.wait_linked();
    stage.node("cedar").run(&["run", "--attach", "web"]).ok();
    stage.records("cedar").whole();
    for (name, whole) in [("alder", 2), ("birch", 0), ("cedar", 0)] {
        let log = stage.node(name).log();
        assert_eq!(log.matches(" whole to ").count(), whole, "{name}:\n{log}");
    }
}
