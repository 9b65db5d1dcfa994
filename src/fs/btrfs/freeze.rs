//! Named places at which a process stops itself, so that a test can cut the power exactly there.
//!
//! Promise: nothing at all in a release build, and nothing in a debug build unless the environment names the place:
//! `STANDIN_FREEZE=checkpoint-state-written`, or `STANDIN_FREEZE=checkpoint-state-written:3` for the third time it is reached.
//!
//! The daemon has places of its own, around what it writes into the state database.

use std::sync::atomic::{AtomicU64, Ordering};

/// How often the named place was reached.
static REACHED: AtomicU64 = AtomicU64::new(0);

/// Stops the process here (SIGSTOP) when this place is named.
pub(crate) fn freeze(place: &str) {
    if cfg!(debug_assertions) && is_named(place) {
        tracing::warn!(place, "frozen");
        let stopped =
            rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::STOP);
        if let Err(error) = stopped {
            tracing::warn!(place, %error, "cannot freeze");
        }
        // Another thread may take the signal: this one must not run on until the stop has reached it. Not parked: the end of a
        // scope of threads may have left a wake-up behind, and whatever the test had stopped here would be over.
        std::thread::sleep(std::time::Duration::from_secs(1));
    }
}

fn is_named(place: &str) -> bool {
    let Ok(named) = std::env::var("STANDIN_FREEZE") else {
        return false;
    };
    let (name, time) = named.split_once(':').unwrap_or((&named, "1"));
    name == place && time.parse() == Ok(REACHED.fetch_add(1, Ordering::Relaxed) + 1)
}
