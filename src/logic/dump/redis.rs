//! Redis: how it is made consistent in a point.

use super::Server;

/// A dump of kind `redis`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Redis {
    pub mode: Mode,
    pub server: Server,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// BGSAVE, waited for: the data directory lies in a dataset.
    Save,
    /// Writers are held and the append-only file is on disk while the snapshots are made.
    Freeze,
}

impl Mode {
    pub fn word(self) -> &'static str {
        match self {
            Mode::Save => "save",
            Mode::Freeze => "freeze",
        }
    }
}
