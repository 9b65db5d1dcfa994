//! Writers held by a lock of the server while the snapshots are made.
//!
//! Promise: what the snapshots hold is what was committed when the lock was complete; a lock that ended before the snapshots
//! were made is an error of `release`. The server lets writers go when the connection ends; one that hangs in a statement is
//! ended from another connection.
//!
//! A crash ends the connection. It deliberately does not know when the snapshots are made.

use std::time::{Duration, Instant};

use anyhow::Result;
use mysql_async::Error;

use super::places;
use super::session::{self, Session};
use super::version;
use crate::error::{Code, Failure};
use crate::host::dump::Around;
use crate::logic::dump::mysql::{Lock, Mysql, Version};
use crate::logic::dump::{Found, Server};
use crate::logic::units;

/// Longest that the server may take to let writers go: it has only to hear it.
const END_MAX: Duration = Duration::from_secs(4);

/// Between two looks at how far the log is written.
const LOOK_EVERY: Duration = Duration::from_millis(5);

pub struct Freeze {
    server: Server,
    hold: Duration,
    around: Around,
    session: Option<Session>,
    version: Option<Version>,
    /// A commit may be acknowledged before it is in a file (innodb_flush_log_at_trx_commit is 0).
    lazy: bool,
    step: Step,
    position: Option<String>,
}

/// How far it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Idle,
    /// A statement that takes a lock was sent, and not answered. What is left in this step was dropped in the middle.
    Asking,
    /// Such a statement failed; the connection may live, and hold a part.
    Refused,
    Held,
}

impl Freeze {
    pub fn new(mysql: &Mysql, hold: Duration, around: &Around) -> Freeze {
        Freeze {
            server: mysql.server.clone(),
            hold,
            around: around.clone(),
            session: None,
            version: None,
            lazy: false,
            step: Step::Idle,
            position: None,
        }
    }

    pub async fn prepare(&mut self) -> Result<()> {
        let mut session = Session::open(&self.server).await?;
        let version = version(&mut session).await?;
        let lock = version.lock();
        self.version = Some(version);
        super::need(&mut session, &["RELOAD"]).await?;
        let found = places::look(&mut session, &self.around).await?;
        self.lazy = found.lazy;
        session
            .tell("limit the waiting for locks", &lock.waiting(self.hold))
            .await?;
        let session = self.session.insert(session);
        for statement in lock.begin() {
            if let Err(error) = session.run(statement).await {
                return Err(refusal(session, statement, self.hold, &error));
            }
        }
        Ok(())
    }

    pub async fn hold(&mut self) -> Result<()> {
        let (Some(session), Some(version)) = (&mut self.session, &self.version) else {
            return Err(not_prepared());
        };
        let lock = version.lock();
        self.step = Step::Asking;
        for statement in lock.hold() {
            if let Err(error) = session.run(statement).await {
                self.step = Step::Refused;
                return Err(refusal(session, statement, self.hold, &error));
            }
        }
        if self.lazy {
            if let Err(error) = written(session, version, self.hold).await {
                self.step = Step::Refused;
                return Err(error);
            }
        }
        self.step = Step::Held;
        Ok(())
    }

    pub async fn release(&mut self) -> Result<()> {
        let step = std::mem::replace(&mut self.step, Step::Idle);
        let (Some(mut session), Some(version)) = (self.session.take(), &self.version) else {
            return Ok(());
        };
        let (id, lock) = (session.id(), version.lock());
        if step == Step::Idle {
            self.session = Some(session);
            return Ok(());
        }
        if step == Step::Asking {
            // The connection waits for an answer, and the server does not notice that nobody listens.
            drop(session);
            return session::kill(&self.server, id).await;
        }
        let ending = async {
            // Read under the lock; and the proof that it was held until now, since the connection never changes.
            let position = match step {
                Step::Held => position(&mut session, version).await,
                _ => Ok(None),
            };
            let ended = session.run(lock.end()).await;
            (position, ended)
        };
        let Ok((position, ended)) = tokio::time::timeout(END_MAX, ending).await else {
            drop(session);
            session::kill(&self.server, id).await?;
            let what = format!(
                "let writers go at {} within {END_MAX:?}: connection {id} was ended instead",
                self.server.address
            );
            return Err(Failure::new(Code::Failed, what).into());
        };
        if step == Step::Refused {
            // What went wrong was told by `hold`. The end of the connection lets go what the end of the lock did not.
            session.close().await;
            return Ok(());
        }
        match position.and_then(|position| ended.map(|()| position)) {
            Ok(position) => {
                self.position = position;
                self.session = Some(session);
                Ok(())
            }
            Err(error) => Err(lock_lost(&session, id, lock, &error)),
        }
    }

    pub async fn finish(&mut self) -> Found {
        if let Some(session) = self.session.take() {
            session.close().await;
        }
        Found {
            server: self.version.as_ref().map(Version::name),
            position: self.position.take(),
            ..Found::default()
        }
    }
}

impl Drop for Freeze {
    /// A hold whose owner is gone: the connection would not notice while a statement waits.
    fn drop(&mut self) {
        let Some(session) = self.session.take() else {
            return;
        };
        if self.step != Step::Asking {
            return;
        }
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            let (server, id) = (self.server.clone(), session.id());
            runtime.spawn(async move {
                // The server's own limit for the statement ends it otherwise.
                let _ = session::kill(&server, id).await;
            });
        }
    }
}

fn not_prepared() -> anyhow::Error {
    Failure::new(Code::Failed, "hold a server that was not prepared").into()
}

/// Where the server's logs are. What the account may not see is left out; an error is one of the connection.
async fn position(session: &mut Session, version: &Version) -> Result<Option<String>, Error> {
    let mut words = Vec::new();
    let gtid = match version.maria {
        true => "SELECT @@GLOBAL.gtid_binlog_pos",
        false => "SELECT @@GLOBAL.gtid_executed",
    };
    let said = |rows: Vec<Vec<Option<String>>>, column: usize| {
        let row = rows.into_iter().next()?;
        let word = row.into_iter().nth(column)??;
        Some(word.replace('\n', "")).filter(|word| !word.is_empty())
    };
    if let Some(gtid) = asked(session, gtid).await?.and_then(|rows| said(rows, 0)) {
        words.push(format!("gtid {gtid}"));
    }
    let binlog = match !version.maria && (version.major, version.minor) >= (8, 2) {
        true => "SHOW BINARY LOG STATUS",
        false => "SHOW MASTER STATUS",
    };
    if let Some(rows) = asked(session, binlog).await? {
        let (file, offset) = (said(rows.clone(), 0), said(rows, 1));
        if let (Some(file), Some(offset)) = (file, offset) {
            words.push(format!("binlog {file}:{offset}"));
        }
    }
    let lsn = "SHOW GLOBAL STATUS LIKE 'Innodb_lsn_current'";
    if let Some(lsn) = asked(session, lsn).await?.and_then(|rows| said(rows, 1)) {
        words.push(format!("lsn {lsn}"));
    }
    Ok(Some(words.join(", ")).filter(|words| !words.is_empty()))
}

/// The rows of an answer; none where the server refuses it.
async fn asked(
    session: &mut Session,
    statement: &str,
) -> Result<Option<Vec<Vec<Option<String>>>>, Error> {
    match session.rows(statement).await {
        Ok(rows) => Ok(Some(rows)),
        Err(error) if session::lost(&error) => Err(error),
        Err(_) => Ok(None),
    }
}

/// Until everything that was acknowledged is in a file, where the server puts that off: for a second, by default. MariaDB has
/// no statement that writes it at once (FLUSH ENGINE LOGS does nothing then), so it is waited for.
async fn written(session: &mut Session, version: &Version, hold: Duration) -> Result<()> {
    if !version.maria {
        let statement = "FLUSH NO_WRITE_TO_BINLOG ENGINE LOGS";
        return session.tell("write the log", statement).await;
    }
    let asking = "ask how far the log is written";
    let current = "SHOW GLOBAL STATUS LIKE 'Innodb_lsn_current'";
    let flushed = "SHOW GLOBAL STATUS LIKE 'Innodb_lsn_flushed'";
    let number = |rows: Vec<Vec<Option<String>>>| {
        let row = rows.into_iter().next()?;
        row.into_iter().nth(1)??.parse::<u64>().ok()
    };
    let end = Instant::now() + hold.mul_f64(0.9);
    let mut wanted = None;
    loop {
        let statement = if wanted.is_none() { current } else { flushed };
        let rows = session.rows(statement).await;
        let rows = rows.map_err(|error| session.explain(asking, &error))?;
        match (wanted, number(rows)) {
            (None, Some(lsn)) => {
                wanted = Some(lsn);
                continue;
            }
            (Some(wanted), Some(lsn)) if lsn >= wanted => return Ok(()),
            (Some(_), Some(_)) if Instant::now() < end => tokio::time::sleep(LOOK_EVERY).await,
            _ => {
                let limit = units::exact_duration(hold);
                let what = format!(
                    "find all that {} acknowledged in its files within {limit}",
                    session.place()
                );
                let hint = "set innodb_flush_log_at_trx_commit to 1 or 2: with 0 it keeps commits in memory for innodb_flush_log_at_timeout seconds";
                return Err(Failure::new(Code::Failed, what).hint(hint).into());
            }
        }
    }
}

/// What stands in the way of a lock, by the statement that waited for it.
fn refusal(session: &Session, statement: &str, hold: Duration, error: &Error) -> anyhow::Error {
    if !session::waited_too_long(error) {
        return session.explain(&format!("run {statement}"), error);
    }
    let who = match statement {
        "BACKUP STAGE START" => {
            "a session that holds LOCK TABLES, or another backup (mariadb-backup)"
        }
        "BACKUP STAGE BLOCK_COMMIT" => "a commit that does not end",
        "FLUSH TABLES WITH READ LOCK" => "a long statement, or a session that holds LOCK TABLES",
        _ => "a long statement on tables without transactions (MyISAM), or a change of a table",
    };
    let limit = units::exact_duration(hold);
    let what = format!(
        "hold {} within {limit}: {statement} waited in vain, for {who}",
        session.place()
    );
    let hint = "find the session by SHOW FULL PROCESSLIST and end it, or raise the dump's `hold`";
    Failure::new(Code::Locked, what).hint(hint).into()
}

/// The lock ended before its time.
fn lock_lost(session: &Session, id: u32, lock: Lock, error: &Error) -> anyhow::Error {
    let why = match error {
        Error::Server(error) => format!("{} (error {})", error.message, error.code),
        _ => "the connection was closed".to_owned(),
    };
    let what = format!(
        "hold writers at {} until the snapshots were made: connection {id}, which held {}, ended before ({why})",
        session.place(),
        lock.name()
    );
    let hint =
        "somebody killed it, or the server stopped: look into its log; the next point tries again";
    Failure::new(Code::Failed, what).hint(hint).into()
}
