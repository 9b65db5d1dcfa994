//! What a role on ZFS stands on: programs, the kernel module, pools, keys; for `check`.
//!
//! Promise: changes nothing. What cannot be asked is said, not passed over. It deliberately does not know the datasets' state.

use std::collections::BTreeSet;

use super::command::{zfs, zpool};
use super::core::Core;
use super::{key, take, text};
use crate::fs::{Ground, Result};
use crate::logic::name::DatasetName;
use crate::logic::point::PointId;

/// Versions that standin is made for: of the first, resumed and raw streams are sound; newer ones may say things differently.
const VERSIONS: ((u32, u32), (u32, u32)) = ((2, 1), (2, 3));

/// Features that a pool must have, each with what is done with it. `active` and `enabled` both do.
const FEATURES: [(&str, &str); 4] = [
    ("extensible_dataset", "transfers that go on after a cut"),
    ("bookmarks", "differences to a point of another copy"),
    ("large_blocks", "blocks of more than 128 KiB"),
    ("embedded_data", "blocks that are small when compressed"),
];

fn fine(sentence: String) -> Ground {
    Ground {
        sentence,
        hint: None,
        is_problem: false,
    }
}

fn warning(sentence: String, hint: impl Into<String>) -> Ground {
    Ground {
        sentence,
        hint: Some(hint.into()),
        is_problem: false,
    }
}

fn problem(sentence: String, hint: impl Into<String>) -> Ground {
    Ground {
        is_problem: true,
        ..warning(sentence, hint)
    }
}

/// See `Filesystem::ground`.
pub fn look(core: &Core) -> Vec<Ground> {
    let mut found = Vec::new();
    let said = match zfs(&["version"]) {
        Ok(said) => said,
        Err(error) => {
            let hint = "apt install zfsutils-linux, and modprobe zfs; then `standin check` again";
            return vec![problem(format!("ZFS cannot be used: {error:#}"), hint)];
        }
    };
    found.push(version(&said));
    if !rustix::process::geteuid().is_root() {
        found.push(problem(
            "the daemon is not root: Linux mounts ZFS for root only, whatever is delegated (zfs allow)".to_owned(),
            "run the daemon as root",
        ));
    }
    let pools: BTreeSet<&str> = core.places.values().map(|p| take::pool(&p.zfs)).collect();
    for pool in pools {
        match health(pool) {
            Ok(told) => found.extend(told),
            Err(error) => found.push(problem(
                format!("pool {pool}: {error:#}"),
                format!("zpool import {pool}; zpool status {pool} tells more"),
            )),
        }
    }
    for dataset in core.places.keys() {
        match keys(core, dataset) {
            Ok(told) => found.extend(told),
            Err(error) => found.push(problem(
                format!("{dataset}: {error:#}"),
                "without the key it cannot become live here: put it right before it is needed",
            )),
        }
    }
    found
}

/// Judges what `zfs version` prints: `zfs-2.3.2-2`, then `zfs-kmod-2.3.2-2`.
fn version(said: &str) -> Ground {
    let words = said.split_whitespace().collect::<Vec<_>>().join(", ");
    let versions: Vec<_> = said.lines().filter_map(text::version).collect();
    let (oldest, newest) = VERSIONS;
    match versions[..] {
        [program, module] if program != module => warning(
            format!("OpenZFS: program and kernel module differ: {words}"),
            "reboot, or load the module of the same version",
        ),
        [program, _] if program < oldest => problem(
            format!("OpenZFS is too old: {words}"),
            format!("{}.{} or newer is needed", oldest.0, oldest.1),
        ),
        [program, _] if program > newest => warning(
            format!("OpenZFS is newer than what standin was tried on: {words}"),
            "try restore and promotion before they are needed (standin drill)",
        ),
        [_, _] => fine(format!("OpenZFS: {words}")),
        _ => problem(
            format!("the kernel module of ZFS is not loaded ({words})"),
            "modprobe zfs",
        ),
    }
}

/// The pool's state, whether it can be written, and the features it lacks.
fn health(pool: &str) -> Result<Vec<Ground>> {
    let said = zpool(&["get", "-Hp", "-o", "value", "health,readonly", pool])?;
    let mut values = said.lines();
    let (health, read_only) = (
        values.next().unwrap_or("unknown"),
        values.next().unwrap_or("off"),
    );
    let more = format!("zpool status {pool}");
    let mut found = vec![match health {
        "ONLINE" => fine(format!("pool {pool} is {health}")),
        "DEGRADED" => warning(format!("pool {pool} is {health}"), more),
        _ => problem(format!("pool {pool} is {health}"), more),
    }];
    if read_only == "on" {
        found.push(problem(
            format!("pool {pool} is imported read-only"),
            format!("zpool export {pool} && zpool import {pool}"),
        ));
    }
    for (feature, what) in FEATURES {
        let said = zpool(&[
            "get",
            "-H",
            "-o",
            "value",
            &format!("feature@{feature}"),
            pool,
        ])?;
        if !matches!(said.trim(), "active" | "enabled") {
            found.push(problem(
                format!("pool {pool} lacks the feature {feature}, needed for {what}"),
                format!("zpool set feature@{feature}=enabled {pool}"),
            ));
        }
    }
    Ok(found)
}

/// See `Filesystem::expect_openable`.
pub fn expect_openable(core: &Core, point: &PointId) -> Result<()> {
    let scene = core.look()?;
    let stored = scene.list()?;
    let Some(found) = stored.iter().find(|stored| stored.manifest.point == *point) else {
        return Ok(());
    };
    for (dataset, local) in &found.local.datasets {
        if core.places.contains_key(dataset) {
            key::expect(&scene, dataset, scene.snapshot(dataset, local.uuid)?)?;
        }
    }
    Ok(())
}

/// Whether the key at hand opens the newest copy; nothing where it is not encrypted.
fn keys(core: &Core, dataset: &DatasetName) -> Result<Vec<Ground>> {
    let scene = core.look()?;
    let Some(newest) = scene.list()?.pop() else {
        return Ok(Vec::new());
    };
    let Some(local) = newest.local.datasets.get(dataset) else {
        return Ok(Vec::new());
    };
    let snapshot = scene.snapshot(dataset, local.uuid)?;
    let tree = scene.family(dataset)?.tree(&snapshot.dataset);
    if !tree.is_some_and(|tree| tree.encrypted) {
        return Ok(Vec::new());
    }
    Ok(vec![match key::expect(&scene, dataset, snapshot) {
        Ok(()) => fine(format!("{dataset} is encrypted, and its key is at hand")),
        Err(error) => {
            let hint = crate::error::Failure::of(&error).and_then(|failure| failure.hint.clone());
            warning(
                format!("could not {error:#}"),
                hint.unwrap_or_else(|| "zfs load-key -n tells more".to_owned()),
            )
        }
    }])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions() {
        let check = |said: &str, is_problem: bool, begins: &str| {
            let told = version(said);
            assert_eq!(told.is_problem, is_problem, "{told:?}");
            assert!(told.sentence.starts_with(begins), "{told:?}");
        };
        check(
            "zfs-2.3.2-2~bpo12+2\nzfs-kmod-2.3.2-2~bpo12+2\n",
            false,
            "OpenZFS: zfs-2.3.2",
        );
        check("zfs-2.1.11-1\nzfs-kmod-2.1.11-1\n", false, "OpenZFS: zfs");
        check(
            "zfs-2.3.2-2\nzfs-kmod-2.2.7-1\n",
            false,
            "OpenZFS: program and",
        );
        check(
            "zfs-0.8.3-1\nzfs-kmod-0.8.3-1\n",
            true,
            "OpenZFS is too old",
        );
        check("zfs-2.4.0-1\nzfs-kmod-2.4.0-1\n", false, "OpenZFS is newer");
        check("zfs-2.3.2-2\n", true, "the kernel module");
        check("", true, "the kernel module");
    }
}
