//! Dumps to files, and the way back.

use std::fs;

use standin::error::Code;
use standin::host::dump::{self, Around, Loaded, Loading, Open};
use standin::logic::dump::{Address, Dump, Server};

use super::support::fixture::{Loop, run};
use super::support::servers::postgres::{self, Load, Postgres, audit, block, create, ledger};
use super::*;

/// Databases with odd names, users and settings.
fn fill(server: &Postgres) {
    server.sql("CREATE ROLE \"o'wner\" LOGIN PASSWORD 's3cret'");
    server.sql("CREATE DATABASE \"host=x y'\" OWNER \"o'wner\"");
    server.sql("ALTER DATABASE \"host=x y'\" SET search_path = 'a b', public");
    server.sql("COMMENT ON DATABASE \"host=x y'\" IS 'odd'");
    server.sql("CREATE DATABASE plain ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0");
    server.sql_in(
        "plain",
        "CREATE TABLE big AS SELECT i, md5(i::text) || md5((i * 7)::text) AS word FROM generate_series(1, 60000) i;
         ALTER TABLE big ADD PRIMARY KEY (i)",
    );
}

/// What `fill` made, as a server tells it.
fn described(server: &Postgres) -> String {
    let databases = "SELECT datname, pg_encoding_to_char(encoding), datcollate, pg_get_userbyid(datdba), shobj_description(oid, 'pg_database'),
        (SELECT string_agg(array_to_string(setconfig, ';'), '|') FROM pg_db_role_setting WHERE setdatabase = d.oid)
        FROM pg_database d WHERE NOT datistemplate ORDER BY 1";
    let users = "SELECT rolname, rolsuper, left(rolpassword, 30) FROM pg_authid WHERE rolname !~ '^pg_' ORDER BY 1";
    let big = "SELECT count(*), sum(hashtext(word)) FROM big";
    let sqls = [("postgres", databases), ("postgres", users), ("plain", big)];
    sqls.map(|(database, sql)| server.sql_in(database, sql))
        .join("\n")
}

#[test]
fn dump_and_load() {
    if !postgres::ready("dump_and_load") {
        return;
    }
    let disk = Loop::new(3 << 30);
    // The data are in no dataset: only their dump is.
    let place = Place::new(&[("dumps", &disk)]);
    let data = disk.join("data");
    create(&data);
    let server = Postgres::start(&data);
    ledger(&server, None);
    fill(&server);
    let to = place.live("dumps").join("pg");
    let dump = place.dump(
        &server.dir(),
        &format!("mode = \"dump\"\njobs = 2\nto = \"{}\"", to.display()),
    );
    let checked = block(dump::check(&dump, &place.around())).unwrap();
    assert!(checked.contains("its dump goes to"), "{checked}");
    let load = Load::start(&server, CLIENTS);
    let points: Vec<Point> = (0..3)
        .map(|number| take(&place, &dump, &format!("p{number}"), &load))
        .collect();
    load.end();
    let before = described(&server);
    drop(server);
    for (number, point) in points.iter().enumerate() {
        assert!(point.facts.found.bytes.unwrap() > 1 << 20);
        assert!(point.facts.found.keeps.is_empty());
        let copy = disk.join("copy");
        snapshot(point.parts.values().next().unwrap(), &copy, &[]);
        // Dumped where the server's user has another number.
        run(
            "chown",
            ["-R".as_ref(), "12345:12345".as_ref(), copy.as_os_str()],
        );
        let data = disk.join(&format!("data{number}"));
        create(&data);
        let server = Postgres::start(&data);
        let mut around = place.around();
        around.copies = [(name("dumps"), copy.clone())].into();
        match number {
            0 => read_back(&server, &dump, &around, point, &before),
            _ => {
                let empty = Loading {
                    replace: false,
                    server: Some(&at(&server)),
                };
                let loaded = block(dump::load(&dump, &around, empty)).unwrap();
                assert!(matches!(loaded, Loaded::Done(_)), "{loaded:?}");
                audit(&server, &point.acknowledged);
            }
        }
        drop(server);
        delete(&copy);
    }
}

fn at(server: &Postgres) -> Server {
    Server {
        address: Address::Socket(server.dir()),
        user: None,
        password: None,
    }
}

/// Loads a dump in every way; the server must hold the same as the one that was dumped.
fn read_back(server: &Postgres, dump: &Dump, around: &Around, point: &Point, before: &str) {
    let other = at(server);
    let how = |replace| Loading {
        replace,
        server: Some(&other),
    };
    let load = |replace| runtime().block_on(dump::load(dump, around, how(replace)));
    let unfinished = "SELECT datname FROM pg_database WHERE datname ~ '^standin'";
    // Cut short: nothing has its name yet.
    let cut = runtime().block_on(async {
        tokio::select! {
            done = dump::load(dump, around, how(false)) => panic!("it was too quick: {done:?}"),
            () = wait("a temporary database", || !server.sql(unfinished).is_empty()) => {}
        }
        server.sql(unfinished)
    });
    assert!(!cut.is_empty());
    match load(false).unwrap() {
        Loaded::Done(what) => assert!(what.contains("plain, postgres"), "{what}"),
        other => panic!("{other:?}"),
    }
    assert_eq!(server.sql(unfinished), "");
    assert_eq!(described(server), before);
    audit(server, &point.acknowledged);
    match load(false).unwrap() {
        Loaded::NotEmpty(what) => assert!(
            what.contains("holds data already in plain, postgres"),
            "{what}"
        ),
        other => panic!("{other:?}"),
    }
    server.sql_in("plain", "DELETE FROM big");
    // Somebody uses it: they are thrown out.
    let busy = std::thread::spawn({
        let socket = server.socket();
        move || {
            block(async {
                let client = postgres::login(&socket, "load", "plain").await.unwrap();
                client.batch_execute("SELECT pg_sleep(600)").await.is_err()
            })
        }
    });
    runtime().block_on(wait("the session", || {
        server.sql("SELECT count(*) FROM pg_stat_activity WHERE query ~ '^SELECT pg_sleep'") == "1"
    }));
    assert!(matches!(load(true).unwrap(), Loaded::Done(_)));
    assert!(busy.join().unwrap());
    assert_eq!(described(server), before);
}

#[test]
fn a_dump_that_waits_or_fills_the_disk() {
    if !postgres::ready("a_dump_that_waits_or_fills_the_disk") {
        return;
    }
    let (disk, small) = (Loop::new(2 << 30), Loop::new(192 << 20));
    let place = Place::new(&[("dumps", &small)]);
    let data = disk.join("data");
    create(&data);
    let server = Postgres::start(&data);
    ledger(&server, None);
    fill(&server);
    let to = place.live("dumps").join("pg");
    let keys = format!("mode = \"dump\"\nto = \"{}\"", to.display());
    let dump = place.dump(&server.dir(), &keys);
    let around = place.around();
    let whole = || {
        assert_eq!(fs::read_dir(place.live("dumps")).unwrap().count(), 1);
        fs::read_to_string(to.join("standin.json")).unwrap()
    };
    runtime().block_on(async {
        let mut open = Open::new(&dump, &around);
        open.prepare().await.unwrap();
        open.finish().await.unwrap();
        let first = whole();
        // Somebody holds a lock; the caller's limit is over.
        let client = postgres::login(&server.socket(), "load", "plain").await.unwrap();
        client.batch_execute("BEGIN; LOCK TABLE big").await.unwrap();
        let mut open = Open::new(&dump, &around);
        let waiting = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'standin' AND wait_event_type = 'Lock'";
        tokio::select! {
            done = open.prepare() => panic!("{done:?}"),
            () = wait("pg_dump waits", || server.sql(waiting) == "1") => {}
        }
        assert!(open.finish().await.is_ok());
        wait("its sessions are gone", || {
            server.sql("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'standin'") == "0"
        })
        .await;
        assert_eq!(whole(), first);
        client.batch_execute("COMMIT").await.unwrap();
        // No space.
        let filler = small.join("filler");
        let mut file = fs::File::create(&filler).unwrap();
        let mut random = super::support::random::Random::new(1);
        while std::io::Write::write_all(&mut file, &random.bytes(1 << 20)).is_ok() {}
        let mut open = Open::new(&dump, &around);
        let error = open.prepare().await.unwrap_err();
        told(&error, Code::NoSpace, "No space left on device", "free space");
        assert!(open.finish().await.is_ok());
        assert_eq!(whole(), first);
        drop(file);
        fs::remove_file(&filler).unwrap();
        run("btrfs", ["filesystem".as_ref(), "sync".as_ref(), small.path().as_os_str()]);
        let mut open = Open::new(&dump, &around);
        open.prepare().await.unwrap();
        whole();
    });
    let keys = format!("{keys}\ndatabases = [\"plain\", \"gone\"]");
    let dump = place.dump(&server.dir(), &keys);
    refused(
        &place,
        &dump,
        Code::NotFound,
        "dump database gone",
        "there are host=x y', plain, postgres",
    );
}
