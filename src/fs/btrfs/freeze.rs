//! Named places at which a process stops itself, so that a test can cut the power exactly there.
//!
//! Promise: nothing at all in a release build, and nothing in a debug build unless the environment names the place:
//! `STANDIN_FREEZE=checkpoint-state-written`.

/// Stops the process here (SIGSTOP) when this place is named.
pub(super) fn freeze(place: &str) {
    if cfg!(debug_assertions) && std::env::var_os("STANDIN_FREEZE").is_some_and(|at| at == place) {
        tracing::warn!(place, "frozen");
        let stopped =
            rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::STOP);
        if let Err(error) = stopped {
            tracing::warn!(place, %error, "cannot freeze");
        }
        // Another thread may take the signal: this one must not run on until the stop has reached it.
        std::thread::park_timeout(std::time::Duration::from_secs(1));
    }
}
