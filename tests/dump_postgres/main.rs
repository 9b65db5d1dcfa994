//! PostgreSQL in points: real servers under load, on btrfs; from every point a server starts that lost nothing acknowledged.

#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::print_stderr)]

mod daemons;
mod files;
mod points;
mod refusals;
#[path = "../support/mod.rs"]
mod support;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use standin::config::Config;
use standin::error::{Code, Failure};
use standin::host::command::Surroundings;
use standin::host::dump::{self, Around, Open};
use standin::logic::dump::{Dump, DumpFacts, DumpResult, Found};
use standin::logic::name::{DatasetName, NodeName, RoleName};
use support::fixture::{Loop, run};
use support::servers::postgres::{Load, Postgres, audit, block, create, give, ledger};

/// Points of the long runs.
const POINTS: usize = 20;

/// Clients that write meanwhile.
const CLIENTS: u64 = 3;

/// Steps must end long before.
const PATIENCE: Duration = Duration::from_secs(60);

/// Datasets by name, and where their points and the copies of these go, on the filesystem of each.
struct Place {
    datasets: BTreeMap<DatasetName, PathBuf>,
}

fn name(word: &str) -> DatasetName {
    DatasetName::parse(word).unwrap()
}

impl Place {
    /// A subvolume for each dataset, on its filesystem.
    fn new(datasets: &[(&str, &Loop)]) -> Place {
        let make = |(dataset, disk): &(&str, &Loop)| {
            let live = disk.join(dataset);
            run(
                "btrfs",
                [
                    "-q".as_ref(),
                    "subvolume".as_ref(),
                    "create".as_ref(),
                    live.as_os_str(),
                ],
            );
            fs::create_dir_all(disk.join("points")).unwrap();
            (name(dataset), live)
        };
        Place {
            datasets: datasets.iter().map(make).collect(),
        }
    }

    fn live(&self, dataset: &str) -> &Path {
        &self.datasets[&name(dataset)]
    }

    fn around(&self) -> Around {
        Around {
            surroundings: Surroundings {
                role: RoleName::parse("web").unwrap(),
                node: NodeName::parse("alder").unwrap(),
                term: None,
                output: PathBuf::from("/nonexistent"),
            },
            datasets: self.datasets.clone(),
            copies: self.datasets.clone(),
        }
    }

    fn snapshot(&self, dataset: &DatasetName, point: &str, flags: &[&str]) -> PathBuf {
        let live = &self.datasets[dataset];
        let to = live
            .parent()
            .unwrap()
            .join("points")
            .join(format!("{point}-{dataset}"));
        snapshot(live, &to, flags);
        to
    }

    /// A dump of the config.
    fn dump(&self, server: &Path, keys: &str) -> Dump {
        let mut text = "[node]\nname = \"alder\"\n[role.web]\nhome = \"alder\"\nevery = \"manual\"\nkeep = { last = 3 }\n".to_owned();
        for (dataset, live) in &self.datasets {
            text += &format!(
                "[role.web.dataset.{dataset}]\nbtrfs = \"{}\"\n",
                live.display()
            );
        }
        text += &format!("[[role.web.dump]]\nname = \"pg\"\nkind = \"postgres\"\n{keys}\n");
        if !keys.contains("host =") {
            text += &format!("socket = \"{}\"\n", server.display());
        }
        let config = Config::parse(&text, Path::new("/c.toml")).unwrap_or_else(|e| panic!("{e}"));
        let again = Config::parse(&config.show(), Path::new("/c.toml")).unwrap();
        assert_eq!(config, again, "{}", config.show());
        config.roles.values().next().unwrap().dumps[0].clone()
    }
}

fn snapshot(from: &Path, to: &Path, flags: &[&str]) {
    let mut args = vec!["-q", "subvolume", "snapshot"];
    args.extend(flags);
    args.extend([from.to_str().unwrap(), to.to_str().unwrap()]);
    run("btrfs", args);
}

fn delete(subvolume: &Path) {
    run(
        "btrfs",
        [
            "-q".as_ref(),
            "subvolume".as_ref(),
            "delete".as_ref(),
            subvolume.as_os_str(),
        ],
    );
}

/// What one bracket made.
struct Point {
    facts: DumpFacts,
    /// By dataset.
    parts: BTreeMap<DatasetName, PathBuf>,
    /// When the steps began: prepare, hold, and the end.
    times: [Instant; 3],
    acknowledged: Vec<i64>,
}

fn facts(dump: &Dump, result: DumpResult, found: Found) -> DumpFacts {
    DumpFacts {
        name: dump.name.clone(),
        kind: dump.how.kind().to_owned(),
        mode: dump.how.mode().to_owned(),
        result,
        took_ms: 0,
        held_ms: None,
        found,
    }
}

fn runtime() -> tokio::runtime::Runtime {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build();
    runtime.unwrap()
}

/// The bracket as the daemon has it.
fn take(place: &Place, dump: &Dump, label: &str, load: &Load) -> Point {
    let around = place.around();
    runtime().block_on(async {
        let before = load.acknowledged();
        let mut open = Open::new(dump, &around);
        let began = Instant::now();
        open.prepare().await.unwrap();
        let held = Instant::now();
        open.hold().await.unwrap();
        // A dump is of the moment at which it began.
        let acknowledged = match dump.how.mode() {
            "dump" => before,
            _ => load.acknowledged(),
        };
        let late = open.late();
        let mut parts = BTreeMap::new();
        for dataset in place.datasets.keys().filter(|name| !late.contains(name)) {
            parts.insert(dataset.clone(), place.snapshot(dataset, label, &["-r"]));
        }
        open.release().await.unwrap();
        let found = open.finish().await.unwrap();
        for dataset in &late {
            parts.insert(dataset.clone(), place.snapshot(dataset, label, &["-r"]));
        }
        Point {
            facts: facts(dump, DumpResult::Good, found),
            parts,
            times: [began, held, Instant::now()],
            acknowledged,
        }
    })
}

/// Starts a server on writable copies of a point, at other paths; it must hold the ledger. Gives what was done before.
fn recover(place: &Place, dump: &Dump, point: &Point, data: &str) -> Vec<String> {
    let copies: BTreeMap<DatasetName, PathBuf> = point
        .parts
        .iter()
        .map(|(name, part)| (name.clone(), part.with_extension("copy")))
        .collect();
    for (name, copy) in &copies {
        snapshot(&point.parts[name], copy, &[]);
    }
    // Twice: a daemon may be killed before it notes that it was done.
    let done = block(dump::place(dump, &point.facts, &copies)).unwrap();
    block(dump::place(dump, &point.facts, &copies)).unwrap();
    let (dataset, _) = data.split_once('/').unwrap();
    let at = copies[&name(dataset)].join(&data[dataset.len() + 1..]);
    let server = Postgres::start(&at);
    audit(&server, &point.acknowledged);
    drop(server);
    for copy in copies.values() {
        delete(copy);
    }
    assert!(place.live(dataset).exists());
    done
}

fn milliseconds(span: Duration) -> f64 {
    span.as_secs_f64() * 1000.0
}

fn median(mut all: Vec<f64>) -> f64 {
    all.sort_by(f64::total_cmp);
    all[all.len() / 2]
}

/// Takes points under load, prints what writers waited for, and recovers all of them.
fn rounds(place: &Place, dump: &Dump, server: &mut Postgres, data: &str, points: usize) {
    let load = Load::start(server, CLIENTS);
    let mut taken = Vec::new();
    let mut beyond = Vec::new();
    for number in 0..points {
        load.wait_for(10);
        let point = take(place, dump, &format!("p{number}"), &load);
        load.wait_for(2);
        let [began, held, ended] = point.times;
        let checkpoint = milliseconds(load.longest(began, held));
        let bracket = milliseconds(load.longest(held, ended));
        println!(
            "{} point {number}: longest commit {checkpoint:.1} ms during prepare ({:.0} ms), {bracket:.1} ms around the snapshots ({:.0} ms), at {}",
            dump.how.mode(),
            milliseconds(held - began),
            milliseconds(ended - held),
            point.facts.found.position.as_deref().unwrap_or("-"),
        );
        beyond.push(bracket - checkpoint);
        taken.push(point);
    }
    println!("{} transactions", load.end());
    println!(
        "median beyond the checkpoint: {:.1} ms",
        median(beyond.clone())
    );
    server.kill();
    for point in &taken {
        recover(place, dump, point, data);
    }
    if dump.how.mode() == "freeze" {
        assert!(median(beyond) <= 50.0, "writers wait for the snapshot");
    }
}

async fn wait(what: &str, mut done: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !done() {
        assert!(Instant::now() < end, "{what}: it does not come");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn owned_dir(path: PathBuf) -> PathBuf {
    fs::create_dir(&path).unwrap();
    give(&path);
    path
}

/// A server on `main`, with a tablespace and the log where they are wanted.
fn spread(place: &Place, space: Option<&Path>, wal: Option<&Path>) -> Postgres {
    let data = place.live("main").join("data");
    create(&data);
    if let Some(wal) = wal {
        run(
            "cp",
            [
                "-a".as_ref(),
                data.join("pg_wal").as_os_str(),
                wal.as_os_str(),
            ],
        );
        fs::remove_dir_all(data.join("pg_wal")).unwrap();
        std::os::unix::fs::symlink(wal, data.join("pg_wal")).unwrap();
    }
    let server = Postgres::start(&data);
    if let Some(space) = space {
        server.sql(&format!(
            "CREATE TABLESPACE space LOCATION '{}'",
            space.display()
        ));
    }
    ledger(&server, space.map(|_| "space"));
    server
}

/// `prepare` fails so, and what was begun is ended.
#[track_caller]
fn refused(place: &Place, dump: &Dump, code: Code, what: &str, hint: &str) {
    let around = place.around();
    runtime().block_on(async {
        let mut open = Open::new(dump, &around);
        let error = open.prepare().await.unwrap_err();
        told(&error, code, what, hint);
        assert!(open.late().is_empty());
        assert!(open.finish().await.unwrap().keeps.is_empty());
    });
}

#[track_caller]
fn told(error: &anyhow::Error, code: Code, what: &str, hint: &str) {
    let text = format!("{error:#}");
    assert_eq!(Failure::code_of(error), code, "{text}");
    assert!(text.contains(what), "{text}");
    assert!(!text.contains("s3cret"), "{text}");
    let found = Failure::of(error)
        .and_then(|failure| failure.hint.clone())
        .unwrap_or_default();
    assert!(found.contains(hint), "{text}: {found}");
    println!("could not {text}\n    {found}");
}
