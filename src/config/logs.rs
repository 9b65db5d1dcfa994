//! Roles of the kind `logs`: what every node writes for itself and sends to all. One section of the file stands for one role
//! a node: of `[role.syslog]` alder is the home of `syslog.alder`, birch that of `syslog.birch`.
//!
//! Promise: the same section on every node comes to the same roles. What one node writes has its live path on that node only;
//! on the others the path shows its newest point, and the live path of the role is a name that is never made.
//!
//! It deliberately does not know what a role of this kind may do; that is `logic::logs`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::datasets::Datasets;
use super::document::{Found, Section};
use super::{Dataset, Role};
use crate::logic::name::{DatasetName, NodeName, RoleName};

/// What stands in paths for the name of a node.
pub const NODE: &str = "{node}";

/// The word of the file for this kind.
pub const WORD: &str = "logs";

/// What a role of this kind was written as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Logs {
    /// The name in the file; it stands for this role and those of the other nodes.
    pub of: RoleName,
    /// The live data as in the file, with [`NODE`] in their paths.
    pub live: BTreeMap<DatasetName, Dataset>,
}

impl Logs {
    /// Of the section `name`, whose datasets have their live paths as they are written.
    pub(super) fn of(name: &RoleName, datasets: Option<&Datasets>) -> Logs {
        Logs {
            of: name.clone(),
            live: datasets.map(|found| found.live.clone()).unwrap_or_default(),
        }
    }
}

/// The nodes of a role of this kind; `here` is none where this node's name is wrong.
#[derive(Clone, Copy)]
pub struct Nodes<'n> {
    pub here: Option<&'n NodeName>,
    pub peers: &'n [NodeName],
}

/// Whether the role is of this kind. None: of no kind there is.
pub fn kind(found: &Found) -> Option<bool> {
    match found.text()? {
        WORD => Some(true),
        _ => {
            found.refuse(
                "no such kind: write \"logs\", or leave it out for a role that one node plays",
            );
            None
        }
    }
}

/// Refuses what only a role has that moves.
pub fn refuse_moving(role: &mut Section) {
    let starts = "has no use for kind = \"logs\": nothing starts or stops with it, every node writes its own, always";
    for (key, why) in [
        (
            "home",
            "has no meaning for kind = \"logs\": every node is the home of what it writes",
        ),
        ("services", starts),
        ("service", starts),
        ("addresses", starts),
        ("ports", starts),
        ("hooks", starts),
        (
            "drill",
            "rehearses a promotion; a role of kind = \"logs\" is never promoted",
        ),
    ] {
        if let Some(found) = role.get(key) {
            found.refuse_key(why);
        }
    }
}

/// Where a live path lies on this node, and where it is shown, for the logs of one node.
pub struct Placed {
    pub live: PathBuf,
    pub view: Option<PathBuf>,
}

/// The paths of what `of` writes, as they are on the node `here`.
pub fn placed(template: &Path, of: &NodeName, here: &NodeName) -> Placed {
    // The path came from a TOML text, which is UTF-8.
    let path = PathBuf::from(template.to_string_lossy().replace(NODE, of.as_str()));
    if of == here {
        return Placed {
            live: path,
            view: None,
        };
    }
    let last = path.file_name().unwrap_or_default().to_string_lossy();
    Placed {
        // It says which filesystem the points are on; nothing of this name is ever made.
        live: path.with_file_name(format!(".standin.{last}")),
        view: Some(path),
    }
}

fn live_of(template: &Dataset, of: &NodeName, here: &NodeName) -> Dataset {
    let path = placed(template.path(), of, here).live;
    match template {
        Dataset::Btrfs(_) => Dataset::Btrfs(path),
        // The filesystem of another node: nothing of this name is ever made, what it sends lies beside.
        Dataset::Zfs { name, key, .. } => Dataset::Zfs {
            name: name.replace(NODE, of.as_str()),
            path,
            key: key.clone(),
        },
    }
}

/// Complains of a path that does not tell the nodes apart.
pub fn check_path(found: &Found, path: &Path) -> Option<()> {
    if path.to_string_lossy().contains(NODE) {
        return Some(());
    }
    found.refuse(format!(
        "each node of a role of kind = \"logs\" writes at a path of its own: write {NODE} where its name belongs, such as \"{}/{NODE}\"",
        path.display()
    ));
    None
}

/// The same of the name of a ZFS filesystem.
pub fn check_name(found: &Found, name: &str) -> Option<()> {
    if name.contains(NODE) {
        return Some(());
    }
    found.refuse(format!(
        "each node of a role of kind = \"logs\" writes a filesystem of its own: write {NODE} where its name belongs, such as \"{name}/{NODE}\""
    ));
    None
}

/// The roles that `role`, whose live paths are as in the file, stands for on this node; itself where it is of the usual kind.
pub fn expanded(role: Role, here: Option<&NodeName>, found: &Found) -> Vec<Role> {
    let (Some(logs), Some(here)) = (&role.logs, here) else {
        return vec![role];
    };
    let mut roles = Vec::new();
    for of in [here].into_iter().chain(&role.peers) {
        let Ok(name) = RoleName::parse(&format!("{}.{of}", logs.of)) else {
            found.refuse_key(format!(
                "too long: it stands for the role {}.{of}, and a name has at most 48 characters",
                logs.of
            ));
            continue;
        };
        let live = logs.live.iter();
        let live = live.map(|(name, dataset)| (name.clone(), live_of(dataset, of, here)));
        let views = logs.live.iter();
        let views = views.filter_map(|(name, dataset)| {
            Some((name.clone(), placed(dataset.path(), of, here).view?))
        });
        roles.push(Role {
            name,
            home: of.clone(),
            datasets: live.collect(),
            views: views.collect(),
            ..role.clone()
        });
    }
    roles
}
