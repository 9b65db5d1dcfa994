//! `standin fork` as an operator uses it: a real daemon, a fork made beside it by the library.
#![allow(clippy::unwrap_used)]

mod support;

use std::fs;
use std::path::PathBuf;

use standin::logic::fork::Why;
use support::cluster::{MANUAL, TestNode, btrfs};
use support::fixture::{Loop, ready};
use support::forks;
use support::same::assert_same;

const DATASETS: [&str; 2] = ["db", "files"];

/// A node with the points 1.1 to 1.4; each changes something in both datasets.
fn node() -> TestNode {
    let mut node = TestNode::on("alder", Loop::new(1 << 30));
    node.configure("birch", &DATASETS, "", MANUAL);
    fs::create_dir_all(node.disk.path().join("srv")).unwrap();
    for name in DATASETS {
        let live = node.live(name);
        btrfs(&["subvolume", "create", live.to_str().unwrap()]);
        fs::write(live.join("old"), vec![1; 50_000]).unwrap();
    }
    node.make_key();
    node.start();
    for round in 1..=4 {
        fs::write(node.live("db").join("table"), vec![round; 20_000]).unwrap();
        fs::write(node.live("files").join(format!("new-{round}")), "x").unwrap();
        if round == 3 {
            fs::rename(
                node.live("files").join("old"),
                node.live("files").join("moved"),
            )
            .unwrap();
        }
        // The peer is not paired: nothing is sent, the point is taken.
        assert_eq!(node.run(&["run", "web"]).code, 15);
    }
    assert_eq!(node.points(), ["1.1", "1.2", "1.3", "1.4"]);
    node
}

/// The text on both streams, and the code.
#[track_caller]
fn check(node: &TestNode, words: &[&str], code: i32, expected: &[&str]) {
    let said = node.run(words);
    assert_eq!(said.code, code, "{said:?}");
    let text = format!("{}{}", said.out, said.err);
    for piece in expected {
        assert!(
            text.contains(piece),
            "{words:?}: {piece:?} is not in {text}"
        );
    }
}

#[test]
fn an_operator_looks_after_a_fork() {
    if !ready("an_operator_looks_after_a_fork") {
        return;
    }
    let node = node();
    check(
        &node,
        &["fork", "list"],
        0,
        &["role web\n  no forks on this node"],
    );
    check(
        &node,
        &["fork", "show", "web", "1.4"],
        17,
        &["has no forks", "hint: standin fork list web"],
    );
    let fork = forks::fork(&node, &DATASETS, &["1.3", "1.4"], "1.2", Why::Returned);
    let measured = fork.measured.clone().unwrap().total;
    assert_eq!(
        (measured.files, measured.added, measured.renamed),
        (4, 2, 1),
        "{measured:?}"
    );
    assert!((20_002..40_000).contains(&measured.bytes), "{measured:?}");
    assert_eq!(node.points(), ["1.1", "1.2"]);
    check(
        &node,
        &["points"],
        0,
        &["1 fork kept beside them: standin fork list web"],
    );
    let warned = [
        "fork 1.4 holds",
        "lie on this node alone",
        "standin fork diff web 1.4 shows it",
    ];
    let said = node.run(&["check"]);
    assert!(
        warned.iter().all(|piece| said.out.contains(piece)),
        "{said:?}"
    );
    check(
        &node,
        &["fork", "list"],
        0,
        &["1.4   1 (alder)", "  4  ", "had lost the term"],
    );
    check(
        &node,
        &["fork", "show", "web", "1.3"],
        0,
        &[
            "fork 1.4 of role web",
            "base     1.2",
            "db: 1 file (1 changed)",
        ],
    );
    let diff = [
        "dataset db  1.2 -> 1.4",
        "changed",
        "table",
        "added",
        "new-3",
        "old -> moved",
    ];
    check(&node, &["fork", "diff", "web", "1.4"], 0, &diff);
    let stat = node.run(&["fork", "diff", "web", "1.4", "--stat"]).ok();
    assert!(
        !stat.out.contains("new-3") && stat.out.contains("3 files (2 added, 1 renamed)"),
        "{stat:?}"
    );
    let json = node
        .run(&["fork", "diff", "web", "1.4", "--json"])
        .ok()
        .json();
    assert_eq!(
        json["datasets"][0]["changes"][0]["written"][0][0], 0,
        "{json}"
    );
    // What the fork grew from is pruned some day.
    check(&node, &["prune", "web"], 0, &[]);
    look_inside(&node);
    give_up(&node);
}

fn look_inside(node: &TestNode) {
    let dir = node.dir.join("look");
    let at = dir.to_str().unwrap();
    check(
        node,
        &["fork", "mount", "web", "1.4", at],
        2,
        &["does not exist", "hint: mkdir"],
    );
    fs::create_dir(&dir).unwrap();
    check(
        node,
        &["fork", "mount", "web", "1.4", at],
        0,
        &["read-only"],
    );
    assert_eq!(fs::read(dir.join("db/table")).unwrap(), vec![4; 20_000]);
    assert_same(&dir.join("files"), &node.live("files"), "the newest state");
    check(
        node,
        &["fork", "show", "web", "1.4"],
        0,
        &["mounted  ", "/look"],
    );
    check(
        node,
        &["fork", "mount", "web", "1.4", at],
        2,
        &["it is not empty"],
    );
    let refused = ["it is mounted at", "hint: standin fork unmount"];
    check(
        node,
        &["fork", "discard", "web", "1.4", "--yes"],
        15,
        &refused,
    );
    check(node, &["fork", "unmount", at], 0, &["ok  unmount"]);
    check(
        node,
        &["fork", "unmount", at],
        15,
        &["no fork is mounted there"],
    );
    assert_eq!(fs::read_dir(&dir).unwrap().count(), 0);
    let beside: [PathBuf; 2] = [node.disk.path().join("rescued"), node.dir.join("rescued")];
    for target in beside {
        let to = target.to_str().unwrap();
        check(
            node,
            &["fork", "export", "web", "1.4", to],
            0,
            &["ok  copy db", "ok  copy files"],
        );
        assert_eq!(fs::read(target.join("db/table")).unwrap(), [4; 20_000]);
        assert_eq!(fs::read_dir(target.join("files")).unwrap().count(), 5);
        fs::write(target.join("files/mine"), "").unwrap();
        check(
            node,
            &["fork", "export", "web", "1.4", to],
            2,
            &["it exists", "hint: name a directory"],
        );
    }
    let inside = node.live("files").join("rescued");
    let inside = inside.to_str().unwrap();
    check(
        node,
        &["fork", "export", "web", "1.4", inside],
        2,
        &["inside the live dataset", "nothing was touched"],
    );
}

fn give_up(node: &TestNode) {
    let asked = [
        "no terminal to ask on",
        "hint: add --yes when it is what you want",
    ];
    check(node, &["fork", "discard", "web", "1.4"], 15, &asked);
    let plan = [
        "-  discard fork 1.4 for good: 1.3, 1.4",
        "nothing was changed",
        "differs  4 files",
    ];
    check(
        node,
        &["fork", "discard", "web", "1.4", "--dry-run"],
        0,
        &plan,
    );
    check(
        node,
        &["fork", "discard", "web", "1.4", "--yes"],
        0,
        &["ok  discard fork 1.4 for good"],
    );
    check(
        node,
        &["fork", "list", "web"],
        0,
        &["no forks on this node"],
    );
    assert!(!node.run(&["points"]).ok().out.contains("fork"));
    let forks = node.disk.path().join(".standin/.forks/web");
    assert_eq!(fs::read_dir(forks).unwrap().count(), 0);
    assert_eq!(node.points(), ["1.1", "1.2"]);
}

/// The base may go: then the fork's own oldest point stands in for it, and the answer says so.
#[test]
fn a_fork_whose_base_is_gone() {
    if !ready("a_fork_whose_base_is_gone") {
        return;
    }
    let node = node();
    forks::fork(&node, &DATASETS, &["1.2", "1.3"], "1.1", Why::LeftBehind);
    node.edit(MANUAL, "every = \"manual\"\nkeep = { last = 1 }");
    node.run(&["reload"]).ok();
    node.run(&["prune"]).ok();
    assert_eq!(node.points(), ["1.4"]);
    let said = [
        "1.1, is not here any more",
        "own oldest point, 1.2",
        "dataset files  1.2 -> 1.3",
        "new-3",
    ];
    check(&node, &["fork", "diff", "web", "1.3"], 0, &said);
    // What was measured while the base was there is still known.
    check(&node, &["fork", "show", "web", "1.3"], 0, &["4 files"]);
    forks::fork(&node, &DATASETS, &["1.4"], "1.4", Why::Foreign);
    let forks = node.run(&["fork", "list", "--json"]).ok().json();
    assert_eq!(
        forks["roles"][0]["forks"].as_array().unwrap().len(),
        2,
        "{forks}"
    );
    let nothing = [
        "1.4, is not here any more",
        "nothing to compare with; standin fork mount",
    ];
    check(&node, &["fork", "diff", "web", "1.4"], 0, &nothing);
}

/// Called again after an interruption, or for points that came later, it is the same fork.
#[test]
fn a_fork_that_grows() {
    if !ready("a_fork_that_grows") {
        return;
    }
    let node = node();
    let first = forks::fork(&node, &DATASETS, &["1.2", "1.3"], "1.1", Why::Returned);
    let grown = forks::fork(&node, &DATASETS, &["1.4"], "1.1", Why::Returned);
    assert_eq!((grown.name, grown.points.len()), (first.name, 3));
    assert!(grown.measured.unwrap().total.bytes >= first.measured.unwrap().total.bytes);
    check(
        &node,
        &["fork", "show", "web", "1.4"],
        0,
        &["fork 1.3 of role web"],
    );
}
