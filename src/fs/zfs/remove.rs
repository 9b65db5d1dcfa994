//! Destroys points, and tidies up: what was interrupted, what is superseded, and holders that hold nothing.
//!
//! Promise: a point is hidden by one rename before the first snapshot of it goes; `.trash` names what is still to go, and only
//! what a file names goes. A snapshot that has clones is renamed out of the way and goes with them. A holder goes by a plain
//! `zfs destroy`, which refuses as long as anything is in it; before that, `zfs promote` hands its snapshots to the clone that
//! goes on where it ends. A crash leaves files that the next sweep reads.
//!
//! It deliberately does not know why a point goes.

use std::path::{Path, PathBuf};

use anyhow::Context;
use uuid::Uuid;

use super::command::{trouble_of, zfs};
use super::core::{Core, Part, Scene};
use super::family::{Family, Tree};
use super::receive::{Transfer, give_up};
use super::store;
use super::text::Trouble;
use super::{aside, forks, guard, live, look, publish, show, take};
use crate::fs::btrfs::freeze::freeze;
use crate::fs::btrfs::uses::Used;
use crate::fs::{FsError, Result};
use crate::logic::manifest::Stored;
use crate::logic::name::DatasetName;
use crate::logic::point::PointId;

/// Most promotions in one sweep of a dataset: each takes a holder away.
const COLLAPSES_MAX: usize = 64;

/// What became of the snapshots a file in the trash names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Emptied {
    Gone,
    /// Some have clones.
    Waits,
    /// Somebody uses one.
    Busy,
}

/// See `Filesystem::destroy`.
pub fn destroy(core: &Core, id: &PointId) -> Result<()> {
    let _turn = core.turn();
    let scene = core.look()?;
    for name in scene.names_of(id)? {
        let _alone = core.alone(&name.to_string())?;
        let busy = || FsError::Busy(format!("point {name} of {}", core.role));
        look::take_point_away(&scene, &name)?;
        if show::is_shown(&scene, &name)? {
            return Err(busy().into());
        }
        let mut hidden = Vec::new();
        for part in &scene.parts {
            let file = part.point_file(core, &name);
            if file.exists() {
                let trash = new_trash(part, core);
                store::move_file(&file, &trash)?;
                hidden.push((file, trash));
            }
            store::remove_file(&aside::mark(part, core, &name))?;
        }
        freeze("destroy-hidden");
        for (at, (_, trash)) in hidden.iter().enumerate() {
            let emptied = empty(&scene, trash)?;
            if emptied == Emptied::Busy && at == 0 {
                for (file, trash) in hidden.iter().rev() {
                    store::move_file(trash, file)?;
                }
                return Err(busy().into());
            }
        }
    }
    Ok(())
}

fn new_trash(part: &Part, core: &Core) -> PathBuf {
    let unique = Uuid::new_v4();
    part.store
        .hidden(".trash", &core.role)
        .join(format!("{unique}.json"))
}

/// Moves files of points to the trash; their snapshots go with the next sweep, or now.
pub fn discard_files(scene: &Scene<'_>, part: &Part, files: &[PathBuf]) -> Result<()> {
    let mut trashed = Vec::new();
    for file in files {
        let trash = new_trash(part, scene.core);
        store::move_file(file, &trash)?;
        trashed.push(trash);
    }
    for trash in trashed {
        empty(scene, &trash)?;
    }
    Ok(())
}

/// Destroys what a file in the trash names, as far as it can be done.
fn empty(scene: &Scene<'_>, trash: &Path) -> Result<Emptied> {
    let Some(stored) = store::read_file::<Stored>(trash)? else {
        return Ok(Emptied::Gone);
    };
    let mut emptied = Emptied::Gone;
    let mut any = false;
    for (dataset, local) in &stored.local.datasets {
        let Ok(family) = scene.family(dataset) else {
            // Not configured here any more: nobody knows where it is.
            emptied = Emptied::Waits;
            continue;
        };
        if is_wanted(scene, dataset, local.uuid)? {
            continue;
        }
        let guid = super::family::guid(local.uuid);
        for found in family
            .snapshots
            .iter()
            .filter(|found| Some(found.guid) == guid && !found.is_aside())
        {
            look::take_away(found)?;
            if found.held {
                guard::release(&found.name())?;
            }
            match remove_snapshot(family, &found.name(), &found.short, found.guid)? {
                Emptied::Gone => any = true,
                // What went cannot come back: the rest waits.
                Emptied::Busy if any => emptied = Emptied::Waits,
                other => emptied = other,
            }
        }
        if emptied == Emptied::Busy {
            return Ok(emptied);
        }
    }
    if emptied == Emptied::Gone {
        store::remove_file(trash)?;
    }
    Ok(emptied)
}

fn remove_snapshot(family: &Family, name: &str, short: &str, guid: u64) -> Result<Emptied> {
    let has_clones = family
        .trees
        .iter()
        .any(|tree| tree.origin.as_deref() == Some(name));
    let destroyed = match has_clones {
        true => None,
        false => Some(zfs(&["destroy", name])),
    };
    let trouble = destroyed
        .as_ref()
        .map(|done| done.as_ref().err().and_then(trouble_of));
    match trouble {
        Some(None) if destroyed.as_ref().is_some_and(Result::is_ok) => Ok(Emptied::Gone),
        Some(Some(Trouble::Missing)) => Ok(Emptied::Gone),
        Some(Some(Trouble::Busy | Trouble::Held)) => Ok(Emptied::Busy),
        None | Some(Some(Trouble::Clones)) => {
            // Its name may be wanted again: the point may come back from a peer.
            let aside = format!("standin-trash_{guid:016x}");
            let (tree, _) = name.split_once('@').unwrap_or((name, ""));
            if short != aside {
                let to = format!("{tree}@{aside}");
                zfs(&["rename", name, &to])
                    .with_context(|| format!("rename {name} out of the way"))?;
            }
            Ok(Emptied::Waits)
        }
        _ => match destroyed {
            Some(Err(error)) => Err(error).with_context(|| format!("destroy {name}")),
            _ => Ok(Emptied::Gone),
        },
    }
}

/// Whether a point, a fork or a transfer names the snapshot.
fn is_wanted(scene: &Scene<'_>, dataset: &DatasetName, uuid: Uuid) -> Result<bool> {
    let core = scene.core;
    let names = |stored: &Stored| {
        stored
            .local
            .datasets
            .get(dataset)
            .is_some_and(|local| local.uuid == uuid)
    };
    for part in &scene.parts {
        let mut files = store::point_files(&part.store.points(&core.role))?;
        files.extend(forks::files(part, core)?);
        for (_, file) in files {
            if store::read_file::<Stored>(&file)
                .ok()
                .flatten()
                .is_some_and(|stored| names(&stored))
            {
                return Ok(true);
            }
        }
        let transfers = publish::transfers(part, core)?;
        if transfers.iter().any(|(_, transfer)| {
            transfer.dataset == *dataset
                && transfer.done.as_ref().is_some_and(|done| done.uuid == uuid)
        }) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// See `Filesystem::sweep`.
pub fn sweep(core: &Core) -> Result<()> {
    let _turn = core.turn();
    let scene = core.look()?;
    let newest = scene
        .list()?
        .last()
        .map(|stored| stored.manifest.point.rank());
    for part in &scene.parts {
        sweep_taking(&scene, part)?;
        for (file, transfer) in publish::transfers(part, core)? {
            if newest.is_some_and(|newest| transfer.manifest.point.rank() <= newest) {
                drop_transfer(&scene, part, &file, &transfer)?;
            }
        }
    }
    look::sweep(&scene)?;
    forks::sweep(&core.look()?)?;
    empty_trash(core)?;
    let parts = core.parts()?;
    for part in &parts {
        for dataset in &part.datasets {
            if !live::is_begun(part, core, dataset) {
                collapse(core, part, dataset)?;
            }
        }
    }
    // What waited for a holder to go.
    empty_trash(core)
}

fn empty_trash(core: &Core) -> Result<()> {
    let mut files = Vec::new();
    for part in core.parts()? {
        let trash = part.store.hidden(".trash", &core.role);
        let names = store::names(&trash)?.into_iter();
        files.extend(
            names
                .filter(|name| name.ends_with(".json"))
                .map(|name| trash.join(name)),
        );
    }
    if files.is_empty() {
        return Ok(());
    }
    let scene = core.look()?;
    files
        .iter()
        .try_for_each(|file| empty(&scene, file).map(|_| ()))
}

fn sweep_taking(scene: &Scene<'_>, part: &Part) -> Result<()> {
    let core = scene.core;
    for (name, file) in store::point_files(&part.store.hidden(".taking", &core.role))? {
        if matches!(scene.read(&name), Ok(Some(_))) {
            store::remove_file(&file)?;
            continue;
        }
        store::remove_file(&part.point_file(core, &name))?;
        take::discard(&file)?;
    }
    Ok(())
}

/// A transfer that no point will be made of.
fn drop_transfer(scene: &Scene<'_>, part: &Part, file: &Path, transfer: &Transfer) -> Result<()> {
    let core = scene.core;
    let name = transfer.manifest.name();
    let used = Used::Transfer(
        core.role.clone(),
        name.to_string(),
        transfer.dataset.clone(),
    );
    let Some(_alone) = core.uses.alone(used) else {
        return Ok(());
    };
    match (&transfer.done, &transfer.into) {
        (Some(done), _) => {
            let mut stored = Stored {
                manifest: transfer.manifest.clone(),
                local: Default::default(),
            };
            stored
                .local
                .datasets
                .insert(transfer.dataset.clone(), done.clone());
            store::write_file(&new_trash(part, core), &stored)?;
        }
        (None, Some(into)) => {
            let family = scene.family(&transfer.dataset);
            if family.is_ok_and(|family| family.tree(into).is_some_and(|tree| tree.token.is_some()))
            {
                give_up(into)?;
            }
        }
        (None, None) => {}
    }
    store::remove_file(file)?;
    // Its neighbours may still be there.
    let _ = file.parent().map(std::fs::remove_dir);
    Ok(())
}

/// Hands the snapshots of holders that are no longer needed to the clones that go on with them, and destroys the holders.
pub fn collapse(core: &Core, part: &Part, dataset: &DatasetName) -> Result<()> {
    let live = &core.place(dataset)?.zfs;
    let room = part.store.room(&core.role, dataset);
    for _ in 0..COLLAPSES_MAX {
        let family = Family::look(&[(live, &room)])?.pop().unwrap_or_default();
        let mut done = false;
        for tree in family
            .trees
            .iter()
            .filter(|tree| is_spent(core, &family, tree, &room))
        {
            let goes_on = match family.newest(&tree.name) {
                None => None,
                Some(newest) => {
                    let clone = family
                        .clones(newest)
                        .find(|clone| keeps(clone, live, &room));
                    match clone {
                        Some(clone) => Some(clone.name.clone()),
                        None => continue,
                    }
                }
            };
            if let Some(clone) = goes_on {
                let promoted = zfs(&["promote", &clone]);
                if promoted.as_ref().err().and_then(trouble_of) == Some(Trouble::Busy) {
                    // Somebody reads one of the snapshots: the next sweep tries again.
                    continue;
                }
                promoted.with_context(|| format!("make {clone} independent of {}", tree.name))?;
                freeze("collapse-promoted");
            }
            match zfs(&["destroy", &tree.name]) {
                Ok(_) => done = true,
                Err(error) => tracing::debug!("{} stays: {error:#}", tree.name),
            }
            if done {
                break;
            }
        }
        if !done {
            break;
        }
    }
    Ok(())
}

fn kind<'a>(tree: &'a Tree, room: &str) -> Option<&'a str> {
    let name = tree.name.strip_prefix(room)?.strip_prefix('/')?;
    (!name.contains('/')).then(|| name.split('-').next())?
}

/// Whether nobody wants the head of a holder.
fn is_spent(core: &Core, family: &Family, tree: &Tree, room: &str) -> bool {
    let unwritten = match kind(tree, room) {
        Some("in" | "new") => true,
        Some("old") => tree.settled,
        _ => false,
    };
    let used = Used::Staging(core.role.clone(), tree.name.clone());
    let is_last = family.newest(&tree.name).is_none();
    unwritten
        && !tree.mounted
        && tree.token.is_none()
        && (is_last || !tree.encrypted)
        && family.inside(&tree.name).next().is_none()
        && core.uses.alone(used).is_some()
}

/// Clones that last.
fn keeps(tree: &Tree, live: &str, room: &str) -> bool {
    tree.name == live || matches!(kind(tree, room), Some("in" | "old"))
}
