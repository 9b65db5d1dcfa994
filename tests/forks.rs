//! Forks on real btrfs: what differs is judged by walking the trees, and a process that is killed anywhere leaves every
//! point in the catalogue or in the fork.
#![allow(clippy::unwrap_used)]

#[path = "contract/stage.rs"]
mod stage;
mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use stage::*;
use standin::fs::apart::set_apart;
use standin::fs::btrfs::{Btrfs, unmount_fork};
use standin::fs::{Filesystem, FsError, Held};
use standin::logic::changes::{Change, What, shown};
use standin::logic::fork::Why;
use standin::logic::manifest::Stored;
use support::tree::{Names, Tree};

fn changes(fs: &Btrfs, name: &str, base: &Stored, newer: &Stored) -> Vec<Change> {
    let held = |stored: &Stored| Held::Point(stored.manifest.point.clone());
    fs.changes(&dataset(name), &held(base), &held(newer))
        .unwrap()
}

/// `+a`, `-a`, `~a`, `a>b`, `=a`, one each.
fn words(changes: &[Change]) -> Vec<String> {
    let word = |change: &Change| {
        let path = shown(&change.path);
        match change.what {
            What::Added => format!("+{path}"),
            What::Removed => format!("-{path}"),
            What::Changed => format!("~{path}"),
            What::Renamed => format!("{}>{path}", shown(change.from.as_ref().unwrap())),
            What::Metadata => format!("={path}"),
        }
    };
    changes.iter().map(word).collect()
}

#[test]
fn what_people_do_is_told_as_such() {
    if !ready("what_people_do_is_told_as_such") {
        return;
    }
    let disk = Disk::new(512);
    let web = disk.subvolume("web");
    let fs = btrfs(&[("web", &web)]);
    let mut sequence = 0;
    let mut before = None;
    let mut check = |what: &str, act: &dyn Fn(&Path), expected: &[&str]| {
        act(&web);
        sequence += 1;
        let after = take(&fs, 1, sequence);
        if let Some(before) = before.replace(after.clone()) {
            assert_eq!(
                words(&changes(&fs, "web", &before, &after)),
                expected,
                "{what}"
            );
        }
    };
    let make = |dir: &Path| {
        for name in ["a", "b", "d/f", "d/g", "e/h"] {
            fs::create_dir_all(dir.join(name).parent().unwrap()).unwrap();
            fs::write(dir.join(name), vec![1; 10_000]).unwrap();
        }
    };
    check("first", &make, &[]);
    check("nothing", &|_| {}, &[]);
    let swap = |dir: &Path, one: &str, other: &str| {
        let flags = rustix::fs::RenameFlags::EXCHANGE;
        let cwd = rustix::fs::CWD;
        rustix::fs::renameat_with(cwd, dir.join(one), cwd, dir.join(other), flags).unwrap();
    };
    check("swap", &|dir| swap(dir, "a", "b"), &["b>a", "a>b"]);
    check(
        "swap directories",
        &|dir| swap(dir, "d", "e"),
        &["e>d", "d>e"],
    );
    check("swap back", &|dir| swap(dir, "d", "e"), &["e>d", "d>e"]);
    let edit = |dir: &Path| {
        fs::write(dir.join(".tmp"), "new").unwrap();
        fs::rename(dir.join(".tmp"), dir.join("a")).unwrap();
    };
    check("an editor's save", &edit, &["~a"]);
    let renamed = |dir: &Path| {
        fs::rename(dir.join("d"), dir.join("x")).unwrap();
        fs::write(dir.join("x/f"), "12").unwrap();
        fs::remove_file(dir.join("x/g")).unwrap();
    };
    check("rename and change", &renamed, &["-d/g", "d>x", "~x/f"]);
    check(
        "link",
        &|dir| fs::hard_link(dir.join("b"), dir.join("l")).unwrap(),
        &["+l"],
    );
    check(
        "unlink",
        &|dir| fs::remove_file(dir.join("b")).unwrap(),
        &["-b", "=l"],
    );
    let rotate = |dir: &Path| {
        fs::rename(dir.join("l"), dir.join("l.1")).unwrap();
        fs::write(dir.join("l"), "").unwrap();
    };
    check("rotate", &rotate, &["+l", "l>l.1"]);
    let touch = |dir: &Path| {
        let file = fs::File::open(dir.join("a")).unwrap();
        file.set_modified(std::time::UNIX_EPOCH).unwrap();
    };
    check("touch", &touch, &["=a"]);
    let gone = |dir: &Path| fs::remove_dir_all(dir.join("e")).unwrap();
    check("remove a tree", &gone, &["-e", "-e/h"]);
}

/// An entry as the trees themselves have it: inode, kind and mode, size, links.
fn walk(root: &Path) -> BTreeMap<Vec<u8>, (u64, u32, u64)> {
    let mut found = BTreeMap::new();
    let mut open = vec![PathBuf::new()];
    while let Some(dir) = open.pop() {
        for entry in fs::read_dir(root.join(&dir)).unwrap() {
            let path = dir.join(entry.unwrap().file_name());
            let facts = root.join(&path).symlink_metadata().unwrap();
            if facts.is_dir() {
                open.push(path.clone());
            }
            let key = path.as_os_str().as_bytes().to_vec();
            // A directory's size follows its entries.
            let size = if facts.is_dir() { 0 } else { facts.size() };
            found.insert(key, (facts.ino(), facts.mode(), size));
        }
    }
    found
}

/// Where `path` was in the base, by what the changes say of it and of the directories above it.
fn origin(path: &[u8], moved: &BTreeMap<&[u8], Option<&[u8]>>) -> Option<Vec<u8>> {
    let mut end = path.len();
    loop {
        if let Some(from) = moved.get(&path[..end]) {
            return from.map(|from| [from, &path[end..]].concat());
        }
        match path[..end].iter().rposition(|&b| b == b'/') {
            Some(at) => end = at,
            None => return Some(path.to_vec()),
        }
    }
}

/// Everything that differs is in `changes`, and what is in there differs.
fn judge(base: &Path, newer: &Path, changes: &[Change], seed: u64) {
    let (old, new) = (walk(base), walk(newer));
    let mut moved: BTreeMap<&[u8], Option<&[u8]>> = BTreeMap::new();
    let mut told: BTreeMap<&[u8], &Change> = BTreeMap::new();
    let mut removed: BTreeSet<&[u8]> = BTreeSet::new();
    for change in changes {
        match change.what {
            What::Removed => {
                removed.insert(&change.path);
                continue;
            }
            What::Added => moved.insert(&change.path, None),
            What::Renamed => moved.insert(&change.path, change.from.as_deref()),
            What::Changed | What::Metadata => change
                .from
                .as_ref()
                .and_then(|from| moved.insert(&change.path, Some(from))),
        };
        told.insert(&change.path, change);
    }
    let by_inode: BTreeSet<u64> = told
        .keys()
        .filter_map(|path| Some(new.get(*path)?.0))
        .collect();
    let mut kept = BTreeSet::new();
    for (path, facts) in &new {
        let text = shown(path);
        let Some(was) = origin(path, &moved) else {
            continue;
        };
        let before = old.get(&was);
        let before =
            before.unwrap_or_else(|| panic!("seed {seed}: {text} was not {}", shown(&was)));
        kept.insert(was.clone());
        let listed = told.get(&path[..]);
        if listed.is_none() && !by_inode.contains(&facts.0) {
            assert_eq!(before, facts, "seed {seed}: {text} is not listed");
        }
        if facts.1 & 0o170_000 == 0o100_000 && before.1 & 0o170_000 == 0o100_000 {
            let pair = (base.join(as_path(&was)), newer.join(as_path(path)));
            let spans = by_inode
                .contains(&facts.0)
                .then(|| written(&new, &told, facts.0));
            same_outside(&pair, &spans.unwrap_or_default(), &text, seed);
        }
    }
    for path in old.keys() {
        let gone = !kept.contains(path);
        assert_eq!(
            gone,
            removed.contains(&path[..]),
            "seed {seed}: {} removed",
            shown(path)
        );
    }
}

fn as_path(path: &[u8]) -> PathBuf {
    std::ffi::OsStr::from_bytes(path).into()
}

/// What was written to the file of that inode, whichever of its names it is told under; everything past a new end.
fn written(
    new: &BTreeMap<Vec<u8>, (u64, u32, u64)>,
    told: &BTreeMap<&[u8], &Change>,
    inode: u64,
) -> Vec<(u64, u64)> {
    let mut spans = Vec::new();
    for (path, change) in told {
        if new.get(*path).is_some_and(|facts| facts.0 == inode) {
            let each = change.written.iter();
            spans.extend(each.map(|span| (span.offset, span.offset + span.len)));
            spans.extend(change.resized.map(|size| (size, u64::MAX)));
            spans.extend(change.replaced.then_some((0, u64::MAX)));
        }
    }
    spans
}

fn same_outside((was, is): &(PathBuf, PathBuf), spans: &[(u64, u64)], what: &str, seed: u64) {
    let (was, is) = (fs::read(was).unwrap(), fs::read(is).unwrap());
    if was == is {
        return;
    }
    for at in 0..was.len().max(is.len()) {
        let inside = |(from, to): &(u64, u64)| (*from..*to).contains(&(at as u64));
        if was.get(at).unwrap_or(&0) != is.get(at).unwrap_or(&0) {
            assert!(
                spans.iter().any(inside),
                "seed {seed}: {what} differs at byte {at}: {spans:?}"
            );
        }
    }
}

#[test]
fn random_trees() {
    if !ready("random_trees") {
        return;
    }
    for seed in 1..=6 {
        let disk = Disk::new(1024);
        let web = disk.subvolume("web");
        let fs = btrfs(&[("web", &web)]);
        let mut tree = Tree::new(&web, seed, Names::Bytes);
        tree.change(150);
        let mut before = take(&fs, 1, 1);
        for sequence in 2..5 {
            tree.change(60);
            let after = take(&fs, 1, sequence);
            let found = changes(&fs, "web", &before, &after);
            let path = |stored: &Stored| {
                fs.snapshot_path(&dataset("web"), &stored.manifest.point)
                    .unwrap()
            };
            judge(&path(&before), &path(&after), &found, seed);
            before = after;
        }
    }
}

#[test]
fn a_fork_is_mounted_and_exported() {
    if !ready("a_fork_is_mounted_and_exported") {
        return;
    }
    let disk = Disk::new(512);
    let (web, db) = (disk.subvolume("web"), disk.subvolume("db"));
    fs::write(web.join("page"), "w").unwrap();
    fs::write(db.join("table"), "d").unwrap();
    let fs = btrfs(&[("web", &web), ("db", &db)]);
    let point = take(&fs, 1, 1);
    let fork = described(None, &[&point]);
    fs.fork(&ids(&[&point]), fork.clone()).unwrap();
    let home = tempfile::tempdir().unwrap();
    let dir = home.path().join("look");
    let missing = said(fs.mount_fork(&fork.name, &dir));
    assert!(missing.contains("does not exist / mkdir"), "{missing}");
    fs::create_dir(&dir).unwrap();
    fs::write(dir.join("mine"), "").unwrap();
    assert!(said(fs.mount_fork(&fork.name, &dir)).contains("not empty"));
    fs::remove_file(dir.join("mine")).unwrap();
    assert!(said(unmount_fork(&dir)).contains("no fork is mounted there"));
    fs.mount_fork(&fork.name, &dir).unwrap();
    assert_eq!(fs::read_to_string(dir.join("web/page")).unwrap(), "w");
    assert_eq!(fs::read_to_string(dir.join("db/table")).unwrap(), "d");
    assert!(fs::write(dir.join("web/page"), "x").is_err());
    assert!(fs::write(dir.join("more"), "x").is_err());
    assert_eq!(
        fs.fork_mounts(&fork.name).unwrap(),
        [dir.canonicalize().unwrap()]
    );
    let told = said(fs.discard_fork(&fork.name));
    assert!(
        told.contains("it is mounted at") && told.contains("fork unmount"),
        "{told}"
    );
    let open = fs::File::open(dir.join("web/page")).unwrap();
    assert!(said(unmount_fork(&dir)).contains("somebody uses it"));
    drop(open);
    unmount_fork(&dir).unwrap();
    assert_eq!(
        fs::read_dir(&dir).unwrap().count(),
        0,
        "nothing is left behind"
    );
    assert_eq!(
        fs.fork_mounts(&fork.name).unwrap(),
        [""; 0].map(PathBuf::from)
    );

    let target = disk.path().join("copies/web");
    fs.export_fork(&fork.name, &dataset("web"), &target)
        .unwrap();
    fs::write(target.join("page"), "mine now").unwrap();
    let again = said(fs.export_fork(&fork.name, &dataset("web"), &target));
    assert!(again.contains("exists already"), "{again}");
    fs.discard_fork(&fork.name).unwrap();
    assert_eq!(fs::read_to_string(target.join("page")).unwrap(), "mine now");
}

#[test]
fn a_point_that_came_back_is_kept_once() {
    if !ready("a_point_that_came_back_is_kept_once") {
        return;
    }
    let disk = Disk::new(512);
    let web = disk.subvolume("web");
    let fs = btrfs(&[("web", &web)]);
    let point = take(&fs, 1, 1);
    let fork = described(None, &[&point]);
    let name = fork.name.to_string();
    fs.fork(&ids(&[&point]), fork.clone()).unwrap();
    // The very same snapshot again, as a peer would send it back: here, another one of the same identity.
    let standin = disk.path().join(".standin");
    let (kept, back) = (
        standin.join(format!(".forks/shop/{name}/{name}")),
        standin.join("shop").join(&name),
    );
    fs::create_dir(&back).unwrap();
    must(
        "btrfs",
        &[
            "subvolume",
            "snapshot",
            "-r",
            text(&kept.join("web")),
            text(&back.join("web")),
        ],
    );
    fs::copy(kept.join(".manifest.json"), back.join(".manifest.json")).unwrap();
    fs.prepare().unwrap();
    assert!(
        back.exists(),
        "what was moved once is not moved again by itself"
    );
    fs.fork(&ids(&[&point]), fork.clone()).unwrap();
    assert!(!back.exists());
    assert!(kept.join("web").exists());
    // Another point of that name is not: nothing is lost.
    fs::create_dir(&back).unwrap();
    let manifest = fs::read_to_string(kept.join(".manifest.json")).unwrap();
    let other = manifest.replace("\"asked\"", "\"schedule\"");
    fs::write(back.join(".manifest.json"), other).unwrap();
    assert!(said(fs.fork(&ids(&[&point]), fork)).contains("holds another point"));
    assert!(back.exists());
}

#[test]
fn a_lost_description_is_made_anew() {
    if !ready("a_lost_description_is_made_anew") {
        return;
    }
    let disk = Disk::new(512);
    let web = disk.subvolume("web");
    let fs = btrfs(&[("web", &web)]);
    let (one, two) = (take(&fs, 1, 1), take(&fs, 1, 2));
    let fork = described(None, &[&one, &two]);
    fs.fork(&ids(&[&one, &two]), fork.clone()).unwrap();
    let path = disk
        .path()
        .join(format!(".standin/.forks/shop/{}/.fork.json", fork.name));
    let check = |what: &str| {
        let found = fs.forks().unwrap();
        assert_eq!((found.len(), found[0].why), (1, Why::Unknown), "{what}");
        assert_eq!(found[0].points, fork.points, "{what}");
    };
    fs::write(&path, "{ rubbish").unwrap();
    check("unreadable");
    fs::remove_file(&path).unwrap();
    check("gone");
}

#[test]
fn what_is_being_discarded_takes_nothing_in() {
    if !ready("what_is_being_discarded_takes_nothing_in") {
        return;
    }
    let disk = Disk::new(512);
    let web = disk.subvolume("web");
    let fs = btrfs(&[("web", &web)]);
    let (one, two) = (take(&fs, 1, 1), take(&fs, 1, 2));
    let forks = disk.path().join(".standin/.forks/shop");
    let mark = |name: String| {
        fs::create_dir_all(forks.join(&name)).unwrap();
        fs::write(forks.join(&name).join(".destroyed"), "true").unwrap();
    };
    let fork = described(None, &[&two]);
    mark(fork.name.to_string());
    fs.fork(&ids(&[&two]), fork.clone()).unwrap();
    fs.sweep().unwrap();
    assert_eq!(fs.forks().unwrap(), std::slice::from_ref(&fork));
    mark(fork.name.to_string());
    assert_eq!(fs.forks().unwrap(), []);
    fs.sweep().unwrap();
    assert_eq!(fs::read_dir(&forks).unwrap().count(), 0);
    // Described, and not all of it moved: what is discarded must have been seen.
    let both = described(None, &[&one, &two]);
    fs.fork(&ids(&[&one]), both.clone()).unwrap();
    assert_eq!(listed(&fs), []);
    let three = take(&fs, 1, 3);
    let path = forks.join(both.name.to_string()).join(".fork.json");
    let grown = described(None, &[&one, &three]);
    let text = serde_json::to_string(&grown).unwrap();
    let text = text.replacen(&grown.name.to_string(), &both.name.to_string(), 1);
    fs::write(&path, text).unwrap();
    let busy = fs.discard_fork(&both.name).err().unwrap();
    assert!(matches!(busy.downcast_ref(), Some(FsError::Busy(_))));
    assert_eq!(
        (listed(&fs), fs.forks().unwrap()[0].points.len()),
        (vec![], 2)
    );
    fs.discard_fork(&both.name).unwrap();
}

/// Not a test of its own: what [`killed_anywhere`] starts, with a place to freeze at.
#[test]
fn killed_child() {
    let Some(job) = std::env::var_os("STANDIN_TEST_CHILD") else {
        return;
    };
    let (paths, what): (Vec<PathBuf>, String) =
        serde_json::from_str(job.to_str().unwrap()).unwrap();
    let fs = role(&paths);
    if what == "discard" {
        let name = fs.forks().unwrap()[0].name;
        return fs.discard_fork(&name).unwrap();
    }
    let points = fs.list().unwrap();
    let off: Vec<&Stored> = points.iter().skip(1).collect();
    fs.fork(&ids(&off), described(points.first(), &off))
        .unwrap();
}

fn role(paths: &[PathBuf]) -> Btrfs {
    let names = ["db", "web"];
    let datasets: Vec<(&str, &Path)> = names
        .iter()
        .zip(paths)
        .map(|(n, p)| (*n, p.as_path()))
        .collect();
    btrfs(&datasets)
}

/// Runs the child until it has frozen there, and kills it. False: it came to its end without.
fn kill_at(freeze: &str, job: &str) -> bool {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "killed_child", "--nocapture"])
        .env("STANDIN_TEST_CHILD", job)
        .env("STANDIN_FREEZE", freeze)
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let stat = format!("/proc/{}/stat", child.id());
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
    let is_stopped = || fs::read_to_string(&stat).is_ok_and(|stat| stat.contains(") T "));
    while !is_stopped() {
        if child.try_wait().unwrap().is_some() {
            return false;
        }
        assert!(
            std::time::Instant::now() < deadline,
            "{freeze} is never reached"
        );
        std::thread::yield_now();
    }
    child.kill().unwrap();
    child.wait().unwrap();
    true
}

/// Every point is where it can be found, whole, and none is called damaged.
fn nothing_is_lost(fs: &Btrfs, what: &str) -> (usize, usize) {
    let found = fs.inspect().unwrap();
    assert_eq!(found.damaged, [], "{what}");
    let forks = fs.forks().unwrap();
    assert!(forks.len() <= 1, "{what}");
    for fork in &forks {
        for point in &fork.points {
            for (number, name) in fs.datasets().keys().enumerate() {
                let path = fs.fork_path(&fork.name, name, Some(&point.id)).unwrap();
                let text = fs::read_to_string(path.join("file")).unwrap();
                assert_eq!(text, format!("{} {number}", point.id.sequence), "{what}");
            }
        }
    }
    (
        found.points.len(),
        forks.iter().map(|fork| fork.points.len()).sum(),
    )
}

/// Kills at `freeze` in a role on one filesystem or two; the base and three points that fork.
fn killed(disks: usize, freeze: &str, what: &str) {
    let told = format!("{disks} filesystems, {what} at {freeze}");
    let disks: Vec<Disk> = (0..disks).map(|_| Disk::new(256)).collect();
    let paths = vec![
        disks[0].subvolume("db"),
        disks[disks.len() - 1].subvolume("web"),
    ];
    let fs = role(&paths);
    for sequence in 1..=4 {
        for (number, path) in paths.iter().enumerate() {
            fs::write(path.join("file"), format!("{sequence} {number}")).unwrap();
        }
        take(&fs, 1, sequence);
    }
    let job = serde_json::to_string(&(&paths, what)).unwrap();
    if what == "discard" {
        let points = fs.list().unwrap();
        let off: Vec<&Stored> = points.iter().skip(1).collect();
        fs.fork(&ids(&off), described(points.first(), &off))
            .unwrap();
        assert!(kill_at(freeze, &job), "{told}: never reached");
        fs.prepare().unwrap();
        fs.sweep().unwrap();
        // Gone whole, or there whole.
        assert!(matches!(nothing_is_lost(&fs, &told), (1, 0 | 3)), "{told}");
        if let Some(fork) = fs.forks().unwrap().first() {
            fs.discard_fork(&fork.name).unwrap();
        }
        assert_eq!(nothing_is_lost(&fs, &told), (1, 0));
        for disk in &disks {
            let trash = disk.path().join(".standin/.trash");
            assert_eq!(fs::read_dir(trash).unwrap().count(), 0, "{told}");
        }
        return;
    }
    assert!(kill_at(freeze, &job), "{told}: never reached");
    let (listed, forked) = nothing_is_lost(&fs, &told);
    // One whose parts lie apart is told by the fork alone.
    assert_eq!(listed + forked, 4, "{told}");
    if freeze.ends_with(":2") {
        // Asked again by whoever asked before, without a start in between.
        let off: Vec<_> = (2..=4).map(|sequence| id(1, sequence)).collect();
        let fork = set_apart(&fs, &off, Why::LeftBehind, Some(id(1, 1)), None);
        assert_eq!(fork.unwrap().unwrap().points.len(), 3, "{told}");
    } else {
        fs.prepare().unwrap();
    }
    assert_eq!(nothing_is_lost(&fs, &told), (1, 3), "{told}");
    let fork = fs.forks().unwrap().remove(0);
    assert_eq!(fork.base, Some(id(1, 1)), "{told}");
}

#[test]
fn killed_anywhere() {
    if !ready("killed_anywhere") {
        return;
    }
    for disks in [1, 2] {
        killed(disks, "fork-described", "fork");
        for time in 1..=3 * disks {
            killed(disks, &format!("fork-part-moved:{time}"), "fork");
        }
        killed(disks, "fork-hidden", "discard");
        for time in [1, 3] {
            killed(disks, &format!("fork-half-gone:{time}"), "discard");
        }
    }
    killed(2, "fork-marked", "discard");
}
