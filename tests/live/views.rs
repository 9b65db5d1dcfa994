//! Views: a point or the live data, read-only at a path of its own.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use standin::fs::{Filesystem, FsError, View};

use super::stage::*;
use super::support::cluster::{Pair, TestNode};
use super::support::fixture;

/// How many mounts there are at a path.
fn mounts(at: &Path) -> usize {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let at = text(at);
    let points = table.lines().filter_map(|line| line.split(' ').nth(4));
    points.filter(|point| *point == at).count()
}

fn state(path: &Path) -> Option<String> {
    fs::read_to_string(path.join("state")).ok()
}

#[test]
fn a_view_is_switched_and_found_again() {
    if !ready("a_view_is_switched_and_found_again") {
        return;
    }
    let disk = Disk::new(256);
    let web = disk.subvolume("web");
    let home = tempfile::tempdir().unwrap();
    let at = home.path().canonicalize().unwrap().join("deep/view");
    let open = || btrfs(&[("web", &web)]).fstab(disk.fstab(&[]));
    let fs = open();
    let show = |view| open().view(&dataset("web"), view, &at);
    let check = |view, word: Option<&str>| {
        // Each time as a new process would, and twice.
        for _ in 0..2 {
            show(view).unwrap();
            assert_eq!(state(&at).as_deref(), word, "{view:?}");
            assert_eq!(mounts(&at), usize::from(word.is_some()), "{view:?}");
        }
    };
    check(View::Nothing, None);
    let mut points = Vec::new();
    for (sequence, word) in [(1, "one"), (2, "two")] {
        fs::write(web.join("state"), word).unwrap();
        points.push(take(&fs, 1, sequence).manifest.point);
    }
    let [one, two] = &points[..] else { panic!() };
    check(View::Point(one), Some("one"));
    let error = fs::write(at.join("new"), "x").unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ReadOnlyFilesystem);
    let reader = fs::File::open(at.join("state")).unwrap();

    // What is shown is not destroyed; what takes its place is shown first.
    let refused = fs.destroy(one).unwrap_err();
    assert!(
        matches!(refused.downcast_ref(), Some(FsError::Busy(_))),
        "{refused:#}"
    );
    assert_eq!(state(&at).as_deref(), Some("one"));
    check(View::Point(two), Some("two"));
    fs.destroy(one).unwrap();
    drop(reader);

    // A switch that was cut leaves two, one over the other.
    must("mount", &["--bind", text(&at), text(&at)]);
    must("mount", &["-o", "remount,bind,ro", text(&at)]);
    assert_eq!(mounts(&at), 2);
    check(View::Point(two), Some("two"));

    fs::write(web.join("state"), "live").unwrap();
    check(View::Live, Some("live"));
    fs::write(web.join("state"), "more").unwrap();
    assert_eq!(state(&at).as_deref(), Some("more"));
    assert!(fs::write(at.join("state"), "x").is_err());
    // The live copy goes away under its view.
    fs.retire_live(&dataset("web"), None, manifest(1, 3))
        .unwrap();
    assert!(is_missing(show(View::Live)));
    check(View::Point(two), Some("two"));
    let other = at.with_file_name("other");
    assert!(is_missing(fs.view(
        &dataset("web"),
        View::Point(&id(9, 9)),
        &other
    )));
    check(View::Nothing, None);
    fs.destroy(two).unwrap();
}

fn is_missing(result: anyhow::Result<()>) -> bool {
    matches!(
        result.err().unwrap().downcast_ref(),
        Some(FsError::Missing(_))
    )
}

/// Who opens the path while it is switched finds one tree or the other.
#[test]
fn a_switch_is_seen_whole() {
    if !ready("a_switch_is_seen_whole") {
        return;
    }
    let disk = Disk::new(256);
    let web = disk.subvolume("web");
    let home = tempfile::tempdir().unwrap();
    let at = home.path().canonicalize().unwrap().join("view");
    let fs = btrfs(&[("web", &web)]).fstab(disk.fstab(&[]));
    let points: Vec<_> = (1..=2)
        .map(|sequence| {
            fs::write(web.join("state"), sequence.to_string()).unwrap();
            take(&fs, 1, sequence).manifest.point
        })
        .collect();
    let show = |point| fs.view(&dataset("web"), View::Point(point), &at).unwrap();
    show(&points[0]);
    let over = AtomicBool::new(false);
    let seen = std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut seen = BTreeSet::new();
            while !over.load(Ordering::Relaxed) {
                seen.insert(state(&at));
            }
            seen
        });
        for round in 0..40 {
            show(&points[round % 2]);
        }
        over.store(true, Ordering::Relaxed);
        reader.join().unwrap()
    });
    fs.view(&dataset("web"), View::Nothing, &at).unwrap();
    let both = ["1", "2"].map(|word| Some(word.to_owned()));
    assert_eq!(seen, BTreeSet::from(both));
}

#[test]
fn a_view_covers_nothing() {
    if !ready("a_view_covers_nothing") {
        return;
    }
    let disk = Disk::new(256);
    let web = disk.subvolume("web");
    let home = tempfile::tempdir().unwrap();
    let home = home.path().canonicalize().unwrap();
    let fs = btrfs(&[("web", &web)]).fstab(disk.fstab(&[]));
    fs::write(web.join("state"), "one").unwrap();
    let one = take(&fs, 1, 1).manifest.point;
    let check = |at: &Path, words: &str| {
        let message = said(fs.view(&dataset("web"), View::Point(&one), at));
        assert!(message.contains(words), "{}: {message}", at.display());
        // What cannot be shown there is not taken away from there.
        fs.view(&dataset("web"), View::Nothing, at).unwrap();
        assert_eq!(state(&web).as_deref(), Some("one"));
    };
    check(&web, "lies in the dataset web");
    check(&web.join("inside"), "lies in the dataset web");
    std::os::unix::fs::symlink(&web, home.join("link")).unwrap();
    check(&home.join("link/inside"), "lies in the dataset web");
    check(disk.path(), "is a mount of something else");
    check(&disk.path().join(".standin/view"), "files of standin");
    fs::create_dir(home.join("full")).unwrap();
    fs::write(home.join("full/file"), "x").unwrap();
    check(&home.join("full"), "is not empty");
    let message = said(fs.view(&dataset("web"), View::Point(&one), &home.join("link")));
    assert!(message.contains("is a symbolic link"), "{message}");
    fs::create_dir(home.join("tmpfs")).unwrap();
    must(
        "mount",
        &["-t", "tmpfs", "tmpfs", text(&home.join("tmpfs"))],
    );
    check(&home.join("tmpfs"), "is a mount of something else");
    assert_eq!(mounts(&home.join("tmpfs")), 1);
    must("umount", &[text(&home.join("tmpfs"))]);
}

/// Adds a view of the dataset `files` to the config.
fn configure(node: &TestNode, at: &Path) {
    let live = format!("btrfs = \"{}\"\n", text(&node.live("files")));
    let view = format!("{live}standby-view = \"{}\"\n", text(at));
    node.edit(&live, &view);
}

/// A web server on either node would serve the same, a moment apart.
#[test]
fn daemons_show_what_is_newest() {
    if !fixture::ready("daemons_show_what_is_newest") {
        return;
    }
    let role = "every = \"manual\"\nkeep = { last = 1 }";
    let mut pair = Pair::new(&["files"], "", role);
    let views = [&pair.alder, &pair.birch].map(|node| {
        let at = node.dir.canonicalize().unwrap().join("view");
        configure(node, &at);
        node.run(&["reload"]).ok();
        at
    });
    let [active, standing] = &views;
    let write = |word: &str| fs::write(pair.alder.live("files").join("state"), word).unwrap();
    write("one");
    assert_eq!(state(active).as_deref(), Some("one"), "the live data");
    for word in ["one", "two", "three"] {
        write(word);
        pair.alder.run(&["run", "web"]).ok();
        pair.birch.wait_for("the point is shown", || {
            state(standing).as_deref() == Some(word)
        });
    }
    pair.birch.wait_for("what was shown is pruned", || {
        !pair.birch.points().contains(&"1.1".to_owned())
    });
    let check = pair.birch.run(&["check"]).out;
    assert!(check.contains("shown read-only at"), "{check}");

    // A restore puts another tree at the live path, and the view shows that.
    write("bad");
    let restored = pair
        .alder
        .run(&["restore", "web", "--point", "1.3", "--yes"])
        .ok();
    assert_eq!(state(active).as_deref(), Some("three"), "{restored:?}");

    // The daemon ends and the view stays; the next one finds it.
    assert_eq!(pair.birch.stop(), 0);
    assert_eq!(state(standing).as_deref(), Some("three"));
    pair.birch.start();
    assert_eq!(mounts(standing), 1);
    // Another place; the old one is taken away.
    let moved = standing.with_file_name("moved");
    fs::create_dir(&moved).unwrap();
    fs::write(moved.join("file"), "in the way").unwrap();
    pair.birch.edit(text(standing), text(&moved));
    pair.birch.run(&["reload"]).ok();
    assert_eq!((mounts(standing), mounts(&moved)), (0, 0));
    let said = pair.birch.run(&["check"]);
    assert_ne!(said.code, 0);
    assert!(said.out.contains("is not empty"), "{said:?}");
    fs::remove_file(moved.join("file")).unwrap();
    pair.birch.run(&["check"]);
    assert_eq!(state(&moved).as_deref(), Some("three"));
    for (node, at) in [(&pair.alder, active), (&pair.birch, &moved)] {
        node.edit(&format!("standby-view = \"{}\"\n", text(at)), "");
        node.run(&["reload"]).ok();
        assert_eq!(mounts(at), 0);
    }
}
