//! PostgreSQL: how it is made consistent in a point.

use super::Server;

/// A dump of kind `postgres`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Postgres {
    pub mode: Mode,
    pub server: Server,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// A checkpoint, then the snapshot, which is atomic: the data directory lies on one dataset. Nobody waits.
    Freeze,
    /// The low-level backup interface, open across the snapshots of several datasets.
    Backup,
    /// pg_dump into a dataset.
    Dump,
}

impl Mode {
    pub fn word(self) -> &'static str {
        match self {
            Mode::Freeze => "freeze",
            Mode::Backup => "backup",
            Mode::Dump => "dump",
        }
    }
}
