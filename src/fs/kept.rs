//! What somebody reads: a dataset that is kept from being destroyed meanwhile, and paths that lead where they should for as long
//! as somebody has them.
//!
//! Promise: a private path may be one below a descriptor of this process, whose number serves something else once it is closed; so
//! none is given without what keeps it open. It deliberately does not know what keeping takes: each filesystem has its own guard.

use std::fmt;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{Held, Result};

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

/// A path that is good for reading for as long as this or a clone of it lives. Afterwards it may lead nowhere, or to something
/// else.
#[derive(Clone)]
pub struct Readable {
    path: PathBuf,
    guard: Option<Arc<dyn Send + Sync>>,
}

/// Opens one of many paths when its turn comes.
pub type Opening<'a> = Box<dyn Fn() -> Result<Readable> + Send + Sync + 'a>;

impl Readable {
    /// `guard` lets go of what the path leads to when it is dropped.
    pub fn guarded(path: PathBuf, guard: impl Send + Sync + 'static) -> Readable {
        Readable {
            path,
            guard: Some(Arc::new(guard)),
        }
    }

    /// What lies below it, kept as this is.
    pub fn below(&self, inner: &Path) -> Readable {
        Readable {
            path: self.path.join(inner),
            guard: self.guard.clone(),
        }
    }
}

/// A path that everybody sees: nothing has to be kept open.
impl From<PathBuf> for Readable {
    fn from(path: PathBuf) -> Readable {
        Readable { path, guard: None }
    }
}

impl Deref for Readable {
    type Target = Path;

    fn deref(&self) -> &Path {
        &self.path
    }
}

impl AsRef<Path> for Readable {
    fn as_ref(&self) -> &Path {
        &self.path
    }
}

impl fmt::Debug for Readable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Readable({})", self.path.display())
    }
}
