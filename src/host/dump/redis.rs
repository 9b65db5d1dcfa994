//! Dumps of kind `redis`.

use anyhow::{Result, bail};

use super::Around;
use crate::logic::dump::Found;
use crate::logic::dump::redis::Redis;

/// One dump under way.
pub struct Open {}

impl Open {
    pub fn new(_: &Redis, _: &Around) -> Open {
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

pub async fn check(_: &Redis, _: &Around) -> Result<String> {
    bail!("check it with this program yet")
}
