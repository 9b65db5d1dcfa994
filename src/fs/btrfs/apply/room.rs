//! Keeps the reserve while commands are applied: few bytes of a stream can ask for much room on the disk.
//!
//! Promise: a single command never takes more than is free above the reserve, and between two looks at the disk all
//! commands together take at most [`LOOK_EVERY_BYTES`] (metadata estimated by [`COMMAND_BYTES`]). The receiver counts the
//! stream's bytes; an allocation, a compressed piece or a copied clone is larger than its command.

use super::Applier;
use super::fault::{Applied, Blame, Fault};

/// Free space is looked at after so many bytes.
const LOOK_EVERY_BYTES: u64 = 16 << 20;

/// Room that any command may take in the filesystem's own trees, in bytes: a new file has an inode, two directory entries
/// and a back reference, about 600 bytes in leaves that are two thirds full.
pub(super) const COMMAND_BYTES: u64 = 1024;

/// What was taken since the disk was looked at.
#[derive(Debug, Default)]
pub(super) struct Room {
    reserve: u64,
    taken: u64,
}

impl Room {
    pub fn new(reserve: u64) -> Room {
        Room { reserve, taken: 0 }
    }
}

impl Applier {
    /// `bytes` are about to be used.
    pub(super) fn take_room(&mut self, bytes: u64) -> Applied<()> {
        self.room.taken = self.room.taken.saturating_add(bytes);
        if self.room.taken < LOOK_EVERY_BYTES {
            return Ok(());
        }
        self.room.taken = 0;
        self.expect_room(bytes.max(1))
    }

    /// Whether so much is free above the reserve at this moment.
    pub(super) fn expect_room(&self, needed: u64) -> Applied<()> {
        let space = rustix::fs::fstatvfs(self.tree.top()).on("read free space of", b"")?;
        let free = space.f_bavail.saturating_mul(space.f_frsize);
        let free = free.saturating_sub(self.room.reserve);
        if needed > free {
            return Err(Fault::Reserve { needed, free });
        }
        Ok(())
    }
}
