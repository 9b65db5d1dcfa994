//! What `check` and refusals advise where two nodes do not fit together: what is said is true of that moment, and who follows
//! the hint is out of the trouble.
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::print_stderr)]

mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt;

use support::cluster::{MANUAL, Pair, TestNode, btrfs, fill};
use support::fixture;

/// A fingerprint that nobody has.
const NOBODY: &str = "SHA256:AAEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFUA";

/// `check` ends with the code and says all of the words.
#[track_caller]
fn checked(node: &TestNode, code: i32, words: &[&str]) {
    let said = node.run(&["check"]);
    assert_eq!(said.code, code, "{said:?}");
    for word in words {
        assert!(said.out.contains(word), "{word:?} is not in {}", said.out);
    }
}

#[test]
fn a_standby_whose_place_is_taken() {
    if !fixture::ready("a_standby_whose_place_is_taken") {
        return;
    }
    let pair = Pair::new(&["files"], "", MANUAL);
    checked(&pair.birch, 0, &["no live copy, as it should be"]);
    let place = pair.birch.live("files");
    fs::create_dir_all(&place).unwrap();
    fs::write(place.join("guest"), "x").unwrap();
    checked(&pair.birch, 1, &["is in the way", "move it away"]);
    fs::rename(&place, place.with_file_name("elsewhere")).unwrap();
    checked(&pair.birch, 0, &["no live copy, as it should be"]);
}

#[test]
fn a_key_that_is_not_the_pinned_one() {
    if !fixture::ready("a_key_that_is_not_the_pinned_one") {
        return;
    }
    let mut pair = Pair::new(&["files"], "", MANUAL);
    let config = fs::read_to_string(pair.alder.config_path()).unwrap();
    let key = config
        .lines()
        .find(|line| line.starts_with("key = "))
        .unwrap();
    pair.alder.edit(key, &format!("key = \"{NOBODY}\""));
    pair.alder.run(&["reload"]).ok();
    pair.alder.wait_for("the key was looked at", || {
        let peer = pair.alder.status()["peers"][0].clone();
        peer["last_error"]
            .as_str()
            .is_some_and(|error| error.contains(NOBODY))
    });
    let words = ["could not link to birch at", NOBODY, "pair again"];
    checked(&pair.alder, 1, &words);
    let said = pair.alder.run(&["run", "web"]);
    assert_eq!(said.code, 13, "{said:?}");
    assert!(said.out.contains("pair again"), "{}", said.out);
    // alder dials, birch does not.
    pair.birch.stop();
    pair.birch.start();
    checked(
        &pair.birch,
        1,
        &["peer alder: no link: it has no `address` here"],
    );
}

#[test]
fn a_role_with_two_homes() {
    if !fixture::ready("a_role_with_two_homes") {
        return;
    }
    let pair = Pair::new(&["files"], "", MANUAL);
    let (alder, birch) = (&pair.alder, &pair.birch);
    // Neither hears of the other's, and both are told that it is new.
    pair.link.refuse();
    pair.link.cut();
    for node in [alder, birch] {
        node.wait_for("the link is down", || {
            node.status()["peers"][0]["linked"] == false
        });
    }
    for (node, peer) in [(alder, "birch"), (birch, "alder")] {
        let path = node.live("db");
        btrfs(&["subvolume", "create", path.to_str().unwrap()]);
        fill(&path, 3, 1000, 1);
        let name = node.name;
        let role = format!("[role.db]\nhome = \"{name}\"\npeers = [\"{peer}\"]\n{MANUAL}\n");
        let text = fs::read_to_string(node.config_path()).unwrap();
        let dataset = format!("[role.db.dataset.db]\nbtrfs = \"{}\"\n", path.display());
        fs::write(node.config_path(), text + &role + &dataset).unwrap();
        node.run(&["reload"]).ok();
        node.run(&["resume", "db"]).ok();
    }
    pair.link.mend();
    pair.wait_linked();
    for node in [alder, birch] {
        assert_eq!(node.run(&["run", "db"]).code, 15);
        checked(node, 1, &["same `home`", "not the home and only there"]);
    }
    birch.edit("home = \"birch\"", "home = \"alder\"");
    birch.run(&["reload"]).ok();
    checked(alder, 1, &["its config named birch as home"]);
    // As the hint says, on birch.
    let begun = birch.points_dir().with_file_name("db");
    for point in fs::read_dir(&begun).unwrap() {
        let snapshot = point.unwrap().path().join("db");
        btrfs(&["subvolume", "delete", snapshot.to_str().unwrap()]);
    }
    fs::remove_dir_all(&begun).unwrap();
    alder.run(&["run", "db"]).ok();
    checked(alder, 0, &["role db: birch stands in for it"]);
    let role = birch.status()["roles"][0].clone();
    assert_eq!(
        (&role["name"], &role["state"]),
        (&"db".into(), &"standby".into())
    );
    assert!(role["last_error"].is_null(), "{role}");
}

#[test]
fn what_the_receiver_does_not_accept() {
    if !fixture::ready("what_the_receiver_does_not_accept") {
        return;
    }
    let pair = Pair::new(&["files"], "", MANUAL);
    let (alder, birch) = (&pair.alder, &pair.birch);
    let refuse = "[peer.alder]\naccept = { setuid = \"refuse\" }";
    birch.edit("[peer.alder]", refuse);
    birch.run(&["reload"]).ok();
    let tool = alder.live("files").join("tool");
    fs::write(&tool, "x").unwrap();
    fs::set_permissions(&tool, fs::Permissions::from_mode(0o4755)).unwrap();
    let said = alder.run(&["run", "web"]);
    assert_eq!(said.code, 15, "{said:?}");
    for words in [
        "is not accepted from this peer",
        "let it in",
        "standin reload",
    ] {
        assert!(said.out.contains(words), "{words:?} is not in {}", said.out);
    }
    // Nothing tries it again by itself.
    let replica = alder.role()["replicas"][0].clone();
    assert!(replica["retry_at"].is_null(), "{replica}");
    birch.edit("refuse", "drop");
    birch.run(&["reload"]).ok();
    alder.run(&["run", "web"]).ok();
    pair.wait_stored("1.1");
}

#[test]
fn trouble_ends_when_the_peer_caught_up() {
    if !fixture::ready("trouble_ends_when_the_peer_caught_up") {
        return;
    }
    let mut pair = Pair::new(&["files"], "", MANUAL);
    pair.alder.run(&["run", "web"]).ok();
    pair.birch.stop();
    fill(&pair.alder.live("files"), 1, 1000, 2);
    assert_eq!(pair.alder.run(&["run", "web"]).code, 13);
    let error = pair.alder.role()["last_error"].clone();
    // How the link ended, or that there is none.
    assert!(error.as_str().unwrap().contains("birch"), "{error}");
    pair.birch.start();
    pair.wait_stored("1.2");
    let alder = &pair.alder;
    alder.wait_for("nothing is said of it", || {
        alder.role()["last_error"].is_null()
    });
}

#[test]
fn no_number_is_spent_on_nothing() {
    if !fixture::ready("no_number_is_spent_on_nothing") {
        return;
    }
    let pair = Pair::new(&["files", "db"], "", MANUAL);
    let alder = &pair.alder;
    alder.run(&["run", "web"]).ok();
    let said = alder
        .run(&["restore", "web", "--yes", "--json"])
        .ok()
        .json();
    assert_eq!(said["kept"]["short"], "1.2", "{said}");
    fill(&alder.live("files"), 1, 1000, 3);
    alder.run(&["run", "web"]).ok();
    assert_eq!(alder.points(), ["1.1", "1.2", "1.3"]);
}

#[test]
fn a_home_that_changed_and_a_peer_that_is_known() {
    if !fixture::ready("a_home_that_changed_and_a_peer_that_is_known") {
        return;
    }
    let pair = Pair::new(&["files"], "", MANUAL);
    let (alder, birch) = (&pair.alder, &pair.birch);
    alder.run(&["run", "web"]).ok();
    for node in [alder, birch] {
        node.edit("home = \"alder\"", "home = \"birch\"");
        node.run(&["reload"]).ok();
        assert_eq!(node.role()["home"], "birch");
        assert_eq!(node.role()["active"], "alder");
    }
    birch.wait_for("it heard of the point", || {
        birch.role()["words"][0]["newest"] == "1.1"
    });
    checked(
        alder,
        0,
        &[
            "lives on alder for",
            "its home is birch",
            "standin failback web; or",
        ],
    );
    checked(
        birch,
        0,
        &["lives on alder for", "standin failback web, on alder"],
    );
    let said = birch.run(&["status"]).ok().out;
    assert!(
        said.contains("its home is birch: standin failback web, on alder"),
        "{said}"
    );
    let said = birch.run(&["points"]).ok().out;
    assert!(said.contains("standby (active is alder)"), "{said}");

    let invited = alder.run(&["pair", "invite", "--json"]).ok().json();
    let line = invited["line"].as_str().unwrap();
    for _ in 0..2 {
        let said = birch.run(&["pair", "accept", line]).ok().out;
        assert!(said.contains("alder was a peer already"), "{said}");
    }
}
