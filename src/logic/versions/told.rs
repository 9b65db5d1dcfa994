//! What nodes tell each other of the versions of a path.
//!
//! Promise: what a peer said is bounded, and believed only where it answers the question: other paths are left out, words are made
//! harmless by who shows them. Points in a row that show the same thing are told once.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::{Facts, Forked, History, Seen};
use crate::logic::locate;
use crate::logic::name::NodeName;
use crate::logic::point::PointName;

/// Paths of one answer.
pub const PATHS_MAX: usize = 100;

/// Points named in one answer, over all its paths: some 3 MB of JSON.
pub const POINTS_MAX: usize = 100_000;

/// Points in a row that show the same.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sighting {
    pub points: Vec<PointName>,
    /// Who took them.
    #[serde(default)]
    pub by: Option<NodeName>,
    #[serde(default)]
    pub facts: Option<Facts>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ForkTrail {
    pub fork: PointName,
    #[serde(default)]
    pub base: Option<(u64, u64)>,
    pub seen: Vec<Sighting>,
}

/// One path, in every point of a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trail {
    /// In the dataset.
    pub path: String,
    pub line: Vec<Sighting>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub forks: Vec<ForkTrail>,
}

/// What is told of a history, which is in order; none where that would name more than `room` points.
pub fn tell(path: &str, history: &History, room: &mut usize) -> Option<Trail> {
    let named = history.line.len() + history.forks.iter().map(|f| f.seen.len()).sum::<usize>();
    *room = room.checked_sub(named)?;
    let fork = |forked: &Forked| ForkTrail {
        fork: forked.fork,
        base: forked.base,
        seen: sightings(&forked.seen),
    };
    Some(Trail {
        path: path.to_owned(),
        line: sightings(&history.line),
        forks: history.forks.iter().map(fork).collect(),
    })
}

fn sightings(seen: &[Seen]) -> Vec<Sighting> {
    let mut told: Vec<Sighting> = Vec::new();
    for seen in seen {
        match told.last_mut() {
            Some(last) if last.by == seen.taken_by && last.facts == seen.facts => {
                last.points.push(seen.point);
            }
            _ => told.push(Sighting {
                points: vec![seen.point],
                by: seen.taken_by.clone(),
                facts: seen.facts.clone(),
            }),
        }
    }
    told
}

/// What of a peer's answer may be an answer to `asked`, a path or a pattern: at most [`PATHS_MAX`] plain paths.
pub fn believed(asked: &Path, trails: Vec<Trail>) -> Vec<Trail> {
    let pattern = locate::is_pattern(asked).then(|| glob::Pattern::new(&asked.to_string_lossy()));
    let meant = |trail: &Trail| {
        let path = Path::new(&trail.path);
        let matches = match &pattern {
            Some(Ok(pattern)) => pattern.matches_path(path),
            Some(Err(_)) => false,
            None => path == asked,
        };
        // A path that has characters of a pattern in its name answers for itself.
        locate::is_plain(path) && (matches || path == asked)
    };
    trails.into_iter().filter(meant).take(PATHS_MAX).collect()
}

/// Takes a peer's trail into a history. Of points that were looked at here only that the peer holds them is taken.
pub fn merge(history: &mut History, peer: &NodeName, trail: Trail) {
    for seen in heard(peer, trail.line) {
        let known = history
            .line
            .iter_mut()
            .find(|ours| ours.point == seen.point);
        match known {
            Some(known) if !known.on.contains(peer) => known.on.push(peer.clone()),
            Some(_) => {}
            None => history.line.push(seen),
        }
    }
    let forks = trail.forks.into_iter().map(|fork| Forked {
        fork: fork.fork,
        base: fork.base,
        seen: heard(peer, fork.seen).collect(),
    });
    history.forks.extend(forks);
}

fn heard(peer: &NodeName, told: Vec<Sighting>) -> impl Iterator<Item = Seen> {
    told.into_iter().flat_map(move |sighting| {
        let seen = |point| Seen {
            point,
            taken_by: sighting.by.clone(),
            on: vec![peer.clone()],
            facts: sighting.facts.clone(),
        };
        sighting
            .points
            .iter()
            .copied()
            .map(seen)
            .collect::<Vec<_>>()
    })
}

#[cfg(test)]
mod tests {
    use super::super::Kind;
    use super::*;
    use jiff::Timestamp;

    fn node(word: &str) -> NodeName {
        NodeName::parse(word).unwrap()
    }

    fn seen(sequence: u64, size: Option<u64>, on: &str) -> Seen {
        let facts = size.map(|size| Facts {
            kind: Kind::File,
            size,
            mtime: (1, 0),
            ctime: (1, 0),
            inode: 7,
            mode: 0o644,
            uid: 0,
            gid: 0,
            target: None,
        });
        Seen {
            point: PointName {
                taken: Timestamp::UNIX_EPOCH,
                epoch: 1,
                sequence,
            },
            taken_by: None,
            on: vec![node(on)],
            facts,
        }
    }

    #[test]
    fn what_is_told_is_heard() {
        let theirs = History {
            line: vec![
                seen(1, None, "birch"),
                seen(2, Some(5), "birch"),
                seen(3, Some(5), "birch"),
                seen(4, Some(6), "birch"),
            ],
            ..History::default()
        };
        let trail = tell("a", &theirs, &mut 100).unwrap();
        assert_eq!(trail.line.len(), 3);
        assert_eq!(tell("a", &theirs, &mut 3), None);
        let mut ours = History {
            line: vec![seen(3, Some(5), "alder")],
            ..History::default()
        };
        merge(&mut ours, &node("birch"), trail);
        let on: Vec<String> = ours.line.iter().map(|s| format!("{:?}", s.on)).collect();
        assert_eq!(ours.line.len(), 4, "{on:?}");
        assert_eq!(ours.line[0].on, [node("alder"), node("birch")]);
    }

    #[test]
    fn other_paths_are_left_out() {
        let check = |asked: &str, paths: &[&str], expected: &[&str]| {
            let trail = |path: &&str| Trail {
                path: (*path).to_owned(),
                line: vec![],
                forks: vec![],
            };
            let kept = believed(Path::new(asked), paths.iter().map(trail).collect());
            let kept: Vec<&str> = kept.iter().map(|trail| trail.path.as_str()).collect();
            assert_eq!(kept, expected, "{asked}");
        };
        check("a/b", &["a/b", "a/c", "/etc/passwd", "../x", ""], &["a/b"]);
        check("a/*", &["a/b", "a/../../x", "b", "/a/b"], &["a/b"]);
        check("[", &["[", "a"], &["["]);
        let many = vec!["a"; 300];
        assert_eq!(
            believed(
                Path::new("*"),
                many.iter()
                    .map(|p| Trail {
                        path: (*p).into(),
                        line: vec![],
                        forks: vec![]
                    })
                    .collect()
            )
            .len(),
            PATHS_MAX
        );
    }
}
