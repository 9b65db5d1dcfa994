//! Roles of kind = "logs" between real daemons: every node shows every node's logs, whoever died, came back or lost what.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod support;

use std::fs;
use std::io::Write;
use std::path::PathBuf;

use serde_json::Value;
use support::cluster::{MIB, TestNode, btrfs};
use support::fixture::{self, Loop};

struct Nodes(Vec<TestNode>);

fn logs(node: &TestNode, of: &str) -> PathBuf {
    node.disk.path().join("srv/logs").join(of)
}

fn configure(node: &TestNode, peers: &[&str]) {
    node.configure(peers[0], &[], "", "");
    let text = fs::read_to_string(node.config_path()).unwrap();
    let (mut text, _) = text
        .split_once("[peer.")
        .map(|(head, tail)| (head.to_owned(), tail.to_owned()))
        .unwrap();
    for peer in peers {
        text += &format!("[peer.{peer}]\n");
    }
    text += &format!(
        "[role.syslog]\nkind = \"logs\"\npeers = {peers:?}\nevery = \"on-change\"\nkeep = {{ last = 5 }}\n\
         [role.syslog.dataset.files]\nbtrfs = \"{}\"\n",
        logs(node, "{node}").display()
    );
    fs::write(node.config_path(), text).unwrap();
}

fn make_live(node: &TestNode) {
    let live = logs(node, node.name);
    fs::create_dir_all(live.parent().unwrap()).unwrap();
    btrfs(&["subvolume", "create", live.to_str().unwrap()]);
}

fn write(node: &TestNode, line: &str) {
    let file = logs(node, node.name).join("messages");
    let mut options = fs::File::options();
    let mut file = options.create(true).append(true).open(file).unwrap();
    writeln!(file, "{line}").unwrap();
}

#[track_caller]
fn wait_shown(on: &TestNode, of: &str, line: &str) {
    let file = logs(on, of).join("messages");
    on.wait_for(&format!("it shows {line:?} of {of}"), || {
        fs::read_to_string(&file).is_ok_and(|text| text.lines().any(|found| found == line))
    });
}

fn role(on: &TestNode, of: &str) -> Value {
    let status = on.status();
    let roles = status["roles"].as_array().unwrap();
    let found = roles.iter().find(|role| role["home"] == of);
    found.unwrap_or_else(|| panic!("{status}")).clone()
}

impl Nodes {
    fn new(names: &[&'static str]) -> Nodes {
        let mut nodes: Vec<TestNode> = names
            .iter()
            .map(|name| TestNode::new(name, 1024 * MIB))
            .collect();
        for node in &mut nodes {
            let peers: Vec<&str> = names.iter().copied().filter(|n| *n != node.name).collect();
            configure(node, &peers);
            make_live(node);
            node.make_key();
            node.start();
        }
        for inviting in 0..nodes.len() {
            for accepting in inviting + 1..nodes.len() {
                let said = nodes[inviting].run(&["pair", "invite", "--json"]).ok();
                let line = said.json()["line"].as_str().unwrap().to_owned();
                nodes[accepting].run(&["pair", "accept", &line]).ok();
            }
        }
        Nodes(nodes)
    }

    /// Each writes a line, and all of the running ones show it.
    #[track_caller]
    fn all_seen(&self, what: &str) {
        let up = || self.0.iter().filter(|node| node.is_started());
        for of in up() {
            write(of, &format!("{what} of {}", of.name));
        }
        for of in up() {
            for on in up() {
                wait_shown(on, of.name, &format!("{what} of {}", of.name));
            }
        }
    }
}

#[track_caller]
fn check_refused(node: &TestNode, args: &[&str], part: &str) {
    let said = node.run(args);
    println!("standin {}\n{}", args.join(" "), said.err);
    assert_ne!(said.code, 0, "{said:?}");
    assert!(said.err.contains(part), "{said:?}");
}

#[test]
fn every_node_shows_all_logs_and_none_moves() {
    if !fixture::ready("every_node_shows_all_logs_and_none_moves") {
        return;
    }
    let mut nodes = Nodes::new(&["alder", "birch"]);
    nodes.all_seen("first");
    let [alder, birch] = &mut nodes.0[..] else {
        panic!()
    };
    println!("{}", alder.run(&["status"]).ok().out);
    println!("{}", alder.run(&["check"]).out);
    // What another node wrote is read-only here.
    let foreign = logs(alder, "birch").join("messages");
    assert!(fs::File::options().append(true).open(foreign).is_err());

    for args in [
        &["promote", "syslog.birch"][..],
        &["promote", "syslog"],
        &["handover", "syslog", "--to", "birch"],
        &["failback", "syslog"],
        &["resume", "syslog"],
        &["resolve", "syslog", "--keep", "birch"],
        &["drill", "syslog.birch"],
    ] {
        check_refused(alder, args, "is of kind = \"logs\"");
    }
    check_refused(alder, &["run", "syslog.birch"], "birch alone writes");
    let over = ["restore", "syslog.birch", "--yes"];
    check_refused(alder, &over, "stands in for it");
    check_refused(alder, &["points", "sislog"], "did you mean");

    let points = alder.run(&["points", "syslog", "--json"]).ok().json();
    assert_eq!(points["roles"][0]["role"], "syslog.alder");
    alder.run(&["run", "syslog"]).ok();
    alder.run(&["if-active", "syslog", "--", "true"]).ok();
    let copy = alder.disk.path().join("copy");
    let copy = copy.to_str().unwrap();
    alder.run(&["restore", "syslog.birch", "--to", copy]).ok();
    assert!(fs::read_dir(copy).unwrap().count() > 0);
    let only = alder.run(&["status", "syslog", "--json"]).ok().json();
    assert_eq!(only["roles"].as_array().unwrap().len(), 2);

    // Alone after a restart, it goes on at once: nobody need be asked.
    birch.kill();
    alder.stop();
    alder.start();
    assert_eq!(role(alder, "alder")["state"], "active");
    let before = role(alder, "alder")["points"].as_u64();
    write(alder, "alone");
    alder.wait_for("a point is taken", || {
        role(alder, "alder")["newest"]["short"] != Value::Null
            && role(alder, "alder")["points"].as_u64() != before
    });
    wait_shown(alder, "birch", "first of birch");
    birch.start();
    wait_shown(birch, "alder", "alone");

    // The other node does not know the role.
    birch.edit("[role.syslog]", "[role.other]");
    birch.edit("[role.syslog.dataset", "[role.other.dataset");
    birch.run(&["reload"]).ok();
    write(alder, "to nobody");
    alder.wait_for("it is told what to do", || {
        let check = alder.run(&["check"]).out;
        check.contains("birch has no role syslog.alder")
            && check.contains("add [role.syslog] with kind = \"logs\" and alder among its `peers`")
    });
}

#[test]
fn three_nodes_and_one_is_away() {
    if !fixture::ready("three_nodes_and_one_is_away") {
        return;
    }
    let mut nodes = Nodes::new(&["alder", "birch", "cedar"]);
    nodes.all_seen("first");
    nodes.0[2].kill();
    nodes.all_seen("meanwhile");
    wait_shown(&nodes.0[0], "cedar", "first of cedar");
    write(&nodes.0[2], "written while no daemon ran");
    nodes.0[2].start();
    for node in &nodes.0 {
        wait_shown(node, "cedar", "written while no daemon ran");
        wait_shown(node, "alder", "meanwhile of alder");
    }
    nodes.all_seen("again");
    for on in &nodes.0 {
        for of in &nodes.0 {
            let role = role(on, of.name);
            let expected = if on.name == of.name {
                "active"
            } else {
                "standby"
            };
            assert_eq!(role["state"], expected, "{role}");
            assert_eq!(role["forks"], Value::Null, "{role}");
        }
    }
}

/// What a node may lose.
#[derive(PartialEq)]
enum Lost {
    State,
    Disk,
    Both,
}

/// alder loses something and starts again; its line goes on, and birch keeps what it held before: in its place, or as a fork.
fn check_lost(name: &str, lost: Lost, forks: usize) {
    if !fixture::ready(name) {
        return;
    }
    let mut nodes = Nodes::new(&["alder", "birch"]);
    nodes.all_seen("first");
    let [alder, birch] = &mut nodes.0[..] else {
        panic!()
    };
    alder.kill();
    if lost != Lost::Disk {
        for entry in fs::read_dir(alder.dir.join("state")).unwrap().flatten() {
            if entry.file_name() != "node.key" {
                fs::remove_file(entry.path())
                    .or_else(|_| fs::remove_dir_all(entry.path()))
                    .unwrap();
            }
        }
    }
    if lost != Lost::State {
        let before = alder.disk.path().to_str().unwrap().to_owned();
        alder.disk = Loop::new(1024 * MIB);
        let now = alder.disk.path().to_str().unwrap().to_owned();
        alder.edit(&before, &now);
        make_live(alder);
    }
    alder.start();
    assert_eq!(role(alder, "alder")["state"], "active");
    write(alder, "after");
    wait_shown(birch, "alder", "after");
    wait_shown(alder, "birch", "first of birch");
    write(birch, "birch too");
    wait_shown(alder, "birch", "birch too");
    let listed = birch
        .run(&["fork", "list", "syslog.alder", "--json"])
        .ok()
        .json();
    let found = listed["roles"][0]["forks"].as_array().unwrap();
    assert_eq!(found.len(), forks, "{listed}");
    if let Some(fork) = found.first() {
        let to = birch.disk.path().join("rescued");
        let fork = fork["short"].as_str().unwrap();
        birch
            .run(&["fork", "export", "syslog.alder", fork, to.to_str().unwrap()])
            .ok();
        let text = fs::read_to_string(to.join("files/messages")).unwrap();
        assert_eq!(text, "first of alder\n");
    }
    if forks == 0 {
        let points = birch.run(&["points", "syslog.alder", "--json"]).ok();
        let points = points.json()["roles"][0]["points"].clone();
        let oldest = points[0]["datasets"]["files"].as_str().unwrap();
        assert!(points.as_array().unwrap().len() > 2, "{points}");
        assert!(PathBuf::from(oldest).exists(), "{points}");
    }
    println!("{}", birch.run(&["status"]).ok().out);
    println!("{}\n{}", alder.log(), birch.log());
    // Once more: it has found its way.
    alder.stop();
    alder.start();
    write(alder, "once more");
    wait_shown(birch, "alder", "once more");
    assert_eq!(role(alder, "alder")["last_error"], Value::Null);
}

#[test]
fn a_lost_state_database_is_found_again() {
    check_lost("a_lost_state_database_is_found_again", Lost::State, 0);
}

#[test]
fn a_lost_disk_leaves_the_old_logs_with_the_peers() {
    check_lost(
        "a_lost_disk_leaves_the_old_logs_with_the_peers",
        Lost::Disk,
        0,
    );
}

#[test]
fn a_node_that_begins_anew_leaves_the_old_logs_with_the_peers() {
    check_lost(
        "a_node_that_begins_anew_leaves_the_old_logs_with_the_peers",
        Lost::Both,
        1,
    );
}

/// The state database and the points as they were some points ago; what is live is not in any of them.
#[test]
fn an_older_disk_goes_on_above_what_the_peer_has() {
    if !fixture::ready("an_older_disk_goes_on_above_what_the_peer_has") {
        return;
    }
    let mut nodes = Nodes::new(&["alder", "birch"]);
    nodes.all_seen("first");
    let [alder, birch] = &mut nodes.0[..] else {
        panic!()
    };
    alder.stop();
    let points = alder.disk.path().join(".standin/syslog.alder");
    let listed = || -> Vec<PathBuf> {
        let entries = fs::read_dir(&points).unwrap().flatten();
        entries.map(|entry| entry.path()).collect()
    };
    let old = listed();
    let (state, kept) = (alder.dir.join("state"), alder.dir.join("kept"));
    fixture::run(
        "cp",
        ["-a", state.to_str().unwrap(), kept.to_str().unwrap()],
    );
    alder.start();
    for line in ["second", "third"] {
        write(alder, line);
        wait_shown(birch, "alder", line);
    }
    alder.kill();
    for point in listed().iter().filter(|point| !old.contains(point)) {
        btrfs(&["subvolume", "delete", point.join("files").to_str().unwrap()]);
        fs::remove_dir_all(point).unwrap();
    }
    fs::remove_dir_all(&state).unwrap();
    fs::rename(&kept, &state).unwrap();
    for line in ["fourth", "fifth"] {
        alder.start();
        write(alder, line);
        wait_shown(birch, "alder", line);
        wait_shown(birch, "alder", "third");
        alder.stop();
    }
    let forks = birch.run(&["fork", "list", "syslog.alder", "--json"]).ok();
    let forks = forks.json()["roles"][0]["forks"].clone();
    assert!(!forks.as_array().unwrap().is_empty(), "{forks}");
    println!("{}\n{}", alder.log(), birch.log());
}
