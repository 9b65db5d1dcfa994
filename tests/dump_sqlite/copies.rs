//! Copies by the online backup interface, and their way back.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use standin::host::dump::{Loaded, Loading, Open, load};
use standin::logic::dump::Dump;
use standin::logic::name::DatasetName;

use crate::stage::{Stage, Writers, audit, here, owners, says, told, uid, wait_for};
use crate::support::cluster::btrfs;
use crate::support::servers::sqlite::Shell;

/// Where a copy lies in a directory of copies.
fn copy_in(dir: &Path, database: &Path) -> PathBuf {
    dir.join(database.strip_prefix("/").unwrap())
}

fn everything(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() {
            everything(&path, found);
        } else {
            found.push(path);
        }
    }
}

#[test]
fn copies_are_whole_and_of_after_the_asking() {
    if !here("copies_are_whole_and_of_after_the_asking") {
        return;
    }
    let mut stage = Stage::new();
    stage.make_databases();
    let dump = stage.backup(&[stage.orders(), stage.stock()]);
    let writers = Writers::start(&stage);
    for _ in 0..6 {
        let acknowledged = writers.seen();
        let (point, found) = stage.point(&dump);
        let dir = point.copies[1].join("copies");
        let mut bytes = 0;
        for database in [stage.orders(), stage.stock()] {
            let copy = copy_in(&dir, &database);
            let facts = fs::metadata(&copy).unwrap();
            assert_eq!((facts.uid(), facts.mode() & 0o777), (0, 0o600));
            bytes += facts.len();
            for (found, least) in audit(&copy).iter().zip(&acknowledged) {
                assert!(found >= least, "{found} of {least}");
            }
        }
        assert_eq!(found.bytes, Some(bytes));
        let mut files = Vec::new();
        everything(&dir, &mut files);
        assert_eq!(files.len(), 3, "{files:?}");
    }
}

fn put(dump: &Dump, stage: &Stage, replace: bool) -> anyhow::Result<Loaded> {
    let how = Loading {
        replace,
        server: None,
    };
    wait_for(load(dump, &stage.around(), how))
}

fn dumped(dump: &Dump, stage: &Stage) {
    let mut open = Open::new(dump, &stage.around());
    wait_for(open.prepare()).unwrap();
    wait_for(open.finish()).unwrap();
}

#[test]
fn the_way_back() {
    if !here("the_way_back") {
        return;
    }
    let stage = Stage::new();
    stage.make_databases();
    // One outside of all datasets.
    let outside = stage.disk.join("outside.db");
    fs::copy(stage.orders(), &outside).unwrap();
    let dump = stage.backup(&[stage.orders(), outside.clone()]);
    says(
        &told(put(&dump, &stage, false)),
        &["no standin-sqlite.json", "points"],
    );
    fs::set_permissions(stage.orders(), fs::Permissions::from_mode(0o640)).unwrap();
    dumped(&dump, &stage);
    let kept = put(&dump, &stage, false).unwrap();
    assert!(
        matches!(&kept, Loaded::NotEmpty(said) if said.contains("orders.db, ")),
        "{kept:?}"
    );

    // What is there stays; what is not is put back, with its owner, and without the log of another.
    let log = stage.disk.join("orders/orders.db-wal");
    fs::remove_file(stage.orders()).unwrap();
    fs::write(&log, "of another").unwrap();
    let done = put(&dump, &stage, false).unwrap();
    let Loaded::Done(said) = &done else {
        panic!("{done:?}")
    };
    assert!(
        said.contains("put back /") && said.contains("left alone") && said.contains("outside.db"),
        "{said}"
    );
    let facts = fs::metadata(stage.orders()).unwrap();
    assert_eq!((facts.uid(), facts.mode() & 0o777), (uid(), 0o640));
    let only = vec![("orders.db".to_owned(), uid())];
    assert_eq!(owners(&stage.disk.join("orders")), only);
    assert_eq!(audit(&stage.orders()), [0, 0]);

    // In the place of what is there, but not under somebody who has it open.
    let mut shell = Shell::open(&stage.orders());
    shell.does("INSERT INTO note VALUES ('newer');");
    says(
        &told(put(&dump, &stage, true)),
        &["replace", "orders.db", "sqlite3", "stop what uses it"],
    );
    shell.process.kill();
    assert!(log.exists());
    put(&dump, &stage, true).unwrap();
    assert!(!log.exists());
    assert_eq!(
        Shell::open(&stage.orders()).does("SELECT count(*) FROM note;"),
        ["0"]
    );

    // A drill: another copy of the datasets under other paths. What lies outside of them is not touched.
    let room = stage.disk.join("drill");
    fs::create_dir(&room).unwrap();
    let mut around = stage.around();
    for name in ["orders", "stock"] {
        let (live, copy) = (stage.disk.join(name), room.join(name));
        btrfs(&[
            "subvolume",
            "snapshot",
            live.to_str().unwrap(),
            copy.to_str().unwrap(),
        ]);
        around
            .copies
            .insert(DatasetName::parse(name).unwrap(), copy);
    }
    fs::remove_file(room.join("orders/orders.db")).unwrap();
    let before = fs::metadata(&outside).unwrap();
    let how = Loading {
        replace: true,
        server: None,
    };
    let done = wait_for(load(&dump, &around, how)).unwrap();
    let Loaded::Done(said) = &done else {
        panic!("{done:?}")
    };
    assert!(
        said.contains("drill/orders/orders.db") && said.contains("1 copy is whole"),
        "{said}"
    );
    assert_eq!(fs::metadata(&outside).unwrap().ino(), before.ino());
    assert_eq!(audit(&room.join("orders/orders.db")), [0, 0]);

    // Nowhere to put it.
    fs::remove_file(&outside).unwrap();
    let away = stage.backup(&[stage.disk.join("orders/deep/a.db")]);
    fs::create_dir(stage.disk.join("orders/deep")).unwrap();
    fs::copy(stage.stock(), stage.disk.join("orders/deep/a.db")).unwrap();
    dumped(&away, &stage);
    fs::remove_dir_all(stage.disk.join("orders/deep")).unwrap();
    says(
        &told(put(&away, &stage, false)),
        &["there is no directory", "standin load"],
    );
}

#[test]
fn the_directory_of_copies() {
    if !here("the_directory_of_copies") {
        return;
    }
    let stage = Stage::new();
    stage.make_databases();
    let dir = stage.disk.join("stock/copies");
    let dump = stage.backup(&[stage.orders(), stage.stock()]);
    let refusal = |dump: &Dump| {
        let mut open = Open::new(dump, &stage.around());
        let said = told(wait_for(open.prepare()));
        wait_for(open.finish()).unwrap();
        said
    };
    // Somebody else's files are not ours to remove.
    fs::create_dir(&dir).unwrap();
    fs::write(dir.join("precious"), "x").unwrap();
    says(
        &refusal(&dump),
        &["it holds other files", "empty or a new directory"],
    );
    assert!(dir.join("precious").exists());
    fs::remove_file(dir.join("precious")).unwrap();
    fs::set_permissions(&dir, fs::Permissions::from_mode(0o777)).unwrap();
    says(
        &refusal(&dump),
        &["others than root may write", "chmod 700"],
    );
    fs::set_permissions(&dir, fs::Permissions::from_mode(0o700)).unwrap();
    dumped(&dump, &stage);
    // A database that is gone has no copy any more; leftovers of a crash go.
    let copy = copy_in(&dir, &stage.orders());
    assert!(copy.exists());
    let beside = copy.with_file_name(".orders.db.standin-new");
    fs::write(&beside, "half").unwrap();
    dumped(&stage.backup(&[stage.stock()]), &stage);
    assert!(!copy.exists() && !beside.exists() && copy_in(&dir, &stage.stock()).exists());
    // Damaged: the old copy stays, the new one is not named.
    let before = fs::metadata(copy_in(&dir, &stage.stock())).unwrap().ino();
    let mut bytes = fs::read(stage.stock()).unwrap();
    let middle = bytes.len() / 2;
    bytes[4096 + 8..middle].fill(0xAA);
    fs::write(stage.stock(), bytes).unwrap();
    says(
        &refusal(&stage.backup(&[stage.stock()])),
        &["stock.db", "damaged"],
    );
    assert_eq!(
        fs::metadata(copy_in(&dir, &stage.stock())).unwrap().ino(),
        before
    );
    // A place in no dataset.
    let mut elsewhere = stage.backup(&[stage.orders()]);
    if let standin::logic::dump::How::Sqlite(how) = &mut elsewhere.how {
        how.to = Some(stage.disk.join("elsewhere/copies"));
    }
    says(
        &refusal(&elsewhere),
        &["the place for copies", "in no dataset"],
    );
    assert!(!stage.disk.join("elsewhere").exists());
}

#[test]
fn what_only_its_application_can_check_is_copied() {
    if !here("what_only_its_application_can_check_is_copied") {
        return;
    }
    let stage = Stage::new();
    stage.make_databases();
    let mut shell = Shell::open(&stage.stock());
    shell.ask(
        ".dbconfig defensive off\nPRAGMA writable_schema = ON;
         UPDATE sqlite_schema SET sql = 'CREATE TABLE note (text TEXT CHECK (zork(text)))' WHERE name = 'note';",
    );
    shell.quit();
    let said = Shell::open(&stage.stock()).ask("PRAGMA quick_check;");
    assert!(said[0].contains("zork"), "{said:?}");
    let dump = stage.backup(&[stage.stock()]);
    dumped(&dump, &stage);
    let copy = copy_in(&stage.disk.join("stock/copies"), &stage.stock());
    assert!(fs::read(copy).unwrap().starts_with(b"SQLite format 3"));
}

#[test]
fn a_full_disk_and_a_step_that_is_dropped() {
    if !here("a_full_disk_and_a_step_that_is_dropped") {
        return;
    }
    let stage = Stage::of(256 << 20);
    stage.make_databases();
    let mut shell = Shell::open(&stage.orders());
    shell.does(
        "WITH RECURSIVE some(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM some WHERE n < 40)
         INSERT INTO note SELECT hex(randomblob(400000)) FROM some;
         PRAGMA wal_checkpoint(TRUNCATE);",
    );
    let dump = stage.backup(&[stage.orders()]);
    // Dropped in the middle: the work ends, and leaves nothing in the way of the next.
    let mut open = Open::new(&dump, &stage.around());
    let cut =
        wait_for(async { tokio::time::timeout(Duration::from_millis(5), open.prepare()).await });
    assert!(cut.is_err());
    wait_for(open.finish()).unwrap();
    let filler = stage.disk.join("filler");
    let full = Command::new("dd")
        .args(["if=/dev/zero", "bs=1M", "oflag=sync"])
        .arg(format!("of={}", filler.display()))
        .output()
        .unwrap();
    assert!(!full.status.success());
    let mut open = Open::new(&dump, &stage.around());
    says(
        &told(wait_for(open.prepare())),
        &["copy", "full", "make room"],
    );
    let mut files = Vec::new();
    everything(&stage.disk.join("stock/copies"), &mut files);
    assert!(files.len() <= 1, "{files:?}");
    shell.does("SELECT count(*) FROM note;");
    fs::remove_file(filler).unwrap();
    dumped(&dump, &stage);
    let copy = copy_in(&stage.disk.join("stock/copies"), &stage.orders());
    assert_eq!(audit(&copy), [0, 0]);
}
