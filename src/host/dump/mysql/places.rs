//! Whether the server's files lie in a dataset of the role, as one snapshot needs them.
//!
//! Promise: pages, logs and tables lie in one dataset, and in no subvolume or link that its snapshot would leave out; else an
//! error says which do not. The log of changes may lie in another dataset of the role, and where it lies in none a note says
//! so.
//!
//! It deliberately does not know what MySQL 8 keeps in its own dictionary: single tables with DATA DIRECTORY elsewhere.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::session::Session;
use crate::error::{Code, Failure};
use crate::host::dump::Around;
use crate::logic::dump::mysql::{Places, VARIABLES};
use crate::logic::name::DatasetName;

/// What was found.
pub struct Looked {
    pub dataset: DatasetName,
    pub datadir: PathBuf,
    /// innodb_flush_log_at_trx_commit is 0: commits are acknowledged before they are written.
    pub lazy: bool,
    /// A sentence for an admin, where something is allowed but worth knowing.
    pub note: Option<String>,
}

/// Asks the server where its files are, and looks there.
pub async fn look(session: &mut Session, around: &Around) -> Result<Looked> {
    let names: Vec<String> = VARIABLES.iter().map(|name| format!("'{name}'")).collect();
    let statement = format!(
        "SHOW GLOBAL VARIABLES WHERE Variable_name IN ({})",
        names.join(", ")
    );
    let rows = session.rows(&statement).await;
    let rows = rows.map_err(|error| session.explain("ask where the files are", &error))?;
    let variables: BTreeMap<String, String> = rows
        .into_iter()
        .filter_map(|row| {
            let mut row = row.into_iter();
            Some((row.next()??.to_ascii_lowercase(), row.next()??))
        })
        .collect();
    let places = Places::of(&variables)
        .with_context(|| format!("find out where {} keeps its data", session.place()))?;
    let lazy = variables
        .get("innodb_flush_log_at_trx_commit")
        .is_some_and(|value| value == "0");
    let around = around.clone();
    let looking = tokio::task::spawn_blocking(move || judge(&places, &around, lazy));
    looking.await.context("look at the server's files")?
}

fn judge(places: &Places, around: &Around, lazy: bool) -> Result<Looked> {
    let around = resolved(around);
    let datadir = real("datadir", &places.datadir)?;
    let Some(dataset) = around.dataset_of(&datadir).cloned() else {
        let what = format!(
            "freeze the server: its data directory {} lies in no dataset of the role",
            datadir.display()
        );
        let hint = "add the dataset that holds it to the role, or use mode = \"dump\"";
        return Err(Failure::new(Code::Refused, what).hint(hint).into());
    };
    for (variable, path) in &places.core {
        let path = real(variable, path)?;
        if around.dataset_of(&path) != Some(&dataset) {
            return Err(spread(variable, &path, &dataset));
        }
    }
    for (name, live) in &around.datasets {
        if live.starts_with(&datadir) && *name != dataset {
            return Err(spread(&format!("dataset {name}"), live, &dataset));
        }
    }
    inside(&datadir, &dataset, &around)?;
    let note = places.binlog.as_deref().and_then(|binlog| {
        let path = std::fs::canonicalize(binlog).unwrap_or_else(|_| binlog.to_owned());
        around.dataset_of(&path).is_none().then(|| {
            format!(
                "its binary log in {} lies in no dataset of the role, so replicas of this server cannot go on with a promoted copy",
                path.display()
            )
        })
    });
    Ok(Looked {
        dataset,
        datadir,
        lazy,
        note,
    })
}

/// The datasets by their paths without links.
fn resolved(around: &Around) -> Around {
    let mut around = around.clone();
    for live in around.datasets.values_mut() {
        if let Ok(path) = std::fs::canonicalize(&*live) {
            *live = path;
        }
    }
    around
}

fn real(variable: &str, path: &Path) -> Result<PathBuf> {
    std::fs::canonicalize(path).map_err(|error| {
        let what = format!("find the server's {variable} {}: {error}", path.display());
        let hint = "freeze needs a server whose files this node sees under the same paths: not one in a container or on another machine; use mode = \"dump\" there";
        Failure::new(Code::Refused, what).hint(hint).into()
    })
}

fn spread(what: &str, path: &Path, dataset: &DatasetName) -> anyhow::Error {
    let what = format!(
        "freeze the server: {what} ({}) is not in dataset {dataset} as its data directory is, and two snapshots of a running InnoDB do not belong together",
        path.display()
    );
    let hint = format!("move it into dataset {dataset}, or use mode = \"dump\"");
    Failure::new(Code::Refused, what).hint(hint).into()
}

/// Databases and tables that were moved away: by links, mounts, subvolumes, or DATA DIRECTORY.
fn inside(datadir: &Path, dataset: &DatasetName, around: &Around) -> Result<()> {
    let reading = || format!("look into the data directory {}", datadir.display());
    let device = std::fs::metadata(datadir).with_context(reading)?.dev();
    for entry in std::fs::read_dir(datadir).with_context(reading)? {
        let entry = entry.with_context(reading)?;
        let kind = entry.file_type().with_context(reading)?;
        let path = entry.path();
        if kind.is_symlink() {
            elsewhere(&path, dataset, around)?;
        } else if kind.is_dir() {
            // A dropped database may vanish meanwhile.
            let Ok(facts) = entry.metadata() else {
                continue;
            };
            if facts.dev() != device {
                return Err(spread("a database", &path, dataset));
            }
            tables(&path, dataset, around)?;
        }
    }
    Ok(())
}

fn tables(database: &Path, dataset: &DatasetName, around: &Around) -> Result<()> {
    let Ok(entries) = std::fs::read_dir(database) else {
        return Ok(());
    };
    for entry in entries.flatten() {
        let path = entry.path();
        if entry.file_type().is_ok_and(|kind| kind.is_symlink()) {
            elsewhere(&path, dataset, around)?;
        } else if path.extension().is_some_and(|end| end == "isl") {
            // MariaDB's note of a DATA DIRECTORY: the path of the file.
            let target = std::fs::read_to_string(&path).unwrap_or_default();
            let target = PathBuf::from(target.trim());
            if around.dataset_of(&target) != Some(dataset) {
                return Err(spread("a table", &target, dataset));
            }
        }
    }
    Ok(())
}

fn elsewhere(link: &Path, dataset: &DatasetName, around: &Around) -> Result<()> {
    // A link to nothing holds no data.
    let Ok(target) = std::fs::canonicalize(link) else {
        return Ok(());
    };
    match around.dataset_of(&target) == Some(dataset) {
        true => Ok(()),
        false => Err(spread(
            &format!("the link {}", link.display()),
            &target,
            dataset,
        )),
    }
}
