//! What this node wrote into seeded files, in the state database.
//!
//! Promise: before a file changes, the hash of what it will hold is on disk beside the one of what it held, so that after a
//! crash at any moment a text of ours is known as ours. A command that is due after a change stays due until it ran.
//!
//! It deliberately does not know what the texts are.

use std::path::Path;

use anyhow::Result;
use jiff::Timestamp;
use rusqlite::{OptionalExtension, params};

use crate::host::state::{State, time};
use crate::logic::name::RoleName;
use crate::logic::seed::Memory;

/// One row a file. `input`: hash of template and values of which `written` was made. `after`: `due`, or how it failed.
pub(in crate::host) const TABLE: &str = "
CREATE TABLE IF NOT EXISTS seed (
    role TEXT NOT NULL, path TEXT NOT NULL, written TEXT, writing TEXT, input TEXT, at INTEGER, due INTEGER NOT NULL DEFAULT 0,
    failed TEXT, PRIMARY KEY (role, path)
) STRICT;
";

/// What is known of one file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Remembered {
    pub hashes: Memory,
    /// Of what `hashes.written` was made.
    pub input: Option<String>,
    /// When it was written.
    pub at: Option<Timestamp>,
    /// The command after the change has not run yet.
    pub due: bool,
    /// How it failed the last time.
    pub failed: Option<String>,
}

impl State {
    pub fn seed(&self, role: &RoleName, path: &Path) -> Result<Remembered> {
        let query = "SELECT written, writing, input, at, due, failed FROM seed WHERE role = ?1 AND path = ?2";
        let found = self
            .lock()
            .query_row(query, [role.as_str(), &path.to_string_lossy()], |row| {
                Ok(Remembered {
                    hashes: Memory {
                        written: row.get(0)?,
                        writing: row.get(1)?,
                    },
                    input: row.get(2)?,
                    at: row.get::<_, Option<i64>>(3)?.and_then(time),
                    due: row.get(4)?,
                    failed: row.get(5)?,
                })
            })
            .optional()?;
        Ok(found.unwrap_or_default())
    }

    /// The file is about to get this text.
    pub fn record_seed_begun(&self, role: &RoleName, path: &Path, hash: &str) -> Result<()> {
        self.change(
            "INSERT INTO seed (role, path, writing) VALUES (?1, ?2, ?3)
             ON CONFLICT (role, path) DO UPDATE SET writing = ?3",
            params![role.as_str(), path.to_string_lossy(), hash],
        )
    }

    /// The file has this text, made of `input`. With `changed`, it got it a moment ago, and the command is due.
    pub fn record_seed(
        &self,
        role: &RoleName,
        path: &Path,
        (hash, input): (&str, &str),
        changed: bool,
    ) -> Result<()> {
        let now = changed.then(|| Timestamp::now().as_millisecond());
        self.change(
            "INSERT INTO seed (role, path, written, input, at, due) VALUES (?1, ?2, ?3, ?4, ?5, ?6)
             ON CONFLICT (role, path) DO UPDATE SET written = ?3, writing = NULL, input = ?4, at = ifnull(?5, at),
             due = max(due, ?6), failed = CASE WHEN ?6 THEN NULL ELSE failed END",
            params![role.as_str(), path.to_string_lossy(), hash, input, now, changed],
        )
    }

    /// The command after a change ran.
    pub fn record_seed_after(
        &self,
        role: &RoleName,
        path: &Path,
        failed: Option<&str>,
    ) -> Result<()> {
        self.change(
            "UPDATE seed SET due = 0, failed = ?3 WHERE role = ?1 AND path = ?2",
            params![role.as_str(), path.to_string_lossy(), failed],
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_known() {
        let dir = tempfile::tempdir().unwrap();
        let (web, path) = (RoleName::parse("web").unwrap(), Path::new("/etc/a"));
        let state = State::open(dir.path()).unwrap();
        let now = || state.seed(&web, path).unwrap();
        assert_eq!(now(), Remembered::default());
        state.record_seed_begun(&web, path, "one").unwrap();
        assert_eq!(
            (now().hashes.written, now().hashes.writing),
            (None, Some("one".to_owned()))
        );
        state.record_seed(&web, path, ("one", "i"), true).unwrap();
        let known = now();
        assert!(known.due && known.at.is_some());
        assert_eq!(
            (known.hashes.written.as_deref(), known.hashes.writing),
            (Some("one"), None)
        );
        state.record_seed_after(&web, path, Some("exit 1")).unwrap();
        assert_eq!(
            (now().due, now().failed.as_deref()),
            (false, Some("exit 1"))
        );
        // Found right: nothing is due, and the failure still stands.
        state.record_seed(&web, path, ("one", "j"), false).unwrap();
        assert_eq!(
            (now().due, now().failed.as_deref(), now().at),
            (false, Some("exit 1"), known.at)
        );
        state.record_seed(&web, path, ("two", "k"), true).unwrap();
        assert_eq!((now().due, now().failed), (true, None));
        assert_eq!(
            state.seed(&web, Path::new("/etc/b")).unwrap(),
            Remembered::default()
        );
    }
}
