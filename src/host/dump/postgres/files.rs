//! A dump as files: a directory for each database, as pg_dump writes it with several processes, the users and the other things
//! that belong to no database, and a list of it all.
//!
//! ```text
//! TO/standin.json     the list: databases, and how to create them
//! TO/globals.sql      users, their memberships and settings (pg_dumpall --globals-only)
//! TO/DATABASE/        pg_dump --format=directory
//! ```
//!
//! Promise: the directory is whole or the older one. It is written beside, in `.NAME.standin-new`, synced, and exchanged with
//! what was there. A crash leaves that, which the next dump removes; a pg_dump that outlived the daemon writes into a directory
//! of its own there, which is gone then.

use std::collections::BTreeMap;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use rustix::fs::{CWD, Mode, OFlags, RenameFlags};
use serde::{Deserialize, Serialize};

use super::session::{Session, Target};
use super::tool;
use crate::error::{Code, Failure};
use crate::host::dump::Around;
use crate::host::user::User;
use crate::logic::dump::postgres::{Postgres, file_name};
use crate::logic::name::DatasetName;

/// The list.
const LIST: &str = "standin.json";

/// What belongs to no database.
pub const GLOBALS: &str = "globals.sql";

/// Version of the list.
const FORMAT: u32 = 1;

/// Most of the list, and of what belongs to no database, that is read, in bytes.
const LIST_BYTES_MAX: u64 = 16 << 20;

/// Longest that pg_dump waits for the lock of a table.
const LOCK_WAIT: &str = "30s";

/// Version whose databases have a provider of their locale; and in which its column got another name.
const VERSION_PROVIDER: u32 = 150_000;
const VERSION_LOCALE: u32 = 170_000;

/// What a dump holds.
#[derive(Debug, Serialize, Deserialize)]
pub struct Contents {
    format: u32,
    pub server: String,
    pub databases: Vec<Database>,
}

/// A database, and what has to be said when it is created.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Database {
    pub name: String,
    pub encoding: String,
    pub collate: String,
    pub ctype: String,
    /// pg_database.datlocprovider; empty where the server has only one.
    #[serde(default)]
    pub provider: String,
    /// Of another provider than the C library.
    #[serde(default)]
    pub locale: String,
}

/// Where the dump lies: a name in a real directory inside of one of the datasets.
pub fn directory(to: &Path, datasets: &BTreeMap<DatasetName, PathBuf>) -> Result<PathBuf> {
    let shown = to.display();
    let (parent, name) = to
        .parent()
        .zip(to.file_name())
        .with_context(|| format!("use {shown} for a dump"))?;
    let real = parent.canonicalize().map_err(|error| {
        let what = format!("find the directory of the dump {shown}: {error}");
        let hint = format!("make {}, in a dataset of the role", parent.display());
        Failure::new(Code::NotFound, what).hint(hint)
    })?;
    let device = |path: &Path| path.metadata().map(|facts| facts.dev()).ok();
    for live in datasets.values() {
        let Ok(live) = live.canonicalize() else {
            continue;
        };
        if real.starts_with(&live) && device(&real) == device(&live) {
            return Ok(real.join(name));
        }
    }
    let what = format!("use {shown} for a dump: it lies in no dataset of this role");
    let hint = "let `to` name a directory inside of a dataset, or make a dataset of the subvolume it is on";
    Err(Failure::new(Code::Refused, what).hint(hint).into())
}

/// The directory that the config names; mode `dump` has one.
pub fn wanted(how: &Postgres) -> Result<&Path> {
    how.to.as_deref().context("find where to dump to")
}

fn staging(to: &Path) -> PathBuf {
    let name = to.file_name().unwrap_or_default().to_string_lossy();
    to.with_file_name(format!(".{name}.standin-new"))
}

/// Removes what a dump that was cut short left.
pub async fn remove_leftovers(how: &Postgres) -> Result<()> {
    let Some(to) = how.to.clone() else {
        return Ok(());
    };
    tokio::task::spawn_blocking(move || remove(&staging(&to))).await?
}

fn remove(dir: &Path) -> Result<()> {
    match std::fs::remove_dir_all(dir) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("remove {}", dir.display()))
        }
        _ => Ok(()),
    }
}

/// Dumps the databases. Bytes of what lies there then.
pub async fn dump(
    how: &Postgres,
    target: &Target,
    session: &Session,
    around: &Around,
) -> Result<u64> {
    let databases = databases(how, session).await?;
    let (how_too, around) = (how.clone(), around.clone());
    let user = target.system;
    let (to, new) = tokio::task::spawn_blocking(move || {
        let to = directory(wanted(&how_too)?, &around.datasets)?;
        let new = begin(&to, user)?;
        Ok::<_, anyhow::Error>((to, new))
    })
    .await??;
    let settings = session.looks();
    let text = |path: PathBuf| path.to_string_lossy().into_owned();
    let program = tool::find("pg_dumpall", session.version)?;
    let args = [
        "--globals-only".to_owned(),
        "--no-tablespaces".to_owned(),
        "--no-password".to_owned(),
        format!("--lock-wait-timeout={LOCK_WAIT}"),
        format!("--file={}", text(new.join(GLOBALS))),
    ];
    tool::run(&program, &args, target, settings, None).await?;
    let program = tool::find("pg_dump", session.version)?;
    for database in &databases {
        let args = [
            "--format=directory".to_owned(),
            // Links compress too, and better: only what costs next to nothing.
            "--compress=1".to_owned(),
            format!("--jobs={}", how.jobs),
            "--no-password".to_owned(),
            format!("--lock-wait-timeout={LOCK_WAIT}"),
            format!("--file={}", text(new.join(file_name(&database.name)))),
            tool::database(&database.name),
        ];
        let dumped = tool::run(&program, &args, target, settings, None).await;
        dumped.with_context(|| format!("dump database {}", database.name))?;
    }
    let contents = Contents {
        format: FORMAT,
        server: session.server.clone(),
        databases,
    };
    tokio::task::spawn_blocking(move || end(&to, &new, &contents)).await?
}

/// What is dumped, in the order of names.
async fn databases(how: &Postgres, session: &Session) -> Result<Vec<Database>> {
    let provider = match session.version {
        VERSION_LOCALE.. => "datlocprovider, datlocale",
        VERSION_PROVIDER.. => "datlocprovider, daticulocale",
        _ => "'', ''",
    };
    let sql = format!(
        "SELECT datname, pg_encoding_to_char(encoding), datcollate, datctype, {provider} \
         FROM pg_database WHERE datallowconn AND NOT datistemplate ORDER BY datname"
    );
    let rows = session
        .rows(&sql, "list the databases of PostgreSQL")
        .await?;
    let mut found = Vec::new();
    for row in rows {
        let [name, encoding, collate, ctype, provider, locale] = <[String; 6]>::try_from(row)
            .map_err(|_| anyhow::anyhow!("list the databases of PostgreSQL"))?;
        found.push(Database {
            name,
            encoding,
            collate,
            ctype,
            provider,
            locale,
        });
    }
    if how.databases.is_empty() {
        // What an interrupted load left is nobody's.
        found.retain(|database| !database.name.starts_with(super::load::TEMPORARY));
        return Ok(found);
    }
    for name in &how.databases {
        if !found.iter().any(|database| database.name == *name) {
            let all: Vec<&str> = found.iter().map(|one| one.name.as_str()).collect();
            let what = format!(
                "dump database {name}: PostgreSQL has none of that name that can be dumped"
            );
            let hint = format!("mend `databases` of the dump; there are {}", all.join(", "));
            return Err(Failure::new(Code::NotFound, what).hint(hint).into());
        }
    }
    found.retain(|database| how.databases.contains(&database.name));
    Ok(found)
}

/// Makes the directory that will take the place of the dump; the tools' user owns it.
fn begin(to: &Path, user: Option<User>) -> Result<PathBuf> {
    let staging = staging(to);
    remove(&staging)?;
    let number = crate::host::random::number()?;
    let new = staging.join(format!("{number:016x}"));
    let making = || format!("make {}", new.display());
    for dir in [&staging, &new] {
        let mut builder = std::fs::DirBuilder::new();
        builder.mode(0o700).create(dir).with_context(making)?;
        if let Some(user) = user {
            std::os::unix::fs::lchown(dir, Some(user.uid), Some(user.gid)).with_context(making)?;
        }
    }
    Ok(new)
}

/// Puts the whole dump in the place of the older one.
fn end(to: &Path, new: &Path, contents: &Contents) -> Result<u64> {
    let ending = || format!("bring the dump to {}", to.display());
    let list = new.join(LIST);
    std::fs::write(&list, serde_json::to_vec_pretty(contents)?).with_context(ending)?;
    let private = std::fs::Permissions::from_mode(0o600);
    for file in [&list, &new.join(GLOBALS)] {
        std::fs::set_permissions(file, private.clone()).with_context(ending)?;
        sync(file).with_context(ending)?;
    }
    let bytes = size(new).with_context(ending)?;
    sync(new).with_context(ending)?;
    let exchanged = rustix::fs::renameat_with(CWD, new, CWD, to, RenameFlags::EXCHANGE);
    match exchanged {
        Err(rustix::io::Errno::NOENT) => {
            rustix::fs::renameat_with(CWD, new, CWD, to, RenameFlags::NOREPLACE)
                .with_context(ending)?;
        }
        done => done.with_context(ending)?,
    }
    sync(to.parent().unwrap_or(to)).with_context(ending)?;
    let staging = staging(to);
    remove_any(new)?;
    remove(&staging)?;
    Ok(bytes)
}

/// What lay where the dump is now: a file, too, if somebody made one there.
fn remove_any(path: &Path) -> Result<()> {
    match path.symlink_metadata() {
        Ok(facts) if !facts.is_dir() => {
            std::fs::remove_file(path).with_context(|| format!("remove {}", path.display()))
        }
        _ => remove(path),
    }
}

fn sync(path: &Path) -> std::io::Result<()> {
    std::fs::File::open(path)?.sync_all()
}

fn size(dir: &Path) -> std::io::Result<u64> {
    let mut bytes = 0;
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        let facts = entry.metadata()?;
        bytes += match facts.is_dir() {
            true => size(&entry.path())?,
            false => facts.len(),
        };
    }
    Ok(bytes)
}

/// Reads the list of a dump, and lets the tools' user read the rest of it: its number may be another than where it was dumped.
pub fn open(dir: &Path, user: Option<User>) -> Result<Contents> {
    let shown = dir.display();
    let reading = || format!("read the dump {shown}");
    let list = dir.join(LIST);
    if !list.symlink_metadata().is_ok_and(|facts| facts.is_file()) {
        let what = format!("read the dump {shown}: there is none, or it is not whole");
        let hint = "a point that was taken before the first dump holds none: use a newer one";
        return Err(Failure::new(Code::NotFound, what).hint(hint).into());
    }
    let contents: Contents = serde_json::from_slice(&small(&list)?).with_context(reading)?;
    ensure!(
        contents.format == FORMAT,
        "read the dump {shown}: it is of format {}, and this program knows {FORMAT}",
        contents.format
    );
    if let Some(user) = user {
        give(dir, user, 2)?;
    }
    for database in &contents.databases {
        let part = dir.join(file_name(&database.name));
        ensure!(part.is_dir(), "find {} of the dump", part.display());
    }
    Ok(contents)
}

/// The script of what belongs to no database.
pub fn read_globals(file: &Path) -> Result<Vec<u8>> {
    small(file)
}

fn small(file: &Path) -> Result<Vec<u8>> {
    use std::io::Read;
    let reading = || format!("read {}", file.display());
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let opened = rustix::fs::open(file, flags, Mode::empty()).with_context(reading)?;
    let mut bytes = Vec::new();
    std::fs::File::from(opened)
        .take(LIST_BYTES_MAX + 1)
        .read_to_end(&mut bytes)
        .with_context(reading)?;
    ensure!(
        bytes.len() as u64 <= LIST_BYTES_MAX,
        "{}: it is too long",
        reading()
    );
    Ok(bytes)
}

/// Gives a directory and the files in it to a user. Anything but plain files with one name is no dump of ours, and refused.
fn give(dir: &Path, user: User, depth: u32) -> Result<()> {
    let giving = |path: &Path| format!("let the tools of PostgreSQL read {}", path.display());
    let own = |path: &Path, facts: &std::fs::Metadata| {
        if (facts.uid(), facts.gid()) == (user.uid, user.gid) {
            return Ok(());
        }
        std::os::unix::fs::lchown(path, Some(user.uid), Some(user.gid))
            .with_context(|| giving(path))
    };
    let facts = dir.symlink_metadata().with_context(|| giving(dir))?;
    ensure!(
        facts.is_dir() && depth > 0,
        "{}: it is no directory of a dump",
        giving(dir)
    );
    own(dir, &facts)?;
    for entry in std::fs::read_dir(dir).with_context(|| giving(dir))? {
        let path = entry.with_context(|| giving(dir))?.path();
        let facts = path.symlink_metadata().with_context(|| giving(&path))?;
        if facts.is_dir() {
            give(&path, user, depth - 1)?;
        } else if facts.is_file() && facts.nlink() == 1 {
            own(&path, &facts)?;
        } else {
            bail!("{}: it is no plain file", giving(&path));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_dump_takes_the_place_of_the_older_one() {
        let dir = tempfile::tempdir().unwrap();
        let to = dir.path().join("dump");
        for round in 0..2 {
            let new = begin(&to, None).unwrap();
            fs::write(new.join(GLOBALS), "x").unwrap();
            fs::write(new.join(round.to_string()), "x").unwrap();
            let contents = Contents {
                format: FORMAT,
                server: String::new(),
                databases: Vec::new(),
            };
            assert!(end(&to, &new, &contents).unwrap() > 1);
            assert!(to.join(round.to_string()).exists());
            assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
            open(&to, None).unwrap();
        }
        assert!(!to.join("0").exists());
        // Cut short.
        begin(&to, None).unwrap();
        begin(&to, None).unwrap();
        assert!(to.join("1").exists());
    }

    #[test]
    fn a_hostile_dump_is_not_given_away() {
        let user = User {
            uid: rustix::process::getuid().as_raw(),
            gid: rustix::process::getgid().as_raw(),
        };
        let check = |spoil: fn(&Path), part: &str| {
            let dir = tempfile::tempdir().unwrap();
            fs::create_dir(dir.path().join("a")).unwrap();
            fs::write(dir.path().join("a/toc.dat"), "x").unwrap();
            give(dir.path(), user, 2).unwrap();
            spoil(dir.path());
            let error = give(dir.path(), user, 2).unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
        };
        check(
            |dir| std::os::unix::fs::symlink("/etc/passwd", dir.join("a/1.dat")).unwrap(),
            "no plain file",
        );
        check(
            |dir| fs::hard_link(dir.join("a/toc.dat"), dir.join("1.dat")).unwrap(),
            "no plain file",
        );
        check(
            |dir| fs::create_dir(dir.join("a/b")).unwrap(),
            "no directory",
        );
    }
}
