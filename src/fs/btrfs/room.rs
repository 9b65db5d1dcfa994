//! How much a filesystem can still take: data and metadata, with what is promised but not yet written taken off.
//!
//! statvfs counts what is allocated on disk. Data in the page cache is not, although btrfs has promised it space, so a fast
//! stream could eat a reserve long before statvfs shows it. The kernel tells the promises in
//! /sys/fs/btrfs/FSID/allocation/{data,metadata}/bytes_* (fs/btrfs/sysfs.c). Space of deleted subvolumes is not free before
//! the cleaner has been through them: it is not counted, here or there.
//!
//! Promise: reads only. Where /sys is out of reach the caller's own count of unwritten bytes takes the place of the
//! kernel's, and metadata is not judged.

use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use anyhow::Context;

use super::ioctl;
use super::mountinfo::{self, Mount};
use crate::fs::{FsError, Result};
use crate::logic::shortage::Shortage;

/// The part of a reserve that metadata must still be able to take, as a divisor ...
const METADATA_PART: u64 = 32;

/// ... and its bounds, in bytes: with less, writers of other data are refused although statvfs still shows room; more, no
/// commit needs.
const METADATA_LEAST: u64 = 4 << 20;
const METADATA_MOST: u64 = 256 << 20;

/// A filesystem whose room is looked at again and again.
#[derive(Debug, Clone)]
pub struct Gauge {
    /// `allocation` in the filesystem's directory in /sys.
    allocation: Option<PathBuf>,
    reserve: u64,
}

/// What `allocation/KIND` says, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Kind {
    total: u64,
    used: u64,
    /// Promised to dirty data and running transactions.
    promised: u64,
}

impl Gauge {
    /// For the filesystem that holds `fd`; `reserve` is what is left free, in bytes.
    pub fn new(fd: impl AsFd, reserve: u64) -> Gauge {
        let allocation = ioctl::fs_info(fd)
            .map(|info| PathBuf::from(format!("/sys/fs/btrfs/{}/allocation", info.fsid)))
            .ok()
            .filter(|path| path.is_dir());
        Gauge {
            allocation,
            reserve,
        }
    }

    /// What to say where `needed` bytes have no room.
    pub fn no_space(&self, path: &Path, needed: u64, free: u64) -> FsError {
        FsError::NoSpace {
            path: path.to_owned(),
            shortage: Shortage {
                needed,
                free,
                reserve: self.reserve,
            },
        }
    }

    /// Bytes free above the reserve on the filesystem of `path`. `unwritten`: what the caller knows it has not written out;
    /// it counts where the kernel's own figure is out of reach.
    pub fn free(&self, path: &Path, unwritten: u64) -> Result<u64> {
        let space = rustix::fs::statvfs(path).context("read free space")?;
        let free = space.f_bavail.saturating_mul(space.f_frsize);
        let kinds = self
            .allocation
            .as_deref()
            .and_then(|dir| Some((kind(&dir.join("data"))?, kind(&dir.join("metadata"))?)));
        Ok(above(free, self.reserve, kinds, unwritten))
    }
}

fn kind(dir: &Path) -> Option<Kind> {
    let number = |name: &str| -> Option<u64> {
        let text = std::fs::read_to_string(dir.join(name)).ok()?;
        text.trim().parse().ok()
    };
    Some(Kind {
        total: number("total_bytes")?,
        used: number("bytes_used")?,
        promised: number("bytes_may_use")?.saturating_add(number("bytes_reserved")?),
    })
}

/// The decision, of figures alone. Nothing is above the reserve where metadata has too little left.
fn above(free: u64, reserve: u64, kinds: Option<(Kind, Kind)>, unwritten: u64) -> u64 {
    let Some((data, metadata)) = kinds else {
        return free.saturating_sub(reserve).saturating_sub(unwritten);
    };
    // What statvfs adds to the free part of the data chunks is not allocated to chunks yet. Metadata can take it, and as a
    // rule is stored twice.
    let unallocated = free.saturating_sub(data.total.saturating_sub(data.used));
    let metadata_left = metadata
        .total
        .saturating_add(unallocated / 2)
        .saturating_sub(metadata.used)
        .saturating_sub(metadata.promised);
    let metadata_least = match reserve {
        0 => 0,
        reserve => (reserve / METADATA_PART).clamp(METADATA_LEAST, METADATA_MOST),
    };
    if metadata_left < metadata_least {
        return 0;
    }
    free.saturating_sub(reserve).saturating_sub(data.promised)
}

/// Whether files written to `dir` are compressed: because it says so, or by a mount of its filesystem.
pub fn compresses(dir: impl AsFd) -> bool {
    let mut value = [0; 16];
    let property = rustix::fs::fgetxattr(&dir, "btrfs.compression", &mut value);
    if property.is_ok_and(|length| !matches!(value.get(..length), Some(b"" | b"no" | b"none"))) {
        return true;
    }
    let Ok(ours) = ioctl::fs_info(&dir) else {
        return false;
    };
    let same = |mount: &Mount| {
        std::fs::File::open(&mount.point)
            .and_then(ioctl::fs_info)
            .is_ok_and(|info| info.fsid == ours.fsid)
    };
    let compress = |mount: &Mount| {
        let set = |word: &String| word.starts_with("compress") && !word.ends_with("=no");
        mount.kind == "btrfs" && mount.super_options.iter().any(set) && same(mount)
    };
    mountinfo::read().is_ok_and(|mounts| mounts.iter().any(compress))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    /// All in MiB; data and metadata as (total, used, promised).
    fn check(
        (free, reserve, unwritten): (u64, u64, u64),
        kinds: Option<[(u64, u64, u64); 2]>,
        expected: u64,
    ) {
        let kind = |(total, used, promised): (u64, u64, u64)| Kind {
            total: total * MIB,
            used: used * MIB,
            promised: promised * MIB,
        };
        let of = kinds.map(|[data, metadata]| (kind(data), kind(metadata)));
        let got = above(free * MIB, reserve * MIB, of, unwritten * MIB) / MIB;
        assert_eq!(got, expected, "{free} {reserve} {unwritten} {kinds:?}");
    }

    #[test]
    fn what_is_promised_is_not_free() {
        check((1000, 100, 0), None, 900);
        check((1000, 100, 50), None, 850);
        check((100, 1000, 50), None, 0);
        // The kernel's figure counts for all who write; ours is in it.
        check((1000, 100, 50), Some([(500, 100, 200), (256, 10, 5)]), 700);
        check((1000, 100, 0), Some([(500, 100, 950), (256, 10, 5)]), 0);
    }

    #[test]
    fn metadata_has_a_reserve_too() {
        // All allocated: 12 of 16 MiB of metadata are taken or promised, a 32nd of 128 MiB must be left.
        check((1000, 128, 0), Some([(1500, 500, 0), (16, 10, 2)]), 872);
        check((1000, 128, 0), Some([(1500, 500, 0), (16, 11, 2)]), 0);
        // What is not allocated can become metadata, stored twice.
        check((1000, 128, 0), Some([(500, 0, 0), (16, 16, 0)]), 872);
        check((1000, 128, 0), Some([(994, 0, 0), (16, 16, 0)]), 0);
        // Without a reserve nothing is held back.
        check((1000, 0, 0), Some([(1500, 500, 0), (16, 16, 0)]), 1000);
    }
}
