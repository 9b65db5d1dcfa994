//! Looks all the time whether two nodes run the service at one moment.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(2);

#[derive(Default)]
struct Seen {
    over: AtomicBool,
    /// Somebody lied: two may run.
    muted: AtomicBool,
    looks: AtomicU64,
    twice: Mutex<Vec<String>>,
}

pub struct Watch {
    homes: Vec<(&'static str, PathBuf)>,
    seen: Arc<Seen>,
}

impl Watch {
    /// The nodes, and where the service of each notes its number.
    pub fn over(homes: Vec<(&'static str, PathBuf)>) -> Watch {
        let seen = Arc::new(Seen::default());
        let (all, shared) = (homes.clone(), seen.clone());
        std::thread::spawn(move || {
            while !shared.over.load(SeqCst) {
                look(&all, &shared);
                std::thread::park_timeout(LOOK_EVERY);
            }
        });
        Watch { homes, seen }
    }

    pub fn mute(&self, muted: bool) {
        self.seen.muted.store(muted, SeqCst);
    }

    pub fn looks(&self) -> u64 {
        self.seen.looks.load(SeqCst)
    }

    /// Moments at which two ran.
    pub fn twice(&self) -> Vec<String> {
        self.seen.twice.lock().unwrap().clone()
    }

    /// Whether the service of a node runs now.
    pub fn runs(&self, name: &str) -> bool {
        let found = self.homes.iter().find(|(node, _)| *node == name);
        found.is_some_and(|(_, home)| running(home).is_some())
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.seen.over.store(true, SeqCst);
    }
}

fn look(homes: &[(&'static str, PathBuf)], seen: &Seen) {
    let first: Vec<_> = homes.iter().map(|(_, home)| running(home)).collect();
    // Who ran before the last look and runs after it ran all the time between.
    let again = homes.iter().map(|(_, home)| running(home));
    let lasting = first.iter().zip(again).zip(homes);
    let lasting = lasting.filter(|((before, after), _)| before.is_some() && *before == after);
    let names: Vec<&str> = lasting.map(|(_, (name, _))| *name).collect();
    seen.looks.fetch_add(1, SeqCst);
    if names.len() > 1 && !seen.muted.load(SeqCst) {
        seen.twice.lock().unwrap().push(names.join(" and "));
    }
}

/// The number of the service, when it lives.
fn running(home: &Path) -> Option<u32> {
    let pid: u32 = fs::read_to_string(home.join("pid"))
        .ok()?
        .trim()
        .parse()
        .ok()?;
    let words = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let ours = String::from_utf8_lossy(&words).contains(home.to_str()?);
    ours.then_some(pid)
}
