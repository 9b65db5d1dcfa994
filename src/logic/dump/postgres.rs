//! PostgreSQL: how it is made consistent in a point, and what a point notes of it.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::{Component, Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::Server;
use crate::logic::name::DatasetName;

/// Port of a server that nobody gave another.
pub const PORT: u16 = 5432;

/// Where Debian's servers have their sockets.
pub const SOCKET_DIR: &str = "/var/run/postgresql";

/// Who logs in when the config names nobody.
pub const USER: &str = "postgres";

/// Processes of pg_dump and pg_restore when the config does not say.
pub const JOBS_DEFAULT: u32 = 2;

/// Most of them.
pub const JOBS_MAX: u32 = 64;

/// How the file of a server's socket begins; the port follows (libpq, runtime-config-connection).
pub const SOCKET_PREFIX: &str = ".s.PGSQL.";

/// What `Found::keeps` calls the map of places below.
pub const PLACES: &str = "standin.json";

/// The label of a backup: without it a server takes the copy for one that was whole at one moment.
pub const LABEL: &str = "backup_label";

/// Where tablespaces lie, for a server that recovers from a backup.
pub const MAP: &str = "tablespace_map";

/// A dump of kind `postgres`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Postgres {
    pub mode: Mode,
    pub server: Server,
    /// Directory of the dump; mode `dump` only, and there always.
    pub to: Option<PathBuf>,
    /// What is dumped; empty: every database that is no template.
    pub databases: Vec<String>,
    /// Processes that dump or load one database at the same time.
    pub jobs: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// A checkpoint, then the snapshot, which is atomic: the data directory lies on one dataset. Nobody waits.
    Freeze,
    /// The low-level backup interface, open across the snapshots of several datasets.
    Backup,
    /// pg_dump into a dataset.
    Dump,
}

impl Mode {
    pub fn word(self) -> &'static str {
        match self {
            Mode::Freeze => "freeze",
            Mode::Backup => "backup",
            Mode::Dump => "dump",
        }
    }
}

impl Postgres {
    /// Whom the server knows us as.
    pub fn user(&self) -> &str {
        self.server.user.as_deref().unwrap_or(USER)
    }
}

/// A directory, told by the dataset that holds it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    pub dataset: DatasetName,
    /// Relative to the dataset; empty: the dataset itself.
    pub path: PathBuf,
}

impl Place {
    /// The directory where the dataset lies at `live`; none where the path would leave it.
    pub fn under(&self, live: &Path) -> Option<PathBuf> {
        let clean = |part: Component| matches!(part, Component::Normal(_));
        match self.path.components().all(clean) {
            true if self.path.as_os_str().is_empty() => Some(live.to_owned()),
            true => Some(live.join(&self.path)),
            false => None,
        }
    }
}

/// Where the parts of a server's data lie, as a point keeps it: a copy at other paths needs other links.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Places {
    pub data: Place,
    /// The directory of the log, where it is not inside of the data directory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wal: Option<Place>,
    /// By object id.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub tablespaces: BTreeMap<u32, Place>,
}

/// The map of tablespaces as recovery reads it: a line each, the object id and the path (xlogrecovery.c, read_tablespace_map).
/// None where a path could not be told in it.
pub fn tablespace_map<'a>(spaces: impl Iterator<Item = (u32, &'a Path)>) -> Option<String> {
    let mut text = String::new();
    for (id, path) in spaces {
        let path = path.to_str()?;
        // Escaped by newer servers only; a path that needs it is nobody's.
        if path.contains(['\n', '\r', '\\']) {
            return None;
        }
        let _ = writeln!(text, "{id} {path}");
    }
    Some(text)
}

/// The file of the log with which recovery from a label begins, from its line "START WAL LOCATION: 0/2000028 (file 0...2)".
pub fn first_wal_file(label: &str) -> Option<&str> {
    let line = label
        .lines()
        .find(|line| line.starts_with("START WAL LOCATION: "))?;
    let name = line.split_once("(file ")?.1.strip_suffix(')')?;
    (name.len() == 24 && name.bytes().all(|b| b.is_ascii_hexdigit())).then_some(name)
}

/// A name for the files of a database: its own, but for what is odd in a path.
pub fn file_name(database: &str) -> String {
    let mut name = String::new();
    for byte in database.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' | b'-' => name.push(char::from(byte)),
            _ => {
                let _ = write!(name, "%{byte:02X}");
            }
        }
    }
    name
}

/// Text as a name in SQL.
pub fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// Text as text in SQL, whatever `standard_conforming_strings` is.
pub fn literal(text: &str) -> String {
    let escaped = text.replace('\\', "\\\\").replace('\'', "''");
    format!("E'{escaped}'")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_stay_in_their_dataset() {
        let check = |path: &str, expected: Option<&str>| {
            let place = Place {
                dataset: DatasetName::parse("main").unwrap(),
                path: PathBuf::from(path),
            };
            let found = place.under(Path::new("/srv/db"));
            assert_eq!(found.as_deref(), expected.map(Path::new), "{path}");
        };
        check("", Some("/srv/db"));
        check("15/main", Some("/srv/db/15/main"));
        check("../x", None);
        check("a/../../x", None);
        check("/etc", None);
        check("./a", None);
    }

    #[test]
    fn labels() {
        let check = |label: &str, expected| assert_eq!(first_wal_file(label), expected);
        check(
            "START WAL LOCATION: 0/2000028 (file 000000010000000000000002)\nCHECKPOINT LOCATION: 0/2000060\n",
            Some("000000010000000000000002"),
        );
        check(
            "START WAL LOCATION: 0/2000028 (file ../../etc/passwd)\n",
            None,
        );
        check("BACKUP METHOD: streamed\n", None);
        check("", None);
    }

    #[test]
    fn names_of_files_and_in_sql() {
        let check = |database, file, sql| {
            assert_eq!(file_name(database), file);
            assert_eq!(quoted(database), sql);
        };
        check("shop", "shop", "\"shop\"");
        check("../a b", "%2E%2E%2Fa%20b", "\"../a b\"");
        check("a\"b", "a%22b", "\"a\"\"b\"");
        check("ä", "%C3%A4", "\"ä\"");
        assert_eq!(literal("a'b\\c"), "E'a''b\\\\c'");
    }

    #[test]
    fn maps() {
        let check = |spaces: &[(u32, &str)], expected: Option<&str>| {
            let spaces = spaces.iter().map(|(id, path)| (*id, Path::new(*path)));
            assert_eq!(tablespace_map(spaces).as_deref(), expected);
        };
        check(&[], Some(""));
        check(&[(16384, "/a"), (7, "/b c")], Some("16384 /a\n7 /b c\n"));
        check(&[(1, "/a\nb")], None);
    }
}
