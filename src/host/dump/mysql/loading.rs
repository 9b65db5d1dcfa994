//! A dump read into a server.
//!
//! Promise: what the server holds is touched only when it was asked for. A load that was cut short is known by a schema of
//! ours in the server, which lists what was being loaded; the next load drops that and begins anew.
//!
//! A crash ends the program by its pipe, in the middle of the dump; the schema stays. It deliberately does not know accounts:
//! they are not in a dump.

use std::collections::BTreeSet;
use std::fs::File;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::pipe::{PipeFlags, pipe_with};

use super::dumping;
use super::session::Session;
use super::tool::{self, Login, Running};
use crate::error::{Code, Failure};
use crate::host::dump::{Around, Loaded, Loading};
use crate::logic::dump::Server;
use crate::logic::dump::mysql::{Mysql, quoted};

/// The schema that is there while a load is unfinished.
pub const MARKER: &str = "standin_unfinished_load";

/// How long a server may take to answer after its start, and how often it is asked.
const START_MAX: Duration = Duration::from_secs(20);
const ASK_EVERY: Duration = Duration::from_millis(100);

/// The program, by its names.
const PROGRAMS: [&str; 2] = ["mariadb", "mysql"];

pub async fn load(mysql: &Mysql, around: &Around, how: Loading<'_>) -> Result<Loaded> {
    let path = mysql
        .to
        .as_deref()
        .context("load a dump: no `to` is known")?;
    let path = around.here(path);
    let (file, head) = dumping::open(&path)?;
    let program = tool::find(&PROGRAMS)?;
    let server = how.server.unwrap_or(&mysql.server);
    let mut session = reach(server).await?;
    alone(&mut session).await?;
    let unfinished = unfinished(&mut session).await?;
    let full = full(&mut session, &head.databases).await?;
    let kept: Vec<&String> = full
        .iter()
        .filter(|name| !unfinished.contains(*name))
        .collect();
    if !kept.is_empty() && !how.replace {
        let kept: Vec<&str> = kept.into_iter().map(String::as_str).collect();
        return Ok(Loaded::NotEmpty(format!(
            "{} holds tables in {} already",
            session.place(),
            kept.join(", ")
        )));
    }
    mark(&mut session, &head.databases).await?;
    let dropped: BTreeSet<&String> = unfinished.iter().chain(&full).collect();
    drop_databases(&mut session, &dropped).await?;
    feed(server, &program, file).await.with_context(|| {
        format!(
            "load {} (what was loaded so far is dropped by the next load)",
            path.display()
        )
    })?;
    let statement = format!("DROP DATABASE {}", quoted(MARKER));
    session.tell("note the end of the load", &statement).await?;
    let place = session.place();
    session.close().await;
    let again = if unfinished.is_empty() {
        ""
    } else {
        ", anew after one that was cut short"
    };
    let names = match head.databases.as_slice() {
        [] => "no database".to_owned(),
        names => names.join(", "),
    };
    Ok(Loaded::Done(format!(
        "loaded {names} (from {}) into {place}{again}",
        head.server
    )))
}

/// A server that was started a moment ago answers soon.
async fn reach(server: &Server) -> Result<Session> {
    let end = Instant::now() + START_MAX;
    loop {
        match Session::open(server).await {
            Err(error) if Failure::code_of(&error) == Code::Unreachable && Instant::now() < end => {
                tokio::time::sleep(ASK_EVERY).await;
            }
            done => return done,
        }
    }
}

/// Fails where another load into this server is under way; the lock ends with the connection.
async fn alone(session: &mut Session) -> Result<()> {
    let asking = "be the only load";
    let got: Option<i64> = session
        .one(asking, "SELECT GET_LOCK('standin_load', 0)")
        .await?;
    if got == Some(1) {
        return Ok(());
    }
    let what = format!(
        "load into {}: another load is under way there",
        session.place()
    );
    let hint = "wait for its end";
    Err(Failure::new(Code::Locked, what).hint(hint).into())
}

/// What an earlier load that was cut short was loading.
async fn unfinished(session: &mut Session) -> Result<BTreeSet<String>> {
    let asking = "look for an unfinished load";
    let table = format!(
        "SELECT table_name FROM information_schema.tables WHERE table_schema = '{MARKER}' AND table_name = 'databases'"
    );
    if session.list(asking, &table).await?.is_empty() {
        return Ok(BTreeSet::new());
    }
    let names = format!("SELECT name FROM {}.`databases`", quoted(MARKER));
    Ok(session.list(asking, &names).await?.into_iter().collect())
}

/// Those of the databases that the server has, with something in them.
async fn full(session: &mut Session, names: &[String]) -> Result<BTreeSet<String>> {
    let statement = "SELECT table_schema FROM information_schema.tables UNION SELECT routine_schema FROM information_schema.routines";
    let there = session.list("see what the server holds", statement).await?;
    let there: BTreeSet<String> = there.into_iter().collect();
    Ok(names
        .iter()
        .filter(|name| there.contains(*name))
        .cloned()
        .collect())
}

/// Notes what is about to be loaded, before anything is.
async fn mark(session: &mut Session, names: &[String]) -> Result<()> {
    let noting = "note the load";
    let marker = quoted(MARKER);
    let statements = [
        format!("CREATE DATABASE IF NOT EXISTS {marker} CHARACTER SET utf8mb4"),
        format!(
            "CREATE TABLE IF NOT EXISTS {marker}.`databases` (name VARCHAR(64) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin PRIMARY KEY) ENGINE = InnoDB"
        ),
    ];
    for statement in &statements {
        session.tell(noting, statement).await?;
    }
    if !names.is_empty() {
        // Hexadecimal: no mode of the server changes what it means.
        let hex = |name: &String| {
            let digits: String = name.bytes().map(|byte| format!("{byte:02x}")).collect();
            format!("(CONVERT(0x{digits} USING utf8mb4))")
        };
        let rows: Vec<String> = names.iter().map(hex).collect();
        let statement = format!(
            "REPLACE INTO {marker}.`databases` VALUES {}",
            rows.join(", ")
        );
        session.tell(noting, &statement).await?;
    }
    Ok(())
}

async fn drop_databases(session: &mut Session, names: &BTreeSet<&String>) -> Result<()> {
    let dropping = "make room for the load";
    session
        .tell(dropping, "SET SESSION foreign_key_checks = 0")
        .await?;
    for name in names {
        let statement = format!("DROP DATABASE IF EXISTS {}", quoted(name));
        session.tell(dropping, &statement).await?;
    }
    Ok(())
}

/// Feeds the file to the program. Through this process: when it ends, the program reads an end and stops.
async fn feed(server: &Server, program: &std::path::PathBuf, mut file: File) -> Result<()> {
    let login = Login::new(server)?;
    let (from, to) = pipe_with(PipeFlags::CLOEXEC).context("make a pipe")?;
    let arguments = [
        "--batch".to_owned(),
        "--default-character-set=utf8mb4".to_owned(),
    ];
    let output = Stdio::null();
    let mut running = Running::start(program, &login, &arguments, Stdio::from(from), output)?;
    let copying =
        tokio::task::spawn_blocking(move || std::io::copy(&mut file, &mut File::from(to)));
    let (ended, copied) = tokio::join!(running.end(), copying);
    // What the program said tells more than that its pipe broke.
    ended?;
    copied.context("read the dump")?.context("read the dump")?;
    Ok(())
}
