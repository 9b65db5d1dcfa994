//! What happened lately, out of the state database.
//!
//! Promise: looking changes nothing, and a row that makes no sense (of another version, or changed by hand) is left out
//! rather than keeping the others from being shown.

use anyhow::Result;
use jiff::Timestamp;

use super::state::State;
use crate::logic::name::RoleName;

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
