//! A peer that asks for files that it is not to have.

use serde_json::{Value, json};

use crate::Scene;
use crate::peer::ROLE;
use crate::support::fixture::ready;

const POINT: &str = "20261120T120000Z.1.1";

fn find(path: &str) -> Value {
    json!({"type": "find", "role": "web", "role_id": ROLE, "dataset": "files", "path": path})
}

fn read(path: &str) -> Value {
    json!({"type": "read", "role": "web", "role_id": ROLE, "dataset": "files", "point": POINT, "path": path})
}

#[test]
fn questions_for_files() {
    if !ready("questions_for_files") {
        return;
    }
    let mut scene = Scene::with_point();
    // P7: what is not granted is refused, whatever is asked.
    let refused = "does not grant alder to read";
    for request in [find("file"), read("file"), find("../x"), read("none")] {
        scene.check(&format!("{request:.60}"), &request, &[], refused);
    }
    let grants = "[peer.alder]\ngrants = [\"send\", \"receive\", \"read\"]\n";
    scene.birch.edit("[peer.alder]\n", grants);
    scene.birch.run(&["reload"]).ok();
    scene.check("an honest question", &find("file"), &[], "size: 200000");
    scene.check("a pattern", &find("f*"), &[], "path: \"file\"");
    scene.check("an honest reader", &read("file"), &[], "File { facts");
    for path in [
        "",
        "/etc/passwd",
        "../../../../etc/passwd",
        "a/../../x",
        ".",
    ] {
        scene.check(path, &find(path), &[], "is no path in a dataset");
        scene.check(path, &read(path), &[], "is no path in a dataset");
    }
    let long = "is no path in a dataset";
    scene.check(
        "a path that is long",
        &read(&"x/".repeat(1 << 19)),
        &[],
        long,
    );
    scene.check(
        "a pattern that is long",
        &find(&"*".repeat(1 << 20)),
        &[],
        long,
    );
    let deep = format!("{}x", "**/".repeat(1000));
    scene.check("a pattern that is deep", &find(&deep), &[], "trails: []");
    scene.check(
        "a name that is long",
        &read(&"x".repeat(4000)),
        &[],
        "does not show",
    );
    scene.check("nothing there", &find("none"), &[], "trails: []");
    scene.check("nothing there", &read("none"), &[], "does not show none");
    let mut far = read("file");
    far["offset"] = json!(u64::MAX);
    scene.check("an offset beyond", &far, &[], "File { facts");
    for (field, value, words) in [
        ("role_id", json!(crate::OTHER), "is another role"),
        ("role", json!("mail"), "has no role mail"),
        ("dataset", json!("db"), "has no dataset db"),
        (
            "point",
            json!("20261120T120000Z.1.9"),
            "it is gone, or damaged",
        ),
        ("fork", json!(POINT), "it is gone"),
        ("point", json!("../x"), "does not understand the request"),
        ("dataset", json!("../x"), "does not understand the request"),
    ] {
        let mut request = read("file");
        request[field] = value;
        scene.check(field, &request, &[], words);
    }
    scene.calm("questions for files");
}
