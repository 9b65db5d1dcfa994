//! What a peer says of roles: terms, lines and grants that it may not give, that cannot be, or that never end. The node follows
//! what an honest peer with the same grants could say, and nothing is destroyed whatever it says.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::peer::{self, ROLE, offer, point, small_stream};
use crate::support::fixture::ready;
use crate::{Scene, carried, commit, with};

/// How long another peer may wait for an answer while one floods the node.
const ANSWERED_WITHIN: Duration = Duration::from_secs(5);

/// Words of the flood.
const FLOOD: u64 = 101;

fn term(epoch: u64, holder: &str) -> Value {
    json!({"epoch": epoch, "holder": holder, "nonce": 7})
}

fn turn(epoch: u64, holder: &str, base: Option<u64>) -> Value {
    let base = base.map(|sequence| json!({"term": peer::term(), "sequence": sequence}));
    json!({"term": term(epoch, holder), "base": base})
}

fn word(seen: &Value, line: &[Value]) -> Value {
    json!({
        "type": "word", "role": "web", "role_id": ROLE,
        "word": {"seen": seen, "plays": true, "line": line},
    })
}

fn grant(term: &Value, line: &[Value]) -> Value {
    json!({"type": "grant", "role": "web", "role_id": ROLE, "term": term, "line": line})
}

impl Scene {
    /// The highest term that birch knows, and what it is.
    #[track_caller]
    fn knows(&self, epoch: u64, holder: &str, state: &str) {
        let role = self.birch.role();
        let known = (
            &role["term"]["epoch"],
            &role["term"]["holder"],
            &role["state"],
        );
        assert_eq!(known, (&json!(epoch), &json!(holder), &json!(state)));
    }

    /// Points, and points in forks: of all that was ever stored, nothing is gone.
    #[track_caller]
    fn holds(&self, points: &[&str], forked: &[&str]) {
        assert_eq!(self.birch.points(), points);
        let said = self
            .birch
            .run(&["fork", "list", "web", "--json"])
            .ok()
            .json();
        let forks = said["roles"][0]["forks"].as_array().unwrap().clone();
        let found = forks
            .iter()
            .flat_map(|fork| fork["points"].as_array().unwrap());
        let found: Vec<&str> = found
            .map(|point| point["short"].as_str().unwrap())
            .collect();
        assert_eq!(found, forked);
    }
}

#[test]
fn words_that_are_not_followed() {
    if !ready("words_that_are_not_followed") {
        return;
    }
    let mut scene = Scene::with_point();
    let higher = term(5, "alder");
    let long: Vec<Value> = (1..=10_001)
        .map(|epoch| turn(epoch, "alder", None))
        .collect();
    let falling = [turn(2, "alder", None), turn(1, "alder", None)];
    let none = "does not understand the request";
    let words = [
        (
            "another role id",
            with(word(&higher, &[]), "/role_id", json!(crate::OTHER)),
            "another role",
        ),
        (
            "a role that is not here",
            with(word(&higher, &[]), "/role", json!("mail")),
            "has no role mail",
        ),
        ("10,001 turns", word(&higher, &long), none),
        ("falling epochs", word(&higher, &falling), none),
        (
            "the last epoch there is",
            word(&term(u64::MAX, "alder"), &[]),
            "no role moves that often",
        ),
        (
            "a million epochs ahead",
            word(&term(1 << 21, "alder"), &[]),
            "no role moves that often",
        ),
        (
            "no epoch",
            with(word(&higher, &[]), "/word/seen/epoch", json!(-1)),
            none,
        ),
    ];
    for (what, request, words) in words {
        scene.check(what, &request, &[], words);
        scene.knows(1, "alder", "standby");
        scene.calm(what);
    }
    // The same by sending under such a term, and points whose numbers leave none to others.
    let last = with(offer(2), crate::TERM, term(u64::MAX, "alder"));
    scene.check("an offer under it", &last, &[], "no role moves that often");
    let mut lineage = peer::lineage();
    lineage["term"] = term(u64::MAX, "alder");
    scene.check(
        "a question under it",
        &lineage,
        &[],
        "no role moves that often",
    );
    let numbered = with(offer(2), "/manifest/point/sequence", json!(u64::MAX));
    scene.check(
        "the last number",
        &numbered,
        &[],
        "no role has so many points",
    );
    let mut later = with(offer(2), crate::TERM, term(9, "alder"));
    later["term"] = peer::term();
    scene.check("a point of a later term", &later, &[], "which is older");
    scene.knows(1, "alder", "standby");
    scene.calm("offers");
    // A peer that is not of the role, whatever it says.
    let heard = scene
        .runtime
        .block_on(scene.cedar.converse(&word(&higher, &[]), &[]));
    assert!(
        heard.contains("has no role web that names cedar"),
        "{heard}"
    );
    scene.knows(1, "alder", "standby");
}

#[test]
fn words_without_the_grant() {
    if !ready("words_without_the_grant") {
        return;
    }
    let mut scene = Scene::with_point();
    scene.birch.edit(
        "[role.web]\n",
        "[role.web]\ngrants = { alder = [\"receive\"] }\n",
    );
    scene.birch.run(&["reload"]).ok();
    let higher = term(5, "alder");
    // It may ask, and is told; it is not followed.
    scene.check("a higher term", &word(&higher, &[]), &[], "epoch: 1");
    let mine = term(5, "birch");
    let line = [turn(1, "alder", None), turn(5, "birch", Some(1))];
    scene.check(
        "a grant",
        &grant(&mine, &line),
        &[],
        "does not grant alder to send",
    );
    scene.knows(1, "alder", "standby");
    scene.calm("no grant");
}

#[test]
fn grants_that_are_none() {
    if !ready("grants_that_are_none") {
        return;
    }
    let mut scene = Scene::with_point();
    let mine = term(2, "birch");
    let line = |base| [turn(1, "alder", None), turn(2, "birch", base)];
    for (what, request, words) in [
        (
            "without a base",
            grant(&mine, &line(None)),
            "from which point",
        ),
        ("without a line", grant(&mine, &[]), "from which point"),
        (
            "a base that is not here",
            grant(&mine, &line(Some(77))),
            "does not hold",
        ),
        (
            "to the end",
            grant(&term(u64::MAX, "birch"), &line(Some(1))),
            "no role moves that often",
        ),
        (
            "to somebody else",
            grant(&term(2, "alder"), &[turn(2, "alder", Some(1))]),
            "epoch: 1",
        ),
        (
            "a lower term",
            grant(&term(1, "birch"), &[turn(1, "birch", Some(1))]),
            "epoch: 1",
        ),
    ] {
        scene.check(what, &request, &[], words);
        scene.knows(1, "alder", "standby");
        scene.calm(what);
    }
    // cedar is of the role now, and may send; but the role is alder's to give.
    scene
        .birch
        .edit("peers = [\"alder\"]", "peers = [\"alder\", \"cedar\"]");
    scene.birch.run(&["reload"]).ok();
    let request = grant(&mine, &line(Some(1)));
    let heard = scene.runtime.block_on(scene.cedar.converse(&request, &[]));
    assert!(heard.contains("it is not its to give"), "{heard}");
    scene.knows(1, "alder", "standby");
    scene.calm("cedar");
}

/// A peer that may send may also say that the line went on elsewhere: what is here then becomes a fork, whole.
#[test]
fn a_line_that_leaves_our_points() {
    if !ready("a_line_that_leaves_our_points") {
        return;
    }
    let mut scene = Scene::with_point();
    let stream = small_stream(2);
    scene.check("a second point", &offer(2), &carried(&stream), "Stored");
    scene.check("a second point", &commit(2), &[], "Committed");
    scene.holds(&["1.1", "1.2"], &[]);
    let line = [turn(1, "alder", None), turn(3, "alder", Some(1))];
    let higher = term(3, "alder");
    scene.check("the line left 1.2", &word(&higher, &line), &[], "epoch: 3");
    // It is moved when the peer begins to send.
    let mut lineage = peer::lineage();
    lineage["term"] = higher.clone();
    lineage["line"] = json!(line);
    scene.check("a question", &lineage, &[], "Lineage");
    let birch = &scene.birch;
    birch.wait_for("1.2 is a fork", || birch.points() == ["1.1"]);
    scene.holds(&["1.1"], &["1.2"]);
    // Not even what it says next brings it back as if nothing had been, nor touches it.
    scene.check("1.2 again", &commit(2), &[], "knows term");
    let line = [turn(1, "alder", None), turn(4, "alder", None)];
    lineage["term"] = term(4, "alder");
    lineage["line"] = json!(line);
    scene.check("a line that begins anew", &lineage, &[], "Lineage");
    scene.holds(&["1.1"], &["1.2"]);
    scene.points = vec!["1.1".to_owned()];
    scene.calm("lines");
    assert!(point(1)["point"]["sequence"] == 1);
}

/// Words without end: others are answered, and nothing grows.
#[test]
fn a_flood_of_words() {
    if !ready("a_flood_of_words") {
        return;
    }
    let mut scene = Scene::with_point();
    let turns: Vec<Value> = (1..=1000).map(|epoch| turn(epoch, "alder", None)).collect();
    let before = scene.birch.log().len();
    let begun = Instant::now();
    for number in 0..FLOOD {
        let seen = term(1000 + number, "alder");
        let mut line = turns.clone();
        if number > 0 {
            line.push(turn(1000 + number, "alder", None));
        }
        scene.check("flood", &word(&seen, &line), &[], "Word");
        if number % 50 == 0 {
            let asked = Instant::now();
            scene.calm("the flood");
            assert!(asked.elapsed() < ANSWERED_WITHIN, "{:?}", asked.elapsed());
        }
    }
    println!("{FLOOD} words in {:.1} s", begun.elapsed().as_secs_f64());
    scene.calm("the end of the flood");
    let grown = scene.birch.log().len() - before;
    assert!(grown < 64 << 10, "the log grew by {grown} bytes");
    scene.knows(1000 + FLOOD - 1, "alder", "standby");
}
