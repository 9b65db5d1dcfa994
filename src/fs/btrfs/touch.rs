//! A look for changes that writes nothing and reads no disk, for who looks several times a second.
//!
//! The kernel notes in memory in which transaction a subvolume last changed, as soon as an inode of it is updated. That is at
//! once for whatever makes, removes or renames a file, changes its attributes, truncates it, writes to it past the page cache
//! (O_DIRECT, fsync) or through a mapping. What write(2) puts into the page cache of a file that was there before moves it only
//! when it is written back, which is after 30 s by default (measured, kernel 6.18). But the space for it is set aside in the same
//! moment, and /sys/fs/btrfs tells how much is, for the filesystem as a whole: that is [`Touch::Dirty`].
//!
//! Promise: `Quiet` is only said where nothing was written since the point (mapped pages included); in doubt something was.
//! Holds nothing open between looks, so that what is live can be unmounted or exchanged.
//!
//! It deliberately does not know how often it is asked.

use std::collections::BTreeMap;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use uuid::Uuid;

use super::catalogue::{Catalogue, Found};
use super::{ioctl, live, take};
use crate::fs::{Result, Touch, Watch};

/// A live subvolume, and what a point has of it.
struct Pair {
    live: PathBuf,
    snapshot: ioctl::Subvolume,
    /// What the kernel said of the live one when it was last found to be the same.
    same: Option<ioctl::Subvolume>,
}

impl Pair {
    fn differs(&mut self) -> bool {
        let Some(dir) = open(&self.live) else {
            return true;
        };
        let facts = ioctl::subvolume(&dir).ok();
        if facts.is_some() && facts == self.same {
            return false;
        }
        // More than the kernel tells, and not looked for again while it tells nothing new.
        match live::subvolume(&dir) {
            Ok(live) if !take::differs(&live, &self.snapshot) => {
                self.same = facts;
                false
            }
            _ => true,
        }
    }
}

/// What a point's snapshots have to be compared with.
struct Points {
    pairs: Vec<Pair>,
    /// Where the kernel tells of space that is set aside for data.
    set_aside: Vec<PathBuf>,
}

impl Watch for Points {
    fn look(&mut self) -> Touch {
        let mut seen = Touch::Quiet;
        // First the pages: what is written back between the two looks shows in the second.
        if self.set_aside.iter().any(|file| !is_zero(file)) {
            seen = Touch::Dirty;
        }
        if self.pairs.iter_mut().any(Pair::differs) {
            seen = Touch::Changed;
        }
        seen
    }
}

/// See `Filesystem::watch`.
pub fn watch(catalogue: &Catalogue<'_>, found: &Found) -> Result<Box<dyn Watch>> {
    let mut pairs = Vec::new();
    let mut set_aside = BTreeMap::new();
    for part in &catalogue.parts {
        set_aside.insert(part.top.fsid, bytes_set_aside(part.top.fsid));
        for place in &part.places {
            let snapshot = take::snapshot_info(catalogue, found, &place.dataset)?;
            pairs.push(Pair {
                live: place.live.clone(),
                snapshot,
                same: None,
            });
        }
    }
    let set_aside = set_aside.into_values().collect();
    Ok(Box::new(Points { pairs, set_aside }))
}

/// Bytes of data in the page cache that have no place on disk yet (and of writes under way). A filesystem that mixes data and
/// metadata has no such file; then there is always doubt.
fn bytes_set_aside(fsid: Uuid) -> PathBuf {
    PathBuf::from(format!(
        "/sys/fs/btrfs/{fsid}/allocation/data/bytes_may_use"
    ))
}

fn is_zero(file: &Path) -> bool {
    std::fs::read_to_string(file).is_ok_and(|text| text.trim() == "0")
}

/// None where it is not there, or cannot be opened.
fn open(live: &Path) -> Option<std::fs::File> {
    let flags = libc::O_DIRECTORY | libc::O_NOFOLLOW | libc::O_NOATIME;
    let mut options = std::fs::File::options();
    options.read(true).custom_flags(flags).open(live).ok()
}
