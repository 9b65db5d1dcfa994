//! The active node dies; a standby is promoted; the dead one returns.

use crate::stage::Stage;
use crate::support::fixture;
use crate::{BUSY, MANUAL};

#[test]
fn what_the_dead_node_had_is_kept_as_a_fork() {
    if !fixture::ready("what_the_dead_node_had_is_kept_as_a_fork") {
        return;
    }
    let mut stage = Stage::new(&["alder", "birch"], &["db"], MANUAL);
    stage.wait_written("alder", 20);
    stage.node("alder").run(&["run", "--attach", "web"]).ok();
    // Written, on disk, and on no other node.
    stage.wait_written("alder", 20);
    stage.die("alder");
    let birch = stage.node("birch");
    let last = birch.points().pop().unwrap();
    let said = birch.run(&["promote", "web"]);
    assert_eq!(said.code, 15, "{said:?}");
    assert!(said.err.contains("--assert-stopped alder"), "{said:?}");
    let said = birch.run(&["promote", "web", "--assert-stopped", "alder"]);
    assert_eq!(said.code, 15, "{said:?}");
    assert!(
        said.err.contains(&format!("--accept-loss-after {last}")),
        "{said:?}"
    );
    let promote = [
        "promote",
        "web",
        "--assert-stopped",
        "alder",
        "--accept-loss-after",
        &last,
    ];
    let dry = birch.run(&[&promote[..], &["--dry-run"]].concat()).ok();
    assert!(dry.out.contains("becomes a fork on alder"), "{dry:?}");
    assert_eq!(birch.role()["state"], "standby");
    birch.run(&promote).ok();
    assert_eq!(birch.role()["state"], "active");
    stage.wait_written("birch", 20);
    // The old one wakes up: it asks, learns, keeps, stands in.
    stage.node_mut("alder").start();
    stage.wait_state("alder", "standby");
    assert_eq!(stage.active(), ["birch"]);
    let forks = stage
        .node("alder")
        .run(&["fork", "list", "web", "--json"])
        .ok()
        .json();
    assert_eq!(
        forks["roles"][0]["forks"].as_array().unwrap().len(),
        1,
        "{forks}"
    );
    stage.node("birch").run(&["run", "--attach", "web"]).ok();
    // And it takes the role home.
    stage.node("birch").run(&["failback", "web"]).ok();
    assert_eq!(stage.active(), ["alder"]);
    stage.wait_written("alder", 5);
    stage.records("alder").whole();
    let whole = stage.node("birch").log().matches(" whole to ").count();
    assert_eq!(whole, 0, "the way back is by difference only");
}

/// Ten times: the active node dies under load, the other is promoted, the dead one returns.
#[test]
fn ten_deaths() {
    if !fixture::ready("ten_deaths") {
        return;
    }
    let mut stage = Stage::new(&["alder", "birch"], &[], BUSY);
    stage.wait_written("alder", 20);
    stage.node("alder").run(&["run", "--attach", "web"]);
    let (mut active, mut other) = ("alder", "birch");
    for round in 0..10 {
        stage.wait_written(active, 10);
        stage.die(active);
        let last = stage.node(other).points().pop().unwrap();
        let promote = [
            "promote",
            "web",
            "--assert-stopped",
            active,
            "--accept-loss-after",
            &last,
        ];
        stage.node(other).run(&promote).ok();
        stage.wait_written(other, 5);
        stage.node_mut(active).start();
        stage.wait_state(active, "standby");
        assert_eq!(stage.active(), [other], "round {round}");
        stage.wait_linked();
        let said = stage.node(other).run(&["run", "--attach", "web"]);
        assert_eq!(
            said.code,
            0,
            "round {round}: {said:?}\n{}",
            stage.node(other).log()
        );
        std::mem::swap(&mut active, &mut other);
    }
    stage.records(active).whole();
    for node in &stage.nodes {
        let log = node.log();
        let most = usize::from(node.name == "alder");
        assert!(
            log.matches(" whole to ").count() <= most,
            "{}:\n{log}",
            node.name
        );
    }
}
