//! What the applier knows beyond the tree itself: the stream's own header, and what must wait until all else is applied.
//!
//! Promise: saved beside a checkpoint and read back, it makes the applier go on as if nothing had happened. Bounded: see
//! [`LOCKED_BYTES_MAX`].
//!
//! Why things wait. Every new object of a stream first appears in the top directory under a temporary name. So the top
//! directory's times change with each, and whatever a new file inherits from its directory (default ACL, compression,
//! NOCOW) it would inherit from the top, wrongly: both are held back. Immutable and append-only files cannot be worked on
//! any more.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::tree::below;
use crate::fs::btrfs::stream::Moment;
use crate::logic::accept::Dropped;

/// Memory for files whose locks wait, in bytes: beyond that further ones are reported lost instead of remembered.
const LOCKED_BYTES_MAX: usize = 4 << 20;

/// What one such file costs beside its path, in bytes, roughly.
const LOCKED_BYTES_EACH: usize = 64;

/// Extended attributes of the top directory that its new entries would inherit.
pub(super) const INHERITED: [&[u8]; 2] = [b"system.posix_acl_default", b"btrfs.compression"];

/// What waits.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::fs::btrfs) struct Later {
    /// The ctransid that the stream's first command stated; none before it.
    pub ctransid: Option<u64>,
    /// Access and modification time of the top directory.
    pub top_times: Option<(Moment, Moment)>,
    /// Of [`INHERITED`], what the top directory shall have.
    #[serde(with = "hexed")]
    pub top_xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    /// Whether the top directory shall be NOCOW.
    #[serde(default)]
    pub top_nocow: bool,
    /// Locks by path.
    #[serde(with = "hexed")]
    locked: BTreeMap<Vec<u8>, Lock>,
    locked_bytes: usize,
    /// Facts of the source that could not be carried over, counted.
    pub lost: u64,
    /// What the policy left out.
    #[serde(default)]
    pub dropped: Dropped,
}

/// A file or directory that shall be immutable or append-only in the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Lock {
    /// Its inode: several paths may name it, and each is remembered, because each may go.
    inode: u64,
    /// `FS_XFLAG_*`
    pub xflags: u32,
}

impl Later {
    /// The file of this inode, which `path` names, shall be locked by `xflags` in the end; 0 for not at all.
    pub fn lock(&mut self, path: &[u8], inode: u64, xflags: u32) {
        let others = self.locked.iter().filter(|(_, lock)| lock.inode == inode);
        for path in others.map(|(path, _)| path.clone()).collect::<Vec<_>>() {
            self.unlock(&path);
        }
        if xflags != 0 {
            self.insert(path, Lock { inode, xflags });
        }
    }

    /// The same of a file that was just made: it has no other name.
    pub fn lock_new(&mut self, path: &[u8], inode: u64, xflags: u32) {
        self.insert(path, Lock { inode, xflags });
    }

    fn insert(&mut self, path: &[u8], lock: Lock) {
        self.unlock(path);
        let bytes = path.len() + LOCKED_BYTES_EACH;
        if self.locked_bytes + bytes > LOCKED_BYTES_MAX {
            self.lost += 1;
            return;
        }
        self.locked_bytes += bytes;
        self.locked.insert(path.to_vec(), lock);
    }

    fn unlock(&mut self, path: &[u8]) -> Option<Lock> {
        let lock = self.locked.remove(path)?;
        self.locked_bytes = self
            .locked_bytes
            .saturating_sub(path.len() + LOCKED_BYTES_EACH);
        Some(lock)
    }

    pub(super) fn locked(&self) -> &BTreeMap<Vec<u8>, Lock> {
        &self.locked
    }

    /// `path` is gone. Whether it was the last one known of a file that is to be locked.
    pub fn removed(&mut self, path: &[u8]) -> bool {
        self.unlock(path)
            .is_some_and(|lock| !self.locked.values().any(|other| other.inode == lock.inode))
    }

    /// `path` is a further name of what `existing` names.
    pub fn linked(&mut self, path: &[u8], existing: &[u8]) {
        if let Some(lock) = self.locked.get(existing).copied() {
            self.insert(path, lock);
        }
    }

    /// What was at `from`, and below it, is at `to` now.
    pub fn renamed(&mut self, from: &[u8], to: &[u8]) {
        if self.locked.is_empty() {
            return;
        }
        self.unlock(to);
        let mut moved = below(&self.locked, from);
        moved.push(from.to_vec());
        for path in moved {
            if let Some(lock) = self.unlock(&path) {
                self.insert(&[to, &path[from.len()..]].concat(), lock);
            }
        }
    }
}

/// JSON has no keys of any bytes: keys and byte values as hex.
mod hexed {
    use std::collections::BTreeMap;

    use serde::de::{DeserializeOwned, Error as _};
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use crate::logic::prefix::{hex, unhex};

    pub fn serialize<V: Serialize, S: Serializer>(
        map: &BTreeMap<Vec<u8>, V>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_map(map.iter().map(|(key, value)| (hex(key), value)))
    }

    pub fn deserialize<'de, V: DeserializeOwned, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<BTreeMap<Vec<u8>, V>, D::Error> {
        let map = BTreeMap::<String, V>::deserialize(deserializer)?;
        map.into_iter()
            .map(|(key, value)| {
                let key = unhex(&key).ok_or_else(|| D::Error::custom("key is not hex"))?;
                Ok((key, value))
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn locked(paths: &[&str]) -> Later {
        let mut later = Later::default();
        for path in paths {
            later.insert(
                path.as_bytes(),
                Lock {
                    inode: 1,
                    xflags: 8,
                },
            );
        }
        later
    }

    fn check(before: &[&str], from: &str, to: &str, after: &[&str]) {
        let mut later = locked(before);
        later.renamed(from.as_bytes(), to.as_bytes());
        assert_eq!(later, locked(after), "{from} to {to}");
    }

    #[test]
    fn locks_follow_renames() {
        check(&["a"], "a", "b", &["b"]);
        check(
            &["d/a", "d/e/b", "d.x"],
            "d",
            "n/d",
            &["n/d/a", "n/d/e/b", "d.x"],
        );
        check(&["a", "b"], "a", "b", &["b"]);
        check(&["a"], "c", "a", &[]);
        check(&[""], "a", "b", &[""]);
    }

    #[test]
    fn locks_follow_links() {
        let mut later = Later::default();
        later.lock(b"a", 1, 8);
        later.linked(b"b", b"a");
        assert!(!later.removed(b"a"));
        assert_eq!(later, locked(&["b"]));
        later.linked(b"c", b"b");
        later.lock(b"c", 1, 16);
        assert_eq!(later.locked().len(), 1);
        assert!(!later.removed(b"x"));
        assert!(later.removed(b"c"));
        assert_eq!(later, Later::default());
    }

    #[test]
    fn survives_being_saved() {
        let mut later = locked(&["a", "b/c"]);
        later.lock(b"\xff\xfe", 2, 24);
        later
            .top_xattrs
            .insert(b"btrfs.compression".to_vec(), b"zstd".to_vec());
        later.ctransid = Some(9);
        later.top_nocow = true;
        let text = serde_json::to_string(&later).unwrap();
        assert_eq!(serde_json::from_str::<Later>(&text).unwrap(), later);
    }

    #[test]
    fn is_bounded() {
        let mut later = Later::default();
        let path = vec![b'x'; 4000];
        for number in 0..2000u32 {
            let path = [&path[..], &number.to_le_bytes()].concat();
            later.lock(&path, u64::from(number), 8);
        }
        assert!(later.locked_bytes <= LOCKED_BYTES_MAX);
        assert_eq!(later.locked().len() as u64 + later.lost, 2000);
    }
}
