//! MariaDB and MySQL: how they are made consistent in a point.
//!
//! Promise: which statements hold a server still follows from its version alone; where its files lie follows from its variables
//! alone.
//!
//! It deliberately does not know the protocol, nor whether the files are there.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use super::Server;

/// A dump of kind `mysql` (or `mariadb`, which means the same).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mysql {
    pub mode: Mode,
    pub server: Server,
    /// What is dumped; empty: every database but the server's own.
    pub databases: Vec<String>,
    /// The file that a dump is written to; none with `freeze`.
    pub to: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Writers are held (BACKUP STAGE, or FLUSH TABLES WITH READ LOCK) while the snapshots are made.
    Freeze,
    /// mariadb-dump or mysqldump in one transaction, into a dataset.
    Dump,
}

impl Mode {
    pub fn word(self) -> &'static str {
        match self {
            Mode::Freeze => "freeze",
            Mode::Dump => "dump",
        }
    }
}

/// Where Debian's and MySQL's own packages put the socket.
pub const SOCKET_DEFAULT: &str = "/run/mysqld/mysqld.sock";

/// The registered port.
pub const PORT_DEFAULT: u16 = 3306;

/// The server's own databases: never dumped, never a reason to call a server full.
pub const OWN_DATABASES: [&str; 4] = ["information_schema", "mysql", "performance_schema", "sys"];

/// Longest name of a database, in characters (MariaDB and MySQL, "Identifier Names").
pub const NAME_CHARS_MAX: usize = 64;

/// First MariaDB with BACKUP STAGE.
const BACKUP_STAGE_SINCE: (u32, u32) = (10, 4);

/// Who answers, as `SELECT VERSION()` says it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version {
    pub maria: bool,
    pub major: u32,
    pub minor: u32,
    /// As the server says it.
    pub said: String,
}

impl Version {
    /// None where it does not begin with two numbers.
    pub fn parse(said: &str) -> Option<Version> {
        let mut numbers = said.split(|c: char| !c.is_ascii_digit());
        Some(Version {
            maria: said.contains("MariaDB"),
            major: numbers.next()?.parse().ok()?,
            minor: numbers.next()?.parse().ok()?,
            said: said.to_owned(),
        })
    }

    /// For people.
    pub fn name(&self) -> String {
        let product = if self.maria { "MariaDB" } else { "MySQL" };
        let number: &str = self.said.split(['-', '+']).next().unwrap_or_default();
        format!("{product} {number}")
    }

    pub fn lock(&self) -> Lock {
        match self.maria && (self.major, self.minor) >= BACKUP_STAGE_SINCE {
            true => Lock::Stages,
            false => Lock::ReadLock,
        }
    }
}

/// How writers are held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lock {
    /// MariaDB's BACKUP STAGE: only commits wait, and writes to tables without transactions.
    Stages,
    /// FLUSH TABLES WITH READ LOCK: every write waits, and the lock itself waits for every running statement.
    ReadLock,
}

impl Lock {
    /// Nobody waits for what these begin.
    pub fn begin(self) -> &'static [&'static str] {
        match self {
            Lock::Stages => &["BACKUP STAGE START"],
            Lock::ReadLock => &[],
        }
    }

    /// From the first of these on writers may wait.
    pub fn hold(self) -> &'static [&'static str] {
        match self {
            Lock::Stages => &[
                "BACKUP STAGE FLUSH",
                "BACKUP STAGE BLOCK_DDL",
                "BACKUP STAGE BLOCK_COMMIT",
            ],
            Lock::ReadLock => &["FLUSH TABLES WITH READ LOCK"],
        }
    }

    /// Lets them go. BACKUP STAGE END fails where nothing is held; UNLOCK TABLES does not.
    pub fn end(self) -> &'static str {
        match self {
            Lock::Stages => "BACKUP STAGE END",
            Lock::ReadLock => "UNLOCK TABLES",
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Lock::Stages => "BACKUP STAGE",
            Lock::ReadLock => "FLUSH TABLES WITH READ LOCK",
        }
    }

    /// Sets how long one statement may wait for a lock, somewhat shorter than the limit of the whole, so that the server says
    /// what it waited for. MySQL knows only whole seconds.
    pub fn waiting(self, limit: Duration) -> String {
        let most = limit.mul_f64(0.9);
        match self {
            Lock::Stages => format!(
                "SET SESSION lock_wait_timeout = {}, max_statement_time = {:.3}",
                most.as_secs() + 1,
                most.as_secs_f64().max(0.05),
            ),
            Lock::ReadLock => {
                format!("SET SESSION lock_wait_timeout = {}", most.as_secs().max(1))
            }
        }
    }
}

/// Variables of the server that say where its files lie, and when a commit is on disk.
pub const VARIABLES: [&str; 9] = [
    "datadir",
    "innodb_data_home_dir",
    "innodb_data_file_path",
    "innodb_log_group_home_dir",
    "innodb_undo_directory",
    "innodb_doublewrite_dir",
    "aria_log_dir_path",
    "log_bin_basename",
    "innodb_flush_log_at_trx_commit",
];

/// Where a server's files lie.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Places {
    pub datadir: PathBuf,
    /// What must lie in the same snapshot as the data directory, by the variable that says so: pages and log are written while
    /// commits wait, so two snapshots of them would not belong together.
    pub core: BTreeMap<String, PathBuf>,
    /// Directory of the log of changes, where there is one. It is still while commits wait, and may lie in another dataset.
    pub binlog: Option<PathBuf>,
}

impl Places {
    /// From the values of `VARIABLES`; none without a data directory.
    pub fn of(variables: &BTreeMap<String, String>) -> Option<Places> {
        let word = |name: &str| {
            let value = variables.get(name).map(String::as_str);
            value.filter(|value| !value.is_empty())
        };
        let datadir = PathBuf::from(word("datadir")?);
        // "./" is the data directory, which a comparison should see.
        let from_datadir = |path: &str| datadir.join(path).components().collect::<PathBuf>();
        let mut core = BTreeMap::new();
        for name in [
            "innodb_data_home_dir",
            "innodb_log_group_home_dir",
            "innodb_undo_directory",
            "innodb_doublewrite_dir",
            "aria_log_dir_path",
        ] {
            if let Some(path) = word(name) {
                core.insert(name.to_owned(), from_datadir(path));
            }
        }
        // Files of the system tablespace may be absolute: "/a/ibdata1:12M;/b/ibdata2:1G:autoextend".
        let files = word("innodb_data_file_path").unwrap_or_default();
        for file in files.split(';').filter(|file| file.starts_with('/')) {
            let path = PathBuf::from(file.split(':').next().unwrap_or_default());
            if let Some(dir) = path.parent() {
                core.insert(
                    format!("innodb_data_file_path {}", path.display()),
                    dir.to_owned(),
                );
            }
        }
        let binlog = word("log_bin_basename").map(&from_datadir);
        Some(Places {
            core,
            binlog: binlog.and_then(|base| Some(base.parent()?.to_owned())),
            datadir: datadir.components().collect(),
        })
    }
}

/// A name in a statement.
pub fn quoted(name: &str) -> String {
    format!("`{}`", name.replace('`', "``"))
}

/// Whether `SHOW GRANTS` allows something, anywhere at all: what is granted for some databases may be enough.
pub fn allowed(grants: &[String], privilege: &str) -> bool {
    grants.iter().any(|line| {
        let Some((words, _)) = line
            .strip_prefix("GRANT ")
            .and_then(|line| line.split_once(" ON "))
        else {
            return false;
        };
        let mut words = words.split(',').map(str::trim);
        words.any(|word| word == privilege || word == "ALL PRIVILEGES" || word == "ALL")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions() {
        let check = |said: &str, name: &str, lock: Lock| {
            let version = Version::parse(said).unwrap();
            assert_eq!((version.name().as_str(), version.lock()), (name, lock));
        };
        check(
            "10.11.19-MariaDB-0+deb12u1-log",
            "MariaDB 10.11.19",
            Lock::Stages,
        );
        check("10.4.0-MariaDB", "MariaDB 10.4.0", Lock::Stages);
        check("10.3.39-MariaDB-log", "MariaDB 10.3.39", Lock::ReadLock);
        check("8.0.35", "MySQL 8.0.35", Lock::ReadLock);
        check("11.4.2-MySQL", "MySQL 11.4.2", Lock::ReadLock);
        assert_eq!(Version::parse("MariaDB"), None);
    }

    #[test]
    fn waits_end_before_the_limit() {
        let check = |lock: Lock, ms: u64, expected: &str| {
            let said = lock.waiting(Duration::from_millis(ms));
            assert_eq!(
                said.trim_start_matches("SET SESSION lock_wait_timeout = "),
                expected
            );
        };
        check(Lock::Stages, 10_000, "10, max_statement_time = 9.000");
        check(Lock::Stages, 100, "1, max_statement_time = 0.090");
        check(Lock::ReadLock, 10_000, "9");
        check(Lock::ReadLock, 100, "1");
    }

    #[test]
    fn places() {
        let check = |variables: &[(&str, &str)], core: &[(&str, &str)], binlog: Option<&str>| {
            let mut all = BTreeMap::from([("datadir".to_owned(), "/srv/my/".to_owned())]);
            all.extend(
                variables
                    .iter()
                    .map(|(name, value)| ((*name).to_owned(), (*value).to_owned())),
            );
            let places = Places::of(&all).unwrap();
            let expected = core
                .iter()
                .map(|(name, path)| ((*name).to_owned(), PathBuf::from(path)));
            assert_eq!(places.core, expected.collect());
            assert_eq!(places.binlog, binlog.map(PathBuf::from));
            assert_eq!(places.datadir, PathBuf::from("/srv/my"));
        };
        check(&[("innodb_data_home_dir", "")], &[], None);
        check(
            &[
                ("innodb_log_group_home_dir", "./"),
                ("log_bin_basename", "/srv/my/bin"),
            ],
            &[("innodb_log_group_home_dir", "/srv/my")],
            Some("/srv/my"),
        );
        check(
            &[
                ("aria_log_dir_path", "/srv/aria/"),
                ("log_bin_basename", "/var/log/mysql/bin"),
            ],
            &[("aria_log_dir_path", "/srv/aria")],
            Some("/var/log/mysql"),
        );
        check(
            &[(
                "innodb_data_file_path",
                "ibdata1:12M;/big/ibdata2:1G:autoextend",
            )],
            &[("innodb_data_file_path /big/ibdata2", "/big")],
            None,
        );
        assert_eq!(Places::of(&BTreeMap::new()), None);
    }

    #[test]
    fn grants() {
        let check = |line: &str, privilege: &str, expected: bool| {
            assert_eq!(allowed(&[line.to_owned()], privilege), expected, "{line}");
        };
        let all = "GRANT ALL PRIVILEGES ON *.* TO `root`@`localhost` WITH GRANT OPTION";
        check(all, "RELOAD", true);
        check("GRANT RELOAD, PROCESS ON *.* TO `s`@`%`", "RELOAD", true);
        check("GRANT SELECT ON `RELOAD`.* TO `s`@`%`", "RELOAD", false);
        check("GRANT USAGE ON *.* TO `s`@`%`", "RELOAD", false);
        check("GRANT `RELOAD` TO `s`@`%`", "RELOAD", false);
    }

    #[test]
    fn names_are_quoted() {
        assert_eq!(quoted("a`b"), "`a``b`");
    }
}
