//! Dumps of kind `sqlite`.

use anyhow::{Result, bail};

use super::{Around, Loaded, Loading};
use crate::logic::dump::Found;
use crate::logic::dump::sqlite::Sqlite;

/// One dump under way.
pub struct Open {}

impl Open {
    pub fn new(_: &Sqlite, _: &Around) -> Open {
        Open {}
    }

    pub fn holds(&self) -> bool {
        false
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

pub async fn load(_: &Sqlite, _: &Around, _: Loading<'_>) -> Result<Loaded> {
    bail!("load it with this program yet")
}

pub async fn check(_: &Sqlite, _: &Around) -> Result<String> {
    bail!("check it with this program yet")
}
