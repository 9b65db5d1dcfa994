//! The datasets of a role: where their live data are, and where they are shown while another node is active.
//!
//! Promise: no two datasets have one path, and no view lies in live data or over it, in whichever role: what is mounted inside
//! a dataset keeps it from being replaced. Paths are compared as they are written.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::Dataset;
use super::document::{Found, Section};
use super::logs::{NODE, Nodes, check_path, placed};
use super::read::{absolute, named};
use crate::logic::name::DatasetName;

/// The paths of all roles so far.
#[derive(Default)]
pub struct Paths<'a> {
    /// Live paths and views, each with the key that has it.
    taken: BTreeMap<PathBuf, String>,
    live: Vec<PathBuf>,
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

    /// Complains of views and of seeded files that lie wrong, once all roles are read.
    pub fn finish(self) {
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
    whole.then_some(datasets)
}

fn dataset<'a>(
    mut section: Section<'a>,
    paths: &mut Paths<'a>,
) -> Option<(Dataset, Option<PathBuf>)> {
    let view = section.get("standby-view");
    if let Some(found) = section.get("zfs") {
        found.refuse("this version knows btrfs only");
        section.get("btrfs");
        section.finish();
        return None;
    }
    let found = section.need("btrfs", "\"/path/of/the/subvolume\"");
    section.finish();
    let path = found.and_then(|found| {
        let path = found.parsed(absolute)?;
        if path.to_string_lossy().contains(NODE) {
            found.refuse(format!(
                "{NODE} stands for the names of nodes in a role of kind = \"logs\" only"
            ));
            return None;
        }
        paths.take(&found, &path);
        paths.live.push(path.clone());
        Some(path)
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
    Some((Dataset::Btrfs(path?), view))
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
    let found = section.need("btrfs", "\"/path/of/the/subvolumes/{node}\"");
    section.finish();
    let found = found?;
    let template = found.parsed(absolute)?;
    check_path(&found, &template)?;
    let here = nodes.here?;
    for of in [here].into_iter().chain(nodes.peers) {
        let placed = placed(&template, of, here);
        match placed.view {
            None => {
                paths.take(&found, &placed.live);
                paths.live.push(placed.live);
            }
            Some(view) => {
                paths.take(&found, &view);
                paths.views.push((found.clone(), view));
            }
        }
    }
    Some((Dataset::Btrfs(template), None))
}
