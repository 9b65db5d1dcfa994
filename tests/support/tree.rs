//! A directory tree that changes at random, in every way a filesystem allows.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::os::fd::AsFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FallocateFlags, FileType, IFlags, Mode, XattrFlags};

use super::random::Random;

/// Which names it gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Names {
    /// Any bytes but `/` and zero.
    Bytes,
    Text,
}

/// The tree at `root`.
pub struct Tree {
    root: PathBuf,
    random: Random,
    names: Names,
    /// Files do not grow beyond this, in bytes.
    file_bytes_max: u64,
    /// Whether preallocation may make files longer.
    grows: bool,
}

impl Tree {
    pub fn new(root: &Path, seed: u64, names: Names) -> Tree {
        Tree {
            root: root.to_owned(),
            random: Random::new(seed),
            names,
            file_bytes_max: 3 << 20,
            grows: true,
        }
    }

    /// Files are never made longer by preallocation alone. Linux (6.18) sends such a file too short when its data is inline
    /// and goes out compressed: no receiver can tell.
    #[must_use]
    pub fn without_growth(mut self) -> Tree {
        self.grows = false;
        self
    }

    /// Changes it so many times.
    pub fn change(&mut self, times: usize) {
        for _ in 0..times {
            self.once();
        }
    }

    /// Some changes do not apply to what they hit (a directory that is not empty, a name too long): then nothing happens.
    fn once(&mut self) {
        match self.random.below(34) {
            0..=4 => self.create(),
            5..=6 => self.mkdir(),
            7..=9 => self.overwrite(),
            10 => self.truncate(),
            11 => self.punch(),
            12 => self.preallocate(),
            13..=14 => self.reflink(),
            15 => self.hard_link(),
            16 => self.symlink(),
            17..=19 => self.rename(),
            20 => self.exchange(),
            21 => self.xattr(),
            22 => self.acl(),
            23 => self.chmod(),
            24 => self.chown(),
            25 => self.node(),
            26..=28 => self.remove(),
            29 => self.replace(),
            30 => self.sparse(),
            31..=32 => self.nocow(),
            _ => self.times(),
        }
    }

    /// Every object but the root.
    fn all(&self) -> Vec<(PathBuf, FileType)> {
        let mut found = Vec::new();
        let mut open = vec![self.root.clone()];
        while let Some(dir) = open.pop() {
            let mut entries: Vec<_> = std::fs::read_dir(&dir)
                .unwrap()
                .map(Result::unwrap)
                .collect();
            entries.sort_by_key(std::fs::DirEntry::file_name);
            for entry in entries {
                let stat = rustix::fs::lstat(entry.path()).unwrap();
                let kind = FileType::from_raw_mode(stat.st_mode);
                if kind == FileType::Directory {
                    open.push(entry.path());
                }
                found.push((entry.path(), kind));
            }
        }
        found
    }

    fn any(&mut self, kind: FileType) -> Option<PathBuf> {
        let all: Vec<_> = self
            .all()
            .into_iter()
            .filter(|(_, of)| *of == kind)
            .collect();
        Some(self.random.pick(&all)?.0.clone())
    }

    fn anything(&mut self) -> Option<PathBuf> {
        let all = self.all();
        Some(self.random.pick(&all)?.0.clone())
    }

    fn dir(&mut self) -> PathBuf {
        if self.random.one_in(4) {
            return self.root.clone();
        }
        self.any(FileType::Directory).unwrap_or(self.root.clone())
    }

    /// A new or (rarely) an existing name in some directory.
    fn place(&mut self) -> PathBuf {
        let length = if self.random.one_in(40) {
            255
        } else {
            1 + self.random.below(12)
        };
        let name: Vec<u8> = (0..length)
            .map(|_| match self.names {
                Names::Text => b'a' + self.random.below(26) as u8,
                Names::Bytes => match self.random.below(256) as u8 {
                    0 | b'/' => b'_',
                    byte => byte,
                },
            })
            .collect();
        let name = match &name[..] {
            b"." | b".." => b"dots".to_vec(),
            _ => name,
        };
        let place = self.dir().join(OsString::from_vec(name));
        // Deeper paths than PATH_MAX cannot be sent at all.
        if place.as_os_str().len() > 2000 {
            self.root.join("shallow")
        } else {
            place
        }
    }

    fn file(&mut self) -> Option<File> {
        let path = self.any(FileType::RegularFile)?;
        OpenOptions::new().read(true).write(true).open(path).ok()
    }

    fn create(&mut self) {
        let place = self.place();
        let size = match self.random.below(6) {
            0 => 0,
            1..=3 => self.random.below(3000),
            4 => self.random.below(200_000),
            _ => self.random.below(1 << 20),
        };
        let data = self.random.bytes(size as usize);
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o640)
            .open(place);
        if let Ok(file) = file {
            file.write_all_at(&data, 0).unwrap();
        }
    }

    fn mkdir(&mut self) {
        let _ = std::fs::create_dir(self.place());
    }

    fn overwrite(&mut self) {
        let Some(file) = self.file() else { return };
        let size = file.metadata().unwrap().len();
        for _ in 0..1 + self.random.below(4) {
            let room = self.file_bytes_max.min(size + 100_000);
            let offset = self.random.below(room);
            let length = self.random.below(20_000) as usize;
            let data = self.random.bytes(length);
            file.write_all_at(&data, offset).unwrap();
        }
    }

    fn truncate(&mut self) {
        let Some(file) = self.file() else { return };
        let size = file.metadata().unwrap().len();
        let size = self.random.below((size + 50_000).min(self.file_bytes_max));
        file.set_len(size).unwrap();
    }

    fn range(&mut self, file: &File) -> (u64, u64) {
        let size = file.metadata().unwrap().len();
        let offset = self.random.below(size + 10_000);
        let length = 1 + self.random.below(size / 2 + 5000);
        if self.random.one_in(2) {
            (offset & !4095, (length + 4095) & !4095)
        } else {
            (offset, length)
        }
    }

    fn punch(&mut self) {
        let Some(file) = self.file() else { return };
        let (offset, length) = self.range(&file);
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        rustix::fs::fallocate(&file, flags, offset, length).unwrap();
    }

    fn preallocate(&mut self) {
        let Some(file) = self.file() else { return };
        let (offset, length) = self.range(&file);
        let flags = if self.random.one_in(2) || !self.grows {
            FallocateFlags::KEEP_SIZE
        } else {
            FallocateFlags::empty()
        };
        rustix::fs::fallocate(&file, flags, offset, length).unwrap();
    }

    fn reflink(&mut self) {
        let (Some(from), Some(to)) = (self.file(), self.file()) else {
            return;
        };
        let size = from.metadata().unwrap().len() & !4095;
        if size == 0 {
            return;
        }
        let offset = self.random.below(size) & !4095;
        let length = (self.random.below(size - offset) & !4095).max(4096);
        let target = self.random.below(self.file_bytes_max) & !4095;
        clone(&to, target, &from, offset, length);
    }

    fn hard_link(&mut self) {
        let Some(from) = self.any(FileType::RegularFile) else {
            return;
        };
        let _ = std::fs::hard_link(from, self.place());
    }

    fn symlink(&mut self) {
        let target = self.place();
        let target = match self.random.below(3) {
            0 => PathBuf::from("/etc/passwd"),
            1 => PathBuf::from("../../.."),
            _ => target.strip_prefix(&self.root).unwrap().to_owned(),
        };
        let _ = std::os::unix::fs::symlink(target, self.place());
    }

    fn rename(&mut self) {
        let Some(from) = self.anything() else { return };
        let to = match self.random.below(4) {
            0 => self.anything().unwrap_or_default(),
            _ => self.place(),
        };
        let _ = std::fs::rename(from, to);
    }

    /// Swaps two objects, a directory with one inside another among them.
    fn exchange(&mut self) {
        let (Some(one), Some(other)) = (self.anything(), self.anything()) else {
            return;
        };
        let flags = rustix::fs::RenameFlags::EXCHANGE;
        let _ = rustix::fs::renameat_with(CWD, &one, CWD, &other, flags);
    }

    fn xattr(&mut self) {
        let Some(path) = self.anything() else { return };
        let length = if self.random.one_in(5) {
            3000
        } else {
            self.random.below(50)
        };
        let value = self.random.bytes(length as usize);
        let number = self.random.below(4);
        let name = match self.random.below(8) {
            0 => "btrfs.compression".to_string(),
            1 => "security.capability".to_string(),
            2 | 3 => format!("trusted.t{number}"),
            _ => format!("user.u{number}"),
        };
        if self.random.one_in(3) {
            let _ = rustix::fs::lremovexattr(&path, &*name);
            return;
        }
        let value: &[u8] = match &*name {
            "btrfs.compression" => b"zstd",
            // struct vfs_cap_data, revision 2: cap_net_bind_service, permitted and effective.
            "security.capability" => &[1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
            _ => &value,
        };
        let _ = rustix::fs::lsetxattr(&path, &*name, value, XattrFlags::empty());
    }

    fn acl(&mut self) {
        let path = if self.random.one_in(10) {
            self.root.clone()
        } else {
            match self.anything() {
                Some(path) => path,
                None => return,
            }
        };
        let name = if self.random.one_in(2) {
            "system.posix_acl_access"
        } else {
            "system.posix_acl_default"
        };
        if self.random.one_in(4) {
            let _ = rustix::fs::lremovexattr(&path, name);
            return;
        }
        // linux/posix_acl_xattr.h: version 2, then entries of tag, permissions and id.
        let user = 1000 + self.random.below(3) as u32;
        let entries = [
            (1u16, 7u16, !0u32),
            (2, 5, user),
            (4, 5, !0),
            (0x10, 7, !0),
            (0x20, 1, !0),
        ];
        let mut value = 2u32.to_le_bytes().to_vec();
        for (tag, permissions, id) in entries {
            value.extend(tag.to_le_bytes());
            value.extend(permissions.to_le_bytes());
            value.extend(id.to_le_bytes());
        }
        let _ = rustix::fs::lsetxattr(&path, name, &value, XattrFlags::empty());
    }

    fn chmod(&mut self) {
        let Some(path) = self.anything() else { return };
        if path.is_symlink() {
            return;
        }
        let mode = self.random.below(0o10000) as u32;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    }

    fn chown(&mut self) {
        let path = self.anything().unwrap_or(self.root.clone());
        let (uid, gid) = (
            self.random.below(3000) as u32,
            self.random.below(3000) as u32,
        );
        std::os::unix::fs::lchown(path, Some(uid), Some(gid)).unwrap();
    }

    fn node(&mut self) {
        let place = self.place();
        let (kind, device) = match self.random.below(4) {
            0 => (FileType::Fifo, 0),
            1 => (FileType::Socket, 0),
            2 => (FileType::CharacterDevice, rustix::fs::makedev(1, 3)),
            _ => (FileType::BlockDevice, rustix::fs::makedev(300, 70_000)),
        };
        let _ = rustix::fs::mknodat(CWD, &place, kind, Mode::from_raw_mode(0o600), device);
    }

    fn remove(&mut self) {
        let Some(path) = self.anything() else { return };
        if std::fs::remove_file(&path).is_err() {
            let whole = self.random.one_in(6);
            let _ = if whole {
                std::fs::remove_dir_all(&path)
            } else {
                std::fs::remove_dir(&path)
            };
        }
    }

    /// A name that now means another kind of thing.
    fn replace(&mut self) {
        let Some(path) = self.anything() else { return };
        if std::fs::remove_file(&path)
            .or_else(|_| std::fs::remove_dir(&path))
            .is_err()
        {
            return;
        }
        if self.random.one_in(2) {
            std::fs::create_dir(&path).unwrap();
        } else {
            std::fs::write(&path, self.random.bytes(500)).unwrap();
        }
    }

    fn sparse(&mut self) {
        let Ok(file) = File::create_new(self.place()) else {
            return;
        };
        for _ in 0..3 {
            let offset = self.random.below(self.file_bytes_max);
            let data = self.random.bytes(5000);
            file.write_all_at(&data, offset).unwrap();
        }
    }

    /// A new file or directory that is written in place. What a directory of some compression passes on stands against it.
    fn nocow(&mut self) {
        let place = self.place();
        let is_dir = self.random.one_in(3);
        let made = if is_dir {
            std::fs::create_dir(&place).and_then(|()| File::open(&place))
        } else {
            File::create_new(&place)
        };
        let size = self.random.below(300_000) as usize;
        let data = self.random.bytes(size);
        let Ok(made) = made else { return };
        let flags = rustix::fs::ioctl_getflags(&made).unwrap() | IFlags::NOCOW;
        let _ = rustix::fs::ioctl_setflags(&made, flags);
        if !is_dir {
            made.write_all_at(&data, 0).unwrap();
        }
    }

    fn times(&mut self) {
        let path = self.anything().unwrap_or(self.root.clone());
        let seconds = self.random.below(4_000_000_000) as i64 - 1_000_000_000;
        let moment = rustix::fs::Timespec {
            tv_sec: seconds,
            tv_nsec: self.random.below(1_000_000_000) as _,
        };
        let times = rustix::fs::Timestamps {
            last_access: moment,
            last_modification: moment,
        };
        rustix::fs::utimensat(CWD, &path, &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
    }
}

/// FICLONERANGE by way of copy_file_range would not be sure to share; xfs_io is not everywhere. One ioctl, then.
#[allow(unsafe_code)]
pub fn clone(to: impl AsFd, offset: u64, from: impl AsFd, from_offset: u64, len: u64) -> bool {
    use rustix::ioctl::{Opcode, Setter, ioctl, opcode};
    use std::os::fd::AsRawFd;
    #[repr(C)]
    struct Range(i64, u64, u64, u64);
    const CLONE_RANGE: Opcode = opcode::write::<Range>(0x94, 13);
    let range = Range(
        i64::from(from.as_fd().as_raw_fd()),
        from_offset,
        len,
        offset,
    );
    // SAFETY: the opcode carries the size of `Range`, which has the layout of struct file_clone_range.
    unsafe { ioctl(to, Setter::<CLONE_RANGE, Range>::new(range)) }.is_ok()
}

/// For messages: a path in any bytes.
pub fn shown(path: &Path) -> String {
    path.as_os_str().as_bytes().escape_ascii().to_string()
}
