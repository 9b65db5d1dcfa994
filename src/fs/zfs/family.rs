//! All datasets in which snapshots of one dataset of a role may lie: the live one and its holders, as `zfs list` shows them.
//!
//! Promise: a snapshot is known by its guid; names are of the moment and never kept. It deliberately does not know points.

use uuid::Uuid;

use super::command::zfs_found;
use super::text;
use crate::fs::Result;

/// First half of every identity on ZFS ("zfs-guid"); the second is the snapshot's guid.
const GUIDS: u64 = 0x7a66_732d_6775_6964;

/// The identity of a guid.
pub fn identity(guid: u64) -> Uuid {
    Uuid::from_u64_pair(GUIDS, guid)
}

/// The guid of an identity; none where it is not of ZFS.
pub fn guid(identity: Uuid) -> Option<u64> {
    let (space, guid) = identity.as_u64_pair();
    (space == GUIDS).then_some(guid)
}

const COLUMNS: &str = "name,type,guid,createtxg,origin,receive_resume_token,standin:settled,encryption,mounted,userrefs";

/// What follows the `@` of a snapshot that was set aside begins so; the guid of a copy that came in its place is the same.
pub const ASIDE: &str = "standin-aside_";

/// Whether a row is of a live dataset or its room. Snapshots of what is nested in the live dataset are nobody's.
fn is_of(line: &str, live: &str, room: &str) -> bool {
    let name = line.split('\t').next().unwrap_or_default();
    let (dataset, snapshot) = match name.split_once(['@', '#']) {
        Some((dataset, _)) => (dataset, true),
        None => (name, false),
    };
    let below = |outer: &str| {
        dataset
            .strip_prefix(outer)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    dataset == live || below(room) || (!snapshot && below(live))
}

/// A filesystem.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tree {
    pub name: String,
    pub guid: u64,
    /// The snapshot it is a clone of.
    pub origin: Option<String>,
    /// What a receive that was cut left.
    pub token: Option<String>,
    /// See [`super::store::SETTLED`].
    pub settled: bool,
    pub encrypted: bool,
    pub mounted: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    pub dataset: String,
    /// What follows the `@`.
    pub short: String,
    pub guid: u64,
    /// Orders the snapshots of one pool.
    pub txg: u64,
    /// Somebody keeps it from being destroyed (`zfs hold`).
    pub held: bool,
}

/// What can be the base of a send after its snapshot has gone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bookmark {
    /// `tank/www#standin_...`
    pub name: String,
    /// Of its snapshot.
    pub guid: u64,
}

impl Snapshot {
    pub fn name(&self) -> String {
        format!("{}@{}", self.dataset, self.short)
    }

    /// What a bookmark of it is called.
    pub fn bookmark_name(&self) -> String {
        format!("{}#{}", self.dataset, self.short)
    }

    /// Whether it was set aside: then it stands for nothing.
    pub fn is_aside(&self) -> bool {
        self.short.starts_with(ASIDE)
    }
}

#[derive(Debug, Clone, Default)]
pub struct Family {
    pub trees: Vec<Tree>,
    /// By the order in which they were made.
    pub snapshots: Vec<Snapshot>,
    pub bookmarks: Vec<Bookmark>,
}

impl Family {
    /// Looks at live datasets, each with its room: at the snapshots and bookmarks of both, and at every filesystem in them. What is
    /// not there has nothing. One run of the program for all: it takes longer than what it does.
    pub fn look(of: &[(&str, &str)]) -> Result<Vec<Family>> {
        let mut arguments = vec!["list", "-Hp", "-r", "-t", "filesystem,snapshot,bookmark"];
        arguments.extend(["-o", COLUMNS]);
        arguments.extend(of.iter().flat_map(|(live, room)| [*live, *room]));
        let listed = zfs_found(&arguments)?;
        let mut families = Vec::new();
        for (live, room) in of {
            let ours = listed.lines().filter(|line| is_of(line, live, room));
            let mut family = Family::default();
            family.add(ours)?;
            family.snapshots.sort_by_key(|snapshot| snapshot.txg);
            families.push(family);
        }
        Ok(families)
    }

    fn add<'t>(&mut self, listed: impl Iterator<Item = &'t str>) -> Result<()> {
        for line in listed {
            let row = text::row(line, COLUMNS.split(',').count())?;
            let &[
                name,
                kind,
                guid,
                txg,
                origin,
                token,
                settled,
                encryption,
                mounted,
                holds,
            ] = &row[..]
            else {
                continue;
            };
            let guid = text::number(guid)?.unwrap_or(0);
            match (kind, name.split_once('@')) {
                ("snapshot", Some((dataset, short))) => self.snapshots.push(Snapshot {
                    dataset: dataset.to_owned(),
                    short: short.to_owned(),
                    guid,
                    txg: text::number(txg)?.unwrap_or(0),
                    held: text::number(holds)?.is_some_and(|holds| holds > 0),
                }),
                ("bookmark", None) => self.bookmarks.push(Bookmark {
                    name: name.to_owned(),
                    guid,
                }),
                ("filesystem", None) => self.trees.push(Tree {
                    name: name.to_owned(),
                    guid,
                    origin: text::word(origin),
                    token: text::word(token),
                    settled: settled == "yes",
                    encrypted: text::word(encryption).is_some_and(|word| word != "off"),
                    mounted: mounted == "yes",
                }),
                _ => {}
            }
        }
        Ok(())
    }

    pub fn tree(&self, name: &str) -> Option<&Tree> {
        self.trees.iter().find(|tree| tree.name == name)
    }

    pub fn by_guid(&self, guid: u64) -> Option<&Snapshot> {
        self.snapshots
            .iter()
            .find(|found| found.guid == guid && !found.is_aside())
    }

    pub fn bookmark(&self, identity: Uuid) -> Option<&Bookmark> {
        let guid = guid(identity)?;
        self.bookmarks.iter().find(|found| found.guid == guid)
    }

    /// The snapshot of an identity.
    pub fn by_identity(&self, identity: Uuid) -> Option<&Snapshot> {
        self.by_guid(guid(identity)?)
    }

    /// Snapshots of one dataset, oldest first.
    pub fn of<'a>(&'a self, dataset: &'a str) -> impl DoubleEndedIterator<Item = &'a Snapshot> {
        self.snapshots
            .iter()
            .filter(move |found| found.dataset == dataset)
    }

    pub fn newest<'a>(&'a self, dataset: &'a str) -> Option<&'a Snapshot> {
        self.of(dataset).next_back()
    }

    /// Filesystems that are clones of a snapshot.
    pub fn clones<'a>(&'a self, of: &'a Snapshot) -> impl Iterator<Item = &'a Tree> {
        let name = of.name();
        self.trees
            .iter()
            .filter(move |tree| tree.origin.as_deref() == Some(&name))
    }

    /// Filesystems nested in one.
    pub fn inside<'a>(&'a self, dataset: &'a str) -> impl Iterator<Item = &'a Tree> {
        self.trees.iter().filter(move |tree| {
            let rest = tree.name.strip_prefix(dataset);
            rest.is_some_and(|rest| rest.starts_with('/'))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_family() {
        let mut family = Family::default();
        family
            .add("t/www\tfilesystem\t11\t5\tt/.standin/web/www/in-1@standin_a\t-\t-\toff\tyes\t-\nt/www@standin_b\tsnapshot\t13\t9\t-\t-\t-\toff\t-\t1\nt/www#standin_c\tbookmark\t14\t8\t-\t-\t-\t-\t-\t-\nt/www/sub\tfilesystem\t12\t6\t-\t-\t-\toff\tyes\t-\n".lines())
            .unwrap();
        family
            .add("t/.standin/web/www/in-1\tfilesystem\t21\t3\t-\t1-ab\tyes\taes-256-gcm\tno\t-\nt/.standin/web/www/in-1@standin_a\tsnapshot\t18446744073709551615\t4\t-\t-\t-\taes-256-gcm\t-\t0\nt/.standin/web/www/in-1@standin-aside_1\tsnapshot\t15\t4\t-\t-\t-\taes-256-gcm\t-\t0\n".lines())
            .unwrap();
        let old = family.by_guid(u64::MAX).unwrap();
        assert_eq!(old.name(), "t/.standin/web/www/in-1@standin_a");
        let clones: Vec<_> = family.clones(old).map(|tree| &tree.name).collect();
        assert_eq!(clones, ["t/www"]);
        assert_eq!(family.newest("t/www").unwrap().guid, 13);
        assert!(family.by_guid(13).unwrap().held && !old.held);
        assert_eq!(family.by_guid(15), None, "it was set aside");
        assert_eq!(
            family.bookmark(identity(14)).unwrap().name,
            "t/www#standin_c"
        );
        assert_eq!(family.inside("t/www").count(), 1);
        let holder = family.tree("t/.standin/web/www/in-1").unwrap();
        assert!(holder.settled && holder.encrypted && !holder.mounted);
        assert_eq!(holder.token.as_deref(), Some("1-ab"));
        assert_eq!(guid(identity(13)), Some(13));
        assert_eq!(guid(Uuid::new_v4()), None);
    }

    #[test]
    fn whose_rows() {
        let check = |name: &str, expected: bool| {
            let line = format!("{name}\tfilesystem\t1");
            assert_eq!(
                is_of(&line, "t/www", "t/.standin/r/www"),
                expected,
                "{name}"
            );
        };
        for name in [
            "t/www",
            "t/www@a",
            "t/www#a",
            "t/www/sub",
            "t/.standin/r/www",
            "t/.standin/r/www/in-1@a",
        ] {
            check(name, true);
        }
        for name in [
            "t/www2",
            "t/www/sub@a",
            "t/www/sub#a",
            "t/.standin/r/www2/in-1",
            "t",
            "t@a",
        ] {
            check(name, false);
        }
    }
}
