//! Dumps of kind `mysql`: MariaDB and MySQL.
//!
//! Promise: with `freeze`, writers wait on the locks of one connection, which is proved to have lived until the snapshots were
//! made; when it ends, for whatever reason, they go on. With `dump`, the file in the dataset is the old one or the whole new
//! one, and nobody waits.
//!
//! A crash ends the connection. A dump that was being written keeps its hidden name until the next one; a load that was cut
//! short is known by a schema in the server, and is begun anew by the next load.
//!
//! It deliberately does not know limits; but it asks the server to give up waiting for locks before the caller does, since
//! the server says what it waited for.

use std::time::Duration;

use anyhow::{Context, Result};

use super::{Around, Loaded, Loading};
use crate::error::{Code, Failure};
use crate::logic::dump::mysql::{self, Mode, Mysql, Version};
use crate::logic::dump::{Dump, Found};

mod check;
mod dumping;
mod freeze;
mod loading;
mod places;
mod session;
mod tool;

use session::Session;

/// One dump under way.
pub enum Open {
    Freeze(freeze::Freeze),
    Dump(dumping::Dumping),
}

impl Open {
    pub fn new(mysql: &Mysql, dump: &Dump, around: &Around) -> Open {
        match mysql.mode {
            Mode::Freeze => Open::Freeze(freeze::Freeze::new(mysql, dump.hold, around)),
            Mode::Dump => Open::Dump(dumping::Dumping::new(mysql, around)),
        }
    }

    pub fn holds(&self) -> bool {
        matches!(self, Open::Freeze(_))
    }

    pub async fn prepare(&mut self) -> Result<()> {
        match self {
            Open::Freeze(freeze) => freeze.prepare().await,
            Open::Dump(dumping) => dumping.prepare().await,
        }
    }

    pub async fn hold(&mut self) -> Result<()> {
        match self {
            Open::Freeze(freeze) => freeze.hold().await,
            Open::Dump(_) => Ok(()),
        }
    }

    pub async fn release(&mut self) -> Result<()> {
        match self {
            Open::Freeze(freeze) => freeze.release().await,
            Open::Dump(_) => Ok(()),
        }
    }

    pub async fn finish(&mut self) -> Result<Found> {
        match self {
            Open::Freeze(freeze) => Ok(freeze.finish().await),
            Open::Dump(dumping) => Ok(dumping.finish()),
        }
    }
}

pub async fn load(mysql: &Mysql, around: &Around, how: Loading<'_>) -> Result<Loaded> {
    match mysql.mode {
        Mode::Freeze => Ok(Loaded::Nothing),
        Mode::Dump => loading::load(mysql, around, how).await,
    }
}

pub async fn check(mysql: &Mysql, around: &Around) -> Result<String> {
    check::check(mysql, around).await
}

/// Which server answers.
async fn version(session: &mut Session) -> Result<Version> {
    let said: Option<String> = session
        .one("ask for the server's version", "SELECT VERSION()")
        .await?;
    let said = said.unwrap_or_default();
    Version::parse(&said).with_context(|| format!("understand the server's version {said:?}"))
}

/// Fails where a statement of this privilege would be refused, or worse: quietly leave something out.
async fn need(session: &mut Session, privileges: &[&str]) -> Result<()> {
    let grants = session
        .list("ask for the account's privileges", "SHOW GRANTS")
        .await?;
    let missing: Vec<&str> = privileges
        .iter()
        .copied()
        .filter(|privilege| !mysql::allowed(&grants, privilege))
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    let missing = missing.join(", ");
    let account: Option<String> = session
        .one("ask for the account's name", "SELECT CURRENT_USER()")
        .await?;
    let account = account.unwrap_or_default();
    let what = format!(
        "dump {}: its account {account} lacks {missing}",
        session.place()
    );
    let hint = format!("GRANT {missing} ON *.* TO {};", as_account(&account));
    Err(Failure::new(Code::Refused, what).hint(hint).into())
}

/// `name@host` as a statement wants it. A name may hold an @, a host does not.
fn as_account(account: &str) -> String {
    let word = |word: &str| format!("'{}'", word.replace('\'', "''"));
    match account.rsplit_once('@') {
        Some((name, host)) => format!("{}@{}", word(name), word(host)),
        None => word(account),
    }
}

/// Longest that a server may take to answer a connection.
const CONNECT_MAX: Duration = Duration::from_secs(5);
