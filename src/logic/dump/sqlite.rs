//! SQLite: how its files are made consistent in a point.

use std::path::PathBuf;

/// A dump of kind `sqlite`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sqlite {
    pub mode: Mode,
    /// Databases, absolute.
    pub files: Vec<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Writers are held by a write lock on each file while the snapshots are made.
    Freeze,
    /// The online backup interface writes a copy into a dataset.
    Backup,
}

impl Mode {
    pub fn word(self) -> &'static str {
        match self {
            Mode::Freeze => "freeze",
            Mode::Backup => "backup",
        }
    }
}
