//! SQLite: how its files are made consistent in a point.

use std::path::{Component, Path, PathBuf};

/// A dump of kind `sqlite`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sqlite {
    pub mode: Mode,
    /// Databases, absolute, each a path or a pattern of paths (`*`, `?`, `[...]`).
    pub files: Vec<PathBuf>,
    /// Where `backup` writes its copies: a directory of its own.
    pub to: Option<PathBuf>,
}

/// Most databases of one dump: each is a connection with three open files.
pub const FILES_MAX: usize = 256;

/// Whether a path stands for several.
pub fn is_pattern(path: &Path) -> bool {
    path.to_string_lossy().contains(['*', '?', '['])
}

/// The part of a path before its first pattern.
pub fn fixed_part(path: &Path) -> PathBuf {
    let fixed = |part: &Component| !is_pattern(Path::new(part));
    path.components().take_while(fixed).collect()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns() {
        let check = |path: &str, pattern: bool, fixed: &str| {
            assert_eq!(is_pattern(Path::new(path)), pattern, "{path}");
            assert_eq!(fixed_part(Path::new(path)), Path::new(fixed), "{path}");
        };
        check("/srv/app/a.db", false, "/srv/app/a.db");
        check("/srv/app/*.db", true, "/srv/app");
        check("/srv/tenant-?/a.db", true, "/srv");
        check("/srv/[ab]/c*/d.db", true, "/srv");
    }
}
