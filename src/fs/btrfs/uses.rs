//! What this process is doing on a filesystem right now: sends, receives, points being taken or destroyed.
//!
//! Promise: a use ends when its guard is dropped, on every way out; two that exclude one another never overlap. The kernel
//! guards its own sends too, but only at the last step of a deletion; asking here first keeps a point in use whole.
//!
//! It deliberately does not know other processes, nor survive this one.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use crate::logic::name::{DatasetName, RoleName};

/// What is used. Points are meant by their directory names.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Used {
    /// A complete point.
    Point(RoleName, String),
    /// A point's directory in staging: transfers share it, publishing and clearing have it alone.
    Staging(RoleName, String),
    /// A fork, by its name: whoever reads it shares it, discarding has it alone.
    Fork(RoleName, String),
    /// A throw-away copy of live data.
    Copy(RoleName, String),
    /// One dataset's transfer into it.
    Transfer(RoleName, String, DatasetName),
}

/// How many share it, or that one has it alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum How {
    Shared(usize),
    Alone,
}

/// The uses of one filesystem.
#[derive(Debug, Clone, Default)]
pub struct Uses(Arc<Mutex<BTreeMap<Used, How>>>);

/// Ends the use when dropped.
#[derive(Debug)]
pub struct Use {
    uses: Uses,
    used: Used,
}

impl Uses {
    /// None while somebody has it alone.
    pub fn share(&self, used: Used) -> Option<Use> {
        let mut map = self.lock();
        let count = match map.get(&used) {
            Some(How::Alone) => return None,
            Some(How::Shared(count)) => *count,
            None => 0,
        };
        map.insert(used.clone(), How::Shared(count + 1));
        drop(map);
        Some(Use {
            uses: self.clone(),
            used,
        })
    }

    /// None while anybody uses it.
    pub fn alone(&self, used: Used) -> Option<Use> {
        let mut map = self.lock();
        if map.contains_key(&used) {
            return None;
        }
        map.insert(used.clone(), How::Alone);
        drop(map);
        Some(Use {
            uses: self.clone(),
            used,
        })
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<Used, How>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Use {
    fn drop(&mut self) {
        let mut map = self.uses.lock();
        match map.get(&self.used).copied() {
            Some(How::Shared(count)) if count > 1 => {
                map.insert(self.used.clone(), How::Shared(count - 1));
            }
            Some(How::Shared(_) | How::Alone) | None => {
                map.remove(&self.used);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn point(word: &str) -> Used {
        Used::Point(RoleName::parse("web").unwrap(), word.to_owned())
    }

    #[test]
    fn shared_and_alone_exclude_one_another() {
        let uses = Uses::default();
        let first = uses.share(point("a")).unwrap();
        let second = uses.share(point("a")).unwrap();
        assert!(uses.alone(point("a")).is_none());
        assert!(uses.alone(point("b")).is_some(), "another point is free");
        drop(first);
        assert!(uses.alone(point("a")).is_none());
        drop(second);
        let alone = uses.alone(point("a")).unwrap();
        assert!(uses.share(point("a")).is_none());
        assert!(uses.alone(point("a")).is_none());
        drop(alone);
        assert!(uses.share(point("a")).is_some());
    }
}
