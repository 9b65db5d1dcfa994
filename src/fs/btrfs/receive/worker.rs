//! The worker: a process that holds one engine, and little else (P7).
//!
//! Promise: before the first byte of a stream is read it has given up everything but what applying takes: it sees the tree
//! it works on and nothing else of the disk, keeps the capabilities of [`KEPT`], makes the system calls of [`CALLS`], has no
//! descriptor but the wire, its log and the tree, and ends with the daemon. What it lacks it asks the daemon for (`wire`).
//! One that could not give something up says so and does not begin.
//!
//! A crash leaves the tree inside a command; the daemon throws it away. It deliberately does not know paths of this machine,
//! checkpoints or peers.
#![allow(unsafe_code)]

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result};
use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;
use rustix::process::Resource;
use rustix::thread::{CapabilitySet, UnshareFlags};
use uuid::Uuid;

use super::super::apply::outside::Outside;
use super::super::apply::tree::{Tree, room};
use super::super::apply::{Applied, Fault, ioctl};
use super::engine::{Engine, Start, Trouble};
use super::wire::{Ask, Given, Kind, TO_WORKER_BYTES_MAX, Wire, read};
use crate::error::{Code, Failure};
use crate::logic::prefix::hex;
use crate::sandbox::{self, Narrow};

/// What applying takes: any owner, any file whatever its mode, set-user-ID bits, device nodes, file capabilities, and the
/// immutable and append-only flags.
pub const KEPT: CapabilitySet = CapabilitySet::CHOWN
    .union(CapabilitySet::DAC_OVERRIDE)
    .union(CapabilitySet::FOWNER)
    .union(CapabilitySet::FSETID)
    .union(CapabilitySet::MKNOD)
    .union(CapabilitySet::SETFCAP)
    .union(CapabilitySet::LINUX_IMMUTABLE);

/// Address space, in bytes. A stream is applied in a fraction of it (docs/measurements.md).
const MEMORY_BYTES_MAX: u64 = 1 << 30;

/// The system calls of a receive, by what they are for; measured with strace (docs/decisions on the applier).
const CALLS: &[i64] = &[
    // The wire and the log.
    libc::SYS_recvmsg,
    libc::SYS_sendmsg,
    libc::SYS_read,
    libc::SYS_write,
    libc::SYS_close,
    // Names.
    libc::SYS_openat,
    libc::SYS_openat2,
    libc::SYS_newfstatat,
    libc::SYS_fstat,
    libc::SYS_statx,
    libc::SYS_mkdirat,
    libc::SYS_mknodat,
    libc::SYS_symlinkat,
    libc::SYS_linkat,
    libc::SYS_renameat,
    libc::SYS_renameat2,
    libc::SYS_unlinkat,
    libc::SYS_fchdir,
    // Data.
    libc::SYS_fstatfs,
    libc::SYS_pread64,
    libc::SYS_pwrite64,
    libc::SYS_ftruncate,
    libc::SYS_fallocate,
    libc::SYS_sync_file_range,
    // Owners, modes, times, attributes.
    libc::SYS_fchown,
    libc::SYS_fchownat,
    libc::SYS_fchmod,
    libc::SYS_fchmodat,
    libc::SYS_fchmodat2,
    libc::SYS_utimensat,
    libc::SYS_fgetxattr,
    libc::SYS_fsetxattr,
    libc::SYS_lsetxattr,
    libc::SYS_fremovexattr,
    libc::SYS_lremovexattr,
    // The program itself: memory, time, locks, randomness, its end.
    libc::SYS_brk,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_madvise,
    libc::SYS_futex,
    libc::SYS_clock_gettime,
    libc::SYS_getrandom,
    libc::SYS_rt_sigreturn,
    libc::SYS_rt_sigprocmask,
    libc::SYS_sigaltstack,
    libc::SYS_restart_syscall,
    libc::SYS_exit,
    libc::SYS_exit_group,
];

/// Calls of which only some uses are allowed: the ioctls of the applier, and memory that cannot be executed.
fn narrow() -> Vec<Narrow> {
    let mut narrow: Vec<Narrow> = ioctl::OF_APPLIER
        .iter()
        .map(|number| Narrow {
            call: libc::SYS_ioctl,
            argument: 1,
            mask: u32::MAX,
            value: *number,
        })
        .collect();
    // A debug build looks whether what it closes is open.
    narrow.push(Narrow {
        call: libc::SYS_fcntl,
        argument: 1,
        mask: u32::MAX,
        value: libc::F_GETFD as u32,
    });
    for call in [libc::SYS_mmap, libc::SYS_mprotect] {
        narrow.push(Narrow {
            call,
            argument: 2,
            mask: libc::PROT_EXEC as u32,
            value: 0,
        });
    }
    narrow
}

/// Whether an attribute of this name takes CAP_SYS_ADMIN, which a worker has not (xattr(7)).
pub(super) fn is_for_the_daemon(name: &[u8]) -> bool {
    name.starts_with(b"trusted.")
        || (name.starts_with(b"security.") && name != b"security.capability")
}

/// Is the worker from the first call to the last. Standard input is its end of the wire.
pub fn work() -> Result<()> {
    let stdin = io::stdin();
    let stat = rustix::fs::fstat(&stdin).context("look at standard input")?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::Socket {
        let what = "apply a stream: this verb is for the daemon, which starts it by itself";
        return Err(Failure::new(Code::Usage, what)
            .hint("streams are received by standin serve")
            .into());
    }
    close_all_but_standard();
    ignore_signals();
    // Files are made with the modes that the stream says.
    rustix::process::umask(Mode::empty());
    sandbox::belong_to_parent()?;
    let wire = stdin.as_fd().try_clone_to_owned();
    let wire = Arc::new(Talk::new(wire.context("keep the wire")?));
    let begun = begin(&wire);
    let outcome = begun.and_then(|engine| serve(&wire, engine));
    match outcome {
        Ok(()) | Err(Trouble::Gone(_)) => Ok(()),
        Err(trouble) => wire
            .wire
            .send_json(Kind::Failed, &trouble, None)
            .context("tell the daemon"),
    }
}

/// Reads where to begin, gives everything else up, and makes the engine.
fn begin(talk: &Arc<Talk>) -> Result<Engine, Trouble> {
    let mut buffer = Vec::new();
    let frame = talk.next(&mut buffer)?;
    let mount = match (frame.0, frame.1) {
        (Kind::Start, Some(mount)) => mount,
        _ => return Err(Trouble::Gone("no beginning".into())),
    };
    let start: Start = read(&buffer).map_err(gone)?;
    drop(buffer);
    let tree = confine(mount).map_err(|error| Trouble::Machine {
        what: format!("confine the applier: {error:#}"),
        errno: last_errno(&error),
    })?;
    let engine = Engine::new(Tree::alone(tree), talk.clone(), start)?;
    let progress = engine.progress();
    talk.wire
        .send_json(Kind::Done, &progress, None)
        .map_err(gone)?;
    Ok(engine)
}

/// Gives everything up that applying does not take. Gives the tree's top directory.
fn confine(mount: OwnedFd) -> Result<OwnedFd> {
    // Settles the limit of descriptors before it cannot be asked for any more.
    room();
    sandbox::limit(Resource::Core, 0)?;
    sandbox::limit(Resource::As, MEMORY_BYTES_MAX)?;
    // SAFETY: of a process of one thread; descriptors stay as they are.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNS) }
        .context("get mounts of our own")?;
    sandbox::see_only(mount)?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let top = rustix::fs::open("/", flags, Mode::empty()).context("open the tree")?;
    sandbox::keep_capabilities(KEPT)?;
    // Again: to give up rights can undo it (prctl(2)).
    sandbox::belong_to_parent()?;
    sandbox::allow_only_narrow(CALLS, &narrow())?;
    Ok(top)
}

fn last_errno(error: &anyhow::Error) -> i32 {
    let errno = error
        .chain()
        .find_map(|cause| cause.downcast_ref::<Errno>());
    errno.map_or(libc::EPERM, |errno| errno.raw_os_error())
}

/// Descriptors that leaked into this process are nobody's.
fn close_all_but_standard() {
    // SAFETY: nothing above the standard three is in use this early; the kernel checks the rest. One of an older kernel
    // (before 5.9) does not know the call: then those that the daemon marked close-on-exec, which is all, are closed already.
    unsafe {
        libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, 0);
    }
}

/// What asks the daemon to end reaches everything in its control group: it takes a checkpoint first, for which it needs us.
fn ignore_signals() {
    for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGHUP, libc::SIGQUIT] {
        // SAFETY: sets no function of ours to be called.
        unsafe {
            libc::signal(signal, libc::SIG_IGN);
        }
    }
}

/// Does what the daemon says until the end of the stream or of the wire.
fn serve(talk: &Arc<Talk>, mut engine: Engine) -> Result<(), Trouble> {
    let mut buffer = Vec::new();
    loop {
        let (kind, _) = talk.next(&mut buffer)?;
        match kind {
            Kind::Data => {
                let progress = engine.feed(&buffer)?;
                talk.wire.send_json(Kind::Done, &progress, None)
            }
            Kind::Save => talk.wire.send_json(Kind::Saved, engine.later()?, None),
            Kind::Settle => {
                let settled = engine.settle()?;
                return talk
                    .wire
                    .send_json(Kind::Settled, &settled, None)
                    .map_err(gone);
            }
            kind => return Err(Trouble::Gone(format!("unexpected {kind:?}"))),
        }
        .map_err(gone)?;
    }
}

fn gone(error: io::Error) -> Trouble {
    Trouble::Gone(error.to_string())
}

/// The wire, and what came while an answer was waited for.
#[derive(Debug)]
struct Talk {
    wire: Wire,
    /// Pieces of the stream: the daemon sends no more than a few ahead.
    waiting: Mutex<VecDeque<(Kind, Vec<u8>)>>,
}

impl Talk {
    fn new(socket: OwnedFd) -> Talk {
        Talk {
            wire: Wire::new(socket),
            waiting: Mutex::default(),
        }
    }

    fn waiting(&self) -> std::sync::MutexGuard<'_, VecDeque<(Kind, Vec<u8>)>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next frame, its payload in `buffer`.
    fn next(&self, buffer: &mut Vec<u8>) -> Result<(Kind, Option<OwnedFd>), Trouble> {
        if let Some((kind, payload)) = self.waiting().pop_front() {
            *buffer = payload;
            return Ok((kind, None));
        }
        let frame = self
            .wire
            .receive(buffer, TO_WORKER_BYTES_MAX)
            .map_err(gone)?;
        let frame = frame.ok_or_else(|| Trouble::Gone("the daemon hung up".into()))?;
        Ok((frame.kind, frame.descriptor))
    }

    /// Asks the daemon. An error of the wire shows again at the next frame.
    fn ask(&self, ask: &Ask, file: Option<BorrowedFd<'_>>) -> rustix::io::Result<Option<OwnedFd>> {
        let broken = |_| Errno::IO;
        self.wire.send_json(Kind::Ask, ask, file).map_err(broken)?;
        loop {
            let mut payload = Vec::new();
            let frame = self
                .wire
                .receive(&mut payload, TO_WORKER_BYTES_MAX)
                .map_err(broken)?
                .ok_or(Errno::IO)?;
            if frame.kind != Kind::Given {
                self.waiting().push_back((frame.kind, payload));
                continue;
            }
            let given: Given = read(&payload).map_err(broken)?;
            return match given.errno {
                None => Ok(frame.descriptor),
                Some(errno) => Err(Errno::from_raw_os_error(errno)),
            };
        }
    }
}

impl Outside for Talk {
    fn source(&self, identity: Uuid) -> Applied<Option<Tree>> {
        match self.ask(&Ask::Source(identity), None) {
            Ok(mount) => Ok(mount.map(Tree::alone)),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(Fault::Machine("open clone source".into(), error)),
        }
    }

    fn sets(&self, name: &[u8]) -> bool {
        is_for_the_daemon(name)
    }

    fn set_xattr(
        &self,
        file: BorrowedFd<'_>,
        name: &[u8],
        value: Option<&[u8]>,
    ) -> rustix::io::Result<()> {
        let ask = Ask::Attribute {
            name: hex(name),
            value: value.map(hex),
        };
        self.ask(&ask, Some(file)).map(drop)
    }
}

#[cfg(test)]
mod tests;
