//! A node with a history, and how its answers are read.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use serde_json::Value;

use crate::support::cluster::{MANUAL, TestNode, btrfs};
use crate::support::fixture::Loop;

/// A node of its own: its peer is not paired.
pub fn alone() -> TestNode {
    let mut node = TestNode::on("alder", Loop::new(1 << 30));
    node.configure("birch", &["files"], "", MANUAL);
    fs::create_dir_all(node.disk.path().join("srv")).unwrap();
    btrfs(&["subvolume", "create", node.live("files").to_str().unwrap()]);
    node.make_key();
    node.start();
    node
}

/// Takes a point, and says which.
pub fn point(node: &TestNode) -> String {
    // The peer is not paired: nothing is sent, the point is taken.
    assert_eq!(node.run(&["run", "web"]).code, 15);
    node.points().last().unwrap().clone()
}

/// The text on both streams, and the code.
#[track_caller]
pub fn check(node: &TestNode, words: &[&str], code: i32, expected: &[&str]) {
    let said = node.run(words);
    assert_eq!(said.code, code, "{words:?}: {said:?}");
    let text = format!("{}{}", said.out, said.err);
    for piece in expected {
        assert!(
            text.contains(piece),
            "{words:?}: {piece:?} is not in {text}"
        );
    }
}

/// `number what first-last` of every version of the only path that is found; `live` for the last where it is live.
#[track_caller]
pub fn versions(node: &TestNode, words: &[&str]) -> Vec<String> {
    let mut line = vec!["find", "--json"];
    line.extend(words);
    let found = node.run(&line).ok().json();
    let paths = found["paths"].as_array().unwrap();
    assert_eq!(paths.len(), 1, "{found}");
    let row = |version: &Value| {
        let number = version["number"]
            .as_u64()
            .map_or("-".into(), |n| n.to_string());
        let short = |end: &str| version[end]["short"].as_str().unwrap_or("").to_owned();
        let last = match version["live"] == true {
            true => "live".to_owned(),
            false => short("last"),
        };
        let fork = version["fork"]
            .as_str()
            .map_or(String::new(), |f| format!(" fork {f}"));
        let here = if version["here"] == true || number == "-" {
            ""
        } else {
            " elsewhere"
        };
        format!(
            "{number} {} {}-{last}{fork}{here}",
            version["what"].as_str().unwrap(),
            short("first")
        )
    };
    paths[0]["versions"]
        .as_array()
        .unwrap()
        .iter()
        .map(row)
        .collect()
}

pub fn text(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

pub fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).unwrap().flatten();
    let mut names: Vec<String> = entries
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

/// Five points: `a` is changed in the second and gets another mode in the third; `deep` goes in the fourth; `b` becomes a
/// directory in the fifth; `a` is changed again, live only.
pub fn with_history() -> TestNode {
    let node = alone();
    let live = node.live("files");
    fs::create_dir_all(live.join("deep/er")).unwrap();
    fs::set_permissions(live.join("deep/er"), fs::Permissions::from_mode(0o710)).unwrap();
    std::os::unix::fs::chown(live.join("deep"), Some(1234), Some(2345)).unwrap();
    for (name, text) in [
        ("a", "one\n"),
        ("b", "b\n"),
        ("deep/er/gone.txt", "precious\n"),
        ("deep/er/more.txt", "m\n"),
    ] {
        fs::write(live.join(name), text).unwrap();
    }
    point(&node);
    fs::write(live.join("a"), "two\n").unwrap();
    point(&node);
    fs::set_permissions(live.join("a"), fs::Permissions::from_mode(0o600)).unwrap();
    point(&node);
    fs::remove_dir_all(live.join("deep")).unwrap();
    point(&node);
    fs::remove_file(live.join("b")).unwrap();
    fs::create_dir(live.join("b")).unwrap();
    assert_eq!(point(&node), "1.5");
    fs::write(live.join("a"), "three\n").unwrap();
    node
}
