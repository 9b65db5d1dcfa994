//! Dumps of kind `postgres`.
//!
//! ```text
//! freeze   prepare: checkpoint                 finish: nothing           nobody ever waits: the snapshot of one dataset is a
//!                                                                        power failure, from which the server recovers
//! backup   prepare: pg_backup_start            finish: pg_backup_stop    then the snapshot of the dataset that holds the log
//! dump     prepare: pg_dump, beside; renamed   finish: nothing
//! ```
//!
//! Promise: a backup whose session ended before its time is an error, and so is one whose first log file is gone: what such a
//! point holds might never recover. A temporary replication slot keeps the log from being recycled until the value is dropped.
//!
//! A crash ends the session, and with it the backup and the slot: the server is as it was.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use anyhow::{Context, Result, anyhow};

use self::layout::Layout;
use self::session::{Session, Target};
use super::{Around, Loaded, Loading};
use crate::error::{Code, Failure};
use crate::logic::dump::postgres::{LABEL, MAP, Mode, PLACES, Postgres, first_wal_file};
use crate::logic::dump::{DumpFacts, DumpResult, Found};
use crate::logic::name::DatasetName;

mod check;
mod files;
mod layout;
mod load;
mod place;
mod session;
mod tool;

/// Version in which the functions of backups got new names, and another signature.
const VERSION_BACKUP: u32 = 150_000;

/// Where the log is now; on a server that only follows another, where it has got to.
const POSITION: &str = "SELECT CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_insert_lsn() END";

/// One dump under way.
pub struct Open {
    how: Postgres,
    around: Around,
    target: Target,
    session: Option<Session>,
    layout: Option<Layout>,
    /// `prepare` came to a good end.
    ready: bool,
    found: Found,
}

impl Open {
    pub fn new(how: &Postgres, around: &Around) -> Open {
        Open {
            target: Target::new(how, None),
            how: how.clone(),
            around: around.clone(),
            session: None,
            layout: None,
            ready: false,
            found: Found::default(),
        }
    }

    /// The dataset of the log, which must lead to the end of the backup.
    pub fn late(&self) -> BTreeSet<DatasetName> {
        let layout = self.layout.as_ref().filter(|_| self.ready);
        let layout = layout.filter(|_| self.how.mode == Mode::Backup);
        layout
            .map(|layout| layout.log.clone())
            .into_iter()
            .collect()
    }

    pub async fn prepare(&mut self) -> Result<()> {
        let session = self.session.insert(Session::open(&self.target).await?);
        self.found.server = Some(session.server.clone());
        check::rights(session, &self.target, self.how.mode).await?;
        match self.how.mode {
            Mode::Freeze => {
                let layout = Layout::ask(session, &self.around).await?;
                layout.must_be_one()?;
                survives_power_failure(session).await?;
                session.run("CHECKPOINT", "make a checkpoint").await?;
                self.layout = Some(layout);
            }
            Mode::Backup => {
                let layout = Layout::ask(session, &self.around).await?;
                begin_backup(session).await?;
                self.layout = Some(layout);
            }
            Mode::Dump => {
                self.found.position = Some(position(session).await?);
                let dumped = files::dump(&self.how, &self.target, session, &self.around);
                self.found.bytes = Some(dumped.await?);
                // Nothing more is asked of the server.
                self.session = None;
            }
        }
        self.ready = true;
        Ok(())
    }

    pub async fn hold(&mut self) -> Result<()> {
        // Says too whether the session lives.
        if let Some(session) = &self.session {
            self.found.position = Some(position(session).await?);
        }
        Ok(())
    }

    pub async fn release(&mut self) -> Result<()> {
        match (&self.session, self.how.mode) {
            (Some(session), Mode::Backup) => session.run("SELECT 1", "keep the backup open").await,
            // A server that died since was only sooner in what the snapshot looks like.
            _ => Ok(()),
        }
    }

    pub async fn finish(&mut self) -> Result<Found> {
        let mut found = self.found.clone();
        if !self.ready {
            self.session = None;
            if self.how.mode == Mode::Dump {
                files::remove_leftovers(&self.how).await?;
            }
            return Ok(found);
        }
        let Some(layout) = &self.layout else {
            return Ok(found);
        };
        let places = serde_json::to_string(&layout.places).context("note where the data lie")?;
        found.keeps.insert(PLACES.to_owned(), places);
        if let (Some(session), Mode::Backup) = (&self.session, self.how.mode) {
            let (label, map, end) = end_backup(session, layout).await?;
            found.keeps.insert(LABEL.to_owned(), label);
            if !map.trim().is_empty() {
                found.keeps.insert(MAP.to_owned(), map);
            }
            // The session stays: its slot keeps the log until the snapshot of that.
            found.position = Some(end);
        }
        Ok(found)
    }
}

async fn position(session: &Session) -> Result<String> {
    session
        .word(POSITION, "ask PostgreSQL for the position of its log")
        .await
}

/// A snapshot is what a power failure leaves; not every server is set to survive one.
async fn survives_power_failure(session: &Session) -> Result<()> {
    for (name, why) in [
        ("fsync", "it does not wait for its log to be on disk"),
        (
            "full_page_writes",
            "pages that a snapshot holds by half are not repaired",
        ),
    ] {
        let sql = format!("SHOW {name}");
        let word = session
            .word(&sql, "ask PostgreSQL for its settings")
            .await?;
        if word != "on" {
            let what = format!("freeze PostgreSQL: {name} is {word}, {why}");
            let hint =
                format!("write {name} = on into postgresql.conf, or mode = \"dump\" into the dump");
            return Err(Failure::new(Code::Refused, what).hint(hint).into());
        }
    }
    Ok(())
}

async fn begin_backup(session: &Session) -> Result<()> {
    let doing = "begin a backup of PostgreSQL";
    if session.word("SELECT pg_is_in_recovery()", doing).await? == "t" {
        let what = format!("{doing}: it is a standby of another server");
        let hint = "write mode = \"freeze\", or dump the server that it follows";
        return Err(Failure::new(Code::Refused, what).hint(hint).into());
    }
    // First: from here on no log is recycled.
    let number = crate::host::random::number()?;
    let slot =
        format!("SELECT pg_create_physical_replication_slot('standin_{number:016x}', true, true)");
    let keeping = "keep the log of PostgreSQL for a backup (by a temporary replication slot)";
    session.rows(&slot, keeping).await?;
    let start = match session.version >= VERSION_BACKUP {
        true => "SELECT pg_backup_start('standin', true)",
        false => "SELECT pg_start_backup('standin', true, false)",
    };
    session.rows(start, doing).await.map(|_| ())
}

/// Label, map of tablespaces, and the position of the end.
async fn end_backup(session: &Session, layout: &Layout) -> Result<(String, String, String)> {
    let doing = "end the backup of PostgreSQL";
    let stop = match session.version >= VERSION_BACKUP {
        true => "SELECT labelfile, spcmapfile, lsn FROM pg_backup_stop(false)",
        false => "SELECT labelfile, spcmapfile, lsn FROM pg_stop_backup(false, false)",
    };
    let [label, map, end] = <[String; 3]>::try_from(session.row(stop, doing).await?)
        .map_err(|_| anyhow!("{doing}: its answer has not three parts"))?;
    let first = first_wal_file(&label).with_context(|| format!("{doing}: read its label"))?;
    let file = layout.wal.join(first);
    if !file.exists() {
        let what = format!("{doing}: its first log file {} is gone", file.display());
        let hint = "raise wal_keep_size of the server above what is written while a point is taken";
        return Err(Failure::new(Code::Failed, what).hint(hint).into());
    }
    Ok((label, map, end))
}

/// Reads the dump's files into a server.
pub async fn load(how: &Postgres, around: &Around, loading: Loading<'_>) -> Result<Loaded> {
    match how.mode {
        Mode::Freeze | Mode::Backup => Ok(Loaded::Nothing),
        Mode::Dump => load::load(how, around, loading).await,
    }
}

/// What is missing for the dump; see `super::check`.
pub async fn check(how: &Postgres, around: &Around) -> Result<String> {
    check::check(how, around).await
}

/// Puts the label and the map of tablespaces into the data directory, and makes its links lead into the copy.
pub async fn place(
    how: &Postgres,
    facts: &DumpFacts,
    datasets: &BTreeMap<DatasetName, PathBuf>,
) -> Result<Vec<String>> {
    if facts.mode == Mode::Dump.word() || facts.result == DumpResult::Stopped {
        return Ok(Vec::new());
    }
    if facts.mode == Mode::Backup.word() && !facts.found.keeps.contains_key(LABEL) {
        let what = format!(
            "start PostgreSQL from this point: the dump {} failed when it was taken, and its {} datasets are not of one moment",
            facts.name,
            how.mode.word()
        );
        let hint = "use an older point (standin points shows which dumps are good)";
        return Err(Failure::new(Code::Refused, what).hint(hint).into());
    }
    if !facts.found.keeps.contains_key(PLACES) {
        return Ok(Vec::new());
    }
    let (found, datasets) = (facts.found.clone(), datasets.clone());
    tokio::task::spawn_blocking(move || place::place(&found, &datasets)).await?
}
