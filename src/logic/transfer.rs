//! Words about one dataset's transfer that both the filesystem and the protocol use.
//!
//! What a peer says is bounded and checked while it is read: a [`FileFlags`] that exists is in order.

use serde::de::{Error as _, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use uuid::Uuid;

use super::name::DatasetName;
use super::point::PointId;

/// What identifies the bytes of one dataset's stream. Equal identities on one kernel give equal bytes; the prefix hash
/// proves it. Recorded with the transfer by the receiver.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamIdentity {
    /// Identity of the snapshot (see `DatasetFacts::identity`).
    pub snapshot: Uuid,
    /// Identity of the base's snapshot; none for a full stream.
    pub base: Option<Uuid>,
    /// Version of the send stream protocol: 1 or 2 (kernel: fs/btrfs/send.h).
    pub version: u32,
}

/// The kind of filesystem that a node keeps a role on. All nodes of a role have one kind: streams of one mean nothing to the
/// other.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Also of a node that does not say.
    #[default]
    Btrfs,
    Zfs,
}

impl Kind {
    pub fn is_btrfs(&self) -> bool {
        *self == Kind::Btrfs
    }

    pub fn word(self) -> &'static str {
        match self {
            Kind::Btrfs => "btrfs",
            Kind::Zfs => "ZFS",
        }
    }
}

/// A half-received dataset in staging.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Partial {
    pub point: PointId,
    pub dataset: DatasetName,
    /// Stream bytes in the newest checkpoint; none when the dataset is complete and waits for the others.
    pub offset: Option<u64>,
}

/// Most ranges of one transfer's [`FileFlags`], all sets together.
pub const FLAG_RANGES_MAX: usize = 50_000;

/// Largest [`FileFlags`] of that many ranges, in bytes of JSON.
pub const FLAGS_BYTES_MAX: usize = 2 << 20;

/// Flags of new files and directories, which a btrfs stream does not carry, by their inode numbers at the source. A number
/// that belongs to no new file says nothing. Flags that this version does not know are ignored.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileFlags {
    /// Written in place, without checksums (chattr +C).
    #[serde(default, skip_serializing_if = "InodeSet::is_empty")]
    pub nocow: InodeSet,
    /// chattr +i
    #[serde(default, skip_serializing_if = "InodeSet::is_empty")]
    pub immutable: InodeSet,
    /// chattr +a
    #[serde(default, skip_serializing_if = "InodeSet::is_empty")]
    pub append: InodeSet,
}

impl FileFlags {
    pub fn is_empty(&self) -> bool {
        self.nocow.is_empty() && self.immutable.is_empty() && self.append.is_empty()
    }
}

/// Inode numbers as ascending ranges. In JSON one list of pairs: how many numbers lie between the range before (or 0) and
/// this one, and how many numbers follow its first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct InodeSet {
    /// First and last of each.
    ranges: Vec<(u64, u64)>,
}

impl InodeSet {
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    pub fn contains(&self, inode: u64) -> bool {
        let after = self.ranges.partition_point(|(first, _)| *first <= inode);
        after > 0 && self.ranges[after - 1].1 >= inode
    }

    fn pairs(&self) -> impl Iterator<Item = [u64; 2]> {
        let mut next = 0;
        self.ranges.iter().map(move |(first, last)| {
            let pair = [first - next, last - first];
            next = last.saturating_add(1);
            pair
        })
    }

    /// Appends what a pair says; none where it goes beyond the largest number or the largest list.
    fn append(&mut self, [skipped, more]: [u64; 2]) -> Option<()> {
        let next = match self.ranges.last() {
            Some((_, last)) => last.checked_add(1)?,
            None => 0,
        };
        let first = next.checked_add(skipped)?;
        let range = (first, first.checked_add(more)?);
        if self.ranges.len() == FLAG_RANGES_MAX {
            return None;
        }
        self.ranges.push(range);
        Some(())
    }
}

impl Serialize for InodeSet {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.pairs().flatten())
    }
}

impl<'de> Deserialize<'de> for InodeSet {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<InodeSet, D::Error> {
        deserializer.deserialize_seq(Pairs)
    }
}

struct Pairs;

impl<'de> Visitor<'de> for Pairs {
    type Value = InodeSet;

    fn expecting(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str("a list of pairs of numbers")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<InodeSet, A::Error> {
        let mut set = InodeSet::default();
        while let Some(skipped) = seq.next_element()? {
            let more = seq.next_element()?;
            let more = more.ok_or_else(|| A::Error::custom("a number without its pair"))?;
            set.append([skipped, more])
                .ok_or_else(|| A::Error::custom("not a bounded set of inode numbers"))?;
        }
        Ok(set)
    }
}

/// What flags one file has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Flagged {
    pub nocow: bool,
    pub immutable: bool,
    pub append: bool,
}

/// Makes [`FileFlags`] of files told in ascending order of their inode numbers. A range goes on over numbers that were not
/// told: those are of no file, or of one that is not new.
#[derive(Debug, Default)]
pub struct FlagList {
    flags: FileFlags,
    /// Whether the last range of each set goes on with the next file.
    unbroken: [bool; 3],
    /// Files whose flags had no room.
    left_out: u64,
}

impl FlagList {
    pub fn file(&mut self, inode: u64, has: Flagged) {
        let flags = &mut self.flags;
        let sets = [&mut flags.nocow, &mut flags.immutable, &mut flags.append];
        let mut room = FLAG_RANGES_MAX - sets.iter().map(|set| set.ranges.len()).sum::<usize>();
        let mut left_out = false;
        let has = [has.nocow, has.immutable, has.append];
        for ((set, has), unbroken) in sets.into_iter().zip(has).zip(&mut self.unbroken) {
            match set.ranges.last_mut() {
                Some((_, last)) if has && *unbroken => *last = inode,
                _ if !has => *unbroken = false,
                _ if room == 0 => left_out = true,
                _ => {
                    set.ranges.push((inode, inode));
                    room -= 1;
                    *unbroken = true;
                }
            }
        }
        self.left_out += u64::from(left_out);
    }

    /// The flags, and how many files' flags had no room in them.
    pub fn finish(self) -> (FileFlags, u64) {
        (self.flags, self.left_out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Files told as words: an inode number and the letters of chattr.
    fn list(files: &str) -> FileFlags {
        let mut list = FlagList::default();
        for word in files.split_whitespace() {
            let digits = word.trim_end_matches(char::is_alphabetic);
            let flagged = Flagged {
                nocow: word.contains('C'),
                immutable: word.contains('i'),
                append: word.contains('a'),
            };
            list.file(digits.parse().unwrap(), flagged);
        }
        let (flags, left_out) = list.finish();
        assert_eq!(left_out, 0);
        flags
    }

    fn check(files: &str, json: &str) {
        let flags = list(files);
        assert_eq!(serde_json::to_string(&flags).unwrap(), json, "{files}");
        assert_eq!(serde_json::from_str::<FileFlags>(json).unwrap(), flags);
        for word in files.split_whitespace() {
            let inode = word.trim_end_matches(char::is_alphabetic).parse().unwrap();
            assert_eq!(flags.nocow.contains(inode), word.contains('C'), "{word}");
            assert_eq!(
                flags.immutable.contains(inode),
                word.contains('i'),
                "{word}"
            );
            assert_eq!(flags.append.contains(inode), word.contains('a'), "{word}");
        }
    }

    #[test]
    fn what_files_say() {
        check("", "{}");
        check("256 257", "{}");
        check("256C", r#"{"nocow":[256,0]}"#);
        check("256 257C 258C 259", r#"{"nocow":[257,1]}"#);
        check("257C 300C 301 302C", r#"{"nocow":[257,43,1,0]}"#);
        check("1i 2a 3i", r#"{"immutable":[1,0,1,0],"append":[2,0]}"#);
        check(
            "7Cia 8Ci",
            r#"{"nocow":[7,1],"immutable":[7,1],"append":[7,0]}"#,
        );
        check(
            "0C 18446744073709551615C",
            "{\"nocow\":[0,18446744073709551615]}",
        );
    }

    fn refused(json: &str) {
        assert!(serde_json::from_str::<FileFlags>(json).is_err(), "{json}");
    }

    #[test]
    fn what_a_peer_says_is_checked() {
        refused(r#"{"nocow":[1]}"#);
        refused(r#"{"nocow":[-1,0]}"#);
        refused(r#"{"nocow":[18446744073709551615,1]}"#);
        refused(r#"{"nocow":[18446744073709551615,0,0,0]}"#);
        refused(r#"{"nocow":"257"}"#);
        refused(&format!(
            r#"{{"nocow":[0,0{}]}}"#,
            ",1,0".repeat(FLAG_RANGES_MAX)
        ));
        let later = r#"{"nocow":[5,0],"verity":[1,2,3]}"#;
        assert_eq!(
            serde_json::from_str::<FileFlags>(later).unwrap(),
            list("5C")
        );
    }

    #[test]
    fn is_bounded() {
        let (mut all, step) = (FlagList::default(), u64::MAX / 110_000);
        for number in 0..55_000 {
            let nocow = Flagged {
                nocow: true,
                ..Flagged::default()
            };
            all.file(step * 2 * number, nocow);
            all.file(step * (2 * number + 1), Flagged::default());
        }
        let (flags, left_out) = all.finish();
        assert_eq!(left_out, 5_000);
        assert!(flags.nocow.contains(step * 2 * 49_999));
        assert!(!flags.nocow.contains(step * 2 * 50_000));
        let json = serde_json::to_string(&flags).unwrap();
        assert!(json.len() < FLAGS_BYTES_MAX, "{}", json.len());
        assert_eq!(serde_json::from_str::<FileFlags>(&json).unwrap(), flags);
    }
}
