//! A connection that keeps the statements it has read, and that can put off waiting for the disk.
//!
//! Promise: what is asked and changed is the same as without. Of what is changed [`Statements::lazily`] a power cut may take the
//! last away, never a part of it, and nothing of what was changed otherwise before or after (docs/decisions/0035-lazy-history.md).
//!
//! It deliberately does not know what the statements are about.

use std::ops::{Deref, DerefMut};

use rusqlite::{CachedStatement, Connection, Params, Result, Row};

/// More than there are in the program, so that none pushes another out.
const KEPT: usize = 128;

/// Used in place of the connection: the methods of the same names are these.
pub struct Statements(Connection);

impl Statements {
    pub fn of(connection: Connection) -> Statements {
        connection.set_prepared_statement_cache_capacity(KEPT);
        Statements(connection)
    }

    /// Changes that are on disk with the next one that has to be, or when SQLite moves its log into the database: in WAL mode
    /// `synchronous=NORMAL` leaves out the wait at a commit, and keeps the order (SQLite, pragma.html#pragma_synchronous).
    pub fn lazily<T>(&self, act: impl FnOnce(&Statements) -> Result<T>) -> Result<T> {
        self.0.pragma_update(None, "synchronous", "NORMAL")?;
        let done = act(self);
        self.0.pragma_update(None, "synchronous", "FULL")?;
        done
    }

    pub fn prepare(&self, sql: &str) -> Result<CachedStatement<'_>> {
        self.0.prepare_cached(sql)
    }

    pub fn execute(&self, sql: &str, values: impl Params) -> Result<usize> {
        self.prepare(sql)?.execute(values)
    }

    pub fn query_row<T>(
        &self,
        sql: &str,
        values: impl Params,
        read: impl FnOnce(&Row<'_>) -> Result<T>,
    ) -> Result<T> {
        self.prepare(sql)?.query_row(values, read)
    }
}

impl Deref for Statements {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        &self.0
    }
}

impl DerefMut for Statements {
    fn deref_mut(&mut self) -> &mut Connection {
        &mut self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn synchronous(connection: &Connection) -> i64 {
        let value = connection.pragma_query_value(None, "synchronous", |row| row.get(0));
        value.unwrap()
    }

    #[test]
    fn only_what_is_lazy_is_not_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let connection = Connection::open(dir.path().join("db")).unwrap();
        connection
            .pragma_update(None, "journal_mode", "WAL")
            .unwrap();
        connection
            .pragma_update(None, "synchronous", "FULL")
            .unwrap();
        let connection = Statements::of(connection);
        connection
            .execute("CREATE TABLE one (n INTEGER) STRICT", [])
            .unwrap();
        let check = |sql: &str, is_well: bool| {
            let done = connection.lazily(|connection| {
                assert_eq!(synchronous(connection), 1, "{sql}");
                connection.execute(sql, [])
            });
            assert_eq!(done.is_ok(), is_well, "{sql}: {done:?}");
            assert_eq!(synchronous(&connection), 2, "after {sql}");
        };
        check("INSERT INTO one VALUES (1)", true);
        check("INSERT INTO one VALUES ('no number')", false);
        check("INSERT INTO none VALUES (1)", false);
        // The same statement again, with other values.
        for n in 2..5 {
            connection
                .execute("INSERT INTO one VALUES (?1)", [n])
                .unwrap();
        }
        let sum = connection.query_row("SELECT sum(n) FROM one", [], |row| row.get::<_, i64>(0));
        assert_eq!(sum.unwrap(), 1 + 2 + 3 + 4);
    }
}
