//! PostgreSQL: a server on a data directory, and a ledger that several clients write to all the time.
//!
//! The server lets the system user postgres in by `peer`, as Debian's do, the clients of the test (user `load`) without a
//! question, and everybody else by password.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio_postgres::{Client, NoTls, SimpleQueryMessage};

use super::super::fixture::{self, run};
use super::super::random::Random;

/// Where Debian keeps the programs of a version; the newest is taken.
const HOME: &str = "/usr/lib/postgresql";

/// Longest wait for a server.
const PATIENCE: Duration = Duration::from_secs(60);

/// Small, and as durable as a real one.
const SETTINGS: &str = "
listen_addresses = ''
shared_buffers = 16MB
max_connections = 40
min_wal_size = 32MB
max_wal_size = 64MB
log_min_messages = warning
";

const LOGINS: &str = "
local all load trust
local all watcher scram-sha-256
local all all peer
local replication all peer
";

/// Whether this machine can run a test that needs PostgreSQL besides btrfs. Says so when it cannot.
pub fn ready(test: &str) -> bool {
    if !fixture::ready(test) {
        return false;
    }
    let user = fs::read_to_string("/etc/passwd")
        .unwrap()
        .contains("\npostgres:");
    if bin().is_some() && user {
        return true;
    }
    let why = "no PostgreSQL server (package postgresql)";
    println!("SKIPPED {test}: {why}");
    assert!(
        std::env::var_os("CI").is_none(),
        "{test} skipped in CI: {why}"
    );
    false
}

fn bin() -> Option<PathBuf> {
    let versions = fs::read_dir(HOME).ok()?.flatten();
    let mut bins: Vec<PathBuf> = versions.map(|entry| entry.path().join("bin")).collect();
    bins.retain(|bin| bin.join("postgres").is_file());
    bins.sort();
    bins.pop()
}

/// A program of the server's, run as its user.
pub fn as_postgres(program: &str) -> Command {
    let mut command = Command::new("setpriv");
    // It must not outlive a test that is killed.
    command.args([
        "--pdeathsig",
        "QUIT",
        "--reuid",
        "postgres",
        "--regid",
        "postgres",
    ]);
    command.args(["--clear-groups", "--"]);
    command.arg(bin().unwrap().join(program)).current_dir("/");
    command.stdin(Stdio::null());
    command
}

pub fn give(path: &Path) {
    run(
        "chown",
        [
            "-R".as_ref(),
            "postgres:postgres".as_ref(),
            path.as_os_str(),
        ],
    );
}

/// An empty data directory that every test copies: initdb takes longer than most of them.
fn template() -> PathBuf {
    static MADE: Mutex<()> = Mutex::new(());
    let _guard = MADE.lock().unwrap_or_else(|broken| broken.into_inner());
    let kept = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let version = bin().unwrap().display().to_string().replace('/', "-");
    let made = kept.join(format!("postgres-{version}"));
    if made.join("PG_VERSION").exists() {
        return made;
    }
    let dir = tempfile::Builder::new()
        .prefix("standin-pg-")
        .tempdir()
        .unwrap();
    give(dir.path());
    let data = dir.path().join("data");
    let mut initdb = as_postgres("initdb");
    initdb.args([
        "--no-sync",
        "-E",
        "UTF8",
        "--locale=C.UTF-8",
        "-U",
        "postgres",
        "-D",
    ]);
    let output = initdb.arg(&data).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    fs::write(data.join("pg_hba.conf"), LOGINS).unwrap();
    let mut settings = fs::read_to_string(data.join("postgresql.conf")).unwrap();
    settings += SETTINGS;
    fs::write(data.join("postgresql.conf"), settings).unwrap();
    let beside = kept.join(format!("postgres-new-{}", std::process::id()));
    run("cp", ["-a".as_ref(), data.as_os_str(), beside.as_os_str()]);
    // Another test program may have been quicker.
    if fs::rename(&beside, &made).is_err() {
        fs::remove_dir_all(&beside).unwrap();
    }
    made
}

/// Makes a data directory, which must not be there yet.
pub fn create(data: &Path) {
    run(
        "cp",
        [
            "-a".as_ref(),
            "--reflink=auto".as_ref(),
            template().as_os_str(),
            data.as_os_str(),
        ],
    );
    give(data);
}

/// A server that runs until it is dropped.
pub struct Postgres {
    pub data: PathBuf,
    sockets: tempfile::TempDir,
    child: Option<Child>,
}

impl Drop for Postgres {
    fn drop(&mut self) {
        self.kill();
    }
}

impl Postgres {
    pub fn start(data: &Path) -> Postgres {
        let sockets = tempfile::Builder::new()
            .prefix("standin-pg-")
            .tempdir()
            .unwrap();
        fs::set_permissions(sockets.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let sub = sockets.path().join("s");
        fs::create_dir(&sub).unwrap();
        give(&sub);
        let mut server = Postgres {
            data: data.to_owned(),
            sockets,
            child: None,
        };
        server.again();
        server
    }

    /// Starts it on the same socket.
    pub fn again(&mut self) {
        let log = fs::File::options()
            .append(true)
            .create(true)
            .open(self.log())
            .unwrap();
        let mut command = as_postgres("postgres");
        command.arg("-D").arg(&self.data).arg("-k").arg(self.dir());
        command.stdout(Stdio::null()).stderr(log);
        self.child = Some(command.spawn().unwrap());
        let end = Instant::now() + PATIENCE;
        loop {
            let ended = self.child.as_mut().unwrap().try_wait().unwrap();
            assert!(ended.is_none(), "{ended:?}: {}", self.said());
            let opened = block(login(&self.socket(), "load", "template1"));
            if opened.is_ok() || opened.is_err_and(|error| error.contains("does not exist")) {
                return;
            }
            assert!(
                Instant::now() < end,
                "the server does not start: {}",
                self.said()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    pub fn dir(&self) -> PathBuf {
        self.sockets.path().join("s")
    }

    pub fn socket(&self) -> PathBuf {
        self.dir().join(".s.PGSQL.5432")
    }

    fn log(&self) -> PathBuf {
        self.sockets.path().join("log")
    }

    /// Its log.
    pub fn said(&self) -> String {
        fs::read_to_string(self.log()).unwrap_or_default()
    }

    /// As a power failure would.
    pub fn kill(&mut self) {
        let Some(mut child) = self.child.take() else {
            return;
        };
        // SIGQUIT is "immediate": no checkpoint, no orderly end, but its children and shared memory go too.
        let pid = rustix::process::Pid::from_child(&child);
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::QUIT);
        let _ = child.wait();
    }

    /// Runs SQL as the superuser, by `peer`.
    pub fn sql(&self, sql: &str) -> String {
        self.sql_in("postgres", sql)
    }

    pub fn sql_in(&self, database: &str, sql: &str) -> String {
        let mut psql = as_postgres("psql");
        psql.args([
            "-X",
            "-q",
            "-A",
            "-t",
            "-v",
            "ON_ERROR_STOP=1",
            "-U",
            "postgres",
            "-h",
        ]);
        psql.arg(self.dir()).args(["-d", database, "-c", sql]);
        let output = psql.output().unwrap();
        assert!(output.status.success(), "{sql}: {output:?}");
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }
}

/// Runs a future to its end on a runtime of its own.
pub fn block<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    runtime.unwrap().block_on(future)
}

/// Connects; the words of the refusal.
pub async fn login(socket: &Path, user: &str, database: &str) -> Result<Client, String> {
    let stream = tokio::net::UnixStream::connect(socket).await;
    let stream = stream.map_err(|error| error.to_string())?;
    let mut config = tokio_postgres::Config::new();
    let opened = config
        .user(user)
        .dbname(database)
        .connect_raw(stream, NoTls)
        .await;
    let (client, connection) = opened.map_err(|error| match error.as_db_error() {
        Some(error) => error.message().to_owned(),
        None => error.to_string(),
    })?;
    tokio::spawn(connection);
    Ok(client)
}

/// Accounts whose sum never changes.
const ACCOUNTS: i64 = 100;

/// Makes the ledger in the database `postgres`; the table of what was done in a tablespace, where one is named.
pub fn ledger(server: &Postgres, tablespace: Option<&str>) {
    server.sql("CREATE ROLE load SUPERUSER LOGIN");
    let space = tablespace.map_or(String::new(), |name| format!(" TABLESPACE {name}"));
    server.sql(&format!(
        "CREATE TABLE accounts (id bigint PRIMARY KEY, balance bigint NOT NULL);
         INSERT INTO accounts SELECT id, 1000 FROM generate_series(1, {ACCOUNTS}) id;
         CREATE TABLE done (client bigint, number bigint, PRIMARY KEY (client, number)){space}"
    ));
}

/// One transaction of a client: from when, how long.
pub type Lap = (Instant, Duration);

/// Clients that write to the ledger until they are told to stop.
pub struct Load {
    stop: Arc<AtomicBool>,
    acknowledged: Vec<Arc<AtomicI64>>,
    laps: Arc<Mutex<Vec<Lap>>>,
    clients: Vec<JoinHandle<Result<(), String>>>,
}

impl Load {
    pub fn start(server: &Postgres, clients: u64) -> Load {
        let stop = Arc::new(AtomicBool::new(false));
        let laps = Arc::new(Mutex::new(Vec::new()));
        let acknowledged: Vec<_> = (0..clients).map(|_| Arc::new(AtomicI64::new(0))).collect();
        let threads = acknowledged.iter().enumerate().map(|(client, last)| {
            let (stop, laps, last) = (stop.clone(), laps.clone(), last.clone());
            let socket = server.socket();
            std::thread::spawn(move || block(write(&socket, client as u64, &stop, &laps, &last)))
        });
        let clients = threads.collect();
        let load = Load {
            stop,
            acknowledged,
            laps,
            clients,
        };
        load.wait_for(3);
        load
    }

    /// The last transaction of each client that the server called committed.
    pub fn acknowledged(&self) -> Vec<i64> {
        self.acknowledged
            .iter()
            .map(|last| last.load(Ordering::SeqCst))
            .collect()
    }

    /// Until every client has done so many more.
    pub fn wait_for(&self, more: i64) {
        let before = self.acknowledged();
        let end = Instant::now() + PATIENCE;
        while self
            .acknowledged()
            .iter()
            .zip(&before)
            .any(|(now, before)| now - before < more)
        {
            assert!(Instant::now() < end, "clients stand still at {before:?}");
            assert!(
                !self.clients.iter().any(JoinHandle::is_finished),
                "a client ended"
            );
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// The longest that a client waited for a transaction that was under way between two moments.
    pub fn longest(&self, from: Instant, to: Instant) -> Duration {
        let laps = self.laps.lock().unwrap();
        let during = laps
            .iter()
            .filter(|(began, took)| *began < to && *began + *took > from);
        during.map(|(_, took)| *took).max().unwrap_or_default()
    }

    /// Ends it; how many transactions there were.
    pub fn end(self) -> usize {
        self.stop.store(true, Ordering::SeqCst);
        for client in self.clients {
            client.join().unwrap().unwrap();
        }
        self.laps.lock().unwrap().len()
    }
}

async fn write(
    socket: &Path,
    client: u64,
    stop: &AtomicBool,
    laps: &Mutex<Vec<Lap>>,
    last: &AtomicI64,
) -> Result<(), String> {
    let words = |error: tokio_postgres::Error| format!("client {client}: {error:?}");
    let connection = login(socket, "load", "postgres").await?;
    let mut random = Random::new(client);
    for number in 1.. {
        if stop.load(Ordering::SeqCst) {
            break;
        }
        let began = Instant::now();
        let mut account = || 1 + random.below(ACCOUNTS as u64);
        // In one order, so that they never wait for one another in a ring.
        let (from, to) = (account(), account());
        let (low, high) = (from.min(to), from.max(to));
        let sql = format!(
            "BEGIN; UPDATE accounts SET balance = balance - 7 WHERE id = {low};
             UPDATE accounts SET balance = balance + 7 WHERE id = {high};
             INSERT INTO done VALUES ({client}, {number}); COMMIT"
        );
        connection.batch_execute(&sql).await.map_err(words)?;
        last.store(number, Ordering::SeqCst);
        laps.lock().unwrap().push((began, began.elapsed()));
    }
    Ok(())
}

/// Whether the ledger of a server is whole and holds what was acknowledged. Asked over one connection: there are many points.
pub fn audit(server: &Postgres, acknowledged: &[i64]) {
    let sql = "SELECT sum(balance), count(*) FROM accounts; \
        SELECT client, max(number), count(*) FROM done GROUP BY client ORDER BY client";
    let rows: Vec<Vec<i64>> = block(async {
        let client = login(&server.socket(), "load", "postgres").await.unwrap();
        let answer = client.simple_query(sql).await.unwrap();
        let rows = answer.iter().filter_map(|message| match message {
            SimpleQueryMessage::Row(row) => Some(
                (0..row.len())
                    .map(|at| row.get(at).unwrap().parse().unwrap())
                    .collect(),
            ),
            _ => None,
        });
        rows.collect()
    });
    assert_eq!(
        rows[0],
        [1000 * ACCOUNTS, ACCOUNTS],
        "money was made or lost"
    );
    assert_eq!(rows.len() - 1, acknowledged.len());
    for (row, acknowledged) in rows[1..].iter().zip(acknowledged) {
        assert_eq!(row[1], row[2], "client {} has a gap", row[0]);
        assert!(
            row[1] >= *acknowledged,
            "client {}: {} of {acknowledged}",
            row[0],
            row[1]
        );
    }
}
