//! The clocks of this machine: the one on the wall, and the one that counts since the boot.

use std::time::Duration;

use anyhow::{Context, Result};
use jiff::Timestamp;
use rustix::time::{ClockId, clock_gettime};

use crate::logic::clock::Reading;

/// The kernel's name for this boot (proc_sys_kernel(5)).
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// Time since the boot, sleep included; nobody can set it.
pub fn since_boot() -> Duration {
    let time = clock_gettime(ClockId::Boottime);
    Duration::new(
        time.tv_sec.unsigned_abs(),
        u32::try_from(time.tv_nsec).unwrap_or_default(),
    )
}

/// Both clocks now.
pub fn read() -> Result<Reading> {
    let boot = std::fs::read_to_string(BOOT_ID).with_context(|| format!("read {BOOT_ID}"))?;
    Ok(Reading {
        wall: Timestamp::now(),
        up: since_boot(),
        boot: boot.trim().to_owned(),
    })
}
