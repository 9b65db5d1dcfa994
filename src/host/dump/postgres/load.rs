//! Reads a dump into a server.
//!
//! Promise: a database appears under its name whole or not at all. It is loaded under a temporary name, marked as unfinished by
//! a setting of its own, and renamed at the end; what a crash left is known by name and mark, and removed by the next load.
//! Without `replace` nothing is touched where one of the databases holds anything.
//!
//! What belongs to no database comes first: users get the passwords of the dump. What exists already is no error.

use std::path::Path;

use anyhow::{Context, Result};

use super::files::{self, Contents, Database, GLOBALS};
use super::session::{Session, Target};
use super::tool;
use crate::host::dump::{Around, Loaded, Loading};
use crate::logic::dump::postgres::{Postgres, file_name, literal, quoted};

/// How the names of databases that are being loaded begin.
pub const TEMPORARY: &str = "standin_load_";

/// The mark of a database that is not finished.
const MARK: &str = "standin.loading";

/// Where we are connected: it is never dumped.
const MAINTENANCE: &str = "template1";

/// Version that drops a database together with its sessions.
const VERSION_FORCE: u32 = 130_000;

/// What exists already: users, tablespaces (duplicate_object), databases (duplicate_database).
const HARMLESS: [&str; 2] = ["42710", "42P04"];

/// One load under way.
struct Load<'a> {
    how: &'a Postgres,
    target: &'a Target,
    session: &'a Session,
    dir: &'a Path,
}

pub async fn load(how: &Postgres, around: &Around, loading: Loading<'_>) -> Result<Loaded> {
    let target = Target::new(how, loading.server);
    let (how_too, around) = (how.clone(), around.clone());
    let user = target.system;
    let (dir, contents) = tokio::task::spawn_blocking(move || {
        let to = around.here(files::wanted(&how_too)?);
        let dir = files::directory(&to, &around.copies)?;
        let contents = files::open(&dir, user)?;
        Ok::<_, anyhow::Error>((dir, contents))
    })
    .await??;
    let session = &Session::when_started(&target, MAINTENANCE).await?;
    let load = Load {
        how,
        target: &target,
        session,
        dir: &dir,
    };
    load.clean().await?;
    let full = load.full(&contents).await?;
    if !full.is_empty() && !loading.replace {
        let at = format!("{} at {}", session.server, target.address);
        return Ok(Loaded::NotEmpty(format!(
            "{at} holds data already in {}",
            full.join(", ")
        )));
    }
    load.globals().await?;
    for database in &contents.databases {
        let loaded = load.database(database).await;
        loaded.with_context(|| format!("load database {}", database.name))?;
    }
    let names: Vec<&str> = contents
        .databases
        .iter()
        .map(|one| one.name.as_str())
        .collect();
    let from = dir.display();
    Ok(Loaded::Done(format!(
        "{} loaded from {from}, a dump of {}, into {}",
        names.join(", "),
        contents.server,
        session.server
    )))
}

impl Load<'_> {
    /// Removes what an interrupted load left.
    async fn clean(&self) -> Result<()> {
        let mark = literal(&format!("{MARK}=yes"));
        let sql = format!(
            "SELECT datname FROM pg_database d WHERE starts_with(datname, {}) OR EXISTS \
             (SELECT FROM pg_db_role_setting s WHERE s.setdatabase = d.oid AND {mark} = ANY (s.setconfig))",
            literal(TEMPORARY)
        );
        let doing = "remove what an interrupted load left";
        for row in self.session.rows(&sql, doing).await? {
            self.drop_database(&row[0], doing).await?;
        }
        Ok(())
    }

    async fn drop_database(&self, name: &str, doing: &str) -> Result<()> {
        let name_sql = quoted(name);
        let doing = format!("{doing}: drop database {name}");
        if self.session.version >= VERSION_FORCE {
            let sql = format!("DROP DATABASE IF EXISTS {name_sql} WITH (FORCE)");
            return self.session.run(&sql, &doing).await;
        }
        let sql = format!(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = {}",
            literal(name)
        );
        self.session.rows(&sql, &doing).await?;
        let sql = format!("DROP DATABASE IF EXISTS {name_sql}");
        self.session.run(&sql, &doing).await
    }

    /// Databases of the dump that hold something here.
    async fn full(&self, contents: &Contents) -> Result<Vec<String>> {
        let looking = "look at what PostgreSQL holds";
        let here = self
            .session
            .rows("SELECT datname FROM pg_database", looking)
            .await?;
        let mut full = Vec::new();
        for database in &contents.databases {
            if !here.iter().any(|row| row[0] == database.name) {
                continue;
            }
            let inside = Session::to(self.target, &database.name).await?;
            let sql = "SELECT EXISTS (SELECT FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
                WHERE c.relkind IN ('r', 'p', 'm', 'v', 'S', 'f') AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema' \
                AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.objid = c.oid AND d.deptype = 'e'))";
            if inside.word(sql, looking).await? == "t" {
                full.push(database.name.clone());
            }
        }
        Ok(full)
    }

    async fn globals(&self) -> Result<()> {
        let file = self.dir.join(GLOBALS);
        let script = tokio::task::spawn_blocking(move || files::read_globals(&file)).await??;
        let ran = self.script(&script).await;
        ran.context("create the users of the dump")
    }

    /// Runs a script of the server's own tools. What exists already is no error.
    async fn script(&self, script: &[u8]) -> Result<()> {
        let psql = tool::find("psql", self.session.version)?;
        let args = [
            "--no-psqlrc",
            "--quiet",
            "--no-password",
            "--set=VERBOSITY=sqlstate",
        ];
        let mut args = args.map(str::to_owned).to_vec();
        args.push("--file=-".to_owned());
        args.push(tool::database(MAINTENANCE));
        let settings = self.session.looks();
        let said = tool::run(&psql, &args, self.target, settings, Some(script)).await?;
        match first_error(&said.complaints) {
            Some(error) => anyhow::bail!("run a script of PostgreSQL: {error}"),
            None => Ok(()),
        }
    }

    async fn database(&self, database: &Database) -> Result<()> {
        let number = crate::host::random::number()?;
        let temporary = format!("{TEMPORARY}{number:016x}");
        let doing = "create it";
        self.session
            .run(&create(&temporary, database), doing)
            .await?;
        let quoted_temporary = quoted(&temporary);
        let mark = format!("ALTER DATABASE {quoted_temporary} SET {MARK} = 'yes'");
        self.session.run(&mark, doing).await?;
        let dir = self.dir.join(file_name(&database.name));
        let dir = dir.to_string_lossy().into_owned();
        let restore = tool::find("pg_restore", self.session.version)?;
        let settings = self.session.looks();
        let args = [
            format!("--jobs={}", self.how.jobs),
            "--exit-on-error".to_owned(),
            "--no-tablespaces".to_owned(),
            "--no-password".to_owned(),
            tool::database(&temporary),
            dir.clone(),
        ];
        tool::run(&restore, &args, self.target, settings, None).await?;
        self.drop_database(&database.name, "make room").await?;
        let name = quoted(&database.name);
        let rename = format!("ALTER DATABASE {quoted_temporary} RENAME TO {name}");
        self.session.run(&rename, "give it its name").await?;
        let own = self.properties(dir, &restore).await;
        own.context("set its owner, rights and settings")?;
        let unmark = format!("ALTER DATABASE {name} RESET {MARK}");
        self.session.run(&unmark, "mark it as finished").await
    }

    /// Owner, rights and settings of a database, which the dump tells by its name.
    async fn properties(&self, dir: String, restore: &Path) -> Result<()> {
        // Without --create it leaves them out.
        let args = ["--create".to_owned(), "--list".to_owned(), dir.clone()];
        let list = tool::run(restore, &args, self.target, "", None).await?;
        let list = of_the_database(&String::from_utf8_lossy(&list.answer));
        let args = [
            "--create".to_owned(),
            "--no-tablespaces".to_owned(),
            "--use-list=/dev/stdin".to_owned(),
            "--file=-".to_owned(),
            dir,
        ];
        let script = tool::run(restore, &args, self.target, "", Some(list.as_bytes())).await?;
        self.script(&script.answer).await
    }
}

fn create(temporary: &str, database: &Database) -> String {
    let mut sql = format!(
        "CREATE DATABASE {} TEMPLATE template0 ENCODING {} LC_COLLATE {} LC_CTYPE {}",
        quoted(temporary),
        literal(&database.encoding),
        literal(&database.collate),
        literal(&database.ctype),
    );
    match database.provider.as_str() {
        "i" => {
            let locale = literal(&database.locale);
            sql += &format!(" LOCALE_PROVIDER icu ICU_LOCALE {locale}");
        }
        "b" => {
            let locale = literal(&database.locale);
            sql += &format!(" LOCALE_PROVIDER builtin BUILTIN_LOCALE {locale}");
        }
        "c" => sql += " LOCALE_PROVIDER libc",
        _ => {}
    }
    sql
}

/// The lines of a table of contents that are about the database itself ("4; 1262 16384 DATABASE - shop postgres").
fn of_the_database(list: &str) -> String {
    let about = |line: &&str| {
        let Some(what) = line.split_once("; ").map(|(_, rest)| rest) else {
            return false;
        };
        let what = what.splitn(3, ' ').nth(2).unwrap_or_default();
        what.starts_with("DATABASE ")
            || ["ACL", "COMMENT", "SECURITY LABEL"].iter().any(|kind| {
                what.strip_prefix(kind)
                    .is_some_and(|rest| rest.starts_with(" - DATABASE "))
            })
    };
    let lines: Vec<&str> = list
        .lines()
        .filter(|line| !line.starts_with(';'))
        .filter(about)
        .collect();
    lines.join("\n") + "\n"
}

/// The first complaint of psql that is an error ("psql:<stdin>:14: ERROR:  42710").
fn first_error(complaints: &str) -> Option<&str> {
    complaints.lines().find(|line| {
        let error = line
            .split_once("ERROR:")
            .or_else(|| line.split_once("FATAL:"));
        error.is_some_and(|(_, state)| !HARMLESS.contains(&state.trim()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_about_the_database() {
        let list = "\
;
; Archive created at 2026-01-01
;     dbname: DATABASE - x
3350; 1262 16388 DATABASE - shop owner
3351; 0 0 DATABASE PROPERTIES - shop owner
3352; 0 0 ACL - DATABASE shop owner
3353; 0 0 COMMENT - DATABASE shop owner
214; 1259 16389 TABLE public DATABASE owner
3354; 0 0 ACL public TABLE t owner
";
        let found = of_the_database(list);
        let numbers: Vec<&str> = found.lines().map(|line| &line[..4]).collect();
        assert_eq!(numbers, ["3350", "3351", "3352", "3353"]);
        assert_eq!(of_the_database(";\n"), "\n");
    }

    #[test]
    fn what_psql_complains_of() {
        let check = |text, error| assert_eq!(first_error(text), error);
        check("", None);
        check("psql:<stdin>:14: ERROR:  42710\nNOTICE:  x", None);
        check("psql:<stdin>:5: error: invalid command \\restrict", None);
        check(
            "psql:<stdin>:14: ERROR:  42710\npsql:<stdin>:15: ERROR:  42601",
            Some("psql:<stdin>:15: ERROR:  42601"),
        );
    }
}
