//! What `check` and refusals advise where two nodes do not fit together: what is said is true of that moment, and who follows
//! the hint is out of the trouble.
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::print_stderr)]

mod support;

use std::fs;

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
    }
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
