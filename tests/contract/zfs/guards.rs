//! Bases on ZFS: held against people, sent from when they are gone; and copies that were called damaged, fetched again.

use super::*;
use standin::fs::Bases;

/// The nodes as after a start: they have no point open.
fn started(plot: &Plot) -> [Zfs; 2] {
    ["alder/web", "birch/web"].map(|name| role(&[("web", &plot.place(name))]))
}

/// Two nodes that hold the points 1.1 to 1.`count`, the last sent on top of each other.
fn two_nodes(plot: &Plot, count: u64) -> ([Zfs; 2], Vec<Stored>) {
    let here = plot.live("alder/web", &["atime=off"]);
    let parent = format!("{}/birch", plot.name);
    zfs(&["create", "-o", "canmount=off", &parent]);
    let nodes = started(plot);
    nodes.iter().for_each(|fs| fs.prepare().unwrap());
    fill(&here.path, "big", 1, 4 << 20);
    let mut points: Vec<Stored> = Vec::new();
    for sequence in 1..=count {
        points.push(write(&nodes, &points, sequence));
    }
    (nodes, points)
}

/// Writes something on alder, and carries it to birch on top of the newest point.
fn write([alder, birch]: &[Zfs; 2], points: &[Stored], sequence: u64) -> Stored {
    let live = &alder.datasets()[&dataset("web")];
    fill(live, &format!("of {sequence}"), sequence, 100_000);
    let point = take(alder, 1, sequence);
    let base = points.last().map(|point| &point.manifest.point);
    let carried = carry(alder, birch, &point, base, None).unwrap();
    let is_small = carried.bytes < 1 << 20;
    assert_eq!(is_small, base.is_some(), "{sequence}: {carried:?}");
    same(alder, birch, &point);
    point
}

#[track_caller]
fn same(one: &Zfs, other: &Zfs, point: &Stored) {
    let shown = |fs: &Zfs| {
        fs.snapshot_path(&dataset("web"), &point.manifest.point)
            .unwrap()
    };
    assert_same(&shown(one), &shown(other));
}

fn bases(held: &[&Stored], let_go: &[&Stored]) -> Bases {
    let birch = node("birch");
    let held = ids(held).into_iter();
    Bases {
        held: held.map(|point| (birch.clone(), point)).collect(),
        let_go: ids(let_go),
    }
}

/// Names of snapshots or bookmarks by the ends of their names, and by whom they are held.
fn there(plot: &Plot, kind: &str) -> Vec<String> {
    let all = zfs(&[
        "list",
        "-H",
        "-r",
        "-t",
        kind,
        "-o",
        "name,userrefs",
        &format!("{}/alder", plot.name),
    ]);
    let end = |line: &str| {
        let (name, holds) = line.split_once('\t').unwrap();
        let short = name.rsplit("Z.").next().unwrap();
        match holds {
            "1" => format!("{short} held"),
            _ => short.to_owned(),
        }
    };
    all.lines().map(end).collect()
}

fn destroy(snapshot: &str) -> bool {
    let tried = Command::new("zfs").args(["destroy", snapshot]).status();
    tried.unwrap().success()
}

#[test]
fn bases_are_guarded() {
    let Some(plot) = Plot::new("bases_are_guarded") else {
        return;
    };
    let (nodes, mut points) = two_nodes(&plot, 2);
    let [alder, _] = &nodes;
    for _ in 0..2 {
        alder.guard(&bases(&[&points[0]], &[])).unwrap();
        assert_eq!(there(&plot, "snapshot"), ["1.1 held", "1.2"]);
        assert_eq!(there(&plot, "bookmark"), ["1.1"]);
    }
    // The base moves on, and the one before was let go: what is left of it stays.
    alder.guard(&bases(&[&points[1]], &[&points[0]])).unwrap();
    assert_eq!(there(&plot, "snapshot"), ["1.1", "1.2 held"]);
    assert_eq!(there(&plot, "bookmark"), ["1.1", "1.2"]);
    alder.guard(&bases(&[&points[1]], &[])).unwrap();
    assert_eq!(there(&plot, "bookmark"), ["1.2"]);
    assert_eq!(alder.inspect().unwrap().remnants, []);
    // A person destroys it: ZFS refuses. They insist.
    let named = zfs(&[
        "list", "-H", "-r", "-t", "snapshot", "-o", "name", &plot.name,
    ]);
    let is_it = |name: &&str| name.contains("/alder/") && name.ends_with(".1.2");
    let base = named.lines().find(is_it).unwrap();
    assert!(!destroy(base), "{base}");
    zfs(&["release", "standin:birch", base]);
    let read = alder.snapshot_path(&dataset("web"), &id(1, 2)).unwrap();
    assert!(!destroy(base), "what is read is kept by the kernel");
    drop(read);
    drop(nodes);
    let nodes = started(&plot);
    let [alder, birch] = &nodes;
    assert!(destroy(base), "{base}");
    let found = alder.inspect().unwrap();
    assert_eq!((found.points.len(), found.damaged.len()), (1, 1));
    let left: Vec<_> = found
        .remnants
        .iter()
        .map(|entry| entry.point.clone())
        .collect();
    assert_eq!(left, [id(1, 2)]);
    // What comes next is a difference to it.
    let next = write(&nodes, &points, 3);
    points.push(next);
    // A cut transfer goes on from a bookmark too.
    alder.guard(&bases(&[&points[2]], &[&points[1]])).unwrap();
    fill(&alder.datasets()[&dataset("web")], "more", 9, 6 << 20);
    alder.destroy(&id(1, 3)).unwrap();
    let four = take(alder, 1, 4);
    let base = Some(&points[2].manifest.point);
    carry(alder, birch, &four, base, Some(3 << 20)).unwrap();
    assert!(carry(alder, birch, &four, base, None).unwrap().resumed);
    same(alder, birch, &four);
    // A base that is held goes when it is its turn, and a stranger's hold is heeded.
    birch.guard(&bases(&[&four], &[])).unwrap();
    let held = zfs(&[
        "list", "-H", "-r", "-t", "snapshot", "-o", "name", &plot.name,
    ]);
    let is_it = |name: &&str| name.contains("/birch/") && name.ends_with(".1.4");
    let held = held.lines().find(is_it).unwrap().to_owned();
    zfs(&["hold", "of-somebody", &held]);
    assert!(is_busy(birch.destroy(&id(1, 4))));
    zfs(&["release", "of-somebody", &held]);
    birch.destroy(&id(1, 4)).unwrap();
    for fs in &nodes {
        for damaged in fs.inspect().unwrap().damaged {
            fs.set_aside(&damaged).unwrap();
        }
        for point in fs.list().unwrap() {
            fs.destroy(&point.manifest.point).unwrap();
        }
        fs.guard(&Bases::default()).unwrap();
        fs.sweep().unwrap();
    }
    assert_nothing_left(&plot);
}

#[test]
fn a_copy_that_was_called_damaged() {
    let Some(plot) = Plot::new("a_copy_that_was_called_damaged") else {
        return;
    };
    let (nodes, mut points) = two_nodes(&plot, 3);
    let [alder, birch] = &nodes;
    // One in between, then the newest: what follows goes on top of the fresh copy.
    for (at, left) in [(1, [(1, 1), (1, 3)]), (2, [(1, 1), (1, 2)])] {
        let point = &points[at];
        birch.guard(&bases(&[point], &[])).unwrap();
        let id = &point.manifest.point;
        birch.condemn(id, "differs from alder's copy").unwrap();
        assert_eq!(listed(birch), left);
        let found = birch.inspect().unwrap();
        let why: Vec<&str> = found.damaged.iter().map(|one| &*one.why).collect();
        assert_eq!(why, ["differs from alder's copy"]);
        assert_eq!(found.remnants, [], "nothing is sent on top of it");
        assert!(said(birch.snapshot_path(&dataset("web"), id)).contains("differs from"));
        birch.set_aside(&found.damaged[0]).unwrap();
        assert_eq!(birch.inspect().unwrap().damaged, []);
        let base = &points[at - 1].manifest.point;
        let carried = carry(alder, birch, point, Some(base), None).unwrap();
        assert!((1..1 << 20).contains(&carried.bytes), "{carried:?}");
        assert_eq!(listed(birch), [(1, 1), (1, 2), (1, 3)]);
        same(alder, birch, point);
    }
    assert_eq!(birch.kept_aside().unwrap().len(), 2);
    let four = write(&nodes, &points, 4);
    points.push(four);
    // It becomes live, and nothing that was set aside counts for a point.
    let newest = &points[3].manifest.point;
    let restored = play(birch, newest, manifest(2, 5));
    assert!(!restored.late_writes);
    let live = &birch.datasets()[&dataset("web")];
    assert_same(live, &alder.datasets()[&dataset("web")]);
}
