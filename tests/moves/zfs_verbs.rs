//! What people do with points, on ZFS: find, compare, look through, bring back, verify, rehearse; and what they do to them behind
//! the program's back.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::MANUAL;
use crate::stage::{FILES, Stage};
use crate::support::cluster::{TestNode, fill};
use crate::support::{fixture, pool};

/// Runs a verb and looks for pieces of what it says.
#[track_caller]
fn check(node: &TestNode, words: &[&str], code: i32, expected: &[&str]) -> String {
    let said = node.run(words);
    assert_eq!(said.code, code, "{words:?}: {said:?}");
    let text = format!("{}{}", said.out, said.err);
    for piece in expected {
        assert!(
            text.contains(piece),
            "{words:?}: {piece:?} is not in {text}"
        );
    }
    text
}

/// Takes a point and brings it to the peers; its name.
#[track_caller]
fn run(node: &TestNode) -> String {
    node.run(&["run", "--attach", "web"]).ok();
    node.points().pop().unwrap()
}

fn snapshots(node: &TestNode) -> String {
    let plot = &node.plot.as_ref().unwrap().name;
    let words = ["list", "-H", "-r", "-t", "snapshot", "-o", "name", plot];
    String::from_utf8(fixture::run("zfs", words)).unwrap()
}

fn given(name: &str) -> bool {
    if !pool::is_given() {
        println!("SKIPPED {name}: no pools are given");
    }
    pool::is_given()
}

#[test]
fn points_are_used_by_people() {
    if !given("points_are_used_by_people") {
        return;
    }
    let stage = Stage::new(&["alder", "birch"], &[], MANUAL);
    let (alder, birch) = (stage.node("alder"), stage.node("birch"));
    let live = alder.live(FILES);
    let text = |path: &Path| path.to_str().unwrap().to_owned();
    let conf = text(&live.join("conf"));
    fs::write(&conf, "one\ntwo\n").unwrap();
    fs::create_dir(live.join("old")).unwrap();
    fs::write(live.join("old/page"), "page\n").unwrap();
    fs::write(live.join("draft"), "draft\n").unwrap();
    fill(&live, 5, 20_000, 1);
    let one = run(alder);
    fs::write(&conf, "one\nthree\n").unwrap();
    fs::remove_dir_all(live.join("old")).unwrap();
    fs::rename(live.join("draft"), live.join("index")).unwrap();
    let two = run(alder);
    println!("points {one} and {two}");
    // Compare: two points, on either node; with what is live now.
    for node in [alder, birch] {
        let pieces = ["old/", "draft -> index", "conf"];
        check(node, &["diff", "web", &one, &two], 0, &pieces);
    }
    check(
        alder,
        &["diff", &one, &two, &conf, "--text"],
        0,
        &["-two", "+three"],
    );
    fs::write(&conf, "one\nfour\n").unwrap();
    check(
        alder,
        &["diff", &two, "live", &conf, "--text"],
        0,
        &["-three", "+four"],
    );
    assert!(
        !snapshots(alder).contains("standin-look-"),
        "copies of live data go"
    );
    // Find, show, bring back.
    check(alder, &["find", &conf], 0, &["--version 2 brings it back"]);
    check(alder, &["cat", &conf, "--point", &one], 0, &["one\ntwo\n"]);
    let page = text(&live.join("old/page"));
    check(alder, &["find", &page], 0, &["removed"]);
    check(alder, &["restore", &page, "--yes"], 0, &[]);
    assert_eq!(fs::read_to_string(&page).unwrap(), "page\n");
    let target = alder.dir.join("copy");
    let to = text(&target);
    check(
        alder,
        &["restore", "web", "--point", &one, "--to", &to, "--yes"],
        0,
        &[],
    );
    assert_eq!(
        fs::read_to_string(target.join(FILES).join("conf")).unwrap(),
        "one\ntwo\n"
    );
    // Look through; what is shown holds nothing up.
    for node in [alder, birch] {
        let dir = node.dir.join("points");
        fs::create_dir(&dir).unwrap();
        let at = text(&dir);
        check(node, &["mount", &at], 0, &[]);
        let web = dir.join("web");
        let of = |short: &str| {
            let named = fs::read_dir(&web).unwrap().flatten();
            let mut named = named.map(|entry| entry.file_name().into_string().unwrap());
            let named = named.find(|name| name.ends_with(&format!("Z.{short}")));
            web.join(named.unwrap()).join(FILES).join("conf")
        };
        assert_eq!(fs::read_to_string(of(&one)).unwrap(), "one\ntwo\n");
        assert_eq!(fs::read_to_string(of(&two)).unwrap(), "one\nthree\n");
        assert!(fs::write(of(&two), "x").is_err());
        check(node, &["unmount", &at], 0, &[]);
        assert_eq!(fs::read_dir(&dir).unwrap().count(), 0);
    }
    // Rehearse, on the node that stands in.
    birch.edit(
        "keep = ",
        "drill.checks = [[\"sh\", \"-c\", \"grep -q three $STANDIN_DRILL/files/conf\"]]\nkeep = ",
    );
    birch.run(&["reload"]).ok();
    check(birch, &["drill", "web"], 0, &[]);
    let list = fixture::run("zfs", ["list", "-H", "-o", "name"]);
    let list = String::from_utf8(list).unwrap();
    assert!(!list.contains("/drill-"), "{list}");
    check(birch, &["check"], 0, &["OpenZFS"]);
    nothing_is_kept_busy(&[alder, birch], &one);
}

/// What was looked at is a person's to destroy while the daemon runs, where nothing goes on from it.
fn nothing_is_kept_busy(nodes: &[&TestNode], point: &str) {
    for node in nodes {
        let conf = node.live(FILES).join("conf");
        check(node, &["find", conf.to_str().unwrap()], 0, &[]);
        check(node, &["verify", "web", "--point", point, "--full"], 0, &[]);
    }
    for node in nodes {
        let all = snapshots(node);
        let ours = |name: &&str| name.ends_with(&format!("Z.{point}"));
        let name = all.lines().find(ours).unwrap();
        let points = node.run(&["points", "web", "--json"]).ok().json();
        let points = points["roles"][0]["points"].as_array().unwrap();
        let told = points.iter().find(|told| told["short"] == point).unwrap();
        assert_eq!(told["datasets"][FILES], name);
        node.wait_for("a person destroys it", || {
            let said = Command::new("zfs").args(["destroy", name]).output();
            let said = said.unwrap();
            println!("{}", String::from_utf8_lossy(&said.stderr));
            said.status.success()
        });
        let points = node.run(&["points", "web", "--json"]).ok().json();
        let damaged = points["roles"][0]["damaged"].as_array().unwrap();
        assert_eq!(damaged[0]["short"], point, "{points}");
    }
}

/// Verify; what is equal is not fetched again, whoever asks for it. What differs is, as tests/contract tells.
#[test]
fn copies_are_verified() {
    if !given("copies_are_verified") {
        return;
    }
    let stage = Stage::new(&["alder", "birch"], &[], MANUAL);
    let (alder, birch) = (stage.node("alder"), stage.node("birch"));
    fill(&alder.live(FILES), 20, 50_000, 1);
    run(alder);
    let two = run(alder);
    check(alder, &["verify", "web", "--full"], 0, &[]);
    let words = ["verify", "web", "--point", &two, "--peer", "alder"];
    check(
        birch,
        &[&words[..], &["--repair", "--yes"]].concat(),
        0,
        &[],
    );
    let points = birch.run(&["points", "web", "--json"]).ok().json();
    let aside = points["roles"][0]["aside"].as_array().unwrap();
    assert!(aside.is_empty(), "{points}");
}

/// A base is held; where a person insists, a bookmark of it serves.
#[test]
fn a_base_that_a_person_destroys() {
    if !given("a_base_that_a_person_destroys") {
        return;
    }
    let mut stage = Stage::new(&["alder", "birch"], &[], MANUAL);
    fill(&stage.node("alder").live(FILES), 20, 50_000, 1);
    let base = run(stage.node("alder"));
    let held = |node: &TestNode| {
        let all = snapshots(node);
        let ours = all
            .lines()
            .find(|name| name.ends_with(&format!("Z.{base}")));
        let name = ours.unwrap().to_owned();
        let said = fixture::run("zfs", ["holds", "-H", &name]);
        (name, String::from_utf8(said).unwrap())
    };
    for (node, peer) in [("alder", "standin:birch"), ("birch", "standin:alder")] {
        let node = stage.node(node);
        node.wait_for("its base is held", || held(node).1.contains(peer));
        let destroyed = Command::new("zfs")
            .args(["destroy", &held(node).0])
            .status();
        assert!(!destroyed.unwrap().success());
    }
    // While nobody has it open, and nobody holds it again.
    stage.die("alder");
    let (name, _) = held(stage.node("alder"));
    fixture::run("zfs", ["release", "standin:birch", &name]);
    fixture::run("zfs", ["destroy", &name]);
    stage.node_mut("alder").start();
    stage.wait_state("alder", "active");
    stage.wait_linked();
    let alder = stage.node("alder");
    let next = run(alder);
    assert_eq!(stage.node("birch").points().pop().unwrap(), next);
    assert!(!held(stage.node("birch")).0.is_empty());
    assert_eq!(
        alder.log().matches(" whole to ").count(),
        1,
        "{}",
        alder.log()
    );
    assert!(
        alder.log().contains(&format!("on top of {base}")),
        "{}",
        alder.log()
    );
}

/// Handed over and called back by `failback`.
#[test]
fn failback_on_zfs() {
    if !given("failback_on_zfs") {
        return;
    }
    let mut stage = Stage::new(&["alder", "birch"], &[], MANUAL);
    fill(&stage.node("alder").live(FILES), 20, 50_000, 1);
    stage.wait_written("alder", 3);
    run(stage.node("alder"));
    stage.die("alder");
    let last = stage.node("birch").points().pop().unwrap();
    let promote = [
        "promote",
        "web",
        "--assert-stopped",
        "alder",
        "--accept-loss-after",
        &last,
    ];
    stage.node("birch").run(&promote).ok();
    stage.wait_written("birch", 2);
    stage.node_mut("alder").start();
    stage.wait_state("alder", "standby");
    stage.wait_linked();
    let said = stage.node("birch").run(&["failback", "web"]);
    assert!(matches!(said.code, 0 | 3), "{said:?}");
    stage.wait_state("alder", "active");
    stage.wait_state("birch", "standby");
    stage.wait_written("alder", 2);
    let whole = |name: &str| stage.node(name).log().matches(" whole to ").count();
    assert_eq!((whole("alder"), whole("birch")), (1, 0));
    stage.records("alder").whole();
}
