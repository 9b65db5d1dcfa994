//! The system calls of a receive that no crate wraps. Numbers and layouts: linux/btrfs.h and linux/fs.h.
//!
//! Promise: safe to call with any arguments; the kernel judges them. It deliberately does not know streams.
#![allow(unsafe_code)]

use std::os::fd::{AsFd, AsRawFd};

use rustix::io::{Errno, Result};
use rustix::ioctl::{Getter, Opcode, Setter, Updater, ioctl, opcode};
use uuid::Uuid;

/// BTRFS_IOCTL_MAGIC
const BTRFS_MAGIC: u8 = 0x94;

#[repr(C)]
#[derive(Clone, Copy, Default)]
struct BtrfsTime {
    seconds: u64,
    nanoseconds: u32,
}

/// struct btrfs_ioctl_received_subvol_args
#[repr(C)]
struct Received {
    uuid: [u8; 16],
    stransid: u64,
    rtransid: u64,
    stime: BtrfsTime,
    rtime: BtrfsTime,
    flags: u64,
    reserved: [u64; 16],
}

const SET_RECEIVED_SUBVOL: Opcode = opcode::read_write::<Received>(BTRFS_MAGIC, 37);

/// Gives the writable subvolume behind `fd` the identity it was sent with. Commits.
pub(in crate::fs::btrfs) fn set_received(fd: impl AsFd, uuid: Uuid, stransid: u64) -> Result<()> {
    let mut args = Received {
        uuid: uuid.into_bytes(),
        stransid,
        rtransid: 0,
        stime: BtrfsTime::default(),
        rtime: BtrfsTime::default(),
        flags: 0,
        reserved: [0; 16],
    };
    // SAFETY: the opcode carries the size of `Received`, which has the kernel's layout and outlives the call.
    unsafe { ioctl(fd, Updater::<SET_RECEIVED_SUBVOL, Received>::new(&mut args)) }
}

/// struct file_clone_range
#[repr(C)]
struct CloneRange {
    source: i64,
    source_offset: u64,
    len: u64,
    offset: u64,
}

const CLONE_RANGE: Opcode = opcode::write::<CloneRange>(BTRFS_MAGIC, 13);

/// Shares a range of `source` into `fd` (FICLONERANGE).
pub(super) fn clone_range(
    fd: impl AsFd,
    offset: u64,
    source: impl AsFd,
    source_offset: u64,
    len: u64,
) -> Result<()> {
    let args = CloneRange {
        source: i64::from(source.as_fd().as_raw_fd()),
        source_offset,
        len,
        offset,
    };
    // SAFETY: the opcode carries the size of `CloneRange`, which has the kernel's layout; both descriptors are open.
    unsafe { ioctl(fd, Setter::<CLONE_RANGE, CloneRange>::new(args)) }
}

/// struct btrfs_ioctl_encoded_io_args
#[repr(C)]
struct EncodedWrite {
    pieces: *const libc::iovec,
    count: libc::c_ulong,
    offset: i64,
    flags: u64,
    len: u64,
    unencoded_len: u64,
    unencoded_offset: u64,
    compression: u32,
    encryption: u32,
    reserved: [u8; 64],
}

const ENCODED_WRITE: Opcode = opcode::write::<EncodedWrite>(BTRFS_MAGIC, 64);

/// Writes compressed data as it is.
pub(super) fn encoded_write(
    fd: impl AsFd,
    piece: &crate::fs::btrfs::stream::Encoded<'_>,
) -> Result<()> {
    let data = libc::iovec {
        iov_base: piece.data.as_ptr().cast_mut().cast(),
        iov_len: piece.data.len(),
    };
    let args = EncodedWrite {
        pieces: &raw const data,
        count: 1,
        offset: i64::try_from(piece.offset).map_err(|_| Errno::FBIG)?,
        flags: 0,
        len: piece.file_len,
        unencoded_len: piece.len,
        unencoded_offset: piece.skip,
        compression: piece.compression,
        encryption: piece.encryption,
        reserved: [0; 64],
    };
    // SAFETY: the opcode carries the size of `EncodedWrite`, which has the kernel's layout; the one piece it points to is
    // only read by the kernel and, like the data behind it, outlives the call.
    unsafe { ioctl(fd, Setter::<ENCODED_WRITE, EncodedWrite>::new(args)) }
}

/// struct fsxattr
#[repr(C)]
#[derive(Clone, Copy)]
struct Extended {
    xflags: u32,
    extsize: u32,
    nextents: u32,
    projid: u32,
    cowextsize: u32,
    pad: [u8; 8],
}

const GET_EXTENDED: Opcode = opcode::read::<Extended>(b'X', 31);
const SET_EXTENDED: Opcode = opcode::write::<Extended>(b'X', 32);

/// `FS_XFLAG_*` that a stream can carry.
pub(in crate::fs::btrfs) mod xflag {
    pub const IMMUTABLE: u32 = 0x08;
    pub const APPEND: u32 = 0x10;
    pub const SYNC: u32 = 0x20;
    pub const NOATIME: u32 = 0x40;
    pub const NODUMP: u32 = 0x80;
}

fn extended(fd: impl AsFd) -> Result<Extended> {
    // SAFETY: the kernel fills the whole of `Extended`, whose size the opcode carries.
    unsafe { ioctl(fd, Getter::<GET_EXTENDED, Extended>::new()) }
}

/// The file's `FS_XFLAG_*`.
pub(super) fn xflags(fd: impl AsFd) -> Result<u32> {
    extended(fd).map(|state| state.xflags)
}

/// Sets those of `mask` as in `xflags`. Unlike FS_IOC_SETFLAGS it leaves the compression property alone.
pub(in crate::fs::btrfs) fn set_xflags(fd: impl AsFd, mask: u32, xflags: u32) -> Result<()> {
    let fd = fd.as_fd();
    let mut state = extended(fd)?;
    let wanted = (state.xflags & !mask) | (xflags & mask);
    if wanted == state.xflags {
        return Ok(());
    }
    state.xflags = wanted;
    // SAFETY: the opcode carries the size of `Extended`, which has the kernel's layout and was filled by the kernel.
    unsafe { ioctl(fd, Setter::<SET_EXTENDED, Extended>::new(state)) }
}

/// chmod of whatever `name` in `parent` is, never through a link (fchmodat2, Linux 6.6).
pub(super) fn chmod_nofollow(parent: impl AsFd, name: &std::ffi::CStr, mode: u32) -> Result<()> {
    // SAFETY: the name is a zero-terminated string that outlives the call; the kernel checks the rest.
    let outcome = unsafe {
        libc::syscall(
            libc::SYS_fchmodat2,
            parent.as_fd().as_raw_fd(),
            name.as_ptr(),
            mode,
            libc::AT_SYMLINK_NOFOLLOW,
        )
    };
    if outcome == 0 {
        Ok(())
    } else {
        Err(std::io::Error::last_os_error()
            .raw_os_error()
            .map_or(Errno::IO, Errno::from_raw_os_error))
    }
}

/// The numbers of all ioctls that the applier makes without the rights of the daemon.
pub(in crate::fs::btrfs) const OF_APPLIER: [u32; 5] = [
    CLONE_RANGE,
    GET_EXTENDED,
    SET_EXTENDED,
    libc::FS_IOC_GETFLAGS as u32,
    libc::FS_IOC_SETFLAGS as u32,
];

/// Starts writing out the whole file without waiting for it.
pub(super) fn start_writeback(fd: impl AsFd) {
    // SAFETY: takes no pointers. A hint: what fails here shows when the file is synced.
    unsafe {
        libc::sync_file_range(fd.as_fd().as_raw_fd(), 0, 0, libc::SYNC_FILE_RANGE_WRITE);
    }
}

const _: () = assert!(size_of::<Received>() == 200);
const _: () = assert!(size_of::<CloneRange>() == 32);
const _: () = assert!(size_of::<Extended>() == 28);
