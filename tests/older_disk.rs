//! A node whose disk and state were set back to an older copy, as from a backup of the machine: under a term that is over, and
//! under one that goes on. What it had of its own is a fork, and nobody takes it for the newest point.
#![allow(clippy::unwrap_used)]

mod support;

use std::fs;
use std::path::{Path, PathBuf};

use support::cluster::{MIB, Pair, TestNode};
use support::fixture::{Loop, ready, run};

const MANUAL: &str = "every = \"manual\"\nkeep = { last = 100 }";

/// A copy of all that a node has.
struct Copy(PathBuf);

impl Copy {
    /// Of a node that is stopped.
    fn of(node: &TestNode) -> Copy {
        let copy = Copy(node.dir.join("copy"));
        fs::create_dir(&copy.0).unwrap();
        unmount(node.disk.path());
        clone(node.disk.image(), &copy.0.join("image"));
        clone(&node.dir.join("state"), &copy.0.join("state"));
        mount(&node.disk);
        copy
    }

    fn put_back(&self, node: &TestNode) {
        unmount(node.disk.path());
        clone(&self.0.join("image"), node.disk.image());
        fs::remove_dir_all(node.dir.join("state")).unwrap();
        clone(&self.0.join("state"), &node.dir.join("state"));
        mount(&node.disk);
    }
}

fn clone(from: &Path, to: &Path) {
    run(
        "cp",
        [
            "-a".as_ref(),
            "--sparse=always".as_ref(),
            from.as_os_str(),
            to.as_os_str(),
        ],
    );
}

fn unmount(path: &Path) {
    run("umount", [path]);
}

fn mount(disk: &Loop) {
    run(
        "mount",
        [
            "-o".as_ref(),
            "loop,noatime".as_ref(),
            disk.image().as_os_str(),
            disk.path().as_os_str(),
        ],
    );
}

fn write(node: &TestNode, name: &str) {
    fs::write(node.live("db").join(name), name).unwrap();
}

fn files(dir: &Path) -> Vec<String> {
    let names = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name());
    let mut names: Vec<String> = names.map(|name| name.into_string().unwrap()).collect();
    names.sort();
    names
}

fn wait_state(node: &TestNode, state: &str) {
    node.wait_for(&format!("it is {state}"), || node.role()["state"] == state);
}

/// alder with a point, a file that is in none, and a copy of all that; its daemon is stopped.
fn begun() -> (Pair, Copy) {
    let disks = [Loop::new(512 * MIB), Loop::new(512 * MIB)];
    let mut pair = Pair::on(disks, &["db"], "", MANUAL);
    write(&pair.alder, "old");
    pair.alder.run(&["run", "web"]).ok();
    pair.wait_stored("1.1");
    write(&pair.alder, "between");
    pair.alder.stop();
    let copy = Copy::of(&pair.alder);
    pair.alder.start();
    pair.wait_linked();
    wait_state(&pair.alder, "active");
    (pair, copy)
}

/// What lies in the only fork of a node.
fn forked(node: &TestNode) -> Vec<String> {
    let said = node.run(&["fork", "list", "web", "--json"]).ok().json();
    let forks = said["roles"][0]["forks"].as_array().unwrap();
    assert_eq!(forks.len(), 1, "{said}");
    let to = node.disk.join("fork");
    let name = forks[0]["name"].as_str().unwrap();
    node.run(&["fork", "export", "web", name, to.to_str().unwrap()])
        .ok();
    files(&to.join("db"))
}

/// Back from the copy, it stands in, and what only it had is a fork.
fn restored(pair: &mut Pair, copy: &Copy) {
    pair.alder.stop();
    copy.put_back(&pair.alder);
    pair.alder.start();
    pair.wait_linked();
    wait_state(&pair.alder, "standby");
    assert_eq!(forked(&pair.alder), ["between", "old"]);
}

#[test]
fn of_a_term_that_is_over() {
    if !ready("of_a_term_that_is_over") {
        return;
    }
    let (mut pair, copy) = begun();
    write(&pair.alder, "new");
    pair.alder.run(&["handover", "web", "--to", "birch"]).ok();
    wait_state(&pair.birch, "active");
    restored(&mut pair, &copy);
    write(&pair.birch, "newest");
    pair.birch.run(&["failback", "web"]).ok();
    wait_state(&pair.alder, "active");
    assert_eq!(
        files(&pair.alder.live("db")),
        ["between", "new", "newest", "old"]
    );
}

#[test]
fn of_a_term_that_goes_on() {
    if !ready("of_a_term_that_goes_on") {
        return;
    }
    let (mut pair, copy) = begun();
    write(&pair.alder, "new");
    pair.alder.run(&["run", "web"]).ok();
    pair.wait_stored("1.2");
    restored(&mut pair, &copy);
    // Nobody plays the role. birch has the newest of it, and is not talked out of it by the older disk.
    pair.birch.run(&["promote", "web"]).ok();
    wait_state(&pair.birch, "active");
    assert_eq!(files(&pair.birch.live("db")), ["between", "new", "old"]);
    pair.birch.run(&["failback", "web"]).ok();
    wait_state(&pair.alder, "active");
    assert_eq!(files(&pair.alder.live("db")), ["between", "new", "old"]);
}
