//! Carries the subvolumes nested in an old live copy over into the one that took its place.
//!
//! No point holds them, so a restored copy has at best an empty directory where each of them was. One rename each puts
//! them back at the path people know, data and open files untouched.
//!
//! Promise: a nested subvolume is in the old copy or in the new one at every moment, and what is not moved is named.
//! Nothing of the new copy is replaced but an empty directory. A crash leaves some moved and some not; the same call
//! moves the rest.
//!
//! It deliberately does not know why the copies were exchanged, nor what becomes of the old one.

use std::path::{Path, PathBuf};

use anyhow::Context;

use super::subvolume;
use super::top::Top;
use crate::fs::Result;

/// What became of nested subvolumes; paths inside the dataset.
#[derive(Debug, Default)]
pub struct Carried {
    pub moved: Vec<PathBuf>,
    /// Still in the old copy.
    pub left: Vec<PathBuf>,
}

/// Moves what is nested in `old` to the same paths in `new`; both from the top level.
pub fn carry_over(top: &Top, old: &Path, new: &Path) -> Result<Carried> {
    let nested = subvolume::nested(&top.path().join(old)).context("list nested subvolumes")?;
    let mut carried = Carried::default();
    for path in outermost(nested) {
        let shown = path.display();
        match top.rename(&old.join(&path), &new.join(&path)) {
            Ok(()) => {
                tracing::info!(
                    "moved the nested subvolume {shown} over into {}",
                    new.display()
                );
                carried.moved.push(path);
            }
            // Read-only ones cannot change directory; something else may be at the path now, or no directory to hold it.
            Err(e) => {
                tracing::warn!(
                    "the nested subvolume {shown} cannot be moved over into {}: {e}",
                    new.display()
                );
                carried.left.push(path);
            }
        }
    }
    if !carried.moved.is_empty() {
        top.sync()?;
    }
    Ok(carried)
}

/// The answer where nothing takes the place of `old`: all of it stays there.
pub fn all_left(top: &Top, old: &Path) -> Result<Carried> {
    let nested = subvolume::nested(&top.path().join(old)).context("list nested subvolumes")?;
    Ok(Carried {
        moved: Vec::new(),
        left: outermost(nested),
    })
}

/// Those that lie in no other of them: the rest goes where these go. `nested` is sorted.
pub fn outermost(nested: Vec<PathBuf>) -> Vec<PathBuf> {
    let mut outer: Vec<PathBuf> = Vec::new();
    for path in nested {
        if !outer.last().is_some_and(|last| path.starts_with(last)) {
            outer.push(path);
        }
    }
    outer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_in_another_goes_with_it() {
        let paths = ["a", "a/b", "a/b/c", "a-b", "d/e", "d/e/f", "d/f"].map(PathBuf::from);
        let mut sorted = paths.to_vec();
        sorted.sort();
        assert_eq!(
            outermost(sorted),
            ["a", "a-b", "d/e", "d/f"].map(PathBuf::from)
        );
    }
}
