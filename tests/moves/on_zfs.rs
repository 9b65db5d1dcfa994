//! A role on ZFS changes sides again and again: handed over, or promoted after a death with writes that nobody else had.
//! What came of it is told by `zfs list`, not by the program: the same guids on both sides, and no snapshot sent whole twice.

use std::collections::BTreeSet;

use crate::MANUAL;
use crate::stage::Stage;
use crate::support::cluster::{MIB, TestNode, fill};
use crate::support::{fixture, pool};

/// How often; `STANDIN_TEST_ROUNDS` says otherwise.
const ROUNDS: usize = 10;

/// Guids of all snapshots of a node's, by their short names.
fn guids(node: &TestNode) -> BTreeSet<(String, String)> {
    let plot = node.plot.as_ref().unwrap();
    let words = ["list", "-Hp", "-r", "-t", "snapshot", "-o", "name,guid"];
    let said = fixture::run("zfs", words.into_iter().chain([plot.name.as_str()]));
    let said = String::from_utf8(said).unwrap();
    let row = |line: &str| {
        let (name, guid) = line.split_once('\t').unwrap();
        let short = name.split_once('@').unwrap().1;
        (short.to_owned(), guid.to_owned())
    };
    said.lines().map(row).collect()
}

/// The newest point is the same snapshot on both sides.
#[track_caller]
fn same_newest(stage: &Stage) {
    let [one, other] = [&stage.nodes[0], &stage.nodes[1]];
    let newest = |node: &TestNode| node.points().pop().unwrap();
    let short = newest(one);
    assert_eq!(short, newest(other));
    let of = |node| {
        let all = guids(node).into_iter();
        all.filter(|(name, _)| name.ends_with(&format!("Z.{short}")))
            .collect::<Vec<_>>()
    };
    assert_eq!(of(one).len(), 1, "{short}");
    assert_eq!(of(one), of(other));
}

/// Streams of one kind of filesystem mean nothing to the other: both sides say so.
#[test]
fn a_role_of_two_kinds_is_refused() {
    if !pool::is_given() {
        println!("SKIPPED a_role_of_two_kinds_is_refused: no pools are given");
        return;
    }
    let (alder, mut birch) = (
        TestNode::new("alder", 256 * MIB),
        TestNode::new("birch", 256 * MIB),
    );
    birch.plot = None;
    let stage = Stage::of(vec![alder, birch], &[], MANUAL, false);
    let (alder, birch) = (stage.node("alder"), stage.node("birch"));
    let words = "role web is on btrfs on birch and on ZFS on alder";
    let said = alder.run(&["run", "--attach", "web"]);
    assert_ne!(said.code, 0);
    assert!(said.out.contains(words), "{said:?}");
    assert!(said.out.contains("one kind of filesystem"), "{said:?}");
    let said = alder.run(&["check"]);
    assert!(said.out.contains(words), "{said:?}");
    assert!(birch.log().contains(words), "{}", birch.log());
}

#[test]
fn sides_change_without_a_full_send() {
    if !pool::is_given() {
        println!("SKIPPED sides_change_without_a_full_send: no pools are given");
        return;
    }
    let rounds = std::env::var("STANDIN_TEST_ROUNDS").map(|rounds| rounds.parse().unwrap());
    let mut stage = Stage::new(&["alder", "birch"], &[], MANUAL);
    fill(&stage.node("alder").live("files"), 20, 50_000, 1);
    stage.wait_written("alder", 3);
    stage.node("alder").run(&["run", "--attach", "web"]).ok();
    let (mut from, mut to) = ("alder", "birch");
    let mut forks = 0;
    for round in 0..rounds.unwrap_or(ROUNDS) {
        stage.wait_written(from, 2);
        if round % 3 == 1 {
            stage.die(from);
            let last = stage.node(to).points().pop().unwrap();
            let promote = ["promote", "web", "--assert-stopped", from];
            let promote = [&promote[..], &["--accept-loss-after", &last]].concat();
            stage.node(to).run(&promote).ok();
            stage.node_mut(from).start();
            stage.wait_state(from, "standby");
            stage.wait_linked();
            forks += 1;
        } else {
            // 3: the one that lets go waits two minutes for the other, which may take longer where it is emulated.
            let said = stage.node(from).run(&["handover", "web", "--to", to]);
            assert!(matches!(said.code, 0 | 3), "{said:?}");
            stage.wait_state(to, "active");
            stage.wait_state(from, "standby");
        }
        assert_eq!(stage.active(), [to], "round {round}");
        stage.wait_written(to, 2);
        stage.node(to).run(&["run", "--attach", "web"]).ok();
        same_newest(&stage);
        println!("round {round}: {to} plays the role");
        std::mem::swap(&mut from, &mut to);
    }
    let kept: usize = stage
        .nodes
        .iter()
        .map(|node| {
            let said = node.run(&["fork", "list", "web", "--json"]).ok().json();
            said["roles"][0]["forks"].as_array().unwrap().len()
        })
        .sum();
    assert_eq!(kept, forks, "no fork is lost");
    stage.records(from).whole();
    for node in &stage.nodes {
        let whole = node.log().matches(" whole to ").count();
        let first = usize::from(node.name == "alder");
        assert_eq!(whole, first, "{}:\n{}", node.name, node.log());
    }
}
