//! The bracket around the snapshots, with commands as dumps: their order, their limits, what a failure means for the point, and
//! the way back. What servers do in it is in the tests of each kind.

#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::print_stderr)]

mod support;

use std::fs;

use serde_json::Value;
use support::cluster::{MANUAL, Pair, TestNode};
use support::fixture;

/// A command that writes a word into the node's diary, and then does more.
fn shell(node: &TestNode, word: &str, more: &str) -> String {
    let diary = node.dir.join("diary");
    format!(
        "[\"sh\", \"-c\", '''echo {word} >> {}; {more}''']",
        diary.display()
    )
}

/// Gives the role a dump; `keys` are further lines of it.
fn add(node: &TestNode, name: &str, keys: &str) {
    let mut text = fs::read_to_string(node.config_path()).unwrap();
    text += &format!("[[role.web.dump]]\nname = \"{name}\"\nkind = \"command\"\n{keys}\n");
    fs::write(node.config_path(), text).unwrap();
    node.run(&["reload"]).ok();
}

/// A dump that is frozen around the snapshots.
fn frozen(node: &TestNode, name: &str, freeze: &str, keys: &str) {
    let freeze = shell(node, &format!("freeze-{name}"), freeze);
    let thaw = shell(node, &format!("thaw-{name}"), ":");
    add(
        node,
        name,
        &format!("freeze = {freeze}\nthaw = {thaw}\n{keys}"),
    );
}

/// What the commands wrote since the last look.
fn diary(node: &TestNode) -> Vec<String> {
    let text = fs::read_to_string(node.dir.join("diary")).unwrap_or_default();
    let _ = fs::remove_file(node.dir.join("diary"));
    text.lines().map(str::to_owned).collect()
}

/// Dumps of the newest point, as `NAME RESULT`.
fn dumps(node: &TestNode) -> Vec<String> {
    let said = node.run(&["points", "web", "--json"]).ok().json();
    let points = said["roles"][0]["points"].as_array().unwrap().clone();
    let newest = points.last().unwrap();
    let word = |value: &Value| value.as_str().unwrap().to_owned();
    let all = newest["dumps"].as_array().unwrap().iter();
    all.map(|dump| format!("{} {}", word(&dump["name"]), word(&dump["result"])))
        .collect()
}

fn write(pair: &Pair, text: &str) {
    fs::write(pair.alder.live("files").join("x"), text).unwrap();
}

fn pair(name: &str) -> Option<Pair> {
    fixture::ready(name).then(|| Pair::new(&["files"], "", MANUAL))
}

#[test]
fn in_order_and_back() {
    let Some(pair) = pair("in_order_and_back") else {
        return;
    };
    let node = &pair.alder;
    let file = node.live("files").join("dump");
    let more = format!("date +%N > {}", file.display());
    add(
        node,
        "first",
        &format!("dump = {}", shell(node, "dump-first", &more)),
    );
    frozen(node, "second", ":", "");
    frozen(node, "third", ":", "");
    write(&pair, "1");
    node.run(&["run", "web"]).ok();
    let expected = [
        "dump-first",
        "freeze-second",
        "freeze-third",
        "thaw-third",
        "thaw-second",
    ];
    assert_eq!(diary(node), expected);
    assert_eq!(dumps(node), ["first good", "second good", "third good"]);
    // The dump is in its own point, and both nodes tell what became of it.
    pair.wait_stored("1.1");
    for held in [&pair.alder, &pair.birch] {
        let dumped = held.snapshot("1.1", "files").join("dump");
        assert_eq!(fs::read(dumped).unwrap(), fs::read(&file).unwrap());
    }
    assert_eq!(
        dumps(&pair.birch),
        ["first good", "second good", "third good"]
    );
    let said = node.run(&["points", "web"]).ok().out;
    assert!(said.contains("second in 1.1: command, good, "), "{said}");
    assert!(said.contains(", writers held "), "{said}");
    let said = node.run(&["check"]).out;
    assert!(
        said.contains("dump third of role web: its commands are there"),
        "{said}"
    );
    // A dump that writes a file may say something new at any time.
    node.run(&["run", "web"]).ok();
    assert_eq!(node.points(), ["1.1", "1.2"]);
}

#[test]
fn nothing_new_is_not_dumped() {
    let Some(pair) = pair("nothing_new_is_not_dumped") else {
        return;
    };
    let node = &pair.alder;
    frozen(node, "app", ":", "");
    write(&pair, "1");
    node.run(&["run", "web"]).ok();
    assert_eq!(diary(node), ["freeze-app", "thaw-app"]);
    node.run(&["run", "web"]).ok();
    assert_eq!(diary(node), [""; 0]);
    assert_eq!(node.points(), ["1.1"]);
}

#[test]
fn a_failure_fails_the_point_or_marks_it() {
    let Some(pair) = pair("a_failure_fails_the_point_or_marks_it") else {
        return;
    };
    let node = &pair.alder;
    frozen(node, "good", ":", "");
    frozen(
        node,
        "bad",
        "echo it has gone; exit 7",
        "policy = \"best-effort\"",
    );
    write(&pair, "1");
    node.run(&["run", "web"]).ok();
    // Also one that failed to freeze is thawed: it may have got half of the way.
    assert_eq!(
        diary(node),
        ["freeze-good", "freeze-bad", "thaw-bad", "thaw-good"]
    );
    assert_eq!(dumps(node), ["good good", "bad failed"]);
    let said = node.run(&["points", "web"]).ok().out;
    assert!(said.contains("bad in 1.1: command, NOT CONSISTENT, the dump failed: could not freeze by a command: run sh to a good end: exit status: 7; it said: it has gone"), "{said}");
    let said = node.run(&["status"]).ok().out;
    assert!(
        said.contains("databases not consistent: standin points"),
        "{said}"
    );
    let warned = || node.log().matches("points are taken without it").count();
    assert_eq!(warned(), 1, "{}", node.log());
    write(&pair, "2");
    node.run(&["run", "web"]).ok();
    assert_eq!(warned(), 1, "the same trouble is told once: {}", node.log());
    diary(node);

    node.edit("policy = \"best-effort\"", "policy = \"required\"");
    node.run(&["reload"]).ok();
    write(&pair, "3");
    let said = node.run(&["run", "web"]);
    assert_eq!(said.code, 1, "{said:?}");
    assert!(said.out.contains("dump bad (command) of role web: could not freeze by a command: run sh to a good end: exit status: 7"), "{said:?}");
    assert!(
        said.out
            .contains("policy = \"best-effort\" would take the point all the same, marked"),
        "{said:?}"
    );
    assert_eq!(
        diary(node),
        ["freeze-good", "freeze-bad", "thaw-bad", "thaw-good"]
    );
    assert_eq!(node.points(), ["1.1", "1.2"]);
    let hidden = node.disk.path().join(".standin/.staging/web");
    let left: Vec<_> = fs::read_dir(&hidden)
        .map(|dir| dir.flatten().collect())
        .unwrap_or_default();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn what_takes_too_long_is_ended() {
    let Some(pair) = pair("what_takes_too_long_is_ended") else {
        return;
    };
    let node = &pair.alder;
    frozen(node, "slow", "sleep 1000", "hold = \"300ms\"");
    write(&pair, "1");
    let said = node.run(&["run", "web"]);
    assert_eq!(said.code, 1, "{said:?}");
    assert!(
        said.out
            .contains("could not freeze by a command: run sh within 300ms")
            || said.out.contains("be done within 300ms"),
        "{said:?}"
    );
    assert_eq!(diary(node), ["freeze-slow", "thaw-slow"]);
    assert_eq!(node.points(), [""; 0]);
    // A dump that writes for ever ends with the cycle that is cancelled.
    node.edit(
        "hold = \"300ms\"",
        &format!("dump = {}", shell(node, "dump-slow", "sleep 1000")),
    );
    node.run(&["reload"]).ok();
    let mut run = node.command(&["run", "web"]).spawn().unwrap();
    node.wait_for("it dumps", || node.role()["phase"] == "dumping slow");
    node.run(&["cancel", "web"]).ok();
    assert_eq!(run.wait().unwrap().code(), Some(130));
    assert_eq!(node.points(), [""; 0]);
    assert_eq!(diary(node), ["dump-slow"]);
}

#[test]
fn writers_are_let_go_when_the_daemon_was_killed() {
    let Some(mut pair) = pair("writers_are_let_go_when_the_daemon_was_killed") else {
        return;
    };
    frozen(&pair.alder, "app", ":", "hold = \"1m\"");
    pair.alder.stop();
    pair.alder.start_with(&[("STANDIN_FREEZE", "point-held")]);
    let goes_on = |pair: &Pair| {
        let active = || pair.alder.role()["state"] == "active";
        pair.alder.wait_for("the role goes on", active);
    };
    goes_on(&pair);
    write(&pair, "1");
    let mut run = pair.alder.command(&["run", "web"]).spawn().unwrap();
    pair.alder.wait_for("it is frozen", || {
        fs::read_to_string(pair.alder.dir.join("diary")).is_ok_and(|text| text == "freeze-app\n")
            && pair.alder.log().contains("frozen")
    });
    pair.alder.kill();
    run.wait().unwrap();
    assert_eq!(diary(&pair.alder), ["freeze-app"]);
    pair.alder.start();
    pair.alder
        .wait_for("it is thawed", || pair.alder.log().contains("thawed app"));
    assert_eq!(diary(&pair.alder), ["thaw-app"]);
    // Once, and the next point is a good one.
    pair.alder.stop();
    pair.alder.start();
    goes_on(&pair);
    pair.wait_linked();
    pair.alder.run(&["run", "web", "--attach"]).ok();
    assert_eq!(diary(&pair.alder), ["freeze-app", "thaw-app"]);
    assert_eq!(dumps(&pair.alder), ["app good"]);
}

#[test]
fn the_way_back() {
    let Some(pair) = pair("the_way_back") else {
        return;
    };
    for node in [&pair.alder, &pair.birch] {
        let dumped = node.live("files").join("dump");
        let loaded = node.dir.join("loaded");
        let (dumped, loaded) = (dumped.display(), loaded.display());
        let dump = shell(node, "dump", &format!("echo rows > {dumped}"));
        let load = shell(
            node,
            "load",
            &format!(
                "test ! -e {}/broken && cp {dumped} {loaded}",
                node.dir.display()
            ),
        );
        add(node, "ledger", &format!("dump = {dump}\nload = {load}"));
        frozen(node, "app", ":", "");
    }
    write(&pair, "1");
    pair.alder.run(&["run", "web"]).ok();
    pair.wait_stored("1.1");
    let said = pair.alder.run(&["load", "web", "--skip"]).ok().out;
    assert!(said.contains("was not waiting for a load"), "{said}");
    let said = pair.birch.run(&["load", "web"]);
    assert_eq!(said.code, 15, "it stands in: {said:?}");
    // The services are stopped when the last point is taken: what is frozen then needs no freezing, a file is dumped anew.
    diary(&pair.alder);
    fs::write(pair.birch.dir.join("broken"), "").unwrap();
    pair.alder.wait_for("the hand-over is ready", || {
        pair.alder
            .run(&["handover", "web", "--to", "birch", "--dry-run"])
            .code
            == 0
    });
    let mut moving = pair
        .alder
        .command(&["handover", "web", "--to", "birch"])
        .spawn()
        .unwrap();
    pair.birch.wait_for("the load fails", || {
        pair.birch.log().contains("load dump ledger of role web")
    });
    let said = pair.birch.run(&["status", "web"]).ok().out;
    assert!(said.contains("load dump ledger of role web"), "{said}");
    fs::remove_file(pair.birch.dir.join("broken")).unwrap();
    pair.birch.wait_for("it plays the role", || {
        pair.birch.role()["state"] == "active"
    });
    moving.wait().unwrap();
    assert_eq!(dumps(&pair.birch), ["ledger good", "app stopped"]);
    assert_eq!(
        fs::read_to_string(pair.birch.dir.join("loaded")).unwrap(),
        "rows\n"
    );
    let ours = diary(&pair.alder);
    assert_eq!(ours.last().unwrap(), "dump", "{ours:?}");
    // Loaded once: a restart of the daemon on a live copy that is in use loads nothing.
    diary(&pair.birch);
    let said = pair.birch.run(&["load", "web", "--json"]).ok().json();
    assert_eq!(
        (&said["dumps"][0]["result"], &said["dumps"][1]["result"]),
        (&"loaded".into(), &"nothing".into())
    );
    assert_eq!(diary(&pair.birch), ["load"]);
    let said = pair.birch.run(&["load", "web", "legder"]);
    assert!(
        said.code == 17 && said.err.contains("did you mean ledger?"),
        "{said:?}"
    );
    let said = pair.birch.run(&["restore", "web", "--yes"]);
    assert!(said.out.contains("standin load web ledger"), "{said:?}");
}

#[test]
fn one_point_dumps_at_a_time() {
    let Some(pair) = pair("one_point_dumps_at_a_time") else {
        return;
    };
    let node = &pair.alder;
    let (alone, go) = (node.dir.join("alone"), node.dir.join("go"));
    let (alone, waits) = (alone.display(), go.display());
    let more = format!(
        "mkdir {alone} || exit 3; until test -e {waits}; do sleep 0.05; done; date +%N > {}/dump; rmdir {alone}",
        node.live("files").display()
    );
    add(
        node,
        "ledger",
        &format!("dump = {}", shell(node, "dump", &more)),
    );
    node.edit("every = \"manual\"", "every = \"1s\"");
    node.run(&["reload"]).ok();
    node.wait_for("it dumps", || node.role()["phase"] == "dumping ledger");
    // The next point is due, and taken alone, while this one is not done.
    let due = || node.role()["next_run"].clone();
    let first = due();
    node.wait_for("another point is due", || due() != first);
    let second = due();
    node.wait_for("and begins", || due() != second || node.points().len() > 1);
    fs::write(&go, "").unwrap();
    node.wait_for("points are taken", || node.points().len() > 2);
    assert!(!node.log().contains("exit status: 3"), "{}", node.log());
    let said = node.run(&["run", "web", "--dry-run"]).ok().out;
    assert!(said.contains("dump ledger (command)"), "{said}");
    assert!(said.contains("take a new point"), "{said}");
}
