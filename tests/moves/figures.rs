//! What `status` tells on each node: who is active since when, what would be lost, how long a hand-over would take.

use serde_json::Value;

use crate::MANUAL;
use crate::stage::Stage;
use crate::support::cluster::{MIB, fill};
use crate::support::fixture;

fn replica(stage: &Stage, node: &str) -> Value {
    stage.node(node).role()["replicas"][0].clone()
}

fn dry_run(stage: &Stage, node: &str, to: &str) -> String {
    let said = stage
        .node(node)
        .run(&["handover", "web", "--to", to, "--dry-run"]);
    said.ok().out
}

#[test]
fn honest_figures() {
    if !fixture::ready("honest_figures") {
        return;
    }
    let mut stage = Stage::new(&["alder", "birch"], &["db"], MANUAL);
    stage.wait_state("alder", "active");
    stage.node("alder").run(&["run", "web"]).ok();

    // What the active node had is known on the other one, and what was written since is measured.
    let role = stage.node("alder").role();
    assert!(
        role["since"].is_string() && role["home"] == "alder",
        "{role}"
    );
    assert!(
        role["loss"].is_null() && role["outlook"].is_null(),
        "{role}"
    );
    let birch = stage.node("birch");
    birch.wait_for("it heard of the point and has it", || {
        let loss = birch.role()["loss"].clone();
        let heard = birch.role()["words"][0]["newest"] == "1.1";
        heard && loss["missing"].is_null() && loss["exposure_s"].is_number()
    });
    let role = birch.role();
    assert_eq!(role["loss"]["active"], "alder", "{role}");
    assert_eq!(role["words"][0]["state"], "active", "{role}");
    let said = birch.run(&["status"]).ok().out;
    assert!(said.contains("lost if promoted now  the last"), "{said}");
    let before = replica(&stage, "alder")["exposure_bytes"].clone();
    fill(&stage.node("alder").live("db"), 4, MIB as usize, 3);
    let alder = stage.node("alder");
    alder.wait_for("what was written is measured", || {
        let bytes = replica(&stage, "alder")["exposure_bytes"].as_u64();
        bytes.is_some_and(|bytes| (4 * MIB..8 * MIB).contains(&bytes))
    });
    println!(
        "exposure: {before} bytes, then {}",
        replica(&stage, "alder")["exposure_bytes"]
    );

    // Nothing ever stopped here.
    let said = dry_run(&stage, "alder", "birch");
    assert!(said.contains("nobody is served for about"), "{said}");
    assert!(
        said.contains("the services take to stop, which was never measured"),
        "{said}"
    );
    let known = replica(&stage, "alder")["handover"].clone();
    assert_eq!(known["unmeasured"].as_array().unwrap().len(), 1, "{known}");

    let moved = ["handover", "web", "--to", "birch", "--json"];
    let moved = stage.node("alder").run(&moved).ok().json();
    let alder = stage.node("alder");
    let said = alder.run(&["check"]);
    for words in [
        "lives on birch for",
        "its home is alder",
        "standin failback web, on birch",
    ] {
        assert!(said.out.contains(words), "{words:?} is not in {}", said.out);
    }
    let said = stage.node("birch").run(&["status"]).ok().out;
    assert!(
        said.contains("its home is alder: standin failback web"),
        "{said}"
    );
    stage.node("birch").run(&["failback", "web"]).ok();
    let known = replica(&stage, "alder")["handover"].clone();
    assert_eq!(known["unmeasured"].as_array().unwrap().len(), 0, "{known}");
    let (predicted, took) = (
        known["seconds"].as_f64().unwrap(),
        moved["down_s"].as_f64().unwrap(),
    );
    println!("predicted {predicted:.2} s, took {took:.2} s");
    assert!(predicted < took * 3.0 + 1.0, "{known}, {moved}");
    let said = dry_run(&stage, "alder", "birch");
    assert!(!said.contains("never measured"), "{said}");

    // The standby still knows after a restart, with nobody to ask.
    stage.die("alder");
    stage.node_mut("birch").stop();
    stage.node_mut("birch").start();
    let role = stage.node("birch").role();
    assert_eq!(role["words"][0]["state"], "active", "{role}");
    assert!(role["loss"]["said"].is_string(), "{role}");
}
