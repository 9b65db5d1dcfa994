//! Two databases, one in each of two datasets; writers; and what is asked of a copy.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rusqlite::Connection;
use standin::error::Failure;
use standin::host::command::Surroundings;
use standin::host::dump::{Around, Open};
use standin::logic::dump::sqlite::{Mode, Sqlite};
use standin::logic::dump::{Dump, Found, How, Load, Policy};
use standin::logic::name::{DatasetName, NodeName, RoleName};

use crate::support::cluster::{btrfs, wait};
use crate::support::fixture::{Loop, ready, run};
use crate::support::servers::programs;
use crate::support::servers::sqlite::{Shell, USER};

const ACCOUNTS: i64 = 8;
const EACH: i64 = 1000;
const WRITERS: usize = 2;

pub fn here(test: &str) -> bool {
    ready(test) && programs(test, &["sqlite3"])
}

pub struct Stage {
    pub disk: Loop,
    pub dir: tempfile::TempDir,
    points: usize,
}

/// A dataset of a point, and a writable copy of all of it.
pub struct Point {
    pub copies: Vec<PathBuf>,
}

impl Stage {
    pub fn new() -> Stage {
        Stage::of(1 << 30)
    }

    pub fn of(size: u64) -> Stage {
        let disk = Loop::new(size);
        // The users of the tests must get at it.
        run(
            "chmod",
            ["755".as_ref(), disk.path().parent().unwrap().as_os_str()],
        );
        for name in ["orders", "stock"] {
            let live = disk.join(name);
            btrfs(&["subvolume", "create", live.to_str().unwrap()]);
            run("chown", ["daemon:daemon".as_ref(), live.as_os_str()]);
        }
        Stage {
            disk,
            dir: tempfile::tempdir().unwrap(),
            points: 0,
        }
    }

    /// The one with a write-ahead log.
    pub fn orders(&self) -> PathBuf {
        self.disk.join("orders/orders.db")
    }

    /// The one with a rollback journal.
    pub fn stock(&self) -> PathBuf {
        self.disk.join("stock/stock.db")
    }

    pub fn make_databases(&self) {
        for (path, mode) in [(self.orders(), "wal"), (self.stock(), "delete")] {
            let mut shell = Shell::open(&path);
            shell.does(&format!(
                "PRAGMA journal_mode = {mode};
                 CREATE TABLE account (id INTEGER PRIMARY KEY, amount INTEGER NOT NULL);
                 CREATE TABLE number (writer INTEGER PRIMARY KEY, number INTEGER NOT NULL);
                 CREATE TABLE note (text TEXT);"
            ));
            for id in 0..ACCOUNTS {
                shell.does(&format!("INSERT INTO account VALUES ({id}, {EACH});"));
            }
            for writer in 0..WRITERS {
                shell.does(&format!("INSERT INTO number VALUES ({writer}, 0);"));
            }
            shell.quit();
        }
    }

    pub fn around(&self) -> Around {
        let dataset = |name: &str| (DatasetName::parse(name).unwrap(), self.disk.join(name));
        Around {
            surroundings: Surroundings {
                role: RoleName::parse("web").unwrap(),
                node: NodeName::parse("alder").unwrap(),
                term: Some(1),
                output: self.dir.path().to_owned(),
            },
            datasets: [dataset("orders"), dataset("stock")].into(),
            copies: [dataset("orders"), dataset("stock")].into(),
        }
    }

    pub fn dump(&self, files: &[PathBuf]) -> Dump {
        Dump {
            name: RoleName::parse("books").unwrap(),
            policy: Policy::Required,
            timeout: Duration::from_secs(60),
            hold: Duration::from_secs(10),
            load: Load::Empty,
            drill: None,
            how: How::Sqlite(Sqlite {
                mode: Mode::Freeze,
                files: files.to_vec(),
                to: None,
            }),
        }
    }

    pub fn both(&self) -> Dump {
        self.dump(&[self.orders(), self.disk.join("stock/*.db")])
    }

    pub fn backup(&self, files: &[PathBuf]) -> Dump {
        let mut dump = self.dump(files);
        if let How::Sqlite(how) = &mut dump.how {
            how.mode = Mode::Backup;
            how.to = Some(self.disk.join("stock/copies"));
        }
        dump
    }

    /// Prepared and held.
    pub fn held(&self, dump: &Dump) -> Open {
        let mut open = Open::new(dump, &self.around());
        wait_for(open.prepare()).unwrap();
        wait_for(open.hold()).unwrap();
        open
    }

    /// The datasets one after the other.
    pub fn snapshot(&mut self) -> Point {
        self.snapshot_slowly(|| {})
    }

    /// The same, with something in between.
    pub fn snapshot_slowly(&mut self, between: impl Fn()) -> Point {
        self.points += 1;
        let take = |name: &str| {
            let copy = self.disk.join(&format!("{name}-{}", self.points));
            let live = self.disk.join(name);
            btrfs(&[
                "subvolume",
                "snapshot",
                live.to_str().unwrap(),
                copy.to_str().unwrap(),
            ]);
            copy
        };
        let orders = take("orders");
        between();
        Point {
            copies: vec![orders, take("stock")],
        }
    }

    pub fn point(&mut self, dump: &Dump) -> (Point, Found) {
        self.point_slowly(dump, || {})
    }

    pub fn point_slowly(&mut self, dump: &Dump, between: impl Fn()) -> (Point, Found) {
        let mut open = Open::new(dump, &self.around());
        wait_for(open.prepare()).unwrap();
        let asked = Instant::now();
        wait_for(open.hold()).unwrap();
        let had = asked.elapsed();
        let point = self.snapshot_slowly(between);
        wait_for(open.release()).unwrap();
        let ms = |span: Duration| span.as_secs_f64() * 1e3;
        let held = asked.elapsed() - had;
        println!("locks asked for {:.1} ms, held {:.1} ms", ms(had), ms(held));
        (point, wait_for(open.finish()).unwrap())
    }
}

pub fn wait_for<T>(step: impl Future<Output = T>) -> T {
    thread_local!(static RUNTIME: tokio::runtime::Runtime = {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        builder.enable_all().build().unwrap()
    });
    RUNTIME.with(|runtime| runtime.block_on(step))
}

/// Applications that write into the one database, then into the other.
pub struct Writers {
    stop: Arc<AtomicBool>,
    acknowledged: Arc<Vec<AtomicI64>>,
    /// Longest that one round took since somebody looked, in microseconds.
    longest: Arc<AtomicU64>,
    threads: Vec<std::thread::JoinHandle<()>>,
}

impl Writers {
    pub fn start(stage: &Stage) -> Writers {
        let stop = Arc::new(AtomicBool::new(false));
        let acknowledged: Arc<Vec<AtomicI64>> = Arc::new((0..WRITERS).map(|_| 0.into()).collect());
        let longest = Arc::new(AtomicU64::new(0));
        let writer = |writer: usize| {
            let (stop, acknowledged) = (stop.clone(), acknowledged.clone());
            let longest = longest.clone();
            let mut shells = [Shell::open(&stage.orders()), Shell::open(&stage.stock())];
            std::thread::spawn(move || {
                let mut number = 0;
                while !stop.load(Ordering::Relaxed) {
                    number += 1;
                    let begun = Instant::now();
                    for shell in &mut shells {
                        transfer(shell, writer, number);
                    }
                    acknowledged[writer].store(number, Ordering::SeqCst);
                    let took = u64::try_from(begun.elapsed().as_micros()).unwrap();
                    longest.fetch_max(took, Ordering::SeqCst);
                }
            })
        };
        let threads = (0..WRITERS).map(writer).collect();
        let writers = Writers {
            stop,
            acknowledged,
            longest,
            threads,
        };
        writers.stalled();
        writers
    }

    pub fn seen(&self) -> Vec<i64> {
        let load = |number: &AtomicI64| number.load(Ordering::SeqCst);
        self.acknowledged.iter().map(load).collect()
    }

    /// Until they have written, which they cannot while they are held; or a moment has passed.
    pub fn try_to_write(&self) {
        let (begun, before) = (Instant::now(), self.seen());
        let moment = Duration::from_millis(40);
        let on = || {
            self.seen()
                .iter()
                .zip(&before)
                .any(|(now, then)| *now > then + 1)
        };
        assert!(wait(|| on() || begun.elapsed() > moment));
    }

    pub fn forget(&self) {
        self.longest.store(0, Ordering::SeqCst);
    }

    /// The longest round since `forget`, all having written again.
    pub fn stalled(&self) -> Duration {
        let before = self.seen();
        let on = || {
            self.seen()
                .iter()
                .zip(&before)
                .all(|(now, then)| *now > then + 1)
        };
        assert!(wait(on));
        Duration::from_micros(self.longest.load(Ordering::SeqCst))
    }
}

impl Drop for Writers {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

fn transfer(shell: &mut Shell, writer: usize, number: i64) {
    let (from, to) = (number % ACCOUNTS, (number * 3 + 1) % ACCOUNTS);
    shell.does(&format!(
        "BEGIN IMMEDIATE;
         UPDATE account SET amount = amount - 7 WHERE id = {from};
         UPDATE account SET amount = amount + 7 WHERE id = {to};
         UPDATE number SET number = {number} WHERE writer = {writer};
         INSERT INTO note VALUES (hex(randomblob(200)));
         COMMIT;"
    ));
}

/// A database is whole: its numbers by writer.
pub fn audit(path: &Path) -> Vec<i64> {
    let database = Connection::open(path).unwrap();
    let said: String = database
        .query_row("PRAGMA integrity_check", [], |row| row.get(0))
        .unwrap();
    assert_eq!(said, "ok", "{}", path.display());
    let sum = "SELECT sum(amount) FROM account";
    let sum: i64 = database.query_row(sum, [], |row| row.get(0)).unwrap();
    assert_eq!(sum, ACCOUNTS * EACH, "{}", path.display());
    let mut numbers = database
        .prepare("SELECT number FROM number ORDER BY writer")
        .unwrap();
    let numbers = numbers.query_map([], |row| row.get(0)).unwrap();
    numbers.map(Result::unwrap).collect()
}

/// Files of a directory with their owners, but for `except`.
pub fn owners(dir: &Path) -> Vec<(String, u32)> {
    let entries = std::fs::read_dir(dir).unwrap().flatten();
    let mut found: Vec<_> = entries
        .map(|entry| {
            let name = entry.file_name().to_string_lossy().into_owned();
            (name, entry.metadata().unwrap().uid())
        })
        .collect();
    found.sort();
    found
}

/// Of the user that owns the databases.
pub fn uid() -> u32 {
    let said = run("id", ["-u", USER]);
    String::from_utf8(said).unwrap().trim().parse().unwrap()
}

pub fn told<T>(error: anyhow::Result<T>) -> String {
    let error = error.err().expect("an error");
    let hint = Failure::of(&error).and_then(|failure| failure.hint.clone());
    format!("could not {error:#}; {}", hint.unwrap_or_default())
}

#[track_caller]
pub fn says(told: &str, parts: &[&str]) {
    for part in parts {
        assert!(told.contains(part), "{part:?} is not in {told:?}");
    }
    println!("{told}");
}
