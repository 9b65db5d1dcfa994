//! The btrfs ioctls that libbtrfsutil lacks or answers differently, as safe functions on descriptors.
//!
//! Every structure and number is that of the kernel header include/uapi/linux/btrfs.h (64-bit layout). `subvolume` is
//! here although libbtrfsutil has its like: that one searches the root tree, where ctransid moves only with a commit,
//! while GET_SUBVOL_INFO tells the transaction of a change at once.
//!
//! It deliberately does not know paths, points or what the answers are used for.

#![allow(unsafe_code)]

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use rustix::ioctl::{self, Getter, Opcode, Setter, Updater, opcode};
use uuid::Uuid;

/// BTRFS_IOCTL_MAGIC.
const MAGIC: u8 = 0x94;

/// BTRFS_SEND_FLAG_NO_FILE_DATA: UPDATE_EXTENT commands in place of data.
pub const SEND_NO_FILE_DATA: u64 = 1;
/// BTRFS_SEND_FLAG_VERSION: the version field counts (kernels before 6.0 refuse it, and only know version 1).
const SEND_VERSION: u64 = 8;

/// struct btrfs_ioctl_send_args.
#[repr(C)]
struct SendArgs {
    send_fd: i64,
    clone_sources_count: u64,
    clone_sources: *const u64,
    parent_root: u64,
    flags: u64,
    version: u32,
    reserved: [u8; 28],
}

const SEND: Opcode = opcode::write::<SendArgs>(MAGIC, 38);
const _: () = assert!(size_of::<SendArgs>() == 72);

/// Writes the send stream of the read-only subvolume `source` into `pipe`, on top of the subvolume with the id `parent`
/// (which is also the only clone source). Returns when the whole stream was taken from the pipe, or with the kernel's error.
pub fn send(
    source: BorrowedFd<'_>,
    pipe: BorrowedFd<'_>,
    parent: Option<u64>,
    version: u32,
    flags: u64,
) -> io::Result<()> {
    let sources = [parent.unwrap_or(0)];
    let args = SendArgs {
        send_fd: i64::from(pipe.as_raw_fd()),
        clone_sources_count: u64::from(parent.is_some()),
        clone_sources: sources.as_ptr(),
        parent_root: parent.unwrap_or(0),
        flags: if version > 1 {
            flags | SEND_VERSION
        } else {
            flags
        },
        version: if version > 1 { version } else { 0 },
        reserved: [0; 28],
    };
    // SAFETY: BTRFS_IOC_SEND reads one btrfs_ioctl_send_args, of which SendArgs is the exact layout; `sources` holds
    // clone_sources_count (0 or 1) ids and outlives the call.
    unsafe { ioctl::ioctl(source, Setter::<SEND, SendArgs>::new(args)) }?;
    Ok(())
}

/// Keeps SIGPIPE from this thread: the kernel raises it when a send's reader goes away, whatever the process does with
/// signals. For threads that end with the send.
pub fn block_sigpipe() {
    // SAFETY: a zeroed sigset_t is valid memory for sigemptyset, which initialises it; the calls touch nothing else.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&mut set);
        libc::sigaddset(&mut set, libc::SIGPIPE);
        libc::pthread_sigmask(libc::SIG_BLOCK, &set, std::ptr::null_mut());
    }
}

/// struct btrfs_ioctl_timespec.
#[repr(C)]
#[derive(Clone, Copy)]
struct Time {
    sec: u64,
    nsec: u32,
}

/// struct btrfs_ioctl_get_subvol_info_args.
#[repr(C)]
struct SubvolumeArgs {
    treeid: u64,
    name: [u8; 256],
    parent_id: u64,
    dirid: u64,
    generation: u64,
    flags: u64,
    uuid: [u8; 16],
    parent_uuid: [u8; 16],
    received_uuid: [u8; 16],
    ctransid: u64,
    otransid: u64,
    stransid: u64,
    rtransid: u64,
    times: [Time; 4],
    reserved: [u64; 8],
}

const GET_SUBVOL_INFO: Opcode = opcode::read::<SubvolumeArgs>(MAGIC, 60);
const _: () = assert!(size_of::<SubvolumeArgs>() == 504);
/// BTRFS_ROOT_SUBVOL_RDONLY, in the root item's flags.
const ROOT_READ_ONLY: u64 = 1;

/// What the kernel says of a subvolume.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Subvolume {
    pub id: u64,
    pub uuid: Uuid,
    pub parent_uuid: Option<Uuid>,
    pub received_uuid: Option<Uuid>,
    pub read_only: bool,
    /// Transaction in which its tree was last written, for whatever reason; as committed.
    pub generation: u64,
    /// Transaction of the last change of anything in it, visible before it is committed; but for what a log brought back
    /// (`live`).
    pub ctransid: u64,
    /// Transaction that created it.
    pub otransid: u64,
}

/// Facts about the subvolume that holds `fd`.
pub fn subvolume(fd: impl AsFd) -> io::Result<Subvolume> {
    // SAFETY: BTRFS_IOC_GET_SUBVOL_INFO fills one btrfs_ioctl_get_subvol_info_args, of which SubvolumeArgs is the exact
    // layout; every bit pattern of it is valid.
    let args = unsafe { ioctl::ioctl(fd, Getter::<GET_SUBVOL_INFO, SubvolumeArgs>::new()) }?;
    let some = |bytes: [u8; 16]| Some(Uuid::from_bytes(bytes)).filter(|uuid| !uuid.is_nil());
    Ok(Subvolume {
        id: args.treeid,
        uuid: Uuid::from_bytes(args.uuid),
        parent_uuid: some(args.parent_uuid),
        received_uuid: some(args.received_uuid),
        read_only: args.flags & ROOT_READ_ONLY != 0,
        generation: args.generation,
        ctransid: args.ctransid,
        otransid: args.otransid,
    })
}

/// struct btrfs_ioctl_received_subvol_args.
#[repr(C)]
struct ReceivedArgs {
    uuid: [u8; 16],
    stransid: u64,
    rtransid: u64,
    stime: Time,
    rtime: Time,
    flags: u64,
    reserved: [u64; 16],
}

const SET_RECEIVED_SUBVOL: Opcode = opcode::read_write::<ReceivedArgs>(MAGIC, 37);
const _: () = assert!(size_of::<ReceivedArgs>() == 200);

/// Takes the received uuid from a writable subvolume.
pub fn forget_received(fd: impl AsFd) -> io::Result<()> {
    let zero = Time { sec: 0, nsec: 0 };
    let mut args = ReceivedArgs {
        uuid: [0; 16],
        stransid: 0,
        rtransid: 0,
        stime: zero,
        rtime: zero,
        flags: 0,
        reserved: [0; 16],
    };
    // SAFETY: BTRFS_IOC_SET_RECEIVED_SUBVOL reads and writes one btrfs_ioctl_received_subvol_args (200 bytes on 64-bit), of
    // which ReceivedArgs is the exact layout.
    unsafe {
        ioctl::ioctl(
            fd,
            Updater::<SET_RECEIVED_SUBVOL, ReceivedArgs>::new(&mut args),
        )
    }?;
    Ok(())
}

/// struct btrfs_ioctl_fs_info_args; only the head is read.
#[repr(C)]
struct FsInfoArgs {
    max_id: u64,
    num_devices: u64,
    fsid: [u8; 16],
    rest: [u8; 992],
}

const FS_INFO: Opcode = opcode::read::<FsInfoArgs>(MAGIC, 31);
const _: () = assert!(size_of::<FsInfoArgs>() == 1024);

/// Identity and devices of a filesystem.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FsInfo {
    pub fsid: Uuid,
    /// Highest device id in use.
    pub max_id: u64,
}

/// Facts about the filesystem that holds `fd`; ENOTTY where it is not btrfs.
pub fn fs_info(fd: impl AsFd) -> io::Result<FsInfo> {
    // SAFETY: BTRFS_IOC_FS_INFO fills one btrfs_ioctl_fs_info_args of 1024 bytes; every bit pattern of FsInfoArgs is valid.
    let args = unsafe { ioctl::ioctl(fd, Getter::<FS_INFO, FsInfoArgs>::new()) }?;
    Ok(FsInfo {
        fsid: Uuid::from_bytes(args.fsid),
        max_id: args.max_id,
    })
}

/// struct btrfs_ioctl_dev_info_args; the middle is not read.
#[repr(C)]
struct DevInfoArgs {
    devid: u64,
    uuid: [u8; 16],
    bytes_used: u64,
    total_bytes: u64,
    rest: [u64; 379],
    path: [u8; 1024],
}

const DEV_INFO: Opcode = opcode::read_write::<DevInfoArgs>(MAGIC, 30);
const _: () = assert!(size_of::<DevInfoArgs>() == 4096);

/// Path of the device `devid` as the kernel knows it; none where there is no such device.
pub fn device_path(fd: impl AsFd, devid: u64) -> Option<Vec<u8>> {
    let mut args = DevInfoArgs {
        devid,
        uuid: [0; 16],
        bytes_used: 0,
        total_bytes: 0,
        rest: [0; 379],
        path: [0; 1024],
    };
    // SAFETY: BTRFS_IOC_DEV_INFO reads and writes one btrfs_ioctl_dev_info_args of 4096 bytes, the layout of DevInfoArgs.
    unsafe { ioctl::ioctl(fd, Updater::<DEV_INFO, DevInfoArgs>::new(&mut args)) }.ok()?;
    let path = CStr::from_bytes_until_nul(&args.path).ok()?;
    (!path.is_empty()).then(|| path.to_bytes().to_vec())
}

/// struct btrfs_ioctl_ino_lookup_args.
#[repr(C)]
struct LookupArgs {
    treeid: u64,
    objectid: u64,
    name: [u8; 4080],
}

const INO_LOOKUP: Opcode = opcode::read_write::<LookupArgs>(MAGIC, 18);
const _: () = assert!(size_of::<LookupArgs>() == 4096);

/// Id of the subvolume that holds the directory `fd`, and the path in it of the directory with the inode number `inode`
/// (empty for its root).
pub fn path_in_subvolume(fd: impl AsFd, inode: u64) -> io::Result<(u64, Vec<u8>)> {
    let mut args = LookupArgs {
        treeid: 0,
        objectid: inode,
        name: [0; 4080],
    };
    // SAFETY: BTRFS_IOC_INO_LOOKUP reads and writes one btrfs_ioctl_ino_lookup_args of 4096 bytes, the layout of LookupArgs.
    unsafe { ioctl::ioctl(fd, Updater::<INO_LOOKUP, LookupArgs>::new(&mut args)) }?;
    let name: Vec<u8> = args
        .name
        .iter()
        .copied()
        .take_while(|&byte| byte != 0)
        .collect();
    Ok((args.treeid, name))
}

/// struct btrfs_ioctl_search_args_v2 with room for what is found.
#[repr(C)]
struct SearchArgs {
    tree_id: u64,
    min_objectid: u64,
    max_objectid: u64,
    min_offset: u64,
    max_offset: u64,
    min_transid: u64,
    max_transid: u64,
    min_type: u32,
    max_type: u32,
    nr_items: u32,
    unused: [u32; 9],
    buf_size: u64,
    buf: [u8; SEARCH_BYTES],
}

/// Room for what one search finds, in bytes: more than the largest item (a tree block of 64 KiB).
const SEARCH_BYTES: usize = 256 << 10;

/// The size in the number is that of the structure without what is found.
const TREE_SEARCH_V2: Opcode = opcode::read_write::<[u64; 14]>(MAGIC, 17);
const _: () = assert!(std::mem::offset_of!(SearchArgs, buf) == 112);

/// struct btrfs_ioctl_search_header: transid, objectid, offset (u64 each), type, len (u32 each).
const SEARCH_HEADER_BYTES: usize = 32;

/// Searches the tree of a subvolume, a piece at a time, in one buffer.
pub struct Search(Box<SearchArgs>);

/// An item of a subvolume's tree.
pub struct Item<'a> {
    pub objectid: u64,
    pub kind: u32,
    pub offset: u64,
    pub bytes: &'a [u8],
}

impl Search {
    /// Of what lies in tree blocks written in the transaction `since` or later.
    pub fn new(since: u64) -> Search {
        Search(Box::new(SearchArgs {
            tree_id: 0,
            min_objectid: 0,
            max_objectid: u64::MAX,
            min_offset: 0,
            max_offset: u64::MAX,
            min_transid: since,
            max_transid: u64::MAX,
            min_type: 0,
            max_type: u32::MAX,
            nr_items: 0,
            unused: [0; 9],
            buf_size: SEARCH_BYTES as u64,
            buf: [0; SEARCH_BYTES],
        }))
    }

    /// The next items of the subvolume that holds `fd`, from the first of `objectid` on; none behind the last.
    pub fn items(&mut self, fd: impl AsFd, objectid: u64) -> io::Result<Vec<Item<'_>>> {
        self.items_from(fd, (objectid, 0, 0))
    }

    /// The same from a key on: object, kind, offset.
    pub fn items_from(
        &mut self,
        fd: impl AsFd,
        (objectid, kind, offset): (u64, u32, u64),
    ) -> io::Result<Vec<Item<'_>>> {
        let args = &mut *self.0;
        (args.min_objectid, args.min_type, args.min_offset) = (objectid, kind, offset);
        args.nr_items = u32::MAX;
        // SAFETY: BTRFS_IOC_TREE_SEARCH_V2 reads and writes one btrfs_ioctl_search_args_v2, the layout of SearchArgs, and
        // writes at most the buf_size bytes behind it, which are `buf`.
        unsafe { ioctl::ioctl(fd, Updater::<TREE_SEARCH_V2, SearchArgs>::new(args)) }?;
        let mut rest = &args.buf[..];
        let mut items = Vec::new();
        for _ in 0..args.nr_items {
            let found = item(&mut rest);
            items.push(found.ok_or_else(|| io::Error::other("a search result is cut short"))?);
        }
        Ok(items)
    }
}

/// Takes the first item off what a search found.
fn item<'a>(found: &mut &'a [u8]) -> Option<Item<'a>> {
    let (head, rest) = found.split_first_chunk::<SEARCH_HEADER_BYTES>()?;
    let (_, head) = head.split_first_chunk::<8>()?;
    let (objectid, head) = head.split_first_chunk()?;
    let (offset, head) = head.split_first_chunk()?;
    let (kind, length) = head.split_first_chunk()?;
    let length = u32::from_ne_bytes(*length.first_chunk()?);
    let (bytes, rest) = rest.split_at_checked(length as usize)?;
    *found = rest;
    Some(Item {
        objectid: u64::from_ne_bytes(*objectid),
        kind: u32::from_ne_bytes(*kind),
        offset: u64::from_ne_bytes(*offset),
        bytes,
    })
}

/// An inode by number and generation, as a file handle says it (struct btrfs_fid, the part without a parent; fs/btrfs/export.h).
#[repr(C)]
struct Handle {
    bytes: u32,
    kind: i32,
    inode: [u8; 8],
    root: [u8; 8],
    generation: u32,
}

/// FILEID_BTRFS_WITHOUT_PARENT (include/linux/exportfs.h).
const HANDLE_KIND: i32 = 0x4d;

/// Bytes of a handle after its head (BTRFS_FID_SIZE_NON_CONNECTABLE words).
const HANDLE_BYTES: u32 = 20;

/// Opens the regular file `inode` of the subvolume `root` for reading, wherever it is named; `within` is any file of the mount.
/// ESTALE where there is none of that generation.
pub fn open_inode(
    within: BorrowedFd<'_>,
    root: u64,
    inode: u64,
    generation: u64,
) -> io::Result<OwnedFd> {
    let mut handle = Handle {
        bytes: HANDLE_BYTES,
        kind: HANDLE_KIND,
        inode: inode.to_ne_bytes(),
        root: root.to_ne_bytes(),
        // Handles have its lower half.
        generation: generation as u32,
    };
    let flags =
        libc::O_RDONLY | libc::O_CLOEXEC | libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_NOATIME;
    // SAFETY: the handle is a file_handle head followed by handle_bytes (20) bytes of it, all of which lie in the structure; the
    // kernel only reads it, and the descriptor it gives belongs to nobody else.
    unsafe {
        let handle = std::ptr::from_mut(&mut handle).cast::<libc::file_handle>();
        match libc::open_by_handle_at(within.as_raw_fd(), handle, flags) {
            -1 => Err(io::Error::last_os_error()),
            fd => Ok(OwnedFd::from_raw_fd(fd)),
        }
    }
}

/// Inode and generation of an open file.
pub fn inode_of(file: BorrowedFd<'_>) -> io::Result<(u64, u64)> {
    let mut handle = Handle {
        bytes: HANDLE_BYTES,
        kind: 0,
        inode: [0; 8],
        root: [0; 8],
        generation: 0,
    };
    let mut mount = 0;
    // SAFETY: as above, and the kernel writes at most handle_bytes (20) bytes after the head; the path is empty and ends with a
    // zero.
    let got = unsafe {
        let handle = std::ptr::from_mut(&mut handle).cast::<libc::file_handle>();
        libc::name_to_handle_at(
            file.as_raw_fd(),
            c"".as_ptr(),
            handle,
            &mut mount,
            libc::AT_EMPTY_PATH,
        )
    };
    match (got, handle.kind) {
        (0, HANDLE_KIND) => Ok((
            u64::from_ne_bytes(handle.inode),
            u64::from(handle.generation),
        )),
        (0, _) => Err(io::ErrorKind::Unsupported.into()),
        _ => Err(io::Error::last_os_error()),
    }
}
