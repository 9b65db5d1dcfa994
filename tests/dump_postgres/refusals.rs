//! What cannot be dumped, and what a person is told then.

use std::fs;

use standin::error::Code;
use standin::host::dump::{self, Open};

use super::support::fixture::{Loop, run};
use super::support::servers::postgres::{self, Postgres, block, give};
use super::*;

#[test]
fn what_a_server_refuses() {
    if !postgres::ready("what_a_server_refuses") {
        return;
    }
    let disk = Loop::new(2 << 30);
    let place = Place::new(&[("main", &disk), ("other", &disk)]);
    let server = spread(&place, None, None);
    server.sql("CREATE ROLE watcher LOGIN PASSWORD 's3cret-right'");
    let secret = place.live("other").join("secret");
    let log_in = |password: &str| {
        fs::write(&secret, password).unwrap();
        run("chmod", ["600".as_ref(), secret.as_os_str()]);
        format!(
            "user = \"watcher\"\npassword-file = \"{}\"",
            secret.display()
        )
    };
    let dir = server.dir();
    let check = |keys: &str, code, what: &str, hint: &str| {
        let dump = place.dump(&dir, keys);
        refused(&place, &dump, code, what, hint);
        let error = block(dump::check(&dump, &place.around())).unwrap_err();
        assert_eq!(Failure::code_of(&error), code, "{error:#}");
    };
    check(
        &log_in("s3cret-wrong"),
        Code::Refused,
        "password authentication failed",
        "mend the password",
    );
    check(
        "user = \"watcher\"",
        Code::Failed,
        "password missing",
        "password-file",
    );
    check(
        "user = \"nobody\"",
        Code::Refused,
        "role \"nobody\" does not exist",
        "pg_hba.conf",
    );
    let right = log_in("s3cret-right");
    check(
        &right,
        Code::Refused,
        "may not ask where the data lie",
        "GRANT pg_read_all_settings TO \"watcher\"",
    );
    server.sql("GRANT pg_read_all_settings TO watcher");
    check(
        &right,
        Code::Refused,
        "may not make checkpoints",
        "GRANT pg_checkpoint TO \"watcher\"",
    );
    server.sql("GRANT pg_checkpoint TO watcher");
    let dump = place.dump(&dir, &right);
    block(dump::check(&dump, &place.around())).unwrap();
    let mut open = Open::new(&dump, &place.around());
    runtime().block_on(async { open.prepare().await.unwrap() });
    drop(open);
    let backup = format!("mode = \"backup\"\n{right}");
    check(
        &backup,
        Code::Refused,
        "keep the log",
        "ALTER ROLE \"watcher\" REPLICATION",
    );
    server.sql("ALTER ROLE watcher REPLICATION");
    check(
        &backup,
        Code::Refused,
        "may not take backups",
        "GRANT EXECUTE ON FUNCTION pg_backup_start",
    );
    server.sql("GRANT EXECUTE ON FUNCTION pg_backup_start(text, boolean), pg_backup_stop(boolean) TO watcher");
    let dump = place.dump(&dir, &backup);
    block(dump::check(&dump, &place.around())).unwrap();
    let mut open = Open::new(&dump, &place.around());
    runtime().block_on(async {
        open.prepare().await.unwrap();
        assert!(
            open.finish()
                .await
                .unwrap()
                .keeps
                .contains_key("backup_label")
        );
    });
    drop(open);
    let to = place.live("other").join("dump");
    check(
        &format!("mode = \"dump\"\nto = \"{}\"\n{right}", to.display()),
        Code::Refused,
        "may not read the passwords",
        "superuser",
    );
}

#[test]
fn a_server_that_is_down_or_not_durable() {
    if !postgres::ready("a_server_that_is_down_or_not_durable") {
        return;
    }
    let disk = Loop::new(2 << 30);
    let place = Place::new(&[("main", &disk)]);
    let mut server = spread(&place, None, None);
    let dir = server.dir();
    let check = |keys: &str, code, what: &str, hint: &str| {
        let dump = place.dump(&dir, keys);
        refused(&place, &dump, code, what, hint);
        let error = block(dump::check(&dump, &place.around())).unwrap_err();
        assert_eq!(Failure::code_of(&error), code, "{error:#}");
    };
    // A snapshot is a power failure: the server must be set to survive one.
    server.sql("ALTER SYSTEM SET full_page_writes = off");
    server.sql("SELECT pg_reload_conf()");
    runtime().block_on(wait("the setting", || {
        server.sql("SHOW full_page_writes") == "off"
    }));
    check(
        "",
        Code::Refused,
        "full_page_writes is off",
        "full_page_writes = on",
    );
    server.kill();
    check("", Code::Failed, "reach PostgreSQL at", "start the server");
    check(
        "host = \"127.0.0.1\"\nport = 1\nsocket = \"/x\""
            .split("\nsocket")
            .next()
            .unwrap(),
        Code::Failed,
        "reach PostgreSQL at 127.0.0.1:1",
        "start the server",
    );
}

#[test]
fn data_outside_of_datasets() {
    if !postgres::ready("data_outside_of_datasets") {
        return;
    }
    let disk = Loop::new(2 << 30);
    let place = Place::new(&[("main", &disk)]);
    let wal = disk.join("wal");
    let server = spread(&place, None, Some(&wal));
    for mode in ["freeze", "backup"] {
        let dump = place.dump(&server.dir(), &format!("mode = \"{mode}\""));
        refused(
            &place,
            &dump,
            Code::Refused,
            "pg_wal",
            "make a dataset of the subvolume",
        );
    }
    drop(server);
    // The same, hidden below the dataset.
    let inner = place.live("main").join("data/inner");
    run(
        "btrfs",
        [
            "-q".as_ref(),
            "subvolume".as_ref(),
            "create".as_ref(),
            inner.as_os_str(),
        ],
    );
    give(&inner);
    let server = Postgres::start(&place.live("main").join("data"));
    fs::create_dir(inner.join("space")).unwrap();
    give(&inner);
    server.sql(&format!(
        "CREATE TABLESPACE x LOCATION '{}'",
        inner.join("space").display()
    ));
    let dump = place.dump(&server.dir(), "mode = \"dump\"\nto = \"/nowhere/dump\"");
    refused(
        &place,
        &dump,
        Code::NotFound,
        "/nowhere/dump",
        "make /nowhere",
    );
    let to = inner.join("dump");
    let dump = place.dump(
        &server.dir(),
        &format!("mode = \"dump\"\nto = \"{}\"", to.display()),
    );
    refused(
        &place,
        &dump,
        Code::Refused,
        "it lies in no dataset",
        "inside of a dataset",
    );
}
