//! What the state database remembers of peers that are away: since when, what was said of it, and what was let go.
//!
//! Promise: a release is one transaction: the base is unpinned and the release recorded, or neither. A crash leaves the state
//! before or after.

use anyhow::{Context, Result};
use jiff::Timestamp;
use rusqlite::{OptionalExtension, params};

use super::state::{State, json, parse, time};
use crate::logic::name::{NodeName, RoleName};
use crate::logic::point::PointId;

pub(super) const TABLE: &str = "
CREATE TABLE IF NOT EXISTS absence (
    role TEXT NOT NULL, peer TEXT NOT NULL, seen INTEGER, told INTEGER, step INTEGER NOT NULL DEFAULT 0,
    released TEXT, why TEXT, PRIMARY KEY (role, peer)
) STRICT;
";

/// What is remembered of one peer of a role.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Absence {
    /// The last word from it about the role.
    pub seen: Option<Timestamp>,
    /// The last warning: when, and of which step.
    pub told: Option<(u8, Timestamp)>,
    /// The base that was let go, and why; none once a new one is shared.
    pub released: Option<(PointId, String)>,
}

impl State {
    pub fn absence(&self, role: &RoleName, peer: &NodeName) -> Result<Absence> {
        let row = self
            .lock()
            .query_row(
                "SELECT seen, told, step, released, why FROM absence WHERE role = ?1 AND peer = ?2",
                [role.as_str(), peer.as_str()],
                |row| {
                    Ok((
                        row.get::<_, Option<i64>>(0)?,
                        row.get::<_, Option<i64>>(1)?,
                        row.get::<_, u8>(2)?,
                        row.get::<_, Option<String>>(3)?,
                        row.get::<_, Option<String>>(4)?,
                    ))
                },
            )
            .optional()?;
        let Some((seen, told, step, released, why)) = row else {
            return Ok(Absence::default());
        };
        let released = released
            .map(|point| parse(&point))
            .transpose()
            .with_context(|| format!("read what was let go of {role} for {peer}"))?;
        Ok(Absence {
            seen: seen.and_then(time),
            told: told.and_then(time).map(|told| (step, told)),
            released: released.map(|point| (point, why.unwrap_or_default())),
        })
    }

    /// A word from the peer: what was said of its absence is over.
    pub fn record_seen(&self, role: &RoleName, peer: &NodeName, at: Timestamp) -> Result<()> {
        self.change(
            "INSERT INTO absence (role, peer, seen) VALUES (?1, ?2, ?3)
             ON CONFLICT (role, peer) DO UPDATE SET seen = ?3, told = NULL, step = 0",
            params![role.as_str(), peer.as_str(), at.as_millisecond()],
        )
    }

    /// A warning was given.
    pub fn record_told(
        &self,
        role: &RoleName,
        peer: &NodeName,
        step: u8,
        at: Timestamp,
    ) -> Result<()> {
        self.change(
            "UPDATE absence SET told = ?4, step = ?3 WHERE role = ?1 AND peer = ?2",
            params![role.as_str(), peer.as_str(), step, at.as_millisecond()],
        )
    }

    /// Unpins what is kept for the peer, and remembers that.
    pub fn release_base(
        &self,
        role: &RoleName,
        peer: &NodeName,
        base: &PointId,
        why: &str,
    ) -> Result<()> {
        let pair = params![role.as_str(), peer.as_str()];
        let mut connection = self.lock();
        let change = connection.transaction()?;
        change
            .execute(
                "INSERT INTO absence (role, peer, released, why) VALUES (?1, ?2, ?3, ?4)
                 ON CONFLICT (role, peer) DO UPDATE SET released = ?3, why = ?4",
                params![role.as_str(), peer.as_str(), json(base)?, why],
            )
            .map_err(|error| self.told(error))?;
        change.execute("DELETE FROM base WHERE role = ?1 AND peer = ?2", pair)?;
        change.execute("DELETE FROM sending WHERE role = ?1 AND peer = ?2", pair)?;
        change.commit().map_err(|error| self.told(error))
    }

    /// There is a base again.
    pub fn clear_released(&self, role: &RoleName, peer: &NodeName) -> Result<()> {
        self.change(
            "UPDATE absence SET released = NULL, why = NULL WHERE role = ?1 AND peer = ?2 AND released IS NOT NULL",
            params![role.as_str(), peer.as_str()],
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::logic::point::Term;

    #[test]
    fn absences_are_remembered() {
        let dir = tempfile::tempdir().unwrap();
        let (web, birch) = (
            RoleName::parse("web").unwrap(),
            NodeName::parse("birch").unwrap(),
        );
        let holder = NodeName::parse("alder").unwrap();
        let term = Term {
            epoch: 1,
            holder,
            nonce: 3,
        };
        let point = PointId { term, sequence: 7 };
        let at = |second| Timestamp::from_second(second).unwrap();
        {
            let state = State::open(dir.path()).unwrap();
            assert_eq!(state.absence(&web, &birch).unwrap(), Absence::default());
            state.record_base(&web, &birch, &point).unwrap();
            state.record_sending(&web, &birch, &point).unwrap();
            state.record_seen(&web, &birch, at(5)).unwrap();
            state.record_told(&web, &birch, 2, at(6)).unwrap();
        }
        let state = State::open(dir.path()).unwrap();
        let found = state.absence(&web, &birch).unwrap();
        assert_eq!((found.seen, found.told), (Some(at(5)), Some((2, at(6)))));
        state.release_base(&web, &birch, &point, "away").unwrap();
        assert!(state.bases(&web).unwrap().is_empty());
        assert!(state.sendings(&web).unwrap().is_empty());
        let found = state.absence(&web, &birch).unwrap();
        assert_eq!(found.released, Some((point, "away".to_owned())));
        state.record_seen(&web, &birch, at(9)).unwrap();
        state.clear_released(&web, &birch).unwrap();
        let found = state.absence(&web, &birch).unwrap();
        assert_eq!(
            (found.seen, found.told, found.released),
            (Some(at(9)), None, None)
        );
    }
}
