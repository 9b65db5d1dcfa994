//! Keys of encrypted datasets: whether a copy can be opened here, before anything is touched for it, and opening it.
//!
//! What is received raw brings its key wrapped, and is its own encryption root. A clone of it belongs to that root, and ZFS
//! lets it leave only when it is a root itself; `zfs promote` makes it one, and needs no key for that. Then the key is loaded,
//! from the file that the configuration names (`key-file`) or the place that the dataset itself names.
//!
//! Promise: no key is read, written or changed here, and no passphrase asked for; `zfs` opens the file itself. A crash leaves a
//! dataset that is opened by the next call. It deliberately does not know why anything becomes live.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::Context;

use super::command::zfs;
use super::core::{Core, Scene};
use super::family::{Family, Snapshot};
use super::{show, store};
use crate::error::{Code, Failure};
use crate::fs::Result;
use crate::fs::btrfs::mountinfo;
use crate::logic::name::DatasetName;

/// Most datasets that a copy is made independent of: each promotion takes the snapshots of one.
const PROMOTIONS_MAX: usize = 64;

/// Longest wait for those who read a point, and between two looks: most read for less than a second.
const READ_MAX: Duration = Duration::from_secs(20);
const LOOK_EVERY: Duration = Duration::from_millis(100);

pub fn property(name: &str, of: &str) -> Result<String> {
    let said = zfs(&["get", "-Hp", "-o", "value", name, of])
        .with_context(|| format!("ask for {name} of {of}"))?;
    Ok(said.trim().to_owned())
}

/// Where the key of an encryption root is: what the configuration names, else what the root itself does; none where a person
/// would have to type it.
fn location(core: &Core, dataset: &DatasetName, root: &str) -> Result<Option<String>> {
    if let Some(key) = &core.place(dataset)?.key {
        return Ok(Some(format!("file://{}", key.display())));
    }
    let named = property("keylocation", root)?;
    Ok((named != "prompt" && named != "none").then_some(named))
}

/// The root that the live place is below; `-` where that is not encrypted.
fn root_around(core: &Core, dataset: &DatasetName) -> Result<String> {
    let live = &core.place(dataset)?.zfs;
    property("encryptionroot", store::parent(live).unwrap_or(live))
}

/// Whether a key opens what `root` holds: ZFS tries it, and changes nothing.
pub fn fits(root: &str, location: &str) -> Result<()> {
    zfs(&["load-key", "-n", "-L", location, root])
        .map(|_| ())
        .with_context(|| format!("open {root} with the key at {location}"))
}

/// Refuses, before anything is touched, a copy that could not be opened once it is live.
pub fn expect(scene: &Scene<'_>, dataset: &DatasetName, source: &Snapshot) -> Result<()> {
    let tree = scene.family(dataset)?.tree(&source.dataset);
    if !tree.is_some_and(|tree| tree.encrypted) {
        return Ok(());
    }
    let core = scene.core;
    let root = property("encryptionroot", &source.dataset)?;
    let within = root == root_around(core, dataset)?;
    if within && property("keystatus", &root)? == "available" {
        return Ok(());
    }
    let refused = |why: String, hint: String| {
        let what = format!("make {dataset} live: {why}");
        Err(Failure::new(Code::Refused, what).hint(hint).into())
    };
    let Some(location) = location(core, dataset, &root)? else {
        if within {
            let hint = format!("zfs load-key {root}");
            return refused(format!("the key of {root} is not loaded"), hint);
        }
        return refused(
            format!("it is encrypted, and this node has no key for {root}"),
            format!(
                "write the key to a file that only root reads, name it in the config of this node: \
                 role.{}.dataset.{dataset}.key-file, then `standin reload`",
                core.role
            ),
        );
    };
    if let Err(error) = fits(&root, &location) {
        let hint = format!("zfs load-key -n -L {location} {root}");
        return refused(format!("{error:#}"), hint);
    }
    if !within {
        if let Some((snapshot, at)) = shown(scene, dataset)? {
            let at = at.display();
            return refused(
                format!(
                    "{snapshot} is mounted at {at}, and what is encrypted cannot move meanwhile"
                ),
                format!(
                    "umount {at}; where it is the dataset's `standby-view`, take that out of the config"
                ),
            );
        }
    }
    Ok(())
}

/// The same of one that cannot move now, after waiting for those who read.
pub fn expect_unread(scene: &Scene<'_>, dataset: &DatasetName, source: &Snapshot) -> Result<()> {
    let family = scene.family(dataset)?;
    let tree = family.tree(&source.dataset);
    match tree.is_some_and(|tree| tree.encrypted) {
        true => wait_unread(scene.core, family),
        false => Ok(()),
    }
}

/// A snapshot that is mounted does not move, and this process mounts what it reads.
fn wait_unread(core: &Core, family: &Family) -> Result<()> {
    let end = Instant::now() + READ_MAX;
    while let Some(snapshot) = show::being_read(core, family) {
        if Instant::now() >= end {
            let snapshot = snapshot.name();
            let what = format!("move {snapshot}: it is encrypted, and this node is reading it");
            return Err(Failure::new(Code::Refused, what)
                .hint("wait for the comparison, search or copy of its files to end, then repeat it")
                .into());
        }
        std::thread::sleep(LOOK_EVERY);
    }
    Ok(())
}

/// A snapshot that the copy would take along, where somebody has it mounted.
fn shown(scene: &Scene<'_>, dataset: &DatasetName) -> Result<Option<(String, PathBuf)>> {
    let family = scene.family(dataset)?;
    let ours = |mount: &mountinfo::Mount| {
        let source = mount.source.to_string_lossy().into_owned();
        let is = |snapshot: &Snapshot| snapshot.name() == source;
        (mount.kind == "zfs" && family.snapshots.iter().any(is))
            .then(|| (source, mount.point.clone()))
    };
    Ok(mountinfo::read()?.iter().find_map(ours))
}

/// Makes a copy that is about to become live its own encryption root, where it could not take its place otherwise.
pub fn make_independent(core: &Core, dataset: &DatasetName, copy: &str) -> Result<()> {
    if property("encryption", copy)? == "off" {
        return Ok(());
    }
    let around = root_around(core, dataset)?;
    wait_unread(core, core.look()?.family(dataset)?)?;
    for _ in 0..PROMOTIONS_MAX {
        let root = property("encryptionroot", copy)?;
        if root == copy || root == around || property("origin", copy)? == "-" {
            break;
        }
        zfs(&["promote", copy])
            .with_context(|| format!("make {copy} independent of {root}, whose key it has"))?;
    }
    Ok(())
}

/// Loads the key of what is live, where it is not.
pub fn load(core: &Core, dataset: &DatasetName) -> Result<()> {
    let live = &core.place(dataset)?.zfs;
    if property("encryption", live)? == "off" {
        return Ok(());
    }
    let root = property("encryptionroot", live)?;
    let location = location(core, dataset, &root)?;
    if property("keystatus", &root)? != "available" {
        let Some(location) = &location else {
            let what = format!("mount {live}: the key of {root} is not loaded");
            return Err(Failure::new(Code::Failed, what)
                .hint(format!("zfs load-key {root} && zfs mount {live}"))
                .into());
        };
        zfs(&["load-key", "-L", location, &root])
            .with_context(|| format!("load the key of {root} from {location}"))?;
    }
    // What loads keys at boot looks there.
    match location {
        Some(location) if root == *live && property("keylocation", live)? != location => {
            zfs(&["set", &format!("keylocation={location}"), live])
                .map(|_| ())
                .with_context(|| format!("say where the key of {live} is"))
        }
        _ => Ok(()),
    }
}
