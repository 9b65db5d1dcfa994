//! Whether anything can have changed among the datasets of some pools: where not, `zfs list` need not be asked again.
//!
//! To start the program takes longer than what it does, and a move asks it hundreds of times. Whatever makes, destroys, renames,
//! holds or marks a dataset is a task of a transaction group, and shows when that group is written (OpenZFS,
//! module/zfs/dsl_synctask.c): as long as the same group is open and none before it is still being written, a list says what it
//! said. What is mounted is not in the pool; the mount table tells.
//!
//! Promise: two equal marks, one taken before a list and one after it, mean that the list still holds, also where an admin or
//! another program made the change. No mark where the kernel does not tell (a group is being written, the history of groups is
//! switched off, another system). Reads two files of the kernel and changes nothing.
//!
//! A list is not of one moment anyway: what it says first is as old, when it is there, as it took to make. For half as long again
//! it is given without asking the kernel, unless this process itself changed something since it began.
//!
//! It deliberately does not know what is listed.

use std::hash::{DefaultHasher, Hasher};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::{command, text};
use crate::fs::Result;

/// A list is asked anew after this time whatever the kernel tells: a pool rewound at its import counts the same groups twice.
const AGE_MAX: Duration = Duration::from_secs(5);

/// What was listed last, for as long as it holds.
#[derive(Debug, Default)]
pub struct Listed<T>(Mutex<Option<Last<T>>>);

#[derive(Debug)]
struct Last<T> {
    /// None where it cannot be told by the kernel.
    mark: Option<Mark>,
    /// What this process had changed when it began, when that was, and how long it took.
    changes: u64,
    begun: Instant,
    took: Duration,
    listed: T,
}

impl<T> Last<T> {
    fn is_fresh(&self) -> bool {
        self.changes == command::changes() && is_fresh(self.begun.elapsed(), self.took)
    }
}

/// Of a list that was begun `age` ago.
fn is_fresh(age: Duration, took: Duration) -> bool {
    age <= took * 3 / 2 && age < AGE_MAX
}

impl<T: Clone> Listed<T> {
    /// What was listed of datasets in these pools, or what is listed now.
    pub fn or_list(&self, pools: &[&str], list: impl FnOnce() -> Result<T>) -> Result<T> {
        // Held while it is listed: who comes meanwhile takes what comes of it.
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(last) = last.as_ref().filter(|last| last.is_fresh()) {
            return Ok(last.listed.clone());
        }
        let (now, changes, begun) = (Mark::now(pools), command::changes(), Instant::now());
        if let Some(last) = &*last {
            if matches!((&last.mark, &now), (Some(then), Some(now)) if then.holds(now)) {
                return Ok(last.listed.clone());
            }
        }
        *last = None;
        let listed = list()?;
        *last = Some(Last {
            mark: now,
            changes,
            begun,
            took: begun.elapsed(),
            listed: listed.clone(),
        });
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_as_old_again() {
        let check = |age: u64, took: u64, expected: bool| {
            let ms = Duration::from_millis;
            assert_eq!(is_fresh(ms(age), ms(took)), expected, "{age} {took}");
        };
        check(0, 0, true);
        check(6, 6, true);
        check(9, 6, true);
        check(10, 6, false);
        check(900, 600, true);
        check(901, 600, false);
        check(4_999, 4_000, true);
        check(5_000, 4_000, false);
    }
}
