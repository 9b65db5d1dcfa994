//! A dump into a file, by mariadb-dump or mysqldump in one transaction.
//!
//! Promise: the file is the old dump or the whole new one. Nobody waits for it. A database that is asked for and not there, a
//! privilege that is missing, a file without its last line: each is an error, never a smaller dump.
//!
//! A crash ends the program by its pipe, and leaves the hidden file, which the next dump replaces.
//!
//! It deliberately does not know what is in the databases. Tables without transactions may change while they are dumped;
//! `check` says so.

use std::fs::File;
use std::io::{ErrorKind, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, Result};
use rustix::pipe::{PipeFlags, pipe_with};

use super::session::Session;
use super::tool::{self, Login, Running};
use super::{loading, version};
use crate::error::{Code, Failure};
use crate::host::dump::Around;
use crate::logic::dump::Found;
use crate::logic::dump::mysql::{self, Mysql, OWN_DATABASES, Version};
use crate::logic::dump::mysql_file::{self, Head};

/// The program, by its names.
pub const PROGRAMS: [&str; 2] = ["mariadb-dump", "mysqldump"];

/// Without these something would be left out of a dump, quietly by some versions.
pub const PRIVILEGES: [&str; 4] = ["SELECT", "SHOW VIEW", "TRIGGER", "EVENT"];

/// How much of a dump's beginning, and of its end, holds its position, in bytes.
const POSITION_BYTES: u64 = 16 << 10;

pub struct Dumping {
    mysql: Mysql,
    around: Around,
    found: Found,
}

impl Dumping {
    pub fn new(mysql: &Mysql, around: &Around) -> Dumping {
        Dumping {
            mysql: mysql.clone(),
            around: around.clone(),
            found: Found::default(),
        }
    }

    pub async fn prepare(&mut self) -> Result<()> {
        let target = Target::of(&self.mysql, &self.around)?;
        let program = tool::find(&PROGRAMS)?;
        let mut session = Session::open(&self.mysql.server).await?;
        let version = version(&mut session).await?;
        self.found.server = Some(version.name());
        super::need(&mut session, &PRIVILEGES).await?;
        let databases = databases(&mut session, &self.mysql.databases).await?;
        let maria = tool::is_maria(&program).await?;
        let mut arguments = options(maria);
        arguments.extend(position_option(&mut session, &version, maria).await?);
        session.close().await;
        let head = Head {
            server: version.name(),
            databases: databases.clone(),
        };
        let mut writing = Writing::begin(target, &head)?;
        if databases.is_empty() {
            writing
                .file
                .write_all(mysql_file::end().as_bytes())
                .map_err(|error| writing.failed(&error))?;
        } else {
            arguments.push("--databases".to_owned());
            // Whatever begins with a dash from here on is a name.
            arguments.push("--".to_owned());
            arguments.extend(databases);
            writing = self.write(writing, &program, &arguments).await?;
        }
        let ended = tokio::task::spawn_blocking(move || writing.end()).await;
        let (bytes, position) = ended.context("finish the dump")??;
        self.found.bytes = Some(bytes);
        self.found.position = position;
        Ok(())
    }

    async fn write(
        &self,
        mut writing: Writing,
        program: &Path,
        arguments: &[String],
    ) -> Result<Writing> {
        let login = Login::new(&self.mysql.server)?;
        let (from, to) = pipe_with(PipeFlags::CLOEXEC).context("make a pipe")?;
        let mut running =
            Running::start(program, &login, arguments, Stdio::null(), Stdio::from(to))?;
        // A thread: it ends with the pipe, which ends with the program.
        let copying = tokio::task::spawn_blocking(move || {
            // Closed with the closure: a program whose file cannot be written ends then.
            let mut from = File::from(from);
            let copied = std::io::copy(&mut from, &mut writing.file);
            (copied, writing)
        });
        let (ended, copied) = tokio::join!(running.end(), copying);
        let (copied, writing) = copied.context("write the dump")?;
        copied.map_err(|error| writing.failed(&error))?;
        ended?;
        Ok(writing)
    }

    pub fn finish(&mut self) -> Found {
        std::mem::take(&mut self.found)
    }
}

/// Names that will be dumped.
pub async fn databases(session: &mut Session, asked: &[String]) -> Result<Vec<String>> {
    let statement = "SELECT schema_name FROM information_schema.schemata ORDER BY schema_name";
    let there = session.list("list the databases", statement).await?;
    if let Some(missing) = asked.iter().find(|name| !there.contains(name)) {
        let what = format!(
            "dump database {missing}: {} has none of that name",
            session.place()
        );
        let hint =
            "correct `databases` in the config; the account sees only what it has privileges for";
        return Err(Failure::new(Code::NotFound, what).hint(hint).into());
    }
    if !asked.is_empty() {
        return Ok(asked.to_vec());
    }
    let own = |name: &String| {
        OWN_DATABASES.contains(&name.to_ascii_lowercase().as_str()) || name == loading::MARKER
    };
    Ok(there.into_iter().filter(|name| !own(name)).collect())
}

fn options(maria: bool) -> Vec<String> {
    let mut words = vec![
        "--single-transaction",
        "--quick",
        "--routines",
        "--events",
        "--triggers",
        "--hex-blob",
        "--no-tablespaces",
        "--default-character-set=utf8mb4",
    ];
    if !maria {
        // Else the load would need a server that has never run a transaction.
        words.push("--set-gtid-purged=OFF");
    }
    words.into_iter().map(str::to_owned).collect()
}

/// The option that writes the position into the dump, where the server has one and the account may know it.
async fn position_option(
    session: &mut Session,
    version: &Version,
    maria: bool,
) -> Result<Vec<String>> {
    let logs: Option<bool> = session
        .one("ask for the binary log", "SELECT @@GLOBAL.log_bin")
        .await?;
    let grants = session
        .list("ask for the account's privileges", "SHOW GRANTS")
        .await?;
    let sees = ["BINLOG MONITOR", "REPLICATION CLIENT", "SUPER"];
    let sees = sees
        .iter()
        .any(|privilege| mysql::allowed(&grants, privilege));
    // MySQL stops writers for a moment to know it.
    let may = sees && (maria || mysql::allowed(&grants, "RELOAD"));
    if logs != Some(true) || !may {
        return Ok(Vec::new());
    }
    let words: &[&str] = match (maria, version.maria) {
        (true, true) => &["--master-data=2", "--gtid"],
        (true, false) => &[],
        (false, _) if (version.major, version.minor) >= (8, 2) && !version.maria => {
            &["--source-data=2"]
        }
        (false, _) => &["--master-data=2"],
    };
    Ok(words.iter().map(|word| (*word).to_owned()).collect())
}

/// Where a dump goes.
#[derive(Debug, Clone)]
pub struct Target {
    pub path: PathBuf,
    dir: PathBuf,
    hidden: PathBuf,
}

impl Target {
    /// Fails where the file would lie in no dataset of the role.
    pub fn of(mysql: &Mysql, around: &Around) -> Result<Target> {
        let path = mysql
            .to
            .clone()
            .context("dump to a file: no `to` is known")?;
        let shown = path.display();
        let (Some(dir), Some(name)) = (path.parent(), path.file_name()) else {
            let what = format!("dump to {shown}: it names no file");
            return Err(Failure::new(Code::Usage, what).into());
        };
        let real = std::fs::canonicalize(dir).map_err(|error| {
            let what = format!("dump to {shown}: {}: {error}", dir.display());
            let hint = format!("make the directory: mkdir -p {}", dir.display());
            Failure::new(Code::NotFound, what).hint(hint)
        })?;
        let datasets = around.datasets.values();
        let mut lives =
            datasets.map(|live| std::fs::canonicalize(live).unwrap_or_else(|_| live.clone()));
        if !lives.any(|live| real.starts_with(live)) {
            let what = format!(
                "dump to {shown}: it lies in no dataset of the role, so no point would hold it"
            );
            let hint = "name a file in one of the role's datasets by `to`";
            return Err(Failure::new(Code::Refused, what).hint(hint).into());
        }
        let mut hidden = std::ffi::OsString::from(".");
        hidden.push(name);
        hidden.push(".standin-new");
        Ok(Target {
            path: real.join(name),
            hidden: real.join(hidden),
            dir: real,
        })
    }
}

/// A dump's file under its hidden name, which is removed with the value.
struct Writing {
    target: Target,
    file: File,
}

impl Writing {
    fn begin(target: Target, head: &Head) -> Result<Writing> {
        let hidden = &target.hidden;
        match std::fs::remove_file(hidden) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("remove {}", hidden.display()));
            }
            _ => {}
        }
        let mut options = File::options();
        options.read(true).write(true).create_new(true).mode(0o600);
        let file = options.open(hidden);
        let file = file.map_err(|error| trouble(&target, &error))?;
        let mut writing = Writing { target, file };
        let written = writing.file.write_all(head.line().as_bytes());
        written.map_err(|error| writing.failed(&error))?;
        Ok(writing)
    }

    fn failed(&self, error: &std::io::Error) -> anyhow::Error {
        trouble(&self.target, error)
    }

    /// Puts it in place; its size in bytes, and its position.
    fn end(mut self) -> Result<(u64, Option<String>)> {
        let reading = |error: std::io::Error| trouble(&self.target, &error);
        let bytes = self.file.metadata().map_err(reading)?.len();
        let mut tail = Vec::new();
        let from = bytes.saturating_sub(mysql_file::TAIL_BYTES as u64);
        self.file.seek(SeekFrom::Start(from)).map_err(reading)?;
        self.file.read_to_end(&mut tail).map_err(reading)?;
        if !mysql_file::ends_well(&tail) {
            let what = format!(
                "dump to {}: the program ended well, but the dump has no end",
                self.target.path.display()
            );
            let hint =
                "do option files switch its comments off? They are how a whole dump is known";
            return Err(Failure::new(Code::Failed, what).hint(hint).into());
        }
        // MariaDB tells the file and offset at the beginning, the GTID at the end.
        let mut text = String::new();
        for from in [0, bytes.saturating_sub(POSITION_BYTES).max(POSITION_BYTES)] {
            let mut part = Vec::new();
            self.file.seek(SeekFrom::Start(from)).map_err(reading)?;
            let read = (&self.file).take(POSITION_BYTES).read_to_end(&mut part);
            read.map_err(reading)?;
            text.push_str(&String::from_utf8_lossy(&part));
        }
        let position = mysql_file::position(&text);
        let placed = self
            .file
            .sync_all()
            .and_then(|()| std::fs::rename(&self.target.hidden, &self.target.path))
            .and_then(|()| File::open(&self.target.dir)?.sync_all());
        placed.map_err(|error| trouble(&self.target, &error))?;
        Ok((bytes, position))
    }
}

impl Drop for Writing {
    fn drop(&mut self) {
        // What is in place has no hidden name any more; what failed must not fill the disk until the next dump.
        let _ = std::fs::remove_file(&self.target.hidden);
    }
}

fn trouble(target: &Target, error: &std::io::Error) -> anyhow::Error {
    let what = format!("write the dump {}: {error}", target.path.display());
    let full = matches!(
        error.kind(),
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded
    );
    match full {
        true => {
            let hint = "free space in the dataset; the dump before this one was kept, and both must fit for a while";
            Failure::new(Code::NoSpace, what).hint(hint).into()
        }
        false => Failure::new(Code::Failed, what).into(),
    }
}

/// Opens a dump; its first line and its size in bytes.
pub fn open(path: &Path) -> Result<(File, Head)> {
    let shown = path.display();
    let mut file = File::open(path).map_err(|error| {
        let what = format!("open the dump {shown}: {error}");
        let hint = "is the role's newest point in place, and was it taken with this dump?";
        let code = match error.kind() {
            ErrorKind::NotFound => Code::NotFound,
            _ => Code::Failed,
        };
        Failure::new(code, what).hint(hint)
    })?;
    let reading = || format!("read the dump {shown}");
    let mut start = Vec::new();
    (&mut file)
        .take(mysql_file::HEAD_BYTES_MAX as u64)
        .read_to_end(&mut start)
        .with_context(reading)?;
    let bytes = file.metadata().with_context(reading)?.len();
    let mut tail = Vec::new();
    let from = bytes.saturating_sub(mysql_file::TAIL_BYTES as u64);
    file.seek(SeekFrom::Start(from)).with_context(reading)?;
    file.read_to_end(&mut tail).with_context(reading)?;
    file.seek(SeekFrom::Start(0)).with_context(reading)?;
    match Head::parse(&start).filter(|_| mysql_file::ends_well(&tail)) {
        Some(head) => Ok((file, head)),
        None => {
            let what = format!("load {shown}: it is not a whole dump of this program");
            let hint = "restore the file from another point, or load it by hand";
            Err(Failure::new(Code::Refused, what).hint(hint).into())
        }
    }
}
