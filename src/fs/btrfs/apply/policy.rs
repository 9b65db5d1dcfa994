//! What of a sender's files is taken over, kept out or refused, as the policy says.
//!
//! Promise: what is dropped is counted in `later`, which is saved with each checkpoint; what is refused ends the transfer.
//! A dropped device leaves an empty regular file: the stream goes on to rename it, own it and date it.

use rustix::fs::FileType;

use super::Applier;
use super::fault::{Applied, refuse, shown};
use crate::logic::accept::{self, Treatment};

/// setuid and setgid.
const SETUID: u32 = 0o6000;

/// Whether to go on with it; `dropped` counts what is left out.
fn judge(treatment: Treatment, dropped: &mut u64, key: &str, what: &str) -> Applied<bool> {
    match treatment {
        Treatment::Keep => Ok(true),
        Treatment::Drop => {
            *dropped += 1;
            Ok(false)
        }
        Treatment::Refuse => refuse(accept::refused(what, key)),
    }
}

/// The inode of a new file whose name does not stand yet: send calls it `o<inode>-<generation>-<index>` until it has its
/// place (fs/btrfs/send.c, gen_unique_name).
fn inode_of(path: &[u8]) -> Option<u64> {
    let words = std::str::from_utf8(path).ok()?.strip_prefix('o')?;
    let numbers: Option<Vec<u64>> = words.split('-').map(|word| word.parse().ok()).collect();
    match numbers?.as_slice() {
        [inode, _, _] => Some(*inode),
        _ => None,
    }
}

impl Applier {
    pub(super) fn accepts_device(&mut self, path: &[u8]) -> Applied<bool> {
        let dropped = &mut self.later.dropped.devices;
        let what = match inode_of(path) {
            Some(inode) => format!("a device (inode {inode} of the sender's dataset)"),
            None => format!("the device {}", shown(path)),
        };
        judge(self.accept.devices, dropped, "devices", &what)
    }

    /// The mode without what is dropped.
    pub(super) fn accepted_mode(&mut self, path: &[u8], bits: u32) -> Applied<u32> {
        if bits & SETUID == 0 || self.accept.setuid == Treatment::Keep {
            return Ok(bits);
        }
        let kind = FileType::from_raw_mode(self.tree.stat(path)?.st_mode);
        if kind == FileType::Directory {
            return Ok(bits);
        }
        let what = format!("mode {bits:o} of {}", shown(path));
        let dropped = &mut self.later.dropped.setuid;
        let kept = judge(self.accept.setuid, dropped, "setuid", &what)?;
        Ok(if kept { bits } else { bits & !SETUID })
    }

    pub(super) fn accepts_attribute(&mut self, path: &[u8], name: &[u8]) -> Applied<bool> {
        let dropped = &mut self.later.dropped;
        let (treatment, dropped, key) = if name.starts_with(b"security.") {
            (self.accept.security, &mut dropped.security, "security")
        } else if name.starts_with(b"trusted.") {
            (self.accept.trusted, &mut dropped.trusted, "trusted")
        } else {
            return Ok(true);
        };
        if treatment == Treatment::Keep {
            return Ok(true);
        }
        let what = format!("attribute {} of {}", shown(name), shown(path));
        judge(treatment, dropped, key, &what)
    }
}
