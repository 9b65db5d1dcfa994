//! The state database: what a node must remember and cannot read back from the filesystem.
//!
//! One SQLite file (WAL, `synchronous=FULL`) in the state directory, outside every replicated dataset. Promise: when a
//! method that records returns Ok, the record survives a power cut; a crash inside one leaves the state before it. Of what is
//! only told (events, how cycles went, figures) the last may be lost with the power: nobody waits for a disk on its account. The
//! catalogue of points is *not* here: it is rebuilt from the snapshots. Losing this file costs history and the names of
//! the bases (which the next talk with the peer finds again), never a point.
//!
//! It deliberately does not know what the records are used for.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::{Context, Result};
use jiff::Timestamp;
use rusqlite::{Connection, ErrorCode, OptionalExtension, Params, params};
use serde::{Deserialize, Serialize};

use super::statements::Statements;
use super::{absence, drill, figures, notes, part, seed, verified};
use crate::error::{Code, Failure};
use crate::logic::clock::Watch;
use crate::logic::name::{DatasetName, NodeName, RoleName};
use crate::logic::point::PointId;

/// Version of the tables, in SQLite's `user_version`.
const SCHEMA_VERSION: i64 = 1;

const SCHEMA: &str = "
CREATE TABLE role (
    name TEXT PRIMARY KEY, id TEXT NOT NULL, term TEXT NOT NULL, active INTEGER NOT NULL,
    sequence INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE TABLE cycle (
    role TEXT PRIMARY KEY, started INTEGER, good INTEGER, error TEXT
) STRICT;
CREATE TABLE base (
    role TEXT NOT NULL, peer TEXT NOT NULL, point TEXT NOT NULL, PRIMARY KEY (role, peer)
) STRICT;
CREATE TABLE sending (
    role TEXT NOT NULL, peer TEXT NOT NULL, point TEXT NOT NULL, PRIMARY KEY (role, peer)
) STRICT;
CREATE TABLE transfer (
    id INTEGER PRIMARY KEY, role TEXT NOT NULL, dataset TEXT NOT NULL, peer TEXT NOT NULL, point TEXT NOT NULL,
    direction TEXT NOT NULL, started INTEGER NOT NULL, ended INTEGER NOT NULL, data_bytes INTEGER NOT NULL,
    wire_bytes INTEGER NOT NULL, resumed_at INTEGER NOT NULL, error TEXT
) STRICT;
CREATE TABLE event (
    id INTEGER PRIMARY KEY, at INTEGER NOT NULL, role TEXT, warning INTEGER NOT NULL, text TEXT NOT NULL
) STRICT;
CREATE TABLE invite (
    id TEXT PRIMARY KEY, expires INTEGER NOT NULL, body TEXT NOT NULL
) STRICT;
";

/// A table that an older program may lack and ignores: no new version.
const CLOCK: &str = "
CREATE TABLE IF NOT EXISTS clock (one INTEGER PRIMARY KEY CHECK (one = 1), watch TEXT NOT NULL) STRICT;
";

/// What a node remembers of a role's cycles.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CycleRecord {
    /// Start of the last cycle.
    pub started: Option<Timestamp>,
    /// End of the last cycle that went well.
    pub good: Option<Timestamp>,
    /// Why the last cycle failed; none when it went well.
    pub error: Option<String>,
    /// The peer that could not be brought up to date, where that is why.
    pub peer: Option<NodeName>,
}

/// One finished attempt of a transfer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TransferRecord {
    pub role: RoleName,
    pub dataset: DatasetName,
    pub peer: NodeName,
    /// `epoch.sequence`.
    pub point: String,
    /// `sending` or `receiving`.
    pub direction: String,
    pub started: Timestamp,
    pub ended: Timestamp,
    pub data_bytes: u64,
    pub wire_bytes: u64,
    pub resumed_at: u64,
    pub error: Option<String>,
}

/// The open database. Calls are short and serialised.
pub struct State {
    connection: Mutex<Statements>,
    path: PathBuf,
}

impl State {
    /// Opens or creates `state.sqlite` in `dir`. Refuses a database of a newer version.
    pub fn open(dir: &Path) -> Result<State> {
        let path = dir.join("state.sqlite");
        let connection =
            Connection::open(&path).with_context(|| format!("open {}", path.display()))?;
        prepare(&connection).with_context(|| format!("prepare {}", path.display()))?;
        Ok(State {
            connection: Mutex::new(Statements::of(connection)),
            path,
        })
    }

    /// One change; on disk when this returns.
    pub(super) fn change(&self, sql: &str, values: impl Params) -> Result<()> {
        let changed = self.lock().execute(sql, values);
        changed.map(|_| ()).map_err(|error| self.told(error))
    }

    /// Changes of what is only told: together or not at all; a power cut may take the last of them away.
    pub(super) fn jot(
        &self,
        write: impl FnOnce(&Connection) -> rusqlite::Result<()>,
    ) -> Result<()> {
        let written = self.lock().lazily(|connection| {
            let change = connection.unchecked_transaction()?;
            write(&change)?;
            change.commit()
        });
        written.map_err(|error| self.told(error))
    }

    /// Says what could not be written, and why where people can do something about it.
    pub(super) fn told(&self, error: rusqlite::Error) -> anyhow::Error {
        let what = format!("write the state database {}", self.path.display());
        if error.sqlite_error_code() == Some(ErrorCode::DiskFull) {
            let failure = Failure::new(Code::NoSpace, format!("{what}: its disk is full"));
            return failure
                .hint("free some space there; nothing is lost, and the work goes on by itself")
                .into();
        }
        anyhow::Error::new(error).context(what)
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Statements> {
        // A panic inside a call leaves SQLite consistent: its transaction rolls back.
        self.connection
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// What is remembered of this node's clock.
    pub fn watch(&self) -> Result<Option<Watch>> {
        let query = "SELECT watch FROM clock WHERE one = 1";
        let found: Option<String> = self
            .lock()
            .query_row(query, [], |row| row.get(0))
            .optional()?;
        let watch = found.map(|text| parse(&text)).transpose();
        watch.context("read what is remembered of the clock")
    }

    pub fn record_watch(&self, watch: &Watch) -> Result<()> {
        self.lock().execute(
            "INSERT INTO clock (one, watch) VALUES (1, ?1) ON CONFLICT (one) DO UPDATE SET watch = ?1",
            [json(watch)?],
        )?;
        Ok(())
    }

    /// The highest sequence ever given to a point of the role here: no id is used twice, even after its point is gone.
    pub fn sequence(&self, role: &RoleName) -> Result<u64> {
        let query = "SELECT sequence FROM role WHERE name = ?1";
        let found: Option<i64> = self
            .lock()
            .query_row(query, [role.as_str()], |row| row.get(0))
            .optional()?;
        Ok(found
            .and_then(|sequence| u64::try_from(sequence).ok())
            .unwrap_or(0))
    }

    /// Raises it; never lowers it. The role must be recorded.
    pub fn record_sequence(&self, role: &RoleName, sequence: u64) -> Result<()> {
        self.change(
            "UPDATE role SET sequence = max(sequence, ?2) WHERE name = ?1",
            params![role.as_str(), integer(sequence)],
        )
    }

    /// A number that was raised to and given to nothing may be given again.
    pub fn return_sequence(&self, role: &RoleName, sequence: u64) -> Result<()> {
        let before = integer(sequence.saturating_sub(1));
        self.change(
            "UPDATE role SET sequence = ?3 WHERE name = ?1 AND sequence = ?2",
            params![role.as_str(), integer(sequence), before],
        )
    }

    pub fn cycle(&self, role: &RoleName) -> Result<CycleRecord> {
        let row = self
            .lock()
            .query_row(
                "SELECT started, good, error, peer FROM cycle WHERE role = ?1",
                [role.as_str()],
                |row| {
                    Ok((
                        row.get::<_, Option<i64>>(0)?,
                        row.get::<_, Option<i64>>(1)?,
                        row.get(2)?,
                        row.get::<_, Option<String>>(3)?,
                    ))
                },
            )
            .optional()?;
        let Some((started, good, error, peer)) = row else {
            return Ok(CycleRecord::default());
        };
        Ok(CycleRecord {
            started: started.and_then(time),
            good: good.and_then(time),
            error,
            peer: peer.and_then(|peer| NodeName::parse(&peer).ok()),
        })
    }

    /// A cycle whose start was forgotten is due earlier.
    pub fn record_cycle(&self, role: &RoleName, record: &CycleRecord) -> Result<()> {
        self.jot(|change| {
            let sql =
                "INSERT INTO cycle (role, started, good, error, peer) VALUES (?1, ?2, ?3, ?4, ?5)
                 ON CONFLICT (role) DO UPDATE SET started = ?2, good = ?3, error = ?4, peer = ?5";
            let values = params![
                role.as_str(),
                record.started.map(Timestamp::as_millisecond),
                record.good.map(Timestamp::as_millisecond),
                record.error,
                record.peer.as_ref().map(NodeName::as_str)
            ];
            change.prepare_cached(sql)?.execute(values).map(|_| ())
        })
    }

    /// The peer is up to date: that it was not is no trouble of the last cycle any more.
    pub fn caught_up(&self, role: &RoleName, peer: &NodeName) -> Result<()> {
        self.change(
            "UPDATE cycle SET error = NULL, peer = NULL WHERE role = ?1 AND peer = ?2",
            [role.as_str(), peer.as_str()],
        )
    }

    /// The base shared with each peer: never pruned.
    pub fn bases(&self, role: &RoleName) -> Result<Vec<(NodeName, PointId)>> {
        self.points("base", role)
    }

    pub fn record_base(&self, role: &RoleName, peer: &NodeName, point: &PointId) -> Result<()> {
        self.record_point("base", role, peer, point)
    }

    /// The point whose transfer to each peer was begun and not yet committed: kept so that it can resume.
    pub fn sendings(&self, role: &RoleName) -> Result<Vec<(NodeName, PointId)>> {
        self.points("sending", role)
    }

    pub fn record_sending(&self, role: &RoleName, peer: &NodeName, point: &PointId) -> Result<()> {
        self.record_point("sending", role, peer, point)
    }

    pub fn clear_sending(&self, role: &RoleName, peer: &NodeName) -> Result<()> {
        self.change(
            "DELETE FROM sending WHERE role = ?1 AND peer = ?2",
            params![role.as_str(), peer.as_str()],
        )
    }

    /// Forgets what pins points for a peer that was removed.
    pub fn forget_peer(&self, peer: &NodeName) -> Result<()> {
        let mut connection = self.lock();
        let change = connection.transaction()?;
        change.execute("DELETE FROM base WHERE peer = ?1", [peer.as_str()])?;
        change.execute("DELETE FROM sending WHERE peer = ?1", [peer.as_str()])?;
        change.execute("DELETE FROM absence WHERE peer = ?1", [peer.as_str()])?;
        change.execute("DELETE FROM heard WHERE peer = ?1", [peer.as_str()])?;
        change.commit().map_err(|error| self.told(error))
    }

    fn points(&self, table: &str, role: &RoleName) -> Result<Vec<(NodeName, PointId)>> {
        let connection = self.lock();
        let mut query =
            connection.prepare(&format!("SELECT peer, point FROM {table} WHERE role = ?1"))?;
        let rows = query.query_map([role.as_str()], |row| {
            Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?))
        })?;
        rows.map(|row| {
            let (peer, point) = row?;
            let point =
                parse(&point).with_context(|| format!("read {table} of {role} with {peer}"))?;
            Ok((NodeName::parse(&peer)?, point))
        })
        .collect()
    }

    fn record_point(
        &self,
        table: &str,
        role: &RoleName,
        peer: &NodeName,
        point: &PointId,
    ) -> Result<()> {
        self.change(
            &format!(
                "INSERT INTO {table} (role, peer, point) VALUES (?1, ?2, ?3)
                 ON CONFLICT (role, peer) DO UPDATE SET point = ?3"
            ),
            params![role.as_str(), peer.as_str(), json(point)?],
        )
    }

    /// An invitation to pair, in the words of whoever recorded it.
    pub fn invite(&self, id: &str) -> Result<Option<String>> {
        let query = "SELECT body FROM invite WHERE id = ?1";
        Ok(self
            .lock()
            .query_row(query, [id], |row| row.get(0))
            .optional()?)
    }

    /// Adds or replaces an invitation, and drops those that expired more than a day before `now`.
    pub fn record_invite(
        &self,
        id: &str,
        expires: Timestamp,
        body: &str,
        now: Timestamp,
    ) -> Result<()> {
        let connection = self.lock();
        connection.execute(
            "INSERT INTO invite (id, expires, body) VALUES (?1, ?2, ?3)
             ON CONFLICT (id) DO UPDATE SET body = ?3",
            params![id, expires.as_millisecond(), body],
        )?;
        let yesterday = now.as_millisecond() - 86_400_000;
        connection.execute("DELETE FROM invite WHERE expires < ?1", [yesterday])?;
        Ok(())
    }
}

fn prepare(connection: &Connection) -> Result<()> {
    connection.busy_timeout(std::time::Duration::from_secs(10))?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    let version: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    match version {
        SCHEMA_VERSION => {}
        0 => {
            let create = format!("BEGIN; {SCHEMA} PRAGMA user_version = {SCHEMA_VERSION}; COMMIT;");
            connection.execute_batch(&create).context("create tables")?;
        }
        newer => anyhow::bail!(
            "it was written by a newer standin (version {newer}, this one knows {SCHEMA_VERSION})"
        ),
    }
    let later = [
        CLOCK,
        absence::TABLE,
        figures::TABLES,
        notes::TABLES,
        part::TABLES,
        verified::TABLE,
        drill::TABLE,
        seed::memory::TABLE,
    ]
    .concat();
    connection.execute_batch(&later).context("create tables")?;
    part::add_columns(connection).context("add columns")
}

pub(super) fn json<T: Serialize>(value: &T) -> Result<String> {
    Ok(serde_json::to_string(value)?)
}

pub(super) fn parse<T: for<'de> Deserialize<'de>>(text: &str) -> Result<T> {
    Ok(serde_json::from_str(text)?)
}

pub(super) fn time(millisecond: i64) -> Option<Timestamp> {
    Timestamp::from_millisecond(millisecond).ok()
}

/// SQLite integers are signed; no count of bytes reaches 2^63.
pub(super) fn integer(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    use crate::host::part::RoleRecord;
    use crate::logic::line::Line;
    use crate::logic::point::{RoleId, Term};
    use crate::logic::role::Record;

    fn term(epoch: u64) -> Term {
        Term {
            epoch,
            holder: NodeName::parse("alder").unwrap(),
            nonce: u64::MAX,
        }
    }

    #[test]
    fn records_survive_reopening() {
        let dir = tempfile::tempdir().unwrap();
        let role = RoleName::parse("web").unwrap();
        let peer = NodeName::parse("birch").unwrap();
        let record = RoleRecord {
            id: RoleId(uuid::Uuid::new_v4()),
            part: Record::standby(peer.clone(), Default::default(), term(3)),
            line: Line::first(term(3)),
        };
        let point = |sequence| PointId {
            term: term(3),
            sequence,
        };
        let now: Timestamp = "2026-11-20T12:00:00.5Z".parse().unwrap();
        let cycle = CycleRecord {
            started: Some(now),
            good: None,
            error: Some("no link".into()),
            peer: Some(peer.clone()),
        };
        {
            let state = State::open(dir.path()).unwrap();
            assert_eq!(state.role(&role).unwrap(), None);
            assert_eq!(state.cycle(&role).unwrap(), CycleRecord::default());
            assert_eq!(state.sequence(&role).unwrap(), 0);
            state.record_role(&role, &record).unwrap();
            state.record_sequence(&role, 7).unwrap();
            state.record_sequence(&role, 5).unwrap();
            state.record_sequence(&role, 8).unwrap();
            state.return_sequence(&role, 9).unwrap();
            assert_eq!(state.sequence(&role).unwrap(), 8);
            state.return_sequence(&role, 8).unwrap();
            state.record_role(&role, &record).unwrap();
            state.record_cycle(&role, &cycle).unwrap();
            state.record_base(&role, &peer, &point(1)).unwrap();
            state.record_base(&role, &peer, &point(2)).unwrap();
            state.record_sending(&role, &peer, &point(3)).unwrap();
            state.record_invite("a", now, "body", now).unwrap();
            state.record_event(now, Some(&role), true, "x").unwrap();
        }
        let state = State::open(dir.path()).unwrap();
        assert_eq!(state.role(&role).unwrap(), Some(record));
        assert_eq!(state.cycle(&role).unwrap(), cycle);
        let other = NodeName::parse("cedar").unwrap();
        state.caught_up(&role, &other).unwrap();
        assert_eq!(state.cycle(&role).unwrap(), cycle);
        state.caught_up(&role, &peer).unwrap();
        assert_eq!(state.cycle(&role).unwrap().error, None);
        assert_eq!(state.sequence(&role).unwrap(), 7);
        assert_eq!(state.bases(&role).unwrap(), vec![(peer.clone(), point(2))]);
        assert_eq!(
            state.sendings(&role).unwrap(),
            vec![(peer.clone(), point(3))]
        );
        assert_eq!(state.invite("a").unwrap().as_deref(), Some("body"));
        state.forget_peer(&peer).unwrap();
        assert!(state.bases(&role).unwrap().is_empty());
        assert!(state.sendings(&role).unwrap().is_empty());
    }

    #[test]
    fn a_newer_database_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        drop(State::open(dir.path()).unwrap());
        let raw = Connection::open(dir.path().join("state.sqlite")).unwrap();
        raw.pragma_update(None, "user_version", 99).unwrap();
        let error = State::open(dir.path()).err().unwrap();
        assert!(format!("{error:#}").contains("newer standin"), "{error:#}");
    }
}
