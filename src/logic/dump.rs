//! Databases and the points they lie in: what is asked for, and what came of it.
//!
//! A dump makes a database consistent inside a point: by a file it is dumped to, or by holding the server still while the
//! snapshots are made. All dumps of a role are taken in one bracket around the snapshots of all its datasets:
//!
//! ```text
//! prepare   writers go on; long (checkpoint, dump file, BGSAVE)           one after the other, as they are listed
//! hold      from here on writers may have to wait                         the same
//!           the snapshots, all at once
//! release   writers go on                                                 the other way round, always
//! finish    what is known now: position, label                            the same, always
//!           the snapshots that must come after that (`Late`)
//! ```
//!
//! It deliberately does not know any server's protocol.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::name::RoleName;

pub mod mysql;
pub mod mysql_file;
pub mod postgres;
pub mod redis;
pub mod sqlite;

/// Default limit of the steps in which writers go on.
pub const TIMEOUT_DEFAULT: Duration = Duration::from_secs(15 * 60);

/// Default limit of holding: waiting for locks, and the snapshots.
pub const HOLD_DEFAULT: Duration = Duration::from_secs(10);

/// Most dumps of a role.
pub const DUMPS_MAX: usize = 64;

/// Most that a point keeps of one dump in its manifest (a backup label, a tablespace map), in bytes.
pub const KEPT_BYTES_MAX: usize = 64 << 10;

/// Most that a point keeps of all its dumps, in bytes: less than its manifest may have.
pub const KEPT_BYTES_ALL_MAX: usize = 512 << 10;

/// One dump of a role, as the config asks for it.
#[derive(Debug, Clone, PartialEq)]
pub struct Dump {
    /// Unique in the role; the rules of a role's name.
    pub name: RoleName,
    pub policy: Policy,
    /// Limit of each step in which writers go on.
    pub timeout: Duration,
    /// Longest that writers wait, from asking for the first lock until they are let go.
    pub hold: Duration,
    pub load: Load,
    /// The server that a drill starts, into which it loads the dump; none: a drill does not load it.
    pub drill: Option<Server>,
    pub how: How,
}

/// What a dump that fails means for its point.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Policy {
    /// There is none.
    Required,
    /// It is marked as not consistent for the application.
    BestEffort,
}

/// Whether dump files are read into a server after a promotion.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Load {
    /// Only when somebody says `standin load`.
    Never,
    /// Into a server that holds none of the databases; one that does is left alone, with a warning.
    Empty,
    /// In the place of what the server holds.
    Replace,
}

/// By kind of server.
#[derive(Debug, Clone, PartialEq)]
pub enum How {
    Postgres(postgres::Postgres),
    /// MySQL and MariaDB.
    Mysql(mysql::Mysql),
    Redis(redis::Redis),
    Sqlite(sqlite::Sqlite),
    Command(Commands),
}

impl How {
    /// The word in the config.
    pub fn kind(&self) -> &'static str {
        match self {
            How::Postgres(_) => "postgres",
            How::Mysql(_) => "mysql",
            How::Redis(_) => "redis",
            How::Sqlite(_) => "sqlite",
            How::Command(_) => "command",
        }
    }

    /// The word in the config; empty where there is only one way.
    pub fn mode(&self) -> &'static str {
        match self {
            How::Postgres(postgres) => postgres.mode.word(),
            How::Mysql(mysql) => mysql.mode.word(),
            How::Redis(redis) => redis.mode.word(),
            How::Sqlite(sqlite) => sqlite.mode.word(),
            How::Command(_) => "",
        }
    }

    /// The dump writes a file into a dataset: without it a point says nothing new, whether files changed or not. The server's
    /// own data may lie anywhere.
    pub fn writes_a_file(&self) -> bool {
        match self {
            How::Postgres(postgres) => postgres.mode == postgres::Mode::Dump,
            How::Mysql(mysql) => mysql.mode == mysql::Mode::Dump,
            How::Redis(_) => false,
            How::Sqlite(sqlite) => sqlite.mode == sqlite::Mode::Backup,
            How::Command(commands) => commands.dump.is_some(),
        }
    }
}

impl How {
    /// Whether there is something to be read into a server that runs; else it starts from its own data.
    pub fn loads(&self) -> bool {
        match self {
            How::Command(commands) => commands.load.is_some(),
            how => how.writes_a_file(),
        }
    }

    /// Loading needs no server: a drill does it with nothing but its copy.
    pub fn loads_files(&self) -> bool {
        matches!(self, How::Sqlite(_)) && self.loads()
    }
}

/// Commands of the admin's own, each an argument vector.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Commands {
    /// Writes the dump file; writers go on.
    pub dump: Option<Vec<String>>,
    /// Holds writers still.
    pub freeze: Option<Vec<String>>,
    /// Lets them go: run whenever `freeze` was begun, whatever came of it.
    pub thaw: Option<Vec<String>>,
    /// Reads the dump into a server after a promotion.
    pub load: Option<Vec<String>>,
}

/// How to reach a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    pub address: Address,
    pub user: Option<String>,
    pub password: Option<Secret>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// Path of a unix socket, or of the directory that holds it where the server is used to that.
    Socket(PathBuf),
    Tcp(String, u16),
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Socket(path) => write!(f, "{}", path.display()),
            Address::Tcp(host, port) if host.contains(':') => write!(f, "[{host}]:{port}"),
            Address::Tcp(host, port) => write!(f, "{host}:{port}"),
        }
    }
}

/// Where a password is. Never the password.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Secret {
    /// The first line of a file that only its owner may read.
    File(PathBuf),
    /// A variable of the daemon's environment (systemd: EnvironmentFile=).
    Env(String),
}

/// What came of one dump, in the manifest of its point.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DumpFacts {
    pub name: RoleName,
    pub kind: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub mode: String,
    pub result: DumpResult,
    /// All steps together, in milliseconds.
    #[serde(default)]
    pub took_ms: u64,
    /// From asking for the hold until it was given up, in milliseconds; none where nobody had to wait.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held_ms: Option<u64>,
    #[serde(flatten)]
    pub found: Found,
}

/// How a dump ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "kebab-case")]
pub enum DumpResult {
    Good,
    /// The point is not consistent for the application.
    Failed {
        why: String,
    },
    /// Nothing had to be done: what wrote was stopped, in order, before the point was taken.
    Stopped,
}

/// What a server says of the dump.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Found {
    /// Name and version, as the server gives it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server: Option<String>,
    /// Where in its log of changes: LSN, GTID, file and offset. For people, and for a recovery to a moment by hand.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub position: Option<String>,
    /// Size of what was dumped, in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
    /// Files of text that belong into the data directory before a server starts on it, by name (backup_label).
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub keeps: BTreeMap<String, String>,
}

impl Found {
    /// What it adds to the manifest for data directories, in bytes.
    pub fn kept_bytes(&self) -> usize {
        let sizes = self
            .keeps
            .iter()
            .map(|(name, text)| name.len() + text.len());
        sizes.sum()
    }
}

/// What the dumps of a point make of it; none where it has no dumps.
pub fn consistent(dumps: &[DumpFacts]) -> Option<bool> {
    let good = |dump: &DumpFacts| !matches!(dump.result, DumpResult::Failed { .. });
    (!dumps.is_empty()).then(|| dumps.iter().all(good))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_bad_dump_spoils_a_point() {
        let facts = |result| DumpFacts {
            name: RoleName::parse("orders").unwrap(),
            kind: "postgres".to_owned(),
            mode: "freeze".to_owned(),
            result,
            took_ms: 1,
            held_ms: None,
            found: Found::default(),
        };
        let failed = || DumpResult::Failed {
            why: "x".to_owned(),
        };
        let check = |results: Vec<DumpResult>, expected: Option<bool>| {
            let dumps: Vec<_> = results.into_iter().map(facts).collect();
            assert_eq!(consistent(&dumps), expected);
            let json = serde_json::to_string(&dumps).unwrap();
            assert_eq!(
                serde_json::from_str::<Vec<DumpFacts>>(&json).unwrap(),
                dumps
            );
        };
        check(vec![], None);
        check(vec![DumpResult::Good], Some(true));
        check(vec![DumpResult::Good, DumpResult::Stopped], Some(true));
        check(vec![DumpResult::Good, failed()], Some(false));
    }
}
