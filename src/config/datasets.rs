//! The datasets of a role: where their live data are, and where they are shown while another node is active.
//!
//! Promise: no two datasets have one path, those on ZFS do not lie in one another, and no view lies in live data or over it, in whichever role: what is mounted inside
//! a dataset keeps it from being replaced. Paths are compared as they are written.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::Dataset;
use super::document::{Found, Section};
use super::logs::{NODE, Nodes, check_name, check_path, placed};
use super::read::{absolute, named};
use crate::logic::name::{DatasetName, is_zfs_filesystem};
use crate::logic::transfer::Kind;

/// The paths of all roles so far.
#[derive(Default)]
pub struct Paths<'a> {
    /// Live paths and views, each with the key that has it.
    taken: BTreeMap<PathBuf, String>,
    live: Vec<PathBuf>,
    /// ZFS filesystems, each with its name and its path.
    zfs: Vec<(Found<'a>, String, PathBuf)>,
    views: Vec<(Found<'a>, PathBuf)>,
    /// Files made from templates, of which no other node may take notice.
    seeded: Vec<(Found<'a>, PathBuf)>,
}

/// What a role has on this node.
pub struct Datasets {
    pub live: BTreeMap<DatasetName, Dataset>,
    pub views: BTreeMap<DatasetName, PathBuf>,
}

impl<'a> Paths<'a> {
    fn take(&mut self, found: &Found<'a>, path: &Path) {
        if let Some(other) = self.taken.insert(path.to_owned(), found.key.clone()) {
            found.refuse(format!(
                "{other} is the same path: data belong to one dataset"
            ));
        }
    }

    /// Notes a seeded file.
    pub fn seeded(&mut self, found: Found<'a>, path: &Path) {
        if let Some((other, _)) = self.seeded.iter().find(|(_, other)| other == path) {
            found.refuse(format!("line {} makes the same file", other.line));
        }
        self.seeded.push((found, path.to_owned()));
    }

    /// Complains of what on ZFS lies in one another: taking one from its place would take the other along.
    fn finish_zfs(&self) {
        for (found, name, path) in &self.zfs {
            let others = self.zfs.iter().filter(|(other, ..)| other.key != found.key);
            for (other, outer, at) in others {
                let below = name.strip_prefix(outer.as_str());
                if below == Some("") {
                    if other.line < found.line {
                        found.refuse(format!(
                            "{} is the same filesystem: data belong to one dataset",
                            other.key
                        ));
                    }
                } else if below.is_some_and(|below| below.starts_with('/')) {
                    found.refuse(format!(
                        "lies in {outer} ({}), which could not be replaced without it: `zfs rename` it to a place beside",
                        other.key
                    ));
                } else if path != at && path.starts_with(at) {
                    found.refuse(format!(
                        "its path {} lies in that of {}, which could not be replaced while this is mounted in it: mount it \
                         beside",
                        path.display(),
                        other.key
                    ));
                }
            }
        }
    }

    /// Complains of views and of seeded files that lie wrong, once all roles are read.
    pub fn finish(self) {
        self.finish_zfs();
        let views = self.views.iter().map(|(_, view)| view);
        let taken: Vec<&PathBuf> = self.live.iter().chain(views).collect();
        for (found, file) in &self.seeded {
            if let Some(dataset) = taken.iter().find(|path| file.starts_with(path)) {
                let dataset = dataset.display();
                found.refuse(format!(
                    "inside the dataset at {dataset}, which is the same on all nodes: make it elsewhere"
                ));
            }
        }
        for (found, view) in &self.views {
            if let Some(live) = self.live.iter().find(|live| view.starts_with(live)) {
                // The same path has been complained of.
                if live != view {
                    let live = live.display();
                    found.refuse(format!(
                        "inside the dataset at {live}, which nothing may be mounted in"
                    ));
                }
            } else if let Some(live) = self.live.iter().find(|live| live.starts_with(view)) {
                found.refuse(format!("would hide the dataset at {}", live.display()));
            }
        }
    }
}

/// Reads the datasets of a role.
/// `nodes`: it is of kind = "logs", and its live paths come back as they are written.
pub fn datasets<'a>(
    role: &mut Section<'a>,
    paths: &mut Paths<'a>,
    nodes: Option<Nodes<'_>>,
) -> Option<Datasets> {
    let entries = match role.get("dataset") {
        None => Vec::new(),
        Some(found) => found.section()?.entries(),
    };
    if entries.is_empty() {
        role.complain(
            "dataset",
            "missing: a role needs at least one, such as [role.ROLE.dataset.files] with btrfs = \"/srv/files\"",
        );
        return None;
    }
    let mut datasets = Datasets {
        live: BTreeMap::new(),
        views: BTreeMap::new(),
    };
    let mut whole = true;
    for found in entries {
        let name = named(&found, DatasetName::parse);
        let dataset = found.section().and_then(|section| match nodes {
            None => dataset(section, paths),
            Some(nodes) => of_logs(section, paths, nodes),
        });
        let (Some(name), Some((dataset, view))) = (name, dataset) else {
            whole = false;
            continue;
        };
        datasets.live.insert(name.clone(), dataset);
        datasets.views.extend(view.map(|view| (name, view)));
    }
    let kinds = |kind| datasets.live.values().any(|live| live.kind() == kind);
    if kinds(Kind::Btrfs) && kinds(Kind::Zfs) {
        role.complain(
            "dataset",
            "some lie on btrfs and some on ZFS: their snapshots could not be made together; make a role of each",
        );
        return None;
    }
    whole.then_some(datasets)
}

fn dataset<'a>(
    mut section: Section<'a>,
    paths: &mut Paths<'a>,
) -> Option<(Dataset, Option<PathBuf>)> {
    let view = section.get("standby-view");
    let written = written(&mut section, "\"/path/of/the/subvolume\"");
    section.finish();
    let live = written.and_then(|written| {
        let path = written.dataset.path().to_owned();
        for (found, word) in written.words() {
            if word.contains(NODE) {
                found.refuse(format!(
                    "{NODE} stands for the names of nodes in a role of kind = \"logs\" only"
                ));
                return None;
            }
        }
        paths.take(&written.path, &path);
        paths.live.push(path);
        paths.zfs.extend(written.zfs());
        Some(written.dataset)
    });
    let view = match view {
        None => None,
        Some(found) => {
            let path = found.parsed(absolute)?;
            paths.take(&found, &path);
            paths.views.push((found, path.clone()));
            Some(path)
        }
    };
    Some((live?, view))
}

/// The live data as they are written, [`NODE`] and all.
struct Written<'a> {
    dataset: Dataset,
    /// The key that holds the path.
    path: Found<'a>,
    /// The key that holds the name of a ZFS filesystem.
    name: Option<Found<'a>>,
}

impl<'a> Written<'a> {
    /// The texts of it, each with its key.
    fn words(&self) -> impl Iterator<Item = (&Found<'a>, String)> {
        let path = self.dataset.path().to_string_lossy().into_owned();
        let name = match (&self.dataset, &self.name) {
            (Dataset::Zfs { name, .. }, Some(found)) => Some((found, name.clone())),
            _ => None,
        };
        [(&self.path, path)].into_iter().chain(name)
    }

    fn zfs(&self) -> Option<(Found<'a>, String, PathBuf)> {
        match &self.dataset {
            Dataset::Btrfs(_) => None,
            Dataset::Zfs { name, path, .. } => {
                Some((self.name.clone()?, name.clone(), path.clone()))
            }
        }
    }
}

/// Reads `btrfs`, or `zfs` and `path`.
fn written<'a>(section: &mut Section<'a>, example: &str) -> Option<Written<'a>> {
    let Some(name) = section.get("zfs") else {
        let path = section.need("btrfs", example)?;
        return Some(Written {
            dataset: Dataset::Btrfs(path.parsed(absolute)?),
            path,
            name: None,
        });
    };
    let path = section.need("path", "\"/srv/web\", where it is mounted while it is live");
    if let Some(found) = section.get("btrfs") {
        found.refuse_key("of a dataset with `zfs`: a dataset lies on one of the two");
        return None;
    }
    let dataset = name.parsed(zfs_filesystem);
    let key = match section.get("key-file") {
        None => None,
        Some(found) => Some(found.parsed(absolute)?),
    };
    let path = path?;
    let at = path.parsed(absolute)?;
    Some(Written {
        dataset: Dataset::Zfs {
            name: dataset?,
            path: at,
            key,
        },
        path,
        name: Some(name),
    })
}

fn zfs_filesystem(text: &str) -> Result<String, &'static str> {
    // The name of a node is letters of which a filesystem's may consist.
    if is_zfs_filesystem(&text.replace(NODE, "node")) {
        return Ok(text.to_owned());
    }
    match text.contains('/') {
        true => Err("not the name of a ZFS filesystem, such as tank/web"),
        false => Err(
            "not a ZFS filesystem below a pool, such as tank/web: the points of a whole pool would have no place",
        ),
    }
}

/// A dataset that each node has for itself: its own is live here, those of the others are shown.
fn of_logs<'a>(
    mut section: Section<'a>,
    paths: &mut Paths<'a>,
    nodes: Nodes<'_>,
) -> Option<(Dataset, Option<PathBuf>)> {
    if let Some(found) = section.get("standby-view") {
        found.refuse_key(
            "needs no saying for kind = \"logs\": what the others write is shown at their paths",
        );
    }
    let written = written(&mut section, "\"/path/of/the/subvolumes/{node}\"");
    section.finish();
    let written = written?;
    let (found, template) = (&written.path, written.dataset.path());
    check_path(found, template)?;
    if let (Some(found), Dataset::Zfs { name, .. }) = (&written.name, &written.dataset) {
        check_name(found, name)?;
    }
    let here = nodes.here?;
    for of in [here].into_iter().chain(nodes.peers) {
        let placed = placed(template, of, here);
        match placed.view {
            None => {
                paths.take(found, &placed.live);
                if let Some((found, name, _)) = written.zfs() {
                    let name = name.replace(NODE, of.as_str());
                    paths.zfs.push((found, name, placed.live.clone()));
                }
                paths.live.push(placed.live);
            }
            Some(view) => {
                paths.take(found, &view);
                paths.views.push((found.clone(), view));
            }
        }
    }
    Some((written.dataset, None))
}
