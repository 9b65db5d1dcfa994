//! A peer that asks what is none of its business about roles and copies, and goes away in the middle.

use serde_json::{Value, json};

use crate::peer::{point, term};
use crate::support::fixture::ready;
use crate::{OTHER, Scene, with};

#[test]
fn questions_about_roles_and_copies() {
    if !ready("questions_about_roles_and_copies") {
        return;
    }
    let mut scene = Scene::with_point();
    let describe = |role: Value| json!({"type": "describe", "role": role});
    scene.check("its role", &describe(json!("web")), &[], "points: 1");
    scene.check(
        "another",
        &describe(json!("other")),
        &[],
        "Described { roles: [] }",
    );
    let none = "does not understand the request";
    for role in [json!("../etc"), json!(7), json!(["web"])] {
        scene.check(&format!("{role}"), &describe(role), &[], none);
    }
    let manifest = point(1);
    let verify = json!({
        "type": "verify", "role": "web", "role_id": manifest["role"], "term": term(),
        "point": manifest["point"], "dataset": "files", "leave": {"colours": true},
    });
    scene.check("a copy", &verify, &[], "Reading|Read {");
    for (place, value, words) in [
        ("/role", json!("other"), "has no role other"),
        ("/role_id", json!(OTHER), "is another role"),
        ("/dataset", json!("db"), "does not hold db"),
        ("/dataset", json!("../files"), none),
        ("/point/sequence", json!(9), "does not hold files"),
        ("/point/sequence", json!(-1), none),
        ("/leave", json!([1]), none),
    ] {
        let asked = with(verify.clone(), place, value);
        scene.check(&format!("{asked}"), &asked, &[], words);
    }
    // Each goes away as soon as the reading has begun.
    for _ in 0..6 {
        scene.check("again", &verify, &[], "Reading|Read {");
    }
    scene.calm("comparisons that nobody waited for");
    scene
        .birch
        .edit("[peer.alder]\n", "[peer.alder]\ngrants = [\"send\"]\n");
    scene.birch.run(&["reload"]).ok();
    scene.check(
        "not granted",
        &verify,
        &[],
        "does not grant alder to receive",
    );
    scene.check("no section", &describe(json!("web")), &[], "skeleton: None");
}
