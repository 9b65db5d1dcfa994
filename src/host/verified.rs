//! How the last comparison of a role's copies with each peer ended, in the state database.
//!
//! Promise: what is recorded outlives the daemon. It deliberately does not know how copies are compared.

use anyhow::{Context, Result};
use jiff::Timestamp;
use rusqlite::params;
use serde::{Deserialize, Serialize};

use super::state::{State, json, parse};
use crate::logic::name::{NodeName, RoleName};
use crate::logic::point::PointName;

pub(super) const TABLE: &str = "
CREATE TABLE IF NOT EXISTS verified (
    role TEXT NOT NULL, peer TEXT NOT NULL, result TEXT NOT NULL, PRIMARY KEY (role, peer)
) STRICT;
";

/// A comparison that came to its end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verified {
    pub ended: Timestamp,
    pub point: PointName,
    pub equal: bool,
    /// Every file was read, on this node.
    pub full: bool,
    /// Paths that differ.
    pub differences: u64,
}

impl State {
    pub fn record_verified(&self, role: &RoleName, peer: &NodeName, what: &Verified) -> Result<()> {
        let sql = "INSERT OR REPLACE INTO verified (role, peer, result) VALUES (?1, ?2, ?3)";
        self.change(sql, params![role.as_str(), peer.as_str(), json(what)?])
    }

    /// The last comparison with each peer.
    pub fn verified(&self, role: &RoleName) -> Result<Vec<(NodeName, Verified)>> {
        let connection = self.lock();
        let sql = "SELECT peer, result FROM verified WHERE role = ?1 ORDER BY peer";
        let mut query = connection.prepare(sql)?;
        let rows = query.query_map([role.as_str()], |row| {
            Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?))
        })?;
        rows.map(|row| {
            let (peer, result) = row?;
            let peer = NodeName::parse(&peer).context("read the name of a peer")?;
            Ok((peer, parse(&result).context("read a comparison")?))
        })
        .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_one_counts() {
        let dir = tempfile::tempdir().unwrap();
        let role = RoleName::parse("web").unwrap();
        let birch = NodeName::parse("birch").unwrap();
        let verified = |equal| Verified {
            ended: "2026-11-20T12:00:00Z".parse().unwrap(),
            point: PointName::parse("20261120T120000Z.1.42").unwrap(),
            equal,
            full: true,
            differences: u64::from(!equal),
        };
        {
            let state = State::open(dir.path()).unwrap();
            assert_eq!(state.verified(&role).unwrap(), []);
            state
                .record_verified(&role, &birch, &verified(true))
                .unwrap();
            state
                .record_verified(&role, &birch, &verified(false))
                .unwrap();
        }
        let state = State::open(dir.path()).unwrap();
        assert_eq!(state.verified(&role).unwrap(), [(birch, verified(false))]);
    }
}
