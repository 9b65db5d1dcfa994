//! What was measured and heard of roles, in the state database: how long steps of a move took, and the last word of each peer.
//!
//! Promise: nothing that is decided depends on it; it is for people. What a crash loses is measured, or said, again.
//!
//! It deliberately does not know what a step is, nor what a word means.

use std::time::Duration;

use anyhow::Result;
use jiff::Timestamp;
use rusqlite::{OptionalExtension, params};

use super::state::{State, time};
use crate::logic::name::{NodeName, RoleName};

pub(super) const TABLES: &str = "
CREATE TABLE IF NOT EXISTS span (
    id INTEGER PRIMARY KEY AUTOINCREMENT, role TEXT NOT NULL, step TEXT NOT NULL, at INTEGER NOT NULL, ms INTEGER NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS heard (
    role TEXT NOT NULL, peer TEXT NOT NULL, at INTEGER NOT NULL, word TEXT NOT NULL, PRIMARY KEY (role, peer)
) STRICT;
";

const HEARD: &str = "INSERT INTO heard (role, peer, at, word) VALUES (?1, ?2, ?3, ?4)
     ON CONFLICT (role, peer) DO UPDATE SET at = ?3, word = ?4";

/// Measurements kept of each step of a role.
const SPANS_MAX: usize = 10;

impl State {
    /// A step of a move went well, and took so long.
    pub fn record_span(&self, role: &RoleName, step: &str, took: Duration) -> Result<()> {
        let ms = i64::try_from(took.as_millis()).unwrap_or(i64::MAX);
        let at = Timestamp::now().as_millisecond();
        let most = i64::try_from(SPANS_MAX).unwrap_or(i64::MAX);
        self.jot(|change| {
            let add = "INSERT INTO span (role, step, at, ms) VALUES (?1, ?2, ?3, ?4)";
            change.execute(add, params![role.as_str(), step, at, ms])?;
            let old = "DELETE FROM span WHERE role = ?1 AND step = ?2 AND id NOT IN
                 (SELECT id FROM span WHERE role = ?1 AND step = ?2 ORDER BY id DESC LIMIT ?3)";
            change.execute(old, params![role.as_str(), step, most])?;
            Ok(())
        })
    }

    /// Seconds that a step took, newest first; empty where it was never measured.
    pub fn spans(&self, role: &RoleName, step: &str) -> Result<Vec<f64>> {
        let connection = self.lock();
        let mut query = connection
            .prepare("SELECT ms FROM span WHERE role = ?1 AND step = ?2 ORDER BY id DESC")?;
        let rows = query.query_map([role.as_str(), step], |row| row.get::<_, i64>(0))?;
        rows.map(|row| Ok(row? as f64 / 1000.0)).collect()
    }

    /// The last word of a peer of a role, as it was recorded, and when.
    pub fn heard(&self, role: &RoleName, peer: &NodeName) -> Result<Option<(Timestamp, String)>> {
        let query = "SELECT at, word FROM heard WHERE role = ?1 AND peer = ?2";
        let row = self
            .lock()
            .query_row(query, [role.as_str(), peer.as_str()], |row| {
                Ok((row.get::<_, i64>(0)?, row.get(1)?))
            })
            .optional()?;
        Ok(row.and_then(|(at, word)| Some((time(at)?, word))))
    }

    /// Replaces the last word of a peer, where a power cut may take it away: the peer says it again.
    pub fn note_heard(
        &self,
        role: &RoleName,
        peer: &NodeName,
        at: Timestamp,
        word: &str,
    ) -> Result<()> {
        let values = params![role.as_str(), peer.as_str(), at.as_millisecond(), word];
        self.jot(|change| change.prepare_cached(HEARD)?.execute(values).map(|_| ()))
    }

    /// The same; on disk when this returns.
    pub fn record_heard(
        &self,
        role: &RoleName,
        peer: &NodeName,
        at: Timestamp,
        word: &str,
    ) -> Result<()> {
        let values = params![role.as_str(), peer.as_str(), at.as_millisecond(), word];
        self.change(HEARD, values)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_measurements_and_words_are_kept() {
        let dir = tempfile::tempdir().unwrap();
        let (web, db) = (
            RoleName::parse("web").unwrap(),
            RoleName::parse("db").unwrap(),
        );
        let birch = NodeName::parse("birch").unwrap();
        {
            let state = State::open(dir.path()).unwrap();
            for ms in 1..=SPANS_MAX as u64 + 3 {
                let took = Duration::from_millis(ms * 1000);
                state.record_span(&web, "stop", took).unwrap();
            }
            state
                .record_span(&db, "stop", Duration::from_millis(250))
                .unwrap();
            for (second, word) in [(1, "one"), (2, "two")] {
                let at = Timestamp::from_second(second).unwrap();
                state.record_heard(&web, &birch, at, word).unwrap();
            }
        }
        let state = State::open(dir.path()).unwrap();
        let spans = state.spans(&web, "stop").unwrap();
        assert_eq!((spans.len(), spans[0], spans[9]), (10, 13.0, 4.0));
        assert_eq!(state.spans(&db, "stop").unwrap(), [0.25]);
        assert!(state.spans(&db, "start").unwrap().is_empty());
        let heard = state.heard(&web, &birch).unwrap();
        assert_eq!(
            heard,
            Some((Timestamp::from_second(2).unwrap(), "two".to_owned()))
        );
        assert_eq!(state.heard(&db, &birch).unwrap(), None);
    }
}
