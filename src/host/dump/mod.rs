//! Databases made consistent for a point: one conversation with one server, from `prepare` to `finish`.
//!
//! Promise: whoever was held is let go: by `release`, else by the end of the connection or process that held it, which ends
//! with the value here. A kind that cannot promise that (commands) says so by `unattended`, and its caller remembers to thaw.
//! Passwords come from files or the environment, and go to servers: never into an argument vector, a log, an error or a point.
//!
//! A crash of the daemon ends the connections, and with them every hold; a dump file that was being written keeps its
//! temporary name and is removed by the next dump.
//!
//! It deliberately does not know the order of steps, nor limits: the caller has both, and drops a step that takes too long.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

use super::command::Surroundings;
use crate::logic::dump::{Dump, DumpFacts, Found, How, Server};
use crate::logic::name::DatasetName;

pub mod command;
pub mod mysql;
pub mod postgres;
pub mod redis;
pub mod secret;
pub mod sqlite;
mod within;

/// What every dump of a role finds around it.
#[derive(Debug, Clone)]
pub struct Around {
    pub surroundings: Surroundings,
    /// Live paths of the role's datasets, absolute: the paths that people write into the config.
    pub datasets: BTreeMap<DatasetName, PathBuf>,
    /// Where the same datasets lie in truth: their live paths, or the copies that a drill made. Dump files are read there.
    pub copies: BTreeMap<DatasetName, PathBuf>,
}

impl Around {
    /// Where a path of the config lies in truth; itself where it is in no dataset.
    pub fn here(&self, path: &Path) -> PathBuf {
        let dataset = self.dataset_of(path);
        let places = dataset.and_then(|name| self.datasets.get(name).zip(self.copies.get(name)));
        let inside = places.and_then(|(live, copy)| Some(copy.join(path.strip_prefix(live).ok()?)));
        inside.unwrap_or_else(|| path.to_owned())
    }

    /// The innermost dataset that holds a path; none where it lies outside of all.
    pub fn dataset_of(&self, path: &Path) -> Option<&DatasetName> {
        let holds = self
            .datasets
            .iter()
            .filter(|(_, live)| path.starts_with(live));
        holds
            .max_by_key(|(_, live)| live.as_os_str().len())
            .map(|(name, _)| name)
    }
}

/// One dump under way. The steps are taken in the order in which they stand here, each at most once. `release` follows every
/// `hold` that was begun, `finish` every `prepare` that was begun, whatever came of them. A step that is dropped in the
/// middle leaves a value of which `release` and `finish` can still be called.
pub enum Open {
    Postgres(Box<postgres::Open>),
    Mysql(Box<mysql::Open>),
    Redis(Box<redis::Open>),
    Sqlite(Box<sqlite::Open>),
    Command(Box<command::Open>),
}

impl Open {
    pub fn new(dump: &Dump, around: &Around) -> Open {
        match &dump.how {
            How::Postgres(how) => Open::Postgres(Box::new(postgres::Open::new(how, around))),
            How::Mysql(how) => Open::Mysql(Box::new(mysql::Open::new(how, dump, around))),
            How::Redis(how) => Open::Redis(Box::new(redis::Open::new(how, dump, around))),
            How::Sqlite(how) => Open::Sqlite(Box::new(sqlite::Open::new(how, dump, around))),
            How::Command(how) => Open::Command(Box::new(command::Open::new(how, dump, around))),
        }
    }

    /// Writers go on. Connects, and does all that may take long.
    pub async fn prepare(&mut self) -> Result<()> {
        match self {
            Open::Postgres(open) => open.prepare().await,
            Open::Mysql(open) => open.prepare().await,
            Open::Redis(open) => open.prepare().await,
            Open::Sqlite(open) => open.prepare().await,
            Open::Command(open) => open.prepare().await,
        }
    }

    /// When this returns well, what is on disk is consistent and stays so until `release`.
    pub async fn hold(&mut self) -> Result<()> {
        match self {
            Open::Postgres(open) => open.hold().await,
            Open::Mysql(open) => open.hold().await,
            Open::Redis(open) => open.hold().await,
            Open::Sqlite(open) => open.hold().await,
            Open::Command(open) => open.hold().await,
        }
    }

    /// Writers go on. An error: they may have gone on before (the connection died), the snapshots are not to be trusted.
    pub async fn release(&mut self) -> Result<()> {
        match self {
            Open::Postgres(open) => open.release().await,
            Open::Mysql(open) => open.release().await,
            Open::Redis(open) => open.release().await,
            Open::Sqlite(open) => open.release().await,
            Open::Command(open) => open.release().await,
        }
    }

    /// What is known of it in the end. After a failure: closes what is open, and says what it can.
    pub async fn finish(&mut self) -> Result<Found> {
        match self {
            Open::Postgres(open) => open.finish().await,
            Open::Mysql(open) => open.finish().await,
            Open::Redis(open) => open.finish().await,
            Open::Sqlite(open) => open.finish().await,
            Open::Command(open) => open.finish().await,
        }
    }

    /// Whether anybody waits between `hold` and `release`.
    pub fn holds(&self) -> bool {
        match self {
            Open::Postgres(_) => false,
            Open::Mysql(open) => open.holds(),
            Open::Redis(open) => open.holds(),
            Open::Sqlite(open) => open.holds(),
            Open::Command(open) => open.holds(),
        }
    }

    /// Datasets whose snapshots must be made after `finish` (they hold the log that leads to the end of a backup). Known
    /// after `prepare`.
    pub fn late(&self) -> BTreeSet<DatasetName> {
        match self {
            Open::Postgres(open) => open.late(),
            _ => BTreeSet::new(),
        }
    }

    /// Writers would stay held if this process ended now.
    pub fn unattended(&self) -> bool {
        matches!(self, Open::Command(_)) && self.holds()
    }
}

/// Puts what a point kept (`Found::keeps`) into a copy of its data, before a server starts on it; `datasets` are the copy's
/// paths. Only these may be touched: where a restore brought back other datasets than the data directory's, nothing is done,
/// and the server that runs on that is not disturbed. One sentence for each thing done. Safe to repeat while no server has
/// started.
pub async fn place(
    dump: &Dump,
    facts: &DumpFacts,
    datasets: &BTreeMap<DatasetName, PathBuf>,
) -> Result<Vec<String>> {
    match &dump.how {
        How::Postgres(how) => postgres::place(how, facts, datasets).await,
        _ if facts.found.keeps.is_empty() => Ok(Vec::new()),
        _ => bail!(
            "place what the dump {} kept: its kind keeps nothing",
            dump.name
        ),
    }
}

/// Into which server, and how.
#[derive(Debug, Clone, Copy)]
pub struct Loading<'a> {
    /// In the place of what it holds; else only into a server that holds none of it.
    pub replace: bool,
    /// Another server than the dump's own (the one that a drill started).
    pub server: Option<&'a Server>,
}

/// What came of loading a dump.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Loaded {
    /// Nothing to do: the server starts from its own data (freeze, backup).
    Nothing,
    /// What was loaded, a sentence.
    Done(String),
    /// The server holds data already and was left alone: a sentence that says which.
    NotEmpty(String),
}

/// Reads a dump's file, where the role's live data (`around.datasets`) hold one, into a server that runs.
pub async fn load(dump: &Dump, around: &Around, how: Loading<'_>) -> Result<Loaded> {
    match &dump.how {
        How::Postgres(settings) => postgres::load(settings, around, how).await,
        How::Mysql(settings) => mysql::load(settings, around, how).await,
        How::Redis(_) => Ok(Loaded::Nothing),
        How::Sqlite(settings) => sqlite::load(settings, around, how).await,
        How::Command(settings) => command::load(settings, dump, around).await,
    }
}

/// What `standin check` says: whether the server answers, and what is missing for this dump. Changes nothing. The sentence of
/// a good end; an error reads after "could not".
pub async fn check(dump: &Dump, around: &Around) -> Result<String> {
    match &dump.how {
        How::Postgres(how) => postgres::check(how, around).await,
        How::Mysql(how) => mysql::check(how, around).await,
        How::Redis(how) => redis::check(how, around).await,
        How::Sqlite(how) => sqlite::check(how, around).await,
        How::Command(how) => command::check(how),
    }
}
