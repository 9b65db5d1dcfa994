//! systemd units, where systemd is this machine's first process: units of the test's own in /run, which are removed after it.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use standin::host::{service, systemd};
use standin::logic::play::{Service, Unit};

use crate::{Stage, block, kill, lives, wait};

/// A unit that is gone after the test.
struct Own {
    unit: Unit,
    path: PathBuf,
}

impl Own {
    /// None, and said so, where systemd does not run (sd_booted(3)) or this is not root.
    fn new(test: &str, lines: &str) -> Option<Own> {
        let booted = std::path::Path::new("/run/systemd/system").is_dir();
        if !booted || !rustix::process::geteuid().is_root() {
            // No reason to fail where CI has no systemd either: the virtual machines do.
            println!("SKIPPED {test}: systemd is not here; the suite of virtual machines has it");
            return None;
        }
        let number = standin::host::random::number().unwrap();
        let name = format!("standin-test-{number:x}.service");
        let path = PathBuf::from("/run/systemd/system").join(&name);
        fs::write(&path, format!("[Service]\n{lines}\n")).unwrap();
        systemctl(&["daemon-reload"]);
        Some(Own {
            unit: Unit::parse(&name).unwrap(),
            path,
        })
    }

    fn service(&self) -> Service {
        Service::Unit(self.unit.clone())
    }

    fn main_pid(&self) -> u32 {
        block(systemd::show(&self.unit)).unwrap().main_pid
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        systemctl(&["kill", "--signal=SIGKILL", self.unit.as_str()]);
        let _ = fs::remove_file(&self.path);
        systemctl(&["reset-failed", self.unit.as_str()]);
        systemctl(&["daemon-reload"]);
    }
}

fn systemctl(words: &[&str]) {
    let _ = std::process::Command::new("systemctl")
        .args(words)
        .output()
        .unwrap();
}

#[test]
fn a_unit_starts_runs_and_stops() {
    let test = "a_unit_starts_runs_and_stops";
    let Some(own) = Own::new(test, "ExecStart=/bin/sleep 1000") else {
        return;
    };
    let stage = Stage::set();
    let (unit, around) = (own.service(), &stage.around);
    assert!(!block(service::runs(&unit, around)).unwrap());
    block(service::start(&unit, around)).unwrap();
    assert!(block(service::runs(&unit, around)).unwrap());
    let pid = own.main_pid();
    assert!(lives(pid));
    block(service::start(&unit, around)).unwrap();
    assert_eq!(own.main_pid(), pid);
    for _ in 0..2 {
        block(service::stop(&unit, around, false)).unwrap();
        assert!(!lives(pid));
        assert!(!block(service::runs(&unit, around)).unwrap());
    }
}

#[test]
fn a_unit_that_is_deaf_is_killed_when_it_is_urgent() {
    let test = "a_unit_that_is_deaf_is_killed_when_it_is_urgent";
    let deaf = "ExecStart=/bin/sh -c 'trap \"\" TERM; while :; do sleep 1; done'\nTimeoutStopSec=infinity\nRestart=always";
    let Some(own) = Own::new(test, deaf) else {
        return;
    };
    let stage = Stage::set();
    block(service::start(&own.service(), &stage.around)).unwrap();
    let pid = own.main_pid();
    let began = Instant::now();
    let said = block(service::stop(&own.service(), &stage.around, true)).unwrap();
    assert!(said.output.contains("was killed"), "{said:?}");
    assert!(!lives(pid));
    assert!(began.elapsed() < Duration::from_secs(20));
}

#[test]
fn a_unit_that_leaves_a_process_has_not_stopped() {
    let test = "a_unit_that_leaves_a_process_has_not_stopped";
    let lines = "ExecStart=/bin/sh -c 'sleep 1000 & echo $$! > /run/standin-test-left; wait'\nKillMode=process";
    let Some(own) = Own::new(test, lines) else {
        return;
    };
    let stage = Stage::set();
    block(service::start(&own.service(), &stage.around)).unwrap();
    let left: u32 = wait("the pid", || {
        fs::read_to_string("/run/standin-test-left")
            .ok()?
            .trim()
            .parse()
            .ok()
    });
    let error = block(service::stop(&own.service(), &stage.around, false)).unwrap_err();
    assert!(
        format!("{error:#}").contains(&left.to_string()),
        "{error:#}"
    );
    kill(left);
    block(service::stop(&own.service(), &stage.around, false)).unwrap();
    fs::remove_file("/run/standin-test-left").unwrap();
}

#[test]
fn a_unit_that_fails_says_why() {
    let check = |lines: &str, says: &[&str]| {
        let Some(own) = Own::new("a_unit_that_fails_says_why", lines) else {
            return;
        };
        let stage = Stage::set();
        let error = block(service::start(&own.service(), &stage.around)).unwrap_err();
        let error = format!("{error:#}");
        for word in says {
            assert!(error.contains(word), "{word:?} is not in {error}");
        }
        block(service::stop(&own.service(), &stage.around, false)).unwrap();
    };
    check(
        "Type=oneshot\nExecStart=/bin/false",
        &["start service standin-test", "failed", "exit-code"],
    );
    check(
        "Type=oneshot\nExecStart=/bin/true",
        &["see it run: it is inactive"],
    );
    check("ExecStart=nonsense", &["see it run"]);
}
