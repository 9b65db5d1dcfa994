//! What a link's worker gives up: new files, sockets, processes, and more than so much of everything.
//!
//! Promise: after [`carrying`], which comes before the first byte of a peer is read, the worker can use the descriptors it
//! has and those the daemon sends, memory, and the clock; nothing else of this machine.

use anyhow::{Context, Result};
use rustix::process::{Resource, Rlimit, setrlimit};

use crate::sandbox::allow_only;

/// Memory a worker may write to, in bytes: about twice what it needs when every exchange is open and unpacks with the largest
/// window (12 x 8 MiB) while all receive windows are full (16 MiB).
const DATA_BYTES: u64 = 256 << 20;

/// Descriptors: the exchanges of both sides (20) and a dozen of its own.
const FILES: u64 = 64;

/// What an open link needs.
const CARRYING: &[i64] = &[
    // the descriptors it has
    libc::SYS_read,
    libc::SYS_write,
    libc::SYS_readv,
    libc::SYS_writev,
    libc::SYS_recvfrom,
    libc::SYS_sendto,
    libc::SYS_recvmsg,
    libc::SYS_sendmsg,
    libc::SYS_shutdown,
    libc::SYS_close,
    libc::SYS_fcntl,
    // waiting
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    libc::SYS_epoll_pwait2,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_epoll_wait,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_poll,
    libc::SYS_ppoll,
    libc::SYS_futex,
    libc::SYS_sched_yield,
    libc::SYS_nanosleep,
    libc::SYS_clock_nanosleep,
    libc::SYS_restart_syscall,
    // memory
    libc::SYS_mmap,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_mprotect,
    libc::SYS_madvise,
    libc::SYS_brk,
    // the clock, and random numbers
    libc::SYS_clock_gettime,
    libc::SYS_gettimeofday,
    libc::SYS_getrandom,
    // its own end
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigreturn,
    libc::SYS_sigaltstack,
    libc::SYS_getpid,
    libc::SYS_gettid,
    libc::SYS_tgkill,
    libc::SYS_exit,
    libc::SYS_exit_group,
];

/// What resolving a name and connecting need besides: the resolver's files and sockets, and a thread. Nothing is written,
/// started or changed.
const REACHING: &[i64] = &[
    libc::SYS_openat,
    libc::SYS_fstat,
    libc::SYS_newfstatat,
    libc::SYS_statx,
    libc::SYS_fstatfs,
    libc::SYS_statfs,
    libc::SYS_faccessat,
    libc::SYS_faccessat2,
    libc::SYS_readlinkat,
    libc::SYS_getdents64,
    libc::SYS_lseek,
    libc::SYS_pread64,
    libc::SYS_getcwd,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_open,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_stat,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_lstat,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_access,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_readlink,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_pipe,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_time,
    libc::SYS_socket,
    libc::SYS_socketpair,
    libc::SYS_connect,
    libc::SYS_bind,
    libc::SYS_getsockname,
    libc::SYS_getpeername,
    libc::SYS_getsockopt,
    libc::SYS_setsockopt,
    libc::SYS_sendmmsg,
    libc::SYS_recvmmsg,
    libc::SYS_ioctl,
    libc::SYS_dup,
    libc::SYS_dup3,
    libc::SYS_pipe2,
    libc::SYS_eventfd2,
    libc::SYS_epoll_create1,
    libc::SYS_timerfd_create,
    libc::SYS_timerfd_settime,
    libc::SYS_pselect6,
    libc::SYS_clone,
    libc::SYS_clone3,
    libc::SYS_set_robust_list,
    libc::SYS_set_tid_address,
    libc::SYS_rseq,
    libc::SYS_sched_getaffinity,
    libc::SYS_prlimit64,
    libc::SYS_clock_getres,
    libc::SYS_uname,
    libc::SYS_sysinfo,
    libc::SYS_getuid,
    libc::SYS_geteuid,
    libc::SYS_getgid,
    libc::SYS_getegid,
    libc::SYS_getppid,
    // the second stage
    libc::SYS_prctl,
    libc::SYS_seccomp,
];

/// At the start of a worker.
pub(super) fn limits() -> Result<()> {
    crate::sandbox::belong_to_parent()?;
    limit(Resource::Core, 0)?;
    limit(Resource::Nofile, FILES)?;
    limit(Resource::Data, DATA_BYTES)
}

/// Before a name is resolved.
pub(super) fn reaching() -> Result<()> {
    allow_only(&[CARRYING, REACHING].concat())
}

/// Before the first byte of a peer is read; there must be one thread only.
pub(super) fn carrying() -> Result<()> {
    limit(Resource::Nproc, 0)?;
    limit(Resource::Fsize, 0)?;
    allow_only(CARRYING)
}

fn limit(resource: Resource, most: u64) -> Result<()> {
    let limit = Rlimit {
        current: Some(most),
        maximum: Some(most),
    };
    setrlimit(resource, limit).with_context(|| format!("limit {resource:?} of a link's worker"))
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind::PermissionDenied;

    use super::*;

    /// On a thread of its own, since the filter is for the thread that installs it.
    fn check(calls: Vec<i64>, attempt: fn() -> std::io::Result<()>, allowed: bool) {
        let outcome = std::thread::spawn(move || {
            allow_only(&calls).unwrap();
            attempt().map_err(|error| error.kind())
        });
        let refused = outcome.join().unwrap() == Err(PermissionDenied);
        assert_eq!(refused, !allowed);
    }

    #[test]
    fn a_worker_with_a_peer_opens_and_starts_nothing() {
        let attempts: [fn() -> std::io::Result<()>; 4] = [
            || std::fs::File::open("/etc/passwd").map(drop),
            || std::fs::read_dir("/").map(drop),
            || std::net::UdpSocket::bind("127.0.0.1:0").map(drop),
            || std::os::unix::net::UnixStream::pair().map(drop),
        ];
        for attempt in attempts {
            check(CARRYING.to_vec(), attempt, false);
        }
    }

    #[test]
    fn a_worker_that_dials_may_look_up_a_name_and_change_nothing() {
        let reaching = || [CARRYING, REACHING].concat();
        check(
            reaching(),
            || std::fs::File::open("/etc/passwd").map(drop),
            true,
        );
        let refused: [fn() -> std::io::Result<()>; 3] = [
            || std::fs::remove_file("/nonexistent/file"),
            || std::fs::create_dir("/nonexistent/directory"),
            || std::os::unix::fs::chown("/nonexistent/file", Some(0), None),
        ];
        for attempt in refused {
            check(reaching(), attempt, false);
        }
    }
}
