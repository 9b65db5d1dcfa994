//! The versions of one path: what was seen of it in points, in the live data and in forks, folded into a history.
//!
//! Promise: pure. Two sightings are one version when kind, size, time of change, mode, owner and link target agree; where both
//! are of one file of one node (the same inode number there), its ctime must agree too, so that nothing that was written with
//! the old time set again is hidden. Across nodes and after a restore, ctimes and inode numbers say nothing: a copy has its own.
//! Contents are not read.
//!
//! A version lasts as long as points in a row show it. Numbers: what this node can give comes first, newest first, counted as if
//! there were no peers, then what only peers have; so a peer that comes, goes or lies renumbers nothing that is here. What a
//! peer's point cuts in two has one number.

pub mod told;

use std::collections::BTreeSet;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::name::NodeName;
use super::point::PointName;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    File,
    Directory,
    Symlink,
    /// A device, a pipe, a socket, or what a newer program knows.
    #[serde(other)]
    Special,
}

impl Kind {
    pub fn word(self) -> &'static str {
        match self {
            Kind::File => "file",
            Kind::Directory => "directory",
            Kind::Symlink => "symlink",
            Kind::Special => "special file",
        }
    }
}

/// Seconds since 1970 and nanoseconds.
pub type Stamp = (i64, u32);

/// What a look at a path tells, without reading it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Facts {
    pub kind: Kind,
    /// Bytes; 0 of anything but files.
    pub size: u64,
    pub mtime: Stamp,
    pub ctime: Stamp,
    pub inode: u64,
    /// Permissions and the bits above them, without the kind.
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    /// Of a symlink, lossy.
    #[serde(default)]
    pub target: Option<String>,
}

impl Facts {
    /// Whether both may be one version wherever they were seen.
    fn alike(&self, other: &Facts) -> bool {
        let content = |facts: &Facts| (facts.kind, facts.size, facts.mtime, facts.target.clone());
        let owner = |facts: &Facts| (facts.mode, facts.uid, facts.gid);
        content(self) == content(other) && owner(self) == owner(other)
    }

    fn what_changed(&self, next: &Facts) -> What {
        if self.kind != next.kind {
            return What::Replaced;
        }
        let content = |facts: &Facts| (facts.size, facts.mtime, facts.target.clone());
        match content(self) == content(next) {
            true => What::Metadata,
            false => What::Changed,
        }
    }
}

/// What was seen of the path in one point.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    pub point: PointName,
    /// The node that took the point, if known.
    pub taken_by: Option<NodeName>,
    /// Nodes that hold the point, the first one being the one that looked.
    pub on: Vec<NodeName>,
    /// None: it is not there.
    pub facts: Option<Facts>,
}

/// A fork's points, oldest first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Forked {
    pub fork: PointName,
    /// Rank of the point of the line that it grew from, if known.
    pub base: Option<(u64, u64)>,
    pub seen: Vec<Seen>,
}

/// All that was seen of one path.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct History {
    /// In any order.
    pub line: Vec<Seen>,
    /// Some where the live data were looked at: what is there.
    pub live: Option<Option<Facts>>,
    pub forks: Vec<Forked>,
}

/// What became of the path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum What {
    /// It is in the oldest point there is: when it came is not known.
    Oldest,
    Created,
    Changed,
    /// Owner, mode or attributes, and nothing of the content.
    Metadata,
    /// Another kind took its place: a directory in that of a file.
    Replaced,
    Removed,
}

/// A version, or an absence that follows one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version {
    /// None where nothing is there.
    pub number: Option<u32>,
    pub what: What,
    pub facts: Option<Facts>,
    /// Points that show it, oldest first; none where only the live data do.
    pub points: Vec<PointName>,
    /// Who took the first of them.
    pub by: Option<NodeName>,
    /// Nodes that hold any of them.
    pub on: BTreeSet<NodeName>,
    /// Of those, the newest point that this node can give, and the newest that a peer can.
    pub here: Option<PointName>,
    pub there: Option<(NodeName, PointName)>,
    /// It is what is live now.
    pub live: bool,
    pub fork: Option<PointName>,
    /// An older version that it equals in all that is compared.
    pub same_as: Option<u32>,
    /// Who looked at the first sighting: whose inode number it is.
    looker: Option<NodeName>,
}

impl Version {
    fn new(what: What, facts: Option<Facts>) -> Version {
        Version {
            number: None,
            what,
            facts,
            points: Vec::new(),
            by: None,
            on: BTreeSet::new(),
            here: None,
            there: None,
            live: false,
            fork: None,
            same_as: None,
            looker: None,
        }
    }

    fn sighting(&self) -> Last<'_> {
        Some((self.facts.as_ref()?, self.looker.as_ref()))
    }

    fn take_in(&mut self, seen: &Seen, ours: &NodeName) {
        if self.points.is_empty() {
            self.by.clone_from(&seen.taken_by);
            self.looker = seen.on.first().cloned();
        }
        self.points.push(seen.point);
        self.on.extend(seen.on.iter().cloned());
        match seen.on.contains(ours) {
            true => self.here = Some(seen.point),
            false => {
                let peer = seen.on.first();
                self.there = peer.map(|peer| (peer.clone(), seen.point));
            }
        }
    }

    /// When the first point that shows it was taken; none: only the live data do.
    pub fn since(&self) -> Option<Timestamp> {
        self.points.first().map(|point| point.taken)
    }

    fn is_part_of(&self, whole: &Version) -> bool {
        let shown = match whole.here {
            Some(point) => self.points.contains(&point),
            None => self.live && whole.live,
        };
        shown && self.fork == whole.fork && self.facts.is_some()
    }

    /// This node has it.
    pub fn is_here(&self) -> bool {
        self.live || self.here.is_some()
    }
}

fn rank(point: &PointName) -> (u64, u64) {
    (point.epoch, point.sequence)
}

/// What was seen before, and by whom: numbers of inodes are compared only among one node's own.
type Last<'a> = Option<(&'a Facts, Option<&'a NodeName>)>;

fn same(last: Last<'_>, next: Last<'_>) -> bool {
    match (last, next) {
        (None, None) => true,
        (Some((last, by)), Some((next, of))) => {
            let one_file = by.is_some() && by == of && last.inode == next.inode;
            last.alike(next) && (!one_file || last.ctime == next.ctime)
        }
        _ => false,
    }
}

fn step(last: Last<'_>, next: Last<'_>, is_first: bool) -> What {
    match (last, next) {
        (_, None) => What::Removed,
        (None, Some(_)) if is_first => What::Oldest,
        (None, Some(_)) => What::Created,
        (Some((last, _)), Some((next, _))) => last.what_changed(next),
    }
}

/// Newest first. Empty: the path was never seen.
pub fn fold(history: History, ours: &NodeName) -> Vec<Version> {
    let is_ours = |seen: &Seen| seen.on.contains(ours);
    let mut here = history.clone();
    here.line.retain(is_ours);
    here.forks.retain(|fork| fork.seen.iter().all(is_ours));
    let alone = here == history;
    let mut versions = rows(history, ours);
    match alone {
        true => number(&mut versions, None),
        false => {
            let mut here = rows(here, ours);
            number(&mut here, None);
            number(&mut versions, Some(&here));
        }
    }
    versions
}

fn rows(mut history: History, ours: &NodeName) -> Vec<Version> {
    history.line.sort_by_key(|seen| rank(&seen.point));
    let mut versions: Vec<Version> = Vec::new();
    let mut last: Last<'_> = None;
    for (at, seen) in history.line.iter().enumerate() {
        let next = seen.facts.as_ref().map(|facts| (facts, seen.on.first()));
        // Absences before the first sighting are nobody's business.
        if versions.is_empty() && next.is_none() {
            continue;
        }
        if versions.is_empty() || !same(last, next) {
            versions.push(Version::new(step(last, next, at == 0), seen.facts.clone()));
        }
        if let Some(version) = versions.last_mut() {
            version.take_in(seen, ours);
        }
        last = next;
    }
    if let Some(live) = &history.live {
        let next = live.as_ref().map(|facts| (facts, Some(ours)));
        if versions.is_empty() && next.is_some() || !versions.is_empty() && !same(last, next) {
            let mut version = Version::new(step(last, next, false), live.clone());
            version.looker = Some(ours.clone());
            versions.push(version);
        }
        if let Some(version) = versions.last_mut() {
            version.live = true;
        }
    }
    for forked in &history.forks {
        versions.extend(of_fork(forked, &history.line, ours));
    }
    // Stable: what the live data alone show is newest, a fork comes after the line's own of the same moment.
    let since = |version: &Version| version.since().unwrap_or(Timestamp::MAX);
    versions.sort_by_key(since);
    versions.reverse();
    versions
}

/// What a fork has that its base has not.
fn of_fork(forked: &Forked, line: &[Seen], ours: &NodeName) -> Vec<Version> {
    let before = line.iter().rev();
    let mut before = before.filter(|seen| forked.base.is_none_or(|base| rank(&seen.point) <= base));
    let base = before.next();
    let mut last: Last<'_> = base.and_then(|seen| Some((seen.facts.as_ref()?, seen.on.first())));
    let mut versions: Vec<Version> = Vec::new();
    for seen in &forked.seen {
        let next = seen.facts.as_ref().map(|facts| (facts, seen.on.first()));
        if !same(last, next) {
            let mut version = Version::new(step(last, next, false), seen.facts.clone());
            version.fork = Some(forked.fork);
            versions.push(version);
        }
        if let Some(version) = versions.last_mut() {
            version.take_in(seen, ours);
        }
        last = next;
    }
    versions
}

/// `here`: what there is without the peers, numbered.
fn number(versions: &mut [Version], here: Option<&[Version]>) {
    let mut next = 0;
    for version in versions
        .iter_mut()
        .filter(|v| v.facts.is_some() && v.is_here())
    {
        version.number = match here {
            None => {
                next += 1;
                Some(next)
            }
            Some(here) => {
                let known = here.iter().find(|known| known.is_part_of(version));
                known.and_then(|known| known.number)
            }
        };
        next = next.max(version.number.unwrap_or(0));
    }
    for version in versions
        .iter_mut()
        .filter(|v| v.facts.is_some() && !v.is_here())
    {
        next += 1;
        version.number = Some(next);
    }
    for at in 0..versions.len() {
        let Some(newer) = versions[at].sighting() else {
            continue;
        };
        let mut older = versions[at + 1..].iter();
        let equal = older.find(|version| same(version.sighting(), Some(newer)));
        let equal = equal.and_then(|version| version.number);
        versions[at].same_as = equal.filter(|equal| versions[at].number != Some(*equal));
    }
}

/// Which version somebody wants.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Pick {
    /// The newest one that is not what is live now.
    Last,
    /// The newest one, live or not.
    Newest,
    Number(u32),
    /// As it was in a point: `epoch.sequence`, a name, or the beginning of one.
    Point(String),
    /// As it was at that time.
    Before(Timestamp),
}

/// The picked version, by its index. The error is half a sentence for the person.
pub fn pick(versions: &[Version], pick: &Pick) -> Result<usize, String> {
    let position = |is: &dyn Fn(&Version) -> bool| versions.iter().position(is);
    match pick {
        Pick::Newest => position(&|v| v.facts.is_some()).ok_or_else(|| "no point shows it".into()),
        Pick::Last => position(&|v| v.facts.is_some() && !v.live && v.differs_from_live(versions))
            .ok_or_else(|| match versions.is_empty() {
                true => "no point shows it".into(),
                false => "no version differs from what is live now".into(),
            }),
        Pick::Number(number) => position(&|v| v.number == Some(*number)).ok_or_else(|| {
            let most = versions.iter().filter_map(|v| v.number).max().unwrap_or(0);
            format!("there is no version {number}: they go from 1 to {most}")
        }),
        Pick::Point(words) => in_point(versions, words),
        Pick::Before(time) => {
            let then = |v: &Version| v.fork.is_none() && v.since().is_some_and(|at| at <= *time);
            match position(&then) {
                Some(at) if versions[at].facts.is_none() => Err(gone(versions, at)),
                Some(at) => Ok(at),
                None => Err("no point of that time or before shows it".into()),
            }
        }
    }
}

impl Version {
    /// Not another copy of what is live: bringing that back would change nothing.
    fn differs_from_live(&self, versions: &[Version]) -> bool {
        let live = versions.iter().find(|version| version.live);
        live.is_none_or(|live| !same(self.sighting(), live.sighting()))
    }
}

/// That it was not there, and where it was last.
fn gone(versions: &[Version], at: usize) -> String {
    let mut older = versions[at + 1..].iter().filter(|v| v.fork.is_none());
    let last = older.find_map(|version| version.points.last());
    match last {
        Some(last) => format!(
            "it was not there then: {}.{} is the last point before that shows it",
            last.epoch, last.sequence
        ),
        None => "it was not there then".into(),
    }
}

fn in_point(versions: &[Version], words: &str) -> Result<usize, String> {
    let short = |point: &PointName| format!("{}.{}", point.epoch, point.sequence);
    let exact = |point: &PointName| short(point) == words || point.to_string() == words;
    let begins = |point: &PointName| !words.is_empty() && point.to_string().starts_with(words);
    let holders = |is: &dyn Fn(&PointName) -> bool| -> Vec<(usize, PointName)> {
        let all = versions.iter().enumerate();
        let points = all.flat_map(|(at, v)| v.points.iter().map(move |point| (at, *point)));
        points.filter(|(_, point)| is(point)).collect()
    };
    let mut found = holders(&exact);
    if found.is_empty() {
        found = holders(&begins);
    }
    match found.as_slice() {
        [(at, _)] if versions[*at].facts.is_none() => Err(gone(versions, *at)),
        [(at, _)] => Ok(*at),
        [] => Err(format!(
            "no point {words:?} shows it, or it is not there at all"
        )),
        // The same point in the line and in a fork is one point.
        [(at, first), rest @ ..] if rest.iter().all(|(_, point)| point == first) => Ok(*at),
        many => Err(format!(
            "{} points begin with {words:?}; write the number of one ({})",
            many.len(),
            short(&many[0].1)
        )),
    }
}

#[cfg(test)]
mod tests;
