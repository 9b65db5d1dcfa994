//! A worker that has been taken over: what it tries, and what the kernel says.
//!
//! The child is this very test program: it confines itself as a worker does, then does what a worker never would.

use std::ffi::{CString, OsStr};
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd};
use std::path::Path;
use std::process::Command;

use rustix::mount::MountAttrFlags;

use super::super::super::top::fixture::{Loop, ready};
use super::super::super::top::{Top, make_mount};
use super::*;

/// One attempt: what the kernel answers, by the name of the error.
type Attempt = (&'static str, fn(&File) -> libc::c_long, &'static [i32]);

fn path(text: &str) -> CString {
    CString::new(text).unwrap()
}

fn open(text: &str) -> libc::c_long {
    // SAFETY: the path is a zero-terminated string that outlives the call.
    unsafe {
        libc::syscall(
            libc::SYS_openat,
            libc::AT_FDCWD,
            path(text).as_ptr(),
            libc::O_RDONLY,
        )
    }
}

fn ioctl_with_name(top: &File, number: libc::c_ulong, name: &[u8]) -> libc::c_long {
    // struct btrfs_ioctl_vol_args: a descriptor and a name (linux/btrfs.h).
    let mut args = [0u8; 4096];
    args[8..8 + name.len()].copy_from_slice(name);
    // SAFETY: the structure has the size that the number carries and outlives the call.
    i64::from(unsafe { libc::ioctl(top.as_raw_fd(), number, args.as_mut_ptr()) })
}

/// BTRFS_IOC_SUBVOL_CREATE, BTRFS_IOC_SNAP_DESTROY, BTRFS_IOC_TREE_SEARCH (linux/btrfs.h).
const SUBVOL_CREATE: libc::c_ulong = 0x5000_940e;
const SNAP_DESTROY: libc::c_ulong = 0x5000_940f;
const TREE_SEARCH: libc::c_ulong = 0xd000_9411;

/// SAFETY of all of them: the kernel refuses each before it looks at a pointer, and what is passed is valid.
const ATTEMPTS: &[Attempt] = &[
    (
        "read a file of the machine",
        |_| open("/etc/passwd"),
        &[libc::ENOENT],
    ),
    (
        "climb out of the tree",
        |_| open("../../../../../../etc/passwd"),
        &[libc::ENOENT],
    ),
    (
        "read the daemon's memory",
        |_| open("/proc/1/mem"),
        &[libc::ENOENT],
    ),
    (
        "open a device node it made",
        |_| open("/node"),
        &[libc::EACCES],
    ),
    // SAFETY: see above.
    (
        "make a socket",
        |_| i64::from(unsafe { libc::socket(libc::AF_INET, 1, 0) }),
        DENIED,
    ),
    // SAFETY: see above.
    (
        "signal the daemon",
        |_| i64::from(unsafe { libc::kill(libc::getppid(), 9) }),
        DENIED,
    ),
    // SAFETY: see above.
    (
        "trace the daemon",
        |_| unsafe { libc::syscall(libc::SYS_ptrace, 16, 1, 0, 0) },
        DENIED,
    ),
    // SAFETY: see above.
    (
        "start a process",
        |_| unsafe { libc::syscall(libc::SYS_clone, 17, 0, 0, 0, 0) },
        DENIED,
    ),
    // SAFETY: see above.
    (
        "run a program",
        |_| unsafe { libc::syscall(libc::SYS_execve, c"/x".as_ptr(), 0, 0) },
        DENIED,
    ),
    // SAFETY: see above.
    (
        "mount",
        |_| unsafe { libc::syscall(libc::SYS_mount, 0, c"/".as_ptr(), 0, 0, 0) },
        DENIED,
    ),
    // SAFETY: see above.
    (
        "change its root",
        |_| unsafe { libc::syscall(libc::SYS_chroot, c"/".as_ptr()) },
        DENIED,
    ),
    (
        "open by handle",
        // SAFETY: see above.
        |top| unsafe { libc::syscall(libc::SYS_open_by_handle_at, top.as_raw_fd(), 0, 0) },
        DENIED,
    ),
    // SAFETY: see above.
    (
        "become somebody",
        |_| unsafe { libc::syscall(libc::SYS_setuid, 1) },
        DENIED,
    ),
    (
        "raise the limits of others",
        // SAFETY: see above.
        |_| unsafe { libc::syscall(libc::SYS_prlimit64, 1, 0, 0, 0) },
        DENIED,
    ),
    (
        "get memory to execute",
        // SAFETY: see above.
        |_| unsafe {
            let prot = libc::PROT_READ | libc::PROT_WRITE | libc::PROT_EXEC;
            let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
            libc::syscall(libc::SYS_mmap, 0, 4096, prot, flags, -1, 0)
        },
        DENIED,
    ),
    (
        "make a subvolume",
        |top| ioctl_with_name(top, SUBVOL_CREATE, b"sub"),
        DENIED,
    ),
    (
        "delete a subvolume",
        |top| ioctl_with_name(top, SNAP_DESTROY, b"sub"),
        DENIED,
    ),
    (
        "read the trees of the filesystem",
        |top| ioctl_with_name(top, TREE_SEARCH, b""),
        DENIED,
    ),
    (
        "set a trusted attribute",
        |top| {
            let outcome =
                rustix::fs::fsetxattr(top, "trusted.x", b"x", rustix::fs::XattrFlags::empty());
            outcome.map_or_else(|error| refusal(error.raw_os_error()), |()| 0)
        },
        DENIED,
    ),
];

const DENIED: &[i32] = &[libc::EPERM];

fn refusal(errno: i32) -> libc::c_long {
    // SAFETY: the place of this thread's error number is always valid.
    unsafe { *libc::__errno_location() = errno };
    -1
}

/// Not a test of its own: what [`what_a_worker_cannot_do`] starts.
#[test]
fn confined_child() {
    let Some(dir) = std::env::var_os("STANDIN_TEST_CONFINED") else {
        return;
    };
    let dir = Path::new(&dir);
    let top = File::open(dir).unwrap();
    let device = Top::holding(dir, &top).unwrap().device.clone();
    let tree = dir.join("tree");
    let id = libbtrfsutil::subvolume_id(&tree).unwrap().to_string();
    let attributes = MountAttrFlags::MOUNT_ATTR_NODEV;
    let mount = make_mount(&device, ("subvolid", OsStr::new(&id)), false, attributes).unwrap();
    // SAFETY: this thread only, which ends with the process.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::FS) }.unwrap();
    let top = File::from(confine(mount).unwrap());
    // The kernel does let it make nodes: a stream holds them.
    let mode = rustix::fs::Mode::RUSR;
    let kind = FileType::CharacterDevice;
    rustix::fs::mknodat(top.as_fd(), "node", kind, mode, rustix::fs::makedev(1, 5)).unwrap();
    let mut wrong = Vec::new();
    for (what, attempt, expected) in ATTEMPTS {
        let outcome = attempt(&top);
        let errno = std::io::Error::last_os_error().raw_os_error().unwrap_or(0);
        if outcome != -1 || !expected.contains(&errno) {
            wrong.push(format!("{what}: {outcome}, error {errno}"));
        }
    }
    let code = i32::from(!wrong.is_empty());
    for line in wrong {
        let _ = rustix::io::write(std::io::stderr(), format!("{line}\n").as_bytes());
    }
    std::process::exit(code);
}

#[test]
fn what_a_worker_cannot_do() {
    if !ready("what_a_worker_cannot_do") {
        return;
    }
    let disk = Loop::new(256 << 20);
    libbtrfsutil::create_subvolume(disk.join("tree")).unwrap();
    let name = "fs::btrfs::receive::worker::tests::confined_child";
    let said = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", name, "--nocapture"])
        .env("STANDIN_TEST_CONFINED", disk.path())
        .output()
        .unwrap();
    let words = String::from_utf8_lossy(&said.stderr);
    assert!(
        said.status.success() && disk.join("tree/node").symlink_metadata().is_ok(),
        "{words}"
    );
}
