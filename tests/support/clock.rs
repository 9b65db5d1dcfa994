//! A wall clock of its own for a daemon: libfaketime, preloaded, reads from a file how far it is from the real one.
//!
//! Promise: only the wall clock is changed; monotonic clocks, timers and the times of files stay real, as when somebody sets
//! the clock of a machine. It can be stepped while the daemon runs.

use std::path::{Path, PathBuf};

use jiff::Timestamp;

/// Where Debian's package `libfaketime` puts it, on the machines we test on.
const LIBRARIES: [&str; 2] = [
    "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1",
    "/usr/lib/aarch64-linux-gnu/faketime/libfaketime.so.1",
];

#[derive(Debug)]
pub struct Clock {
    file: PathBuf,
    zone: &'static str,
}

fn library() -> Option<&'static str> {
    LIBRARIES.into_iter().find(|path| Path::new(path).exists())
}

/// As `fixture::ready`, and libfaketime.
pub fn ready(test: &str) -> bool {
    if !super::fixture::ready(test) {
        return false;
    }
    if library().is_none() {
        println!("SKIPPED {test}: no libfaketime");
        assert!(
            std::env::var_os("CI").is_none(),
            "{test} skipped in CI: no libfaketime"
        );
    }
    library().is_some()
}

impl Clock {
    /// A clock that is right, in a zone as POSIX writes it (`CET-1CEST,M3.5.0,M10.5.0/3`); its file lies in `dir`.
    pub fn new(dir: &Path, zone: &'static str) -> Clock {
        let clock = Clock {
            file: dir.join("clock"),
            zone,
        };
        clock.shift(0);
        clock
    }

    /// The environment of a daemon that lives by this clock.
    pub fn env(&self) -> Vec<(&str, &str)> {
        vec![
            ("LD_PRELOAD", library().unwrap()),
            ("FAKETIME_TIMESTAMP_FILE", self.file.to_str().unwrap()),
            ("FAKETIME_NO_CACHE", "1"),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
            ("NO_FAKE_STAT", "1"),
            ("TZ", self.zone),
        ]
    }

    /// From now on it is so many seconds ahead of the real one.
    pub fn shift(&self, seconds: i64) {
        let fresh = self.file.with_extension("new");
        std::fs::write(&fresh, format!("{seconds:+}\n")).unwrap();
        // A reader sees the old file or the new one, never half of one.
        std::fs::rename(&fresh, &self.file).unwrap();
    }

    /// From now on it goes on from this time (to the second).
    pub fn set(&self, time: &str) {
        let time: Timestamp = time.parse().unwrap();
        self.shift(time.as_second() - Timestamp::now().as_second());
    }
}
