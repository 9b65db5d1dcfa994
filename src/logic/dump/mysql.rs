//! MariaDB and MySQL: how they are made consistent in a point.

use super::Server;

/// A dump of kind `mysql` (or `mariadb`, which means the same).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mysql {
    pub mode: Mode,
    pub server: Server,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Writers are held (BACKUP STAGE, or FLUSH TABLES WITH READ LOCK) while the snapshots are made.
    Freeze,
    /// mariadb-dump or mysqldump in one transaction, into a dataset.
    Dump,
}

impl Mode {
    pub fn word(self) -> &'static str {
        match self {
            Mode::Freeze => "freeze",
            Mode::Dump => "dump",
        }
    }
}
