//! What must not be done is refused, with what to do instead; and two claims of one epoch harm nobody.

use crate::MANUAL;
use crate::stage::Stage;
use crate::support::fixture;

/// Runs a verb, expects this code and these words.
#[track_caller]
fn refused(stage: &Stage, node: &str, args: &[&str], code: i32, words: &[&str]) {
    let said = stage.node(node).run(args);
    assert_eq!(said.code, code, "{args:?}: {said:?}");
    for word in words {
        assert!(
            said.err.contains(word),
            "{args:?} does not say {word:?}: {said:?}"
        );
    }
    assert!(
        said.err.contains("hint:"),
        "{args:?} says nothing of what to do: {said:?}"
    );
}

#[test]
fn every_refusal_says_what_to_do() {
    if !fixture::ready("every_refusal_says_what_to_do") {
        return;
    }
    let stage = Stage::new(&["alder", "birch"], &[], MANUAL);
    stage.wait_written("alder", 5);
    // Nothing of it has been sent yet.
    let words = ["nobody has sent it here yet", "its home is alder"];
    refused(&stage, "birch", &["promote", "web"], 17, &words);
    let to_birch = ["handover", "web", "--to", "birch"];
    refused(&stage, "alder", &to_birch, 15, &["no point"]);
    stage.node("alder").run(&["run", "web"]).ok();
    refused(
        &stage,
        "birch",
        &["promote", "web"],
        15,
        &["alder plays the role", "standin handover web --to birch"],
    );
    let stated = ["promote", "web", "--assert-stopped", "alder"];
    refused(&stage, "birch", &stated, 15, &["alder plays the role"]);
    refused(&stage, "birch", &["promote", "mail"], 17, &["role mail"]);
    refused(
        &stage,
        "birch",
        &["promote", "web", "--assert-stopped", "cedar"],
        2,
        &["no peer"],
    );
    refused(
        &stage,
        "alder",
        &["promote", "web"],
        15,
        &["active already"],
    );
    refused(
        &stage,
        "birch",
        &["handover", "web", "--to", "alder"],
        15,
        &["alder"],
    );
    refused(
        &stage,
        "alder",
        &["handover", "web", "--to", "alder"],
        15,
        &["it is here already"],
    );
    refused(
        &stage,
        "alder",
        &["handover", "web", "--to", "cedar"],
        17,
        &["its peers: birch"],
    );
    refused(
        &stage,
        "alder",
        &["failback", "web"],
        15,
        &["it is here already"],
    );
    refused(&stage, "alder", &["resume", "web"], 15, &["active"]);
    refused(
        &stage,
        "birch",
        &["resume", "web"],
        15,
        &["standin promote web"],
    );
    refused(
        &stage,
        "alder",
        &["resolve", "web", "--keep", "alder"],
        15,
        &["no conflict"],
    );
    refused(
        &stage,
        "alder",
        &["handover", "web", "--cancel"],
        15,
        &["no hand-over"],
    );
    // Paused there: not ready.
    stage.node("birch").run(&["pause", "web"]).ok();
    refused(
        &stage,
        "alder",
        &["handover", "web", "--to", "birch"],
        15,
        &["paused on birch"],
    );
    stage.node("birch").run(&["pause", "web", "--off"]).ok();
}

/// A node that was active and is alone does not know whether it still is.
#[test]
fn a_restart_without_its_peer_waits() {
    if !fixture::ready("a_restart_without_its_peer_waits") {
        return;
    }
    let mut stage = Stage::new(&["alder", "birch"], &[], MANUAL);
    stage.wait_written("alder", 5);
    stage.node("alder").run(&["run", "web"]).ok();
    stage.die("birch");
    stage.die("alder");
    stage.node_mut("alder").start();
    refused(
        &stage,
        "alder",
        &["run", "web"],
        15,
        &["standin resume web"],
    );
    // Also where nothing happened since they were paired.
    let log = stage.node("alder").log();
    assert!(!log.contains("no peers who could know better"), "{log}");
    assert_eq!(
        stage
            .node("alder")
            .run(&["if-active", "web", "--", "true"])
            .code,
        75
    );
    stage.node("alder").run(&["resume", "web"]).ok();
    stage.wait_written("alder", 5);
    stage
        .node("alder")
        .run(&["if-active", "web", "--", "true"])
        .ok();
}

/// Two operators, one night: both nodes were promoted while they did not see each other.
#[test]
fn two_claims_of_one_epoch() {
    if !fixture::ready("two_claims_of_one_epoch") {
        return;
    }
    let mut stage = Stage::new(&["alder", "birch", "cedar"], &[], MANUAL);
    stage.wait_written("alder", 20);
    stage.node("alder").run(&["run", "web"]).ok();
    stage.die("alder");
    let last = stage.node("birch").points().pop().unwrap();
    // Each alone, with what its operator believes.
    stage.die("cedar");
    let promote = [
        "promote",
        "web",
        "--assert-stopped",
        "alder",
        "--accept-loss-after",
        &last,
        "--assert-stopped",
    ];
    stage
        .node("birch")
        .run(&[&promote[..], &["cedar"]].concat())
        .ok();
    stage.wait_written("birch", 10);
    stage.die("birch");
    stage.node_mut("cedar").start();
    stage
        .node("cedar")
        .run(&[&promote[..], &["birch"]].concat())
        .ok();
    stage.wait_written("cedar", 10);
    stage.node_mut("birch").start();
    stage.wait_linked();
    stage.wait_state("birch", "conflict (down)");
    stage.wait_state("cedar", "conflict (up)");
    let keep = ["resolve", "web", "--keep", "cedar"];
    refused(
        &stage,
        "birch",
        &["resolve", "web", "--keep", "birch"],
        15,
        &["first on cedar"],
    );
    stage
        .node("birch")
        .run(&[&keep[..], &["--dry-run"]].concat())
        .ok();
    stage.wait_state("birch", "conflict (down)");
    stage.node("birch").run(&keep).ok();
    stage.node("cedar").run(&keep).ok();
    stage.wait_state("birch", "standby");
    assert_eq!(stage.active(), ["cedar"]);
    stage.node_mut("alder").start();
    stage.wait_state("alder", "standby");
    stage.wait_written("cedar", 5);
    stage.node("cedar").run(&["run", "--attach", "web"]).ok();
    stage.records("cedar").whole();
}
