//! Versions on one node.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use standin::logic::fork::Why;

use crate::stage::{check, names, text, versions, with_history};
use crate::support::cluster::btrfs;
use crate::support::fixture::ready;
use crate::support::forks;

#[test]
fn every_version_is_found() {
    if !ready("every_version_is_found") {
        return;
    }
    let node = with_history();
    let live = node.live("files");
    let path = |name: &str| live.join(name).to_str().unwrap().to_owned();
    let found = |name: &str, expected: &[&str]| {
        assert_eq!(versions(&node, &[&path(name)]), expected, "{name}");
        // The same by its place in the dataset, and asked of nobody else.
        assert_eq!(
            versions(&node, &["--role", "web", "--local", name]),
            expected,
            "{name}"
        );
    };
    let a = [
        "1 changed -live",
        "2 metadata 1.3-1.5",
        "3 changed 1.2-1.2",
        "4 oldest 1.1-1.1",
    ];
    found("a", &a);
    found("b", &["1 replaced 1.5-live", "2 oldest 1.1-1.4"]);
    found(
        "deep/er/gone.txt",
        &["- removed 1.4-live", "1 oldest 1.1-1.3"],
    );
    found("deep", &["- removed 1.4-live", "1 oldest 1.1-1.3"]);
    // From a directory of one's own, and through a link.
    let link = node.dir.join("link");
    std::os::unix::fs::symlink(&live, &link).unwrap();
    assert_eq!(versions(&node, &[link.join("a").to_str().unwrap()]), a);
    let mut here = node.command(&["find", "./a", "--json"]);
    let here = here.current_dir(&live).output().unwrap();
    assert!(here.status.success(), "{here:?}");
}

#[test]
fn what_was_found_is_told_and_shown() {
    if !ready("what_was_found_is_told_and_shown") {
        return;
    }
    let node = with_history();
    let live = node.live("files");
    let path = |name: &str| live.join(name).to_str().unwrap().to_owned();
    let shown = [
        "SINCE",
        "mode 644 -> 600",
        "changed, on alder",
        "live",
        "birch: not asked: ",
        "--version 2 brings it back",
    ];
    check(&node, &["find", &path("a")], 0, &shown);
    check(
        &node,
        &["find", &path("**/*.txt"), "--deleted"],
        0,
        &["deep/er/gone.txt", "deep/er/more.txt", "removed"],
    );
    check(
        &node,
        &["find", &path("deep/*/gone.txt")],
        0,
        &["deep/er/gone.txt  (web/files)"],
    );
    check(
        &node,
        &["find", &path("a"), "--deleted"],
        0,
        &["nothing of that kind"],
    );
    check(
        &node,
        &["find", &path("a"), "--peers"],
        0,
        &["nothing of that kind"],
    );
    check(
        &node,
        &["find", &path("never")],
        17,
        &["no point and no fork shows it", "birch: not asked"],
    );
    check(
        &node,
        &["find", "/etc/passwd"],
        17,
        &[
            "in no dataset of this node",
            "datasets of this node live at",
        ],
    );
    check(
        &node,
        &["find", live.to_str().unwrap()],
        2,
        &["it is the whole dataset web/files"],
    );
    check(
        &node,
        &["find", "--role", "nope", "a"],
        17,
        &["find role nope"],
    );

    check(&node, &["cat", &path("a")], 0, &["three\n"]);
    check(&node, &["cat", &path("a"), "--version", "4"], 0, &["one\n"]);
    check(&node, &["cat", &path("a"), "--point", "1.2"], 0, &["two\n"]);
    check(
        &node,
        &["cat", &path("deep/er/gone.txt")],
        0,
        &["precious\n"],
    );
    check(
        &node,
        &["cat", &path("deep/er/gone.txt"), "--before", "now"],
        17,
        &["it was not there then: 1.3 is the last point"],
    );
    check(
        &node,
        &["cat", &path("a"), "--version", "9"],
        17,
        &["they go from 1 to 4", "standin find"],
    );
    check(
        &node,
        &["cat", &path("a"), "--before", "soon"],
        2,
        &["is not a time", "yesterday"],
    );
    check(
        &node,
        &["cat", &path("a"), "--before", "5y ago"],
        2,
        &["is not a time"],
    );
    check(
        &node,
        &["cat", &path("a"), "--before", "5 years ago"],
        17,
        &["no point of that time"],
    );
    check(
        &node,
        &["cat", &path("b"), "--version", "1"],
        2,
        &["it is no file but a directory", "/*' lists"],
    );
    check(
        &node,
        &["cat", &path("*"), "--version", "1"],
        2,
        &["it means 3 paths", "name one"],
    );
}

#[test]
fn a_version_comes_back() {
    if !ready("a_version_comes_back") {
        return;
    }
    let node = with_history();
    let live = node.live("files");
    let path = |name: &str| live.join(name).to_str().unwrap().to_owned();
    let a = path("a");
    let preview = [
        "restore ",
        "version 3, file, 4 B",
        "live  file, 6 B",
        "-three\n",
        "+two\n",
        "keep what is live now as a point",
        "nothing was changed (dry run)",
    ];
    check(
        &node,
        &["restore", &a, "--version", "3", "--dry-run"],
        0,
        &preview,
    );
    check(
        &node,
        &["restore", &a, "--version", "3"],
        15,
        &["no terminal to ask on", "--yes"],
    );
    assert_eq!(text(&live.join("a")), "three\n");
    check(
        &node,
        &["restore", &a, "--version", "1", "--yes"],
        15,
        &["version 1 is what is live now"],
    );
    let undo = format!("to undo: standin restore {a} --point 1.6");
    check(
        &node,
        &["restore", &a, "--version", "3", "--yes"],
        0,
        &["what was live is kept as 1.6", &undo],
    );
    assert_eq!(text(&live.join("a")), "two\n");
    assert_eq!(fs::metadata(live.join("a")).unwrap().mode() & 0o777, 0o644);
    // It is as an older one was, and undone by the command that was told.
    assert!(versions(&node, &[&a])[0].starts_with("1 changed "));
    check(&node, &["find", &a], 0, &["as version 4"]);
    check(
        &node,
        &["restore", &a, "--point", "1.6", "--yes"],
        0,
        &["restored"],
    );
    assert_eq!(text(&live.join("a")), "three\n");

    // Without a word: the newest that is not live. Behind directories that are gone, which come back as they were.
    let gone = path("deep/er/gone.txt");
    check(
        &node,
        &["restore", &gone, "--yes"],
        0,
        &["restored", "there was nothing at"],
    );
    assert_eq!(text(&live.join("deep/er/gone.txt")), "precious\n");
    assert_eq!(names(&live.join("deep/er")), ["gone.txt"]);
    let deep = fs::metadata(live.join("deep")).unwrap();
    assert_eq!((deep.uid(), deep.gid()), (1234, 2345));
    assert_eq!(
        fs::metadata(live.join("deep/er")).unwrap().mode() & 0o777,
        0o710
    );
}

#[test]
fn a_version_goes_elsewhere() {
    if !ready("a_version_goes_elsewhere") {
        return;
    }
    let node = with_history();
    let live = node.live("files");
    let path = |name: &str| live.join(name).to_str().unwrap().to_owned();
    let a = path("a");
    // Beside, and elsewhere: nothing is asked, nothing live is touched.
    let points = node.points();
    check(
        &node,
        &["restore", &a, "--point", "1.1", "--beside"],
        0,
        &["a.standin-1.1"],
    );
    assert_eq!(text(&live.join("a.standin-1.1")), "one\n");
    check(
        &node,
        &["restore", &a, "--point", "1.1", "--beside"],
        2,
        &["it exists"],
    );
    let to = node.dir.join("out");
    fs::create_dir(&to).unwrap();
    check(
        &node,
        &[
            "restore",
            &path("deep"),
            "--point",
            "1.3",
            "--to",
            to.to_str().unwrap(),
        ],
        0,
        &["restored"],
    );
    assert_eq!(names(&to.join("deep/er")), ["gone.txt", "more.txt"]);
    assert_eq!(node.points(), points, "nothing live was replaced");

    // The forms of old, and what cannot be meant.
    check(
        &node,
        &["restore", "web", "--point", "1.1", "--path", "a", "--yes"],
        0,
        &["restored web"],
    );
    assert_eq!(text(&live.join("a")), "one\n");
    check(
        &node,
        &["restore", "web", "--before", "now", "--dry-run"],
        0,
        &["restore web  from point"],
    );
    check(
        &node,
        &["restore", "web", "--before", "5 years ago", "--dry-run"],
        17,
        &["the oldest one is 1.1"],
    );
    check(
        &node,
        &["restore", "web", "--version", "2"],
        2,
        &["--version and --beside are for a path"],
    );
    check(
        &node,
        &["restore", &a, "--path", "b"],
        2,
        &["one path is enough"],
    );
    check(&node, &["restore"], 2, &["<ROLE|PATH>"]);
    let mut here = node.command(&["restore", "a", "--yes"]);
    let here = here.current_dir(&live).output().unwrap();
    let told = String::from_utf8_lossy(&here.stderr).into_owned();
    assert!(told.contains("the file here is ./a"), "{told}");
    assert_eq!(node.leftovers(), Vec::<PathBuf>::new());
}

#[test]
fn a_nested_subvolume_does_not_go_with_a_directory() {
    if !ready("a_nested_subvolume_does_not_go_with_a_directory") {
        return;
    }
    let node = with_history();
    let live = node.live("files");
    let nested = live.join("b/sub");
    btrfs(&["subvolume", "create", nested.to_str().unwrap()]);
    fs::write(nested.join("only"), "copy").unwrap();
    let b = live.join("b").to_str().unwrap().to_owned();
    check(
        &node,
        &["restore", &b, "--point", "1.1", "--yes"],
        15,
        &["is a nested subvolume, which no point holds", "--beside"],
    );
    assert_eq!(text(&nested.join("only")), "copy");
    check(
        &node,
        &["restore", "web", "--path", "b", "--point", "1.1", "--yes"],
        15,
        &["is a nested subvolume"],
    );
    assert_eq!(text(&nested.join("only")), "copy");
}

#[test]
fn forks_have_versions_too() {
    if !ready("forks_have_versions_too") {
        return;
    }
    let node = with_history();
    forks::fork(
        &node,
        &["files"],
        &["1.3", "1.4", "1.5"],
        "1.2",
        Why::Returned,
    );
    let a = node.live("files").join("a").to_str().unwrap().to_owned();
    let expected = [
        "1 changed -live",
        "2 metadata 1.3-1.5 fork 1.5",
        "3 changed 1.2-1.2",
        "4 oldest 1.1-1.1",
    ];
    assert_eq!(versions(&node, &[&a]), expected);
    check(&node, &["find", &a], 0, &["fork 1.5, on alder"]);
    check(&node, &["cat", &a, "--point", "1.5"], 0, &["two\n"]);
    check(
        &node,
        &["restore", &a, "--version", "2", "--yes"],
        0,
        &["(fork 1.5)", "is kept as"],
    );
    assert_eq!(text(Path::new(&a)), "two\n");
    assert_eq!(fs::metadata(&a).unwrap().mode() & 0o777, 0o600);
}
