//! Whether two copies of a point are equal: what is said of a tree by hashes, and what follows where hashes differ.
//!
//! Promise: pure and total. A directory's hash covers everything below it, so that equal parts of two trees are never looked
//! into. What nodes may differ in by design is taken out before anything is hashed ([`Leave`]).
//!
//! It deliberately does not know how a tree is read, nor who is asked.

use std::cmp::Ordering;

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::accept::{Accept, Dropped, Treatment};
use super::schedule::{Every, next_due};

/// Entries of one answer; a larger directory is told in pieces.
pub const ENTRIES_MAX: usize = 8_000;

/// Longest name of a file, in bytes (Linux: NAME_MAX).
pub const NAME_BYTES_MAX: usize = 255;

/// Files that cannot be read, or differ, told by name.
pub const TOLD_MAX: usize = 1_000;

/// After a comparison that could not be made the next one begins no sooner.
const AGAIN_AFTER: SignedDuration = SignedDuration::from_hours(1);

/// Whether a comparison with one peer begins by itself: `ended` is when the last one with it came to its end, `failed` when one
/// could not be made since.
pub fn begins(
    every: &Every,
    ended: Option<Timestamp>,
    failed: Option<Timestamp>,
    now: Timestamp,
    zone: &TimeZone,
) -> bool {
    // A clock that was set back must not keep it away for longer than that.
    let rests = |at: Timestamp| (at..at + AGAIN_AFTER).contains(&now);
    next_due(every, ended, now, zone).is_some_and(|due| due <= now) && !failed.is_some_and(rests)
}

/// A hash, BLAKE3.
pub type Hash = [u8; 32];

/// What is not compared, because the policy of one of the nodes (`accept`) leaves it out of its copies.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Leave {
    pub devices: bool,
    pub setuid: bool,
    pub security: bool,
    pub trusted: bool,
}

impl Leave {
    pub fn of(accept: &Accept) -> Leave {
        let drops = |treatment| treatment == Treatment::Drop;
        Leave {
            devices: drops(accept.devices),
            setuid: drops(accept.setuid),
            security: drops(accept.security),
            trusted: drops(accept.trusted),
        }
    }

    /// What was left out of a stream once is missing in every copy that came after it.
    pub fn dropped(dropped: &Dropped) -> Leave {
        Leave {
            devices: dropped.devices > 0,
            setuid: dropped.setuid > 0,
            security: dropped.security > 0,
            trusted: dropped.trusted > 0,
        }
    }

    #[must_use]
    pub fn and(self, other: Leave) -> Leave {
        Leave {
            devices: self.devices || other.devices,
            setuid: self.setuid || other.setuid,
            security: self.security || other.security,
            trusted: self.trusted || other.trusted,
        }
    }
}

/// One name in a directory. Between nodes names and hashes are hex: file names are bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    pub name: String,
    pub kind: Kind,
    /// Of its owner, mode, times, attributes, target, size.
    pub meta: String,
    /// Of the content of a file, or of everything in a directory; empty for others.
    #[serde(default)]
    pub data: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    File,
    Directory,
    Link,
    Device,
    Pipe,
    Socket,
    /// A file or directory of which the disk gives nothing back.
    Unreadable,
    #[serde(other)]
    Unknown,
}

/// How one path differs. `here` and `there` are the node that asks and its peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Difference {
    OnlyHere,
    OnlyThere,
    Kind,
    Content,
    /// Owner, mode, times, attributes.
    Metadata,
    UnreadableHere,
    UnreadableThere,
}

/// What follows from two listings of the same directory.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// By name, hex.
    pub differ: Vec<(String, Difference)>,
    /// Directories to look into.
    pub descend: Vec<String>,
}

/// Compares two listings, each in the order of names. Where nothing differs, the directories themselves did.
pub fn compare(ours: &[Entry], theirs: &[Entry]) -> Found {
    let mut found = Found::default();
    let (mut left, mut right) = (ours.iter().peekable(), theirs.iter().peekable());
    loop {
        let order = match (left.peek(), right.peek()) {
            (None, None) => return found,
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some(ours), Some(theirs)) => ours.name.cmp(&theirs.name),
        };
        let ours = left.next_if(|_| order != Ordering::Greater);
        let theirs = right.next_if(|_| order != Ordering::Less);
        match (ours, theirs) {
            (Some(ours), None) => found.differ.push((ours.name.clone(), Difference::OnlyHere)),
            (None, Some(theirs)) => {
                found
                    .differ
                    .push((theirs.name.clone(), Difference::OnlyThere));
            }
            (Some(ours), Some(theirs)) => pair(ours, theirs, &mut found),
            (None, None) => return found,
        }
    }
}

fn pair(ours: &Entry, theirs: &Entry, found: &mut Found) {
    let name = || ours.name.clone();
    let mut differ = |difference| found.differ.push((ours.name.clone(), difference));
    if ours.kind == Kind::Unreadable {
        return differ(Difference::UnreadableHere);
    }
    if theirs.kind == Kind::Unreadable {
        return differ(Difference::UnreadableThere);
    }
    if ours.kind != theirs.kind {
        return differ(Difference::Kind);
    }
    let is_directory = ours.kind == Kind::Directory;
    if ours.data != theirs.data && !is_directory {
        return differ(Difference::Content);
    }
    if ours.meta != theirs.meta {
        differ(Difference::Metadata);
    }
    if ours.data != theirs.data {
        found.descend.push(name());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Hours before now: when the last one ended and when one failed; none: never.
    fn begins_after(ended: Option<i64>, failed: Option<i64>) -> bool {
        let now: Timestamp = "2026-11-20T12:00:00Z".parse().unwrap();
        let ago = |hours: i64| now - SignedDuration::from_hours(hours);
        let every = Every::parse("7d").unwrap();
        begins(&every, ended.map(ago), failed.map(ago), now, &TimeZone::UTC)
    }

    #[test]
    fn when_it_begins_by_itself() {
        assert!(begins_after(None, None));
        assert!(!begins_after(Some(1), None));
        assert!(begins_after(Some(7 * 24), None));
        assert!(!begins_after(None, Some(0)));
        assert!(begins_after(None, Some(1)));
        assert!(begins_after(Some(8 * 24), Some(2)));
        assert!(begins_after(None, Some(-5)), "the clock was set back");
        let never = begins(
            &Every::Manual,
            None,
            None,
            Timestamp::UNIX_EPOCH,
            &TimeZone::UTC,
        );
        assert!(!never);
    }

    /// `name kind meta data`, kinds by their first letters.
    fn entries(words: &str) -> Vec<Entry> {
        let entry = |word: &str| {
            let parts: Vec<&str> = word.split(':').collect();
            Entry {
                name: parts[0].to_owned(),
                kind: match parts[1] {
                    "f" => Kind::File,
                    "d" => Kind::Directory,
                    "u" => Kind::Unreadable,
                    _ => Kind::Link,
                },
                meta: parts[2].to_owned(),
                data: parts[3].to_owned(),
            }
        };
        words.split_whitespace().map(entry).collect()
    }

    fn check(ours: &str, theirs: &str, expected: &str) {
        let found = compare(&entries(ours), &entries(theirs));
        let differ = found.differ.iter();
        let differ = differ.map(|(name, difference)| format!("{name} {difference:?}"));
        let descend = found.descend.iter().map(|name| format!("{name}/"));
        let said: Vec<String> = differ.chain(descend).collect();
        assert_eq!(said.join(", "), expected);
    }

    #[test]
    fn listings() {
        check("", "", "");
        check("a:f:1:1", "a:f:1:1", "");
        check("a:f:1:1", "a:f:1:2", "a Content");
        check("a:f:1:1", "a:f:2:1", "a Metadata");
        check("a:f:1:1", "a:f:2:2", "a Content");
        check("a:f:1:1", "a:d:1:1", "a Kind");
        check("a:f:1:1 b:f:1:1", "b:f:1:1", "a OnlyHere");
        check(
            "b:f:1:1",
            "a:f:1:1 b:f:1:1 c:f:1:1",
            "a OnlyThere, c OnlyThere",
        );
        check("a:d:1:1", "a:d:1:2", "a/");
        check("a:d:1:1", "a:d:2:2", "a Metadata, a/");
        check("a:u:1:1", "a:f:1:1", "a UnreadableHere");
        check("a:f:1:1", "a:u:1:1", "a UnreadableThere");
    }

    #[test]
    fn what_is_left_out_on_either_side() {
        let drops = Accept {
            devices: Treatment::Drop,
            ..Accept::default()
        };
        let dropped = Dropped {
            trusted: 3,
            ..Dropped::default()
        };
        let both = Leave::of(&drops).and(Leave::dropped(&dropped));
        assert!(both.devices && both.trusted && !both.setuid && !both.security);
        // A word of a newer node is not known here.
        let heard: Leave = serde_json::from_str(r#"{"devices":true,"colours":true}"#).unwrap();
        assert_eq!(
            heard,
            Leave {
                devices: true,
                ..Leave::default()
            }
        );
    }
}
