//! Where things lie below `<top>/.standin`, the same on every node:
//!
//!     .standin/                                     0700 root
//!       <role>/<point-name>/<dataset>               read-only snapshot
//!       <role>/<point-name>/.manifest.json          logic::manifest::Manifest
//!       <role>/<point-name>/.local.json             logic::manifest::LocalFacts
//!       <role>/<point-name>/.destroyed              on its way out, in a role that spans filesystems
//!       .staging/<role>/<point-name>/               a point being received (see `receive`)
//!       .staging/<role>/.new-<point-name>/          a point being taken
//!       .staging/<role>/.restore-<dataset>/         a live subvolume being replaced or taken away (see `settle`)
//!       .aside/<role>/<unique>/<dataset>            an old live subvolume that nothing else may hold
//!       .aside/<role>/<point-name>.<unique>/        a damaged point (see `aside`)
//!       .drill/<role>/<dataset>                     a throw-away writable copy (see `drill`)
//!       .looks/<role>/<unique>/<dataset>            a throw-away copy of live data (see `look`)
//!       .forks/<role>/<fork>/<point-name>/          points that are not of the line (see `forks`)
//!       .trash/<unique>/                            hidden first, destroyed after
//!
//! Names of roles, points and datasets never begin with a dot. A role may span filesystems; each is one [`Part`].
//!
//! It deliberately does not know what the files say.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::place::Place;
use super::top::Top;
use super::{disk, ioctl};
use crate::fs::Result;
use crate::logic::name::{DatasetName, RoleName};

pub const STANDIN: &str = ".standin";
pub const MANIFEST: &str = ".manifest.json";
pub const LOCAL: &str = ".local.json";
/// Why the point is not used any more, whatever else is said of it.
pub const CONDEMNED: &str = ".condemned.json";
pub const DESTROYED: &str = ".destroyed";
pub const NEW_PREFIX: &str = ".new-";
pub const RESTORE_PREFIX: &str = ".restore-";

/// Largest `.local.json` read, in bytes.
pub const LOCAL_BYTES_MAX: usize = 1 << 20;

/// The part of a role that lies on one filesystem.
#[derive(Debug, Clone)]
pub struct Part {
    pub top: Arc<Top>,
    pub places: Vec<Place>,
    role: RoleName,
}

impl Part {
    pub fn new(role: &RoleName, top: Arc<Top>) -> Part {
        Part {
            top,
            places: Vec::new(),
            role: role.clone(),
        }
    }

    /// Makes the directories of the role where they are missing.
    pub fn make_dirs(&self) -> Result<()> {
        for dir in [self.points(), self.staging(), self.trash()] {
            disk::make_dir(&dir)?;
        }
        Ok(())
    }

    pub fn holds(&self, dataset: &DatasetName) -> bool {
        self.places.iter().any(|place| place.dataset == *dataset)
    }

    /// Whether what is seen at `path` lies on this filesystem; none: it cannot be looked at. The table of mounts says of a
    /// mount where it begins in its filesystem, and points of other filesystems have the same paths and names.
    pub fn is_seen_at(&self, path: &Path) -> Option<bool> {
        let dir = std::fs::File::open(path).ok()?;
        Some(ioctl::fs_info(dir).ok()?.fsid == self.top.fsid)
    }

    /// Complete points.
    pub fn points(&self) -> PathBuf {
        self.standin().join(&self.role)
    }

    pub fn staging(&self) -> PathBuf {
        self.standin().join(".staging").join(&self.role)
    }

    pub fn trash(&self) -> PathBuf {
        self.standin().join(".trash")
    }

    pub fn aside(&self) -> PathBuf {
        self.standin().join(".aside").join(&self.role)
    }

    /// Copies for the drill that is under way.
    pub fn drill(&self) -> PathBuf {
        self.standin().join(".drill").join(&self.role)
    }

    /// Copies of live data that somebody looks at.
    pub fn looks(&self) -> PathBuf {
        self.standin().join(".looks").join(&self.role)
    }

    /// Points that are not of the line.
    pub fn forks(&self) -> PathBuf {
        self.standin().join(".forks").join(&self.role)
    }

    /// A fresh name in the trash.
    pub fn new_trash(&self) -> PathBuf {
        self.trash().join(uuid::Uuid::new_v4().to_string())
    }

    /// `path` (one of the above) from the top level.
    pub fn relative<'a>(&self, path: &'a Path) -> &'a Path {
        path.strip_prefix(self.top.path())
            .expect("every path of a part begins with its top")
    }

    fn standin(&self) -> PathBuf {
        self.top.path().join(STANDIN)
    }
}
