//! Freeze and backup: points under load, all of which recover.

use std::fs;

use standin::error::Code;
use standin::host::dump::{self, Open};

use super::support::fixture::Loop;
use super::support::servers::postgres::{self, Postgres, block, create, give, ledger};
use super::*;

#[test]
fn freeze() {
    if !postgres::ready("freeze") {
        return;
    }
    let disk = Loop::new(2 << 30);
    let place = Place::new(&[("main", &disk), ("other", &disk)]);
    let data = place.live("main").join("data");
    create(&data);
    let space = place.live("main").join("space");
    fs::create_dir(&space).unwrap();
    give(&space);
    let mut server = Postgres::start(&data);
    server.sql(&format!(
        "CREATE TABLESPACE space LOCATION '{}'",
        space.display()
    ));
    ledger(&server, Some("space"));
    let dump = place.dump(&server.dir(), "");
    let checked = block(dump::check(&dump, &place.around())).unwrap();
    assert!(
        checked.contains("its data lie in dataset main"),
        "{checked}"
    );
    rounds(&place, &dump, &mut server, "main/data", POINTS);
}

/// Takes points in mode `backup`, with these parts of the server on these datasets.
fn backup(server: &mut Postgres, place: &Place, points: usize, late: &str) {
    let dump = place.dump(&server.dir(), "mode = \"backup\"");
    block(dump::check(&dump, &place.around())).unwrap();
    let mut open = Open::new(&dump, &place.around());
    runtime().block_on(async {
        open.prepare().await.unwrap();
        assert_eq!(open.late(), [name(late)].into());
        open.hold().await.unwrap();
        // A checkpoint, and more log than the server keeps by itself: a point can still be recovered.
        for _ in 0..6 {
            server.sql("SELECT pg_switch_wal(); CHECKPOINT");
        }
        open.release().await.unwrap();
        let found = open.finish().await.unwrap();
        assert!(found.keeps["backup_label"].starts_with("START WAL LOCATION"));
        assert!(found.server.unwrap().starts_with("PostgreSQL 1"));
        drop(open);
        wait("the slot is gone", || {
            server.sql("SELECT count(*) FROM pg_replication_slots") == "0"
        })
        .await;
    });
    rounds(place, &dump, server, "main/data", points);
}

#[test]
fn backup_with_a_tablespace_elsewhere() {
    if !postgres::ready("backup_with_a_tablespace_elsewhere") {
        return;
    }
    let disk = Loop::new(2 << 30);
    let place = Place::new(&[("main", &disk), ("space", &disk)]);
    let space = owned_dir(place.live("space").join("s"));
    let mut server = spread(&place, Some(&space), None);
    let freeze = place.dump(&server.dir(), "");
    refused(
        &place,
        &freeze,
        Code::Refused,
        "spread over the datasets main, space",
        "mode = \"backup\"",
    );
    backup(&mut server, &place, 8, "main");
}

#[test]
fn backup_over_two_filesystems() {
    if !postgres::ready("backup_over_two_filesystems") {
        return;
    }
    let (one, two) = (Loop::new(2 << 30), Loop::new(2 << 30));
    let place = Place::new(&[("main", &one), ("space", &two), ("wal", &two)]);
    let space = owned_dir(place.live("space").join("s"));
    let wal = place.live("wal").join("w");
    let mut server = spread(&place, Some(&space), Some(&wal));
    backup(&mut server, &place, 8, "wal");
}

#[test]
fn backup_of_one_dataset() {
    if !postgres::ready("backup_of_one_dataset") {
        return;
    }
    let disk = Loop::new(2 << 30);
    let place = Place::new(&[("main", &disk)]);
    let mut server = spread(&place, None, None);
    backup(&mut server, &place, 4, "main");
}

#[test]
fn a_backup_whose_session_is_killed() {
    if !postgres::ready("a_backup_whose_session_is_killed") {
        return;
    }
    let disk = Loop::new(2 << 30);
    let place = Place::new(&[("main", &disk)]);
    let mut server = spread(&place, None, None);
    let dump = place.dump(&server.dir(), "mode = \"backup\"");
    let kill =
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'standin'";
    let slots = "SELECT count(*) FROM pg_replication_slots";
    let around = place.around();
    runtime().block_on(async {
        for held in [false, true] {
            let mut open = Open::new(&dump, &around);
            open.prepare().await.unwrap();
            assert_eq!(server.sql(slots), "1");
            if held {
                open.hold().await.unwrap();
            }
            server.sql(kill);
            wait("the backup ends with its session", || {
                server.sql(slots) == "0"
            })
            .await;
            let error = match held {
                false => open.hold().await.unwrap_err(),
                true => open.release().await.unwrap_err(),
            };
            told(
                &error,
                Code::Failed,
                "the connection to PostgreSQL ended",
                "somebody ended the session",
            );
            assert!(open.finish().await.is_err(), "there is no label");
        }
        // What is dropped in the middle leaves nothing either.
        let mut open = Open::new(&dump, &around);
        open.prepare().await.unwrap();
        drop(open);
        wait("the backup ends with its value", || {
            server.sql(slots) == "0"
        })
        .await;
    });
    rounds(&place, &dump, &mut server, "main/data", 1);
}
