//! Dumps of kind `postgres`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use anyhow::{Result, bail};

use super::{Around, Loaded, Loading};
use crate::logic::dump::postgres::Postgres;
use crate::logic::dump::{DumpFacts, Found};
use crate::logic::name::DatasetName;

/// One dump under way.
pub struct Open {}

impl Open {
    pub fn new(_: &Postgres, _: &Around) -> Open {
        Open {}
    }

    pub fn late(&self) -> BTreeSet<DatasetName> {
        BTreeSet::new()
    }

    pub async fn prepare(&mut self) -> Result<()> {
        bail!("dump it with this program yet")
    }

    pub async fn hold(&mut self) -> Result<()> {
        Ok(())
    }

    pub async fn release(&mut self) -> Result<()> {
        Ok(())
    }

    pub async fn finish(&mut self) -> Result<Found> {
        Ok(Found::default())
    }
}

pub async fn load(_: &Postgres, _: &Around, _: Loading<'_>) -> Result<Loaded> {
    bail!("load it with this program yet")
}

pub async fn check(_: &Postgres, _: &Around) -> Result<String> {
    bail!("check it with this program yet")
}

/// Puts the label and the map of tablespaces into the data directory.
pub async fn place(
    _: &Postgres,
    _: &DumpFacts,
    _: &BTreeMap<DatasetName, PathBuf>,
) -> Result<Vec<String>> {
    bail!("place it with this program yet")
}
