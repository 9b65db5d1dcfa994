//! Writers held by locks.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, Instant};

use standin::host::dump::{Open, check};

use crate::stage::{Stage, Writers, audit, here, owners, says, told, uid, wait_for};
use crate::support::cluster::{btrfs, wait};
use crate::support::fixture::run;
use crate::support::servers::sqlite::Shell;

#[test]
fn points_of_two_databases_are_of_one_moment() {
    if !here("points_of_two_databases_are_of_one_moment") {
        return;
    }
    let mut stage = Stage::new();
    stage.make_databases();
    let dump = stage.both();
    let writers = Writers::start(&stage);
    let mut longest = Duration::ZERO;
    for number in 1..=20 {
        writers.forget();
        let acknowledged = writers.seen();
        // As on a slow filesystem, now and then: what is not held would write in between.
        let slow = number % 4 == 0;
        let between = || {
            if slow {
                writers.try_to_write()
            }
        };
        let (point, found) = stage.point_slowly(&dump, between);
        let stalled = writers.stalled();
        if !slow {
            longest = longest.max(stalled);
        }
        let ms = stalled.as_secs_f64() * 1e3;
        println!("point {number}: a round of two commits took {ms:.1} ms at most, {found:?}");
        assert!(found.server.unwrap().starts_with("SQLite 3.") && found.bytes.unwrap() > 8192);
        let orders = audit(&point.copies[0].join("orders.db"));
        let stock = audit(&point.copies[1].join("stock.db"));
        for (at, least) in acknowledged.iter().enumerate() {
            assert!(stock[at] >= *least, "{stock:?} of {acknowledged:?}");
            let ahead = orders[at] - stock[at];
            assert!((0..=1).contains(&ahead), "{orders:?} and {stock:?}");
        }
    }
    let ms = longest.as_secs_f64() * 1e3;
    println!("FREEZE sqlite: writers stalled {ms:.1} ms at most, their own commits included");
    drop(writers);
    let own = uid();
    for dir in ["orders", "stock"] {
        for (name, owner) in owners(&stage.disk.join(dir)) {
            assert_eq!(owner, own, "{dir}/{name}");
        }
    }
}

#[test]
fn an_application_is_not_locked_out() {
    if !here("an_application_is_not_locked_out") {
        return;
    }
    let stage = Stage::new();
    stage.make_databases();
    run("chmod", ["600".as_ref(), stage.orders().as_os_str()]);
    let dir = stage.disk.join("orders");
    // Nobody has it open: its log and index are made by the hold.
    let dump = stage.dump(&[stage.orders()]);
    let mut open = stage.held(&dump);
    let made = owners(&dir);
    let names: Vec<&str> = made.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["orders.db", "orders.db-shm", "orders.db-wal"]);
    for (name, owner) in &made {
        assert_eq!(*owner, uid(), "{name}");
        let mode = fs::metadata(dir.join(name)).unwrap().mode() & 0o777;
        assert_eq!(mode, 0o600, "{name}");
    }
    let mut shell = Shell::open(&stage.orders());
    // Readers go on, writers wait.
    assert_eq!(shell.does("SELECT count(*) FROM account;"), ["8"]);
    let refused = shell.ask(".timeout 1\nINSERT INTO note VALUES ('held');\n.timeout 20000");
    assert!(refused[0].contains("locked"), "{refused:?}");
    wait_for(open.release()).unwrap();
    shell.does("INSERT INTO note VALUES ('free');");
    // Killed: what it left is not ours to put right.
    shell.process.kill();
    let log = dir.join("orders.db-wal");
    let before = fs::metadata(&log).unwrap();
    assert!(before.len() > 0);
    let mut open = stage.held(&dump);
    wait_for(open.release()).unwrap();
    let after = fs::metadata(&log).unwrap();
    assert_eq!((before.ino(), before.len()), (after.ino(), after.len()));
    let mut shell = Shell::open(&stage.orders());
    assert_eq!(shell.does("SELECT text FROM note;"), ["free"]);
    shell.does("INSERT INTO note VALUES ('more');");
    // Killed in the middle of a transaction that was written to the database already: the journal takes it back.
    let mut shell = Shell::open(&stage.stock());
    shell.does(
        "PRAGMA cache_size = 1; PRAGMA cache_spill = 1; BEGIN IMMEDIATE;
         WITH RECURSIVE some(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM some WHERE n < 200)
         INSERT INTO note SELECT hex(randomblob(4000)) FROM some;
         UPDATE account SET amount = 0;",
    );
    shell.process.kill();
    let journal = stage.disk.join("stock/stock.db-journal");
    assert!(fs::metadata(&journal).unwrap().len() > 0);
    let mut open = stage.held(&stage.both());
    wait_for(open.release()).unwrap();
    assert!(!journal.exists());
    Shell::open(&stage.stock()).does("INSERT INTO note VALUES ('after');");
    assert_eq!(audit(&stage.stock()), [0, 0]);
}

#[test]
fn locks_end_whatever_happens() {
    if !here("locks_end_whatever_happens") {
        return;
    }
    let stage = Stage::new();
    stage.make_databases();
    let write = |stage: &Stage| {
        for path in [stage.orders(), stage.stock()] {
            Shell::open(&path).does("INSERT INTO note VALUES ('x');");
        }
    };
    // Dropped without a word.
    drop(stage.held(&stage.both()));
    write(&stage);

    // The limit is over before the snapshots are made.
    let mut dump = stage.both();
    dump.hold = Duration::from_millis(200);
    let mut open = stage.held(&dump);
    write(&stage);
    says(
        &told(wait_for(open.release())),
        &["limit of 200ms", "raise the dump's `hold`"],
    );

    // Somebody holds a lock for longer; and nobody is left held.
    let mut shell = Shell::open(&stage.stock());
    shell.does("BEGIN IMMEDIATE;");
    let mut open = Open::new(&dump, &stage.around());
    wait_for(open.prepare()).unwrap();
    let begun = Instant::now();
    let refused = told(wait_for(open.hold()));
    assert!(begun.elapsed() >= dump.hold);
    says(
        &refused,
        &["lock", "stock.db within 200ms", "somebody else", "fuser"],
    );
    Shell::open(&stage.orders()).does("INSERT INTO note VALUES ('before release');");
    wait_for(open.release()).unwrap();
    wait_for(open.finish()).unwrap();

    // A step that is dropped while it waits.
    let mut open = Open::new(&stage.both(), &stage.around());
    wait_for(open.prepare()).unwrap();
    let cut =
        wait_for(async { tokio::time::timeout(Duration::from_millis(50), open.hold()).await });
    assert!(cut.is_err());
    wait_for(open.release()).unwrap();
    shell.does("COMMIT;");
    write(&stage);

    // locking_mode = EXCLUSIVE, with a log: not even a reader gets in.
    let mut shell = Shell::open(&stage.orders());
    shell.does("PRAGMA locking_mode = EXCLUSIVE; INSERT INTO note VALUES ('mine');");
    let mut open = Open::new(&dump, &stage.around());
    wait_for(open.prepare()).unwrap();
    says(&told(wait_for(open.hold())), &["orders.db", "EXCLUSIVE"]);
    wait_for(open.release()).unwrap();
    drop(shell);

    // Another file takes the place of one that is held.
    let mut open = stage.held(&stage.both());
    fs::copy(stage.stock(), stage.disk.join("stock/other")).unwrap();
    fs::rename(stage.disk.join("stock/other"), stage.stock()).unwrap();
    says(
        &told(wait_for(open.release())),
        &["stock.db", "another file took its place"],
    );
}

#[test]
fn applications_that_lock_the_other_way_round_get_through() {
    if !here("applications_that_lock_the_other_way_round_get_through") {
        return;
    }
    let mut stage = Stage::new();
    stage.make_databases();
    let dump = stage.both();
    let mut shell = Shell::open(&stage.stock());
    shell.does(&format!("ATTACH '{}' AS orders;", stage.orders().display()));
    for _ in 0..10 {
        // One lock now, the other while the hold has it or waits for the first.
        shell.does("BEGIN; UPDATE main.account SET amount = amount;");
        let mut open = Open::new(&dump, &stage.around());
        wait_for(open.prepare()).unwrap();
        shell.say("UPDATE orders.account SET amount = amount; COMMIT;");
        wait_for(open.hold()).unwrap();
        stage.snapshot();
        wait_for(open.release()).unwrap();
        let said = shell.hear();
        assert!(said.is_empty(), "{said:?}");
    }
}

#[test]
fn what_cannot_be_held_is_named() {
    if !here("what_cannot_be_held_is_named") {
        return;
    }
    let stage = Stage::new();
    stage.make_databases();
    let refusal = |files: &[std::path::PathBuf]| {
        let mut open = Open::new(&stage.dump(files), &stage.around());
        let said = told(wait_for(open.prepare()));
        wait_for(open.finish()).unwrap();
        said
    };
    let odd = stage.disk.join("orders/notes.db");
    fs::write(&odd, "x".repeat(4096)).unwrap();
    let pattern = stage.disk.join("orders/*.db*");
    says(
        &refusal(&[pattern]),
        &["notes.db", "no SQLite database", "narrower"],
    );
    fs::remove_file(&odd).unwrap();
    // An empty file is an empty database.
    fs::write(&odd, "").unwrap();
    let said = wait_for(check(
        &stage.dump(&[stage.disk.join("orders/*.db*")]),
        &stage.around(),
    ));
    assert!(said.unwrap().ends_with("can read 2 databases"));
    fs::remove_file(&odd).unwrap();
    says(&refusal(&[odd]), &["find the database", "notes.db"]);
    says(
        &refusal(&[stage.disk.join("orders/*.sqlite")]),
        &["by the pattern", "take it out"],
    );
    says(&refusal(&[stage.disk.join("orders")]), &["it is no file"]);
    let outside = stage.dir.path().join("outside.db");
    fs::copy(stage.orders(), &outside).unwrap();
    says(
        &refusal(&[outside]),
        &["outside.db", "in no dataset of role web"],
    );
    let nested = stage.disk.join("orders/nested");
    btrfs(&["subvolume", "create", nested.to_str().unwrap()]);
    fs::copy(stage.orders(), nested.join("inner.db")).unwrap();
    says(
        &refusal(&[nested.join("inner.db")]),
        &["below dataset orders", "of its own"],
    );
    // Between the two steps it goes away.
    let mut open = Open::new(&stage.both(), &stage.around());
    wait_for(open.prepare()).unwrap();
    fs::rename(stage.orders(), stage.disk.join("orders/away")).unwrap();
    says(&told(wait_for(open.hold())), &["orders.db"]);
    wait_for(open.release()).unwrap();
    fs::rename(stage.disk.join("orders/away"), stage.orders()).unwrap();
    let path = stage.disk.path();
    run(
        "mount",
        ["-o".as_ref(), "remount,ro".as_ref(), path.as_os_str()],
    );
    // Nobody writes there: as good as held, where SQLite can read it.
    let mut open = stage.held(&stage.dump(&[stage.stock()]));
    wait_for(open.release()).unwrap();
    says(&refusal(&[stage.orders()]), &["orders.db", "read-only"]);
    run(
        "mount",
        ["-o".as_ref(), "remount,rw".as_ref(), path.as_os_str()],
    );
    assert!(wait(|| audit(&stage.stock()) == [0, 0]));
}
