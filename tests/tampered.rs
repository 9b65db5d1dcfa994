//! What rescan does where it cannot simply fetch: a link that is down, a grant that is missing, nobody who holds the point;
//! and what a restore says of a damaged one. The long run over all kinds of harm is the campaign `tamper`.
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::print_stderr)]

mod support;

use std::fs;
use std::path::Path;

use support::cluster::{MANUAL, Pair, TestNode, btrfs, fill, same_on_both};
use support::fixture;

/// Makes a snapshot writable, changes it, and flips it back.
fn tamper(snapshot: &Path) {
    let flip = |word| {
        let path = snapshot.to_str().unwrap();
        btrfs(&["property", "set", "-f", "-ts", path, "ro", word]);
    };
    flip("false");
    fs::write(snapshot.join("planted"), "x").unwrap();
    flip("true");
}

/// How many points are damaged, and how many lie aside.
fn counts(node: &TestNode) -> (usize, usize) {
    let said = node.run(&["points", "web", "--json"]).ok().json();
    let count = |list: &str| said["roles"][0][list].as_array().unwrap().len();
    (count("damaged"), count("aside"))
}

#[test]
fn what_cannot_be_fetched_stays_or_is_set_aside() {
    if !fixture::ready("what_cannot_be_fetched_stays_or_is_set_aside") {
        return;
    }
    let pair = Pair::new(&["files"], "", MANUAL);
    for round in 1..=3 {
        fill(&pair.alder.live("files"), 5, 1000, round);
        pair.alder.run(&["run"]).ok();
    }
    let (alder, birch) = (&pair.alder, &pair.birch);
    tamper(&alder.snapshot("1.2", "files"));
    let sentence = "alder's copy of 1.2 was changed after it was stored (files); it is not used";
    let said = alder.run(&["points"]).ok();
    assert!(said.out.contains(sentence) && said.out.contains("standin rescan web"));
    let said = alder.run(&["restore", "web", "--point", "1.2", "--yes"]);
    assert_eq!(said.code, 15, "{said:?}");
    assert!(said.err.contains(sentence) && said.err.contains("hint: standin rescan web"));

    // The peer cannot be asked.
    pair.link.cut();
    alder.wait_for("the link is down", || {
        alder.status()["peers"][0]["linked"] == false
    });
    let said = alder.run(&["rescan", "web"]);
    assert_eq!(said.code, 13, "{said:?}");
    assert!(
        said.out
            .contains("leave 1.2 as it is: birch could not be asked"),
        "{said:?}"
    );
    assert_eq!(counts(alder), (1, 0));
    pair.link.mend();
    pair.wait_linked();

    // The peer may not give it, then this node may not take it.
    for (node, there) in [(birch, "receive"), (alder, "send")] {
        let other = if there == "send" { "birch" } else { "alder" };
        let kept = if there == "send" { "receive" } else { "send" };
        let from = format!("[peer.{other}]\n");
        let to = format!("[peer.{other}]\ngrants = [\"{kept}\"]\n");
        node.edit(&from, &to);
        node.run(&["reload"]).ok();
        pair.wait_linked();
        let said = alder.run(&["rescan", "web"]);
        assert_ne!(said.code, 0, "{said:?}");
        let why = format!("does not grant {other} to {there}");
        let told = format!("{}{}", said.out, alder.log());
        assert!(told.contains(&why), "{why}: {said:?}");
        assert_eq!(counts(alder), (1, 0));
        node.edit(&to, &from);
        node.run(&["reload"]).ok();
        pair.wait_linked();
    }

    alder.run(&["rescan"]).ok();
    assert_eq!(counts(alder), (0, 1));
    assert_eq!(alder.points(), ["1.1", "1.2", "1.3"]);
    same_on_both(&pair, "1.2", &["files"]);
    let said = alder.run(&["rescan"]).ok();
    assert!(said.out.contains("all 3 points are whole"), "{said:?}");

    // Nobody holds it whole any more: `latest` passes over it and says so, a rescan sets it aside.
    for node in [alder, birch] {
        tamper(&node.snapshot("1.3", "files"));
    }
    let target = alder.dir.join("restored");
    let said = alder
        .run(&["restore", "web", "--to", target.to_str().unwrap()])
        .ok();
    assert!(said.out.contains("from point 1.2"), "{said:?}");
    assert!(
        said.out.contains("alder's copy of 1.3 was changed"),
        "{said:?}"
    );
    let said = alder.run(&["rescan"]).ok();
    assert!(
        said.out.contains("set 1.3 aside: no peer holds it"),
        "{said:?}"
    );
    assert_eq!(counts(alder), (0, 2));
    assert_eq!(counts(birch), (1, 0));

    // The history goes on from what both hold.
    fill(&alder.live("files"), 5, 1000, 9);
    alder.run(&["run"]).ok();
    same_on_both(&pair, "1.4", &["files"]);
    let why = "birch's copy of 1.3 was changed after it was stored (files)";
    assert!(alder.log().contains(why), "{}", alder.log());
    birch.run(&["rescan"]).ok();
    assert_eq!(counts(birch), (0, 1));
}

#[test]
fn a_peer_still_holds_what_is_damaged_here() {
    if !fixture::ready("a_peer_still_holds_what_is_damaged_here") {
        return;
    }
    let pair = Pair::new(&["files"], "", MANUAL);
    fill(&pair.alder.live("files"), 5, 1000, 1);
    pair.alder.run(&["run"]).ok();
    tamper(&pair.alder.snapshot("1.1", "files"));
    let replica = pair.alder.role()["replicas"][0].clone();
    assert_eq!(replica["newest"]["short"], "1.1", "{replica}");
    assert!(replica["exposure_s"].is_number(), "{replica}");
    let said = pair.alder.run(&["status"]).ok();
    assert!(!said.out.contains("holds no point"), "{}", said.out);
}
