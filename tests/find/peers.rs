//! What only a peer has, and what a kill leaves of a fetch.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::process::Stdio;

use crate::stage::{check, names, versions};
use crate::support::cluster::{MIB, Pair, noise};
use crate::support::fixture::ready;

/// alder keeps its newest point only, birch all of them.
fn forgetful(name: &str, bytes: &[u8]) -> Option<Pair> {
    if !ready(name) {
        return None;
    }
    let role = "every = \"manual\"\nkeep = { last = 1 }\nkeep-standby = { last = 100 }";
    let pair = Pair::new(&["files"], "", role);
    let live = pair.alder.live("files");
    fs::write(live.join("lost"), bytes).unwrap();
    fs::write(live.join("other"), "o").unwrap();
    fs::set_permissions(live.join("lost"), fs::Permissions::from_mode(0o640)).unwrap();
    std::os::unix::fs::chown(live.join("lost"), Some(1234), Some(2345)).unwrap();
    pair.alder.run(&["run"]).ok();
    pair.wait_stored("1.1");
    fs::remove_file(live.join("lost")).unwrap();
    pair.alder.run(&["run"]).ok();
    pair.wait_stored("1.2");
    // The base of birch is what holds a point back.
    fs::write(live.join("other"), "p").unwrap();
    pair.alder.run(&["run"]).ok();
    pair.wait_stored("1.3");
    pair.alder.run(&["prune"]).ok();
    pair.alder.wait_for("the first points are pruned", || {
        !pair.alder.points().contains(&"1.1".to_owned())
    });
    Some(pair)
}

fn grant(pair: &Pair) {
    pair.birch.edit(
        "[peer.alder]",
        "[peer.alder]\ngrants = [\"send\", \"receive\", \"read\"]",
    );
    pair.birch.run(&["reload"]).ok();
}

#[test]
fn what_only_a_peer_has_comes_back() {
    let bytes = noise(7, 3 * MIB as usize + 17);
    let Some(mut pair) = forgetful("what_only_a_peer_has_comes_back", &bytes) else {
        return;
    };
    let lost = pair.alder.live("files").join("lost");
    let path = lost.to_str().unwrap().to_owned();
    // P7: it is told nothing that it is not granted.
    let refused = [
        "no point and no fork shows it",
        "birch: told nothing: birch does not grant alder to read",
    ];
    check(&pair.alder, &["find", &path], 17, &refused);
    check(
        &pair.alder,
        &["cat", &path],
        17,
        &["does not grant alder to read"],
    );
    grant(&pair);
    assert_eq!(
        versions(&pair.alder, &[&path]),
        ["- removed 1.2-live", "1 oldest 1.1-1.1 elsewhere"]
    );
    check(
        &pair.alder,
        &["find", &path, "--peers"],
        0,
        &["only on birch"],
    );
    check(
        &pair.alder,
        &["find", &path, "--local"],
        17,
        &["no point and no fork shows it"],
    );
    let shown = pair.alder.command(&["cat", &path]).output().unwrap();
    assert!(
        shown.status.success() && shown.stdout == bytes,
        "{} bytes",
        shown.stdout.len()
    );
    let plan = ["1.1 on birch", "fetch it from birch", "live  nothing"];
    check(&pair.alder, &["restore", &path, "--dry-run"], 0, &plan);
    assert!(!lost.exists());
    check(
        &pair.alder,
        &["restore", &path, "--yes"],
        0,
        &["restored", "1.1 on birch"],
    );
    assert!(fs::read(&lost).unwrap() == bytes);
    let facts = fs::metadata(&lost).unwrap();
    assert_eq!(
        (facts.mode() & 0o7777, facts.uid(), facts.gid()),
        (0o640, 1234, 2345)
    );
    let there = fs::metadata(pair.birch.snapshot("1.1", "files").join("lost")).unwrap();
    assert_eq!(
        (facts.mtime(), facts.mtime_nsec()),
        (there.mtime(), there.mtime_nsec())
    );
    assert_eq!(
        names(&pair.alder.dir.join("state/fetched")),
        [] as [String; 0]
    );
    // A standby reads its own points, and is told what the active node does not grant.
    let here = pair.birch.live("files").join("lost");
    assert_eq!(
        versions(&pair.birch, &[here.to_str().unwrap(), "--local"])[1],
        "1 oldest 1.1-1.1"
    );
    check(
        &pair.birch,
        &["restore", here.to_str().unwrap(), "--yes"],
        15,
        &["this node stands in for it", "--to DIR"],
    );
    let to = pair.birch.dir.join("lost");
    check(
        &pair.birch,
        &[
            "restore",
            here.to_str().unwrap(),
            "--to",
            to.to_str().unwrap(),
        ],
        0,
        &["restored"],
    );
    assert!(fs::read(&to).unwrap() == bytes);
    // A peer that is away is named, and is no failure.
    fs::remove_file(&lost).unwrap();
    pair.birch.stop();
    pair.alder.wait_for("the link is down", || {
        pair.alder.status()["peers"][0]["linked"] == false
    });
    let other = pair.alder.live("files").join("other");
    check(
        &pair.alder,
        &["find", other.to_str().unwrap()],
        0,
        &["birch: not asked: "],
    );
    check(
        &pair.alder,
        &["restore", &path, "--yes"],
        17,
        &["birch: not asked: "],
    );
}

#[test]
fn a_fetch_that_was_killed_leaves_nothing_and_goes_on() {
    let bytes = noise(9, 3 * MIB as usize);
    let Some(mut pair) = forgetful("a_fetch_that_was_killed_leaves_nothing_and_goes_on", &bytes)
    else {
        return;
    };
    grant(&pair);
    let lost = pair.alder.live("files").join("lost");
    let path = lost.to_str().unwrap().to_owned();
    let before = names(&pair.alder.live("files"));
    for place in ["fetch-piece:5", "fetch-whole"] {
        pair.alder.stop();
        pair.alder.start_with(&[("STANDIN_FREEZE", place)]);
        pair.wait_linked();
        pair.alder.wait_for("it is active again", || {
            pair.alder.role()["state"] == "active"
        });
        let mut restore = pair.alder.command(&["restore", &path, "--yes"]);
        let restore = restore
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let frozen = || {
            let status = fs::read_to_string(format!("/proc/{}/status", pair.alder.pid()));
            status.is_ok_and(|status| status.contains("State:\tT"))
        };
        pair.alder.wait_for(place, frozen);
        assert_eq!(names(&pair.alder.live("files")), before, "{place}");
        let part = names(&pair.alder.dir.join("state/fetched"));
        assert_eq!(part.len(), 1, "{place}: {part:?}");
        pair.alder.kill();
        assert!(!restore.wait_with_output().unwrap().status.success());
        pair.alder.start();
        assert_eq!(names(&pair.alder.live("files")), before, "{place}");
    }
    pair.wait_linked();
    pair.alder.wait_for("it is active again", || {
        pair.alder.role()["state"] == "active"
    });
    let moved = pair.link.bytes();
    check(&pair.alder, &["restore", &path, "--yes"], 0, &["restored"]);
    assert!(fs::read(&lost).unwrap() == bytes);
    // All of it had arrived before the second kill.
    let moved = pair.link.bytes() - moved;
    assert!(moved < MIB, "{moved} bytes were fetched again");
}
