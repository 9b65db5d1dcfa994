//! What a worker process gives up before it touches what a stranger sent: system calls, capabilities, sight of the disk.
//!
//! Promise: nothing that is given up here comes back in this process or its children; each function either takes effect or
//! fails, and a worker that could not give something up does not begin to work.
//!
//! It deliberately does not know what the worker is for: the lists are the callers'.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;

use anyhow::{Context, Result, bail};
use rustix::mount::{MountPropagationFlags, MoveMountFlags, UnmountFlags};
use rustix::process::{Resource, Rlimit};
use rustix::thread::{CapabilitySet, CapabilitySets};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule,
};

/// A system call that is allowed only where the low 32 bits of one argument are right.
#[derive(Debug, Clone, Copy)]
pub struct Narrow {
    /// `libc::SYS_*`
    pub call: i64,
    /// Which argument, from 0.
    pub argument: u8,
    /// Bits that are looked at.
    pub mask: u32,
    /// What they must be.
    pub value: u32,
}

/// From now on this thread, and the threads and children it starts, may make only these system calls (`libc::SYS_*`); others
/// fail with EPERM. Also sets no_new_privs. Filters add up: a second call can only take more away (seccomp(2)).
pub fn allow_only(calls: &[i64]) -> Result<()> {
    allow_only_narrow(calls, &[])
}

/// The same, and these calls with right arguments: one of several for the same call is enough.
pub fn allow_only_narrow(calls: &[i64], narrow: &[Narrow]) -> Result<()> {
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> =
        calls.iter().map(|call| (*call, Vec::new())).collect();
    for only in narrow {
        let condition = SeccompCondition::new(
            only.argument,
            SeccompCmpArgLen::Dword,
            SeccompCmpOp::MaskedEq(u64::from(only.mask)),
            u64::from(only.value),
        );
        let rule = condition.and_then(|condition| SeccompRule::new(vec![condition]));
        let rule = rule.context("write the system call filter")?;
        rules.entry(only.call).or_default().push(rule);
    }
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

/// Keeps these capabilities and gives up all others for good: from every set, the bounding and the ambient one included.
/// Takes CAP_SETPCAP. Threads started before keep theirs.
pub fn keep_capabilities(kept: CapabilitySet) -> Result<()> {
    // Numbers the kernel does not know end the list (capabilities(7): CAP_LAST_CAP).
    for number in 0..u64::BITS {
        let one = CapabilitySet::from_bits_retain(1 << number);
        match rustix::thread::capability_is_in_bounding_set(one) {
            Ok(true) if !kept.contains(one) => {
                rustix::thread::remove_capability_from_bounding_set(one)
                    .with_context(|| format!("give up capability {number} for good"))?;
            }
            Ok(_) => {}
            Err(_) => break,
        }
    }
    rustix::thread::clear_ambient_capability_set().context("empty the ambient capabilities")?;
    let sets = CapabilitySets {
        effective: kept,
        permitted: kept,
        inheritable: CapabilitySet::empty(),
    };
    rustix::thread::set_capabilities(None, sets).context("give up capabilities")
}

/// Makes `mount` (detached: of fsmount(2) or open_tree(2)) the root and the whole of what this thread sees. It has a mount namespace of its own already; one that it shares with its parent is refused.
pub fn see_only(mount: OwnedFd) -> Result<()> {
    let namespace = |process: &str| std::fs::read_link(format!("/proc/{process}/ns/mnt"));
    let parent = rustix::process::getppid().context("find the parent")?;
    let ours = namespace("thread-self").context("look at the mount namespace")?;
    // A parent that nobody may look into cannot be compared with; this guards against our own mistakes only.
    if namespace(&parent.as_raw_nonzero().to_string()).is_ok_and(|theirs| theirs == ours) {
        bail!("change mounts: the mount namespace is the parent's");
    }
    let alone = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    rustix::mount::mount_change("/", alone).context("keep mounts to ourselves")?;
    let empty_path = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    rustix::mount::move_mount(&mount, "", rustix::fs::CWD, "/", empty_path)
        .context("attach the only mount")?;
    rustix::process::fchdir(&mount).context("enter the only mount")?;
    // The old root ends up on top of the new one, and goes (pivot_root(2)).
    rustix::process::pivot_root(".", ".").context("make it the root")?;
    rustix::mount::unmount(".", UnmountFlags::DETACH).context("let go of all other mounts")?;
    rustix::process::chdir("/").context("enter the root")
}

/// Sets both limits; neither can be raised again without CAP_SYS_RESOURCE.
pub fn limit(resource: Resource, most: u64) -> Result<()> {
    let limit = Rlimit {
        current: Some(most),
        maximum: Some(most),
    };
    rustix::process::setrlimit(resource, limit).with_context(|| format!("limit {resource:?}"))
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
