//! Dumps of kind `sqlite`: writers of the databases held by write locks while the snapshots are made (`freeze`), or copies
//! written into a dataset by the online backup interface (`backup`).
//!
//! Promise: applications are never locked out. What SQLite makes beside a database belongs to the database's owner (it sees to
//! that itself where it runs as root; tests/dump_sqlite tests it), and a lock ends with the connection, the limit of the hold or this process.
//!
//! While a lock is held no other code of this process may open and close such a file: that would end the lock (fcntl(2)
//! "close any file descriptor"). SQLite knows its own connections; everything here goes through it.
//!
//! A crash leaves what `copies` says; locks end with the process.

use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags};

use super::{Around, Loaded, Loading, within};
use crate::error::{Code, Failure};
use crate::logic::dump::sqlite::{FILES_MAX, Mode, Sqlite, is_pattern};
use crate::logic::dump::{Dump, Found};
use grip::Grip;

mod copies;
mod grip;
mod index;
mod put;

/// Name of a database's files besides it (https://sqlite.org/tempfiles.html).
const COMPANIONS: [&str; 3] = ["-wal", "-shm", "-journal"];

/// One dump under way.
pub struct Open {
    sqlite: Sqlite,
    around: Around,
    hold: Duration,
    grip: Option<Grip>,
    found: Found,
}

impl Open {
    pub fn new(sqlite: &Sqlite, dump: &Dump, around: &Around) -> Open {
        Open {
            sqlite: sqlite.clone(),
            around: around.clone(),
            hold: dump.hold,
            grip: None,
            found: Found::default(),
        }
    }

    pub fn holds(&self) -> bool {
        self.sqlite.mode == Mode::Freeze
    }

    pub async fn prepare(&mut self) -> Result<()> {
        self.found.server = Some(name());
        let files = files(&self.sqlite, &self.around)?;
        match (self.sqlite.mode, &self.sqlite.to) {
            (Mode::Backup, Some(to)) => {
                let bytes = copies::write(files, to.clone(), self.around.clone()).await?;
                self.found.bytes = Some(bytes);
                Ok(())
            }
            // What is no database is found, and what a crash left is put right, before anybody waits.
            _ => read_all(files).await,
        }
    }

    pub async fn hold(&mut self) -> Result<()> {
        if self.sqlite.mode == Mode::Backup {
            return Ok(());
        }
        // Again: one may have come since.
        let files = files(&self.sqlite, &self.around)?;
        let (grip, held) = Grip::begin(files, self.hold);
        self.grip = Some(grip);
        let bytes = held.await.context("hear of the write locks")??;
        self.found.bytes = Some(bytes);
        Ok(())
    }

    pub async fn release(&mut self) -> Result<()> {
        match self.grip.take() {
            Some(grip) => grip.end().await,
            None => Ok(()),
        }
    }

    pub async fn finish(&mut self) -> Result<Found> {
        // Where `release` was not called, or cut short.
        self.grip = None;
        Ok(std::mem::take(&mut self.found))
    }
}

/// What `standin check` says. Opens every database as any reader would.
pub async fn check(sqlite: &Sqlite, around: &Around) -> Result<String> {
    let files = files(sqlite, around)?;
    if let Some(to) = &sqlite.to {
        copies::room(to, around)?;
    }
    let count = files.len();
    read_all(files).await?;
    let databases = if count == 1 { "database" } else { "databases" };
    Ok(format!("{} can read {count} {databases}", name()))
}

/// Reads dump files back to where the databases were.
pub async fn load(sqlite: &Sqlite, around: &Around, how: Loading<'_>) -> Result<Loaded> {
    let Some(to) = sqlite.to.clone() else {
        return Ok(Loaded::Nothing);
    };
    put::back(to, around.clone(), how.replace).await
}

fn name() -> String {
    format!("SQLite {}", rusqlite::version())
}

/// The databases that are there now: each path itself, and what the patterns match. Links are followed.
fn files(sqlite: &Sqlite, around: &Around) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for path in &sqlite.files {
        let shown = path.display();
        // A name may hold what looks like a pattern.
        if !is_pattern(path) || path.exists() {
            files.push(real(path)?);
            continue;
        }
        let matched = glob::glob(&path.to_string_lossy())
            .with_context(|| format!("understand the pattern {shown}"))?;
        let before = files.len();
        for found in matched {
            let found = found.with_context(|| format!("look for {shown}"))?;
            let copied = sqlite.to.as_ref().is_some_and(|to| found.starts_with(to));
            if !is_companion(&found) && !found.is_dir() && !copied {
                files.push(real(&found)?);
            }
        }
        if files.len() == before {
            let what = format!("find a database by the pattern {shown}");
            let hint = "put the pattern right in the dump's `files`, or take it out";
            return Err(Failure::new(Code::NotFound, what).hint(hint).into());
        }
    }
    files.sort();
    files.dedup();
    if files.len() > FILES_MAX {
        bail!(
            "dump {} databases at once: at most {FILES_MAX}",
            files.len()
        );
    }
    if sqlite.mode == Mode::Freeze {
        for file in &files {
            within::dataset(file, "the database", around)?;
        }
    }
    Ok(files)
}

/// The file behind a name.
fn real(path: &Path) -> Result<PathBuf> {
    let shown = path.display();
    let real = path.canonicalize().map_err(|error| {
        let what = format!("find the database {shown}: {error}");
        let hint = "put its path right in the dump's `files`, or take it out";
        anyhow::Error::from(Failure::new(Code::NotFound, what).hint(hint))
    })?;
    let facts = std::fs::metadata(&real).with_context(|| format!("look at {shown}"))?;
    if !facts.is_file() {
        let what = format!("take {shown} for a database: it is no file");
        let hint = "name files in the dump's `files`, or a pattern such as DIRECTORY/*.db";
        return Err(Failure::new(Code::Refused, what).hint(hint).into());
    }
    Ok(real)
}

/// A file that SQLite keeps beside a database.
fn is_companion(path: &Path) -> bool {
    let name = path.to_string_lossy();
    let main = COMPANIONS.iter().find_map(|end| name.strip_suffix(end));
    main.is_some_and(|main| Path::new(main).exists())
}

fn companion(path: &Path, end: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(end);
    name.into()
}

/// Opens a database that is there. Closing it leaves its write-ahead log as it was found.
fn open(path: &Path, flags: OpenFlags) -> Result<Connection> {
    let logged = companion(path, "-wal").exists();
    let flags = flags | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags).map_err(|e| refused(path, e))?;
    let set = || {
        connection.busy_timeout(Duration::ZERO)?;
        // Other users write these files, and this process is root's: nothing in their schema is run.
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false)?;
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true)?;
        if logged {
            // Somebody's who has it open or was killed: putting its content into the database takes time, and is theirs to do.
            connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
        }
        Ok(())
    };
    set().map_err(|error| refused(path, error))?;
    Ok(connection)
}

/// Whether they are databases that can be read, or somebody else holds a lock: that is for later.
async fn read_all(files: Vec<PathBuf>) -> Result<()> {
    let read_one = |file: &PathBuf| match read(file) {
        Err(error) if Failure::code_of(&error) == Code::Locked => Ok(()),
        done => done,
    };
    let work = move || files.iter().try_for_each(read_one);
    let done = tokio::task::spawn_blocking(work).await;
    done.context("look at the databases")?
}

/// Whether it is a database that can be read.
fn read(path: &Path) -> Result<()> {
    let connection = open(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    let query = "SELECT count(*) FROM sqlite_schema";
    connection
        .query_row(query, [], |_| Ok(()))
        .map_err(|error| refused(path, error))
}

/// Whether a copy can be read, all of it.
fn whole(path: &Path) -> Result<()> {
    check_whole(&open(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?, path)
}

fn check_whole(connection: &Connection, path: &Path) -> Result<()> {
    let check = "PRAGMA quick_check(1)";
    let said: String = match connection.query_row(check, [], |row| row.get(0)) {
        Ok(said) => said,
        // It needs a function or collation that only its application has. Every page was read, and that has to do.
        Err(error) if is_of_sql(&error) => {
            tracing::debug!("could not check {}: {error}", path.display());
            return Ok(());
        }
        Err(error) => return Err(refused(path, error)),
    };
    if said == "ok" {
        return Ok(());
    }
    let last = said.lines().last().unwrap_or_default();
    let what = format!("find a whole database in {}: {last}", path.display());
    let hint = "the database itself was damaged when it was copied: see what PRAGMA integrity_check says; older points may hold it whole";
    Err(Failure::new(Code::Failed, what).hint(hint).into())
}

/// SQLITE_ERROR: what was asked cannot be, whatever the file holds.
fn is_of_sql(error: &rusqlite::Error) -> bool {
    let no_such = error.sqlite_error_code() == Some(ErrorCode::Unknown);
    no_such || matches!(error, rusqlite::Error::SqlInputError { .. })
}

fn is_busy(error: &rusqlite::Error) -> bool {
    let code = error.sqlite_error_code();
    matches!(
        code,
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked)
    )
}

/// What SQLite said of a file, and what to do. Reads after "could not".
fn refused(path: &Path, error: rusqlite::Error) -> anyhow::Error {
    let shown = path.display();
    let (code, what, hint) = match error.sqlite_error_code() {
        Some(ErrorCode::NotADatabase) => (
            Code::Refused,
            format!("read {shown}: it is no SQLite database, or an encrypted one"),
            "take it out of the dump's `files`, or make the pattern there narrower",
        ),
        Some(ErrorCode::CannotOpen) if !path.exists() => (
            Code::NotFound,
            format!("open {shown}: it is gone"),
            "a database that comes and goes cannot be dumped: make the dump's `files` narrower",
        ),
        Some(ErrorCode::CannotOpen) => (
            Code::Refused,
            format!("open {shown} with its log"),
            "SQLite cannot make the files that it needs beside it: its directory is read-only, or not there",
        ),
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => (
            Code::Locked,
            format!("lock {shown}: somebody else holds a lock"),
            "fuser shows who has it open: a transaction that stays open, or locking_mode = EXCLUSIVE, keeps everybody else out",
        ),
        Some(ErrorCode::ReadOnly) => (
            Code::Refused,
            format!("lock {shown}: its filesystem is read-only"),
            "nobody writes there: take it out of the dump's `files`, or mount it read-write",
        ),
        Some(ErrorCode::DiskFull) => (
            Code::NoSpace,
            format!("write {shown}: the filesystem is full"),
            "make room, or move the dump's `to`",
        ),
        Some(ErrorCode::DatabaseCorrupt) => (
            Code::Failed,
            format!("read {shown}: the database is damaged"),
            "see what PRAGMA integrity_check says; older points may hold it whole",
        ),
        _ => return anyhow::Error::new(error).context(format!("use the database {shown}")),
    };
    Failure::new(code, what).hint(hint).into()
}

/// Which file a path names; none where it names none.
fn identity(path: &Path) -> Result<Option<(u64, u64)>> {
    match std::fs::metadata(path) {
        Ok(facts) => Ok(Some((facts.dev(), facts.ino()))),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("look at {}", path.display())),
    }
}
