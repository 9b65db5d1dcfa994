//! Whether anything can have changed among the datasets of some pools: where not, `zfs list` need not be asked again.
//!
//! To start the program takes longer than what it does, and a move asks it hundreds of times. Whatever makes, destroys, renames,
//! holds or marks a dataset is a task of a transaction group, and shows when that group is written (OpenZFS,
//! module/zfs/dsl_synctask.c): as long as the same group is open and none before it is still being written, a list says what it
//! said. What is mounted is not in the pool; the mount table tells.
//!
//! Promise: two equal marks, one taken before a list and one after it, mean that the list still holds, also where an admin or
//! another program made the change. No mark where the kernel does not tell (the history of groups is switched off, another
//! system). Reads two files of the kernel and changes nothing.
//!
//! It deliberately does not know what is listed.

use std::hash::{DefaultHasher, Hasher};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::text;
use crate::fs::Result;

/// A list is asked anew after this time whatever the kernel tells: a pool rewound at its import counts the same groups twice.
const AGE_MAX: Duration = Duration::from_secs(5);

/// What was listed last, for as long as it holds.
#[derive(Debug, Default)]
pub struct Listed<T>(Mutex<Option<(Mark, T)>>);

impl<T: Clone> Listed<T> {
    /// What was listed of datasets in these pools, or what is listed now.
    pub fn or_list(&self, pools: &[&str], list: impl FnOnce() -> Result<T>) -> Result<T> {
        // Held while it is listed: who comes meanwhile takes what comes of it.
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Mark::now(pools);
        if let (Some((then, listed)), Some(now)) = (&*last, &now) {
            if then.holds(now) {
                return Ok(listed.clone());
            }
        }
        *last = None;
        let listed = list()?;
        *last = now.map(|now| (now, listed.clone()));
        Ok(listed)
    }
}

/// Where pools stood at a moment.
#[derive(Debug)]
struct Mark {
    at: Instant,
    /// The open group of each pool.
    open: Vec<(String, u64)>,
    /// A hash of the mount table.
    mounts: u64,
}

impl Mark {
    /// Now; none where a group is being written, or nothing tells.
    fn now(pools: &[&str]) -> Option<Mark> {
        let mut open = Vec::new();
        for pool in pools {
            // Written by the kernel on each reading (man 4 zfs, zfs_txg_history).
            let groups =
                std::fs::read_to_string(format!("/proc/spl/kstat/zfs/{pool}/txgs")).ok()?;
            open.push(((*pool).to_owned(), text::settled_group(&groups)?));
        }
        let mut hash = DefaultHasher::new();
        hash.write(&std::fs::read("/proc/self/mountinfo").ok()?);
        Some(Mark {
            at: Instant::now(),
            open,
            mounts: hash.finish(),
        })
    }

    /// Whether what was listed right after this mark still holds at another one.
    fn holds(&self, now: &Mark) -> bool {
        self.open == now.open
            && self.mounts == now.mounts
            && now.at.duration_since(self.at) < AGE_MAX
    }
}
