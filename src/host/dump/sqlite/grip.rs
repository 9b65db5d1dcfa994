//! Write locks on several databases at once, held by one thread that owns the connections.
//!
//! Promise: the locks end when the value here is dropped, when it is told to end, and when the limit is over, whichever is
//! first. While one lock is waited for, no other is held for longer than a moment: applications that take two of the
//! databases the other way round are not blocked for good.
//!
//! Readers go on. In WAL mode writers wait; without it a commit waits.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rusqlite::{Connection, OpenFlags};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::{companion, identity, is_busy, open, refused};
use crate::error::{Code, Failure};
use crate::logic::units;

/// Between two tries at a lock.
const TRY_EVERY: Duration = Duration::from_millis(1);

/// How long the next lock is waited for while others are held, at first; twice as long each time.
const WAIT_HOLDING: Duration = Duration::from_millis(20);

pub struct Grip {
    given_up: Arc<AtomicBool>,
    /// Dropped: let go.
    go: Option<mpsc::Sender<()>>,
    /// What the thread says in the end: whether it was locked until told to end.
    thread: Option<JoinHandle<Result<()>>>,
}

/// One database.
struct Held {
    path: PathBuf,
    identity: Option<(u64, u64)>,
    connection: Connection,
}

impl Grip {
    /// Begins to take the locks; the answer has come when all are held, with the size of the databases in bytes.
    pub fn begin(files: Vec<PathBuf>, limit: Duration) -> (Grip, oneshot::Receiver<Result<u64>>) {
        let (tell, held) = oneshot::channel();
        let (go, told) = mpsc::channel();
        let given_up = Arc::new(AtomicBool::new(false));
        let seen = given_up.clone();
        let end = Instant::now() + limit;
        let thread = tokio::task::spawn_blocking(move || match take(&files, limit, end, &seen) {
            Ok(held) => {
                let bytes = held.iter().map(|one| bytes(&one.path)).sum();
                let _ = tell.send(Ok(bytes));
                keep(held, limit, end, &told)
            }
            Err(error) => {
                let _ = tell.send(Err(error));
                Ok(())
            }
        });
        let grip = Grip {
            given_up,
            go: Some(go),
            thread: Some(thread),
        };
        (grip, held)
    }

    /// Lets writers go. An error: they may have gone on before.
    pub async fn end(mut self) -> Result<()> {
        self.let_go();
        match self.thread.take() {
            Some(thread) => thread.await.context("let writers go: the thread is gone")?,
            None => Ok(()),
        }
    }

    fn let_go(&mut self) {
        self.given_up.store(true, Ordering::Relaxed);
        self.go = None;
    }
}

impl Drop for Grip {
    fn drop(&mut self) {
        self.let_go();
    }
}

/// Of the database and its log. No file is opened: see the head of `sqlite`.
fn bytes(path: &Path) -> u64 {
    let size = |path: &Path| std::fs::metadata(path).map_or(0, |facts| facts.len());
    size(path) + size(&companion(path, "-wal"))
}

/// Until told to end, or too late.
fn keep(held: Vec<Held>, limit: Duration, end: Instant, told: &mpsc::Receiver<()>) -> Result<()> {
    let left = end.saturating_duration_since(Instant::now());
    let in_time = !matches!(
        told.recv_timeout(left),
        Err(mpsc::RecvTimeoutError::Timeout)
    );
    let mut moved = None;
    for one in &held {
        if identity(&one.path)? != one.identity {
            moved.get_or_insert(one.path.clone());
        }
    }
    for one in held.iter().rev() {
        // The lock ends with the connection anyway.
        let _ = one.connection.execute_batch("ROLLBACK");
    }
    if !in_time {
        let limit = units::exact_duration(limit);
        let what = format!(
            "hold the databases until the snapshots were made: the limit of {limit} was over before"
        );
        let hint = "the filesystem is slow now: raise the dump's `hold`";
        return Err(Failure::new(Code::Failed, what).hint(hint).into());
    }
    match moved {
        None => Ok(()),
        Some(path) => {
            let what = format!(
                "hold {} until the snapshots were made: another file took its place meanwhile",
                path.display()
            );
            let hint =
                "something replaces the database by renaming: it cannot be held while that runs";
            Err(Failure::new(Code::Failed, what).hint(hint).into())
        }
    }
}

/// Locks them all: waits for one while none is held, then takes the others; where one of those takes too long, lets all go and
/// waits for that one first.
fn take(
    files: &[PathBuf],
    limit: Duration,
    end: Instant,
    given_up: &AtomicBool,
) -> Result<Vec<Held>> {
    let mut held = Vec::new();
    for path in files {
        held.push(Held {
            identity: identity(path)?,
            connection: open(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?,
            path: path.clone(),
        });
    }
    let mut first = 0;
    let mut patience = WAIT_HOLDING;
    'again: loop {
        if !lock(&held[first], end, given_up)? {
            return Err(too_long(&held[first].path, limit));
        }
        for at in (0..held.len()).filter(|&at| at != first) {
            let until = end.min(Instant::now() + patience);
            if !lock(&held[at], until, given_up)? {
                for one in &held {
                    if !one.connection.is_autocommit() {
                        let undone = one.connection.execute_batch("ROLLBACK");
                        undone.map_err(|error| refused(&one.path, error))?;
                    }
                }
                first = at;
                patience *= 2;
                continue 'again;
            }
        }
        return Ok(held);
    }
}

/// Whether the write lock was had until then.
fn lock(one: &Held, until: Instant, given_up: &AtomicBool) -> Result<bool> {
    loop {
        match one.connection.execute_batch("BEGIN IMMEDIATE") {
            Ok(()) => return Ok(true),
            Err(error) if is_busy(&error) => {}
            Err(error) => return Err(refused(&one.path, error)),
        }
        if Instant::now() >= until || given_up.load(Ordering::Relaxed) {
            return Ok(false);
        }
        std::thread::sleep(TRY_EVERY);
    }
}

fn too_long(path: &Path, limit: Duration) -> anyhow::Error {
    let limit = units::exact_duration(limit);
    let what = format!(
        "lock {} within {limit}: somebody else holds it",
        path.display()
    );
    let hint = "fuser shows who has it open: a write transaction that stays open, or locking_mode = EXCLUSIVE; or raise the dump's `hold`";
    Failure::new(Code::Failed, what).hint(hint).into()
}
