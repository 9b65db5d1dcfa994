//! One example of each value the daemon answers with: what the renderings are tested on, and what docs/json.md shows.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::Serialize;

use crate::commands::init::InitReport;
use crate::commands::render;
use crate::daemon::api::*;
use crate::error::Code;
use crate::logic::fork::{Figures, Measure};
use crate::logic::name::{DatasetName, NodeName, RoleName};
use crate::logic::point::{PointId, PointName, RoleId, Term};

mod browse;
mod status;

pub use self::browse::{browse, diff};
pub use status::{status, transfer, word};

fn at(word: &str) -> Timestamp {
    format!("2026-11-20T{word}Z").parse().unwrap()
}

fn days_ago() -> Timestamp {
    "2026-11-17T08:10:00Z".parse().unwrap()
}

fn id() -> RoleId {
    RoleId("5f0c2a52-6a0e-4c3e-9d35-0d7b0f2f9a11".parse().unwrap())
}

fn node(word: &str) -> NodeName {
    NodeName::parse(word).unwrap()
}

pub fn role() -> RoleName {
    RoleName::parse("web").unwrap()
}

fn dataset(word: &str) -> DatasetName {
    DatasetName::parse(word).unwrap()
}

fn term() -> Term {
    Term {
        epoch: 1,
        holder: node("alder"),
        nonce: 7_203_511,
    }
}

fn name(sequence: u64, taken: &str) -> PointName {
    let id = PointId {
        term: term(),
        sequence,
    };
    PointName::of(&id, at(taken))
}

pub fn summary(sequence: u64, taken: &str) -> PointSummary {
    PointSummary {
        name: name(sequence, taken),
        short: format!("1.{sequence}"),
        taken: at(taken),
        consistent: None,
    }
}

fn dumps() -> Vec<DumpView> {
    let dump = |name: &str, mode: &str, why: Option<&str>| DumpView {
        name: RoleName::parse(name).unwrap(),
        kind: "postgres".into(),
        mode: mode.into(),
        result: if why.is_none() { "good" } else { "failed" }.into(),
        why: why.map(str::to_owned),
        took_ms: 1234,
        held_ms: why.is_none().then_some(12),
        server: Some("PostgreSQL 15.14".into()),
        position: Some("0/1A2B3C4".into()),
        bytes: Some(5 << 20),
    };
    vec![
        dump("orders", "freeze", None),
        dump(
            "sessions",
            "dump",
            Some("could not reach /run/postgresql: no such file"),
        ),
    ]
}

pub fn points() -> Points {
    let view = |sequence, taken: &str, peers: &[&str], pinned: &[&str]| PointView {
        name: name(sequence, taken),
        short: format!("1.{sequence}"),
        taken: at(taken),
        node: node("alder"),
        reason: "schedule".into(),
        from: None,
        datasets: BTreeMap::from([(
            dataset("files"),
            format!("/mnt/pool/.standin/web/{}/files", name(sequence, taken)).into(),
        )]),
        data_bytes: None,
        on_peers: peers.iter().map(|peer| node(peer)).collect(),
        pinned: pinned.iter().map(|&why| why.to_owned()).collect(),
        not_replicated: BTreeMap::new(),
        dropped: BTreeMap::new(),
        not_carried: BTreeMap::new(),
        dumps: Vec::new(),
    };
    let mut newest = view(43, "12:35:05", &[], &["newest"]);
    newest.dumps = dumps();
    newest.not_replicated = BTreeMap::from([(
        dataset("files"),
        vec!["nested subvolume cache/thumbs".into()],
    )]);
    Points {
        roles: vec![RolePoints {
            role: role(),
            state: Some("active".into()),
            active: Some(node("alder")),
            points: vec![
                view(41, "12:25:05", &["birch"], &[]),
                view(42, "12:30:05", &["birch"], &["base of birch"]),
                newest,
            ],
            damaged: vec![DamagedView {
                name: name(40, "12:20:05"),
                short: "1.40".into(),
                text:
                    "alder's copy of 1.40 was changed after it was stored (files); it is not used"
                        .into(),
            }],
            aside: vec![AsideView {
                name: name(39, "12:15:05"),
                short: "1.39".into(),
                why: "has lost its manifest".into(),
                at: at("12:34:00"),
                path: "/mnt/pool/.standin/.aside/web/20261120T121505Z.1.39.7f3a".into(),
            }],
            forks: 1,
        }],
    }
}

fn step(what: &str, text: &str, ok: bool, error: Option<&str>) -> Step {
    Step {
        what: what.into(),
        text: text.into(),
        ok: Some(ok),
        error: error.map(str::to_owned),
    }
}

pub fn cycle() -> CycleReport {
    CycleReport {
        dry_run: false,
        roles: vec![RoleCycle {
            role: role(),
            steps: vec![
                step("snapshot", "take point 1.43", true, None),
                step("send", "send 1.43 on top of 1.42 to birch", true, None),
                step(
                    "send",
                    "send 1.43 to cedar",
                    false,
                    Some("cedar cannot be reached: connection refused\nthe next cycle tries again"),
                ),
                step("prune", "remove 1.12", true, None),
            ],
            code: Code::Partial,
            seconds: 75.25,
        }],
    }
}

pub fn rescan() -> CycleReport {
    let why = "(alder's copy of 1.40 was changed after it was stored (files); it is not used)";
    let text =
        format!("fetch 1.40 from birch files on top of 1.39, and set the damaged copy aside {why}");
    CycleReport {
        dry_run: false,
        roles: vec![RoleCycle {
            role: role(),
            steps: vec![step("fetch", &text, true, None)],
            code: Code::Done,
            seconds: 3.5,
        }],
    }
}

pub fn prune() -> PruneReport {
    let verdict = |sequence, taken: &str, keep, reason: &str| VerdictView {
        name: name(sequence, taken),
        short: format!("1.{sequence}"),
        taken: at(taken),
        keep,
        reasons: vec![reason.to_owned()],
        error: None,
    };
    PruneReport {
        dry_run: false,
        roles: vec![RolePrune {
            role: role(),
            verdicts: vec![
                verdict(43, "12:35:05", true, "newest"),
                verdict(42, "12:30:05", true, "base of birch"),
                VerdictView {
                    error: Some("a send is using it".into()),
                    ..verdict(41, "12:25:05", false, "no rule keeps it")
                },
                verdict(40, "12:20:05", false, "no rule keeps it"),
            ],
        }],
    }
}

pub fn restore() -> RestoreReport {
    RestoreReport {
        dry_run: false,
        role: role(),
        point: summary(42, "12:30:05"),
        kept: Some(summary(44, "12:36:00")),
        steps: vec![
            step(
                "snapshot",
                "keep what is live now as point 1.44",
                true,
                None,
            ),
            step(
                "exchange",
                "put files of 1.42 in place of /srv/web",
                true,
                None,
            ),
        ],
    }
}

pub fn check() -> CheckReport {
    let finding = |level, subject: &str, text: &str, hint: Option<&str>| Finding {
        level,
        subject: subject.into(),
        text: text.into(),
        hint: hint.map(str::to_owned),
    };
    CheckReport {
        findings: vec![
            finding(
                Level::Ok,
                "config",
                "/etc/standin/standin.toml is in order",
                None,
            ),
            finding(
                Level::Warning,
                "peer birch",
                "its clock is 3s ahead",
                Some("run a time service on both nodes"),
            ),
            finding(
                Level::Problem,
                "peer cedar",
                "is not paired",
                Some("standin pair invite, here; standin pair accept, on cedar"),
            ),
        ],
    }
}

pub fn init() -> InitReport {
    InitReport {
        node: node("alder"),
        config: "/etc/standin/standin.toml".into(),
        state_dir: "/var/lib/standin".into(),
        key: "SHA256:2jmj7l5rSw0yVb1vlWAYkK1YBwk3PVnlxCQ0dZ7m9sA".into(),
        btrfs: vec!["/srv/web".into()],
        zfs: vec!["tank/home".into()],
        warnings: vec!["/var/lib/standin was there and is open to others: chmod 700 it".into()],
    }
}

fn invitation() -> Invitation {
    Invitation {
        line: "standin-pair:eyJ2IjoxLCJub2RlIjoiYWxkZXIifQ".into(),
        expires: at("12:50:45"),
    }
}

fn paired() -> Paired {
    Paired {
        peer: node("birch"),
        key: "SHA256:2jmj7l5rSw0yVb1vlWAYkK1YBwk3PVnlxCQ0dZ7m9sA".into(),
        text: "birch is a peer now; give roles to it with peers = [\"birch\"]".into(),
    }
}

pub fn fork() -> ForkView {
    let figures = Figures {
        files: 3,
        added: 1,
        changed: 1,
        removed: 0,
        renamed: 1,
        directories: 1,
        bytes: 1_258_291,
        first: Some(at("10:04:00")),
        last: Some(at("10:31:00")),
    };
    ForkView {
        role: role(),
        name: name(45, "10:31:05"),
        short: "1.45".into(),
        term: term(),
        base: Some("1.42".into()),
        points: vec![summary(43, "10:10:05"), summary(45, "10:31:05")],
        why: "returned".into(),
        reason: "written by a node that had lost the term".into(),
        found: Some(at("11:02:00")),
        first: Some(at("10:04:00")),
        last: Some(at("10:31:00")),
        measured: Some(Measure::of(BTreeMap::from([(dataset("files"), figures)]))),
        mounted: vec![],
    }
}

pub fn forks() -> Forks {
    Forks {
        now: at("12:36:00"),
        roles: vec![RoleForks {
            role: role(),
            forks: vec![fork()],
        }],
    }
}

pub fn fork_diff() -> ForkDiff {
    let change = |what: &str, path: &str, bytes, written: &[[u64; 2]]| ChangeView {
        what: what.into(),
        path: path.into(),
        from: None,
        kind: Some("file".into()),
        bytes,
        written: written.to_vec(),
        resized: None,
        replaced: false,
        metadata: false,
        at: Some(at("10:31:00")),
    };
    let directory = ChangeView {
        kind: Some("directory".into()),
        ..change("added", "www/new", 0, &[])
    };
    let renamed = ChangeView {
        from: Some("www/draft.html".into()),
        ..change("renamed", "www/index.html", 0, &[])
    };
    let fork = fork();
    let total = fork.measured.clone().unwrap_or_default().total;
    ForkDiff {
        fork,
        datasets: vec![ForkChanges {
            dataset: dataset("files"),
            against: Some("1.42".into()),
            note: None,
            figures: total,
            changes: vec![
                change(
                    "changed",
                    "orders.db",
                    9715,
                    &[[4096, 8192], [65_536, 1523]],
                ),
                renamed,
                directory,
                change("added", "www/new/photo.jpg", 1_248_576, &[[0, 1_248_576]]),
            ],
            left_out: 0,
        }],
    }
}

pub fn fork_report() -> ForkReport {
    let mut discard = step(
        "discard",
        "discard fork 1.45 for good: 1.43, 1.45",
        true,
        None,
    );
    discard.ok = None;
    ForkReport {
        dry_run: true,
        fork: Some(fork()),
        steps: vec![discard],
    }
}

/// The examples of docs/json.md: heading, what prints it, value.
fn examples() -> Vec<(&'static str, &'static str, serde_json::Value)> {
    fn value(of: impl Serialize) -> serde_json::Value {
        serde_json::to_value(of).unwrap()
    }
    let findings = value(check());
    let failure = serde_json::json!({
        "error": { "code": Code::NoDaemon, "exit": Code::NoDaemon as u8,
            "what": "reach the daemon: it is not running (nothing answers on /run/standin/control.sock)",
            "hint": "start it: systemctl start standin, or: standin serve" }
    });
    vec![
        (
            "Status",
            "`standin status --json`; with `--watch`, one such value a line, every second, and a failure when the daemon stops",
            value(status()),
        ),
        (
            "Points",
            "`standin points --json`; oldest first. `datasets` says where each is found on this node: a path, or on ZFS the name of its \
             snapshot (`tank/www@standin_...`)",
            value(points()),
        ),
        (
            "Cycle",
            "`standin run --json`, also with `--dry-run` (`ok` is then null)",
            value(cycle()),
        ),
        (
            "Rescan",
            "`standin rescan --json`, also with `--dry-run`; `what` is `fetch`, `aside`, `leave` or `nothing`",
            value(rescan()),
        ),
        (
            "Prune",
            "`standin prune --json`, also with `--dry-run`",
            value(prune()),
        ),
        (
            "Restore",
            "`standin restore ROLE --json`, also with `--dry-run`",
            value(restore()),
        ),
        (
            "Drill",
            "`standin drill --json`, also with `--dry-run` (`passed` is then null)",
            value(render::drill::sample()),
        ),
        (
            "Load",
            "`standin load --json`, also with `--dry-run`; `result` is `loaded`, `left`, `nothing`, `planned` or `failed`",
            value(render::load_sample()),
        ),
        (
            "Seed",
            "`standin seed --json`, also with `--dry-run`; `what` is `nothing`, `write`, `replace` or `attributes`, `state` is \
             `fresh`, `stale`, `edited`, `failing` or `idle`",
            value(render::seed::sample()),
        ),
        (
            "Drift",
            "`standin drift --json`; `state` is `same`, `differs`, `only-here`, `only-there`, `accepted`, `unreadable-here`, \
             `unreadable-there` or `not-watched-there`, `here` being `node`",
            value(render::drift::sample()),
        ),
        (
            "Forks",
            "`standin fork list --json`; `standin fork show --json` prints one of its `forks` by itself",
            value(forks()),
        ),
        (
            "Fork diff",
            "`standin fork diff --json`; with `--stat`, without the `changes` (`left_out` counts them)",
            value(fork_diff()),
        ),
        (
            "Fork report",
            "`standin fork mount`, `unmount`, `export` and `discard` with `--json`, also `discard --dry-run`",
            value(fork_report()),
        ),
        (
            "Check",
            "`standin check --json`; levels are `ok`, `warning`, `problem`",
            findings,
        ),
        ("Init", "`standin init --json`", value(init())),
        (
            "Invitation",
            "`standin pair invite --json`",
            value(invitation()),
        ),
        (
            "Paired",
            "`standin pair accept --json` and `standin pair remove --json`",
            value(paired()),
        ),
        (
            "Cancel",
            "`standin cancel --json`: how many cycles were told to stop, and peers from which this node receives, which alone can stop that",
            serde_json::json!({ "cancelled": 1, "senders": ["alder"] }),
        ),
        (
            "Reload",
            "`standin reload --json`: an empty object",
            serde_json::json!({}),
        ),
        (
            "Failure",
            "any verb that fails, on one line, also for a command line that is not understood; the process exits with \
             `exit` (docs/exit-codes.md)",
            failure,
        ),
    ]
}

/// Those of single files.
fn examples_of_paths() -> Vec<(&'static str, &'static str, serde_json::Value)> {
    vec![
        (
            "Find",
            "`standin find --json`; versions newest first, a row without a number tells that nothing was there; `what` is `oldest`, \
             `created`, `changed`, `metadata`, `replaced` or `removed`",
            serde_json::to_value(render::find_sample()).unwrap(),
        ),
        (
            "Restore of a path",
            "`standin restore PATH --json`, also with `--dry-run` (`live`, `diff` and `version` are known then only)",
            serde_json::to_value(render::bring_sample()).unwrap(),
        ),
    ]
}

/// The same, of copies of points on several nodes.
fn of_copies() -> [(&'static str, &'static str, serde_json::Value); 2] {
    [
        (
            "Verify",
            "`standin verify --json`; `what` of a difference is `only-here`, `only-there`, `kind`, `content`, `metadata`, \
             `unreadable-here` or `unreadable-there`; a repair prints what `standin rescan` does",
            serde_json::to_value(render::verify_sample()).unwrap(),
        ),
        (
            "Rebuild",
            "`standin rebuild --json`; with `--dry-run`, `ok` of the steps is null, and `problems` says what stands in the way",
            serde_json::to_value(render::rebuild_sample()).unwrap(),
        ),
    ]
}

const JSON_DOC_HEAD: &str = "\
# What `--json` prints

Every verb prints one JSON value to standard output when `--json` is given, and nothing else there.
Fields are added over time, never renamed or removed; read what you know and ignore the rest.
Times are RFC 3339 in UTC, sizes are bytes, spans are seconds (`_s`) or milliseconds (`_ms`).
A value that is not known is `null`.
Roles, nodes and datasets are named by their names; a point by its `name` (time, epoch, sequence) and its `short` form.

This page is made from the values the tests use: `UPDATE_EXPECT=1 cargo test --lib json_doc` writes it anew.
";

#[test]
fn json_doc_shows_what_is_printed() {
    let mut text = JSON_DOC_HEAD.to_owned();
    let all = examples()
        .into_iter()
        .chain(examples_of_paths())
        .chain(browse::examples())
        .chain(of_copies());
    for (heading, printer, value) in all {
        let json = serde_json::to_string_pretty(&value).unwrap();
        text.push_str(&format!(
            "\n## {heading}\n\n{printer}.\n\n```json\n{json}\n```\n"
        ));
    }
    expect_test::expect_file![concat!(env!("CARGO_MANIFEST_DIR"), "/docs/json.md")]
        .assert_eq(&text);
}
