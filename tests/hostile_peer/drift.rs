//! A peer that asks for more of what is watched than it is to have.

use serde_json::json;

use crate::Scene;
use crate::support::fixture::ready;

#[test]
fn questions_for_what_is_not_watched_with_it() {
    if !ready("questions_for_what_is_not_watched_with_it") {
        return;
    }
    let mut scene = Scene::new("");
    let dir = scene.birch.dir.clone();
    std::fs::write(dir.join("ours"), "told\n").unwrap();
    std::fs::write(dir.join("theirs"), "hunter2\n").unwrap();
    std::fs::write(dir.join("long"), "x".repeat(3 << 20)).unwrap();
    let file = |name: &str| format!("file = \"{}/{name}\"", dir.display());
    let count = dir.join("count");
    let watches = format!(
        "watch = [{{ name = \"ours\", {} }}, {{ name = \"theirs\", {}, peers = [\"cedar\"] }}, {{ name = \"long\", {} }}, \
         {{ name = \"run\", command = [\"sh\", \"-c\", \"echo x >> {}\"] }}]\nreserve = ",
        file("ours"),
        file("theirs"),
        file("long"),
        count.display()
    );
    scene.birch.edit("reserve = ", &watches);
    scene.birch.run(&["reload"]).ok();
    let ask = |names: serde_json::Value| json!({"type": "drift", "names": names});
    scene.check(
        "what is watched",
        &ask(json!(["ours"])),
        &[],
        "Text(\"told\\n\")",
    );
    let nothing = "Drift { found: {} }";
    let passwd = "../../../../etc/passwd";
    for names in [
        json!([]),
        json!(["theirs"]),
        json!(["/etc/passwd", passwd, "", "*"]),
        json!(["x".repeat(1 << 20)]),
    ] {
        scene.check(&format!("{names:.60}"), &ask(names), &[], nothing);
    }
    scene.check(
        "too much of it",
        &ask(json!(["long"])),
        &[],
        "bytes: 3145728",
    );
    let none = "does not understand the request";
    for names in [json!(null), json!("ours"), json!([7]), json!({"a": 1})] {
        scene.check(&format!("{names}"), &ask(names), &[], none);
    }
    // The same name again and again is one, and many names cost no more than their own length.
    scene.check(
        "one name often",
        &ask(json!(vec!["ours"; 100_000])),
        &[],
        "told",
    );
    scene.check(
        "many names",
        &ask(json!(
            (0..100_000)
                .collect::<Vec<u32>>()
                .iter()
                .map(u32::to_string)
                .collect::<Vec<_>>()
        )),
        &[],
        nothing,
    );
    // However often it asks, commands run no more than one look at a time allows.
    for _ in 0..20 {
        scene.check("again", &ask(json!(["run"])), &[], "Drift");
    }
    let ran = std::fs::read_to_string(&count).unwrap().lines().count();
    assert!(ran < 20, "{ran} times");
    scene.calm("questions for what is watched");
}
