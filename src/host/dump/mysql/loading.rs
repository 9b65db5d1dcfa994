//! A dump read into a server.
//!
//! Promise: what the server holds is touched only when it was asked for. A load that was cut short is known by a schema of
//! ours in the server, which lists what was being loaded; the next load drops that and begins anew.
//!
//! A crash ends the program by its pipe, in the middle of the dump; the schema stays. It deliberately does not know accounts:
//! they are not in a dump.

use std::collections::BTreeSet;
use std::fs::File;
use std::path::Path;
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
use crate::logic::dump::mysql_file::Head;

/// The schema that is there while a load is unfinished.
pub const MARKER: &str = "standin_unfinished_load";

/// How long a server may take to answer after its start, and how often it is asked.
const START_MAX: Duration = Duration::from_secs(20);
const ASK_EVERY: Duration = Duration::from_millis(100);

/// How long an earlier load's end is waited for, in seconds.
const ALONE_S: u64 = 3;

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
    let room = make_room(&mut session, &head.databases, how.replace).await;
    let loaded = match room {
        Ok(Room::Taken(why)) => Ok(Loaded::NotEmpty(why)),
        Ok(Room::Free { again }) => {
            let fed = feed(&mut session, server, &program, file).await;
            fed.map(|()| Loaded::Done(done(&head, &session, again)))
                .with_context(|| {
                    format!(
                        "load {} (the next load drops what is there of it, and begins anew)",
                        path.display()
                    )
                })
        }
        Err(error) => Err(error),
    };
    session.close().await;
    loaded
}

fn done(head: &Head, session: &Session, again: bool) -> String {
    let names = match head.databases.as_slice() {
        [] => "no database".to_owned(),
        names => names.join(", "),
    };
    let again = if again {
        ", anew after one that was cut short"
    } else {
        ""
    };
    format!(
        "loaded {names} (from {}) into {}{again}",
        head.server,
        session.place()
    )
}

/// Whether a dump can be loaded.
enum Room {
    /// Its databases are gone, and noted; `again`: ruins of an earlier load were among them.
    Free { again: bool },
    /// A sentence that says by what.
    Taken(String),
}

async fn make_room(session: &mut Session, names: &[String], replace: bool) -> Result<Room> {
    alone(session).await?;
    let unfinished = unfinished(session).await?;
    let full = full(session, names).await?;
    let kept: Vec<&str> = full.difference(&unfinished).map(String::as_str).collect();
    if !kept.is_empty() && !replace {
        return Ok(Room::Taken(format!(
            "{} holds tables in {} already",
            session.place(),
            kept.join(", ")
        )));
    }
    mark(session, names).await?;
    let dropped: BTreeSet<&String> = unfinished.iter().chain(&full).collect();
    drop_databases(session, &dropped).await?;
    Ok(Room::Free {
        again: !unfinished.is_empty(),
    })
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

/// Fails where another load into this server is under way. The lock ends with its connection, which the server may notice a
/// moment later than everybody else.
async fn alone(session: &mut Session) -> Result<()> {
    let asking = "be the only load";
    let lock = format!("SELECT GET_LOCK('standin_load', {ALONE_S})");
    let got: Option<i64> = session.one(asking, &lock).await?;
    if got == Some(1) {
        return Ok(());
    }
    let place = session.place();
    let what = format!("load into {place}: another load is under way there");
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
async fn feed(
    session: &mut Session,
    server: &Server,
    program: &Path,
    mut file: File,
) -> Result<()> {
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
    let statement = format!("DROP DATABASE {}", quoted(MARKER));
    session.tell("note the end of the load", &statement).await
}
