//! Two nodes exchange points through `fs::Filesystem` alone, as the daemon would: full, incremental, interrupted, there and
//! back again. The judgement on trees is not our code (tests/support/same.rs).

#![allow(clippy::unwrap_used)]

#[path = "contract/stage.rs"]
mod stage;
mod support;

use std::fs;
use std::io::Read;
use std::path::Path;

use stage::*;
use standin::fs::{Filesystem, FsError, Incoming, Opened, Receipt};
use standin::logic::manifest::Stored;
use standin::logic::point::PointId;
use standin::logic::prefix::PrefixHash;
use standin::logic::transfer::Partial;
use support::same::{assert_same, flags_differ};
use support::tree::{Names, Tree};

/// One dataset on its way.
struct Transfer {
    receipt: Receipt,
    bytes: Vec<u8>,
}

impl Transfer {
    fn new(from: &dyn Filesystem, word: &str, base: Option<&PointId>, point: &Stored) -> Transfer {
        let dataset = dataset(word);
        let id = &point.manifest.point;
        let measured = from.measure(&dataset, base, id, 2).unwrap();
        let version = measured.identity.version;
        Transfer {
            bytes: stream(from, &dataset, base, id, version),
            receipt: Receipt {
                manifest: point.manifest.clone(),
                dataset,
                identity: measured.identity,
                base: base.cloned(),
                data_bytes: measured.data_bytes,
                flags: measured.flags,
                accept: standin::logic::accept::Accept::default(),
            },
        }
    }

    fn open(&self, to: &dyn Filesystem) -> Box<dyn Incoming> {
        match to.receive(&self.receipt).unwrap() {
            Opened::Transfer(incoming) => incoming,
            Opened::Complete(_) => panic!("nothing was received yet"),
        }
    }

    /// Sends what is missing.
    fn run(&self, to: &dyn Filesystem) {
        let mut incoming = self.open(to);
        let from = incoming.standing().offset as usize;
        for piece in self.bytes[from..].chunks(100_000) {
            incoming.write(piece).unwrap();
        }
        let mut hash = PrefixHash::default();
        hash.update(&self.bytes);
        let local = incoming
            .finish(self.bytes.len() as u64, &hash.value())
            .unwrap();
        assert_eq!(local.data_bytes, Some(self.receipt.data_bytes));
        match to.receive(&self.receipt).unwrap() {
            Opened::Complete(again) => assert_eq!(again, local),
            Opened::Transfer(_) => panic!("it is complete"),
        }
    }
}

/// All datasets of a point, and visible there.
fn replicate(
    from: &dyn Filesystem,
    to: &dyn Filesystem,
    base: Option<&Stored>,
    point: &Stored,
) -> Stored {
    for dataset in point.manifest.datasets.keys() {
        let base = base.map(|base| &base.manifest.point);
        Transfer::new(from, dataset.as_str(), base, point).run(to);
    }
    let stored = to.publish(&point.manifest, &node("alder")).unwrap();
    assert_eq!(stored.manifest, point.manifest);
    assert_eq!(
        to.publish(&point.manifest, &node("alder")).unwrap(),
        stored,
        "again is success"
    );
    for dataset in point.manifest.datasets.keys() {
        let shown = |fs: &dyn Filesystem| fs.snapshot_path(dataset, &point.manifest.point).unwrap();
        assert_same(
            &shown(from),
            &shown(to),
            &format!("{dataset} of {}", point.manifest.point),
        );
        assert_eq!(flags_differ(&shown(from), &shown(to)), None, "{dataset}");
    }
    stored
}

fn promote(fs: &dyn Filesystem, point: &Stored, kept: &Stored, sequence: u64) {
    for dataset in fs.datasets().keys() {
        let keep = manifest(point.manifest.point.term.epoch, sequence);
        fs.restore_live(dataset, &point.manifest.point, Some(kept), keep)
            .unwrap();
    }
}

/// Fail over, fail back, and again: always by the difference only, also when what is new shares data with the base.
#[test]
fn roles_go_there_and_back() {
    if !ready("roles_go_there_and_back") {
        return;
    }
    let (alder, birch) = (Disk::new(1024), Disk::new(1024));
    let (web, db) = (alder.subvolume("web"), alder.subvolume("db"));
    let a = btrfs(&[("web", &web), ("db", &db)]);
    let (web_b, db_b) = (birch.path().join("web"), birch.path().join("db"));
    let b = btrfs(&[("web", &web_b), ("db", &db_b)]);
    a.prepare().unwrap();
    b.prepare().unwrap();
    let mut tree = Tree::new(&web, 11, Names::Bytes);
    tree.change(300);
    fs::write(db.join("table"), vec![3; 6_000_000]).unwrap();
    let one = take(&a, 1, 1);
    replicate(&a, &b, None, &one);
    tree.change(100);
    let two = take(&a, 1, 2);
    let two_b = replicate(&a, &b, Some(&one), &two);
    assert!(
        b.changed(&two_b).unwrap(),
        "a received point has no live copy to be equal to"
    );

    promote(&b, &two, &two, 90);
    assert_same(&web, &web_b, "promoted");
    // What only the common point holds is shared into the new one: the trap of older receivers.
    must(
        "cp",
        &[
            "--reflink=always",
            text(&db_b.join("table")),
            text(&db_b.join("copy")),
        ],
    );
    fs::remove_file(db_b.join("table")).unwrap();
    Tree::new(&web_b, 12, Names::Bytes).change(50);
    let three = take(&b, 2, 3);
    let back = Transfer::new(&b, "db", Some(&two.manifest.point), &three);
    assert!(
        back.bytes.len() < 100_000,
        "by the difference only: {}",
        back.bytes.len()
    );
    replicate(&b, &a, Some(&two), &three);

    // The old active node wrote something that never left it: that is kept.
    fs::write(db.join("orphan"), "never sent").unwrap();
    promote(&a, &three, &two, 4);
    assert_same(&db_b, &db, "failed back");
    let late = a.snapshot_path(&dataset("db"), &id(2, 4)).unwrap();
    assert_eq!(
        fs::read_to_string(late.join("orphan")).unwrap(),
        "never sent"
    );
    fs::write(db.join("again"), "x").unwrap();
    let five = take(&a, 3, 5);
    replicate(&a, &b, Some(&three), &five);
    assert_eq!(listed(&b), [(1, 1), (1, 2), (2, 3), (3, 5)]);
}

/// A nested subvolume that is a dataset too goes over with the one around it, gets its place there, and comes back. Where
/// the taker's snapshots have the empty directories of nested subvolumes, what comes back may have anything.
#[test]
fn nested_datasets_go_there_and_back() {
    if !ready("nested_datasets_go_there_and_back") {
        return;
    }
    let (alder, birch) = (Disk::new(512), Disk::new(512));
    let (web, cache) = (alder.subvolume("web"), alder.subvolume("web/cache"));
    for path in ["web/scratch", "web/old"] {
        alder.subvolume(path);
    }
    fs::create_dir(web.join("dir")).unwrap();
    alder.subvolume("web/dir/tmp");
    let a = btrfs(&[("web", &web), ("cache", &cache)]);
    let (web_b, cache_b) = (birch.path().join("web"), birch.path().join("web/cache"));
    let b = btrfs(&[("web", &web_b), ("cache", &cache_b)]);
    fs::write(web.join("page"), "one").unwrap();
    fs::write(cache.join("hit"), "one").unwrap();
    let one = take(&a, 1, 1);
    assert_eq!(
        one.manifest.datasets[&dataset("web")].nested,
        ["cache", "dir/tmp", "old", "scratch"]
    );
    replicate_received(&a, &b, None, &one);
    for name in ["web", "cache"] {
        b.restore_live(
            &dataset(name),
            &one.manifest.point,
            Some(&one),
            manifest(1, 90),
        )
        .unwrap();
    }
    assert_eq!(fs::read_to_string(cache_b.join("hit")).unwrap(), "one");

    // On birch there is nothing at the places of the others: a file, a directory, nothing around it.
    fs::write(web_b.join("scratch"), "a file now").unwrap();
    fs::create_dir(web_b.join("old")).unwrap();
    fs::write(web_b.join("old/file"), "x").unwrap();
    fs::remove_dir(web_b.join("dir")).unwrap();
    fs::write(cache_b.join("hit"), "two").unwrap();
    let two = take(&b, 2, 2);
    replicate_received(&b, &a, Some(&one), &two);
    let held = a
        .snapshot_path(&dataset("web"), &two.manifest.point)
        .unwrap();
    assert!(!held.join("dir").exists());
    assert_eq!(
        fs::read_to_string(held.join("scratch")).unwrap(),
        "a file now"
    );

    // Back on alder: the dataset has its place, and what no point holds is kept aside where its place is taken.
    for name in ["web", "cache"] {
        let keep = manifest(3, if name == "web" { 3 } else { 4 });
        let done = a
            .restore_live(&dataset(name), &two.manifest.point, Some(&one), keep)
            .unwrap();
        let aside: Vec<&str> = done.nested_aside.iter().map(|path| text(path)).collect();
        match name {
            "web" => assert_eq!(aside, ["dir/tmp", "old", "scratch"]),
            _ => assert_eq!(aside, [""; 0]),
        }
    }
    assert_eq!(fs::read_to_string(cache.join("hit")).unwrap(), "two");
    assert_eq!(fs::read_to_string(web.join("old/file")).unwrap(), "x");
}

/// As `replicate`, but the taker's snapshots may have empty directories that their copies have not.
fn replicate_received(
    from: &dyn Filesystem,
    to: &dyn Filesystem,
    base: Option<&Stored>,
    point: &Stored,
) {
    for name in point.manifest.datasets.keys() {
        let base = base.map(|base| &base.manifest.point);
        Transfer::new(from, name.as_str(), base, point).run(to);
    }
    to.publish(&point.manifest, &node("alder")).unwrap();
}

#[test]
fn an_interrupted_transfer_goes_on_and_old_remains_are_swept() {
    if !ready("an_interrupted_transfer_goes_on_and_old_remains_are_swept") {
        return;
    }
    let (alder, birch) = (Disk::new(512), Disk::new(512));
    let (web, db) = (alder.subvolume("web"), alder.subvolume("db"));
    let a = btrfs(&[("web", &web), ("db", &db)]);
    let b = btrfs(&[
        ("web", &birch.path().join("web")),
        ("db", &birch.path().join("db")),
    ]);
    fs::write(web.join("big"), vec![9; 10_000_000]).unwrap();
    let one = take(&a, 1, 1);
    let web_one = Transfer::new(&a, "web", None, &one);
    let mut incoming = web_one.open(&b);
    incoming.write(&web_one.bytes[..5_000_000]).unwrap();
    assert!(is_busy(b.receive(&web_one.receipt)), "one at a time");
    incoming.checkpoint().unwrap();
    let reached = incoming.standing().checkpoint;
    assert!(reached > 4_000_000);
    b.sweep().unwrap();
    drop(incoming);
    b.sweep().unwrap();
    let partial = |word: &str, offset| Partial {
        point: one.manifest.point.clone(),
        dataset: dataset(word),
        offset,
    };
    assert_eq!(b.partials().unwrap(), [partial("web", Some(reached))]);
    assert!(said(b.publish(&one.manifest, &node("alder"))).contains("not complete"));
    web_one.run(&b);
    assert_eq!(b.partials().unwrap(), [partial("web", None)]);
    let message = said(b.publish(&one.manifest, &node("alder")));
    assert!(message.contains("dataset db is not complete"), "{message}");
    assert_eq!(listed(&b), []);
    Transfer::new(&a, "db", None, &one).run(&b);
    b.publish(&one.manifest, &node("alder")).unwrap();
    assert_eq!(b.partials().unwrap(), []);
    assert_eq!(listed(&b), [(1, 1)]);

    // The base stays while a transfer stands on it; what is older than the newest point goes, what is open does not.
    fs::write(web.join("big"), vec![8; 3_000_000]).unwrap();
    let two = take(&a, 1, 2);
    let late = Transfer::new(&a, "web", Some(&one.manifest.point), &two);
    let mut incoming = late.open(&b);
    incoming.write(&late.bytes[..1_000_000]).unwrap();
    assert!(is_busy(b.destroy(&one.manifest.point)));
    let three = take(&a, 1, 3);
    replicate(&a, &b, Some(&one), &three);
    b.sweep().unwrap();
    assert_eq!(b.partials().unwrap().len(), 1, "open");
    drop(incoming);
    b.sweep().unwrap();
    assert_eq!(b.partials().unwrap(), []);
    b.destroy(&one.manifest.point).unwrap();
    assert_eq!(listed(&b), [(1, 3)]);
    assert_eq!(
        fs::read_dir(birch.path().join(".standin/.staging/shop"))
            .unwrap()
            .count(),
        0
    );
}

fn is_busy<T>(result: standin::fs::Result<T>) -> bool {
    matches!(result.err().unwrap().downcast_ref(), Some(FsError::Busy(_)))
}

/// Half-received work and what waits to be published can be changed as well: neither becomes part of a point.
#[test]
fn what_was_changed_in_staging_is_received_again() {
    if !ready("what_was_changed_in_staging_is_received_again") {
        return;
    }
    let (alder, birch) = (Disk::new(300), Disk::new(300));
    let web = alder.subvolume("web");
    let a = btrfs(&[("web", &web)]);
    let b = btrfs(&[("web", &birch.path().join("web"))]);
    fs::write(web.join("big"), vec![9; 5_000_000]).unwrap();
    let one = take(&a, 1, 1);
    let transfer = Transfer::new(&a, "web", None, &one);
    let staged = birch.path().join(".standin/.staging/shop");
    let staged = staged.join(one.manifest.name().to_string());
    let change = |snapshot: &Path| {
        let set = ["property", "set", "-f", "-ts", text(snapshot), "ro"];
        must("btrfs", &[&set[..], &["false"]].concat());
        fs::write(snapshot.join("planted"), "x").unwrap();
        must("btrfs", &[&set[..], &["true"]].concat());
    };

    let mut incoming = transfer.open(&b);
    incoming.write(&transfer.bytes[..3_000_000]).unwrap();
    incoming.checkpoint().unwrap();
    let reached = incoming.standing().checkpoint;
    drop(incoming);
    assert_eq!(b.partials().unwrap()[0].offset, Some(reached));
    change(&staged.join(format!(".work/web/ckpt.{reached}")));
    assert_eq!(
        b.partials().unwrap()[0].offset,
        Some(0),
        "it counts for nothing"
    );
    transfer.run(&b);

    assert_eq!(b.partials().unwrap()[0].offset, None);
    change(&staged.join("web"));
    assert_eq!(
        b.partials().unwrap()[0].offset,
        Some(0),
        "no longer complete"
    );
    assert!(said(b.publish(&one.manifest, &node("alder"))).contains("not complete"));
    transfer.run(&b);
    b.publish(&one.manifest, &node("alder")).unwrap();
    let shown = |fs: &dyn Filesystem| {
        fs.snapshot_path(&dataset("web"), &one.manifest.point)
            .unwrap()
    };
    assert_same(&shown(&a), &shown(&b), "received again");
}

#[test]
fn a_base_that_is_not_here_is_told() {
    if !ready("a_base_that_is_not_here_is_told") {
        return;
    }
    let (alder, birch) = (Disk::new(300), Disk::new(300));
    let a = btrfs(&[("web", &alder.subvolume("web"))]);
    let b = btrfs(&[("web", &birch.path().join("web"))]);
    let two = take(&a, 1, 2);
    let four = take(&a, 1, 4);
    let orphan = Transfer::new(&a, "web", Some(&two.manifest.point), &four);
    let refused = b.receive(&orphan.receipt).err().unwrap();
    assert!(
        matches!(refused.downcast_ref(), Some(FsError::BadBase { .. })),
        "{refused:#}"
    );
}

/// A role that spans filesystems has its point only when all parts are there, whichever step was the last.
#[test]
fn a_point_on_two_filesystems_comes_and_goes_as_one() {
    if !ready("a_point_on_two_filesystems_comes_and_goes_as_one") {
        return;
    }
    let (alder, one, two) = (Disk::new(400), Disk::new(400), Disk::new(400));
    let (web, db) = (alder.subvolume("web"), alder.subvolume("db"));
    let a = btrfs(&[("web", &web), ("db", &db)]);
    let b = btrfs(&[
        ("web", &one.path().join("web")),
        ("db", &two.path().join("db")),
    ]);
    let first = take(&a, 1, 1);
    replicate(&a, &b, None, &first);
    let name = first.manifest.name().to_string();
    let visible = |disk: &Disk| disk.path().join(".standin/shop").join(&name);
    let staged = |disk: &Disk| disk.path().join(".standin/.staging/shop").join(&name);

    // Publishing was cut between the two renames.
    fs::rename(visible(&two), staged(&two)).unwrap();
    assert_eq!(listed(&b), []);
    let waiting = b.partials().unwrap();
    assert!(waiting.len() == 2 && waiting.iter().all(|partial| partial.offset.is_none()));
    let again = Transfer::new(&a, "db", None, &first);
    assert!(matches!(
        b.receive(&again.receipt).unwrap(),
        Opened::Complete(_)
    ));
    b.publish(&first.manifest, &node("alder")).unwrap();
    assert_eq!(listed(&b), [(1, 1)]);

    // The same, and a newer point made it useless.
    let second = take(&a, 1, 2);
    replicate(&a, &b, Some(&first), &second);
    fs::rename(visible(&two), staged(&two)).unwrap();
    b.sweep().unwrap();
    assert!(!visible(&one).exists() && !staged(&two).exists());
    assert_eq!(listed(&b), [(1, 2)]);

    // Destroying was cut after the mark.
    let name = second.manifest.name().to_string();
    let part = |disk: &Disk| disk.path().join(".standin/shop").join(&name);
    fs::write(part(&one).join(".destroyed"), "true").unwrap();
    assert_eq!(listed(&b), []);
    b.sweep().unwrap();
    assert!(!part(&one).exists() && !part(&two).exists());
}

#[test]
fn nonsense_is_refused() {
    if !ready("nonsense_is_refused") {
        return;
    }
    let (alder, birch) = (Disk::new(300), Disk::new(300));
    let a = btrfs(&[("web", &alder.subvolume("web"))]);
    let b = btrfs(&[("web", &birch.path().join("web"))]);
    let point = take(&a, 1, 1);
    let good = Transfer::new(&a, "web", None, &point);
    let check = |change: &dyn Fn(&mut Receipt), word: &str| {
        let mut receipt = good.receipt.clone();
        change(&mut receipt);
        let message = said(b.receive(&receipt));
        assert!(message.contains(word), "{message}");
    };
    check(&|r| r.dataset = dataset("other"), "no dataset other");
    check(
        &|r| r.identity.snapshot = uuid::Uuid::nil(),
        "its manifest says",
    );
    check(&|r| r.identity.base = Some(uuid::Uuid::nil()), "base");
    check(&|r| r.base = Some(id(1, 0)), "base");
    check(
        &|r| r.manifest.role_name = "other".parse().unwrap(),
        "is of role other",
    );
    assert!(
        !birch.path().join(".standin/shop").exists(),
        "nothing was made for it"
    );

    // A stream's reader that goes away ends the send at once.
    fs::write(alder.path().join("web/big"), vec![1; 20_000_000]).unwrap();
    let big = take(&a, 1, 2);
    let mut outgoing = a
        .send(&dataset("web"), None, &big.manifest.point, 2)
        .unwrap();
    outgoing.read_exact(&mut [0; 10]).unwrap();
    drop(outgoing);
    a.destroy(&big.manifest.point).unwrap();
}
