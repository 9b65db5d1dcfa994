//! What `standin check` says of a dump of kind `mysql`.
//!
//! Promise: nothing is changed and nobody waits. It deliberately does not try the lock or the dump: points do.

use anyhow::Result;

use super::dumping::{self, Target};
use super::session::Session;
use super::{need, places, tool, version};
use crate::host::dump::Around;
use crate::logic::dump::mysql::{Mode, Mysql, OWN_DATABASES};

pub async fn check(mysql: &Mysql, around: &Around) -> Result<String> {
    let mut session = Session::open(&mysql.server).await?;
    let version = version(&mut session).await?;
    let name = version.name();
    let said = match mysql.mode {
        Mode::Freeze => {
            need(&mut session, &["RELOAD"]).await?;
            let found = places::look(&mut session, around).await?;
            let mut note = found.note.map_or(String::new(), |note| format!("; {note}"));
            if found.lazy {
                note.push_str("; with innodb_flush_log_at_trx_commit = 0 writers wait about a second for every point");
            }
            format!(
                "{name} answers; its data in {} (dataset {}) is held by {}{note}",
                found.datadir.display(),
                found.dataset,
                version.lock().name()
            )
        }
        Mode::Dump => {
            let target = Target::of(mysql, around)?;
            let program = tool::find(&dumping::PROGRAMS)?;
            need(&mut session, &dumping::PRIVILEGES).await?;
            let databases = dumping::databases(&mut session, &mysql.databases).await?;
            let loose = loose(&mut session, &databases).await?;
            let note = match loose.as_slice() {
                [] => String::new(),
                [one] => format!("; {one} has no transactions and may change while it is dumped"),
                [first, ..] => format!(
                    "; {} tables without transactions ({first} is one) may change while they are dumped",
                    loose.len()
                ),
            };
            format!(
                "{name} answers; {} to {} by {}; accounts are not in it{note}",
                match databases.len() {
                    1 => "1 database is dumped".to_owned(),
                    count => format!("{count} databases are dumped"),
                },
                target.path.display(),
                program.display()
            )
        }
    };
    session.close().await;
    Ok(said)
}

/// Tables of engines that one transaction does not cover.
async fn loose(session: &mut Session, databases: &[String]) -> Result<Vec<String>> {
    let own: Vec<String> = OWN_DATABASES
        .iter()
        .map(|name| format!("'{name}'"))
        .collect();
    let statement = format!(
        "SELECT CONCAT(table_schema, '.', table_name) FROM information_schema.tables WHERE table_type = 'BASE TABLE' AND engine IN ('MyISAM', 'Aria', 'MEMORY', 'CSV', 'ARCHIVE', 'MRG_MyISAM') AND table_schema NOT IN ({}) ORDER BY 1",
        own.join(", ")
    );
    let tables = session
        .list("look for tables without transactions", &statement)
        .await?;
    let dumped = |table: &String| {
        let mut names = databases.iter();
        names.any(|name| {
            table
                .strip_prefix(name.as_str())
                .is_some_and(|rest| rest.starts_with('.'))
        })
    };
    Ok(tables.into_iter().filter(dumped).collect())
}
