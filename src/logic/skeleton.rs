//! What one node tells another of a role they share, so that a machine that lost everything can be its node again.
//!
//! Promise: pure and total. What a peer says is held to bounds before anybody looks at it ([`Skeleton::sound`]), and words of it
//! that would make this machine run programs come as text for people only (`rest`).
//!
//! It deliberately does not know how a configuration is written (`config::skeleton`), nor who may be told.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::line::Line;
use super::name::{DatasetName, NodeName, RoleName};
use super::point::{PointId, RoleId, Term};

/// Roles of one answer.
pub const ROLES_MAX: usize = 500;

/// Entries of any list in it: peers, services, datasets ...
const ENTRIES_MAX: usize = 256;

/// Longest word in it, in bytes (Linux: PATH_MAX).
const WORD_BYTES_MAX: usize = 4096;

/// Longest text for people, in bytes.
pub const REST_BYTES_MAX: usize = 64 << 10;

/// One role, as one node has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Described {
    pub role: RoleName,
    /// How its section would read on the node that asks; none where that node is not granted its points, and for the further
    /// roles that a section of kind "logs" stands for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub skeleton: Option<Skeleton>,
    /// What is known of its terms and points; none: nobody has named it to the answering node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub known: Option<Known>,
}

/// What a node knows of a role.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Known {
    pub id: RoleId,
    /// The highest term it has seen.
    pub term: Term,
    #[serde(default, skip_serializing_if = "Line::is_empty")]
    pub line: Line,
    /// It plays the role under that term.
    #[serde(default)]
    pub plays: bool,
    #[serde(default)]
    pub newest: Option<PointId>,
    /// How many whole points it holds.
    #[serde(default)]
    pub points: u64,
}

/// A section `[role.NAME]` for another node.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Skeleton {
    /// The name of the section.
    pub name: String,
    /// Of kind "logs".
    #[serde(default)]
    pub logs: bool,
    #[serde(default)]
    pub home: Option<NodeName>,
    pub peers: Vec<NodeName>,
    pub every: String,
    pub keep: BTreeMap<String, u32>,
    #[serde(default)]
    pub keep_standby: BTreeMap<String, u32>,
    #[serde(default)]
    pub services: Vec<String>,
    #[serde(default)]
    pub addresses: Vec<String>,
    #[serde(default)]
    pub ports: Vec<String>,
    pub datasets: BTreeMap<DatasetName, Place>,
    /// Everything else of the section, as TOML: programs, dumps, seeded files. For people to look at; nobody follows it.
    #[serde(default)]
    pub rest: String,
}

/// Where a dataset lives on the node that tells.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// The key that its path stands under: `btrfs`, or `path` beside `zfs`.
    pub kind: String,
    pub path: String,
    /// The filesystem in a pool.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zfs: Option<String>,
    /// `standby-view`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub view: Option<String>,
}

impl Skeleton {
    /// Whether it is within bounds; what is not reads after "birch's role web".
    pub fn sound(&self) -> Result<(), String> {
        let lists = [&self.services, &self.addresses, &self.ports];
        let longest = lists.iter().map(|list| list.len()).max();
        let maps = self.keep.len().max(self.keep_standby.len());
        let most = [self.peers.len(), self.datasets.len(), maps];
        if most.into_iter().chain(longest).any(|n| n > ENTRIES_MAX) {
            return Err(format!("has a list of more than {ENTRIES_MAX} entries"));
        }
        if self.datasets.is_empty() {
            return Err("has no datasets".to_owned());
        }
        let places = self.datasets.values();
        let places = places.flat_map(|place| {
            let paths = [&place.kind, &place.path].into_iter();
            paths.chain(&place.view).chain(&place.zfs)
        });
        let keys = self.keep.keys().chain(self.keep_standby.keys());
        let words = lists.into_iter().flatten().chain(places).chain(keys);
        for word in words.chain([&self.name, &self.every]) {
            if word.len() > WORD_BYTES_MAX || word.chars().any(char::is_control) {
                let start: String = word.escape_debug().take(40).collect();
                return Err(format!("holds a word that is none: {start:?}"));
            }
        }
        let bare = |c: char| c.is_ascii_lowercase() || c == '-';
        if let Some(place) = self
            .datasets
            .values()
            .find(|place| place.kind.is_empty() || !place.kind.chars().all(bare))
        {
            return Err(format!("has a dataset of kind {:?}", place.kind));
        }
        if self.rest.len() > REST_BYTES_MAX {
            return Err("says more than anybody reads".to_owned());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(change: impl Fn(&mut Skeleton), expected: &str) {
        let mut skeleton = Skeleton {
            name: "web".into(),
            every: "5m".into(),
            ..Skeleton::default()
        };
        let place = Place {
            kind: "btrfs".into(),
            zfs: None,
            path: "/srv/web".into(),
            view: None,
        };
        let dataset = DatasetName::parse("files").unwrap();
        skeleton.datasets.insert(dataset, place);
        change(&mut skeleton);
        let said = skeleton.sound().err().unwrap_or_default();
        assert!(said.starts_with(expected), "{said}");
        assert_eq!(said.is_empty(), expected.is_empty(), "{said}");
    }

    #[test]
    fn bounds() {
        let place = |skeleton: &mut Skeleton, change: fn(&mut Place)| {
            change(skeleton.datasets.values_mut().next().unwrap());
        };
        check(|_| {}, "");
        check(|s| s.datasets.clear(), "has no datasets");
        check(|s| s.services = vec!["x".into(); 257], "has a list");
        check(|s| s.every = "5m\nhome = \"x\"".into(), "holds a word");
        check(|s| place(s, |p| p.path = "x".repeat(4097)), "holds a word");
        check(
            |s| place(s, |p| p.view = Some("\u{1b}[2J".into())),
            "holds a word",
        );
        check(
            |s| place(s, |p| p.kind = "btrfs = 1 #".into()),
            "has a dataset of kind",
        );
        check(|s| s.rest = "#".repeat(65 << 10), "says more");
    }
}
