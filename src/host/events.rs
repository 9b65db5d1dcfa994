//! What happened lately, in the state database: notes and warnings, and how transfers went.
//!
//! Promise: the last of it may be lost with the power, and nothing is decided by it. Looking changes nothing, and a row that
//! makes no sense (of another version, or changed by hand) is left out rather than keeping the others from being shown.

use anyhow::Result;
use jiff::Timestamp;
use rusqlite::params;

use super::state::{State, TransferRecord, integer};
use crate::logic::name::RoleName;

/// Finished transfers kept for plots; older ones are dropped.
const TRANSFERS_MAX: i64 = 100_000;

/// Events kept for `status` and for people; older ones are dropped.
const EVENTS_MAX: i64 = 10_000;

/// One note or warning.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventRecord {
    /// To the millisecond.
    pub at: Timestamp,
    pub role: Option<RoleName>,
    pub warning: bool,
    pub text: String,
}

impl State {
    pub fn record_event(
        &self,
        at: Timestamp,
        role: Option<&RoleName>,
        warning: bool,
        text: &str,
    ) -> Result<()> {
        self.jot(|change| {
            let add = "INSERT INTO event (at, role, warning, text) VALUES (?1, ?2, ?3, ?4)";
            let role = role.map(RoleName::as_str);
            let values = params![at.as_millisecond(), role, warning, text];
            change.prepare_cached(add)?.execute(values)?;
            let old = "DELETE FROM event WHERE id <= last_insert_rowid() - ?1";
            change.prepare_cached(old)?.execute([EVENTS_MAX])?;
            Ok(())
        })
    }

    pub fn record_transfer(&self, record: &TransferRecord) -> Result<()> {
        self.jot(|change| {
            let add = "INSERT INTO transfer (role, dataset, peer, point, direction, started, ended, data_bytes,
                 wire_bytes, resumed_at, error) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)";
            change.prepare_cached(add)?.execute(params![
                record.role.as_str(),
                record.dataset.as_str(),
                record.peer.as_str(),
                record.point,
                record.direction,
                record.started.as_millisecond(),
                record.ended.as_millisecond(),
                integer(record.data_bytes),
                integer(record.wire_bytes),
                integer(record.resumed_at),
                record.error
            ])?;
            let old = "DELETE FROM transfer WHERE id <= last_insert_rowid() - ?1";
            change.prepare_cached(old)?.execute([TRANSFERS_MAX])?;
            Ok(())
        })
    }

    /// The newest `most` events, oldest first.
    pub fn events(&self, most: u32) -> Result<Vec<EventRecord>> {
        let connection = self.lock();
        let sql = "SELECT at, role, warning, text FROM event ORDER BY id DESC LIMIT ?1";
        let mut query = connection.prepare(sql)?;
        let rows = query.query_map([most], |row| {
            let (at, role): (i64, Option<String>) = (row.get(0)?, row.get(1)?);
            Ok((at, role, row.get(2)?, row.get(3)?))
        })?;
        let mut events = Vec::new();
        for row in rows {
            let (at, role, warning, text) = row?;
            let role = role.as_deref().map(RoleName::parse).transpose();
            if let (Ok(at), Ok(role)) = (Timestamp::from_millisecond(at), role) {
                events.push(EventRecord {
                    at,
                    role,
                    warning,
                    text,
                });
            }
        }
        events.reverse();
        Ok(events)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_are_given_oldest_first() {
        let dir = tempfile::tempdir().unwrap();
        let state = State::open(dir.path()).unwrap();
        let at = |second: i64| Timestamp::from_second(1_800_000_000 + second).unwrap();
        let web = RoleName::parse("web").unwrap();
        for (second, role, warning) in [(0, None, false), (1, Some(&web), true), (2, None, false)] {
            let text = format!("event {second}");
            state
                .record_event(at(second), role, warning, &text)
                .unwrap();
        }
        let check = |most, expected: &[&str]| {
            let events = state.events(most).unwrap();
            let texts: Vec<&str> = events.iter().map(|event| event.text.as_str()).collect();
            assert_eq!(texts, expected);
        };
        check(0, &[]);
        check(2, &["event 1", "event 2"]);
        check(9, &["event 0", "event 1", "event 2"]);
        let middle = state.events(2).unwrap().remove(0);
        assert_eq!(
            (middle.at, middle.role, middle.warning),
            (at(1), Some(web), true)
        );
        let odd = "INSERT INTO event (at, role, warning, text) VALUES (1, '../x', 0, 'odd')";
        state.lock().execute(odd, []).unwrap();
        check(2, &["event 2"]);
    }
}
