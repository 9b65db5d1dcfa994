//! Reads what a stream does not carry: the flags of new files (measured on Linux 6.18: FILEATTR comes only for a file that
//! the base holds too, and only when its flags changed).
//!
//! The flags are in the inode items of the snapshot's own tree. For a full stream all of the tree is read. For an
//! incremental one only what was written since the base, where that is sure to hold every file the base lacks: both are
//! snapshots of one subvolume, never written to themselves. Then an inode item as old as the base is part of the base as it
//! is: making a file, or giving a first name to a nameless one, writes its item anew, and the transaction that takes a
//! snapshot lets nobody write after it. It is not sure after a restore (what comes back can be older than the base and not in it) or for received snapshots,
//! whose trees are no history of one another: there, all is read.
//!
//! Promise: changes nothing; what is found does not depend on the stream. What has no room is counted. It deliberately does
//! not know paths: the stream tells inode numbers.

use std::io;
use std::os::fd::AsFd;

use rustix::fs::FileType;

use super::ioctl::{self, Search, Subvolume};
use crate::logic::transfer::{FileFlags, FlagList, Flagged};

/// BTRFS_FIRST_FREE_OBJECTID and BTRFS_LAST_FREE_OBJECTID (linux/btrfs_tree.h): the inode numbers of files.
const INODES: std::ops::RangeInclusive<u64> = 256..=u64::MAX - 255;

/// BTRFS_INODE_ITEM_KEY: the first item of each inode.
const INODE_ITEM: u32 = 1;

/// `BTRFS_INODE_*`
const NODATACOW: u64 = 1 << 1;
const IMMUTABLE: u64 = 1 << 6;
const APPEND: u64 = 1 << 7;
const PREALLOC: u64 = 1 << 4;

/// BTRFS_INODE_RO_VERITY: the upper half of the same field holds the read-only flags.
const VERITY: u64 = 1 << 32;

/// What it means that some had no room, for people.
pub const LEFT_OUT: &str = "files in too scattered places are NOCOW, immutable or append-only: their content is replicated, these flags are not";

/// What was read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Found {
    pub flags: FileFlags,
    /// Files whose flags had no room.
    pub left_out: u64,
    /// Files of which fs-verity seals the content.
    pub verity: u64,
    /// Files for which space was reserved (fallocate), at any time.
    pub preallocated: u64,
}

impl Found {
    /// What a stream does not carry of these files, one sentence each.
    pub fn sentences(&self) -> Vec<String> {
        let told = [
            (self.left_out, LEFT_OUT),
            (
                self.verity,
                "files are sealed by fs-verity: their content is replicated, the seal is not",
            ),
            (
                self.preallocated,
                "files have or had preallocated space: their content is replicated, space reserved beyond it is not",
            ),
        ];
        let told = told.into_iter().filter(|(files, _)| *files > 0);
        told.map(|(files, text)| format!("{files} {text}"))
            .collect()
    }
}

/// Flags of the files in the subvolume that holds `point`; of at least the new ones when there is a base.
pub fn read(point: impl AsFd, base: Option<impl AsFd>) -> io::Result<Found> {
    let since = match base {
        None => 0,
        Some(base) => since(&ioctl::subvolume(&point)?, &ioctl::subvolume(base)?),
    };
    let mut search = Search::new(since);
    let (mut list, mut found) = (FlagList::default(), Found::default());
    let mut next = *INODES.start();
    while INODES.contains(&next) {
        let items = search.items(&point, next)?;
        let Some(last) = items.last() else { break };
        // What else belongs to the last inode, perhaps a million extents, says nothing here.
        next = last.objectid.saturating_add(1);
        for item in items {
            if item.kind == INODE_ITEM && INODES.contains(&item.objectid) {
                match inode(item.bytes) {
                    Some((transaction, flagged)) if transaction >= since => {
                        list.file(item.objectid, flagged);
                        let flags = inode_flags(item.bytes);
                        found.verity += u64::from(flags & VERITY != 0);
                        found.preallocated += u64::from(flags & PREALLOC != 0);
                    }
                    _ => {}
                }
            }
        }
    }
    let (flags, left_out) = list.finish();
    Ok(Found {
        flags,
        left_out,
        ..found
    })
}

/// The flags in a struct btrfs_inode_item; 0 where it is too short.
fn inode_flags(item: &[u8]) -> u64 {
    let bytes = item.get(64..).and_then(|rest| rest.first_chunk());
    bytes.map_or(0, |bytes| u64::from_le_bytes(*bytes))
}

/// The first transaction in which a file that `base` lacks can have been written to `point`; 0 when that is not known.
fn since(point: &Subvolume, base: &Subvolume) -> u64 {
    let is_taken = |side: &Subvolume| side.read_only && side.received_uuid.is_none();
    let same = point.parent_uuid.is_some() && point.parent_uuid == base.parent_uuid;
    if same && is_taken(point) && is_taken(base) && base.otransid <= point.otransid {
        base.otransid + 1
    } else {
        0
    }
}

/// The transaction that wrote a struct btrfs_inode_item, and its flags; none for what is neither a file nor a directory.
fn inode(item: &[u8]) -> Option<(u64, Flagged)> {
    let transaction = u64::from_le_bytes(*item.get(8..)?.first_chunk()?);
    let mode = u32::from_le_bytes(*item.get(52..)?.first_chunk()?);
    let flags = u64::from_le_bytes(*item.get(64..)?.first_chunk()?);
    let kind = FileType::from_raw_mode(mode);
    let flagged = Flagged {
        nocow: flags & NODATACOW != 0,
        immutable: flags & IMMUTABLE != 0,
        append: flags & APPEND != 0,
    };
    matches!(kind, FileType::RegularFile | FileType::Directory).then_some((transaction, flagged))
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn inode_items() {
        let check = |mode: u32, flags: u64, expected: Option<[bool; 3]>| {
            let mut item = [0xff; 160];
            item[52..56].copy_from_slice(&mode.to_le_bytes());
            item[64..72].copy_from_slice(&flags.to_le_bytes());
            item[8..16].copy_from_slice(&77u64.to_le_bytes());
            let found = inode(&item);
            assert_eq!(
                found.map(|(_, has)| [has.nocow, has.immutable, has.append]),
                expected
            );
            assert!(found.is_none_or(|(transaction, _)| transaction == 77));
        };
        check(0o100_644, 0, Some([false; 3]));
        check(0o100_644, 0b11, Some([true, false, false]));
        check(0o040_755, 0xc0, Some([false, true, true]));
        check(0o120_777, 0b11, None);
        assert_eq!(inode(&[0; 60]), None);
    }

    #[test]
    fn what_is_sure_to_be_in_the_base() {
        let taken = |otransid: u64| Subvolume {
            id: 300,
            uuid: Uuid::from_u128(otransid.into()),
            parent_uuid: Some(Uuid::from_u128(7)),
            received_uuid: None,
            read_only: true,
            generation: otransid,
            ctransid: otransid,
            otransid,
        };
        let check = |change: &dyn Fn(&mut Subvolume), expected: u64| {
            let (mut one, mut other) = (taken(20), taken(30));
            assert_eq!(since(&other, &one), 21);
            change(&mut one);
            assert_eq!(since(&other, &one), expected, "{one:?}");
            (one, other) = (taken(20), taken(30));
            change(&mut other);
            assert_eq!(since(&other, &one), expected, "{other:?}");
        };
        check(&|side| side.parent_uuid = None, 0);
        check(&|side| side.parent_uuid = Some(Uuid::from_u128(8)), 0);
        check(&|side| side.received_uuid = Some(Uuid::from_u128(8)), 0);
        check(&|side| side.read_only = false, 0);
        check(&|side| side.ctransid = 99, 21);
        assert_eq!(since(&taken(20), &taken(30)), 0);
    }
}
