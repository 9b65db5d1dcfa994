//! Makes a fork on a test node by the library, beside its daemon: the filesystem is looked at anew at every call.

use std::collections::BTreeMap;
use std::path::PathBuf;

use standin::fs::apart::set_apart;
use standin::fs::btrfs::Btrfs;
use standin::fs::{Filesystem, Limits};
use standin::logic::fork::{Fork, Why};
use standin::logic::name::{DatasetName, RoleName};
use standin::logic::point::PointId;

use super::cluster::TestNode;

/// The role `web` of a node, with these datasets.
pub fn filesystem(node: &TestNode, datasets: &[&str]) -> Btrfs {
    let datasets: BTreeMap<DatasetName, PathBuf> = datasets
        .iter()
        .map(|name| (DatasetName::parse(name).unwrap(), node.live(name)))
        .collect();
    Btrfs::new(RoleName::parse("web").unwrap(), datasets, Limits::default()).unwrap()
}

/// Keeps the points called `shorts` as a fork that grew from `base`.
pub fn fork(node: &TestNode, datasets: &[&str], shorts: &[&str], base: &str, why: Why) -> Fork {
    let fs = filesystem(node, datasets);
    let points = fs.list().unwrap();
    let id = |short: &str| -> PointId {
        let mut points = points.iter().map(|stored| &stored.manifest.point);
        points
            .find(|id| id.to_string() == short)
            .cloned()
            .unwrap_or_else(|| panic!("no point {short}"))
    };
    let off: Vec<PointId> = shorts.iter().map(|short| id(short)).collect();
    set_apart(&fs, &off, why, Some(id(base)), None)
        .unwrap()
        .unwrap()
}
