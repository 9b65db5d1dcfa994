//! What moves with a role besides data, on this machine: real processes, a real btrfs, a network of namespaces.
//!
//! Nothing here touches the machine's own services, addresses or rules: commands are scripts in a temporary directory, links
//! are veth pairs in network namespaces that end with the test.
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::print_stderr)]

mod commands;
mod network;
mod ports;
mod services;
#[path = "../support/mod.rs"]
mod support;
mod units;
mod writers;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use standin::host::command::Surroundings;
use standin::logic::name::{NodeName, RoleName};

/// Longest wait for any condition.
const PATIENCE: Duration = Duration::from_secs(30);

/// A directory with scripts, and what commands find around them.
pub struct Stage {
    pub dir: tempfile::TempDir,
    pub around: Surroundings,
}

impl Stage {
    pub fn set() -> Stage {
        let dir = tempfile::tempdir().unwrap();
        let around = Surroundings {
            role: RoleName::parse("web").unwrap(),
            // Of this stage alone: marks of two tests at once must differ.
            node: NodeName::parse(&format!("n{:x}", standin::host::random::number().unwrap()))
                .unwrap(),
            term: Some(7),
            output: dir.path().join("output"),
        };
        Stage { dir, around }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Writes a shell script; DIR in it is the stage's directory. Its path as an argument vector.
    pub fn script(&self, name: &str, text: &str) -> Vec<String> {
        let dir = self.dir.path().to_str().unwrap();
        let path = self.path(name);
        // Through a rename: a script that is open for writing cannot be executed, by other threads' children either.
        let fresh = self.path(&format!("{name}.new"));
        fs::write(&fresh, format!("#!/bin/sh\n{}\n", text.replace("DIR", dir))).unwrap();
        fs::set_permissions(&fresh, fs::Permissions::from_mode(0o755)).unwrap();
        fs::rename(&fresh, &path).unwrap();
        vec![path.to_str().unwrap().to_owned()]
    }

    /// The number that a script wrote into a file, once it is whole.
    pub fn pid(&self, name: &str) -> u32 {
        let path = self.path(name);
        wait(name, || {
            let text = fs::read_to_string(&path).ok()?;
            text.strip_suffix('\n')?.parse().ok()
        })
    }
}

/// Runs what is async to its end, on this thread: children start in its namespaces.
pub fn block<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    runtime.unwrap().block_on(work)
}

/// Asks until there is an answer.
#[track_caller]
pub fn wait<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(Instant::now() < end, "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Whether a process is there and has not ended.
pub fn lives(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat
        .rsplit(')')
        .next()
        .unwrap_or_default()
        .trim()
        .chars()
        .next();
    state.is_some_and(|state| state != 'Z' && state != 'X')
}

pub fn kill(pid: u32) {
    let pid = rustix::process::Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
}

/// A test that this machine cannot run says so, and fails in CI.
pub fn skipped(test: &str, why: &str) {
    println!("SKIPPED {test}: {why}");
    assert!(
        std::env::var_os("CI").is_none(),
        "{test} skipped in CI: {why}"
    );
}

pub fn has(program: &str) -> bool {
    standin::host::command::find(program).is_some()
}
