//! Identity of a recovery point: the role's id, the term it was taken under, and its sequence in the role.
//!
//! Promise: two nodes that mean the same point hold equal [`PointId`]s, whatever their clocks and directory names say;
//! points order by term, then sequence, never by time. A [`PointName`] is that identity spelled for people and
//! directories, with the time in front so that a listing reads as a history.
//!
//! It deliberately does not know datasets or filesystems.

use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::name::NodeName;

/// The common identity of a role on all its nodes. Made once, by the node on which the role first became active.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RoleId(pub Uuid);

impl fmt::Display for RoleId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// One period of being active. Ordered by epoch; equal epochs with another holder or nonce are a conflict, not a rank.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Term {
    pub epoch: u64,
    pub holder: NodeName,
    /// Drawn at random for each claim, so that two claims of one epoch differ even by the same holder.
    pub nonce: u64,
}

impl fmt::Display for Term {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.epoch, self.holder)
    }
}

/// Identity of a point inside its role.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PointId {
    pub term: Term,
    /// Counts up by one for each point of the role, across terms.
    pub sequence: u64,
}

impl PointId {
    /// Where the point stands in its lineage.
    pub fn rank(&self) -> (u64, u64) {
        (self.term.epoch, self.sequence)
    }
}

/// `epoch.sequence`, the short spelling used in messages.
impl fmt::Display for PointId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.term.epoch, self.sequence)
    }
}

/// `20261120T123105Z.1.42`: time taken (UTC), epoch, sequence. A safe directory name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PointName {
    /// Whole seconds.
    pub taken: Timestamp,
    pub epoch: u64,
    pub sequence: u64,
}

impl PointName {
    pub fn of(id: &PointId, taken: Timestamp) -> PointName {
        let taken = Timestamp::from_second(taken.as_second()).unwrap_or(Timestamp::UNIX_EPOCH);
        PointName {
            taken,
            epoch: id.term.epoch,
            sequence: id.sequence,
        }
    }

    /// The exact inverse of `Display`; anything else is not a point name.
    pub fn parse(word: &str) -> Option<PointName> {
        let mut parts = word.split('.');
        let (time, epoch, sequence) = (parts.next()?, parts.next()?, parts.next()?);
        if parts.next().is_some() {
            return None;
        }
        let taken = jiff::civil::DateTime::strptime("%Y%m%dT%H%M%SZ", time).ok()?;
        let taken = taken.to_zoned(jiff::tz::TimeZone::UTC).ok()?.timestamp();
        let name = PointName {
            taken,
            epoch: epoch.parse().ok()?,
            sequence: sequence.parse().ok()?,
        };
        (name.to_string() == word).then_some(name)
    }
}

impl fmt::Display for PointName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let time = self.taken.strftime("%Y%m%dT%H%M%SZ");
        f.pad(&format!("{time}.{}.{}", self.epoch, self.sequence))
    }
}

impl Serialize for PointName {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for PointName {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<PointName, D::Error> {
        let word = String::deserialize(d)?;
        PointName::parse(&word)
            .ok_or_else(|| serde::de::Error::custom(format!("{word:?} is not a point name")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(word: &str, ok: bool) {
        let parsed = PointName::parse(word);
        assert_eq!(parsed.is_some(), ok, "{word:?}");
        if let Some(name) = parsed {
            assert_eq!(name.to_string(), word);
        }
    }

    #[test]
    fn spelling_is_exact() {
        check("20261120T123105Z.1.42", true);
        check("19700101T000000Z.0.0", true);
        for word in [
            "",
            "20261120T123105Z.1",
            "20261120T123105Z.1.42.7",
            "20261120T123105Z.01.42",
            "20261120T123105Z.1.+2",
            "../x.1.2",
            "20261320T123105Z.1.2",
        ] {
            check(word, false);
        }
    }

    #[test]
    fn fractions_of_a_second_do_not_change_the_name() {
        let id = PointId {
            term: Term {
                epoch: 3,
                holder: NodeName::parse("alder").unwrap(),
                nonce: 9,
            },
            sequence: 7,
        };
        let taken: Timestamp = "2026-11-20T12:31:05.987Z".parse().unwrap();
        assert_eq!(
            PointName::of(&id, taken).to_string(),
            "20261120T123105Z.3.7"
        );
    }
}
