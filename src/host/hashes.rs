//! Hashes of files that were read before, so that they are not read again.
//!
//! One SQLite file beside the state database. Promise: a hash is given only for the very state of the file for which it was
//! kept. Losing this file, or any part of it, costs reading and nothing else: what cannot be opened is begun anew.
//!
//! It deliberately does not know what the files are, nor when a hash may be kept.

use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::{Context, Result};
use rusqlite::{Connection, OptionalExtension, params};

/// File in the state directory.
const FILE: &str = "hashes.db";

/// One state of one file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    pub inode: u64,
    /// Everything that would differ if the content had changed.
    pub stamp: [u8; 32],
    pub hash: [u8; 32],
}

pub struct Hashes {
    connection: Mutex<Connection>,
}

impl Hashes {
    pub fn open(state_dir: &Path) -> Result<Hashes> {
        let path = state_dir.join(FILE);
        let connection = match open(&path) {
            Ok(connection) => connection,
            Err(error) => {
                tracing::warn!("the hashes in {} are begun anew: {error:#}", path.display());
                for end in ["", "-wal", "-shm"] {
                    let _ = std::fs::remove_file(state_dir.join(format!("{FILE}{end}")));
                }
                open(&path)?
            }
        };
        Ok(Hashes {
            connection: Mutex::new(connection),
        })
    }

    fn lock(&self) -> MutexGuard<'_, Connection> {
        self.connection
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// What was kept for this state; none also where nothing can be read.
    pub fn get(&self, scope: &str, inode: u64, stamp: &[u8; 32]) -> Option<[u8; 32]> {
        let connection = self.lock();
        let sql = "SELECT hash FROM hash WHERE scope = ?1 AND inode = ?2 AND stamp = ?3";
        let mut query = connection.prepare_cached(sql).ok()?;
        let row = query.query_row(params![scope, signed(inode), stamp], |row| {
            row.get::<_, Vec<u8>>(0)
        });
        row.optional().ok()??.try_into().ok()
    }

    /// Keeps these; what was kept for another state of the same files goes.
    pub fn put(&self, scope: &str, kept: &[Kept]) -> Result<()> {
        let mut connection = self.lock();
        let change = connection.transaction()?;
        {
            let sql =
                "INSERT OR REPLACE INTO hash (scope, inode, stamp, hash) VALUES (?1, ?2, ?3, ?4)";
            let mut insert = change.prepare_cached(sql)?;
            for one in kept {
                insert.execute(params![scope, signed(one.inode), one.stamp, one.hash])?;
            }
        }
        change.commit().context("keep hashes of files")
    }
}

/// SQLite has no unsigned numbers; any that is told from all others will do.
fn signed(inode: u64) -> i64 {
    i64::from_ne_bytes(inode.to_ne_bytes())
}

fn open(path: &Path) -> Result<Connection> {
    let connection = Connection::open(path).with_context(|| format!("open {}", path.display()))?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "NORMAL")?;
    connection.execute_batch(
        "CREATE TABLE IF NOT EXISTS hash (
             scope TEXT NOT NULL, inode INTEGER NOT NULL, stamp BLOB NOT NULL, hash BLOB NOT NULL,
             PRIMARY KEY (scope, inode)
         ) STRICT, WITHOUT ROWID;",
    )?;
    Ok(connection)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_for_the_same_state() {
        let dir = tempfile::tempdir().unwrap();
        let kept = |inode, stamp, hash| Kept {
            inode,
            stamp: [stamp; 32],
            hash: [hash; 32],
        };
        {
            let hashes = Hashes::open(dir.path()).unwrap();
            hashes
                .put("a", &[kept(1, 1, 7), kept(u64::MAX, 1, 8)])
                .unwrap();
            hashes.put("b", &[kept(1, 1, 9)]).unwrap();
            hashes.put("a", &[kept(1, 2, 6)]).unwrap();
        }
        let hashes = Hashes::open(dir.path()).unwrap();
        let check = |scope, inode, stamp, hash: Option<u8>| {
            let found = hashes.get(scope, inode, &[stamp; 32]);
            assert_eq!(found, hash.map(|hash| [hash; 32]));
        };
        check("a", 1, 1, None);
        check("a", 1, 2, Some(6));
        check("b", 1, 1, Some(9));
        check("a", u64::MAX, 1, Some(8));
        check("a", 2, 1, None);
    }

    #[test]
    fn what_is_no_database_is_begun_anew() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(FILE), vec![7; 8192]).unwrap();
        let hashes = Hashes::open(dir.path()).unwrap();
        assert_eq!(hashes.get("a", 1, &[1; 32]), None);
    }
}
