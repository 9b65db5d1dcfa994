//! A peer stays away for weeks while the source changes: its base stays, or goes at the limit that the config sets.

use std::fs;

use super::stage::{Filler, Stage, disks, text};
use crate::case::Case;
use crate::support::cluster::MIB;

const KEEP: &str = "keep = { last = 1 }\nkeep-standby = { last = 50 }\n";

/// Birch goes, alder changes everything it had and prunes; then the record says that birch left so many days ago.
fn leave(case: &mut Case, stage: &mut Stage, days: u64) {
    stage.grow(20 + case.below(20), 512);
    stage.alder().run(&["run", "web"]).ok();
    stage.pair.wait_stored("1.1");
    stage.pair.birch.stop();
    stage.alder().wait_for("birch is gone", || {
        stage.alder().status()["peers"][0]["linked"] == false
    });
    let live = stage.alder().live("files");
    for _ in 0..2 + case.below(3) {
        fs::remove_dir_all(live.join(format!("d{}", case.below(10)))).unwrap_or_default();
        stage.grow(2, 256);
        stage.alder().run(&["run", "web"]);
    }
    assert!(stage.alder().points().contains(&"1.1".to_owned()), "pinned");
    stage.pair.alder.stop();
    let state = stage.alder().dir.join("state/state.sqlite");
    let database = rusqlite::Connection::open(state).unwrap();
    let changed = database
        .execute(
            "UPDATE absence SET seen = seen - ?1",
            [days as i64 * 86_400_000],
        )
        .unwrap();
    assert_eq!(changed, 1);
}

/// At the limit the base goes, loudly; birch comes back to a full send beside what it holds.
pub fn base_is_let_go(case: &mut Case) {
    let limit = *case.pick(&["for = \"10d\"", "bytes = \"1MiB\"", "free = \"95%\""]);
    let role = format!("{KEEP}keep-for-absent-peers = {{ {limit} }}\n");
    let mut stage = Stage::new(case, disks(1024, 2048), &role);
    let days = 11 + case.below(30);
    leave(case, &mut stage, days);
    let _filler = Filler::leaving(stage.alder(), 200 * MIB);
    stage
        .pair
        .alder
        .start_with(&[("STANDIN_SETTLED_AFTER", "0")]);
    stage.alder().run(&["prune", "web"]).ok();
    stage.alder().wait_for("the base is let go", || {
        !stage.alder().points().contains(&"1.1".to_owned())
    });
    let said = text(&stage.replica()["absent"]);
    assert!(
        said.contains("birch will need a full send") && said.contains("1.1"),
        "{said}"
    );
    assert!(stage.alder().log().contains("let base 1.1 of birch go"));
    let shown = stage.alder().run(&["status"]).ok().out;
    assert!(shown.contains("birch will need a full send"), "{shown}");
    let checked = stage.alder().run(&["check"]);
    assert!(
        checked.out.contains("birch will need a full send"),
        "{checked:?}"
    );
    stage.pair.birch.start();
    stage.pair.wait_linked();
    let newest = stage.alder().points().pop().unwrap();
    stage.judge(&newest);
    assert!(
        stage.birch().points().contains(&"1.1".to_owned()),
        "nothing of birch's is removed"
    );
    stage.alder().wait_for("the release is forgotten", || {
        stage.said_nothing_of_absence()
    });
    // From here on there is a base again.
    stage.grow(2, 64);
    stage.alder().run(&["run", "web"]).ok();
    let newest = stage.alder().points().pop().unwrap();
    stage.judge(&newest);
    assert!(stage.alder().log().contains(" on top of "));
    case.count("bases let go at a limit");
}

/// Without a limit, or below it, or before this node has looked long enough, it stays: and is warned of.
pub fn base_stays(case: &mut Case) {
    let limit = match case.below(3) {
        0 => "",
        1 => "keep-for-absent-peers = { for = \"60d\" }\n",
        _ => "keep-for-absent-peers = { for = \"5d\" }\n",
    };
    let mut stage = Stage::new(case, disks(1024, 2048), &format!("{KEEP}{limit}"));
    let days = 31 + case.below(20);
    leave(case, &mut stage, days);
    let settled = if limit.contains("\"5d\"") {
        "3600"
    } else {
        "0"
    };
    stage
        .pair
        .alder
        .start_with(&[("STANDIN_SETTLED_AFTER", settled)]);
    for _ in 0..3 {
        stage.alder().run(&["prune", "web"]).ok();
    }
    assert!(
        stage.alder().points().contains(&"1.1".to_owned()),
        "never let go"
    );
    let said = text(&stage.replica()["absent"]);
    let away = format!("birch has been away for {days}d");
    assert!(said.contains(&away) && said.contains("base 1.1"), "{said}");
    assert!(said.contains("holds about"), "{said}");
    assert_eq!(
        stage.alder().log().matches(&away).count(),
        1,
        "once, not with every look"
    );
    stage.pair.birch.start();
    stage.pair.wait_linked();
    let newest = stage.alder().points().pop().unwrap();
    stage.judge(&newest);
    assert!(stage.alder().log().contains("on top of 1.1 to birch"));
    case.count("bases kept for an absent peer");
}
