//! Two machines that were booted, installed and paired once, and lie in files: a scenario wakes them in seconds.
//!
//! Promise: each scenario has disks of its own over these, which nobody writes to any more; the clocks of machines that sleep
//! stand still, so theirs are behind by as long as they slept, all by the same. A scenario that is about booting boots.
//! Kept for as long as this process lives, and longer where a scenario that failed has disks over these.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use jiff::Timestamp;
use tempfile::TempDir;

use super::machine::STATE;
use super::{Kind, MACHINES, Start};
use crate::image::Image;
use crate::nodes;
use crate::run::say;
use crate::stage::Stage;
use crate::{Given, Play, Scenario};

/// As the scenarios find them.
static SAVED: Mutex<Option<(Kind, Arc<Saved>)>> = Mutex::new(None);

pub struct Saved {
    dir: Option<TempDir>,
    /// What their clocks show.
    pub when: Timestamp,
    wanted: AtomicBool,
}

impl Saved {
    /// Those of this process; made at the first call for a kind, which is that of the calls that follow.
    pub fn get(image: &Image, kind: Kind, given: Given) -> Arc<Saved> {
        let mut saved = SAVED.lock().unwrap_or_else(|broken| broken.into_inner());
        match saved.as_ref() {
            Some((of, made)) if *of == kind => Arc::clone(made),
            _ => {
                // Room first: they have all their memory in files.
                *saved = None;
                let made = Arc::new(make(image, kind, given));
                *saved = Some((kind, Arc::clone(&made)));
                made
            }
        }
    }

    pub fn file(&self, name: &str, what: &str) -> PathBuf {
        self.path().join(format!("{name}.{what}"))
    }

    pub fn path(&self) -> PathBuf {
        let dir = self.dir.as_ref().expect("there until it is dropped");
        dir.path().to_owned()
    }

    /// Somebody has disks over these that a person may want to look at.
    pub fn keep(&self) {
        self.wanted.store(true, Ordering::Relaxed);
    }
}

/// At the end of the process.
pub fn forget() {
    let mut saved = SAVED.lock().unwrap_or_else(|broken| broken.into_inner());
    *saved = None;
}

impl Drop for Saved {
    fn drop(&mut self) {
        if self.wanted.load(Ordering::Relaxed)
            && let Some(dir) = self.dir.take()
        {
            let dir = dir.keep();
            for name in MACHINES {
                let _ = std::fs::remove_file(dir.join(format!("{name}.{STATE}")));
            }
        }
    }
}

/// Not played for itself.
const PREPARED: Scenario = Scenario {
    name: "(two machines for all)",
    about: "",
    machines: &MACHINES,
    disks: 1,
    tests: &[],
    start: Start::Off,
    kinds: Kind::ALL,
    play: nodes::prepare,
};

fn make(image: &Image, kind: Kind, given: Given) -> Saved {
    let began = Instant::now();
    let play = Play {
        scenario: &PREPARED,
        kind,
    };
    let mut stage = Stage::set(image, play, given);
    (PREPARED.play)(&mut stage);
    let (dir, when) = stage.save();
    say(format!(
        "two machines with {kind:?} stand ready, {} s",
        began.elapsed().as_secs()
    ));
    Saved {
        dir: Some(dir),
        when,
        wanted: AtomicBool::new(false),
    }
}
