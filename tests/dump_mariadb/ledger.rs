//! A load whose every state can be judged: money that is only moved, and per writer a number that only grows.
//!
//! A writer moves an amount between two accounts and notes its next number, in one transaction; when the commit is
//! acknowledged, the number is known to be kept. So in every consistent state the sum of all accounts is what it was, and a
//! writer's numbers are 1, 2, 3 ... without a gap, at least as far as was acknowledged before.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Error};

use crate::support::servers::mariadb::{Maria, connect};

const ACCOUNTS: u64 = 50;
const EACH: u64 = 1000;
const WRITERS_MAX: usize = 8;

#[derive(Clone)]
pub struct Ledger {
    shared: Arc<Shared>,
}

struct Shared {
    acknowledged: [AtomicU64; WRITERS_MAX],
    commits: Mutex<Vec<(Instant, Instant)>>,
    stop: AtomicBool,
}

/// Writers at work.
pub struct Writers {
    ledger: Ledger,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

impl Writers {
    pub async fn stop(self) {
        self.ledger.shared.stop.store(true, Ordering::SeqCst);
        for task in self.tasks {
            task.await.unwrap();
        }
    }
}

impl Ledger {
    pub async fn create(server: &Maria) -> Ledger {
        let fill = format!(
            "INSERT INTO ledger.accounts SELECT seq, {EACH} FROM ledger.seq_1_to_{ACCOUNTS}"
        );
        server
            .tell(&[
                "CREATE DATABASE ledger",
                "CREATE TABLE ledger.accounts (id INT PRIMARY KEY, balance BIGINT NOT NULL) ENGINE=InnoDB",
                "CREATE TABLE ledger.moves (writer INT, number BIGINT, note VARCHAR(200), PRIMARY KEY (writer, number)) ENGINE=InnoDB",
                "CREATE TABLE ledger.plain (number BIGINT) ENGINE=MyISAM",
                "CREATE TABLE ledger.paged (number BIGINT) ENGINE=Aria",
                &fill,
            ])
            .await;
        Ledger {
            shared: Arc::new(Shared {
                acknowledged: Default::default(),
                commits: Mutex::default(),
                stop: AtomicBool::new(false),
            }),
        }
    }

    pub fn start(&self, server: &Maria, writers: usize) -> Writers {
        assert!(writers <= WRITERS_MAX);
        let mut tasks: Vec<_> = (0..writers)
            .map(|writer| {
                let (ledger, socket) = (self.clone(), server.socket.clone());
                tokio::spawn(async move {
                    let mut conn = connect(&socket).await;
                    ledger.write(writer, &mut conn).await;
                })
            })
            .collect();
        let (ledger, socket) = (self.clone(), server.socket.clone());
        tasks.push(tokio::spawn(async move {
            let mut conn = connect(&socket).await;
            ledger.write_plainly(&mut conn).await;
        }));
        Writers {
            ledger: self.clone(),
            tasks,
        }
    }

    fn stopped(&self) -> bool {
        self.shared.stop.load(Ordering::SeqCst)
    }

    async fn write(&self, writer: usize, conn: &mut Conn) {
        let mut number = 1;
        while !self.stopped() {
            match self.move_once(writer, number, conn).await {
                Ok(()) => {
                    self.shared.acknowledged[writer].store(number, Ordering::SeqCst);
                    number += 1;
                }
                // A deadlock with another writer: undone, and tried again.
                Err(Error::Server(error)) if error.code == 1213 => {}
                Err(error) => panic!("writer {writer}: {error}"),
            }
        }
    }

    async fn move_once(&self, writer: usize, number: u64, conn: &mut Conn) -> Result<(), Error> {
        let from = (number * 7 + writer as u64 * 13) % ACCOUNTS + 1;
        let to = (from + number % (ACCOUNTS - 1)) % ACCOUNTS + 1;
        let amount = number % 17 + 1;
        conn.query_drop("START TRANSACTION").await?;
        for statement in [
            format!("UPDATE ledger.accounts SET balance = balance - {amount} WHERE id = {from}"),
            format!("UPDATE ledger.accounts SET balance = balance + {amount} WHERE id = {to}"),
            format!("INSERT INTO ledger.moves VALUES ({writer}, {number}, REPEAT('x', 150))"),
        ] {
            conn.query_drop(statement).await?;
        }
        let began = Instant::now();
        conn.query_drop("COMMIT").await?;
        self.shared
            .commits
            .lock()
            .unwrap()
            .push((began, Instant::now()));
        Ok(())
    }

    /// Tables without transactions.
    async fn write_plainly(&self, conn: &mut Conn) {
        let mut number = 1;
        while !self.stopped() {
            for table in ["plain", "paged"] {
                let statement = format!("INSERT INTO ledger.{table} VALUES ({number})");
                conn.query_drop(statement).await.unwrap();
            }
            number += 1;
            tokio::task::yield_now().await;
        }
    }

    /// The last number of every writer whose commit was acknowledged.
    pub fn acknowledged(&self) -> Vec<u64> {
        let all = self.shared.acknowledged.iter();
        all.map(|number| number.load(Ordering::SeqCst)).collect()
    }

    pub async fn wait_for_commits(&self, more: u64) {
        let sum = || self.acknowledged().iter().sum::<u64>();
        let (from, end) = (sum(), Instant::now() + Duration::from_secs(60));
        while sum() < from + more {
            assert!(Instant::now() < end, "the writers hang");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// The longest commit that was under way between two moments, of those that have ended.
    pub fn longest_commit(&self, from: Instant, to: Instant) -> Duration {
        let commits = self.shared.commits.lock().unwrap();
        let touching = commits
            .iter()
            .filter(|(began, ended)| *ended >= from && *began <= to);
        touching
            .map(|(began, ended)| *ended - *began)
            .max()
            .unwrap_or_default()
    }

    /// The median.
    pub fn usual_commit(&self) -> Duration {
        let commits = self.shared.commits.lock().unwrap();
        let mut all: Vec<Duration> = commits.iter().map(|(from, to)| *to - *from).collect();
        all.sort_unstable();
        all[all.len() / 2]
    }

    /// Whether a server holds a state that was, not older than what was acknowledged.
    pub async fn judge(&self, server: &Maria, acknowledged: &[u64]) {
        let sum: i64 = server
            .ask("SELECT CAST(SUM(balance) AS SIGNED) FROM ledger.accounts")
            .await
            .unwrap();
        assert_eq!(sum, (ACCOUNTS * EACH) as i64, "money was made or lost");
        for (writer, least) in acknowledged.iter().enumerate() {
            let counted = format!("SELECT COUNT(*) FROM ledger.moves WHERE writer = {writer}");
            let last = format!(
                "SELECT COALESCE(MAX(number), 0) FROM ledger.moves WHERE writer = {writer}"
            );
            let counted: u64 = server.ask(&counted).await.unwrap();
            let last: u64 = server.ask(&last).await.unwrap();
            assert_eq!(counted, last, "writer {writer} has a gap");
            assert!(
                last >= *least,
                "writer {writer}: {least} was acknowledged, {last} is there"
            );
        }
        let mut conn = server.connect().await;
        let checked: Vec<(String, String, String, String)> = conn
            .query("CHECK TABLE ledger.plain, ledger.paged, ledger.accounts, ledger.moves")
            .await
            .unwrap();
        for (table, _, kind, text) in checked {
            assert!(kind == "status" && text == "OK", "{table}: {kind} {text}");
        }
        conn.query_drop("INSERT INTO ledger.moves VALUES (99, 1, '')")
            .await
            .unwrap();
        conn.query_drop("DELETE FROM ledger.moves WHERE writer = 99")
            .await
            .unwrap();
        conn.disconnect().await.unwrap();
    }
}
