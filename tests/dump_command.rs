//! Dumps by commands: what they start ends with them, and writers are let go after that.
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::print_stderr)]

use std::fs;
use std::path::Path;
use std::time::Duration;

use standin::host::command::Surroundings;
use standin::host::dump::{Around, Loading, Open, load};
use standin::logic::dump::{Commands, Dump, How, Load, Policy};
use standin::logic::name::{NodeName, RoleName};
use support::cluster::wait;

mod support;

fn around(dir: &Path) -> Around {
    Around {
        surroundings: Surroundings {
            role: RoleName::parse("web").unwrap(),
            node: NodeName::parse("alder").unwrap(),
            term: Some(1),
            output: dir.to_owned(),
        },
        datasets: [].into(),
        copies: [].into(),
    }
}

/// A shell command in a directory; `$$` is noted, with a process that it starts in a session of its own.
fn shell(dir: &Path, word: &str, more: &str) -> Option<Vec<String>> {
    let text = format!("cd {}; echo {word} >> diary; {more}", dir.display());
    Some(["sh", "-c", &text].map(str::to_owned).to_vec())
}

/// Takes long, and has started something that would go on.
const LONG: &str =
    "setsid sleep 1000 & echo $! > child; echo $$ > pid; sleep 1000; echo too-late >> diary";

fn dump(commands: Commands) -> Dump {
    Dump {
        name: RoleName::parse("ledger").unwrap(),
        policy: Policy::Required,
        timeout: Duration::from_secs(20),
        hold: Duration::from_secs(20),
        load: Load::Empty,
        drill: None,
        how: How::Command(commands),
    }
}

fn diary(dir: &Path) -> Vec<String> {
    let text = fs::read_to_string(dir.join("diary")).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

/// Of a process whose number is in a file; none before that is there.
fn runs(dir: &Path, file: &str) -> Option<bool> {
    let pid: u32 = fs::read_to_string(dir.join(file))
        .ok()?
        .trim()
        .parse()
        .ok()?;
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"));
    Some(stat.is_ok_and(|stat| !stat.contains(") Z ")))
}

fn both_run(dir: &Path) -> bool {
    runs(dir, "pid") == Some(true) && runs(dir, "child") == Some(true)
}

fn both_ended(dir: &Path) -> bool {
    runs(dir, "pid") == Some(false) && runs(dir, "child") == Some(false)
}

/// Takes the step until both processes run, and drops it then.
async fn cut<T>(dir: &Path, step: impl Future<Output = T>) {
    let begun = async {
        while !both_run(dir) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::select! {
        _ = step => panic!("it ended by itself"),
        () = begun => {}
    }
}

fn runtime() -> tokio::runtime::Runtime {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder.worker_threads(1).enable_all().build().unwrap()
}

#[test]
fn a_dump_that_is_dropped_ends() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let dump = dump(Commands {
        dump: shell(dir, "dump", LONG),
        ..Commands::default()
    });
    runtime().block_on(async {
        let mut open = Open::new(&dump, &around(dir));
        cut(dir, open.prepare()).await;
        open.finish().await.unwrap();
        assert!(both_ended(dir));
    });
    assert_eq!(diary(dir), ["dump"]);
}

#[test]
fn thaw_runs_after_a_freeze_that_was_dropped_has_ended() {
    // Whether it obeys SIGTERM or not.
    for stubborn in ["", "trap '' TERM; "] {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        let look = "kill -0 $(cat pid) 2>/dev/null && echo still-freezing >> diary; true";
        let dump = dump(Commands {
            freeze: shell(dir, "freeze", &format!("{stubborn}{LONG}")),
            thaw: shell(dir, "thaw", look),
            ..Commands::default()
        });
        runtime().block_on(async {
            let mut open = Open::new(&dump, &around(dir));
            open.prepare().await.unwrap();
            cut(dir, open.hold()).await;
            open.release().await.unwrap();
            open.finish().await.unwrap();
            assert!(both_ended(dir));
        });
        assert_eq!(diary(dir), ["freeze", "thaw"]);
    }
}

#[test]
fn thaw_runs_once_and_after_a_freeze_that_failed() {
    let check = |freeze: &str, good: bool| {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        let dump = dump(Commands {
            freeze: shell(dir, "freeze", freeze),
            thaw: shell(dir, "thaw", "echo $STANDIN_MOMENT >> diary"),
            ..Commands::default()
        });
        runtime().block_on(async {
            let mut open = Open::new(&dump, &around(dir));
            assert!(open.holds() && open.unattended());
            open.prepare().await.unwrap();
            assert_eq!(open.hold().await.is_ok(), good);
            open.release().await.unwrap();
            open.finish().await.unwrap();
        });
        assert_eq!(diary(dir), ["freeze", "thaw", "thaw"]);
    };
    check("true", true);
    check("exit 3", false);
    // What it leaves running when it ends well is meant to run.
    check("sleep 0.2 &", true);
}

#[test]
fn a_load_that_is_dropped_ends() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let dump = dump(Commands {
        dump: shell(dir, "dump", "true"),
        load: shell(dir, "load", LONG),
        ..Commands::default()
    });
    runtime().block_on(async {
        let how = Loading {
            replace: false,
            server: None,
        };
        let around = around(dir);
        cut(dir, load(&dump, &around, how)).await;
        let gone = tokio::task::block_in_place(|| wait(|| both_ended(dir)));
        assert!(gone);
    });
    assert_eq!(diary(dir), ["load"]);
}
