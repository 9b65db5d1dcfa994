//! Whether a file is in the points of a role.
//!
//! On btrfs (and ZFS) each subvolume has a device number of its own: comparing it sees through symbolic links, bind mounts and
//! subvolumes inside of a dataset, which its snapshots leave out.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use anyhow::{Context, Result};

use super::Around;
use crate::error::{Code, Failure};
use crate::logic::name::DatasetName;

/// The dataset whose snapshots hold what is at `path`, which must be there. What it is for is said in the error.
pub fn dataset<'a>(path: &Path, what: &str, around: &'a Around) -> Result<&'a DatasetName> {
    let shown = path.display();
    let facts = std::fs::metadata(path).with_context(|| format!("look at {what} {shown}"))?;
    let same = |live: &Path| std::fs::metadata(live).is_ok_and(|live| live.dev() == facts.dev());
    let found = around.datasets.iter().find(|(_, live)| same(live));
    found.map(|(name, _)| name).ok_or_else(|| {
        let (role, inside) = (&around.surroundings.role, around.dataset_of(path));
        let (what, hint) = match inside {
            Some(name) => (
                format!("find {what} {shown} in a point: it lies below dataset {name}, but on a subvolume or filesystem of its own"),
                format!("give that a section [role.{role}.dataset.NAME], or move it"),
            ),
            None => (
                format!("find {what} {shown} in a point: it lies in no dataset of role {role}"),
                format!("move it into one, or give its subvolume a section [role.{role}.dataset.NAME]"),
            ),
        };
        Failure::new(Code::Refused, what).hint(hint).into()
    })
}
