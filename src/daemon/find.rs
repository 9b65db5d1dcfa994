//! Which versions of a path there are: in points here, live, in forks, and in points of peers.
//!
//! Promise: reads and nothing else, and waits for no cycle: it takes no lock. A peer that is away, old or unwilling is named in the
//! answer, never the end of it. What is picked by a number, a point or a time is the same for `find`, `cat` and `restore`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Result;
use jiff::Timestamp;

use super::api::{FindReport, FindRequest, FoundPath, PeerAsked, Source, VersionView, Wanted};
use super::node::{Node, RoleRun};
use crate::error::{Code, Failure};
use crate::logic::locate::{self, Astray, Home, Located};
use crate::logic::name::{DatasetName, NodeName, RoleName};
use crate::logic::versions::told::{self, PATHS_MAX};
use crate::logic::versions::{Facts, Pick, Version, fold, pick};

mod look;
mod peers;

pub use look::root_of;
pub use peers::{answer, serves};

/// A path and its versions.
struct Found {
    at: Located,
    versions: Vec<Version>,
}

/// What a search tells beside what it finds.
#[derive(Default)]
struct Told {
    cut: bool,
    notes: Vec<String>,
    peers: BTreeMap<NodeName, PeerAsked>,
}

/// Answers `standin find`.
pub async fn find(node: &Arc<Node>, request: FindRequest) -> Result<FindReport> {
    let mut told = Told::default();
    let mut found = Vec::new();
    for path in &request.paths {
        let narrow = (request.role.as_ref(), request.dataset.as_ref());
        found.extend(search(node, path, narrow, !request.local, &mut told).await?);
    }
    let is_gone = |found: &Found| {
        let mut line = found.versions.iter().filter(|v| v.fork.is_none());
        line.next().is_some_and(|newest| newest.facts.is_none())
    };
    let nothing = found.is_empty();
    found.retain(|found| !request.deleted || is_gone(found));
    if request.peers {
        for found in &mut found {
            found
                .versions
                .retain(|v| v.number.is_some() && !v.is_here());
        }
        found.retain(|found| !found.versions.is_empty());
    }
    if nothing {
        return Err(unseen(&request.paths, &told));
    }
    let shown = found.into_iter().map(|found| FoundPath {
        role: found.at.role,
        dataset: found.at.dataset,
        path: found.at.inner,
        live_path: found.at.live,
        versions: found.versions.iter().map(VersionView::of).collect(),
    });
    Ok(FindReport {
        node: node.name(),
        now: Timestamp::now(),
        paths: shown.collect(),
        cut: told.cut,
        peers: told.peers.into_values().collect(),
        notes: told.notes,
    })
}

/// Peers that told nothing: what is looked for may be there.
fn silent(told: &Told) -> Vec<String> {
    let words = |peer: &PeerAsked| {
        let hint = peer.hint.as_ref().map(|hint| format!(" ({hint})"));
        let why = peer.why.as_ref()?;
        Some(format!("{}: {why}{}", peer.peer, hint.unwrap_or_default()))
    };
    told.peers.values().filter_map(words).collect()
}

/// That nothing was found, and who was not asked.
fn unseen(paths: &[PathBuf], told: &Told) -> anyhow::Error {
    let words: Vec<String> = paths.iter().map(|p| p.display().to_string()).collect();
    let what = format!(
        "find {}: it is not live, and no point and no fork shows it",
        words.join(", ")
    );
    let mut hints = silent(told);
    hints.extend(told.notes.iter().cloned());
    hints.push("a pattern in quotes finds what is spelled otherwise: '*name*'".to_owned());
    Failure::new(Code::NotFound, what)
        .hint(hints.join("; "))
        .into()
}

/// The one version that is wanted.
pub struct Chosen {
    pub run: Arc<RoleRun>,
    pub dataset: DatasetName,
    pub inner: PathBuf,
    /// Where it is, or was, live.
    pub live: PathBuf,
    pub source: Source,
    /// None where the source was given.
    pub version: Option<VersionView>,
    /// It is what is live now.
    pub is_live: bool,
}

/// Picks; `what` is what it is for, and reads after "could not".
pub async fn choose(node: &Arc<Node>, wanted: &Wanted, what: &str) -> Result<Chosen> {
    let narrow = (wanted.role.as_ref(), wanted.dataset.as_ref());
    if let Some(source) = &wanted.source {
        let at = located(node, &wanted.path, narrow)?.remove(0);
        let run = node.role(&at.role)?;
        return Ok(chosen(run, at, source.clone(), None, false));
    }
    // What this node has is not waited for. What was there at a time may be known better by a peer that kept more points.
    let near = !matches!(wanted.pick, Pick::Before(_));
    let (found, at) = match near {
        true => match picked(node, wanted, narrow, false, what).await {
            Err(error) if Failure::code_of(&error) == Code::NotFound => {
                picked(node, wanted, narrow, true, what).await?
            }
            picked => picked?,
        },
        false => picked(node, wanted, narrow, true, what).await?,
    };
    let version = &found.versions[at];
    let source = match (version.here, &version.there) {
        (Some(point), _) => Source {
            point: Some(point),
            fork: version.fork,
            peer: None,
        },
        _ if version.live => Source {
            point: None,
            fork: None,
            peer: None,
        },
        (None, Some((peer, point))) => Source {
            point: Some(*point),
            fork: version.fork,
            peer: Some(peer.clone()),
        },
        (None, None) => anyhow::bail!("{what} {}: nobody has it", wanted.path.display()),
    };
    let run = node.role(&found.at.role)?;
    let view = VersionView::of(version);
    Ok(chosen(run, found.at, source, Some(view), version.live))
}

/// The path, and the index of the version that is picked.
async fn picked(
    node: &Arc<Node>,
    wanted: &Wanted,
    narrow: Narrow<'_>,
    ask: bool,
    what: &str,
) -> Result<(Found, usize)> {
    let mut told = Told::default();
    let mut found = search(node, &wanted.path, narrow, ask, &mut told).await?;
    if found.len() > 1 {
        return Err(several(&wanted.path, &found, what));
    }
    let Some(found) = found.pop() else {
        return Err(unseen(std::slice::from_ref(&wanted.path), &told));
    };
    match pick(&found.versions, &wanted.pick) {
        Ok(at) => Ok((found, at)),
        Err(why) => {
            let list = format!(
                "standin find {} lists its versions",
                found.at.live.display()
            );
            let mut hints = vec![list];
            hints.extend(silent(&told));
            let what = format!("{what} {}: {why}", wanted.path.display());
            let failure = Failure::new(Code::NotFound, what);
            Err(failure.hint(hints.join("; ")).into())
        }
    }
}

fn chosen(
    run: Arc<RoleRun>,
    at: Located,
    source: Source,
    version: Option<VersionView>,
    is_live: bool,
) -> Chosen {
    Chosen {
        run,
        dataset: at.dataset,
        inner: at.inner,
        live: at.live,
        source,
        version,
        is_live,
    }
}

fn several(path: &Path, found: &[Found], what: &str) -> anyhow::Error {
    let mut words: Vec<String> = found
        .iter()
        .take(5)
        .map(|found| found.at.live.display().to_string())
        .collect();
    if found.len() > words.len() {
        words.push(format!("and {} more", found.len() - words.len()));
    }
    let what = format!("{what} {}: it means {} paths", path.display(), found.len());
    Failure::new(Code::Usage, what)
        .hint(format!("name one: {}", words.join(", ")))
        .into()
}

type Narrow<'a> = (Option<&'a RoleName>, Option<&'a DatasetName>);

/// Every dataset that the path may be in, the likeliest first; at least one.
fn located(node: &Node, path: &Path, (role, dataset): Narrow<'_>) -> Result<Vec<Located>> {
    if let Some(role) = role {
        node.role(role)?;
    }
    let roles = node.roles();
    let homes = roles.iter().flat_map(|run| {
        let datasets = run.fs.datasets().iter();
        datasets.map(|(dataset, live)| Home {
            role: run.name.clone(),
            dataset: dataset.clone(),
            live: live.clone(),
        })
    });
    let homes: Vec<Home> = homes.collect();
    let found = locate::locate(&homes, path, role, dataset).or_else(|why| {
        // What is reached through a link lies somewhere else.
        let parent = path.parent().filter(|_| why == Astray::Outside);
        let parent = parent.and_then(|parent| parent.canonicalize().ok());
        match (parent, path.file_name()) {
            (Some(parent), Some(name)) => {
                locate::locate(&homes, &parent.join(name), role, dataset).map_err(|_| why)
            }
            _ => Err(why),
        }
    });
    found.map_err(|why| {
        let lives: Vec<String> = homes.iter().map(|h| h.live.display().to_string()).collect();
        let (code, hint) = match &why {
            Astray::Outside => (
                Code::NotFound,
                format!("the datasets of this node live at {}", lives.join(", ")),
            ),
            Astray::Whole(_) => (
                Code::Usage,
                "standin points lists its points; to look for a file, name it: .../NAME or '.../*'"
                    .to_owned(),
            ),
            Astray::Upwards => (Code::Usage, "write the path plainly".to_owned()),
        };
        Failure::new(code, format!("find {}: {why}", path.display()))
            .hint(hint)
            .into()
    })
}

/// Looks in every dataset that the path may belong to; of an absolute path, in the first one that has seen it.
async fn search(
    node: &Arc<Node>,
    path: &Path,
    narrow: Narrow<'_>,
    ask: bool,
    told: &mut Told,
) -> Result<Vec<Found>> {
    let mut found = Vec::new();
    for at in located(node, path, narrow)? {
        found.extend(in_dataset(node, &at, ask, told).await?);
        if path.is_absolute() && !found.is_empty() {
            break;
        }
    }
    Ok(found)
}

async fn in_dataset(
    node: &Arc<Node>,
    at: &Located,
    ask: bool,
    told: &mut Told,
) -> Result<Vec<Found>> {
    let run = node.role(&at.role)?;
    let asked = async {
        match ask {
            true => peers::ask(node, &run, at).await,
            false => Vec::new(),
        }
    };
    let (looked, heard) = tokio::join!(look::look(node, &run, at, true), asked);
    let looked = looked?;
    told.cut |= looked.cut;
    told.notes.extend(looked.notes.iter().cloned());
    let mut histories: BTreeMap<PathBuf, _> = BTreeMap::new();
    for path in looked.paths() {
        histories.insert(path.clone(), looked.history(&path));
    }
    for (peer, answer) in heard {
        let asked = match answer {
            Ok(answer) => {
                told.cut |= answer.cut;
                for trail in answer.trails {
                    let path = PathBuf::from(&trail.path);
                    if histories.len() >= PATHS_MAX && !histories.contains_key(&path) {
                        told.cut = true;
                        continue;
                    }
                    let history = histories
                        .entry(path)
                        .or_insert_with_key(|path| looked.history(path));
                    told::merge(history, &peer, trail);
                }
                PeerAsked {
                    peer: peer.clone(),
                    why: None,
                    hint: None,
                }
            }
            Err(asked) => asked,
        };
        told.peers.insert(peer, asked);
    }
    let ours = node.name();
    let found = histories.into_iter().map(|(inner, history)| {
        // The live path of another match of the pattern.
        let up = at.inner.components().count();
        let live = at.live.ancestors().nth(up).unwrap_or(&at.live).join(&inner);
        Found {
            at: Located {
                inner,
                live,
                ..at.clone()
            },
            versions: fold(history, &ours),
        }
    });
    Ok(found.filter(|found| !found.versions.is_empty()).collect())
}

/// Facts in words: `file, 1.2 KiB`.
pub fn words(facts: &Facts) -> String {
    let kind = facts.kind.word();
    match (facts.kind, &facts.target) {
        (crate::logic::versions::Kind::File, _) => {
            format!("{kind}, {}", crate::logic::units::human_bytes(facts.size))
        }
        (_, Some(target)) => format!("{kind} to {target}"),
        _ => kind.to_owned(),
    }
}
