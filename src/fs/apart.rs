//! Keeps points that are not of the line: finds them, measures what only they hold, and has the filesystem move them.
//!
//! Promise: safe to repeat. A crash leaves some of them in the catalogue; the same call goes on. What cannot be measured is
//! kept all the same.
//!
//! It deliberately does not know why points are not of the line, nor which filesystem holds them.

use std::collections::BTreeMap;

use anyhow::Context;
use jiff::Timestamp;

use super::{Filesystem, FsError, Held, Inspection, Result};
use crate::logic::fork::{Figures, Fork, ForkPoint, Measure, Why};
use crate::logic::point::{PointId, RoleId};

/// Moves those of `off` that lie in the catalogue to a fork: measures what only they hold and describes it. `base` is the
/// newest point of the line that they grew from, if known; `role` the role's id, for when no whole point tells it. A fork
/// of the same term, reason and base grows. Gives the fork, also where an earlier call moved them all; none where nothing
/// of `off` is anywhere. `FsError::Busy` while a send uses one of them: nothing is moved then.
pub fn set_apart(
    fs: &dyn Filesystem,
    off: &[PointId],
    why: Why,
    base: Option<PointId>,
    role: Option<RoleId>,
) -> Result<Option<Fork>> {
    // What an interruption left is moved first, to the fork it was meant for.
    fs.prepare()?;
    let known = fs.forks()?;
    let found = fs.inspect()?;
    let role = found.points.first().map(|s| s.manifest.role).or(role);
    let points = there(&found, off);
    let Some(newest) = points.last() else {
        let holder = known.into_iter().find(|f| off.iter().any(|id| f.holds(id)));
        return Ok(holder);
    };
    let same = |fork: &&Fork| {
        fork.why == why && fork.term == newest.id.term && (base.is_none() || fork.base == base)
    };
    let same = known.iter().find(same);
    let base = base.or(same.and_then(|fork| fork.base.clone()));
    let measured = base.as_ref().and_then(|base| {
        let newer = Held::Point(newest.id.clone());
        match measure(fs, &Held::Point(base.clone()), &newer) {
            Ok(measured) => Some(measured),
            Err(error) => {
                let (base, newest) = (base.to_string(), newest.id.to_string());
                tracing::warn!(base, newest, "a fork is kept unmeasured: {error:#}");
                None
            }
        }
    });
    let fork = Fork {
        name: same.map_or(newest.name(), |fork| fork.name),
        role: role.context("find the id of the role")?,
        base,
        term: newest.id.term.clone(),
        points: points.clone(),
        found: Timestamp::now(),
        why,
        measured,
    };
    let ids: Vec<PointId> = points.into_iter().map(|point| point.id).collect();
    let name = fork.name;
    fs.fork(&ids, fork).context("move the points to a fork")?;
    Ok(fs.forks()?.into_iter().find(|fork| fork.name == name))
}

/// Which of `off` lie in the catalogue, whole or damaged, oldest first.
fn there(found: &Inspection, off: &[PointId]) -> Vec<ForkPoint> {
    let whole = found.points.iter().map(|stored| ForkPoint {
        id: stored.manifest.point.clone(),
        taken: stored.manifest.taken,
    });
    let damaged = found.damaged.iter().filter_map(|damaged| {
        let entry = damaged.entry.as_ref()?;
        Some(ForkPoint {
            id: entry.point.clone(),
            taken: entry.taken,
        })
    });
    let mut points: Vec<ForkPoint> = whole
        .chain(damaged)
        .filter(|point| off.contains(&point.id))
        .collect();
    points.sort_by_key(|point| point.id.rank());
    points
}

fn measure(fs: &dyn Filesystem, base: &Held, newer: &Held) -> Result<Measure> {
    let mut datasets = BTreeMap::new();
    for dataset in fs.datasets().keys() {
        let changes = match fs.changes(dataset, base, newer) {
            // A dataset that one of the points does not have cannot be compared.
            Err(error) if matches!(error.downcast_ref(), Some(FsError::Missing(_))) => continue,
            changes => changes?,
        };
        datasets.insert(dataset.clone(), Figures::of(&changes));
    }
    if datasets.is_empty() {
        return Err(FsError::Missing("a dataset that both points hold".into()).into());
    }
    Ok(Measure::of(datasets))
}
