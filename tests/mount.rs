//! `standin mount` as an operator uses it: a real daemon, its mounts in this mount namespace.
#![allow(clippy::unwrap_used)]

mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use standin::logic::fork::Why;
use support::cluster::{MANUAL, TestNode, btrfs};
use support::fixture::{Loop, ready};
use support::forks;

const DATASETS: [&str; 2] = ["db", "files"];

/// A directory at which points are mounted; whatever a test leaves there goes with it.
struct Dir(PathBuf);

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = rustix::mount::unmount(&self.0, rustix::mount::UnmountFlags::DETACH);
    }
}

impl Dir {
    fn of(node: &TestNode, name: &str) -> Dir {
        let dir = node.dir.canonicalize().unwrap().join(name);
        fs::create_dir(&dir).unwrap();
        Dir(dir)
    }

    fn text(&self) -> &str {
        self.0.to_str().unwrap()
    }

    /// Names of what is in it, or below it.
    fn list(&self, below: &str) -> Vec<String> {
        let entries = fs::read_dir(self.0.join(below)).unwrap();
        let mut names: Vec<String> = entries
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    /// `epoch.sequence` of the points that are shown.
    fn points(&self) -> Vec<String> {
        let names = self.list("web").into_iter().filter(|name| name != "forks");
        names
            .map(|name| name.split_once("Z.").unwrap().1.to_owned())
            .collect()
    }

    fn at(&self, short: &str) -> PathBuf {
        let name = self
            .list("web")
            .into_iter()
            .find(|name| name.ends_with(&format!("Z.{short}")));
        self.0
            .join("web")
            .join(name.unwrap_or_else(|| panic!("{short} is not shown")))
    }

    /// Options of each mount below it.
    fn mounts(&self) -> Vec<(PathBuf, String)> {
        let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let lines = table
            .lines()
            .map(|line| line.split(' ').collect::<Vec<_>>());
        let found = lines.map(|fields| (PathBuf::from(fields[4]), fields[5].to_owned()));
        found.filter(|(at, _)| at.starts_with(&self.0)).collect()
    }
}

fn node(extra: &str) -> TestNode {
    let mut node = TestNode::on("alder", Loop::new(1 << 30));
    node.configure("birch", &DATASETS, "", extra);
    fs::create_dir_all(node.disk.path().join("srv")).unwrap();
    for name in DATASETS {
        btrfs(&["subvolume", "create", node.live(name).to_str().unwrap()]);
    }
    node.make_key();
    node.start();
    node
}

#[track_caller]
fn take(node: &TestNode, word: &str) {
    for name in DATASETS {
        fs::write(node.live(name).join("state"), word).unwrap();
    }
    // The peer is not paired: nothing is sent, the point is taken.
    assert_eq!(node.run(&["run", "web"]).code, 15);
}

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

fn state(path: &Path) -> String {
    fs::read_to_string(path.join("state")).unwrap()
}

#[test]
fn points_come_and_go() {
    if !ready("points_come_and_go") {
        return;
    }
    let mut node = node(MANUAL);
    let dir = Dir::of(&node, "look");
    take(&node, "one");
    take(&node, "two");
    let at = dir.text();
    check(
        &node,
        &["mount"],
        0,
        &["no points are mounted; standin mount DIR"],
    );
    check(
        &node,
        &["mount", at],
        0,
        &[
            "ok  show the points of all roles below",
            "standin unmount takes it down",
        ],
    );
    assert_eq!(dir.points(), ["1.1", "1.2"]);
    assert_eq!(state(&dir.at("1.1").join("db")), "one");
    assert_eq!(state(&dir.at("1.2").join("files")), "two");
    for (mount, options) in dir.mounts() {
        let all = ["ro", "nosuid", "nodev", "noexec"];
        let has = |word: &&str| options.split(',').any(|option| option == *word);
        assert!(all.iter().all(has), "{mount:?} {options}");
    }
    assert!(fs::write(dir.at("1.1").join("db/state"), "x").is_err());
    assert!(fs::create_dir(dir.0.join("web/mine")).is_err());
    assert!(fs::set_permissions(&dir.0, fs::Permissions::from_mode(0o777)).is_err());
    check(
        &node,
        &["mount"],
        0,
        &["points of all roles are mounted at", at],
    );
    check(
        &node,
        &["status"],
        0,
        &["points of all roles are mounted at"],
    );
    // New ones appear.
    take(&node, "three");
    node.wait_for("the new point is shown", || dir.points().len() == 3);
    assert_eq!(state(&dir.at("1.3").join("db")), "three");
    // Pruned ones vanish, whoever reads them.
    let open = fs::File::open(dir.at("1.1").join("db/state")).unwrap();
    node.edit(MANUAL, "every = \"manual\"\nkeep = { last = 2 }");
    node.run(&["reload"]).ok();
    node.run(&["prune", "web"]).ok();
    assert_eq!(node.points(), ["1.2", "1.3"]);
    assert_eq!(dir.points(), ["1.2", "1.3"]);
    assert_eq!(node.leftovers(), [""; 0].map(PathBuf::from));
    drop(open);
    let newest = found_again(&mut node, &dir);
    let held = fs::File::open(dir.at(&newest).join("db/state")).unwrap();
    check(&node, &["unmount", at], 0, &["ok  unmount"]);
    assert_eq!(std::io::read_to_string(held).unwrap(), "three");
    assert_eq!(dir.list(""), [""; 0]);
    assert_eq!(dir.mounts(), []);
    check(
        &node,
        &["unmount", at],
        15,
        &["no points are mounted there"],
    );
}

/// The newest point after all that.
fn found_again(node: &mut TestNode, dir: &Dir) -> String {
    node.stop();
    assert_eq!(
        state(&dir.at("1.2").join("db")),
        "two",
        "it needs no daemon"
    );
    node.start();
    check(node, &["mount"], 0, &[dir.text()]);
    node.kill();
    node.start();
    assert_eq!(dir.points(), ["1.2", "1.3"]);
    let fork = forks::fork(node, &DATASETS, &["1.3"], "1.2", Why::Returned);
    // The fork was made beside the daemon, which has not heard of it.
    node.run(&["reload"]).ok();
    assert_eq!(dir.points(), ["1.2"]);
    let shown = dir.0.join("web/forks").join(fork.name.to_string());
    assert_eq!(state(&shown.join("files")), "three");
    check(
        node,
        &["fork", "discard", "web", "1.3", "--yes"],
        0,
        &["discard fork 1.3"],
    );
    assert!(!dir.0.join("web/forks").exists());
    take(node, "three");
    node.wait_for("the new point is shown", || dir.points().len() == 2);
    let newest = node.points().pop().unwrap();
    // A role that is no longer configured.
    let config = fs::read_to_string(node.config_path()).unwrap();
    fs::write(node.config_path(), config.replace("role.web", "role.www")).unwrap();
    node.run(&["reload"]).ok();
    assert_eq!(dir.list(""), ["www"]);
    fs::write(node.config_path(), config).unwrap();
    node.run(&["reload"]).ok();
    assert_eq!(dir.list(""), ["web"]);
    assert!(dir.points().contains(&newest));
    newest
}

#[test]
fn places_that_are_refused() {
    if !ready("places_that_are_refused") {
        return;
    }
    let node = node(MANUAL);
    take(&node, "one");
    let dir = Dir::of(&node, "look");
    let missing = node.dir.join("none");
    check(
        &node,
        &["mount", missing.to_str().unwrap()],
        2,
        &["does not exist", "hint: mkdir"],
    );
    fs::write(dir.0.join("mine"), "").unwrap();
    check(&node, &["mount", dir.text()], 2, &["it is not empty"]);
    fs::remove_file(dir.0.join("mine")).unwrap();
    let inside = node.live("db").join("look");
    fs::create_dir(&inside).unwrap();
    check(
        &node,
        &["mount", inside.to_str().unwrap()],
        2,
        &["it lies in the dataset db of role web"],
    );
    let above = node.disk.path().join("srv");
    check(
        &node,
        &["mount", above.to_str().unwrap()],
        2,
        &["it would hide the dataset"],
    );
    check(
        &node,
        &["mount", dir.text(), "--role", "wob"],
        17,
        &["find role wob"],
    );
    check(
        &node,
        &["mount", dir.text(), "--allow", "nobody-knows"],
        2,
        &["find user \"nobody-knows\""],
    );
    check(
        &node,
        &["mount", dir.text(), "--allow", ":"],
        2,
        &["write --allow USER"],
    );
    check(
        &node,
        &["mount", dir.text(), "--role", "web"],
        0,
        &["of role web below"],
    );
    check(&node, &["mount", dir.text()], 2, &["it is not empty"]);
    let deeper = dir.at("1.1").join("db/look");
    assert!(!deeper.exists());
    check(
        &node,
        &["unmount", node.dir.to_str().unwrap()],
        15,
        &["hint: points are mounted at"],
    );
    // Another daemon's trees are not this one's.
    let other = Dir::of(&node, "other");
    let planted =
        standin::fs::browse::plant(&other.0, Path::new("/nowhere"), None, Default::default());
    planted.unwrap();
    check(
        &node,
        &["unmount", other.text()],
        15,
        &["no points are mounted there"],
    );
}

/// Only root enters, unless others are named; and the files' own modes decide.
#[test]
fn who_may_look() {
    if !ready("who_may_look") {
        return;
    }
    let node = node(MANUAL);
    let files = node.live("files");
    for (name, mode) in [("open", 0o644), ("closed", 0o600)] {
        fs::write(files.join(name), name).unwrap();
        fs::set_permissions(files.join(name), fs::Permissions::from_mode(mode)).unwrap();
    }
    take(&node, "one");
    fs::set_permissions(&node.dir, fs::Permissions::from_mode(0o755)).unwrap();
    let reads = |dir: &Dir, name: &str, group: &str| {
        let path = dir.at("1.1").join("files").join(name);
        let user = ["--reuid=65534", group, "--clear-groups", "cat"];
        let said = Command::new("setpriv")
            .args(user)
            .arg(path)
            .output()
            .unwrap();
        said.status.success()
    };
    let (mine, nobodys) = ("--regid=65534", "--regid=4711");
    let check = |allow: Option<&str>, group: &str, expected: bool| {
        let dir = Dir::of(
            &node,
            &format!("look-{}", allow.unwrap_or("none").replace(':', "-")),
        );
        let mut words = vec!["mount", dir.text()];
        words.extend(allow.iter().flat_map(|allow| ["--allow", allow]));
        node.run(&words).ok();
        assert_eq!(reads(&dir, "open", group), expected, "{allow:?}");
        assert!(!reads(&dir, "closed", group), "{allow:?}");
        node.run(&["unmount", dir.text()]).ok();
        fs::remove_dir(&dir.0).unwrap();
    };
    check(None, mine, false);
    check(Some("65534"), nobodys, true);
    check(Some(":65534"), mine, true);
    check(Some(":65534"), nobodys, false);
    check(Some("0:4711"), nobodys, true);
}

/// Two filesystems with points of one name: what goes from one stays shown of the other.
#[test]
fn a_point_of_the_same_name_elsewhere_goes() {
    if !ready("a_point_of_the_same_name_elsewhere_goes") {
        return;
    }
    let (mine, other) = (node(MANUAL), node(MANUAL));
    let dir = Dir::of(&mine, "look");
    mine.run(&["mount", dir.text()]).ok();
    let names = |node: &TestNode| {
        let points = fs::read_dir(node.disk.path().join(".standin/web")).unwrap();
        let mut names: Vec<_> = points.map(|e| e.unwrap().file_name()).collect();
        names.sort();
        names
    };
    // Named by the second: sooner or later both are taken within one.
    let both = || {
        take(&mine, "mine");
        take(&other, "other");
        names(&mine).pop() == names(&other).pop()
    };
    assert!((0..50).any(|_| both()));
    let newest = mine.points().pop().unwrap();
    let shown = dir.at(&newest).join("db");
    assert_eq!(state(&shown), "mine");
    // One more here, so that the same-named there is not its newest.
    let before = names(&other).pop();
    take(&other, "other");
    other.edit(MANUAL, "every = \"manual\"\nkeep = { last = 1 }");
    other.run(&["reload"]).ok();
    other.run(&["prune", "web"]).ok();
    assert!(!names(&other).contains(&before.unwrap()));
    assert_eq!(state(&shown), "mine");
}

/// A daemon that is killed while it mounts leaves a tree that the next one completes.
#[test]
fn killed_while_mounting() {
    if !ready("killed_while_mounting") {
        return;
    }
    let mut node = node(MANUAL);
    take(&node, "one");
    take(&node, "two");
    for place in ["tree-planted", "tree-branch", "tree-branch:3"] {
        node.stop();
        node.start_with(&[("STANDIN_FREEZE", place)]);
        let dir = Dir::of(&node, &place.replace(':', "-"));
        let mut asking = node.command(&["mount", dir.text()]);
        let quiet = std::process::Stdio::null;
        let frozen = || node.log().matches("frozen").count();
        let before = frozen();
        let mut asking = asking.stdout(quiet()).stderr(quiet()).spawn().unwrap();
        node.wait_for("the daemon is frozen", || frozen() > before);
        node.kill();
        assert!(!asking.wait().unwrap().success());
        node.start();
        assert_eq!(dir.points(), ["1.1", "1.2"], "{place}");
        assert_eq!(state(&dir.at("1.1").join("db")), "one", "{place}");
        assert_eq!(dir.mounts().len(), 5, "{place}");
        assert!(fs::create_dir(dir.0.join("mine")).is_err(), "{place}");
        node.run(&["unmount", dir.text()]).ok();
    }
}
