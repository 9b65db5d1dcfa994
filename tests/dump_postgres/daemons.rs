//! With real daemons: points that are taken under load, and a promotion after which the server starts from what was kept.

use std::fs;

use serde_json::Value;

use super::support::cluster::{MANUAL, Pair, TestNode};
use super::support::servers::postgres::{self, Load, Postgres, audit, create, give, ledger};

/// Gives the role a dump; `keys` are further lines of it.
fn add(node: &TestNode, keys: &str) {
    let mut text = fs::read_to_string(node.config_path()).unwrap();
    text += &format!("[[role.web.dump]]\nname = \"shop\"\nkind = \"postgres\"\n{keys}\n");
    fs::write(node.config_path(), text).unwrap();
    node.run(&["reload"]).ok();
}

fn newest_dump(node: &TestNode) -> Value {
    let said = node.run(&["points", "web", "--json"]).ok().json();
    let points = said["roles"][0]["points"].as_array().unwrap().clone();
    points.last().unwrap()["dumps"][0].clone()
}

/// The active node is lost; the other takes over with its newest point.
fn promote(pair: &mut Pair) {
    pair.alder.kill();
    pair.link.cut();
    let newest = pair.birch.points().pop().unwrap();
    let stopped = ["--assert-stopped", "alder", "--accept-loss-after", &newest];
    let args = [&["promote", "web"], &stopped[..]].concat();
    pair.birch.run(&args).ok();
}

#[test]
fn a_backup_is_recovered_after_a_promotion() {
    if !postgres::ready("a_backup_is_recovered_after_a_promotion") {
        return;
    }
    let mut pair = Pair::new(&["main", "space"], "", MANUAL);
    let data = pair.alder.live("main").join("data");
    create(&data);
    let mut server = Postgres::start(&data);
    let space = pair.alder.live("space").join("s");
    fs::create_dir(&space).unwrap();
    give(&space);
    server.sql(&format!(
        "CREATE TABLESPACE space LOCATION '{}'",
        space.display()
    ));
    ledger(&server, Some("space"));
    let keys = format!("mode = \"backup\"\nsocket = \"{}\"", server.dir().display());
    for node in [&pair.alder, &pair.birch] {
        add(node, &keys);
    }
    let checked = pair.alder.run(&["check"]).out;
    assert!(checked.contains("its data lie in main, space"), "{checked}");
    let load = Load::start(&server, 2);
    for _ in 0..2 {
        load.wait_for(5);
        pair.alder.run(&["run", "web", "--attach"]).ok();
    }
    let before = pair.alder.points().len();
    let acknowledged = load.acknowledged();
    load.wait_for(5);
    pair.alder.run(&["run", "web", "--attach"]).ok();
    load.end();
    let dump = newest_dump(&pair.alder);
    assert_eq!(dump["result"], "good", "{dump}");
    assert!(dump["position"].as_str().unwrap().contains('/'), "{dump}");
    assert!(
        dump["server"].as_str().unwrap().starts_with("PostgreSQL "),
        "{dump}"
    );
    assert_eq!(pair.alder.points().len(), before + 1);
    let newest = pair.alder.points().pop().unwrap();
    pair.wait_stored(&newest);
    // A server that is down: no point, and why.
    server.kill();
    fs::write(data.join("noise"), "x").unwrap();
    let said = pair.alder.run(&["run", "web", "--attach"]);
    assert!(
        said.code != 0 && said.out.contains("reach PostgreSQL at"),
        "{said:?}"
    );
    assert!(said.out.contains("start the server"), "{said:?}");
    assert_eq!(pair.alder.points().len(), before + 1);
    promote(&mut pair);
    let copy = pair.birch.live("main").join("data");
    assert!(copy.join("backup_label").exists());
    let link = fs::read_link(copy.join("pg_tblspc").join(only(&copy.join("pg_tblspc")))).unwrap();
    assert_eq!(link, pair.birch.live("space").join("s"));
    audit(&Postgres::start(&copy), &acknowledged);
}

fn only(dir: &std::path::Path) -> String {
    let mut names = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name());
    names.next().unwrap().into_string().unwrap()
}
