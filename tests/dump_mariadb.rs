//! Dumps of a real MariaDB server, with its data on btrfs, while it is written to.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod support;

#[path = "dump_mariadb/daemons.rs"]
mod daemons;
#[path = "dump_mariadb/held.rs"]
mod held;
#[path = "dump_mariadb/ledger.rs"]
mod ledger;
#[path = "dump_mariadb/site.rs"]
mod site;

use std::path::PathBuf;
use std::time::Instant;

use ledger::Ledger;
use mysql_async::prelude::Queryable;
use site::{Site, failed, names};
use standin::error::Code;
use standin::host::dump::{self, Loaded, Loading};
use standin::logic::dump::mysql::Mode;
use support::fixture;
use support::servers::mariadb::{self, Maria};

const EMPTY: Loading<'_> = Loading {
    replace: false,
    server: None,
};

fn ready(test: &str) -> bool {
    fixture::ready(test) && mariadb::ready(test)
}

struct Taken {
    point: PathBuf,
    /// Before it was held.
    acknowledged: Vec<u64>,
    asked: Instant,
    released: Instant,
}

/// A point of a server under load, by a freeze.
async fn frozen(site: &Site, name: &str, ledger: &Ledger) -> Taken {
    let mut open = site.open(Mode::Freeze);
    open.prepare().await.unwrap();
    let acknowledged = ledger.acknowledged();
    let asked = Instant::now();
    open.hold().await.unwrap();
    let held = Instant::now();
    let point = site.snapshot(name);
    let snapped = Instant::now();
    open.release().await.unwrap();
    let released = Instant::now();
    let found = open.finish().await.unwrap();
    println!(
        "{name}: lock {:?}, snapshot {:?}, release {:?}; {}",
        held - asked,
        snapped - held,
        released - snapped,
        found.position.as_deref().unwrap_or_default()
    );
    assert!(found.position.unwrap().contains("lsn "));
    Taken {
        point,
        acknowledged,
        asked,
        released,
    }
}

async fn recovers(test: &str, options: &[&str], points: usize) {
    if !ready(test) {
        return;
    }
    let site = Site::new(2 << 30);
    let server = Maria::empty(&site.datadir(), options);
    site.name_server(&server);
    let ledger = Ledger::create(&server).await;
    let load = ledger.start(&server, 4);
    let mut taken = Vec::new();
    for number in 0..points {
        // Every point holds something new.
        ledger.wait_for_commits(8).await;
        taken.push(frozen(&site, &format!("p{number}"), &ledger).await);
    }
    ledger.wait_for_commits(8).await;
    load.stop().await;
    let commits = ledger.acknowledged().iter().sum::<u64>();
    let usual = ledger.usual_commit();
    println!("{commits} commits in all; half of them within {usual:?}");
    drop(server);
    for (number, taken) in taken.into_iter().enumerate() {
        let stall = ledger.longest_commit(taken.asked, taken.released);
        println!("p{number}: longest commit while it was taken {stall:?}");
        let copy = site.copy(&taken.point);
        let server = Maria::start(&copy.join("data"), options);
        ledger.judge(&server, &taken.acknowledged).await;
        drop(server);
        site.forget(&copy);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_frozen_point_recovers() {
    let options = [
        "--log-bin=bin",
        "--sync-binlog=1",
        "--innodb-flush-log-at-trx-commit=1",
    ];
    recovers("every_frozen_point_recovers", &options, 20).await;
}

/// What was acknowledged may be in memory only, for a second; the hold waits for it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lazy_servers_lose_nothing_either() {
    let test = "lazy_servers_lose_nothing_either";
    recovers(test, &["--innodb-flush-log-at-trx-commit=0"], 3).await;
    recovers(test, &["--innodb-flush-log-at-trx-commit=2"], 3).await;
}

/// Without BACKUP STAGE: the way of MySQL.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn points_under_a_read_lock_recover() {
    let options = ["--version=8.0.35", "--log-bin=bin"];
    recovers("points_under_a_read_lock_recover", &options, 4).await;
}

/// Dumps under load, each loaded into a server that holds nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_dump_loads() {
    if !ready("every_dump_loads") {
        return;
    }
    let site = Site::new(2 << 30);
    let server = Maria::empty(&site.elsewhere("serving"), &["--log-bin=bin"]);
    site.name_server(&server);
    let ledger = Ledger::create(&server).await;
    let load = ledger.start(&server, 3);
    let mut taken = Vec::new();
    for number in 0..5 {
        ledger.wait_for_commits(8).await;
        let acknowledged = ledger.acknowledged();
        let mut open = site.open(Mode::Dump);
        assert!(!open.holds());
        let began = Instant::now();
        open.prepare().await.unwrap();
        let took = began.elapsed();
        open.hold().await.unwrap();
        let point = site.snapshot(&format!("p{number}"));
        open.release().await.unwrap();
        let found = open.finish().await.unwrap();
        let stall = ledger.longest_commit(began, began + took);
        println!("p{number}: took {took:?}; longest commit {stall:?}; {found:?}");
        let position = found.position.unwrap();
        assert!(
            position.contains("gtid 0-1-") && position.contains("binlog bin."),
            "{position}"
        );
        assert!(found.bytes.unwrap() > 1000);
        taken.push((point, acknowledged));
    }
    load.stop().await;
    drop(server);
    let empty = Maria::empty(&site.elsewhere("loading"), &[]);
    site.name_server(&empty);
    for (number, (point, acknowledged)) in taken.into_iter().enumerate() {
        let around = site.around_copy(&point);
        let dump = site.dump(Mode::Dump);
        if number > 0 {
            let left = dump::load(&dump, &around, EMPTY).await.unwrap();
            let Loaded::NotEmpty(why) = left else {
                panic!("{left:?}");
            };
            assert!(why.contains("ledger"), "{why}");
        }
        let how = Loading {
            replace: number > 0,
            server: None,
        };
        let loaded = dump::load(&dump, &around, how).await.unwrap();
        assert!(
            matches!(&loaded, Loaded::Done(what) if what.contains("ledger")),
            "{loaded:?}"
        );
        ledger.judge(&empty, &acknowledged).await;
        assert_eq!(
            empty.ask::<String>("SHOW DATABASES LIKE 'standin%'").await,
            None
        );
    }
}

/// A load that ended in the middle is begun anew, and needs no permission to replace its own ruins.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_load_cut_short_begins_anew() {
    if !ready("a_load_cut_short_begins_anew") {
        return;
    }
    let site = Site::new(1 << 30);
    let server = Maria::empty(&site.elsewhere("serving"), &[]);
    site.name_server(&server);
    server
        .tell(&[
            "CREATE DATABASE app",
            "CREATE TABLE app.a (id INT PRIMARY KEY, text LONGTEXT)",
            "INSERT INTO app.a SELECT seq, REPEAT(MD5(seq), 3000) FROM app.seq_1_to_200",
            "CREATE TABLE app.z (id INT PRIMARY KEY)",
            "INSERT INTO app.z VALUES (1)",
            "CREATE PROCEDURE app.p() SELECT 1",
        ])
        .await;
    let mut open = site.open(Mode::Dump);
    open.prepare().await.unwrap();
    open.finish().await.unwrap();
    let empty = Maria::empty(&site.elsewhere("loading"), &[]);
    site.name_server(&empty);
    empty
        .tell(&["CREATE DATABASE mine", "CREATE TABLE mine.t (a INT)"])
        .await;
    let (dump, around) = (site.dump(Mode::Dump), site.around());
    let mut holder = empty.connect().await;
    let stop = async {
        let begun = "SELECT COUNT(*) FROM information_schema.tables WHERE table_schema = 'app'";
        while holder.query_first::<u64, _>(begun).await.unwrap() == Some(0) {}
        holder
            .query_drop("FLUSH TABLES WITH READ LOCK")
            .await
            .unwrap();
    };
    tokio::select! {
        biased;
        () = stop => {}
        done = dump::load(&dump, &around, EMPTY) => panic!("not cut short: {done:?}"),
    }
    let unfinished = "SELECT GROUP_CONCAT(name) FROM standin_unfinished_load.`databases`";
    assert_eq!(empty.ask::<String>(unfinished).await.unwrap(), "app");
    holder.query_drop("UNLOCK TABLES").await.unwrap();
    let loaded = dump::load(&dump, &around, EMPTY).await.unwrap();
    assert!(
        matches!(&loaded, Loaded::Done(what) if what.contains("anew")),
        "{loaded:?}"
    );
    assert_eq!(
        empty.ask::<u64>("SELECT COUNT(*) FROM app.a").await,
        Some(200)
    );
    assert_eq!(
        empty.ask::<u64>("SELECT COUNT(*) FROM app.z").await,
        Some(1)
    );
    assert_eq!(
        empty.ask::<u64>("SELECT COUNT(*) FROM mine.t").await,
        Some(0)
    );
    empty.tell(&["CALL app.p()"]).await;
}

/// Servers and accounts that are not as they should be; each error with its code and its next step.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn errors_say_what_to_do() {
    if !ready("errors_say_what_to_do") {
        return;
    }
    let site = Site::new(1 << 30);
    let server = Maria::empty(&site.datadir(), &["--log-bin=bin"]);
    site.name_server(&server);
    server
        .tell(&[
            "CREATE DATABASE app",
            "CREATE TABLE app.t (a INT) ENGINE=MyISAM",
            "CREATE USER s@localhost IDENTIFIED BY 'a\"b\\\\c#d \\'e;é'",
        ])
        .await;
    let right = site.password("right", "a\"b\\c#d 'e;é\n");
    let wrong = site.password("wrong", "guess");
    let check = async |mode: Mode, code: Code, parts: &[&str]| {
        let mut open = site.open(mode);
        let error = open.prepare().await.unwrap_err();
        open.release().await.unwrap();
        open.finish().await.unwrap();
        let (found, text) = failed(&error);
        println!("could not {text}");
        assert_eq!(found, code, "{text}");
        names(&text, parts);
        let checked = dump::check(&site.dump(mode), &site.around()).await;
        names(&failed(&checked.unwrap_err()).1, parts);
    };
    site.set_server(server.server_as("s", &wrong));
    check(
        Mode::Freeze,
        Code::Refused,
        &["Access denied", "1045", "password of s"],
    )
    .await;
    site.set_server(server.server_as("s", &right));
    let grant = "GRANT RELOAD ON *.* TO 's'@'localhost'";
    check(Mode::Freeze, Code::Refused, &["lacks RELOAD", grant]).await;
    server.tell(&[grant]).await;
    let frozen = dump::check(&site.dump(Mode::Freeze), &site.around())
        .await
        .unwrap();
    names(&frozen, &["MariaDB 10", "BACKUP STAGE", "dataset db"]);
    let grant = "GRANT SELECT, SHOW VIEW, TRIGGER, EVENT ON *.* TO 's'@'localhost'";
    check(Mode::Dump, Code::Refused, &["lacks SELECT", grant]).await;
    server.tell(&[grant]).await;
    let dumped = dump::check(&site.dump(Mode::Dump), &site.around())
        .await
        .unwrap();
    names(
        &dumped,
        &["1 database is", "app.t has no transactions", "accounts"],
    );
    // The whole way with the login in a file in memory.
    let mut open = site.open(Mode::Dump);
    open.prepare().await.unwrap();
    assert_eq!(open.finish().await.unwrap().position, None);
    server
        .tell(&["DROP DATABASE app", "GRANT ALL ON *.* TO s@localhost"])
        .await;
    let loaded = dump::load(&site.dump(Mode::Dump), &site.around(), EMPTY)
        .await
        .unwrap();
    assert!(matches!(loaded, Loaded::Done(_)), "{loaded:?}");
    site.ask_databases(&["app", "gone"]);
    check(
        Mode::Dump,
        Code::NotFound,
        &["database gone", "`databases`"],
    )
    .await;
    site.ask_databases(&[]);
    site.write_to(&site.elsewhere("").join("x.sql"));
    check(
        Mode::Dump,
        Code::Refused,
        &["no dataset of the role", "`to`"],
    )
    .await;
    site.write_to(&site.dataset().join("no/x.sql"));
    check(Mode::Dump, Code::NotFound, &["mkdir -p"]).await;
    drop(server);
    check(
        Mode::Freeze,
        Code::Unreachable,
        &["connect to", "is it running"],
    )
    .await;
}

/// Files that one snapshot would not hold.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_elsewhere_are_refused() {
    if !ready("files_elsewhere_are_refused") {
        return;
    }
    let check = async |options: &[&str], statements: &[&str], expected: Result<&str, &str>| {
        let site = Site::new(1 << 30);
        site.second_dataset();
        let fill = |text: &&str| {
            let text = text.replace("OTHER", site.second().to_str().unwrap());
            text.replace("OUTSIDE", site.elsewhere("").to_str().unwrap())
        };
        let options: Vec<String> = options.iter().map(fill).collect();
        let options: Vec<&str> = options.iter().map(String::as_str).collect();
        let datadir = match options.first() {
            Some(&"outside") => site.elsewhere("data"),
            _ => site.datadir(),
        };
        let rest = options.iter().copied().filter(|word| word.starts_with('-'));
        let server = Maria::empty(&datadir, &rest.collect::<Vec<_>>());
        site.name_server(&server);
        let statements: Vec<String> = statements.iter().map(fill).collect();
        let statements: Vec<&str> = statements.iter().map(String::as_str).collect();
        server.tell(&statements).await;
        let checked = dump::check(&site.dump(Mode::Freeze), &site.around()).await;
        match (checked, expected) {
            (Ok(said), Ok(part)) => names(&said, &[part]),
            (Err(error), Err(part)) => {
                let (code, text) = failed(&error);
                println!("could not {text}");
                assert_eq!(code, Code::Refused);
                names(&text, &[part, "mode = \"dump\""]);
            }
            (found, expected) => panic!("{found:?} is not {expected:?}"),
        }
    };
    check(&[], &[], Ok("held by BACKUP STAGE")).await;
    check(&["--log-bin=OTHER/bin"], &[], Ok("held by BACKUP STAGE")).await;
    check(
        &["--log-bin=OUTSIDE/bin"],
        &[],
        Ok("lies in no dataset of the role"),
    )
    .await;
    check(&["outside"], &[], Err("lies in no dataset of the role")).await;
    check(
        &["--innodb-undo-directory=OTHER"],
        &[],
        Err("innodb_undo_directory"),
    )
    .await;
    check(
        &[],
        &[
            "CREATE DATABASE d",
            "CREATE TABLE d.t (a INT) DATA DIRECTORY='OTHER'",
        ],
        Err("a table"),
    )
    .await;
}

/// The disk of the dump is full: the old dump stays, nothing hidden is left, the server does not care.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_keeps_the_old_dump() {
    if !ready("a_full_disk_keeps_the_old_dump") {
        return;
    }
    let site = Site::new(128 << 20);
    let room = Site::new(1 << 30);
    let server = Maria::empty(&room.datadir(), &[]);
    site.name_server(&server);
    server
        .tell(&[
            "CREATE DATABASE app",
            "CREATE TABLE app.i (a INT, t LONGTEXT)",
        ])
        .await;
    let mut open = site.open(Mode::Dump);
    open.prepare().await.unwrap();
    open.finish().await.unwrap();
    let before = std::fs::read(site.file()).unwrap();
    server
        .tell(&["INSERT INTO app.i SELECT seq, REPEAT(CONCAT(RAND(), MD5(RAND())), 20000) FROM app.seq_1_to_300"])
        .await;
    let mut open = site.open(Mode::Dump);
    let error = open.prepare().await.unwrap_err();
    open.release().await.unwrap();
    open.finish().await.unwrap();
    let (code, text) = failed(&error);
    println!("could not {text}");
    assert_eq!(code, Code::NoSpace, "{text}");
    names(&text, &["write the dump", "free space"]);
    assert_eq!(std::fs::read(site.file()).unwrap(), before);
    let left: Vec<_> = std::fs::read_dir(site.dataset()).unwrap().collect();
    assert_eq!(left.len(), 1, "{left:?}");
    site.writes_go_on(&server).await;
}
