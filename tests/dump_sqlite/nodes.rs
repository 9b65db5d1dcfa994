//! In the bracket of a real daemon: points say what became of it, a standby puts back what it does not have, a drill tries it.

use std::fs;
use std::path::PathBuf;

use crate::stage::{audit, here, uid};
use crate::support::cluster::{MANUAL, Pair, TestNode, wait};
use crate::support::fixture::run;
use crate::support::servers::redis::Redis;
use crate::support::servers::sqlite::Shell;
use crate::support::servers::{program, programs};

/// Name and result of each dump of the newest point.
fn dumps(node: &TestNode) -> Vec<(String, String, serde_json::Value)> {
    let said = node.run(&["points", "web", "--json"]).ok().json();
    let points = said["roles"][0]["points"].as_array().unwrap().clone();
    let all = points.last().unwrap()["dumps"].as_array().unwrap().clone();
    let word = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
    all.into_iter()
        .map(|dump| (word(&dump["name"]), word(&dump["result"]), dump))
        .collect()
}

fn results(node: &TestNode) -> Vec<String> {
    let all = dumps(node).into_iter();
    all.map(|(name, result, _)| format!("{name} {result}"))
        .collect()
}

fn add(node: &TestNode, keys: &str) {
    let mut text = fs::read_to_string(node.config_path()).unwrap();
    text += &format!("[[role.web.dump]]\n{keys}\n");
    fs::write(node.config_path(), text).unwrap();
    node.run(&["reload"]).ok();
}

struct Nodes {
    pair: Pair,
    redis: Redis,
    /// Of both nodes, outside of all datasets.
    books: PathBuf,
    _outside: tempfile::TempDir,
}

fn nodes() -> Nodes {
    let pair = Pair::new(&["files"], "", MANUAL);
    let outside = tempfile::tempdir().unwrap();
    run(
        "chown",
        ["daemon:daemon".as_ref(), outside.path().as_os_str()],
    );
    let books = outside.path().join("books.db");
    Shell::open(&books).does(
        "CREATE TABLE account (amount INTEGER); INSERT INTO account VALUES (8000);
         CREATE TABLE number (writer INTEGER, number INTEGER); INSERT INTO number VALUES (0, 7);",
    );
    for node in [&pair.alder, &pair.birch] {
        let (files, books) = (node.live("files"), books.display());
        let files = files.display();
        add(
            node,
            &format!(
                "name = \"books\"\nkind = \"sqlite\"\nmode = \"backup\"\nfiles = \"{books}\"\nto = \"{files}/copies\""
            ),
        );
        add(
            node,
            &format!("name = \"app\"\nkind = \"sqlite\"\nfiles = \"{files}/*.db\""),
        );
    }
    let live = pair.alder.live("files");
    fs::copy(&books, live.join("app.db")).unwrap();
    let data = live.join("cache");
    fs::create_dir(&data).unwrap();
    run(
        "chmod",
        [
            "755".as_ref(),
            pair.alder.disk.path().parent().unwrap().as_os_str(),
        ],
    );
    let redis = Redis::start(&data, &["--appendonly", "yes", "--save", ""]);
    add(
        &pair.alder,
        &format!(
            "name = \"cache\"\nkind = \"redis\"\nmode = \"freeze\"\npolicy = \"best-effort\"\nsocket = \"{}\"",
            redis.socket.display()
        ),
    );
    Nodes {
        pair,
        redis,
        books,
        _outside: outside,
    }
}

#[test]
fn from_a_point_to_the_other_node() {
    let test = "from_a_point_to_the_other_node";
    if !here(test) || !programs(test, &["redis-server"]) {
        return;
    }
    let mut nodes = nodes();
    every_dump_is_good(&nodes);
    one_fails_then_another(&mut nodes);
    the_way_back(&mut nodes);
}

fn every_dump_is_good(nodes: &Nodes) {
    let (pair, redis) = (&nodes.pair, &nodes.redis);
    let said = pair.alder.run(&["check"]).out;
    for text in ["can read 1 database", "logs to "] {
        assert!(said.contains(text), "{said}");
    }
    redis.client().does(&["SET", "word", "kept"]);
    pair.alder.run(&["run", "web"]).ok();
    pair.wait_stored("1.1");
    let good = ["books good", "app good", "cache good"];
    assert_eq!(results(&pair.alder), good);
    assert_eq!(results(&pair.birch), good);
    let all = dumps(&pair.alder);
    for (name, held) in [("books", false), ("app", true), ("cache", true)] {
        let (_, _, dump) = all.iter().find(|(other, ..)| other == name).unwrap();
        assert_eq!(!dump["held_ms"].is_null(), held, "{dump}");
        assert!(
            dump["bytes"].as_u64().unwrap() > 0 && dump["server"].is_string(),
            "{dump}"
        );
    }
    let said = pair.alder.run(&["points", "web"]).ok().out;
    assert!(said.contains("cache in 1.1: redis freeze, good"), "{said}");
}

fn one_fails_then_another(nodes: &mut Nodes) {
    let (pair, redis) = (&nodes.pair, &mut nodes.redis);
    let live = pair.alder.live("files");
    // The server dies: that point is marked, the next one is good again.
    redis.process.kill();
    fs::write(live.join("x"), "2").unwrap();
    pair.alder.run(&["run", "web"]).ok();
    assert_eq!(
        results(&pair.alder),
        ["books good", "app good", "cache failed"]
    );
    let said = pair.alder.run(&["points", "web"]).ok().out;
    assert!(
        said.contains("NOT CONSISTENT") && said.contains("could not reach redis at"),
        "{said}"
    );
    // A required one: no point, and the command says what to do.
    pair.alder
        .edit("policy = \"best-effort\"", "policy = \"required\"");
    pair.alder.run(&["reload"]).ok();
    fs::write(live.join("x"), "3").unwrap();
    let said = pair.alder.run(&["run", "web"]);
    assert!(
        said.code != 0 && said.out.contains("see that the server runs"),
        "{said:?}"
    );
    // An application that keeps its lock.
    pair.alder
        .edit("policy = \"required\"", "policy = \"best-effort\"");
    pair.alder
        .edit("name = \"app\"", "name = \"app\"\nhold = \"200ms\"");
    pair.alder.run(&["reload"]).ok();
    run(
        "chown",
        [
            "daemon:daemon".as_ref(),
            live.as_os_str(),
            live.join("app.db").as_os_str(),
        ],
    );
    let mut shell = Shell::open(&live.join("app.db"));
    shell.does("BEGIN IMMEDIATE;");
    let said = pair.alder.run(&["run", "web"]);
    assert_eq!(said.code, 1, "{said:?}");
    assert!(
        said.out.contains("app.db within 200ms") || said.out.contains("be done within 200ms"),
        "{said:?}"
    );
    shell.does("COMMIT;");
}

fn the_way_back(nodes: &mut Nodes) {
    let (pair, books) = (&mut nodes.pair, &nodes.books);
    // A drill puts nothing outside of its copy.
    fs::remove_file(books).unwrap();
    let said = pair.birch.run(&["drill", "web"]).ok();
    assert!(said.out.contains("load dump books"), "{said:?}");
    assert!(!books.exists());
    // Promoted: what is missing is put back, as it was.
    pair.alder.kill();
    let last = pair.birch.points().pop().unwrap();
    let birch = &pair.birch;
    birch
        .run(&[
            "promote",
            "web",
            "--assert-stopped",
            "alder",
            "--accept-loss-after",
            &last,
        ])
        .ok();
    assert!(wait(|| birch.role()["state"] == "active" && books.exists()));
    assert_eq!(audit(books), [7]);
    let owner = std::os::unix::fs::MetadataExt::uid(&fs::metadata(books).unwrap());
    assert_eq!(owner, uid());
    let said = birch.run(&["load", "web", "books", "--json"]);
    assert_eq!(said.code, 15, "{said:?}");
    assert_eq!(said.json()["dumps"][0]["result"], "left", "{said:?}");
    let said = birch
        .run(&["load", "web", "books", "--replace", "--json"])
        .ok()
        .json();
    assert_eq!(said["dumps"][0]["result"], "loaded", "{said}");
    // And a server starts from what the point holds of the other.
    let copy = birch.live("files").join("cache");
    run(
        "chmod",
        [
            "755".as_ref(),
            birch.disk.path().parent().unwrap().as_os_str(),
        ],
    );
    assert!(program("redis-server").is_some());
    let redis = Redis::start(&copy, &["--appendonly", "yes", "--save", ""]);
    assert_eq!(redis.client().does(&["GET", "word"]), ["kept"]);
}
