//! Puts a copy of a point in place of a live dataset, or takes the live one away.
//!
//! A clone is made first; then the live copy is unmounted, judged (what no point holds becomes a point), renamed to a holder and
//! made inert; then the clone takes its name and is mounted. `.live` says what is meant, and every step looks whether it is done.
//!
//! Promise: no write that reached the live copy is lost (P5). A crash leaves `.live`; the same call, or `prepare`, goes on.
//! Between the two renames there is no dataset of the live name; nothing is mounted then.
//!
//! It deliberately does not know why, nor whether services are stopped: an unmount that fails tells of the latter.

use std::path::{Path, PathBuf};

use anyhow::Context;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::command::{trouble_of, zfs};
use super::compare;
use super::core::{Core, Part, Scene};
use super::family::{Snapshot, Tree, identity};
use super::store::{self, SETTLED, snapshot_name};
use super::text::{self, Trouble};
use super::{key, remove, show, take};
use crate::error::{Code, Failure};
use crate::fs::btrfs::freeze::freeze;
use crate::fs::{AfterReboot, Aside, FsError, NoBracket, Restored, Result};
use crate::logic::manifest::{Manifest, Stored};
use crate::logic::name::DatasetName;
use crate::logic::point::PointId;

/// What is about to be done to a live dataset.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Intent {
    pub dataset: DatasetName,
    /// The clone, and its guid; none where nothing takes the place of the old one.
    pub new: Option<(String, u64)>,
    /// The live copy that goes: its guid, and what it is called then.
    pub old: Option<(u64, String)>,
    pub keep: Manifest,
    /// Whether no point held all of it, once that is known.
    pub late_writes: Option<bool>,
}

fn intent_file(part: &Part, core: &Core, dataset: &DatasetName) -> PathBuf {
    part.store
        .hidden(".live", &core.role)
        .join(format!("{dataset}.json"))
}

/// Whether something is being done to a live dataset.
pub fn is_begun(part: &Part, core: &Core, dataset: &DatasetName) -> bool {
    intent_file(part, core, dataset).exists()
}

/// Goes on with what was interrupted.
pub fn recover(core: &Core) -> Result<()> {
    for part in core.parts()? {
        for dataset in &part.datasets {
            if let Some(intent) = store::read_file::<Intent>(&intent_file(&part, core, dataset))? {
                perform(core, &part, intent)
                    .with_context(|| format!("finish replacing the live copy of {dataset}"))?;
            }
        }
    }
    Ok(())
}

/// See `Filesystem::restore_live`.
pub fn restore(
    core: &Core,
    dataset: &DatasetName,
    point: &PointId,
    keep: Manifest,
) -> Result<Restored> {
    let _turn = core.turn();
    recover(core)?;
    let scene = core.look()?;
    let found = scene.find(point)?;
    let _held = core.share(&found.manifest.name().to_string())?;
    let missing = || FsError::Missing(format!("dataset {dataset} in point {point}"));
    let local = found.local.datasets.get(dataset).ok_or_else(missing)?;
    let source = scene.snapshot(dataset, local.uuid)?;
    let place = core.place(dataset)?;
    let old = scene.family(dataset)?.tree(&place.zfs);
    if let Some(old) = old {
        have_log_read(core, dataset, old)?;
    }
    if let Some(old) = old.filter(|old| is_copy(old, source)) {
        take::sync(&place.zfs)?;
        if take::written(&place.zfs, &source.name())? == Some(0)
            && scene
                .family(dataset)?
                .newest(&old.name)
                .is_none_or(|n| n == source)
        {
            mount(core, dataset)?;
            return Ok(Restored::at(dataset, &place.path, identity(old.guid)));
        }
    }
    key::expect(&scene, dataset, source)?;
    key::expect_unread(&scene, dataset, source)?;
    let part = scene.part(dataset)?;
    if let Some(old) = old {
        unmount(core, dataset, old)?;
    }
    let new = part.store.new_holder(&core.role, dataset, "new")?;
    clone(source, old, &new, &place.path)?;
    freeze("restore-cloned");
    let guid = zfs(&["get", "-Hp", "-o", "value", "guid", &new])?;
    let guid = text::number(guid.trim())?.context("the clone has no guid")?;
    begin(core, part, dataset, (old, Some((new, guid))), keep)
}

/// See `Filesystem::retire_live`.
pub fn retire(core: &Core, dataset: &DatasetName, keep: Manifest) -> Result<Restored> {
    let _turn = core.turn();
    recover(core)?;
    let scene = core.look()?;
    let place = core.place(dataset)?;
    let Some(old) = scene.family(dataset)?.tree(&place.zfs) else {
        return Ok(Restored::at(dataset, &place.path, Uuid::nil()));
    };
    have_log_read(core, dataset, old)?;
    unmount(core, dataset, old)?;
    begin(core, scene.part(dataset)?, dataset, (Some(old), None), keep)
}

/// What `fsync` promised before a crash is in the filesystem's log until it is mounted, and counts as written only from then on.
/// One whose key nobody loaded at boot is not mounted: it is now, so that nobody takes it for unchanged.
pub fn have_log_read(core: &Core, dataset: &DatasetName, live: &Tree) -> Result<()> {
    if live.mounted {
        return Ok(());
    }
    mount(core, dataset).with_context(|| format!("see what the log of {} holds", live.name))
}

/// Whether a live copy was made of the snapshot: it is a clone of it still, or took it over since.
fn is_copy(live: &Tree, source: &Snapshot) -> bool {
    live.origin.as_deref() == Some(&source.name()) || source.dataset == live.name
}

fn begin(
    core: &Core,
    part: &Part,
    dataset: &DatasetName,
    (old, new): (Option<&Tree>, Option<(String, u64)>),
    keep: Manifest,
) -> Result<Restored> {
    let holder = match old {
        Some(old) => Some((old.guid, part.store.new_holder(&core.role, dataset, "old")?)),
        None => None,
    };
    let intent = Intent {
        dataset: dataset.clone(),
        new,
        old: holder,
        keep,
        late_writes: None,
    };
    store::write_file(&intent_file(part, core, dataset), &intent)?;
    freeze("restore-meant");
    perform(core, part, intent)
}

/// Does what is meant, from wherever it stands.
fn perform(core: &Core, part: &Part, mut intent: Intent) -> Result<Restored> {
    let dataset = intent.dataset.clone();
    let place = core.place(&dataset)?;
    let file = intent_file(part, core, &dataset);
    let mut restored = Restored::at(&dataset, &place.path, Uuid::nil());
    if let Some((guid, holder)) = intent.old.clone() {
        let scene = core.look()?;
        let live = scene.family(&dataset)?.tree(&place.zfs);
        if let Some(live) = live.filter(|live| live.guid == guid) {
            unmount(core, &dataset, live)?;
            if intent.late_writes.is_none() {
                intent.late_writes = Some(judge(&scene, &dataset, live, &intent.keep)?);
                store::write_file(&file, &intent)?;
            }
            freeze("restore-judged");
            zfs(&["rename", "-u", &place.zfs, &holder])
                .with_context(|| format!("rename {} to {holder}", place.zfs))?;
        }
        freeze("restore-moved-away");
        let settled = format!("{SETTLED}=yes");
        zfs(&[
            "set",
            "canmount=noauto",
            "mountpoint=none",
            "readonly=on",
            &settled,
            &holder,
        ])
        .with_context(|| format!("make {holder} inert"))?;
        restored.late_writes = intent.late_writes.unwrap_or(false);
    }
    if let Some((new, guid)) = &intent.new {
        let scene = core.look()?;
        let family = scene.family(&dataset)?;
        if family.tree(new).is_some_and(|tree| tree.guid == *guid) {
            key::make_independent(core, &dataset, new)?;
            freeze("restore-promoted");
            zfs(&["rename", "-u", new, &place.zfs])
                .with_context(|| format!("rename {new} to {}", place.zfs))?;
        }
        freeze("restore-renamed");
        restored.uuid = identity(*guid);
    }
    carry_nested(core, &intent, &mut restored)?;
    if intent.new.is_some() {
        mount(core, &dataset)?;
        zfs(&["set", "canmount=on", &place.zfs])
            .with_context(|| format!("have {} mounted at boot", place.zfs))?;
    }
    store::remove_file(&file)?;
    remove::collapse(core, part, &dataset)?;
    Ok(restored)
}

/// Datasets nested in the old live copy that are mounted on their own: they move to the same name in the new one.
fn carry_nested(core: &Core, intent: &Intent, restored: &mut Restored) -> Result<()> {
    let Some((_, holder)) = &intent.old else {
        return Ok(());
    };
    let scene = core.look()?;
    let place = core.place(&intent.dataset)?;
    let family = scene.family(&intent.dataset)?;
    let below = |name: &str| {
        name.strip_prefix(holder.as_str())
            .map(|rest| rest.trim_start_matches('/').to_owned())
    };
    for rest in family.inside(holder).filter_map(|tree| below(&tree.name)) {
        if rest.contains('/') {
            // It moves with the one it lies in.
            continue;
        }
        if intent.new.is_none() {
            restored.nested_aside.push(PathBuf::from(rest));
            continue;
        }
        let (from, to) = (format!("{holder}/{rest}"), format!("{}/{rest}", place.zfs));
        match zfs(&["rename", "-u", &from, &to]) {
            Ok(_) => restored.nested_moved.push(PathBuf::from(rest)),
            Err(error) => {
                tracing::warn!("{from} could not be moved to {to}: {error:#}");
                restored.nested_aside.push(PathBuf::from(rest));
            }
        }
    }
    if !restored.nested_aside.is_empty() {
        restored.aside = Some(Aside {
            path: holder.clone(),
            why: "it holds nested datasets that no point holds".to_owned(),
        });
    }
    Ok(())
}

/// Whether the live copy, unmounted, holds something that no point holds; then it is made the point `keep`.
fn judge(scene: &Scene<'_>, dataset: &DatasetName, live: &Tree, keep: &Manifest) -> Result<bool> {
    let core = scene.core;
    // An earlier attempt may have come so far.
    if scene.find_if_any(&keep.point)?.is_some() {
        return Ok(true);
    }
    take::sync(&live.name)?;
    let family = scene.family(dataset)?;
    let is_point = |snapshot: &Snapshot, points: &[Stored]| {
        let uuid = identity(snapshot.guid);
        let is = |stored: &Stored| {
            let local = stored.local.datasets.get(dataset);
            local.is_some_and(|local| local.uuid == uuid)
        };
        !snapshot.is_aside() && points.iter().any(is)
    };
    let points = scene.list()?;
    let newest = family
        .of(&live.name)
        .rev()
        .find(|snapshot| is_point(snapshot, &points));
    let origin = live.origin.as_ref().and_then(|origin| {
        family
            .snapshots
            .iter()
            .find(|snapshot| snapshot.name() == *origin && is_point(snapshot, &points))
    });
    let related = newest.or(origin);
    if let Some(related) = related {
        if take::written(&live.name, &related.name())? == Some(0) {
            return Ok(false);
        }
    }
    // Access times count as written; the files decide. What is compared becomes the point, so nothing slips in between.
    let kept = take::take(
        scene,
        keep.clone(),
        &[(dataset.clone(), live.name.clone())],
        &mut NoBracket,
    )
    .with_context(|| format!("make a point of what was written to {}", live.name))?;
    let Some(related) = related else {
        return Ok(true);
    };
    let name = format!("{}@{}", live.name, snapshot_name(&keep.name()));
    let compared = show::Shown::open(&related.name())
        .and_then(|base| Ok((base, show::Shown::open(&name)?)))
        .and_then(|(base, newer)| compare::changes(&base.path(), &newer.path()));
    match compared {
        Ok(changes) if changes.is_empty() => {
            let scene = core.look()?;
            for part in &scene.parts {
                let files = [part.point_file(core, &kept.manifest.name())];
                let files: Vec<PathBuf> = files.into_iter().filter(|file| file.exists()).collect();
                remove::discard_files(&scene, part, &files)?;
            }
            Ok(false)
        }
        Ok(_) => Ok(true),
        Err(error) => {
            // Then it is kept once more than needed.
            tracing::warn!(%dataset, "cannot compare what was live with {}: {error:#}", related.name());
            Ok(true)
        }
    }
}

/// Takes a live copy from its path. The kernel refuses while anybody is in there.
fn unmount(core: &Core, dataset: &DatasetName, live: &Tree) -> Result<()> {
    let unmounted = zfs(&["unmount", &live.name]);
    let Err(error) = unmounted else { return Ok(()) };
    if trouble_of(&error) == Some(Trouble::NotMounted) {
        return Ok(());
    }
    if trouble_of(&error) == Some(Trouble::Busy) {
        let path = core.place(dataset)?.path.display().to_string();
        let what = format!("unmount {path} ({}): it is in use", live.name);
        let failure = Failure::new(Code::Refused, what).hint(format!(
            "fuser -vm {path} names the processes; stop them first"
        ));
        return Err(error.context(FsError::Busy(path)).context(failure));
    }
    Err(error).with_context(|| format!("unmount {}", live.name))
}

/// Mounts what is live at its path.
fn mount(core: &Core, dataset: &DatasetName) -> Result<()> {
    let place = core.place(dataset)?;
    key::load(core, dataset)?;
    let mounted = zfs(&["mount", &place.zfs]);
    let Err(error) = mounted else { return Ok(()) };
    if trouble_of(&error) == Some(Trouble::Mounted) {
        return Ok(());
    }
    let hint = match trouble_of(&error) {
        Some(Trouble::Key) => format!("zfs load-key {0} && zfs mount {0}", place.zfs),
        _ => format!("zfs mount {}", place.zfs),
    };
    let what = format!("mount {} at {}: {error:#}", place.zfs, place.path.display());
    Err(Failure::new(Code::Failed, what).hint(hint).into())
}

/// Properties that are not taken over from the copy that was live: ours, and what a clone cannot be given.
const OWN: [&str; 10] = [
    "mountpoint",
    "canmount",
    "readonly",
    "encryption",
    "keyformat",
    "keylocation",
    "pbkdf2iters",
    "sharenfs",
    "sharesmb",
    "volsize",
];

fn clone(source: &Snapshot, old: Option<&Tree>, new: &str, path: &Path) -> Result<()> {
    let of = old.map_or(source.dataset.as_str(), |old| &old.name);
    let said = zfs(&[
        "get",
        "-Hp",
        "-s",
        "local",
        "-o",
        "property,value",
        "all",
        of,
    ])
    .with_context(|| format!("read the properties of {of}"))?;
    let mut arguments = vec!["clone".to_owned()];
    let mut set = |property: &str, value: &str| {
        arguments.push("-o".to_owned());
        arguments.push(format!("{property}={value}"));
    };
    for row in text::rows(&said, 2)? {
        if !OWN.contains(&row[0]) && !row[0].starts_with("standin:") {
            set(row[0], row[1]);
        }
    }
    set("canmount", "noauto");
    let path = path.to_str().context("the live path is no text")?;
    set("mountpoint", path);
    arguments.push(source.name());
    arguments.push(new.to_owned());
    zfs(&arguments).with_context(|| format!("clone {}", source.name()))?;
    Ok(())
}

/// See `Filesystem::live_identity`.
pub fn live_identity(core: &Core, dataset: &DatasetName) -> Result<Option<Uuid>> {
    let scene = core.look()?;
    let live = scene.family(dataset)?.tree(&core.place(dataset)?.zfs);
    Ok(live.map(|tree| identity(tree.guid)))
}

/// See `Filesystem::after_reboot`: what the properties of the live dataset say.
pub fn after_reboot(core: &Core, dataset: &DatasetName) -> Result<AfterReboot> {
    let place = core.place(dataset)?;
    let path = place.path.display();
    let said = zfs(&[
        "get",
        "-Hp",
        "-o",
        "value",
        "canmount,mountpoint",
        &place.zfs,
    ]);
    let Some(said) = super::command::if_any(said)? else {
        return Ok(AfterReboot {
            sentence: format!(
                "nothing is mounted at {path}: {} does not exist now",
                place.zfs
            ),
            hint: None,
            is_problem: false,
        });
    };
    let values: Vec<&str> = said.lines().collect();
    let mounts = values.first() == Some(&"on") && values.get(1).copied() == place.path.to_str();
    Ok(match mounts {
        true => AfterReboot {
            sentence: format!("{} is mounted at {path}", place.zfs),
            hint: None,
            is_problem: false,
        },
        false => AfterReboot {
            sentence: format!("{} is not mounted at {path}", place.zfs),
            hint: Some(format!(
                "zfs set canmount=on mountpoint={path} {}",
                place.zfs
            )),
            is_problem: true,
        },
    })
}
