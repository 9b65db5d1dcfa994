//! The whole way with two daemons: points of a server under load, what they tell of it, and a promotion after which a server
//! starts on the live copy and another one is loaded.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use mysql_async::prelude::Queryable;
use serde_json::Value;

use crate::ledger::Ledger;
use crate::ready;
use crate::support::cluster::{MANUAL, Pair, TestNode};
use crate::support::servers::mariadb::Maria;

fn open_up(path: &Path) {
    fs::set_permissions(path, fs::Permissions::from_mode(0o777)).unwrap();
}

/// Gives the role two dumps of a server: held, and into a file.
fn add(node: &TestNode, server: &Maria, first: &str) {
    let mut text = fs::read_to_string(node.config_path()).unwrap();
    let socket = server.socket.display();
    let to = node.live("db").join("ledger.sql");
    text += first;
    text += &format!(
        "[[role.web.dump]]\nname = \"file\"\nkind = \"mariadb\"\nmode = \"dump\"\nsocket = \"{socket}\"\ndatabases = [\"ledger\"]\nto = \"{}\"\n",
        to.display()
    );
    fs::write(node.config_path(), text).unwrap();
    node.run(&["reload"]).ok();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn from_points_to_a_promotion() {
    if !ready("from_points_to_a_promotion") {
        return;
    }
    let mut pair = Pair::new(&["db"], "", MANUAL);
    for node in [&pair.alder, &pair.birch] {
        open_up(node.disk.path());
        open_up(node.disk.path().parent().unwrap());
    }
    open_up(&pair.alder.live("db"));
    let server = Maria::empty(&pair.alder.live("db").join("data"), &["--log-bin=bin"]);
    let elsewhere = tempfile::tempdir().unwrap();
    open_up(elsewhere.path());
    let loaded = Maria::empty(&elsewhere.path().join("data"), &[]);
    let ledger = Ledger::create(&server).await;
    let frozen = format!(
        "[[role.web.dump]]\nname = \"held\"\nkind = \"mysql\"\nsocket = \"{}\"\n",
        server.socket.display()
    );
    add(&pair.alder, &server, &frozen);
    add(&pair.birch, &loaded, &frozen);
    let said = pair.alder.run(&["check"]).out;
    assert!(said.contains("is held by BACKUP STAGE"), "{said}");
    let load = ledger.start(&server, 3);
    let mut acknowledged = Vec::new();
    for point in ["1.1", "1.2", "1.3"] {
        ledger.wait_for_commits(8).await;
        acknowledged = ledger.acknowledged();
        pair.alder.run(&["run", "web"]).ok();
        pair.wait_stored(point);
    }
    ledger.wait_for_commits(8).await;
    load.stop().await;
    let said = pair.birch.run(&["points", "web", "--json"]).ok().json();
    for point in said["roles"][0]["points"].as_array().unwrap() {
        let [held, file] = point["dumps"].as_array().unwrap().as_slice() else {
            panic!("{point}");
        };
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        assert_eq!(
            (text(&held["result"]), text(&file["result"])),
            ("good".into(), "good".into())
        );
        assert!(text(&held["position"]).contains("gtid 0-1-"), "{held}");
        assert!(text(&file["position"]).contains("gtid 0-1-"), "{file}");
        assert!(text(&file["server"]).contains("MariaDB 10"), "{file}");
        println!("{held}\n{file}");
    }
    pair.alder.kill();
    drop(server);
    let stopped = ["--assert-stopped", "alder", "--accept-loss-after", "1.3"];
    let promotion = [&["promote", "web"], &stopped[..]].concat();
    pair.birch.run(&promotion).ok();
    pair.birch.wait_for("it plays the role", || {
        pair.birch.role()["state"] == "active"
    });
    assert!(
        pair.birch.log().contains("loaded dump file"),
        "{}",
        pair.birch.log()
    );
    ledger.judge(&loaded, &acknowledged).await;
    let server = Maria::start(&pair.birch.live("db").join("data"), &["--log-bin=bin"]);
    ledger.judge(&server, &acknowledged).await;
}

/// The daemon is killed while it holds the server: the end of its connection lets writers go.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_daemon_holds_nobody() {
    if !ready("a_killed_daemon_holds_nobody") {
        return;
    }
    let mut pair = Pair::new(&["db"], "", MANUAL);
    open_up(pair.alder.disk.path());
    open_up(pair.alder.disk.path().parent().unwrap());
    open_up(&pair.alder.live("db"));
    let server = Maria::empty(&pair.alder.live("db").join("data"), &[]);
    server
        .tell(&["CREATE DATABASE app", "CREATE TABLE app.i (a INT)"])
        .await;
    let mut text = fs::read_to_string(pair.alder.config_path()).unwrap();
    let socket = server.socket.display();
    text += &format!(
        "[[role.web.dump]]\nname = \"held\"\nkind = \"mysql\"\nhold = \"1m\"\nsocket = \"{socket}\"\n"
    );
    fs::write(pair.alder.config_path(), text).unwrap();
    pair.alder.stop();
    pair.alder.start_with(&[("STANDIN_FREEZE", "point-held")]);
    pair.alder.wait_for("the role goes on", || {
        pair.alder.role()["state"] == "active"
    });
    let mut run = pair.alder.command(&["run", "web"]).spawn().unwrap();
    pair.alder
        .wait_for("it is held", || pair.alder.log().contains("frozen"));
    let mut conn = server.connect().await;
    conn.query_drop("SET SESSION lock_wait_timeout = 1")
        .await
        .unwrap();
    let insert = "INSERT INTO app.i VALUES (1)";
    assert!(conn.query_drop(insert).await.is_err(), "nobody is held");
    pair.alder.kill();
    run.wait().unwrap();
    conn.query_drop("SET SESSION lock_wait_timeout = 30")
        .await
        .unwrap();
    conn.query_drop(insert).await.unwrap();
}
