//! Looks whether live datasets changed since a point, several times a second.
//!
//! The kernel counts every transaction that anybody begins on any pool (`/proc/spl/kstat/zfs/dmu_tx`): while that number stands
//! still, nothing was written. Where it moved, the property `written` tells once the transaction group that was open is on disk
//! (`/proc/spl/kstat/zfs/POOL/txgs`); until then it may be anybody's write, or ours.
//!
//! Promise: a look writes nothing and waits for no disk; where the kernel does not say, something may have changed. Nothing
//! is left by a crash. It deliberately does not know what a change is followed by.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::Context;

use super::core::Core;
use super::take;
use crate::fs::{Result, Touch, Watch};
use crate::logic::manifest::Stored;

/// Where the kernel module tells of itself (module/os/linux/spl/spl-kstat.c).
const KSTAT: &str = "/proc/spl/kstat/zfs";

/// How often `written` is asked for, by a program of its own, where the kernel does not say when it is worth it.
const ASK_EVERY: Duration = Duration::from_secs(1);

struct Live {
    /// `tank/www`
    tree: String,
    /// `tank/www@standin_...`
    snapshot: String,
}

struct Looking {
    live: Vec<Live>,
    pools: BTreeSet<String>,
    /// Transactions that were begun when all of them were on disk, and not in the live datasets.
    quiet: Option<u64>,
    /// Transactions begun at an earlier look, and the groups that were open then.
    unsettled: Option<(u64, Vec<u64>)>,
    asked: Option<Instant>,
    changed: bool,
}

/// See `Filesystem::watch`.
pub fn watch(core: &Core, point: &Stored) -> Result<Box<dyn Watch>> {
    let begun = transactions();
    let mut looking = Looking {
        live: Vec::new(),
        pools: BTreeSet::new(),
        quiet: begun,
        unsettled: None,
        asked: None,
        changed: false,
    };
    let scene = core.look()?;
    let found = scene.find_if_any(&point.manifest.point)?;
    let ours = found.filter(|found| found.local.from.is_none());
    for (dataset, place) in &core.places {
        let local = ours
            .as_ref()
            .and_then(|found| found.local.datasets.get(dataset));
        let snapshot = local.and_then(|local| scene.snapshot(dataset, local.uuid).ok());
        match snapshot {
            Some(snapshot) if snapshot.dataset == place.zfs => looking.live.push(Live {
                tree: place.zfs.clone(),
                snapshot: snapshot.name(),
            }),
            // As `changed` judges.
            _ => looking.changed = true,
        }
        looking.pools.insert(take::pool(&place.zfs).to_owned());
    }
    // What was begun before is in `written` from here on.
    for pool in &looking.pools {
        take::sync(pool)?;
    }
    looking.ask()?;
    Ok(Box::new(looking))
}

impl Looking {
    fn ask(&mut self) -> Result<()> {
        self.asked = Some(Instant::now());
        for live in &self.live {
            if take::written(&live.tree, &live.snapshot)? != Some(0) {
                self.changed = true;
            }
        }
        Ok(())
    }

    /// The open group of each pool; none where the kernel does not say.
    fn groups(&self) -> Option<Vec<Groups>> {
        let told = |pool: &String| Groups::parse(&kstat(&format!("{pool}/txgs"))?);
        self.pools.iter().map(told).collect()
    }

    fn try_look(&mut self) -> Result<Touch> {
        let begun = transactions();
        if begun.is_some() && begun == self.quiet {
            return Ok(Touch::Quiet);
        }
        let (Some(begun), Some(groups)) = (begun, self.groups()) else {
            if self.asked.is_none_or(|at| at.elapsed() >= ASK_EVERY) {
                self.ask()?;
            }
            return Ok(Touch::Dirty);
        };
        let open = || groups.iter().map(|group| group.open).collect();
        let Some((then, waited)) = self.unsettled.take() else {
            self.unsettled = Some((begun, open()));
            return Ok(Touch::Dirty);
        };
        let on_disk = |(group, waited): (&Groups, &u64)| group.on_disk >= *waited;
        if !groups.iter().zip(&waited).all(on_disk) {
            self.unsettled = Some((then, waited));
            return Ok(Touch::Dirty);
        }
        self.ask()?;
        self.quiet = Some(then);
        if begun == then {
            return Ok(Touch::Quiet);
        }
        self.unsettled = Some((begun, open()));
        Ok(Touch::Dirty)
    }
}

impl Watch for Looking {
    fn look(&mut self) -> Touch {
        if self.changed {
            return Touch::Changed;
        }
        match self.try_look() {
            Ok(_) if self.changed => Touch::Changed,
            Ok(touch) => touch,
            Err(error) => {
                tracing::debug!("cannot tell what was written: {error:#}");
                Touch::Dirty
            }
        }
    }
}

fn kstat(name: &str) -> Option<String> {
    std::fs::read_to_string(format!("{KSTAT}/{name}"))
        .with_context(|| format!("read {KSTAT}/{name}"))
        .inspect_err(|error| tracing::debug!("{error:#}"))
        .ok()
}

/// How many transactions were begun since the module was loaded, on any pool.
fn transactions() -> Option<u64> {
    counter(&kstat("dmu_tx")?, "dmu_tx_assigned")
}

/// One of the named values of a kstat: `name type data`.
fn counter(text: &str, name: &str) -> Option<u64> {
    let mut lines = text.lines().map(str::split_whitespace);
    lines.find_map(|mut words| match words.next() == Some(name) {
        true => words.nth(1)?.parse().ok(),
        false => None,
    })
}

/// Transaction groups of a pool.
#[derive(Debug, PartialEq, Eq)]
struct Groups {
    open: u64,
    /// The newest that is on disk.
    on_disk: u64,
}

impl Groups {
    /// Reads `txg birth state ...`: O open, Q quiescing, W waiting, S being written, C on disk.
    fn parse(text: &str) -> Option<Groups> {
        let (mut open, mut on_disk) = (None, None);
        for line in text.lines() {
            let mut words = line.split_whitespace();
            let Some(group) = words.next().and_then(|word| word.parse::<u64>().ok()) else {
                continue;
            };
            match words.nth(1) {
                Some("O") => open = open.max(Some(group)),
                Some("C") => on_disk = on_disk.max(Some(group)),
                _ => {}
            }
        }
        Some(Groups {
            open: open?,
            on_disk: on_disk?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters() {
        let text = "5 1 0x01 12 3264 4033 5047\nname                            type data\n\
                    dmu_tx_assigned                 4    4711\ndmu_tx_delay                    4    0\n";
        assert_eq!(counter(text, "dmu_tx_assigned"), Some(4711));
        assert_eq!(counter(text, "dmu_tx_delay"), Some(0));
        assert_eq!(counter(text, "dmu_tx_error"), None);
        assert_eq!(counter("dmu_tx_assigned 4", "dmu_tx_assigned"), None);
    }

    #[test]
    fn transaction_groups() {
        let check = |text: &str, expected: Option<(u64, u64)>| {
            let expected = expected.map(|(open, on_disk)| Groups { open, on_disk });
            assert_eq!(Groups::parse(text), expected, "{text}");
        };
        let header = "txg      birth            state ndirty       nread\n";
        check(header, None);
        check(
            &format!("{header}98 11 C 0 0\n99 12 C 4096 0\n100 13 S 1 0\n101 14 O 0 0\n"),
            Some((101, 99)),
        );
        check("101 14 O 0 0\n", None);
        check("x y z\n7 1 O\n6 1 C\n5 1 C", Some((7, 6)));
    }
}
