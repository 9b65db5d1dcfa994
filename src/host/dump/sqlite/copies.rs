//! Copies of databases by SQLite's online backup interface (<https://sqlite.org/backup.html>), into a directory of a dataset.
//!
//! Promise: a copy is one moment of its database, checked (PRAGMA quick_check), on disk, and has its name only then. The copies of
//! one dump are of moments one after the other. Writers go on: in WAL mode always, else between steps, but for a database that
//! is written so often that the copy never ends: then they wait for it once.
//!
//! A crash leaves `.NAME.standin-new` files, and copies of the new and the old dump beside each other, each whole. The next
//! dump removes the one and replaces the other.

use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rusqlite::backup::{Backup, StepResult};
use rusqlite::{Connection, OpenFlags};

use super::index::{self, Entry, Index};
use super::{COMPANIONS, companion, open, refused};
use crate::error::{Code, Failure};
use crate::host::dump::{Around, within};

/// Pages of one step. A step holds a reader's lock.
const STEP_PAGES: i32 = 256;

/// Between two steps, for the writers.
const STEP_EVERY: Duration = Duration::from_millis(2);

/// So often a copy is begun anew because its database was written, before writers are made to wait.
const RESTARTS_MAX: u32 = 3;

/// Set when nobody waits for the work any more.
struct Abandon(Arc<AtomicBool>);

impl Drop for Abandon {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Copies every database; the size of the copies in bytes. Ends soon after it is dropped.
pub async fn write(files: Vec<PathBuf>, to: PathBuf, around: Around) -> Result<u64> {
    let abandoned = Arc::new(AtomicBool::new(false));
    let seen = abandoned.clone();
    let _guard = Abandon(abandoned);
    let work = tokio::task::spawn_blocking(move || all(&files, &to, &around, &seen));
    work.await.context("copy the databases")?
}

/// Whether `to` can be written to: inside a dataset, and not a directory that holds something else. Changes nothing.
pub fn room(to: &Path, around: &Around) -> Result<()> {
    let shown = to.display();
    let mut there = to;
    while !there.exists() {
        there = there.parent().unwrap_or(Path::new("/"));
    }
    within::dataset(there, "the place for copies", around)?;
    if there != to {
        return Ok(());
    }
    let facts = std::fs::metadata(to).with_context(|| format!("look at {shown}"))?;
    if !facts.is_dir() {
        bail!("write copies into {shown}: it is no directory");
    }
    if facts.uid() != rustix::process::geteuid().as_raw() || facts.mode() & 0o022 != 0 {
        let what = format!("write copies into {shown}: others than root may write there");
        let hint = format!("chown root: {shown}; chmod 700 {shown}");
        return Err(Failure::new(Code::Refused, what).hint(hint).into());
    }
    let mut entries = std::fs::read_dir(to).with_context(|| format!("list {shown}"))?;
    if Index::read(to)?.is_none() && entries.next().is_some() {
        let what = format!("write copies into {shown}: it holds other files");
        let hint = "name an empty or a new directory as the dump's `to`: what is in it and is not a copy is removed";
        return Err(Failure::new(Code::Refused, what).hint(hint).into());
    }
    Ok(())
}

fn all(files: &[PathBuf], to: &Path, around: &Around, abandoned: &AtomicBool) -> Result<u64> {
    room(to, around)?;
    make_dir(to)?;
    if Index::read(to)?.is_none() {
        // From here on the directory is ours.
        Index::default().write(to)?;
    }
    tidy(to, &|path| !is_beside(path))?;
    let mut index = Index::default();
    for file in files {
        index.files.push(one(file, to, around, abandoned)?);
    }
    index.write(to)?;
    let copies: Vec<PathBuf> = index.files.iter().map(|entry| entry.copy(to)).collect();
    let own = to.join(index::NAME);
    tidy(to, &|path| {
        path == own || copies.iter().any(|copy| copy == path)
    })?;
    Ok(index.files.iter().map(|entry| entry.bytes).sum())
}

fn make_dir(dir: &Path) -> Result<()> {
    let mut builder = std::fs::DirBuilder::new();
    let made = builder.recursive(true).mode(0o700).create(dir);
    made.with_context(|| format!("make the directory {}", dir.display()))
}

fn is_beside(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    name.starts_with('.') && name.contains(".standin-new")
}

/// Removes what need not stay under a directory, and directories that are empty then.
fn tidy(dir: &Path, stays: &dyn Fn(&Path) -> bool) -> Result<()> {
    let listing = || format!("list {}", dir.display());
    for entry in std::fs::read_dir(dir).with_context(listing)? {
        let entry = entry.with_context(listing)?;
        let path = entry.path();
        if entry.file_type().with_context(listing)?.is_dir() {
            tidy(&path, stays)?;
            // Not empty: it stays.
            let _ = std::fs::remove_dir(&path);
        } else if !stays(&path) {
            std::fs::remove_file(&path).with_context(|| format!("remove {}", path.display()))?;
        }
    }
    Ok(())
}

/// One database.
fn one(file: &Path, to: &Path, around: &Around, abandoned: &AtomicBool) -> Result<Entry> {
    let copy = index::copy_of(to, file);
    let (Some(dir), Some(name)) = (copy.parent(), copy.file_name()) else {
        bail!("name a copy of {}", file.display());
    };
    make_dir(dir)?;
    let beside = dir.join(format!(".{}.standin-new", name.to_string_lossy()));
    let facts = std::fs::metadata(file).with_context(|| format!("look at {}", file.display()))?;
    let written = copied(file, &beside, abandoned).and_then(|()| {
        let opened = std::fs::File::open(&beside)?;
        opened.set_permissions(std::fs::Permissions::from_mode(0o600))?;
        opened.sync_all()?;
        let bytes = opened.metadata()?.len();
        std::fs::rename(&beside, &copy)?;
        std::fs::File::open(dir)?.sync_all()?;
        Ok(bytes)
    });
    for end in COMPANIONS {
        let _ = std::fs::remove_file(companion(&beside, end));
    }
    let bytes = match written {
        Ok(bytes) => bytes,
        Err(error) => {
            let _ = std::fs::remove_file(&beside);
            return Err(error.context(format!("copy {} to {}", file.display(), copy.display())));
        }
    };
    Ok(Entry {
        path: file.to_owned(),
        inside: inside(file, around),
        uid: facts.uid(),
        gid: facts.gid(),
        mode: facts.mode() & 0o7777,
        bytes,
    })
}

fn inside(file: &Path, around: &Around) -> Option<(crate::logic::name::DatasetName, PathBuf)> {
    let name = within::dataset(file, "the database", around).ok()?;
    let live = around.datasets.get(name)?.canonicalize().ok()?;
    Some((name.clone(), file.strip_prefix(live).ok()?.to_owned()))
}

/// Copies and checks.
fn copied(file: &Path, beside: &Path, abandoned: &AtomicBool) -> Result<()> {
    let source = open(file, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
        | OpenFlags::SQLITE_OPEN_CREATE
        | OpenFlags::SQLITE_OPEN_NOFOLLOW;
    let mut target = open(beside, flags)?;
    // It is thrown away when anything fails, and synced in the end.
    target
        .execute_batch("PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF")
        .map_err(|error| refused(beside, error))?;
    let logged: String = patient(abandoned, || {
        source.query_row("PRAGMA journal_mode", [], |row| row.get(0))
    })?
    .map_err(|error| refused(file, error))?;
    // With a log, a reader sees one moment for as long as it likes, and nobody waits.
    let mut steady = logged == "wal";
    loop {
        if steady {
            let begin = "BEGIN; SELECT count(*) FROM sqlite_schema";
            patient(abandoned, || {
                source
                    .execute_batch(begin)
                    .or_else(|error| undo(&source, error))
            })?
            .map_err(|error| refused(file, error))?;
        }
        if steps(&source, &mut target, steady, abandoned).map_err(|error| match error {
            Stopped::Abandoned => anyhow::anyhow!("copy it whole: nobody waits for it any more"),
            Stopped::Refused(error) => refused(beside, error),
        })? {
            break;
        }
        steady = true;
    }
    super::check_whole(&target, beside)?;
    target.close().map_err(|(_, error)| refused(beside, error))
}

/// A transaction that was begun and then met a lock is not left open.
fn undo(connection: &Connection, error: rusqlite::Error) -> rusqlite::Result<()> {
    if !connection.is_autocommit() {
        connection.execute_batch("ROLLBACK")?;
    }
    Err(error)
}

/// Tries until nobody else is in the way.
fn patient<T>(
    abandoned: &AtomicBool,
    mut work: impl FnMut() -> rusqlite::Result<T>,
) -> Result<rusqlite::Result<T>> {
    loop {
        match work() {
            Err(error) if super::is_busy(&error) => {}
            done => return Ok(done),
        }
        if abandoned.load(Ordering::Relaxed) {
            bail!("wait for a lock: nobody waits for the copy any more");
        }
        std::thread::sleep(STEP_EVERY);
    }
}

enum Stopped {
    Abandoned,
    Refused(rusqlite::Error),
}

impl From<rusqlite::Error> for Stopped {
    fn from(error: rusqlite::Error) -> Stopped {
        Stopped::Refused(error)
    }
}

/// Whether the copy came to its end; not so where the database was written too often meanwhile.
fn steps(
    source: &Connection,
    target: &mut Connection,
    steady: bool,
    abandoned: &AtomicBool,
) -> Result<bool, Stopped> {
    let backup = Backup::new(source, target)?;
    let mut left = i32::MAX;
    let mut restarts = 0;
    loop {
        if abandoned.load(Ordering::Relaxed) {
            return Err(Stopped::Abandoned);
        }
        match backup.step(STEP_PAGES)? {
            StepResult::Done => return Ok(true),
            StepResult::More => {
                let now = backup.progress().remaining;
                restarts += u32::from(now > left);
                left = now;
                if restarts > RESTARTS_MAX && !steady {
                    return Ok(false);
                }
            }
            _ => {}
        }
        if !steady {
            std::thread::sleep(STEP_EVERY);
        }
    }
}
