//! Signals that are sent when a transfer has come to a byte, or a moment after it: so also while nothing moves, when what came
//! is finished, published, pruned.
//!
//! A signal reaches the very process it was meant for (pidfd), or nobody; what was recalled is not sent any more.

use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use crate::support::cluster::PATIENCE;
use crate::support::proxy::{Proxy, Way};

#[derive(Default)]
struct Flight {
    /// Of the newest shot; older ones are recalled.
    number: u64,
    hit: Vec<u32>,
}

#[derive(Clone, Default)]
pub struct Shots(Arc<Mutex<Flight>>);

/// What is to be sent.
pub struct Shot {
    pub signal: Signal,
    pub pids: Vec<u32>,
    /// After the byte.
    pub delay: Duration,
}

impl Shots {
    fn flight(&self) -> std::sync::MutexGuard<'_, Flight> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends when so many more bytes have gone that way, and says so in `fired`.
    pub fn arm(&self, link: &Proxy, (way, bytes): (Way, u64), shot: Shot, fired: &Arc<AtomicBool>) {
        let number = {
            let mut flight = self.flight();
            flight.number += 1;
            flight.number
        };
        let open = |pid: &u32| {
            let process = Pid::from_raw(*pid as i32)?;
            Some((*pid, pidfd_open(process, PidfdFlags::empty()).ok()?))
        };
        let targets: Vec<(u32, OwnedFd)> = shot.pids.iter().filter_map(open).collect();
        let (shots, fired) = (self.clone(), fired.clone());
        let send = move || {
            let mut flight = shots.flight();
            if flight.number != number {
                return;
            }
            for (pid, process) in targets {
                if pidfd_send_signal(&process, shot.signal).is_ok() {
                    flight.hit.push(pid);
                    fired.store(true, Ordering::SeqCst);
                }
            }
        };
        link.after(way, bytes, move || {
            if shot.delay.is_zero() {
                return send();
            }
            std::thread::spawn(move || {
                let begun = Instant::now();
                while begun.elapsed() < shot.delay {
                    std::thread::park_timeout(shot.delay);
                }
                send();
            });
        });
    }

    /// Nothing is sent any more; waits until those who were hit have fallen. How many there were.
    pub fn recall(&self, link: &Proxy) -> Result<usize, String> {
        link.disarm();
        let hit = {
            let mut flight = self.flight();
            flight.number += 1;
            std::mem::take(&mut flight.hit)
        };
        let begun = Instant::now();
        while let Some(pid) = hit.iter().find(|pid| stands(**pid)) {
            if begun.elapsed() > PATIENCE {
                return Err(format!("a signal does not end process {pid}"));
            }
            std::thread::park_timeout(Duration::from_millis(2));
        }
        Ok(hit.len())
    }
}

/// Neither gone, nor dead, nor stopped at a named place.
fn stands(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat.rsplit(") ").next().unwrap_or_default();
    !state.is_empty() && !state.starts_with(['Z', 'X', 'T'])
}
