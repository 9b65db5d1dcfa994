//! Damaged points: called so, and moved out of the way.
//!
//!     .condemned/<role>/<point>.json           what a comparison said of it
//!     .aside/<role>/<point>.<unique>           the point's file as it was
//!     .aside/<role>/<point>.<unique>.why.json  why and when, written before it is moved
//!
//! ZFS knows a snapshot by its guid, and what comes in place of a copy that was called damaged has the same one: so the snapshots of
//! such a copy are renamed, and stand for nothing from then on. Those of other damaged points stay as they are: what is left of
//! them is as good as it was.
//!
//! Promise: nothing is destroyed, and nothing that is whole is moved. A crash leaves a point that is damaged as before; the same
//! call goes on. It deliberately does not know whether the point is to be had again.

use std::path::PathBuf;

use anyhow::Context;
use jiff::Timestamp;
use uuid::Uuid;

use super::command::zfs;
use super::core::{Core, Part, Scene};
use super::family::ASIDE;
use super::{guard, look, store};
use crate::error::{Code, Failure};
use crate::fs::btrfs::freeze::freeze;
use crate::fs::{KeptAside, Result};
use crate::logic::damage::Damaged;
use crate::logic::manifest::Stored;
use crate::logic::point::{PointId, PointName};

/// The file that calls a point damaged.
pub fn mark(part: &Part, core: &Core, name: &PointName) -> PathBuf {
    part.store
        .hidden(".condemned", &core.role)
        .join(format!("{name}.json"))
}

/// Why a point was called damaged, where it was.
pub fn condemned(scene: &Scene<'_>, name: &PointName) -> Result<Option<String>> {
    for part in &scene.parts {
        if let Some(why) = store::read_file(&mark(part, scene.core, name))? {
            return Ok(Some(why));
        }
    }
    Ok(None)
}

/// See `Filesystem::condemn`. A crash leaves it marked in some stores, which is enough.
pub fn condemn(core: &Core, point: &PointId, why: &str) -> Result<()> {
    let _turn = core.turn();
    let scene = core.look()?;
    let name = scene.find(point)?.manifest.name();
    for part in &scene.parts {
        if part.point_file(core, &name).exists() {
            store::write_file(&mark(part, core, &name), &why)?;
        }
        // Nor is anything sent on top of it.
        guard::forget(part, core, &name)?;
    }
    Ok(())
}

/// See `Filesystem::set_aside`.
pub fn set_aside(core: &Core, damaged: &Damaged) -> Result<()> {
    let _turn = core.turn();
    let scene = core.look()?;
    let _alone = core.alone(&damaged.name.to_string())?;
    if matches!(scene.read(&damaged.name), Ok(Some(_))) {
        let what = format!("point {} is whole: it is not set aside", damaged.name);
        return Err(Failure::new(Code::Refused, what).into());
    }
    move_aside(&scene, damaged)
}

/// What is kept of a point that was set aside.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
struct Aside {
    kept: KeptAside,
    /// The file as it was, where it could be read.
    point: Option<Stored>,
}

pub fn move_aside(scene: &Scene<'_>, damaged: &Damaged) -> Result<()> {
    let core = scene.core;
    let condemned = condemned(scene, &damaged.name)?.is_some();
    for part in &scene.parts {
        let file = part.point_file(core, &damaged.name);
        if !file.exists() {
            continue;
        }
        let point: Option<Stored> = store::read_file(&file).ok().flatten();
        if let Some(point) = point.as_ref().filter(|_| condemned) {
            rename(scene, point)?;
            freeze("aside-renamed");
        }
        let name = format!("{}.{}", damaged.name, Uuid::new_v4().simple());
        let dir = part.store.hidden(".aside", &core.role);
        let kept = KeptAside {
            damaged: damaged.clone(),
            at: Timestamp::now(),
            path: format!("{} (dataset {})", name, part.store.name),
        };
        store::write_file(
            &dir.join(format!("{name}.why.json")),
            &Aside { kept, point },
        )?;
        store::move_file(&file, &dir.join(name))?;
        freeze("aside-moved");
        store::remove_file(&mark(part, core, &damaged.name))?;
        tracing::warn!("point {} {}; it is kept aside", damaged.name, damaged.why);
    }
    Ok(())
}

/// Takes their names, and so their meaning, from the snapshots of a point.
fn rename(scene: &Scene<'_>, point: &Stored) -> Result<()> {
    for (dataset, local) in &point.local.datasets {
        let Ok(found) = scene.snapshot(dataset, local.uuid) else {
            // Renamed by an earlier try, or gone.
            continue;
        };
        look::take_away(found)?;
        let unique = Uuid::new_v4().simple().to_string();
        let to = format!("{}@{ASIDE}{}", found.dataset, &unique[..8]);
        let from = found.name();
        zfs(&["rename", &from, &to]).with_context(|| format!("rename {from} out of the way"))?;
    }
    Ok(())
}

/// See `Filesystem::kept_aside`.
pub fn kept_aside(core: &Core) -> Result<Vec<KeptAside>> {
    let mut found = Vec::new();
    for part in core.parts()? {
        let dir = part.store.hidden(".aside", &core.role);
        for name in store::names(&dir)?
            .iter()
            .filter(|name| name.ends_with(".why.json"))
        {
            if let Ok(Some(aside)) = store::read_file::<Aside>(&dir.join(name)) {
                found.push(aside.kept);
            }
        }
    }
    Ok(found)
}
