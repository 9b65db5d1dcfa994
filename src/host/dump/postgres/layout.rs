//! Where a server's data lie, and in which datasets.
//!
//! Promise: what is not in a snapshot of the role's datasets is refused: a directory outside of all, and one below a dataset
//! that is a subvolume of its own.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::session::Session;
use crate::error::{Code, Failure};
use crate::host::dump::Around;
use crate::logic::dump::postgres::{Place, Places};
use crate::logic::name::DatasetName;

/// Directories of the data directory that somebody may have moved elsewhere by a link or a subvolume.
const PARTS: [&str; 4] = ["base", "global", "pg_wal", "pg_tblspc"];

/// Everything of a server that belongs together.
#[derive(Debug, Clone)]
pub struct Layout {
    pub wal: PathBuf,
    pub places: Places,
    /// The dataset of the log.
    pub log: DatasetName,
    /// All datasets that hold something of it.
    pub datasets: BTreeSet<DatasetName>,
}

impl Layout {
    /// Asks the server, then the disk.
    pub async fn ask(session: &Session, around: &Around) -> Result<Layout> {
        let asking = "ask PostgreSQL where its data lie";
        let data = session.word("SHOW data_directory", asking).await?;
        let sql = "SELECT oid, pg_tablespace_location(oid) FROM pg_tablespace WHERE pg_tablespace_location(oid) LIKE '/%'";
        let mut spaces = BTreeMap::new();
        for row in session.rows(sql, asking).await? {
            let id: u32 = row[0].parse().context(asking)?;
            spaces.insert(id, PathBuf::from(&row[1]));
        }
        let around = around.clone();
        tokio::task::spawn_blocking(move || find(Path::new(&data), &spaces, &around)).await?
    }

    /// What has to be on one dataset, told with what is not.
    pub fn must_be_one(&self) -> Result<()> {
        if self.datasets.len() == 1 {
            return Ok(());
        }
        let names: Vec<&str> = self.datasets.iter().map(DatasetName::as_str).collect();
        let what = format!(
            "freeze PostgreSQL: its data are spread over the datasets {}, whose snapshots are not made at one moment",
            names.join(", ")
        );
        let hint = "write mode = \"backup\", or bring data directory, pg_wal and tablespaces onto one dataset";
        Err(Failure::new(Code::Refused, what).hint(hint).into())
    }
}

fn find(data: &Path, spaces: &BTreeMap<u32, PathBuf>, around: &Around) -> Result<Layout> {
    let mut datasets = BTreeMap::new();
    for (name, live) in &around.datasets {
        // One that is not there holds nothing.
        if let Ok(real) = live.canonicalize() {
            datasets.insert(name.clone(), real);
        }
    }
    let around = Around {
        surroundings: around.surroundings.clone(),
        copies: datasets.clone(),
        datasets,
    };
    let place = |path: &Path, what: &str| place(path, what, &around);
    let (data, at) = place(data, "data directory")?;
    let mut used = BTreeSet::from([at.dataset.clone()]);
    let mut wal = None;
    for part in PARTS {
        let (path, at) = place(&data.join(part), &format!("directory {part}"))?;
        used.insert(at.dataset.clone());
        if part == "pg_wal" {
            wal = Some((path, at));
        }
    }
    let (wal, log) = wal.context("find the log of PostgreSQL")?;
    let mut tablespaces = BTreeMap::new();
    for (id, path) in spaces {
        let (_, at) = place(path, "tablespace")?;
        used.insert(at.dataset.clone());
        tablespaces.insert(*id, at);
    }
    Ok(Layout {
        log: log.dataset.clone(),
        places: Places {
            data: at,
            wal: (wal != data.join("pg_wal")).then_some(log),
            tablespaces,
        },

        wal,
        datasets: used,
    })
}

/// The real path, and where it is in the role.
fn place(path: &Path, what: &str, around: &Around) -> Result<(PathBuf, Place)> {
    let shown = path.display();
    let looking = || format!("look at the {what} {shown} of PostgreSQL");
    let real = path.canonicalize().with_context(looking)?;
    let inside = around
        .dataset_of(&real)
        .and_then(|name| Some((name, around.datasets.get(name)?)));
    let Some((name, live)) = inside else {
        let what = format!("keep PostgreSQL: its {what} {shown} lies in no dataset of this role");
        let hint = "make a dataset of the subvolume that holds it, or write mode = \"dump\"";
        return Err(Failure::new(Code::Refused, what).hint(hint).into());
    };
    let device = |path: &Path| path.metadata().map(|facts| facts.dev());
    if device(&real).with_context(looking)? != device(live).with_context(looking)? {
        let what = format!(
            "keep PostgreSQL: its {what} {shown} lies below the dataset {name}, but on a subvolume or filesystem of its own, which snapshots leave out"
        );
        let hint = "make a dataset of it, and write mode = \"backup\"";
        return Err(Failure::new(Code::Refused, what).hint(hint).into());
    }
    let path = real.strip_prefix(live).with_context(looking)?.to_owned();
    let dataset = name.clone();
    Ok((real, Place { dataset, path }))
}
