//! The kind `tamper`.
//!
//! Two nodes with a few points. Each round harms one point of one of them, between transfers or under a half-sent one, and
//! expects: it is said and not used; the next cycle brings the newest point over whole; a rescan makes the harmed point
//! whole again under its old identity; all other points are as they were. What must *not* be noticed (a balance, a flip of
//! an own snapshot without a change) is done too.

mod harm;

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::process::Stdio;

use serde_json::Value;

use crate::case::{Case, Kind};
use crate::support::cluster::{MANUAL, MIB, OFTEN, Pair, TestNode, btrfs, fill, noise, wait};
use crate::support::{fixture, same};
use harm::{HARMS, TWIN_BYTES};

pub const KIND: Kind = Kind {
    name: "tamper",
    what: "Sources and replicas are changed behind the daemon's back; it is noticed before they are used, and repaired",
    short: 4,
    run,
};

const DATASETS: [&str; 2] = ["files", "db"];

/// Rounds of a case: two nodes are set up for each.
const ROUNDS: u64 = 4;

fn run(case: &mut Case) -> Result<(), String> {
    let pair = Pair::new(&DATASETS, OFTEN, MANUAL);
    for dataset in DATASETS {
        let live = pair.alder.live(dataset);
        fill(&live, 6, 20_000, case.seed % 1000);
        for name in ["twin-a", "twin-b"] {
            fs::write(live.join(name), noise(3, TWIN_BYTES)).unwrap();
        }
    }
    let mut stage = Stage { pair, written: 0 };
    for _ in 0..3 {
        stage.cycle(case);
    }
    for _ in 0..ROUNDS {
        if case.chance(30) {
            stage.under_a_transfer(case)?;
        } else {
            stage.between_transfers(case)?;
        }
        if case.chance(25) {
            stage.harmless(case)?;
        }
    }
    Ok(())
}

struct Stage {
    pair: Pair,
    written: u64,
}

impl Stage {
    /// Writes a little and runs a cycle that must end well; the newest point.
    fn cycle(&mut self, case: &mut Case) -> String {
        self.write(case, 30_000);
        self.pair.alder.run(&["run", "web"]).ok();
        newest(&self.pair.alder)
    }

    fn write(&mut self, case: &mut Case, bytes: usize) {
        let dataset = *case.pick(&DATASETS);
        self.write_to(case, dataset, bytes);
    }

    fn write_to(&mut self, case: &mut Case, dataset: &str, bytes: usize) {
        self.written += 1;
        let name = format!("w{}", self.written);
        let data = noise(case.draw(), bytes);
        fs::write(self.pair.alder.live(dataset).join(name), data).unwrap();
    }

    fn node(&self, name: &str) -> &TestNode {
        match name {
            "alder" => &self.pair.alder,
            _ => &self.pair.birch,
        }
    }

    fn between_transfers(&mut self, case: &mut Case) -> Result<(), String> {
        let where_ = *case.pick(&["alder", "birch"]);
        let node = self.node(where_);
        // What only one of them holds, after the other's was removed by hand, nobody can bring back.
        let mut points = self.pair.alder.points();
        let theirs = self.pair.birch.points();
        points.retain(|point| theirs.contains(point));
        let short = case.pick(&points).clone();
        let other = points
            .iter()
            .find(|point| **point != short)
            .unwrap()
            .clone();
        let newest_one = points.last() == Some(&short);
        let harm = *case.pick(&HARMS);
        let what = format!("{harm:?} of {short} on {where_}");
        let before = prints(node);
        harm::inflict(case, harm, node, &short, &other);
        case.count(harm.words());
        expect_noticed(node, &short, &what)?;
        if case.chance(50) {
            // What the cycle sends anew by itself is the newest point alone, and only to the standby.
            let point = self.cycle(case);
            case.count("cycles beside damage");
            self.same(&point, &what)?;
        }
        let node = self.node(where_);
        if damaged(node).contains(&short) {
            let plan = node.run(&["rescan", "web", "--dry-run"]).ok();
            expect(plan.out.contains(&short), || {
                format!("{what}: the plan is {plan:?}")
            })?;
            expect(damaged(node).contains(&short), || {
                format!("{what}: a dry run acted")
            })?;
            node.run(&["rescan", "web"]).ok();
            case.count("points fetched again");
        } else {
            expect(where_ == "birch" && newest_one, || {
                format!("{what}: healed by itself")
            })?;
        }
        expect(damaged(node).is_empty(), || {
            format!("{what}: still damaged")
        })?;
        expect(aside(node).contains(&short), || {
            format!("{what}: nothing was set aside")
        })?;
        self.same(&short, &what)?;
        untouched(&before, &prints(self.node(where_)), &short, &what)?;
        let point = self.cycle(case);
        self.same(&point, &what)
    }

    /// A transfer is cut in its middle, and its point, its base, or what was received of it is harmed.
    fn under_a_transfer(&mut self, case: &mut Case) -> Result<(), String> {
        let base = newest(&self.pair.alder);
        let alder = &self.pair.alder;
        let slow = "[peer.birch]\nbandwidth = \"6MiB/s\"\n";
        alder.edit("[peer.birch]\n", slow);
        alder.run(&["reload"]).ok();
        self.pair.wait_linked();
        // Shared inside the point: a stream clones the one from the other, as long as few others share them too.
        let files = self.pair.alder.live("files");
        fs::write(files.join("shared-a"), noise(case.draw(), 100_000)).unwrap();
        reflink(&files, "shared-a", "shared-b");
        self.write_to(case, "files", 8 * MIB as usize);
        let alder = &self.pair.alder;
        let mut command = alder.command(&["run", "web"]);
        let quiet = command.stdout(Stdio::null()).stderr(Stdio::null());
        let mut run = quiet.spawn().unwrap();
        let half = |transfer: Value| transfer["done_bytes"].as_u64().unwrap() > 4 * MIB;
        let middle = wait(|| self.pair.birch.transfer().is_some_and(half));
        self.pair.link.cut();
        run.wait().unwrap();
        if !middle {
            return Err(format!("no middle was seen:\n{}", alder.log()));
        }
        self.pair.birch.wait_for("the receiver has ended", || {
            self.pair.birch.transfer().is_none()
        });
        let half_sent = newest(alder);
        let harmed = case.below(8);
        let (what, node, short) = match harmed {
            0 => ("the half-sent point", "alder", half_sent.clone()),
            1 => ("the base at the source", "alder", base),
            2 => ("the base at the target", "birch", base),
            3 => ("the checkpoint", "birch", String::new()),
            5 => ("outside reflinks", "alder", half_sent.clone()),
            6 => ("the whole base by hand, at the source", "alder", base),
            7 => ("the whole base by hand, at the target", "birch", base),
            _ => ("the whole point by hand", "alder", half_sent.clone()),
        };
        let log = alder.log().len();
        match harmed {
            3 => change_checkpoints(&self.pair.birch),
            5 => share_widely(&alder.live("files")),
            4 | 6 | 7 => remove_by_hand(&self.node(node).snapshot(&short, "files")),
            _ => {
                let harm = *case.pick(&HARMS);
                let node = self.node(node);
                let points = node.points();
                let other = points.iter().find(|point| **point != short).unwrap();
                harm::inflict(case, harm, node, &short, other);
                expect_noticed(node, &short, what)?;
            }
        }
        case.count("transfers changed under way");
        self.pair.alder.edit(slow, "[peer.birch]\n");
        self.pair.alder.run(&["reload"]).ok();
        self.pair.link.mend();
        self.pair.wait_linked();
        let point = self.cycle(case);
        self.same(&point, what)?;
        let said = &self.pair.alder.log()[log..];
        let why = match harmed {
            0 | 4 => "what birch has half received of it is left",
            5 => "start again from the first byte with birch",
            1 | 2 | 6 | 7 => "the base so far is of no use",
            _ => "",
        };
        expect(said.contains(why), || format!("{what}: not said:\n{said}"))?;
        for node in ["alder", "birch"] {
            self.node(node).run(&["rescan", "web"]);
            let left = damaged(self.node(node));
            // The half-sent point was nowhere else: it is set aside.
            expect(left.is_empty(), || {
                format!("{what}: {left:?} stays damaged on {node}")
            })?;
        }
        let both: Vec<String> = self.pair.birch.points();
        for short in both
            .iter()
            .filter(|short| self.pair.alder.points().contains(short))
        {
            self.same(short, what)?;
        }
        Ok(())
    }

    /// Things that change no point.
    fn harmless(&mut self, case: &mut Case) -> Result<(), String> {
        let alder = &self.pair.alder;
        if case.chance(50) {
            btrfs(&[
                "balance",
                "start",
                "--full-balance",
                alder.disk.path().to_str().unwrap(),
            ]);
        } else {
            let points = alder.points();
            let own = points.iter().map(|short| alder.snapshot(short, "files"));
            // One that was fetched again carries the identity of what it was, which the flip takes away.
            let own: Vec<PathBuf> = own.filter(|path| !received(path)).collect();
            if !own.is_empty() {
                let snapshot = case.pick(&own);
                harm::read_only(snapshot, false);
                harm::read_only(snapshot, true);
            }
        }
        case.count("harmless things not complained about");
        let found = damaged(alder);
        expect(found.is_empty(), || format!("{found:?} is called damaged"))?;
        let point = self.cycle(case);
        self.same(&point, "after a harmless thing")
    }

    fn same(&self, short: &str, what: &str) -> Result<(), String> {
        for dataset in DATASETS {
            let ours = self.pair.alder.snapshot(short, dataset);
            let theirs = self.pair.birch.snapshot(short, dataset);
            if let Some(difference) = same::difference(&ours, &theirs) {
                return Err(format!(
                    "{what}: {dataset} of {short} differs\n{difference}"
                ));
            }
        }
        Ok(())
    }
}

fn expect(holds: bool, why: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(why()) }
}

fn newest(node: &TestNode) -> String {
    node.points().last().unwrap().clone()
}

fn role_points(node: &TestNode) -> Value {
    node.run(&["points", "web", "--json"]).ok().json()["roles"][0].clone()
}

fn shorts(list: &Value) -> Vec<String> {
    let list = list.as_array().unwrap().iter();
    list.map(|entry| entry["short"].as_str().unwrap().to_owned())
        .collect()
}

fn damaged(node: &TestNode) -> Vec<String> {
    shorts(&role_points(node)["damaged"])
}

fn aside(node: &TestNode) -> Vec<String> {
    shorts(&role_points(node)["aside"])
}

/// It is no point any more, and said by points, status, check and restore.
fn expect_noticed(node: &TestNode, short: &str, what: &str) -> Result<(), String> {
    let points = role_points(node);
    expect(
        !shorts(&points["points"]).contains(&short.to_owned()),
        || format!("{what}: it is listed as if nothing had happened"),
    )?;
    expect(
        shorts(&points["damaged"]).contains(&short.to_owned()),
        || format!("{what}: it is not called damaged: {points}"),
    )?;
    let sentence = format!("{}'s copy of {short} ", node.name);
    let warnings = node.status()["warnings"].to_string();
    expect(warnings.contains(&sentence), || {
        format!("{what}: status says {warnings}")
    })?;
    let check = node.run(&["check"]);
    expect(check.code != 0 && check.out.contains(&sentence), || {
        format!("{what}: check says {check:?}")
    })?;
    let target = node.dir.join("restored");
    let target = target.to_str().unwrap();
    let restore = node.run(&["restore", "web", "--point", short, "--to", target]);
    expect(restore.code != 0 && restore.err.contains(&sentence), || {
        format!("{what}: restore says {restore:?}")
    })
}

/// The snapshots of a node, by point: their uuid and the transaction of their last change.
fn prints(node: &TestNode) -> BTreeMap<String, Vec<String>> {
    let print = |short: &String| {
        let of = |dataset: &&str| {
            let info = libbtrfsutil::subvolume_info(node.snapshot(short, dataset)).unwrap();
            format!("{} {}", info.uuid(), info.ctransid())
        };
        (short.clone(), DATASETS.iter().map(of).collect())
    };
    node.points().iter().map(print).collect()
}

fn untouched(
    before: &BTreeMap<String, Vec<String>>,
    after: &BTreeMap<String, Vec<String>>,
    harmed: &str,
    what: &str,
) -> Result<(), String> {
    for (short, print) in before.iter().filter(|(short, _)| *short != harmed) {
        let now = after.get(short);
        expect(now == Some(print), || {
            format!("{what}: {short} was {print:?} and is {now:?}")
        })?;
    }
    Ok(())
}

fn received(snapshot: &PathBuf) -> bool {
    libbtrfsutil::subvolume_info(snapshot).is_ok_and(|info| info.received_uuid().is_some())
}

fn reflink(dir: &std::path::Path, from: &str, to: &str) {
    let from = dir.join(from);
    fixture::run(
        "cp",
        [
            "--reflink=always".as_ref(),
            from.as_os_str(),
            dir.join(to).as_os_str(),
        ],
    );
}

/// So many files share an extent that a send no longer looks for clones of it (1,024; kernel: fs/btrfs/send.c).
fn share_widely(live: &std::path::Path) {
    let dir = live.join("wide");
    fs::create_dir_all(&dir).unwrap();
    fixture::run("sh", [
        "-c".as_ref(),
        "i=0; while [ $i -lt 1100 ]; do cp --reflink=always \"$1\" \"$2/$i\" || exit 1; i=$((i+1)); done".as_ref(),
        "sh".as_ref(),
        live.join("shared-a").as_os_str(),
        dir.as_os_str(),
    ]);
}

/// All of a point's directory.
fn remove_by_hand(snapshot: &std::path::Path) {
    let point = snapshot.parent().unwrap();
    for dataset in DATASETS {
        btrfs(&["subvolume", "delete", point.join(dataset).to_str().unwrap()]);
    }
    fs::remove_dir_all(point).unwrap();
}

/// What was half received is changed, and flipped back.
fn change_checkpoints(node: &TestNode) {
    let staging = node.disk.path().join(".standin/.staging/web");
    for point in fs::read_dir(staging).unwrap() {
        let Ok(datasets) = fs::read_dir(point.unwrap().path().join(".work")) else {
            continue;
        };
        for work in datasets.map(|entry| entry.unwrap().path()) {
            for entry in fs::read_dir(work)
                .unwrap()
                .map(|entry| entry.unwrap().path())
            {
                let name = entry.file_name().unwrap().to_string_lossy().into_owned();
                if name.starts_with("ckpt.") && entry.is_dir() {
                    harm::read_only(&entry, false);
                    fs::write(entry.join("planted"), "x").unwrap();
                    harm::read_only(&entry, true);
                }
            }
        }
    }
}
