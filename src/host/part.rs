//! What a node must remember of its part in a role, in the state database.
//!
//! Promise: a record is on disk when it is said to be recorded, whole: the term, the state and the line change together or
//! not at all (P3). A term that is seen never falls here, whatever is recorded.
//!
//! It deliberately does not know what a state means, nor when it changes.

use anyhow::{Context, Result, bail};
use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension, params};
use uuid::Uuid;

use super::state::{State, json, parse};
use crate::logic::line::Line;
use crate::logic::name::{DatasetName, NodeName, RoleName};
use crate::logic::point::{RoleId, Term};
use crate::logic::role::{self, Record};

/// Which live copies were made under which term.
pub(super) const TABLES: &str = "
CREATE TABLE IF NOT EXISTS live (
    role TEXT NOT NULL, dataset TEXT NOT NULL, term TEXT NOT NULL, uuid TEXT NOT NULL, PRIMARY KEY (role, dataset)
) STRICT;
";

/// Columns of `role` that the first programs did not have, and ignore.
const COLUMNS: [&str; 5] = ["part", "line", "boot", "term_since", "state_since"];

/// What a node remembers of a role.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoleRecord {
    pub id: RoleId,
    /// This node's part in it.
    pub part: Record,
    /// The line, as far as it is known here.
    pub line: Line,
}

impl RoleRecord {
    /// The highest term seen for the role, from anywhere; never goes down.
    pub fn term(&self) -> &Term {
        &self.part.seen
    }

    /// Whether the line goes on from this node: it takes points and sends them.
    pub fn active(&self) -> bool {
        self.part.takes_points()
    }
}

/// What an older program wrote: it knew the term and whether it was held.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OldRecord {
    pub id: RoleId,
    pub term: Term,
    pub active: bool,
}

/// What is found of a role.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Remembered {
    Nothing,
    Old(OldRecord),
    Known(RoleRecord),
}

pub(super) fn add_columns(connection: &Connection) -> Result<()> {
    let of_role = COLUMNS.map(|column| ("role", column));
    for (table, column) in of_role.into_iter().chain([("cycle", "peer")]) {
        let query = "SELECT count(*) FROM pragma_table_info(?1) WHERE name = ?2";
        let there: i64 = connection.query_row(query, [table, column], |row| row.get(0))?;
        if there == 0 {
            connection.execute_batch(&format!("ALTER TABLE {table} ADD COLUMN {column} TEXT"))?;
        }
    }
    Ok(())
}

impl State {
    pub fn remembered(&self, role: &RoleName) -> Result<Remembered> {
        let query = "SELECT id, term, active, part, line FROM role WHERE name = ?1";
        let row = self
            .lock()
            .query_row(query, [role.as_str()], |row| {
                Ok((
                    row.get::<_, String>(0)?,
                    row.get::<_, String>(1)?,
                    row.get::<_, bool>(2)?,
                    row.get::<_, Option<String>>(3)?,
                    row.get::<_, Option<String>>(4)?,
                ))
            })
            .optional()?;
        let Some((id, term, active, part, line)) = row else {
            return Ok(Remembered::Nothing);
        };
        let id = id
            .parse()
            .with_context(|| format!("read id of role {role}"));
        let id = RoleId(id?);
        let Some(part) = part else {
            let term = parse(&term).with_context(|| format!("read term of role {role}"))?;
            return Ok(Remembered::Old(OldRecord { id, term, active }));
        };
        let part = parse(&part).with_context(|| format!("read the record of role {role}"))?;
        let line = match line {
            Some(line) => parse(&line).with_context(|| format!("read the line of role {role}"))?,
            None => Line::default(),
        };
        Ok(Remembered::Known(RoleRecord { id, part, line }))
    }

    /// The record, where there is one of this program's kind.
    pub fn role(&self, role: &RoleName) -> Result<Option<RoleRecord>> {
        Ok(match self.remembered(role)? {
            Remembered::Known(record) => Some(record),
            Remembered::Nothing | Remembered::Old(_) => None,
        })
    }

    /// Refuses to forget a higher term. Notes when the term and the state were not what they had been.
    pub fn record_role(&self, role: &RoleName, record: &RoleRecord) -> Result<()> {
        let known = self.role(role)?;
        let same = |what: &dyn Fn(&RoleRecord) -> bool| known.as_ref().is_some_and(what);
        let same_term = same(&|known| known.id == record.id && known.term() == record.term());
        let word = record.part.state.to_string();
        let same_state = same_term && same(&|known| known.part.state.to_string() == word);
        if let Some(known) = &known {
            if known.id == record.id && known.part.seen.epoch > record.part.seen.epoch {
                bail!(
                    "forget term {} of role {role} for {}",
                    known.part.seen,
                    record.part.seen
                );
            }
        }
        self.change(
            "INSERT INTO role (name, id, term, active, part, line, term_since, state_since)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?7)
             ON CONFLICT (name) DO UPDATE SET id = ?2, term = ?3, active = ?4, part = ?5, line = ?6,
             term_since = CASE WHEN ?8 THEN term_since ELSE ?7 END,
             state_since = CASE WHEN ?9 THEN state_since ELSE ?7 END",
            params![
                role.as_str(),
                record.id.to_string(),
                json(record.term())?,
                matches!(record.part.state, role::State::Active),
                json(&record.part)?,
                json(&record.line)?,
                Timestamp::now().to_string(),
                same_term,
                same_state
            ],
        )
    }

    /// The first record of a role; what is remembered then. Where somebody was quicker (or many ask at once), that is what
    /// they remembered, and it stands: it may have gone on since.
    pub fn begin_role(&self, role: &RoleName, record: &RoleRecord) -> Result<RoleRecord> {
        self.change(
            "INSERT INTO role (name, id, term, active, part, line, term_since, state_since)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?7)
             ON CONFLICT (name) DO UPDATE SET id = ?2, term = ?3, active = ?4, part = ?5, line = ?6,
             term_since = ?7, state_since = ?7
             WHERE part IS NULL",
            params![
                role.as_str(),
                record.id.to_string(),
                json(record.term())?,
                matches!(record.part.state, role::State::Active),
                json(&record.part)?,
                json(&record.line)?,
                Timestamp::now().to_string()
            ],
        )?;
        let remembered = self.role(role)?;
        remembered.with_context(|| format!("find the record of role {role} that was just begun"))
    }

    /// Forgets a role that was begun here by mistake, unless it has gone on.
    pub fn forget_role(&self, role: &RoleName, begun: &RoleRecord) -> Result<()> {
        self.change(
            "DELETE FROM role WHERE name = ?1 AND part = ?2",
            params![role.as_str(), json(&begun.part)?],
        )
    }

    /// Since when the term is known here, and the state is what it is; none where an older program wrote the record.
    pub fn since(&self, role: &RoleName) -> Result<(Option<Timestamp>, Option<Timestamp>)> {
        let query = "SELECT term_since, state_since FROM role WHERE name = ?1";
        let row = self
            .lock()
            .query_row(query, [role.as_str()], |row| Ok((row.get(0)?, row.get(1)?)));
        let (term, state): (Option<String>, Option<String>) = row.optional()?.unwrap_or_default();
        let time = |text: Option<String>| text.and_then(|text| text.parse().ok());
        Ok((time(term), time(state)))
    }

    /// The boot in which this daemon last ran with the role; none: never.
    pub fn boot(&self, role: &RoleName) -> Result<Option<String>> {
        let query = "SELECT boot FROM role WHERE name = ?1";
        let found = self
            .lock()
            .query_row(query, [role.as_str()], |row| row.get(0));
        Ok(found.optional()?.flatten())
    }

    pub fn record_boot(&self, role: &RoleName, boot: &str) -> Result<()> {
        let sql = "UPDATE role SET boot = ?2 WHERE name = ?1";
        self.change(sql, params![role.as_str(), boot])
    }

    /// Seconds that the last good transfers to a peer took, newest first.
    pub fn last_transfers(
        &self,
        role: &RoleName,
        peer: &NodeName,
        count: usize,
    ) -> Result<Vec<f64>> {
        let connection = self.lock();
        let mut query = connection.prepare(
            "SELECT ended - started FROM transfer WHERE role = ?1 AND peer = ?2 AND direction = 'sending'
             AND error IS NULL ORDER BY id DESC LIMIT ?3",
        )?;
        let count = i64::try_from(count).unwrap_or(i64::MAX);
        let values = params![role.as_str(), peer.as_str(), count];
        let rows = query.query_map(values, |row| row.get::<_, i64>(0))?;
        rows.map(|row| Ok(row? as f64 / 1000.0)).collect()
    }

    /// The live copy that was made under this term; none: it was not made yet.
    pub fn made_live(
        &self,
        role: &RoleName,
        dataset: &DatasetName,
        term: &Term,
    ) -> Result<Option<Uuid>> {
        let query = "SELECT uuid FROM live WHERE role = ?1 AND dataset = ?2 AND term = ?3";
        let values = params![role.as_str(), dataset.as_str(), json(term)?];
        let found: Option<String> = self
            .lock()
            .query_row(query, values, |row| row.get(0))
            .optional()?;
        let uuid = found.map(|text| text.parse()).transpose();
        uuid.with_context(|| format!("read the live copy of {dataset}"))
    }

    pub fn record_live(
        &self,
        role: &RoleName,
        dataset: &DatasetName,
        term: &Term,
        uuid: Uuid,
    ) -> Result<()> {
        self.change(
            "INSERT INTO live (role, dataset, term, uuid) VALUES (?1, ?2, ?3, ?4)
             ON CONFLICT (role, dataset) DO UPDATE SET term = ?3, uuid = ?4",
            params![
                role.as_str(),
                dataset.as_str(),
                json(term)?,
                uuid.to_string()
            ],
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(epoch: u64) -> RoleRecord {
        let holder = NodeName::parse("alder").unwrap();
        let term = Term {
            epoch,
            holder: holder.clone(),
            nonce: u64::MAX,
        };
        RoleRecord {
            id: RoleId(Uuid::from_u128(7)),
            part: Record::standby(holder, Default::default(), term.clone()),
            line: Line::first(term),
        }
    }

    #[test]
    fn a_database_of_the_first_programs() {
        let dir = tempfile::tempdir().unwrap();
        let role = RoleName::parse("web").unwrap();
        let known = record(3);
        {
            drop(State::open(dir.path()).unwrap());
            let raw = Connection::open(dir.path().join("state.sqlite")).unwrap();
            for column in COLUMNS {
                raw.execute_batch(&format!("ALTER TABLE role DROP COLUMN {column}"))
                    .unwrap();
            }
            raw.execute(
                "INSERT INTO role (name, id, term, active, sequence) VALUES ('web', ?1, ?2, 1, 42)",
                params![known.id.to_string(), json(known.term()).unwrap()],
            )
            .unwrap();
        }
        let state = State::open(dir.path()).unwrap();
        assert_eq!(
            state.remembered(&role).unwrap(),
            Remembered::Old(OldRecord {
                id: known.id,
                term: known.term().clone(),
                active: true
            })
        );
        state.record_role(&role, &known).unwrap();
        assert_eq!(state.role(&role).unwrap(), Some(known));
        assert_eq!(state.sequence(&role).unwrap(), 42);
    }

    #[test]
    fn since_when() {
        let dir = tempfile::tempdir().unwrap();
        let role = RoleName::parse("web").unwrap();
        let state = State::open(dir.path()).unwrap();
        assert_eq!(state.since(&role).unwrap(), (None, None));
        let back = "2026-11-20T12:00:00Z";
        let long_ago = || {
            state
                .change("UPDATE role SET term_since = ?1, state_since = ?1", [back])
                .unwrap();
        };
        let mut record = record(3);
        state.record_role(&role, &record).unwrap();
        let old: Timestamp = back.parse().unwrap();
        let mut check = |change: &dyn Fn(&mut RoleRecord), [term, part]: [bool; 2]| {
            long_ago();
            change(&mut record);
            state.record_role(&role, &record).unwrap();
            let (of_term, of_state) = state.since(&role).unwrap();
            assert_eq!([of_term != Some(old), of_state != Some(old)], [term, part]);
        };
        check(&|_| {}, [false, false]);
        check(&|record| record.part.paused = true, [false, false]);
        check(
            &|record| record.part.state = role::State::Fenced,
            [false, true],
        );
        check(&|record| record.part.seen.epoch += 1, [true, true]);
    }

    #[test]
    fn a_role_begins_once() {
        let dir = tempfile::tempdir().unwrap();
        let role = RoleName::parse("web").unwrap();
        let state = State::open(dir.path()).unwrap();
        let first = record(1);
        assert_eq!(state.begin_role(&role, &first).unwrap(), first);
        let mut gone_on = first.clone();
        gone_on.part.paused = true;
        state.record_role(&role, &gone_on).unwrap();
        // One that looked before, and was slow.
        assert_eq!(state.begin_role(&role, &first).unwrap(), gone_on);
        state.forget_role(&role, &first).unwrap();
        assert_eq!(state.role(&role).unwrap(), Some(gone_on.clone()));
        state.forget_role(&role, &gone_on).unwrap();
        assert_eq!(state.role(&role).unwrap(), None);
    }

    #[test]
    fn a_seen_term_never_falls() {
        let dir = tempfile::tempdir().unwrap();
        let role = RoleName::parse("web").unwrap();
        let state = State::open(dir.path()).unwrap();
        state.record_role(&role, &record(3)).unwrap();
        let error = state.record_role(&role, &record(2)).unwrap_err();
        assert!(error.to_string().starts_with("forget term 3"), "{error}");
        assert_eq!(state.role(&role).unwrap(), Some(record(3)));
    }

    #[test]
    fn live_copies_are_remembered_by_term() {
        let dir = tempfile::tempdir().unwrap();
        let role = RoleName::parse("web").unwrap();
        let files = DatasetName::parse("files").unwrap();
        let state = State::open(dir.path()).unwrap();
        let (third, fourth) = (record(3), record(4));
        state
            .record_live(&role, &files, third.term(), Uuid::from_u128(1))
            .unwrap();
        let made = |of: &RoleRecord| state.made_live(&role, &files, of.term()).unwrap();
        assert_eq!(made(&third), Some(Uuid::from_u128(1)));
        assert_eq!(made(&fourth), None);
    }
}
