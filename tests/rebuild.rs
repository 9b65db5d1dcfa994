//! A machine that lost everything, brought back from its peer: by hand as a person would, and through cuts and kills.
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::print_stderr)]

mod support;

use std::fs;

use serde_json::Value;
use support::cluster::{MANUAL, MIB, OFTEN, Pair, TestNode, fill, noise};
use support::fixture::{self, Loop};
use support::same::assert_same;

/// Two nodes with `points` points of one dataset, each point 200 kB more.
fn pair(name: &str, points: usize, node: &str) -> Option<Pair> {
    if !fixture::ready(name) {
        return None;
    }
    let pair = Pair::new(&["files"], node, MANUAL);
    for point in 1..=points {
        fill(&pair.alder.live("files"), 10, 20_000, point as u64);
        pair.alder.run(&["run"]).ok();
        pair.wait_stored(&format!("1.{point}"));
    }
    Some(pair)
}

/// A new machine under the name of the lost one: an empty disk, a new key, and what `standin init` writes.
fn blank_alder() -> TestNode {
    let mut alder = TestNode::on("alder", Loop::new(2048 * MIB));
    let text = format!(
        "# what init wrote\n[node]\nname = \"alder\"\nlisten = \"{}\"\nstate-dir = \"{}\"\ncontrol = \"{}\"\nreserve = \"32MiB\"\n{OFTEN}\n",
        alder.address,
        alder.dir.join("state").display(),
        alder.dir.join("run/control.sock").display(),
    );
    fs::write(alder.config_path(), text).unwrap();
    fs::create_dir_all(alder.disk.path().join("srv")).unwrap();
    alder.make_key();
    alder.start();
    alder
}

fn line(said: &support::cluster::Said) -> String {
    said.json()["line"].as_str().unwrap().to_owned()
}

/// An invitation for a new alder, once birch has seen that the old one is gone.
fn invited(birch: &TestNode) -> String {
    birch.wait_for("the old alder is gone", || {
        birch.status()["peers"][0]["linked"] == false
    });
    line(
        &birch
            .run(&["pair", "invite", "--replace", "alder", "--json"])
            .ok(),
    )
}

/// `--path`: all machines of the test share one tree of paths.
fn place(node: &TestNode) -> String {
    format!("--path=web/files={}", node.live("files").display())
}

fn settle(node: &TestNode, state: &str) {
    node.wait_for(&format!("it is {state}"), || node.role()["state"] == state);
}

#[test]
fn a_lost_server_comes_back() {
    let Some(Pair {
        mut alder, birch, ..
    }) = pair("a_lost_server_comes_back", 4, "")
    else {
        return;
    };
    let said = birch.run(&["pair", "invite", "--replace", "alder"]);
    assert_eq!(said.code, 15, "{said:?}");
    assert!(said.err.contains("linked at this moment"), "{said:?}");
    alder.kill();
    let mut new = blank_alder();

    // Without --replace the taken name is refused, with the way on.
    let plain = line(&birch.run(&["pair", "invite", "--json"]).ok());
    let said = new.run(&["pair", "accept", &plain]);
    assert_eq!(said.code, 15, "{said:?}");
    assert!(said.err.contains("pair invite --replace alder"), "{said:?}");
    // Not paired: the way on, too.
    let said = new.run(&["rebuild", "--from", "birch", "--yes"]);
    assert_eq!(said.code, 15, "{said:?}");
    assert!(said.err.contains("pair invite --replace alder"), "{said:?}");

    let invite = invited(&birch);
    let place = place(&new);
    let before = fs::read_to_string(new.config_path()).unwrap();
    let rebuild = ["rebuild", "--from", "birch", "--invite", &invite, &place];
    let said = new.run(&rebuild);
    assert_eq!(said.code, 15, "nobody was asked: {said:?}");
    assert!(said.out.contains("[role.web]"), "{said:?}");
    let paired = fs::read_to_string(new.config_path()).unwrap();
    assert!(!paired.contains("[role.web]"), "{paired}");

    let rebuild = ["rebuild", "--from", "birch", &place];
    let shown = new
        .run(&[&rebuild[..], &["--dry-run", "--json"]].concat())
        .ok()
        .json();
    let said = new
        .run(&[&rebuild[..], &["--yes", "--json"]].concat())
        .ok()
        .json();
    assert_eq!(said["sections"], shown["sections"]);
    assert_eq!(said["roles"][0]["points"], 4, "{said}");
    let next = said["roles"][0]["next"].as_str().unwrap();
    assert!(next.ends_with("standin promote web"), "{next}");
    let after = fs::read_to_string(new.config_path()).unwrap();
    assert!(after.starts_with(&before), "{after}");
    assert_eq!(new.points(), birch.points());
    for point in birch.points() {
        let copies = (
            new.snapshot(&point, "files"),
            birch.snapshot(&point, "files"),
        );
        assert_same(&copies.0, &copies.1, &point);
    }
    assert_eq!(new.role()["state"], "standby", "{}", new.role());
    assert_eq!(new.role()["id"], birch.role()["id"]);

    // Again, and after a restart: nothing to do.
    new.stop();
    new.start();
    let said = new.run(&["rebuild", "--from", "birch", "--yes"]).ok();
    assert!(said.out.contains("every point is here"), "{said:?}");
    assert_eq!(new.role()["state"], "standby");

    new.run(&["promote", "web"]).ok();
    settle(&new, "active");
    assert_same(&new.live("files"), &new.snapshot("1.4", "files"), "live");
    fs::write(new.live("files").join("new"), "new").unwrap();
    new.run(&["run"]).ok();
    birch.wait_for("birch follows", || {
        birch.points().contains(&"2.5".to_owned())
    });
}

#[test]
fn a_wiped_home_begins_nothing() {
    let Some(Pair {
        mut alder, birch, ..
    }) = pair("a_wiped_home_begins_nothing", 2, "")
    else {
        return;
    };
    alder.kill();
    // The configuration came back from a backup, keys of peers and all; nothing else did.
    let mut new = TestNode::on("alder", Loop::new(2048 * MIB));
    fs::create_dir_all(new.disk.path().join("srv")).unwrap();
    let theirs = fs::read_to_string(alder.config_path()).unwrap();
    let mut ours = theirs;
    for (from, to) in [(alder.disk.path(), new.disk.path()), (&alder.dir, &new.dir)] {
        ours = ours.replace(from.to_str().unwrap(), to.to_str().unwrap());
    }
    let ours = ours.replace(&alder.address.to_string(), &new.address.to_string());
    fs::write(new.config_path(), ours).unwrap();
    new.make_key();
    new.start();
    let begun = |node: &TestNode| node.role()["term"] != Value::Null;
    assert!(!begun(&new), "{}", new.role());
    let trouble = new.role()["trouble"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    assert!(trouble.contains("birch has not said yet"), "{trouble}");
    let said = new.run(&["run", "web"]);
    assert_eq!(said.code, 15, "{said:?}");
    assert!(said.err.contains("standin rebuild"), "{said:?}");
    new.stop();
    new.start();
    assert!(!begun(&new), "{}", new.role());

    let invite = invited(&birch);
    new.run(&["pair", "accept", &invite]).ok();
    new.wait_for("it joined what birch knows", || begun(&new));
    assert_eq!(new.role()["state"], "standby");
    assert_eq!(new.role()["id"], birch.role()["id"]);
    assert_eq!(birch.role()["term"]["epoch"], 1);
    // Its section is there: only points are missing.
    let said = new
        .run(&["rebuild", "--from", "birch", "--yes", "--json"])
        .ok()
        .json();
    assert_eq!(said["sections"], "");
    assert_eq!(new.points(), birch.points());
}

#[test]
fn a_new_role_begins_when_nobody_knows_it() {
    let Some(mut pair) = pair("a_new_role_begins_when_nobody_knows_it", 0, "") else {
        return;
    };
    let extra = |node: &TestNode, name: &str| {
        let path = node.disk.path().join("srv").join(name);
        let section = format!(
            "[role.{name}]\nhome = \"alder\"\npeers = [\"birch\"]\n{MANUAL}\n[role.{name}.dataset.x]\nbtrfs = \"{}\"\n[role.web]\n",
            path.display()
        );
        node.edit("[role.web]\n", &section);
    };
    let active = |node: &TestNode, at: usize| node.status()["roles"][at]["state"] == "active";
    // birch has no such role: it knows nothing of it.
    extra(&pair.alder, "extra");
    pair.alder.run(&["reload"]).ok();
    pair.alder
        .wait_for("extra begins", || active(&pair.alder, 0));

    pair.birch.kill();
    pair.alder.wait_for("birch is away", || {
        pair.alder.status()["peers"][0]["linked"] == false
    });
    extra(&pair.alder, "fresh");
    pair.alder.run(&["reload"]).ok();
    assert!(!active(&pair.alder, 1), "{}", pair.alder.status());
    pair.alder.run(&["resume", "fresh"]).ok();
    pair.alder
        .wait_for("fresh begins", || active(&pair.alder, 1));
}

#[test]
fn killed_and_cut_it_goes_on() {
    let Some(Pair {
        mut alder, birch, ..
    }) = pair("killed_and_cut_it_goes_on", 1, OFTEN)
    else {
        return;
    };
    fs::write(alder.live("files").join("big"), noise(7, 48 << 20)).unwrap();
    alder.run(&["run"]).ok();
    fs::write(alder.live("files").join("late"), "late").unwrap();
    alder.run(&["run"]).ok();
    birch.wait_for("birch has it all", || birch.points().len() == 3);
    alder.kill();
    let mut new = blank_alder();
    let invite = invited(&birch);
    new.run(&["pair", "accept", &invite]).ok();
    birch.edit("[peer.alder]\n", "[peer.alder]\nbandwidth = \"6MB/s\"\n");
    birch.run(&["reload"]).ok();
    let place = place(&new);
    let rebuild = ["rebuild", "--from", "birch", &place, "--yes"];
    for _ in 0..2 {
        let mut going = new.command(&rebuild).spawn().unwrap();
        let far = new
            .transfer()
            .map_or(0, |transfer| transfer["done_bytes"].as_u64().unwrap());
        new.wait_for("it is in the middle of it", || {
            let done = new
                .transfer()
                .and_then(|transfer| transfer["done_bytes"].as_u64());
            done.is_some_and(|done| done > far + (10 << 20))
        });
        new.kill();
        going.wait().unwrap();
        new.start();
        assert!(new.points().is_empty(), "half a point was shown");
        new.wait_for("the link is back", || {
            new.status()["peers"][0]["linked"] == true
        });
    }
    birch.edit("bandwidth = \"6MB/s\"\n", "");
    birch.run(&["reload"]).ok();
    new.wait_for("the link is back", || {
        new.status()["peers"][0]["linked"] == true
    });
    new.run(&rebuild).ok();
    assert!(new.log().contains("resume files of 1.3"), "{}", new.log());
    assert_eq!(new.points(), birch.points());
    for point in birch.points() {
        let copies = (
            new.snapshot(&point, "files"),
            birch.snapshot(&point, "files"),
        );
        assert_same(&copies.0, &copies.1, &point);
    }
    assert_eq!(new.role()["state"], "standby");
}
