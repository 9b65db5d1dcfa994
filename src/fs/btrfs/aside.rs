//! Damaged points, moved out of the way.
//!
//!     .aside/<role>/<point-name>.<unique>/             the point's directory as it was
//!     .aside/<role>/<point-name>.<unique>/.why.json    why and when, written before it is moved
//!
//! Promise: nothing is destroyed, and nothing that is whole is moved. In a role that spans filesystems each part is moved by
//! itself; a crash in between leaves the others in place, damaged as before, and the same call moves them too. A crash before
//! the move leaves the note in a damaged point.
//!
//! It deliberately does not know whether the point is to be had again.

use anyhow::Context;
use jiff::Timestamp;
use uuid::Uuid;

use super::catalogue::{Catalogue, entry_names};
use super::disk;
use super::layout::{CONDEMNED, LOCAL_BYTES_MAX, Part};
use super::uses::Used;
use crate::error::{Code, Failure};
use crate::fs::{FsError, KeptAside, Result};
use crate::logic::damage::Damaged;
use crate::logic::point::{PointId, PointName};

const WHY: &str = ".why.json";

/// Moves the point away on every filesystem of the role.
pub fn set_aside(catalogue: &Catalogue<'_>, damaged: &Damaged) -> Result<()> {
    let name = damaged.name.to_string();
    let used = Used::Point(catalogue.role.clone(), name.clone());
    let mut alone = Vec::new();
    for part in &catalogue.parts {
        let held = part.top.uses.alone(used.clone());
        alone.push(held.ok_or_else(|| FsError::Busy(format!("point {name}")))?);
    }
    // Asked anew: it may have become whole since somebody found it damaged.
    if matches!(catalogue.read(&name), Ok(Some(_))) {
        let what = format!("point {name} is whole: it is not set aside");
        return Err(Failure::new(Code::Refused, what).into());
    }
    for part in &catalogue.parts {
        move_part(part, &name, damaged)?;
    }
    Ok(())
}

/// Marks a point as damaged; a crash leaves it marked on some filesystems, which is enough.
pub fn condemn(catalogue: &Catalogue<'_>, point: &PointId, why: &str) -> Result<()> {
    let found = catalogue.find(point)?;
    for part in &catalogue.parts {
        let dir = part.points().join(&found.name);
        if dir.symlink_metadata().is_ok() {
            disk::write_json(&dir.join(CONDEMNED), &why)?;
        }
    }
    Ok(())
}

/// Moves one filesystem's part; nothing there is success. The caller has the point alone, or its name in staging.
pub fn move_part(part: &Part, name: &str, damaged: &Damaged) -> Result<()> {
    let dir = part.points().join(name);
    if dir.symlink_metadata().is_err() {
        return Ok(());
    }
    let room = part.aside();
    let aside = room.join(format!("{name}.{}", Uuid::new_v4().simple()));
    let kept = KeptAside {
        damaged: damaged.clone(),
        at: Timestamp::now(),
        path: part.top.shown(&aside),
    };
    disk::make_dir(&room)?;
    disk::write_json(&dir.join(WHY), &kept)?;
    std::fs::rename(&dir, &aside).with_context(|| format!("move {} aside", dir.display()))?;
    part.top.sync()?;
    tracing::warn!(
        "point {name} {}; it is kept aside in {}",
        damaged.why,
        kept.path
    );
    Ok(())
}

/// What lies aside. What was put there for other reasons, or cannot be read, is not in it.
pub fn list(catalogue: &Catalogue<'_>) -> Result<Vec<KeptAside>> {
    let mut found = Vec::new();
    for part in &catalogue.parts {
        for entry in entry_names(&part.aside())? {
            let named = entry.rsplit_once('.').map(|(name, _)| name);
            let Some(name) = named.and_then(PointName::parse) else {
                continue;
            };
            let dir = part.aside().join(&entry);
            let kept: Option<KeptAside> = disk::read_json(&dir.join(WHY), LOCAL_BYTES_MAX)
                .ok()
                .flatten();
            if let Some(kept) = kept.filter(|kept| kept.damaged.name == name) {
                let path = part.top.shown(&dir);
                found.push(KeptAside { path, ..kept });
            }
        }
    }
    Ok(found)
}
