//! Facts about a subvolume that is written to, with what came back after a crash counted as written.
//!
//! When a filesystem is mounted that was not unmounted, the kernel writes what `fsync` had put into its log into the subvolumes
//! again, and keeps their ctransid as it was (seen on 6.12 and 6.18, tests/contract/replayed.rs; not looked up in its sources). By ctransid alone nothing would have been written since a point, and what a
//! service had been promised by `fsync` would be dropped with the live copy. The inodes tell: each says the transaction in which
//! it last changed, and the log brings that along.
//!
//! Promise: ctransid as told here is that of the last change, however it came about. Writes nothing. It deliberately does not
//! know what is concluded from it.

use std::io;
use std::os::fd::AsFd;

use super::ioctl::{self, Search, Subvolume};
use super::written::after;

/// BTRFS_INODE_ITEM_KEY (btrfs_tree.h).
const INODE_ITEM: u32 = 1;

/// Where struct btrfs_inode_item (btrfs_tree.h) has `transid`: behind `generation`.
const TRANSID: usize = 8;

/// As [`ioctl::subvolume`], for what is or was live.
pub fn subvolume(dir: impl AsFd) -> io::Result<Subvolume> {
    let mut facts = ioctl::subvolume(&dir)?;
    // A replay comes to be in a transaction of its own, as does whatever else writes to the tree: a snapshot that is taken of it,
    // or a balance. Which of them it was is only seen within.
    if facts.generation > facts.ctransid {
        facts.ctransid = last_change(dir, facts.ctransid)?;
    }
    Ok(facts)
}

/// The latest transaction that an inode names, `noted` where none is later. Reads only what was written after that.
fn last_change(dir: impl AsFd, noted: u64) -> io::Result<u64> {
    let mut search = Search::new(noted + 1);
    let (mut next, mut latest) = (Some((0, 0, 0)), noted);
    while let Some(from) = next {
        let items = search.items_from(&dir, from)?;
        let inodes = items.iter().filter(|item| item.kind == INODE_ITEM);
        latest = inodes
            .filter_map(|item| transid(item.bytes))
            .fold(latest, u64::max);
        next = items
            .last()
            .and_then(|last| after((last.objectid, last.kind, last.offset)));
    }
    Ok(latest)
}

fn transid(inode: &[u8]) -> Option<u64> {
    let (_, rest) = inode.split_at_checked(TRANSID)?;
    rest.first_chunk().map(|bytes| u64::from_le_bytes(*bytes))
}
