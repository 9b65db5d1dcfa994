//! What is remembered of a role's drills, in the state database: when the last one began, of which point, and what came of the
//! last one that was not cut short.
//!
//! Promise: a beginning is on disk before anything is done, so that a drill that takes the machine down is not begun again
//! at once.
//!
//! It deliberately does not know what a drill is.

use anyhow::{Context, Result};
use jiff::Timestamp;
use rusqlite::{OptionalExtension, params};
use serde::{Deserialize, Serialize};

use super::state::{State, json, parse, time};
use crate::logic::name::RoleName;
use crate::logic::point::PointName;

/// One row a role; `result` is a [`DrillResult`] as JSON.
pub(super) const TABLE: &str = "
CREATE TABLE IF NOT EXISTS drill (
    role TEXT PRIMARY KEY, begun INTEGER NOT NULL, point TEXT NOT NULL, result TEXT
) STRICT;
";

/// A drill that came to its end.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DrillResult {
    pub ended: Timestamp,
    pub point: PointName,
    pub passed: bool,
    /// How long it took.
    pub seconds: f64,
    /// What failed first; none where it passed.
    pub failure: Option<String>,
}

/// What is known of a role's drills.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct DrillRecord {
    /// The last one that began, and its point.
    pub begun: Option<(Timestamp, PointName)>,
    pub result: Option<DrillResult>,
}

impl State {
    pub fn drill(&self, role: &RoleName) -> Result<DrillRecord> {
        let query = "SELECT begun, point, result FROM drill WHERE role = ?1";
        let row = self
            .lock()
            .query_row(query, [role.as_str()], |row| {
                Ok((
                    row.get::<_, i64>(0)?,
                    row.get::<_, String>(1)?,
                    row.get::<_, Option<String>>(2)?,
                ))
            })
            .optional()?;
        let Some((begun, point, result)) = row else {
            return Ok(DrillRecord::default());
        };
        let result = result.map(|text| parse(&text)).transpose();
        Ok(DrillRecord {
            begun: time(begun).zip(PointName::parse(&point)),
            result: result.with_context(|| format!("read the last drill of role {role}"))?,
        })
    }

    pub fn record_drill_begun(
        &self,
        role: &RoleName,
        begun: Timestamp,
        point: &PointName,
    ) -> Result<()> {
        self.change(
            "INSERT INTO drill (role, begun, point) VALUES (?1, ?2, ?3)
             ON CONFLICT (role) DO UPDATE SET begun = ?2, point = ?3",
            params![role.as_str(), begun.as_millisecond(), point.to_string()],
        )
    }

    /// The role's drill must have begun.
    pub fn record_drill(&self, role: &RoleName, result: &DrillResult) -> Result<()> {
        let sql = "UPDATE drill SET result = ?2 WHERE role = ?1";
        self.change(sql, params![role.as_str(), json(result)?])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_outlive_later_beginnings() {
        let dir = tempfile::tempdir().unwrap();
        let role = RoleName::parse("web").unwrap();
        let at = |word: &str| -> Timestamp { format!("2026-11-20T{word}Z").parse().unwrap() };
        let point = PointName::parse("20261120T120000Z.1.42").unwrap();
        let result = DrillResult {
            ended: at("12:00:12"),
            point,
            passed: false,
            seconds: 12.0,
            failure: Some("check a: exit status: 1".into()),
        };
        {
            let state = State::open(dir.path()).unwrap();
            assert_eq!(state.drill(&role).unwrap(), DrillRecord::default());
            state
                .record_drill_begun(&role, at("12:00:00"), &point)
                .unwrap();
            state.record_drill(&role, &result).unwrap();
            state
                .record_drill_begun(&role, at("13:00:00"), &point)
                .unwrap();
        }
        let state = State::open(dir.path()).unwrap();
        let expected = DrillRecord {
            begun: Some((at("13:00:00"), point)),
            result: Some(result),
        };
        assert_eq!(state.drill(&role).unwrap(), expected);
    }
}
