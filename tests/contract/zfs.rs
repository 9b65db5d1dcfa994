//! The contract on ZFS, and what only ZFS can get wrong: tokens, holders, promotions, keys.
//!
//! Tried where `STANDIN_TEST_POOL` names a pool whose data nobody wants; each test makes datasets of its own in it. There is
//! no ZFS in the kernels that most tests run on: the suite of virtual machines has it.

#![allow(clippy::print_stdout)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

#[path = "zfs/guards.rs"]
mod guards;
#[path = "zfs/keys.rs"]
mod keys;

use super::*;
use standin::fs::zfs::{Place, Zfs};
use standin::fs::{Limits, Opened, Receipt, Restored};
use standin::logic::accept::Accept;
use standin::logic::fork::{Fork, Why};
use standin::logic::manifest::Stored;
use standin::logic::name::{DatasetName, RoleName};
use standin::logic::point::PointId;
use standin::logic::prefix::PrefixHash;
use standin::logic::transfer::FileFlags;

/// A dataset in the pool, with all below it; destroyed when dropped.
struct Plot {
    name: String,
    dir: tempfile::TempDir,
}

impl Plot {
    /// None where there is no pool to try.
    fn new(test: &str) -> Option<Plot> {
        let Ok(pool) = std::env::var("STANDIN_TEST_POOL") else {
            println!("SKIPPED {test}: no pool is given; the suite of virtual machines has one");
            return None;
        };
        let unique = uuid::Uuid::new_v4().simple().to_string();
        let name = format!("{pool}/t-{}", &unique[..8]);
        zfs(&[
            "create",
            "-o",
            "canmount=off",
            "-o",
            "mountpoint=none",
            &name,
        ]);
        let dir = tempfile::tempdir().unwrap();
        Some(Plot { name, dir })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().canonicalize().unwrap().join(name)
    }

    fn place(&self, name: &str) -> Place {
        Place {
            zfs: format!("{}/{name}", self.name),
            path: self.path(&name.replace('/', "-")),
            key: None,
        }
    }

    /// A live dataset.
    fn live(&self, name: &str, options: &[&str]) -> Place {
        let place = self.place(name);
        let mountpoint = format!("mountpoint={}", text(&place.path));
        let mut arguments = vec!["create", "-p", "-o", &mountpoint];
        for option in options {
            arguments.extend(["-o", option]);
        }
        arguments.push(&place.zfs);
        zfs(&arguments);
        place
    }
}

impl Drop for Plot {
    fn drop(&mut self) {
        if std::env::var_os("STANDIN_TEST_KEEP").is_some() {
            return;
        }
        // What is held is not destroyed.
        let release = "zfs list -H -r -t snapshot -o name \"$1\" | xargs -r zfs holds -H | while read -r snap tag _; do zfs release \"$tag\" \"$snap\"; done";
        let _ = Command::new("sh")
            .args(["-c", release, "sh", &self.name])
            .status();
        let destroyed = Command::new("zfs")
            .args(["destroy", "-R", &self.name])
            .status();
        if !destroyed.is_ok_and(|status| status.success()) {
            eprintln!("{} stays", self.name);
        }
    }
}

fn zfs(arguments: &[&str]) -> String {
    must("zfs", arguments)
}

fn role(places: &[(&str, &Place)]) -> Zfs {
    let limits = Limits {
        reserve: 0,
        ..Limits::default()
    };
    let places: BTreeMap<DatasetName, Place> = places
        .iter()
        .map(|(name, place)| (dataset(name), (*place).clone()))
        .collect();
    Zfs::new(RoleName::parse("shop").unwrap(), places, limits).unwrap()
}

/// After everything was destroyed and swept, no snapshot is left, and of the holders at most the directories.
fn assert_nothing_left(plot: &Plot) {
    let snapshots = zfs(&[
        "list",
        "-H",
        "-r",
        "-t",
        "snapshot,bookmark",
        "-o",
        "name",
        &plot.name,
    ]);
    assert_eq!(snapshots, "");
    let trees = zfs(&["list", "-H", "-r", "-o", "name", &plot.name]);
    let holders: Vec<&str> = trees
        .lines()
        .filter(|name| {
            name.contains("/.standin/shop/")
                && name.contains('-')
                && !name.ends_with("/web")
                && !name.ends_with("/db")
        })
        .collect();
    assert_eq!(holders, [""; 0]);
}

#[test]
fn on_zfs() {
    let Some(plot) = Plot::new("on_zfs") else {
        return;
    };
    let (web, db) = (plot.live("web", &["recordsize=16K"]), plot.live("db", &[]));
    let fs = role(&[("web", &web), ("db", &db)]);
    contract(&fs);
    assert_nothing_left(&plot);
    let size = zfs(&["get", "-Hp", "-o", "value", "recordsize", &web.zfs]);
    assert_eq!(size.trim(), "16384", "local properties come along");
    drop(fs);
}

#[test]
fn below_two_parents() {
    let Some(plot) = Plot::new("below_two_parents") else {
        return;
    };
    let (web, db) = (plot.live("a/web", &[]), plot.live("b/db", &[]));
    contract(&role(&[("web", &web), ("db", &db)]));
    assert_nothing_left(&plot);
}

/// What one transfer carried.
#[derive(Debug, Default, Clone, Copy)]
struct Carried {
    /// Bytes of the last stream.
    bytes: usize,
    resumed: bool,
}

/// Sends a dataset of a point as the daemons do; with `cut`, only so many bytes of the stream arrive.
fn carry(
    from: &Zfs,
    to: &Zfs,
    point: &Stored,
    base: Option<&PointId>,
    cut: Option<usize>,
) -> standin::fs::Result<Carried> {
    let mut carried = Carried::default();
    for name in point.manifest.datasets.keys() {
        let measured = from.measure(name, base, &point.manifest.point, 2)?;
        let receipt = Receipt {
            manifest: point.manifest.clone(),
            dataset: name.clone(),
            identity: measured.identity.clone(),
            base: base.cloned(),
            data_bytes: measured.data_bytes,
            flags: FileFlags::default(),
            accept: Accept::default(),
        };
        let Opened::Transfer(mut incoming) = to.receive(&receipt)? else {
            continue;
        };
        let standing = incoming.standing();
        assert_eq!(
            (standing.offset, standing.prefix),
            (0, PrefixHash::default().value())
        );
        let id = &point.manifest.point;
        let mut outgoing = match &standing.token {
            Some(token) => {
                carried.resumed = true;
                from.resume(name, base, id, token)?
                    .expect("the token is of this stream")
            }
            None => from.send(name, base, id, 2)?,
        };
        let mut bytes = Vec::new();
        outgoing.read_to_end(&mut bytes).unwrap();
        outgoing.finish()?;
        carried.bytes += bytes.len();
        let mut hash = PrefixHash::default();
        for chunk in bytes[..cut.unwrap_or(bytes.len()).min(bytes.len())].chunks(100_000) {
            hash.update(chunk);
            incoming.write(chunk)?;
        }
        if cut.is_some() {
            incoming.checkpoint()?;
            return Ok(carried);
        }
        incoming.finish(hash.bytes(), &hash.value())?;
    }
    to.publish(&point.manifest, &node("alder"))?;
    to.sweep()?;
    Ok(carried)
}

/// Compares the files of two directories by programs of other people.
fn assert_same(one: &Path, other: &Path) {
    let sums = "cd \"$1\" && find . -printf '%P %y %m %U %G %s %l\\n' | sort && find . -type f -print0 | sort -z | xargs -0r sha256sum";
    let of = |dir: &Path| must("sh", &["-c", sums, "sh", text(dir)]);
    assert_eq!(of(one), of(other));
}

fn fill(path: &Path, name: &str, seed: u64, bytes: usize) {
    fs::write(path.join(name), noise(seed, bytes)).unwrap();
}

#[test]
fn a_cut_transfer_goes_on() {
    let Some(plot) = Plot::new("a_cut_transfer_goes_on") else {
        return;
    };
    let here = plot.live("alder/web", &[]);
    zfs(&[
        "create",
        "-o",
        "canmount=off",
        &format!("{}/birch", plot.name),
    ]);
    let there = plot.place("birch/web");
    let (alder, birch) = (role(&[("web", &here)]), role(&[("web", &there)]));
    alder.prepare().unwrap();
    birch.prepare().unwrap();
    fill(&here.path, "big", 1, 6 << 20);
    let one = take(&alder, 1, 1);
    let web = dataset("web");
    // A new dataset, then one on top of it: each cut twice, the second time in what goes on.
    let mut base: Option<PointId> = None;
    for (sequence, point) in [(1, one)].into_iter().chain([(2, {
        fill(&here.path, "more", 2, 6 << 20);
        take(&alder, 1, 2)
    })]) {
        let whole = carry(&alder, &birch, &point, base.as_ref(), Some(3 << 20)).unwrap();
        assert!(!whole.resumed);
        assert_eq!(birch.partials().unwrap().len(), 1);
        let cut = carry(&alder, &birch, &point, base.as_ref(), Some(2 << 20)).unwrap();
        assert!(
            cut.resumed && cut.bytes < whole.bytes,
            "{cut:?} of {whole:?}"
        );
        let rest = carry(&alder, &birch, &point, base.as_ref(), None).unwrap();
        assert!(
            rest.resumed && rest.bytes < cut.bytes,
            "{rest:?} of {cut:?}"
        );
        assert_eq!(listed(&birch).len(), sequence);
        let id = &point.manifest.point;
        let shown = |fs: &Zfs| fs.snapshot_path(&web, id).unwrap();
        assert_same(&shown(&alder), &shown(&birch));
        base = Some(id.clone());
    }
    assert_eq!(birch.partials().unwrap(), []);
    // A token of a stream that does not come again is given up.
    fill(&here.path, "third", 3, 4 << 20);
    let three = take(&alder, 1, 3);
    carry(&alder, &birch, &three, base.as_ref(), Some(2 << 20)).unwrap();
    alder.destroy(&three.manifest.point).unwrap();
    let four = take(&alder, 1, 4);
    let carried = carry(&alder, &birch, &four, base.as_ref(), None).unwrap();
    assert!(!carried.resumed);
    assert_eq!(listed(&birch), [(1, 1), (1, 2), (1, 4)]);
    // What a token of another stream is worth to a sender.
    assert!(
        alder
            .resume(&web, None, &four.manifest.point, "1-ab")
            .unwrap()
            .is_none()
    );
}

/// Puts a point live on one node after the other has let go.
fn play(fs: &Zfs, point: &PointId, keep: standin::logic::manifest::Manifest) -> Restored {
    fs.restore_live(&dataset("web"), point, None, keep).unwrap()
}

fn reversals(plot: &Plot, here: &Place, there: &Place, rounds: u64) {
    let nodes = [role(&[("web", here)]), role(&[("web", there)])];
    nodes.iter().for_each(|fs| fs.prepare().unwrap());
    let (web, paths) = (dataset("web"), [&here.path, &there.path]);
    fill(paths[0], "big", 1, 8 << 20);
    let mut newest = take(&nodes[0], 1, 1);
    carry(&nodes[0], &nodes[1], &newest, None, None).unwrap();
    let (mut sequence, mut forks) = (1, 0);
    for round in 0..rounds {
        let active = usize::from(round % 2 == 1);
        let (old, new) = (&nodes[active], &nodes[1 - active]);
        let epoch = 2 + round;
        if round % 3 == 0 {
            // A failover: the old one wrote on after the last point.
            fill(paths[active], "late", 100 + round, 50_000);
        }
        sequence += 2;
        let keep = |more| manifest(epoch, sequence + more);
        let retired = old.retire_live(&web, None, keep(0)).unwrap();
        assert_eq!(retired.late_writes, round % 3 == 0, "round {round}");
        if retired.late_writes {
            let late = old.list().unwrap().pop().unwrap();
            let fork = Fork {
                why: Why::Returned,
                ..described(Some(&newest), &[&late])
            };
            old.fork(&ids(&[&late]), fork).unwrap();
            forks += 1;
        }
        let restored = play(new, &newest.manifest.point, keep(1));
        assert!(!restored.late_writes && restored.aside.is_none());
        fill(
            paths[1 - active],
            &format!("of round {round}"),
            round,
            100_000,
        );
        fs::remove_file(paths[1 - active].join(format!("of round {}", round.saturating_sub(2))))
            .ok();
        sequence += 2;
        let point = take(new, epoch, sequence);
        let carried = carry(new, old, &point, Some(&newest.manifest.point), None).unwrap();
        assert!(
            carried.bytes < 1 << 20,
            "round {round}: {carried:?} is no difference"
        );
        let shown = |fs: &Zfs| fs.snapshot_path(&web, &point.manifest.point).unwrap();
        assert_same(&shown(old), &shown(new));
        assert_same(&shown(new), paths[1 - active]);
        // Points go on being pruned, also where a fork begins.
        for fs in &nodes {
            let points = fs.list().unwrap();
            for old in points.iter().rev().skip(3) {
                fs.destroy(&old.manifest.point).unwrap();
            }
            fs.sweep().unwrap();
        }
        newest = point;
    }
    let kept: usize = nodes.iter().map(|fs| fs.forks().unwrap().len()).sum();
    assert_eq!(kept, forks, "no fork is lost");
    for fs in &nodes {
        assert_eq!(fs.inspect().unwrap().damaged, []);
        for fork in fs.forks().unwrap() {
            let path = fs.fork_path(&fork.name, &web, None).unwrap();
            assert_eq!(fs::metadata(path.join("late")).unwrap().len(), 50_000);
        }
    }
    println!(
        "{}",
        zfs(&[
            "list",
            "-r",
            "-t",
            "filesystem,snapshot",
            "-o",
            "name,origin,used",
            &plot.name
        ])
    );
    for fs in &nodes {
        for fork in fs.forks().unwrap() {
            fs.discard_fork(&fork.name).unwrap();
        }
        for point in fs.list().unwrap() {
            fs.destroy(&point.manifest.point).unwrap();
        }
        fs.sweep().unwrap();
        fs.sweep().unwrap();
    }
}

#[test]
fn ten_reversals_without_a_full_send() {
    let Some(plot) = Plot::new("ten_reversals_without_a_full_send") else {
        return;
    };
    let here = plot.live("alder/web", &["atime=off"]);
    zfs(&[
        "create",
        "-o",
        "canmount=off",
        &format!("{}/birch", plot.name),
    ]);
    let there = plot.place("birch/web");
    reversals(&plot, &here, &there, 10);
    assert_nothing_left(&plot);
}

#[test]
fn what_is_in_use_or_foreign_stays() {
    let Some(plot) = Plot::new("what_is_in_use_or_foreign_stays") else {
        return;
    };
    let web = plot.live("web", &[]);
    let role = role(&[("web", &web)]);
    role.prepare().unwrap();
    fill(&web.path, "file", 1, 100_000);
    let one = take(&role, 1, 1);
    zfs(&["snapshot", &format!("{}@of-somebody", web.zfs)]);
    zfs(&["create", &format!("{}/nested", web.zfs)]);
    fill(&web.path.join("nested"), "inner", 2, 1000);
    let told = role.live(&dataset("web"), Scan::Root).unwrap();
    assert_eq!(told.nested, [PathBuf::from("nested")]);
    assert!(
        told.not_replicated[0].contains("nested is a dataset of its own"),
        "{:?}",
        told.not_replicated
    );
    // Somebody is in there.
    let mut inside = Command::new("sleep")
        .arg("1000")
        .current_dir(&web.path)
        .spawn()
        .unwrap();
    let error = said(role.restore_live(&dataset("web"), &one.manifest.point, None, manifest(1, 2)));
    assert!(
        error.contains("in use") && error.contains("fuser"),
        "{error}"
    );
    assert!(
        web.path.join("nested/inner").exists()
            || role.live_identity(&dataset("web")).unwrap().is_some()
    );
    inside.kill().unwrap();
    inside.wait().unwrap();
    fill(&web.path, "file", 3, 100_000);
    let restored = role
        .restore_live(&dataset("web"), &one.manifest.point, None, manifest(1, 2))
        .unwrap();
    assert!(restored.late_writes);
    assert_eq!(restored.nested_moved, [PathBuf::from("nested")]);
    zfs(&["mount", &format!("{}/nested", web.zfs)]);
    assert!(web.path.join("nested/inner").exists());
    let snapshots = zfs(&[
        "list", "-H", "-r", "-t", "snapshot", "-o", "name", &plot.name,
    ]);
    assert!(snapshots.contains("@of-somebody"), "{snapshots}");
    // A snapshot that is read stays, one that nobody reads is whoever's; destroyed, it is damage, told and not used.
    let named = snapshots
        .lines()
        .find(|name| name.ends_with(".1.2"))
        .unwrap();
    let known = role.known_as(&role.list().unwrap()).unwrap();
    assert_eq!(known[1][&dataset("web")], Path::new(named));
    let late = role.snapshot_path(&dataset("web"), &id(1, 2)).unwrap();
    let again = role.snapshot_path(&dataset("web"), &id(1, 2)).unwrap();
    assert_eq!(*late, *again, "who reads at once has one mount");
    drop(late);
    assert!(again.join("file").exists());
    assert!(is_busy(role.destroy(&id(1, 2))));
    assert_eq!(listed(&role), [(1, 1), (1, 2)]);
    drop(again);
    for (_, open) in role.snapshot_paths(&dataset("web")).unwrap() {
        assert!(open().unwrap().join("file").exists());
    }
    zfs(&["destroy", named]);
    let found = role.inspect().unwrap();
    assert_eq!((found.points.len(), found.damaged.len()), (1, 1));
    assert!(
        found.damaged[0].why.contains("has lost its snapshot"),
        "{:?}",
        found.damaged
    );
    role.set_aside(&found.damaged[0]).unwrap();
    assert_eq!(role.kept_aside().unwrap().len(), 1);
    assert_eq!(role.inspect().unwrap().damaged, []);
}
