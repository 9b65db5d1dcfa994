//! `standin diff` as an operator uses it: a real daemon, and walks of the trees that judge what it says.
#![allow(clippy::unwrap_used)]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;
use standin::logic::fork::Why;
use support::cluster::{MANUAL, TestNode, btrfs};
use support::fixture::{Loop, ready};
use support::forks;
use support::tree::{Names, Tree};

/// A node with these datasets, and no point yet.
fn node(disk_bytes: u64, datasets: &[&str]) -> TestNode {
    let mut node = TestNode::on("alder", Loop::new(disk_bytes));
    node.configure("birch", datasets, "", MANUAL);
    fs::create_dir_all(node.disk.path().join("srv")).unwrap();
    for name in datasets {
        btrfs(&["subvolume", "create", node.live(name).to_str().unwrap()]);
    }
    node.make_key();
    node.start();
    node
}

/// The peer is not paired: nothing is sent, the point is taken.
#[track_caller]
fn take(node: &TestNode) {
    let said = node.run(&["run", "web"]);
    assert_eq!(said.code, 15, "{said:?}");
}

/// The text on both streams, and the code.
#[track_caller]
fn check(node: &TestNode, words: &[&str], code: i32, expected: &[&str], absent: &[&str]) {
    let said = node.run(words);
    assert_eq!(said.code, code, "{said:?}");
    let text = format!("{}{}", said.out, said.err);
    for piece in expected {
        assert!(
            text.contains(piece),
            "{words:?}: {piece:?} is not in {text}"
        );
    }
    for piece in absent {
        assert!(!text.contains(piece), "{words:?}: {piece:?} is in {text}");
    }
}

/// What is left of copies of live data.
fn looks(node: &TestNode) -> usize {
    let room = node.disk.path().join(".standin/.looks/web");
    fs::read_dir(room).map_or(0, Iterator::count)
}

#[test]
fn what_a_person_sees() {
    if !ready("what_a_person_sees") {
        return;
    }
    let node = node(1 << 30, &["db", "files"]);
    let (db, files) = (node.live("db"), node.live("files"));
    fs::write(db.join("table"), vec![1; 20_000]).unwrap();
    fs::create_dir_all(files.join("www/old/deep")).unwrap();
    fs::write(files.join("www/old/deep/a"), vec![1; 3_000]).unwrap();
    fs::write(files.join("www/conf"), "one\ntwo\n").unwrap();
    fs::write(files.join("www/draft"), "d").unwrap();
    take(&node);
    fs::write(db.join("table"), vec![2; 30_000]).unwrap();
    fs::remove_dir_all(files.join("www/old")).unwrap();
    fs::create_dir_all(files.join("www/new/x")).unwrap();
    fs::write(files.join("www/new/x/b"), vec![3; 5_000]).unwrap();
    fs::write(files.join("www/conf"), "one\nthree \u{1b}[31mred\n").unwrap();
    fs::rename(files.join("www/draft"), files.join("www/index")).unwrap();
    take(&node);
    let whole = [
        "role web  1.1 (",
        ") -> 1.2 (",
        "dataset db\n  changed  19.5 KiB -> 29.3 KiB  table",
        "added    1 file, 1 directory, 4.9 KiB  www/new/",
        "removed  1 file, 1 directory, 2.9 KiB  www/old/",
        "www/draft -> www/index",
        "changed: 1 file, 19 B",
    ];
    check(
        &node,
        &["diff", "web", "1.1", "1.2"],
        0,
        &whole,
        &["www/new/x", "\u{1b}"],
    );
    check(
        &node,
        &["diff", "1.1", "1.2", "--unfold"],
        0,
        &["www/new/x/b", "www/old/deep/a"],
        &[],
    );
    let back = [
        "added    1 file, 1 directory, 2.9 KiB  www/old/",
        "www/index -> www/draft",
    ];
    check(&node, &["diff", "latest", "latest~1"], 0, &back, &[]);
    let text = ["-two", "+three", "[31mred", "dataset files"];
    let path = files.join("www/conf");
    let path = path.to_str().unwrap();
    check(
        &node,
        &["diff", "1.1", "1.2", path, "--text"],
        0,
        &text,
        &["\u{1b}", "dataset db", "www/new"],
    );
    check(
        &node,
        &["diff", "1.1", "1.2", "--text"],
        0,
        &["(not text)"],
        &[],
    );
    let stat = [
        "www/new/",
        "(at the top)",
        "removed: 1 file, 2 directories, 2.9 KiB",
    ];
    check(
        &node,
        &["diff", "web", "1.1", "1.2", "--stat"],
        0,
        &stat,
        &["www/index"],
    );
    let same = [
        "dataset db\n  no difference",
        "dataset files\n  no difference",
    ];
    check(&node, &["diff", "latest", "live"], 0, &same, &[]);
    // Reading is no difference.
    assert!(
        Command::new("cat")
            .arg(path)
            .output()
            .unwrap()
            .status
            .success()
    );
    fs::write(files.join("late"), "x").unwrap();
    let late = ["-> live", "added  1 B  late", "added: 1 file, 1 B"];
    check(
        &node,
        &["diff", "latest", "live", "--dataset", "files"],
        0,
        &late,
        &["conf", "dataset db"],
    );
    check(
        &node,
        &["diff", "live", "latest", "late"],
        0,
        &["removed  1 B  late"],
        &[],
    );
    assert_eq!(looks(&node), 0, "no copy stays");
    with_forks_and_without(&node);
}

fn with_forks_and_without(node: &TestNode) {
    take(node);
    forks::fork(node, &["db", "files"], &["1.3"], "1.2", Why::Returned);
    let fork = ["-> fork 1.3 (", "added  1 B  late"];
    check(node, &["diff", "web", "latest", "fork:1.3"], 0, &fork, &[]);
    check(
        node,
        &["diff", "web", "fork:1.3", "live"],
        0,
        &["no difference"],
        &["late"],
    );
    let missing = ["find point 1.9 of role web", "standin points"];
    check(node, &["diff", "web", "1.9", "live"], 17, &missing, &[]);
    check(
        node,
        &["diff", "web", "latest~7", "live"],
        17,
        &["not 7 points before"],
        &[],
    );
    check(
        node,
        &["diff", "web", "latest", "fork:1.9"],
        17,
        &["find fork", "hint: standin fork list web"],
        &[],
    );
    check(
        node,
        &["diff", "wob", "latest", "live", "x"],
        17,
        &["find role wob", "did you mean web?"],
        &[],
    );
    check(
        node,
        &["diff", "latest", "live", "/etc/passwd"],
        17,
        &["find /etc/passwd", "hint: its datasets: db ("],
        &[],
    );
    check(node, &["diff", "latest"], 2, &["Usage: standin diff"], &[]);
}

/// An entry as the tree itself has it.
#[derive(Debug, PartialEq, Eq)]
struct Facts {
    inode: u64,
    mode: u32,
    owner: (u32, u32),
    /// Not of directories: theirs follow their entries.
    size: u64,
    modified: (i64, i64),
    content: Vec<u8>,
    attributes: Vec<(Vec<u8>, Vec<u8>)>,
}

fn walk(root: &Path) -> BTreeMap<String, Facts> {
    let mut found = BTreeMap::new();
    let mut open = vec![PathBuf::new()];
    while let Some(dir) = open.pop() {
        for entry in fs::read_dir(root.join(&dir)).unwrap() {
            let path = dir.join(entry.unwrap().file_name());
            let whole = root.join(&path);
            let is = whole.symlink_metadata().unwrap();
            if is.is_dir() {
                open.push(path.clone());
            }
            let content = match () {
                () if is.is_file() => blake3::hash(&fs::read(&whole).unwrap()).as_bytes().to_vec(),
                () if is.is_symlink() => fs::read_link(&whole)
                    .unwrap()
                    .into_os_string()
                    .into_encoded_bytes(),
                () => Vec::new(),
            };
            let plain = !is.is_dir();
            let facts = Facts {
                inode: is.ino(),
                mode: is.mode(),
                owner: (is.uid(), is.gid()),
                size: if plain { is.size() } else { 0 },
                modified: if plain {
                    (is.mtime(), is.mtime_nsec())
                } else {
                    (0, 0)
                },
                content,
                attributes: attributes(&whole),
            };
            found.insert(path.to_str().unwrap().to_owned(), facts);
        }
    }
    found
}

fn attributes(path: &Path) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut names = vec![0; 64 << 10];
    let length = rustix::fs::llistxattr(path, &mut names[..]).unwrap();
    let names = names[..length]
        .split(|&b| b == 0)
        .filter(|name| !name.is_empty());
    let mut all: Vec<_> = names
        .map(|name| {
            let mut value = vec![0; 64 << 10];
            let length = rustix::fs::lgetxattr(path, name, &mut value[..]).unwrap();
            (name.to_vec(), value[..length].to_vec())
        })
        .collect();
    all.sort();
    all
}

/// Where `path` was, by what is said of it and of the directories above it; none: it is new.
fn origin(path: &str, moved: &BTreeMap<&str, Option<&str>>) -> Option<String> {
    let mut end = path.len();
    loop {
        if let Some(from) = moved.get(&path[..end]) {
            return from.map(|from| format!("{from}{}", &path[end..]));
        }
        match path[..end].rfind('/') {
            Some(at) => end = at,
            None => return Some(path.to_owned()),
        }
    }
}

/// Everything that differs is told, what is told differs, and the figures are those of the trees.
fn judge(old: &BTreeMap<String, Facts>, new: &BTreeMap<String, Facts>, told: &Value, what: &str) {
    let told = told["datasets"][0]["differences"].as_array().unwrap();
    let word = |one: &Value, key: &str| one[key].as_str().map(str::to_owned);
    let mut moved: BTreeMap<&str, Option<&str>> = BTreeMap::new();
    let mut listed: BTreeMap<&str, &Value> = BTreeMap::new();
    let mut removed: BTreeSet<&str> = BTreeSet::new();
    for one in told {
        let (path, from) = (one["path"].as_str().unwrap(), one["from"].as_str());
        match one["what"].as_str().unwrap() {
            "removed" => {
                assert!(removed.insert(path), "{what}: {path} removed twice");
                let size = old
                    .get(path)
                    .filter(|facts| facts.mode & 0o170_000 == 0o100_000);
                assert_eq!(
                    one["old_bytes"].as_u64(),
                    size.map(|facts| facts.size),
                    "{what}: {one}"
                );
                continue;
            }
            "added" => _ = moved.insert(path, None),
            _ => _ = from.map(|from| moved.insert(path, Some(from))),
        }
        assert!(
            listed.insert(path, one).is_none(),
            "{what}: {path} told twice"
        );
    }
    let inodes: BTreeSet<u64> = listed
        .keys()
        .filter_map(|path| Some(new.get(*path)?.inode))
        .collect();
    let mut kept = BTreeSet::new();
    for (path, is) in new {
        let one = listed.get(&path[..]);
        if let (Some(one), true) = (one, is.mode & 0o170_000 == 0o100_000) {
            assert_eq!(one["new_bytes"].as_u64(), Some(is.size), "{what}: {one}");
        }
        let Some(origin) = origin(path, &moved) else {
            continue;
        };
        let was = old
            .get(&origin)
            .unwrap_or_else(|| panic!("{what}: {path} was not {origin}"));
        kept.insert(origin.clone());
        match one {
            None if inodes.contains(&is.inode) => {}
            None => assert_eq!(was, is, "{what}: {path} is not told"),
            Some(one) => {
                let same = was.content == is.content;
                let quiet = !one["content"].as_bool().unwrap() && one["was"].is_null();
                assert!(
                    same || !quiet,
                    "{what}: the content of {path} changed: {one}"
                );
                if word(one, "what").as_deref() == Some("metadata") && !is.is_directory() {
                    assert!(same, "{what}: {one}");
                }
            }
        }
    }
    for path in old.keys() {
        let gone = !kept.contains(path);
        assert_eq!(gone, removed.contains(&path[..]), "{what}: {path} removed");
    }
}

impl Facts {
    fn is_directory(&self) -> bool {
        self.mode & 0o170_000 == 0o040_000
    }
}

#[test]
fn random_trees_are_told_right() {
    if !ready("random_trees_are_told_right") {
        return;
    }
    for seed in 1..=4 {
        let node = node(1 << 30, &["files"]);
        let live = node.live("files");
        let mut tree = Tree::new(&live, seed, Names::Text);
        tree.change(150);
        take(&node);
        let diff = |old: &str, new: &str| {
            let words = ["diff", "web", old, new, "--unfold", "--json"];
            node.run(&words).ok().json()
        };
        let mut before = walk(&live);
        for point in 2..5 {
            tree.change(60);
            take(&node);
            let after = walk(&live);
            let (old, new) = (format!("1.{}", point - 1), format!("1.{point}"));
            let what = format!("seed {seed}, {old} and {new}");
            judge(&before, &after, &diff(&old, &new), &what);
            judge(
                &after,
                &before,
                &diff(&new, &old),
                &format!("{what}, backwards"),
            );
            before = after;
        }
        tree.change(40);
        let what = format!("seed {seed}, live");
        judge(&before, &walk(&live), &diff("latest", "live"), &what);
        assert_eq!(looks(&node), 0, "{what}: no copy stays");
    }
}

/// A live subvolume that was made anew by hand is another one, however alike.
#[test]
fn strangers_are_compared_by_what_they_look_like() {
    if !ready("strangers_are_compared_by_what_they_look_like") {
        return;
    }
    let node = node(512 << 20, &["files"]);
    let live = node.live("files");
    let mut tree = Tree::new(&live, 7, Names::Text);
    tree.change(120);
    fs::write(live.join("mine"), "one").unwrap();
    take(&node);
    let old = live.with_file_name("before");
    fs::rename(&live, &old).unwrap();
    btrfs(&["subvolume", "create", live.to_str().unwrap()]);
    let copied = Command::new("cp")
        .arg("-a")
        .arg(old.join("."))
        .arg(&live)
        .status();
    assert!(copied.unwrap().success());
    fs::write(live.join("mine"), "another").unwrap();
    take(&node);
    let said = [
        "do not descend from one another",
        "changed  3 B -> 7 B  mine",
        "changed: 1 file",
    ];
    check(
        &node,
        &["diff", "1.1", "1.2"],
        0,
        &said,
        &["added:", "removed:", "renamed", "metadata"],
    );
}

#[test]
fn a_copy_of_live_data_does_not_outlive_a_killed_daemon() {
    if !ready("a_copy_of_live_data_does_not_outlive_a_killed_daemon") {
        return;
    }
    let mut node = node(512 << 20, &["files"]);
    fs::write(node.live("files").join("a"), "1").unwrap();
    take(&node);
    fs::write(node.live("files").join("a"), "22").unwrap();
    node.stop();
    node.start_with(&[("STANDIN_FREEZE", "look-copied")]);
    let mut asking = node.command(&["diff", "latest", "live"]);
    let mut asking = asking
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    node.wait_for("the copy is made", || looks(&node) == 1);
    node.wait_for("the daemon is frozen", || {
        node.log().contains("look-copied")
    });
    node.kill();
    assert!(!asking.wait().unwrap().success());
    assert_eq!(looks(&node), 1, "it was killed before it tidied up");
    node.start();
    assert_eq!(looks(&node), 0);
    assert_eq!(node.points(), ["1.1"]);
    check(
        &node,
        &["diff", "latest", "live"],
        0,
        &["changed  1 B -> 2 B  a"],
        &[],
    );
}

/// Twenty changes among 100,000 files cost what twenty changes cost.
#[test]
fn the_cost_follows_the_changes() {
    if !ready("the_cost_follows_the_changes") {
        return;
    }
    let mut node = node(2 << 30, &["files"]);
    let live = node.live("files");
    for dir in 0..200 {
        let dir = live.join(format!("d{dir}"));
        fs::create_dir(&dir).unwrap();
        for file in 0..500 {
            fs::write(dir.join(format!("f{file}")), [b'x'; 100]).unwrap();
        }
    }
    take(&node);
    for change in 0..10 {
        fs::write(live.join(format!("d{}/f7", change * 19)), [b'y'; 200]).unwrap();
        fs::remove_file(live.join(format!("d{}/f8", change * 19))).unwrap();
    }
    take(&node);
    // A daemon that has done nothing else.
    node.stop();
    node.start();
    let timed = |words: &[&str]| {
        let begun = Instant::now();
        let said = node.run(words).ok().json();
        (begun.elapsed(), said)
    };
    timed(&["points", "--json"]);
    let before = node.peak_kib();
    let (took, said) = timed(&["diff", "1.1", "1.2", "--json"]);
    let (took_live, live_said) = timed(&["diff", "1.1", "live", "--json"]);
    let grown = node.peak_kib() - before;
    for said in [&said, &live_said] {
        let sums = &said["datasets"][0]["sums"];
        assert_eq!(
            (&sums["changed"]["files"], &sums["removed"]["files"]),
            (&10.into(), &10.into())
        );
    }
    println!(
        "20 changes of 100,000 files: points {took:?}, live {took_live:?}, memory +{grown} KiB"
    );
    assert!(
        took < Duration::from_secs(3) && took_live < Duration::from_secs(5),
        "{took:?} {took_live:?}"
    );
    assert!(grown < 16 << 10, "{grown} KiB");
}
