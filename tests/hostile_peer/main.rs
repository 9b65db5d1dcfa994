//! A peer with a valid key that says everything it should not, against a real daemon over a real link.
//!
//! The daemon must stay up, say what was wrong, keep its points and its memory, and serve other peers meanwhile. The
//! scripted peer speaks through `standin::peer`; each case is what it says and the words the daemon answers with.
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::print_stderr)]

#[path = "../support/mod.rs"]
mod support;

mod compare;
mod drift;
mod find;
mod peer;
mod roles;

use peer::{FILES, Scripted, Step, offer, point, small_stream};
use serde_json::{Value, json};
use standin::peer::bulk::Packer;
use standin::peer::frame::{DATA_BYTES_MAX, Frame};
use support::cluster::TestNode;
use support::fixture::ready;

/// What a daemon may grow by under all this, in KiB.
const GROWTH_KIB: u64 = 96 << 10;

/// An id of nothing that is here.
const OTHER: &str = "00000000-0000-0000-0000-00000000ffff";

const TERM: &str = "/manifest/point/term";

/// birch with one stored point, and alder scripted.
struct Scene {
    birch: TestNode,
    alder: Scripted,
    cedar: Scripted,
    runtime: tokio::runtime::Runtime,
    points: Vec<String>,
    peak_kib: u64,
}

impl Scene {
    /// `peer` are further lines of [peer.alder] on birch.
    fn new(peer: &str) -> Scene {
        let mut birch = peer::node();
        let (alder, cedar) = peer::strangers(&mut birch, peer);
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let points = birch.points();
        Scene {
            peak_kib: birch.peak_kib(),
            birch,
            alder,
            cedar,
            runtime,
            points,
        }
    }

    /// With a point stored as it should be.
    fn with_point() -> Scene {
        let mut scene = Scene::new("");
        let stream = small_stream(1);
        scene.check("an honest transfer", &offer(1), &carried(&stream), "Stored");
        scene.check("an honest commit", &commit(1), &[], "Committed");
        scene.points = vec!["1.1".to_owned()];
        scene.calm("the beginning");
        scene.peak_kib = scene.birch.peak_kib();
        scene
    }

    /// Says `request`, then `steps`; the last that is heard holds `words`, or one of them between bars.
    #[track_caller]
    fn check(&mut self, what: &str, request: &Value, steps: &[Step], words: &str) {
        let heard = self.runtime.block_on(self.alder.converse(request, steps));
        assert!(
            words.split('|').any(|words| heard.contains(words)),
            "{what}: heard {heard}, not {words}\n{}",
            self.birch.log()
        );
    }

    /// Nothing is broken: both peers are answered, the points are what they were, memory is bounded.
    #[track_caller]
    fn calm(&mut self, after: &str) {
        let ping = json!({"type": "ping"});
        for peer in [&mut self.alder, &mut self.cedar] {
            let heard = self.runtime.block_on(peer.converse(&ping, &[]));
            assert!(heard.contains("Pong"), "{after}: {heard}");
        }
        assert_eq!(self.birch.points(), self.points, "{after}");
        let peak = self.birch.peak_kib();
        assert!(
            peak < self.peak_kib + GROWTH_KIB,
            "{after}: {peak} KiB, {} before",
            self.peak_kib
        );
    }
}

fn commit(sequence: u64) -> Value {
    json!({"type": "commit", "manifest": point(sequence)})
}

fn end_of(stream: &[u8]) -> Step {
    let hash = support::receiving::hash(stream);
    Step::Say(json!({"type": "end", "bytes": stream.len(), "hash": hash}))
}

fn carried(stream: &[u8]) -> Vec<Step> {
    vec![Step::Raw(stream.to_vec()), end_of(stream), Step::Finish]
}

/// `value` with another value at a place.
fn with(mut value: Value, place: &str, other: Value) -> Value {
    *value
        .pointer_mut(place)
        .unwrap_or_else(|| panic!("{place}")) = other;
    value
}

#[test]
fn requests_that_are_none() {
    if !ready("requests_that_are_none") {
        return;
    }
    let mut scene = Scene::with_point();
    let mut deep = json!([]);
    for _ in 0..100 {
        deep = json!([deep]);
    }
    let lineage = peer::lineage();
    let none = "does not understand the request";
    for (request, words) in [
        (json!({}), none),
        (json!([]), none),
        (json!(17), none),
        (json!(null), none),
        (json!("ping"), none),
        (json!({"type": "dance"}), none),
        (json!({"type": "offer"}), none),
        (json!({"type": "commit", "manifest": 7}), none),
        (json!({"type": "stored"}), none),
        (json!({"type": "beat", "number": 1}), none),
        (deep, none),
        (json!({"type": "\u{1b}[2J\u{7}"}), none),
        (json!({"type": "ping", "more": "x".repeat(2 << 20)}), "Pong"),
        // Larger than any request: its stream is reset, and nobody reads it to the end.
        (
            json!({"type": "ping", "more": "x".repeat(4 << 20)}),
            "is closed|broke off",
        ),
        (with(lineage.clone(), "/role", json!("../../etc")), none),
        (with(lineage.clone(), "/role", json!("")), none),
        (
            with(lineage.clone(), "/role", json!("x".repeat(70_000))),
            none,
        ),
        (
            with(lineage.clone(), "/role", json!("mail")),
            "has no role mail",
        ),
        (
            with(lineage.clone(), "/datasets", json!(["files", "more"])),
            "has no dataset more",
        ),
        (with(lineage.clone(), "/term/epoch", json!(-1)), none),
        (with(lineage.clone(), "/term/epoch", json!(1e300)), none),
        (with(lineage, "/role_id", json!("no uuid")), none),
    ] {
        let short: String = request.to_string().chars().take(100).collect();
        scene.check(&short, &request, &[], words);
        scene.calm(&short);
    }
    let log = scene.birch.log();
    assert!(!log.contains('\u{1b}'), "{log}");
}

#[test]
fn commits_of_what_is_not_theirs() {
    if !ready("commits_of_what_is_not_theirs") {
        return;
    }
    let mut scene = Scene::with_point();
    let other_id = json!(OTHER);
    let commits = [
        ("nothing of it is here", commit(9), "cannot be published"),
        ("again", commit(1), "Committed"),
        (
            "the same id, other facts",
            with(
                commit(1),
                "/manifest/datasets/files/identity",
                other_id.clone(),
            ),
            "already stored",
        ),
        (
            "another role's",
            with(commit(2), "/manifest/role", other_id.clone()),
            "is another role",
        ),
        (
            "a role that is not here",
            with(commit(2), "/manifest/role_name", json!("mail")),
            "has no role mail",
        ),
        (
            "a lower term",
            with(commit(2), &format!("{TERM}/epoch"), json!(0)),
            "knows term",
        ),
        (
            "the same epoch of another holder",
            with(commit(2), &format!("{TERM}/nonce"), json!(99)),
            "two nodes claim epoch 1",
        ),
        (
            "a dataset that is not of the role",
            with(
                commit(2),
                "/manifest/datasets",
                json!({"files": {"identity": FILES}, "more": {"identity": FILES}}),
            ),
            "has no dataset more",
        ),
        (
            "none of its datasets",
            with(commit(2), "/manifest/datasets", json!({})),
            "does not have",
        ),
        (
            "a dataset with a hostile name",
            with(
                commit(2),
                "/manifest/datasets",
                json!({"../files": {"identity": FILES}}),
            ),
            "does not understand the request",
        ),
        (
            "a node with a hostile name",
            with(commit(2), "/manifest/node", json!("a/../b")),
            "does not understand the request",
        ),
    ];
    for (what, request, words) in commits {
        scene.check(what, &request, &[], words);
        scene.calm(what);
    }
    // A higher term is remembered before anything is done under it; after it the lower one is fenced.
    let higher = |request| with(request, &format!("{TERM}/epoch"), json!(5));
    scene.check(
        "a higher term",
        &higher(commit(3)),
        &[],
        "cannot be published",
    );
    scene.check("the old term after it", &commit(1), &[], "knows term");
    scene.calm("terms");
}

#[test]
fn offers_of_what_is_not_theirs() {
    if !ready("offers_of_what_is_not_theirs") {
        return;
    }
    let mut scene = Scene::with_point();
    let other_id = json!(OTHER);
    let offers = [
        ("stored already", offer(1), "Stored"),
        (
            "the same id, other facts",
            with(
                with(
                    offer(1),
                    "/manifest/datasets/files/identity",
                    other_id.clone(),
                ),
                "/identity/snapshot",
                other_id.clone(),
            ),
            "already stored",
        ),
        (
            "a dataset not in it",
            with(offer(2), "/dataset", json!("more")),
            "more",
        ),
        (
            "a stream of another snapshot",
            with(offer(2), "/identity/snapshot", other_id.clone()),
            "its manifest says",
        ),
        (
            "a base that is not here",
            with(
                with(offer(2), "/identity/base", other_id.clone()),
                "/base",
                json!({"term": peer::term(), "sequence": 77}),
            ),
            "is not here",
        ),
        (
            "half a base",
            with(offer(2), "/identity/base", other_id),
            "but not both",
        ),
        (
            "more data than any disk",
            with(offer(2), "/data_bytes", json!(u64::MAX)),
            "space",
        ),
        (
            "damaged flags",
            with(offer(2), "/flags", json!({"nocow": [1]})),
            "does not understand the request",
        ),
    ];
    for (what, request, words) in offers {
        scene.check(what, &request, &[], words);
        scene.calm(what);
    }
}

#[test]
fn transfers_out_of_order() {
    if !ready("transfers_out_of_order") {
        return;
    }
    let mut scene = Scene::with_point();
    let stream = small_stream(2);
    let (half, _) = stream.split_at(stream.len() / 2);
    let say = Step::Say;
    let none = "not a message we understand";
    let bomb = {
        let packed = zstd::bulk::compress(&vec![0; 64 << 20], 19).unwrap();
        let unpacked = DATA_BYTES_MAX as u32;
        Step::Frame(Frame::Zstd { unpacked, packed })
    };
    let packed = Packer::new(3).unwrap().pack(&[7; 1000]).unwrap();
    let noise = support::cluster::noise(3, 200_000);
    let restarts = vec![say(json!({"type": "restart", "why": "again"})); 50];
    let cases: Vec<(&str, Vec<Step>, &str)> = vec![
        (
            "an answer in place of data",
            vec![say(json!({"type": "stored"}))],
            none,
        ),
        ("a request", vec![say(json!({"type": "ping"}))], none),
        (
            "a mark",
            vec![say(json!({"type": "mark", "offset": 1}))],
            none,
        ),
        (
            "wrong types",
            vec![say(json!({"type": "end", "bytes": "9", "hash": 1}))],
            none,
        ),
        (
            "the end at once",
            vec![end_of(b"")],
            "before its end command",
        ),
        (
            "the end too early",
            vec![Step::Raw(half.to_vec()), end_of(half)],
            "before its end command",
        ),
        (
            "another hash",
            vec![
                Step::Raw(stream.clone()),
                say(json!({"type": "end", "bytes": stream.len(), "hash": "00"})),
            ],
            "hash differs",
        ),
        (
            "another length",
            vec![
                Step::Raw(stream.clone()),
                say(json!({"type": "end", "bytes": 1, "hash": "00"})),
            ],
            "were sent",
        ),
        (
            "more after its end",
            vec![Step::Raw([&stream[..], b"x"].concat())],
            "follow the end",
        ),
        ("noise", vec![Step::Raw(noise)], "not a btrfs send stream"),
        ("a bomb", vec![bomb], "more than the"),
        (
            "packed noise",
            vec![Step::Frame(packed)],
            "not a btrfs send stream",
        ),
        (
            "damaged packing",
            vec![Step::Frame(Frame::Zstd {
                unpacked: 9,
                packed: vec![1; 50],
            })],
            "damaged data",
        ),
        (
            "the source failed",
            vec![say(json!({"type": "failed", "why": "a\u{1b}[2Jb\n"}))],
            "a [2Jb",
        ),
        ("nothing", vec![Step::Finish], "interrupted at byte 0"),
        (
            "half",
            vec![Step::Raw(half.to_vec()), Step::Finish],
            "interrupted at byte",
        ),
        (
            "restarts without end",
            [restarts, vec![end_of(b"")]].concat(),
            "before its end command",
        ),
    ];
    for (what, steps, words) in cases {
        scene.check(what, &offer(2), &steps, words);
        scene.calm(what);
    }
    // After all of it the honest transfer goes through, and twice is once.
    scene.check("commit too early", &commit(2), &[], "cannot be published");
    let restart = say(json!({"type": "restart", "why": "from the beginning"}));
    let steps = [vec![restart], carried(&stream)].concat();
    scene.check("an honest transfer", &offer(2), &steps, "Stored");
    scene.check("offered twice", &offer(2), &[], "Stored");
    scene.check("commit", &commit(2), &[], "Committed");
    scene.check("commit twice", &commit(2), &[], "Committed");
    scene.points.push("1.2".to_owned());
    scene.calm("all of it");
}

/// Two transfers of one dataset: the later one has it, the earlier one is told to end.
#[test]
fn two_transfers_at_once() {
    if !ready("two_transfers_at_once") {
        return;
    }
    let mut scene = Scene::with_point();
    let stream = small_stream(2);
    let first = scene.runtime.block_on(scene.alder.begin(&offer(2)));
    scene.check("the second", &offer(2), &carried(&stream), "Stored");
    let heard = scene.runtime.block_on(peer::rest(first));
    assert!(heard.contains("interrupted"), "{heard}");
    scene.calm("two at once");
}

#[test]
fn grants_are_asked_for_each_request() {
    if !ready("grants_are_asked_for_each_request") {
        return;
    }
    let mut scene = Scene::new("grants = [\"receive\"]\n");
    let missing = "birch does not grant alder to send";
    for request in [offer(1), commit(1), peer::lineage()] {
        scene.check("without the grant", &request, &[], missing);
        scene.check(
            "without the grant",
            &request,
            &[],
            "add \\\"send\\\" to `grants` of [peer.alder]",
        );
    }
    scene.calm("refusals");
    // What the role says goes before what the peer's section says.
    scene.birch.edit(
        "[role.web]\n",
        "[role.web]\ngrants = { alder = [\"send\"] }\n",
    );
    scene.birch.run(&["reload"]).ok();
    scene.check(
        "with the role's grant",
        &offer(1),
        &carried(&small_stream(1)),
        "Stored",
    );
    scene
        .birch
        .edit("alder = [\"send\"]", "alder = [\"read\", \"prune\"]");
    scene.birch.run(&["reload"]).ok();
    scene.check(
        "taken away",
        &commit(1),
        &[],
        "`grants.alder` of [role.web]",
    );
    scene.calm("reloads");
}

/// What the policy drops is shown with the point.
#[test]
fn what_is_dropped_is_shown() {
    if !ready("what_is_dropped_is_shown") {
        return;
    }
    let mut scene = Scene::new("accept = { devices = \"drop\", setuid = \"drop\" }\n");
    let stream = peer::powerful_stream(1);
    scene.check("a transfer", &offer(1), &carried(&stream), "Stored");
    scene.check("commit", &commit(1), &[], "Committed");
    let said = scene.birch.run(&["points", "web"]).ok();
    assert!(
        said.out
            .contains("dropped from 1.1: files: 1 device nodes, 1 setuid or setgid bits"),
        "{said:?}"
    );
    scene
        .birch
        .edit("devices = \"drop\"", "devices = \"refuse\"");
    scene.birch.run(&["reload"]).ok();
    let steps = [Step::Raw(peer::powerful_stream(2))];
    scene.check("refused", &offer(2), &steps, "command mknod: the device");
    scene.points = vec!["1.1".to_owned()];
    scene.calm("policies");
}
