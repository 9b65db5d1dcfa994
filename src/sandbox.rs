//! What a worker process gives up before it touches what a stranger sent: system calls, capabilities, sight of the disk.
//!
//! Promise: nothing that is given up here comes back in this process or its children; each function either takes effect or
//! fails, and a worker that could not give something up does not begin to work.
//!
//! It deliberately does not know what the worker is for: the lists are the callers'.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter};

/// From now on this thread, and the threads and children it starts, may make only these system calls (`libc::SYS_*`); others
/// fail with EPERM. Also sets no_new_privs. Filters add up: a second call can only take more away (seccomp(2)).
pub fn allow_only(calls: &[i64]) -> Result<()> {
    let rules: BTreeMap<i64, Vec<_>> = calls.iter().map(|call| (*call, Vec::new())).collect();
    let arch = std::env::consts::ARCH
        .try_into()
        .context("choose the system call table")?;
    let filter = SeccompFilter::new(
        rules,
        SeccompAction::Errno(rustix::io::Errno::PERM.raw_os_error() as u32),
        SeccompAction::Allow,
        arch,
    );
    let program: BpfProgram = filter
        .context("write the system call filter")?
        .try_into()
        .context("compile the system call filter")?;
    seccompiler::apply_filter(&program).context("install the system call filter")
}

/// A worker does not outlive the daemon that started it, and nobody reads its memory.
pub fn belong_to_parent() -> Result<()> {
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))
        .context("be ended with the parent")?;
    rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable)
        .context("forbid reading this process's memory")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// On a thread of its own: the filter is for the thread that installs it.
    #[test]
    fn what_is_not_allowed_fails() {
        let outcome = std::thread::spawn(|| {
            allow_only(&[
                libc::SYS_futex,
                libc::SYS_exit,
                libc::SYS_munmap,
                libc::SYS_madvise,
                libc::SYS_write,
                libc::SYS_mmap,
                libc::SYS_sigaltstack,
                libc::SYS_rt_sigprocmask,
                libc::SYS_mprotect,
                libc::SYS_brk,
            ])
            .unwrap();
            std::fs::File::open("/etc/passwd")
                .map(drop)
                .map_err(|error| error.kind())
        });
        assert_eq!(
            outcome.join().unwrap(),
            Err(std::io::ErrorKind::PermissionDenied)
        );
    }
}
