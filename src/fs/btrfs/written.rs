//! How much was written to live data since a point, from the tree of the live subvolume alone.
//!
//! Every extent item says in which transaction it was written. Tree blocks that are older than the point are not even read,
//! so the cost follows the changes. What was written twice counts once, what was deleted not at all: it is what would have
//! to be sent, and what would be lost.
//!
//! Promise: writes nothing but what was waiting to be written; a crash leaves nothing. Where the point is neither taken from
//! what is live nor the one it was made from, nothing is said. It deliberately does not know peers.

use std::io;
use std::os::fd::AsFd;

use anyhow::Context;

use super::catalogue::Catalogue;
use super::ioctl::{self, Search, Subvolume};
use super::take::snapshot_info;
use crate::fs::{FsError, Result};
use crate::logic::point::PointId;

/// BTRFS_EXTENT_DATA_KEY (linux/btrfs_tree.h).
const EXTENT_DATA: u32 = 108;

/// See `Filesystem::written_since`.
pub fn since(catalogue: &Catalogue<'_>, point: &PointId) -> Result<Option<u64>> {
    let Some(found) = catalogue.find_if_any(point)? else {
        return Ok(None);
    };
    let mut bytes: u64 = 0;
    for part in &catalogue.parts {
        part.top.sync()?;
        for place in &part.places {
            let dataset = &place.dataset;
            if !found.stored.local.datasets.contains_key(dataset) {
                return Ok(None);
            }
            let dir = match place.open_live() {
                Ok(dir) => dir,
                Err(e) if matches!(e.downcast_ref(), Some(FsError::Missing(_))) => return Ok(None),
                Err(e) => return Err(e),
            };
            let look = || format!("look at {}", place.live.display());
            let live = ioctl::subvolume(&dir).with_context(look)?;
            let snapshot = snapshot_info(catalogue, &found, dataset)?;
            let Some(first) = first_after(&live, &snapshot) else {
                return Ok(None);
            };
            let written = written(&dir, first).with_context(look)?;
            bytes = bytes.saturating_add(written);
        }
    }
    Ok(Some(bytes))
}

/// The first transaction whose writes to `live` are not in the snapshot; none where the two are not that close.
fn first_after(live: &Subvolume, snapshot: &Subvolume) -> Option<u64> {
    if snapshot.parent_uuid == Some(live.uuid) {
        Some(snapshot.otransid + 1)
    } else if live.parent_uuid == Some(snapshot.uuid) {
        Some(live.otransid + 1)
    } else {
        None
    }
}

/// Bytes of file data in extents of that transaction or a later one.
fn written(dir: impl AsFd, first: u64) -> io::Result<u64> {
    let mut search = Search::new(first);
    let mut next = (0, 0, 0);
    let mut bytes: u64 = 0;
    loop {
        let items = search.items_from(&dir, next)?;
        let Some(last) = items.last() else {
            return Ok(bytes);
        };
        let after = after((last.objectid, last.kind, last.offset));
        for item in items.iter().filter(|item| item.kind == EXTENT_DATA) {
            if let Some((transaction, length)) = extent(item.bytes) {
                if transaction >= first {
                    bytes = bytes.saturating_add(length);
                }
            }
        }
        match after {
            Some(key) => next = key,
            None => return Ok(bytes),
        }
    }
}

/// The key that follows; none behind the last of all.
pub fn after((objectid, kind, offset): (u64, u32, u64)) -> Option<(u64, u32, u64)> {
    if let Some(offset) = offset.checked_add(1) {
        return Some((objectid, kind, offset));
    }
    match kind.checked_add(1) {
        Some(kind) => Some((objectid, kind, 0)),
        None => Some((objectid.checked_add(1)?, 0, 0)),
    }
}

/// The transaction that wrote a struct btrfs_file_extent_item, and the bytes of the file it holds; none for holes, and for
/// space that is only reserved.
fn extent(item: &[u8]) -> Option<(u64, u64)> {
    let number = |at: usize| Some(u64::from_le_bytes(*item.get(at..)?.first_chunk()?));
    let transaction = number(0)?;
    let length = match item.get(20)? {
        // Inline: the unpacked length.
        0 => number(8)?,
        // Regular: where on the disk (0: a hole), and how much of it is of this file.
        1 if number(21)? != 0 => number(45)?,
        _ => return None,
    };
    Some((transaction, length))
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn extent_items() {
        let check = |kind: u8, disk: u64, expected: Option<(u64, u64)>| {
            let mut item = [0; 53];
            item[..8].copy_from_slice(&77u64.to_le_bytes());
            item[8..16].copy_from_slice(&9000u64.to_le_bytes());
            item[20] = kind;
            item[21..29].copy_from_slice(&disk.to_le_bytes());
            item[45..53].copy_from_slice(&4096u64.to_le_bytes());
            assert_eq!(extent(&item), expected, "{kind}");
        };
        check(0, 0x6968, Some((77, 9000)));
        check(1, 1 << 20, Some((77, 4096)));
        check(1, 0, None);
        check(2, 1 << 20, None);
        assert_eq!(extent(&[1; 20]), None);
        assert_eq!(extent(&[1; 40]), None);
    }

    #[test]
    fn keys_follow_one_another() {
        assert_eq!(after((5, 108, 4096)), Some((5, 108, 4097)));
        assert_eq!(after((5, 108, u64::MAX)), Some((5, 109, 0)));
        assert_eq!(after((5, u32::MAX, u64::MAX)), Some((6, 0, 0)));
        assert_eq!(after((u64::MAX, u32::MAX, u64::MAX)), None);
    }

    #[test]
    fn only_what_is_close_is_compared() {
        let subvolume = |uuid: u128, parent: u128, otransid| Subvolume {
            id: 300,
            uuid: Uuid::from_u128(uuid),
            parent_uuid: Some(Uuid::from_u128(parent)),
            received_uuid: None,
            read_only: true,
            generation: otransid,
            ctransid: otransid,
            otransid,
        };
        let check = |live: (u128, u128), snapshot: (u128, u128), expected: Option<u64>| {
            let (live, snapshot) = (
                subvolume(live.0, live.1, 20),
                subvolume(snapshot.0, snapshot.1, 30),
            );
            assert_eq!(first_after(&live, &snapshot), expected);
        };
        check((1, 0), (2, 1), Some(31));
        check((1, 2), (2, 0), Some(21));
        check((1, 9), (2, 8), None);
    }
}
