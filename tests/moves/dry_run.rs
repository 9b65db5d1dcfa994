//! A dry run changes nothing, on no node: not a row, not a point, not a subvolume; and what it predicts is what then happens.

use std::collections::BTreeMap;
use std::fs;

use serde_json::Value;

use crate::MANUAL;
use crate::stage::{FILES, Stage};
use crate::support::cluster::TestNode;
use crate::support::fixture::{self, run};

/// Tables that go on by themselves: what happened, and the watch over the clock.
const BY_THEMSELVES: [&str; 2] = ["event", "clock"];

type Facts = BTreeMap<String, String>;

/// Every row of the state database, every subvolume with its generation, every name below `.standin`.
fn facts(node: &TestNode) -> Facts {
    let mut facts = rows(node);
    let listed = run(
        "btrfs",
        [
            "subvolume",
            "list",
            "-u",
            "-q",
            node.disk.path().to_str().unwrap(),
        ],
    );
    for line in String::from_utf8(listed).unwrap().lines() {
        let mut words: Vec<&str> = line.split_whitespace().collect();
        // The service writes to what is live: only that it is the same.
        if line.ends_with(&format!("srv/{FILES}")) {
            words.drain(2..4);
        }
        facts.insert(
            format!("subvolume {}", words[words.len() - 1]),
            words.join(" "),
        );
    }
    names(&node.disk.path().join(".standin"), 4, &mut facts);
    facts
}

fn rows(node: &TestNode) -> Facts {
    let database = rusqlite::Connection::open(node.dir.join("state/state.sqlite")).unwrap();
    let query = "SELECT name FROM sqlite_master WHERE type = 'table'";
    let mut tables = database.prepare(query).unwrap();
    let tables = tables.query_map([], |row| row.get::<_, String>(0)).unwrap();
    let mut facts = Facts::new();
    for table in tables.map(Result::unwrap) {
        if BY_THEMSELVES.contains(&table.as_str()) {
            continue;
        }
        let mut all = database.prepare(&format!("SELECT * FROM {table}")).unwrap();
        let columns = all.column_count();
        let mut rows = all.query([]).unwrap();
        let mut number = 0;
        while let Some(row) = rows.next().unwrap() {
            number += 1;
            let values: Vec<String> = (0..columns)
                .map(|at| format!("{:?}", row.get_ref(at).unwrap()))
                .collect();
            facts.insert(format!("{table} {number}"), values.join(" | "));
        }
    }
    facts
}

fn names(dir: &std::path::Path, depth: usize, facts: &mut Facts) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        facts.insert(path.display().to_string(), String::new());
        if depth > 1 && path.is_dir() {
            names(&path, depth - 1, facts);
        }
    }
}

/// Of all nodes, when nothing moves any more.
fn still(stage: &Stage) -> Vec<Facts> {
    let all = || -> Vec<Facts> { stage.nodes.iter().map(facts).collect() };
    let mut last = all();
    let mut same = 0;
    stage.nodes[0].wait_for("nothing changes any more", || {
        let now = all();
        same = if now == last { same + 1 } else { 0 };
        last = now;
        same >= 4
    });
    last
}

fn kinds(report: &Value) -> Vec<String> {
    let steps = report["steps"].as_array().unwrap();
    let kinds = steps.iter().map(|step| step["what"].as_str().unwrap());
    kinds.map(str::to_owned).collect()
}

/// Runs the verb dry, which changes nothing; gives what it predicts.
#[track_caller]
fn dry(stage: &Stage, node: &str, verb: &[&str]) -> Vec<String> {
    let before = still(stage);
    let asked = [verb, &["--dry-run", "--json"]].concat();
    let report = stage.node(node).run(&asked).ok().json();
    assert_eq!(report["dry_run"], Value::Bool(true));
    let after = still(stage);
    for ((was, is), node) in before.iter().zip(&after).zip(&stage.nodes) {
        let gone: Vec<_> = was.iter().filter(|fact| !is.contains_key(fact.0)).collect();
        let new: Vec<_> = is
            .iter()
            .filter(|fact| was.get(fact.0) != Some(fact.1))
            .collect();
        assert!(
            gone.is_empty() && new.is_empty(),
            "{verb:?} changed something on {}: {gone:?} is gone, {new:?} is new",
            node.name
        );
    }
    kinds(&report)
}

/// Runs it for good. What it then reports has to be among what was predicted, in that order; what is given in `logged` (kind,
/// words) has to be in the node's log in that order.
#[track_caller]
fn happens(stage: &Stage, node: &str, verb: &[&str], plan: &[String], logged: &[(&str, &str)]) {
    let from = stage.node(node).log().len();
    let asked = [verb, &["--json"]].concat();
    let report = stage.node(node).run(&asked).ok().json();
    let mut planned = plan.iter();
    for done in kinds(&report).iter().filter(|kind| *kind != "next") {
        assert!(
            planned.any(|kind| kind == done),
            "{done} of {report} is not in {plan:?}, in that place"
        );
    }
    let log = stage.node(node).log()[from..].to_owned();
    let (mut at, mut planned) = (0, plan.iter());
    for (kind, words) in logged {
        assert!(
            planned.any(|planned| planned == kind),
            "{kind} is not in {plan:?}, in that place"
        );
        let found = log[at..].find(words);
        at += found
            .unwrap_or_else(|| panic!("{words:?} does not come after the step before:\n{log}"));
    }
}

#[track_caller]
fn predicted(stage: &Stage, node: &str, verb: &[&str], logged: &[(&str, &str)]) -> Vec<String> {
    let plan = dry(stage, node, verb);
    happens(stage, node, verb, &plan, logged);
    plan
}

const HANDED_OVER: [(&str, &str); 5] = [
    ("copy", "copied ahead"),
    ("stop", "service writer is stopped"),
    ("prove", "nothing can write"),
    ("snapshot", "the last point"),
    ("release", "-> handed off"),
];

const PROMOTED: [(&str, &str); 3] = [
    ("term", "holds the term"),
    ("live", "is live at"),
    ("start", "service writer runs"),
];

#[test]
fn what_is_predicted_happens_and_nothing_before() {
    if !fixture::ready("what_is_predicted_happens_and_nothing_before") {
        return;
    }
    let mut stage = Stage::new(&["alder", "birch", "cedar"], &[], MANUAL);
    stage.wait_written("alder", 5);
    stage.node("alder").run(&["run", "--attach", "web"]).ok();
    let handover = ["handover", "web", "--to", "birch"];
    let plan = predicted(&stage, "alder", &handover, &HANDED_OVER);
    assert_eq!(plan[plan.len() - 1], "time", "{plan:?}");
    stage.wait_written("birch", 5);
    predicted(&stage, "birch", &["failback", "web"], &HANDED_OVER);
    stage.wait_written("alder", 5);
    stage.node("alder").run(&["run", "--attach", "web"]).ok();
    stage.wait_written("alder", 5);
    // Two are promoted, one after the other, and never hear of each other.
    stage.die("alder");
    let last = stage.node("birch").points().pop().unwrap();
    let promote = |others: [&'static str; 2]| {
        let stopped = others.map(|name| ["--assert-stopped", name]).concat();
        let loss = ["--accept-loss-after", last.as_str()];
        [&["promote", "web"][..], &stopped, &loss].concat()
    };
    stage.die("cedar");
    predicted(&stage, "birch", &promote(["alder", "cedar"]), &PROMOTED);
    stage.wait_written("birch", 5);
    stage.die("birch");
    stage.node_mut("cedar").start();
    stage.node("cedar").run(&promote(["alder", "birch"])).ok();
    stage.wait_written("cedar", 5);
    stage.node_mut("birch").start();
    stage.wait_state("birch", "conflict (down)");
    stage.wait_state("cedar", "conflict (up)");
    let resolve = ["resolve", "web", "--keep", "cedar"];
    let plans = ["birch", "cedar"].map(|name| (name, dry(&stage, name, &resolve)));
    for (name, plan) in plans {
        happens(&stage, name, &resolve, &plan, &[]);
    }
    stage.wait_state("birch", "standby");
    // What birch wrote is a fork as soon as cedar has told it where the line went.
    let birch = stage.node("birch");
    let mut fork = String::new();
    birch.wait_for("there is a fork", || {
        let list = birch.run(&["fork", "list", "web", "--json"]).ok().json();
        let name = list["roles"][0]["forks"][0]["name"].as_str();
        fork = name.unwrap_or_default().to_owned();
        !fork.is_empty()
    });
    predicted(
        &stage,
        "birch",
        &["fork", "discard", "web", &fork, "--yes"],
        &[("discard", "discard fork")],
    );
    // Alone after a restart: only a person knows better.
    stage.die("birch");
    stage.die("cedar");
    stage.node_mut("cedar").start();
    stage.node("cedar").wait_for("it asks", || {
        let state = stage.node("cedar").role()["state"].clone();
        state.as_str().unwrap().starts_with("waking")
    });
    predicted(&stage, "cedar", &["resume", "web"], &[]);
    stage.wait_written("cedar", 5);
}
