//! Notes to a later daemon, in the state database: who is held still by commands, and which dumps a new live copy still has to be
//! given.
//!
//! Promise: a note is on disk before what it tells of begins, and is taken back after that has ended. What a crash leaves is
//! therefore done again, never forgotten.
//!
//! It deliberately does not know how anybody is held, nor what a dump is.

use anyhow::{Context, Result};
use rusqlite::{OptionalExtension, params};

use super::state::State;
use crate::logic::name::RoleName;
use crate::logic::point::PointId;

pub(super) const TABLES: &str = "
CREATE TABLE IF NOT EXISTS held (
    role TEXT NOT NULL, dump TEXT NOT NULL, PRIMARY KEY (role, dump)
) STRICT;
CREATE TABLE IF NOT EXISTS loading (
    role TEXT PRIMARY KEY, point TEXT NOT NULL, placed INTEGER NOT NULL
) STRICT;
";

/// A live copy that was made from a point, and on which the role's services have not run whole yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loading {
    pub point: PointId,
    /// What the point kept for the data directories is in them: never put there again, a server may have read it.
    pub placed: bool,
}

impl State {
    /// Commands are about to hold this dump's writers still.
    pub fn note_held(&self, role: &RoleName, dump: &RoleName) -> Result<()> {
        let sql = "INSERT OR REPLACE INTO held (role, dump) VALUES (?1, ?2)";
        self.change(sql, [role.as_str(), dump.as_str()])
    }

    pub fn note_thawed(&self, role: &RoleName, dump: &RoleName) -> Result<()> {
        let sql = "DELETE FROM held WHERE role = ?1 AND dump = ?2";
        self.change(sql, [role.as_str(), dump.as_str()])
    }

    /// Dumps of a role whose writers an earlier daemon left held.
    pub fn held(&self, role: &RoleName) -> Result<Vec<RoleName>> {
        let connection = self.lock();
        let mut query = connection.prepare("SELECT dump FROM held WHERE role = ?1")?;
        let rows = query.query_map([role.as_str()], |row| row.get::<_, String>(0))?;
        rows.map(|row| RoleName::parse(&row?).context("read the name of a dump"))
            .collect()
    }

    /// The live copy of the role is being made from this point.
    pub fn note_loading(&self, role: &RoleName, point: &PointId) -> Result<()> {
        let point = serde_json::to_string(point).context("write a point's id")?;
        let sql = "INSERT OR REPLACE INTO loading (role, point, placed) VALUES (?1, ?2, 0)";
        self.change(sql, [role.as_str(), &point])
    }

    pub fn note_placed(&self, role: &RoleName) -> Result<()> {
        self.change(
            "UPDATE loading SET placed = 1 WHERE role = ?1",
            [role.as_str()],
        )
    }

    /// The services of the role run on its live copy.
    pub fn note_loaded(&self, role: &RoleName) -> Result<()> {
        self.change("DELETE FROM loading WHERE role = ?1", [role.as_str()])
    }

    pub fn loading(&self, role: &RoleName) -> Result<Option<Loading>> {
        let query = "SELECT point, placed FROM loading WHERE role = ?1";
        let row = self.lock().query_row(query, params![role.as_str()], |row| {
            Ok((row.get::<_, String>(0)?, row.get(1)?))
        });
        let Some((point, placed)) = row.optional()? else {
            return Ok(None);
        };
        let point = serde_json::from_str(&point);
        let point = point.with_context(|| format!("read what role {role} is being loaded from"))?;
        Ok(Some(Loading { point, placed }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::logic::name::NodeName;
    use crate::logic::point::Term;

    #[test]
    fn notes_outlive_a_daemon() {
        let dir = tempfile::tempdir().unwrap();
        let name = |word: &str| RoleName::parse(word).unwrap();
        let (web, orders, stock) = (name("web"), name("orders"), name("stock"));
        let point = PointId {
            term: Term {
                epoch: 2,
                holder: NodeName::parse("alder").unwrap(),
                nonce: u64::MAX,
            },
            sequence: 7,
        };
        let open = || State::open(dir.path()).unwrap();
        {
            let state = open();
            state.note_held(&web, &orders).unwrap();
            state.note_held(&web, &orders).unwrap();
            state.note_held(&web, &stock).unwrap();
            state.note_thawed(&web, &stock).unwrap();
            state.note_loading(&web, &point).unwrap();
        }
        let state = open();
        assert_eq!(state.held(&web).unwrap(), [orders]);
        assert_eq!(state.held(&stock).unwrap(), []);
        let loading = |placed| {
            Some(Loading {
                point: point.clone(),
                placed,
            })
        };
        assert_eq!(state.loading(&web).unwrap(), loading(false));
        state.note_placed(&web).unwrap();
        assert_eq!(state.loading(&web).unwrap(), loading(true));
        state.note_loading(&web, &point).unwrap();
        assert_eq!(state.loading(&web).unwrap(), loading(false));
        state.note_loaded(&web).unwrap();
        assert_eq!(state.loading(&web).unwrap(), None);
    }
}
