//! Two daemons on this machine, real btrfs on loop devices, a link that is cut and mended.
//!
//! What a user relies on: paired nodes replicate, interrupted transfers go on from a checkpoint, restores
//! bring things back, and every outcome has its exit code. Trees are compared by tar and find, not by our code.
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::print_stderr)]

mod support;

use std::fs;
use std::time::{Duration, Instant};

use standin::fs::btrfs::Btrfs;
use standin::fs::{Filesystem, Limits};
use standin::logic::manifest::{MANIFEST_VERSION, Manifest, Reason};
use standin::logic::name::{DatasetName, NodeName, RoleName};
use standin::logic::point::{PointId, RoleId, Term};
use support::cluster::{
    MANUAL, MIB, OFTEN, Pair, btrfs, fill, noise, peak_kib, same_on_both, wait,
};
use support::fixture;
use support::same::assert_same;

#[test]
fn replicates_full_and_incremental_and_prunes() {
    if !fixture::ready("replicates_full_and_incremental_and_prunes") {
        return;
    }
    let role = "every = \"manual\"\nkeep = { last = 2 }\nkeep-standby = { last = 3 }";
    let pair = Pair::new(&["files", "db"], "", role);
    fill(&pair.alder.live("files"), 300, 3000, 1);
    fill(&pair.alder.live("db"), 3, 4 * MIB as usize, 2);
    let said = pair.alder.run(&["run", "web", "--json"]).ok().json();
    assert_eq!(said["roles"][0]["code"], "done", "{said}");
    pair.wait_stored("1.1");
    same_on_both(&pair, "1.1", &["files", "db"]);

    // Nothing changed: no new point.
    pair.alder.run(&["run", "web"]).ok();
    assert_eq!(pair.alder.points(), ["1.1"]);

    let before = pair.link.bytes();
    for round in 2..=6 {
        fill(&pair.alder.live("files"), 5, 1000, 100 * round);
        fs::write(pair.alder.live("db").join("d0/f2-0"), noise(round, 100_000)).unwrap();
        pair.alder.run(&["run"]).ok();
    }
    let moved = pair.link.bytes() - before;
    assert!(moved < 2 * MIB, "increments moved {moved} bytes");
    assert_eq!(pair.alder.points(), ["1.5", "1.6"]);
    pair.birch
        .wait_for("the standby pruned by its own policy", || {
            pair.birch.points() == ["1.4", "1.5", "1.6"]
        });
    same_on_both(&pair, "1.6", &["files", "db"]);
    assert_eq!(pair.birch.leftovers(), Vec::<std::path::PathBuf>::new());

    let replica = &pair.alder.role()["replicas"][0];
    assert_eq!(
        (replica["peer"].as_str(), replica["behind"].as_u64()),
        (Some("birch"), Some(0)),
        "{replica}"
    );
    assert_eq!(replica["exposure_s"].as_f64(), Some(0.0), "{replica}");
    for node in [&pair.alder, &pair.birch] {
        assert!(
            node.peak_kib() <= 64 * 1024,
            "{} used {} KiB",
            node.name,
            node.peak_kib()
        );
        let workers = node.workers();
        assert_eq!(workers.len(), 1, "{} has one link", node.name);
        for worker in workers {
            let peak = peak_kib(worker).unwrap();
            assert!(
                peak <= 64 * 1024,
                "a worker of {} used {peak} KiB",
                node.name
            );
        }
    }
}

/// Interrupts a transfer in its middle, in the way given, and expects it to go on from a checkpoint and end equal.
fn interrupted(incremental: bool, interrupt: impl FnOnce(&mut Pair)) {
    let mut pair = Pair::new(&["files"], OFTEN, MANUAL);
    if incremental {
        fill(&pair.alder.live("files"), 50, 20_000, 1);
        pair.alder.run(&["run"]).ok();
    }
    let point = if incremental { "1.2" } else { "1.1" };
    fill(&pair.alder.live("files"), 60, MIB as usize, 50);
    // Slow enough to have a middle.
    let pin = pair.alder.status()["peers"][0]["name"]
        .as_str()
        .unwrap()
        .to_owned();
    assert_eq!(pin, "birch");
    pair.alder
        .edit("[peer.birch]\n", "[peer.birch]\nbandwidth = \"16MiB/s\"\n");
    pair.alder.run(&["reload"]).ok();
    pair.wait_linked();
    let mut run = pair.alder.command(&["run", "web"]).spawn().unwrap();
    let middle = wait(|| {
        pair.birch
            .transfer()
            .is_some_and(|t| t["done_bytes"].as_u64().unwrap() > 16 * MIB)
    });
    assert!(middle, "no middle was seen: {}", pair.alder.log());
    interrupt(&mut pair);
    run.wait().unwrap();
    let before = pair.link.bytes();
    pair.wait_linked();
    // The link's return is enough: nobody has to run anything.
    pair.wait_stored(point);
    let again = pair.link.bytes() - before;
    assert!(
        again < 55 * MIB,
        "{again} bytes were sent after an interruption at 16 MiB of 60"
    );
    assert!(
        pair.alder.log().contains("resume files of"),
        "no resume in the log:\n{}",
        pair.alder.log()
    );
    same_on_both(&pair, point, &["files"]);
    pair.birch
        .wait_for("staging is empty", || pair.birch.leftovers().is_empty());
}

#[test]
fn resumes_after_the_receiver_was_killed() {
    if !fixture::ready("resumes_after_the_receiver_was_killed") {
        return;
    }
    for incremental in [false, true] {
        interrupted(incremental, |pair| {
            pair.birch.kill();
            pair.birch.start();
        });
    }
}

#[test]
fn resumes_after_the_sender_was_killed() {
    if !fixture::ready("resumes_after_the_sender_was_killed") {
        return;
    }
    for incremental in [false, true] {
        interrupted(incremental, |pair| {
            pair.alder.kill();
            pair.alder.start();
        });
    }
}

/// The process that speaks with the peer dies; the daemons do not.
#[test]
fn resumes_after_a_worker_was_killed() {
    if !fixture::ready("resumes_after_a_worker_was_killed") {
        return;
    }
    for receiver in [false, true] {
        interrupted(false, |pair| {
            let node = if receiver { &pair.birch } else { &pair.alder };
            let (daemon, workers) = (node.pid(), node.workers());
            assert_eq!(workers.len(), 1);
            let pid = rustix::process::Pid::from_raw(workers[0].try_into().unwrap()).unwrap();
            rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
            node.wait_for("the end of the worker is in the log", || {
                node.log().contains("the link's worker ended: signal: 9")
            });
            assert_eq!(node.pid(), daemon);
        });
    }
}

#[test]
fn resumes_after_the_link_was_cut() {
    if !fixture::ready("resumes_after_the_link_was_cut") {
        return;
    }
    for incremental in [false, true] {
        interrupted(incremental, |pair| {
            pair.link.cut();
            let down = |pair: &Pair| pair.alder.status()["peers"][0]["linked"] == false;
            pair.alder.wait_for("the cut is noticed", || down(pair));
            pair.link.mend();
        });
    }
}

#[test]
fn an_orderly_stop_keeps_every_byte() {
    if !fixture::ready("an_orderly_stop_keeps_every_byte") {
        return;
    }
    interrupted(false, |pair| {
        assert_eq!(pair.birch.stop(), 0);
        pair.birch.start();
    });
}

#[test]
fn a_reload_does_not_drop_a_transfer() {
    if !fixture::ready("a_reload_does_not_drop_a_transfer") {
        return;
    }
    let pair = Pair::new(&["files"], OFTEN, MANUAL);
    fill(&pair.alder.live("files"), 30, MIB as usize, 50);
    pair.alder
        .edit("[peer.birch]\n", "[peer.birch]\nbandwidth = \"16MiB/s\"\n");
    pair.alder.run(&["reload"]).ok();
    pair.wait_linked();
    let mut run = pair.alder.command(&["run", "web"]).spawn().unwrap();
    assert!(wait(|| pair
        .birch
        .transfer()
        .is_some_and(|t| t["done_bytes"].as_u64().unwrap() > 4 * MIB)));
    pair.alder.edit("last = 100", "last = 50");
    pair.birch.edit("last = 100", "last = 50");
    pair.alder.signal("HUP");
    pair.birch.signal("HUP");
    assert!(run.wait().unwrap().success());
    assert!(!pair.birch.log().contains("resume"), "{}", pair.birch.log());
    same_on_both(&pair, "1.1", &["files"]);
}

#[test]
fn restores_a_path_a_dataset_and_a_role() {
    if !fixture::ready("restores_a_path_a_dataset_and_a_role") {
        return;
    }
    let pair = Pair::new(&["files", "db"], "", MANUAL);
    let (files, db) = (pair.alder.live("files"), pair.alder.live("db"));
    fill(&files, 10, 1000, 1);
    fill(&db, 2, 1000, 2);
    pair.alder.run(&["run"]).ok();
    let first = fs::read(files.join("d3/f1-3")).unwrap();

    // One path, deleted, over the live data.
    fs::remove_file(files.join("d3/f1-3")).unwrap();
    fs::write(files.join("later"), "later").unwrap();
    let live_path = files.join("d3/f1-3");
    let said = pair
        .alder
        .run(&[
            "restore",
            "web",
            "--path",
            live_path.to_str().unwrap(),
            "--yes",
        ])
        .ok();
    assert_eq!(fs::read(&live_path).unwrap(), first, "{said:?}");
    assert_eq!(
        pair.alder.points(),
        ["1.1", "1.2"],
        "what was live is a point"
    );
    assert!(files.join("later").exists());

    // A dataset to a new tree, and a dry run that does nothing.
    let to = pair.alder.disk.path().join("back");
    let to = to.to_str().unwrap();
    pair.alder
        .run(&["restore", "web", "--point", "1.1", "--to", to, "--dry-run"])
        .ok();
    assert!(!std::path::Path::new(to).exists());
    pair.alder
        .run(&["restore", "web", "--point", "1.1", "--to", to])
        .ok();
    assert_same(
        &std::path::Path::new(to).join("files"),
        &pair.alder.snapshot("1.1", "files"),
        "restored files",
    );
    assert_eq!(
        pair.alder
            .run(&["restore", "web", "--point", "1.1", "--to", to])
            .code,
        2
    );

    // A whole role over the live data; what was live is kept.
    fs::write(db.join("wrong"), "wrong").unwrap();
    fs::remove_dir_all(files.join("d4")).unwrap();
    let refused = pair.alder.run(&["restore", "web", "--point", "1.1"]);
    assert_eq!(
        refused.code, 15,
        "without --yes and a terminal nothing live is replaced: {refused:?}"
    );
    let said = pair
        .alder
        .run(&["restore", "web", "--point", "1.1", "--yes", "--json"])
        .ok()
        .json();
    assert_same(
        &files,
        &pair.alder.snapshot("1.1", "files"),
        "restored files",
    );
    assert_same(&db, &pair.alder.snapshot("1.1", "db"), "restored db");
    let kept = said["kept"]["short"].as_str().unwrap();
    assert_eq!(
        fs::read(pair.alder.snapshot(kept, "db").join("wrong")).unwrap(),
        b"wrong"
    );

    // The line goes on: the restored state is replicated on top of what the peer has.
    fs::write(db.join("after"), "after").unwrap();
    pair.alder.run(&["run"]).ok();
    let newest = pair.alder.points().pop().unwrap();
    same_on_both(&pair, &newest, &["files", "db"]);

    assert_eq!(
        pair.alder
            .run(&["restore", "web", "--point", "9.9", "--yes"])
            .code,
        17
    );
    assert_eq!(
        pair.birch.run(&["restore", "web", "--yes"]).code,
        15,
        "a standby's live data is not its own"
    );
}

#[test]
fn outcomes_have_their_exit_codes() {
    if !fixture::ready("outcomes_have_their_exit_codes") {
        return;
    }
    let mut pair = Pair::new(&["files"], "", MANUAL);
    let check = |node: &support::cluster::TestNode, args: &[&str], code: i32| {
        let said = node.run(args);
        assert_eq!(said.code, code, "{args:?}: {said:?}");
        assert!(
            code == 0 || !(said.err.is_empty() && said.out.is_empty()),
            "{args:?} gave no reason: {said:?}"
        );
    };
    check(&pair.alder, &["run", "nowhere"], 17);
    check(&pair.birch, &["run", "web"], 15);
    check(&pair.birch, &["run"], 17);
    check(&pair.alder, &["no-such-verb"], 2);
    check(&pair.alder, &["points", "web"], 0);
    pair.birch.stop();
    pair.alder.wait_for("the link is down", || {
        pair.alder.status()["peers"][0]["linked"] == false
    });
    check(&pair.alder, &["run", "web"], 13);
    assert_eq!(
        pair.alder.points(),
        ["1.1"],
        "the point is taken although the peer is away"
    );
    pair.birch.start();
    // The link's return sends what was missed.
    pair.wait_stored("1.1");
    pair.alder.stop();
    check(&pair.alder, &["status"], 14);
    fs::write(pair.alder.config_path(), "[node]\nnmae = 1\n").unwrap();
    check(&pair.alder, &["check"], 2);
}

#[test]
fn a_base_that_vanished_costs_a_full_transfer_and_is_said() {
    if !fixture::ready("a_base_that_vanished_costs_a_full_transfer_and_is_said") {
        return;
    }
    let mut pair = Pair::new(&["files"], "", MANUAL);
    fs::write(pair.alder.live("files").join("a"), "a").unwrap();
    pair.alder.run(&["run"]).ok();
    pair.wait_stored("1.1");
    // The standby's only point vanishes from the active one, as when a disk is replaced.
    pair.alder.stop();
    let point = pair.alder.snapshot("1.1", "files");
    btrfs(&["subvolume", "delete", point.to_str().unwrap()]);
    fs::remove_dir_all(point.parent().unwrap()).unwrap();
    fs::write(pair.alder.live("files").join("b"), "b").unwrap();
    pair.alder.start();
    pair.wait_linked();
    let alder = &pair.alder;
    // It asks birch before it goes on.
    alder.wait_for("it is active again", || alder.role()["state"] == "active");
    let said = pair.alder.run(&["run", "web"]);
    assert_eq!(said.code, 0, "{said:?}");
    let why = "alder does not hold 1.1 any more: the base so far is of no use, 1.2 is sent in full";
    assert!(said.out.contains(why), "{said:?}");
    assert_eq!(pair.birch.points(), ["1.1", "1.2"]);
    same_on_both(&pair, "1.2", &["files"]);
}

#[test]
fn the_schedule_takes_points_by_itself_and_makes_up_for_a_missed_time_once() {
    if !fixture::ready("the_schedule_takes_points_by_itself_and_makes_up_for_a_missed_time_once") {
        return;
    }
    let mut pair = Pair::new(&["files"], "", "every = \"1s\"\nkeep = { last = 100 }");
    pair.wait_stored("1.1");
    fs::write(pair.alder.live("files").join("x"), "x").unwrap();
    pair.wait_stored("1.2");
    pair.alder.stop();
    fs::write(pair.alder.live("files").join("y"), "y").unwrap();
    pair.alder.start();
    pair.wait_stored("1.3");
    assert_eq!(pair.alder.points(), ["1.1", "1.2", "1.3"]);
}

/// The catalogue is rebuilt from the disk alone, and stays quick when it is long.
#[test]
fn a_thousand_points_are_listed_at_once() {
    if !fixture::ready("a_thousand_points_are_listed_at_once") {
        return;
    }
    let mut alder = support::cluster::TestNode::new("alder", 1024 * MIB);
    fs::create_dir_all(alder.disk.path().join("srv")).unwrap();
    alder.configure("birch", &["files"], "", MANUAL);
    let live = alder.live("files");
    btrfs(&["subvolume", "create", live.to_str().unwrap()]);
    let role = RoleName::parse("web").unwrap();
    let dataset = DatasetName::parse("files").unwrap();
    let datasets = [(dataset, live.clone())].into_iter().collect();
    let disk = Btrfs::new(role.clone(), datasets, Limits::default()).unwrap();
    disk.prepare().unwrap();
    let term = Term {
        epoch: 1,
        holder: NodeName::parse("alder").unwrap(),
        nonce: 7,
    };
    let id = RoleId(uuid::Uuid::from_u128(1));
    for sequence in 1..=1000 {
        let manifest = Manifest {
            version: MANIFEST_VERSION,
            role: id,
            role_name: role.clone(),
            point: PointId {
                term: term.clone(),
                sequence,
            },
            taken: jiff::Timestamp::now(),
            node: term.holder.clone(),
            reason: Reason::Schedule,
            datasets: Default::default(),
            dumps: Vec::new(),
        };
        disk.snapshot(manifest).unwrap();
    }
    standin::peer::identity::Identity::create(&alder.dir.join("state/node.key")).unwrap();
    alder.start();
    assert_eq!(alder.points().len(), 1000);
    let listed = |_| {
        let begun = Instant::now();
        alder.run(&["points", "web"]).ok();
        begun.elapsed()
    };
    let best = (0..10).map(listed).min().unwrap();
    assert!(best < Duration::from_millis(200), "{best:?}");
    // The line goes on where the disk ends, although the state database knew nothing: whether it is active was asked first.
    alder.wait_for("the role goes on", || alder.role()["state"] == "active");
    fs::write(live.join("x"), "x").unwrap();
    assert_eq!(alder.run(&["run", "web"]).code, 15, "birch is not paired");
    assert_eq!(alder.points().last().unwrap(), "1.1001");
    assert_eq!(alder.role()["id"], id.to_string());
}
