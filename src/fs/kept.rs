//! A dataset that somebody reads, kept from being destroyed meanwhile.
//!
//! It deliberately does not know what keeping takes: each filesystem has its own guard.

use std::fmt;
use std::path::{Path, PathBuf};

use super::Held;

/// What is kept from being destroyed by this process for as long as this lives.
pub struct Kept {
    held: Held,
    path: PathBuf,
    _guard: Box<dyn Send + Sync>,
}

impl Kept {
    /// `guard` lets go of it when it is dropped.
    pub fn new(held: Held, path: PathBuf, guard: impl Send + Sync + 'static) -> Kept {
        Kept {
            held,
            path,
            _guard: Box::new(guard),
        }
    }

    /// By which the filesystem knows it.
    pub fn held(&self) -> &Held {
        &self.held
    }

    /// By which this process reads it.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl fmt::Debug for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Kept({:?} at {})", self.held, self.path.display())
    }
}
