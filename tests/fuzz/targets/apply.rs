//! The applier on a real btrfs: whatever commands come, in whatever order, nothing outside the tree changes, and no fault
//! of this machine's is caused.
//!
//! An input is read as choices of commands, names and numbers, so that nearly every input applies something; the bytes then
//! go through the real parser. Thousands a second: one directory for each input in a subvolume that is replaced now and then,
//! nothing synced, the guard looked at after each input and everything else audited after every [`AUDIT_EVERY`].

use std::fs;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use standin::fs::btrfs::stream::{Cloned, Command, Encoded, Encoder, Moment};
use standin::fs::btrfs::trial::Trial;
use standin::logic::accept::{Accept, Treatment};
use standin::logic::transfer::{FileFlags, StreamIdentity};
use uuid::Uuid;

use super::draw::Draw;
use super::{State, Target};
use crate::support::audit::{Audit, assert_unchanged, audit};
use crate::support::commands::put_checksums_right;
use crate::support::fixture::{Loop, ready};
use crate::support::random::Random;
use crate::support::receiving::{sent, snapshot, uuid_of};
use crate::support::tree::{Names, Tree};

pub const TARGET: Target = Target {
    name: "apply",
    what: "Whatever commands are applied to a real btrfs, nothing outside the tree changes and no machine fault is caused",
    needs_disk: true,
    bytes_max: 300,
    seeds,
    start: || Box::new(Ground::new()),
};

const AUDIT_EVERY: u64 = 500;
const SUBVOLUME_EVERY: u64 = 2000;
const COMMANDS_MAX: usize = 24;

const US: Uuid = Uuid::from_u128(0x5555);

struct Ground {
    /// The filesystem, by a descriptor: its mount is detached already, so that nothing is left however this ends.
    root: PathBuf,
    _open: OwnedFd,
    base: Uuid,
    foreign: Uuid,
    flags: FileFlags,
    paths: Vec<Vec<u8>>,
    /// What a compressed piece of a file may hold.
    packed: Vec<u8>,
    before: Audit,
    inputs: u64,
    subvolume: PathBuf,
}

impl Ground {
    fn new() -> Ground {
        let disk = Loop::with_options(3 << 30, "noatime,nodatasum,nobarrier,commit=300");
        let flags = rustix::fs::OFlags::DIRECTORY | rustix::fs::OFlags::CLOEXEC;
        let open = rustix::fs::open(disk.path(), flags, rustix::fs::Mode::empty()).unwrap();
        drop(disk);
        let root = PathBuf::from(format!("/proc/self/fd/{}/.", open.as_raw_fd()));
        let outside = root.join("outside");
        fs::create_dir_all(outside.join("dir")).unwrap();
        fs::write(outside.join("file"), b"untouched").unwrap();
        fs::write(outside.join("dir/file"), vec![3; 9000]).unwrap();
        std::os::unix::fs::symlink("dir/file", outside.join("link")).unwrap();
        for name in ["live", "work"] {
            libbtrfsutil::create_subvolume(root.join(name)).unwrap();
            fs::write(root.join(name).join("f"), vec![7; 70_000]).unwrap();
        }
        snapshot(&root.join("work"), &root.join("base"));
        snapshot(&root.join("live"), &root.join("foreign"));
        let mut ground = Ground {
            base: uuid_of(&root.join("base")),
            foreign: uuid_of(&root.join("foreign")),
            flags: serde_json::from_str(
                r#"{"nocow":[300,0],"immutable":[301,0],"append":[302,0]}"#,
            )
            .unwrap(),
            paths: paths(&root),
            packed: zstd::bulk::compress(&VALUE, 1).unwrap(),
            before: Audit::new(),
            inputs: 0,
            subvolume: root.join("t.0"),
            root,
            _open: open,
        };
        ground.replace();
        ground.before = ground.audit();
        ground
    }

    /// All but what is being written to.
    fn audit(&self) -> Audit {
        let mut found = audit(&self.root, |path| path.starts_with(&self.subvolume));
        // Subvolumes come and go in it.
        found.remove(&self.root);
        found
    }

    /// A fresh subvolume in place of the old one.
    fn replace(&mut self) {
        let next = self
            .root
            .join(format!("t.{}", self.inputs / SUBVOLUME_EVERY + 1));
        libbtrfsutil::create_subvolume(&next).unwrap();
        if self.subvolume.exists() {
            libbtrfsutil::delete_subvolume(&self.subvolume).unwrap();
        }
        self.subvolume = next;
        fs::write(self.subvolume.join("guard"), b"untouched").unwrap();
    }

    /// What any entry made, changed or removed beside the tree would move.
    fn beside(&self) -> [(i64, i64, u64); 2] {
        [self.subvolume.clone(), self.subvolume.join("guard")].map(|path| {
            let meta = fs::symlink_metadata(path).unwrap();
            (meta.ctime(), meta.ctime_nsec(), meta.size())
        })
    }

    fn apply(&self, dir: &Path, input: &[u8]) {
        let mut draw = Draw(input);
        let mode = draw.byte();
        let accept = match mode >> 6 {
            0 | 1 => Accept::default(),
            2 => all(Treatment::Drop),
            _ => all(Treatment::Refuse),
        };
        let identity = StreamIdentity {
            snapshot: US,
            base: None,
            version: 2,
        };
        let sources = [(self.base, self.root.join("base"))];
        let flags = self.flags.clone();
        let mut trial = Trial::new(dir, &identity, sources, flags, accept, 1 << 30).unwrap();
        let mut bytes = self.stream(&mut draw).into_bytes();
        if mode & 3 == 3 && !draw.is_over() {
            let at = draw.number() as usize % bytes.len();
            bytes[at] ^= draw.byte();
            put_checksums_right(&mut bytes);
        }
        // A stream that is none ends there.
        let _ = trial.feed(&bytes);
        let tried = trial.end(mode & 4 == 0);
        // The fuzzer's own timer interrupts calls.
        let interrupted = |fault: &&String| !fault.contains("Interrupted");
        let faults: Vec<&String> = tried.faults.iter().filter(interrupted).collect();
        assert!(faults.is_empty(), "{faults:?}");
    }

    fn stream(&self, draw: &mut Draw<'_>) -> Encoder {
        let mut stream = Encoder::new(2);
        stream.put(&Command::Subvol {
            path: b"s",
            uuid: US,
            ctransid: 1,
        });
        for _ in 0..COMMANDS_MAX {
            if draw.is_over() {
                break;
            }
            self.command(draw, &mut stream);
        }
        stream
    }

    fn path(&self, draw: &mut Draw<'_>) -> Vec<u8> {
        // Most choices are names that exist now and then, or the input would be refusals only.
        match draw.byte() {
            choice @ 0..=199 => self.paths[usize::from(choice) % PLAIN.len()].clone(),
            250.. => draw.bytes(7).to_vec(),
            choice => self.paths[usize::from(choice - 200) % self.paths.len()].clone(),
        }
    }

    fn command(&self, draw: &mut Draw<'_>, stream: &mut Encoder) {
        let kind = draw.byte() % 24;
        let path = &self.path(draw)[..];
        match kind {
            0..=2 => {
                let inode = draw.pick(&[None, Some(257), Some(300), Some(301), Some(302)]);
                stream.put(&Command::Mkfile { path, inode });
            }
            3 | 4 => {
                let inode = draw.pick(&[None, None, Some(300), Some(301)]);
                stream.put(&Command::Mkdir { path, inode });
            }
            5 | 6 => {
                let target = &self.path(draw)[..];
                stream.put(&Command::Symlink { path, target });
            }
            7 | 8 => {
                let to = &self.path(draw)[..];
                stream.put(&Command::Rename { from: path, to });
            }
            9 => {
                let existing = &self.path(draw)[..];
                stream.put(&Command::Link { path, existing });
            }
            10 => {
                stream.put(&Command::Unlink { path });
            }
            11 => {
                stream.put(&Command::Rmdir { path });
            }
            12 => {
                let mode = draw.pick(&[0o20600, 0o60600, 0o10644, 0o100644, 0o40755, 0]);
                let device = draw.pick(&[0x501, 259, 0, u64::MAX]);
                stream.put(&Command::Mknod { path, mode, device });
            }
            13 => {
                let pipe = draw.byte() & 1 == 0;
                stream.put(&match pipe {
                    true => Command::Mkfifo { path },
                    false => Command::Mksock { path },
                });
            }
            _ => self.fact(kind, path, draw, stream),
        }
    }

    fn fact(&self, kind: u8, path: &[u8], draw: &mut Draw<'_>, stream: &mut Encoder) {
        match kind {
            14 => {
                let name = draw.pick(&NAMES);
                if draw.byte() & 1 == 0 {
                    let value = &VALUE[..draw.pick(&[0, 3, 28, 200])];
                    stream.put(&Command::SetXattr { path, name, value });
                } else {
                    stream.put(&Command::RemoveXattr { path, name });
                }
            }
            15 => {
                let mode = draw.pick(&[0o644, 0, 0o4755, 0o2755, 0o7777, u64::MAX]);
                stream.put(&Command::Chmod { path, mode });
            }
            16 => {
                let uid = draw.pick(&[0, 1000, u64::from(u32::MAX), u64::MAX]);
                let gid = draw.pick(&[0, 100, 1 << 40]);
                stream.put(&Command::Chown { path, uid, gid });
            }
            17 => {
                let moment = Moment {
                    seconds: draw.pick(&[0, 1_700_000_000, -5, i64::MAX, i64::MIN]),
                    nanoseconds: draw.pick(&[0, 999_999_999]),
                };
                stream.put(&Command::Utimes {
                    path,
                    accessed: moment,
                    modified: moment,
                    changed: moment,
                });
            }
            18 => {
                let flags = draw.pick(&[0, 2, 64, 128, 32 | 256, u64::MAX]);
                stream.put(&Command::Fileattr { path, flags });
            }
            _ => self.data(kind, path, draw, stream),
        }
    }

    fn data(&self, kind: u8, path: &[u8], draw: &mut Draw<'_>, stream: &mut Encoder) {
        let offset = draw.pick(&OFFSETS);
        let len = draw.pick(&LENGTHS);
        match kind {
            19 | 20 => {
                let data = vec![draw.byte(); len.min(40_000) as usize];
                let data = &data[..];
                stream.put(&Command::Write { path, offset, data });
            }
            21 => {
                stream.put(&Command::Truncate { path, size: offset });
            }
            22 => {
                let source_path = &self.path(draw)[..];
                stream.put(&Command::Clone(Cloned {
                    path,
                    offset,
                    len,
                    source: draw.pick(&[US, self.base, self.foreign]),
                    source_ctransid: 1,
                    source_path,
                    source_offset: draw.pick(&OFFSETS),
                }));
            }
            _ if draw.byte() & 1 == 0 => {
                let mode = draw.pick(&[0, 1, 3, 8, u32::MAX]);
                stream.put(&Command::Fallocate {
                    path,
                    mode,
                    offset,
                    len,
                });
            }
            _ => {
                let data = if draw.byte() & 1 == 0 {
                    &self.packed[..]
                } else {
                    draw.bytes(20)
                };
                let (skip, file_len) = (draw.pick(&[0, 0, 100, 4096]), len.min(131_072));
                stream.put(&Command::EncodedWrite(Encoded {
                    path,
                    offset,
                    file_len,
                    len: draw.pick(&[file_len, file_len + skip, 131_072, 1 << 40]),
                    skip,
                    compression: draw.pick(&[2, 2, 2, 0, 1, 3, u32::MAX]),
                    encryption: draw.pick(&[0, 0, 0, 1]),
                    data,
                }));
            }
        }
    }
}

fn all(treatment: Treatment) -> Accept {
    Accept {
        devices: treatment,
        setuid: treatment,
        security: treatment,
        trusted: treatment,
    }
}

/// Names that can exist.
const PLAIN: [&[u8]; 9] = [
    b"f", b"d", b"d/f", b"l", b"d/e", b"g", b"d/e/f", b"l/f", b"d/l",
];

const NAMES: [&[u8]; 8] = [
    b"user.a",
    b"security.capability",
    b"trusted.overlay.opaque",
    b"system.posix_acl_default",
    b"system.posix_acl_access",
    b"btrfs.compression",
    b"nonsense",
    b"user.",
];

const VALUE: [u8; 200] = [b'z'; 200];

const OFFSETS: [u64; 10] = [
    0,
    0,
    1,
    4096,
    5000,
    1 << 20,
    1 << 40,
    (1 << 63) - 1,
    (1 << 63) - 4097,
    1 << 63,
];

const LENGTHS: [u64; 10] = [
    10,
    100,
    4096,
    1,
    2000,
    4096,
    8192,
    40_000,
    1 << 40,
    (1 << 63) - 1,
];

/// Names that can exist first, then those that must lead nowhere.
fn paths(root: &Path) -> Vec<Vec<u8>> {
    let mut paths: Vec<Vec<u8>> = PLAIN.iter().map(|path| path.to_vec()).collect();
    let absolute = |path: &str| root.join(path).display().to_string().into_bytes();
    let long = |length: usize| vec![b'n'; length];
    let hostile: [&[u8]; 14] = [
        b"",
        b".",
        b"..",
        b"../guard",
        b"d/../../guard",
        b"l/../f",
        b"/",
        b"f/",
        b"a\0b",
        b"../../outside/file",
        b"../../outside",
        b"/proc/self/root",
        b"l/guard",
        b"d//f",
    ];
    paths.extend(hostile.iter().map(|path| path.to_vec()));
    paths.extend([
        absolute("outside"),
        absolute("outside/file"),
        absolute("live/f"),
    ]);
    paths.extend([long(255), long(256), [&long(255)[..], b"/x"].concat()]);
    paths
}

impl State for Ground {
    fn run(&mut self, input: &[u8]) {
        self.inputs += 1;
        if self.inputs % SUBVOLUME_EVERY == 0 {
            self.replace();
        }
        let dir = self.subvolume.join(self.inputs.to_string());
        fs::create_dir(&dir).unwrap();
        let beside = self.beside();
        self.apply(&dir, input);
        assert_eq!(beside, self.beside(), "something changed beside the tree");
        if self.inputs % AUDIT_EVERY == 0 {
            let what = format!("the rest of the filesystem, since {AUDIT_EVERY} inputs");
            assert_unchanged(&self.before, &self.audit(), &what);
        }
    }
}

fn seeds() -> Vec<Vec<u8>> {
    let mut random = Random::new(7);
    let mut seeds = Vec::new();
    for length in [20, 40, 80, 160] {
        // Something to work on, then choices.
        let begin = [
            4 * random.below(60) as u8,
            3,
            1,
            0,
            0,
            0,
            0,
            3,
            4,
            0,
            5,
            3,
            201,
        ];
        seeds.extend((0..16).map(|_| {
            let choices = (0..length).map(|_| random.next() as u8);
            begin.iter().copied().chain(choices).collect()
        }));
    }
    seeds
}

/// Small streams of the running kernel, with and without file data; none where that cannot be had.
pub fn real_streams() -> Vec<Vec<u8>> {
    if !ready("real streams as seeds") {
        return Vec::new();
    }
    let disk = Loop::new(1 << 30);
    let live = disk.join("live");
    libbtrfsutil::create_subvolume(&live).unwrap();
    let mut tree = Tree::new(&live, 5, Names::Text);
    let mut base: Option<PathBuf> = None;
    let mut streams = Vec::new();
    for round in 0..4 {
        tree.change(12);
        let taken = disk.join(&format!("s{round}"));
        snapshot(&live, &taken);
        for (version, more) in [(1, "--no-data"), (2, "--no-data"), (2, "-q")] {
            let mut stream = sent(base.as_deref(), &taken, version, &[more]);
            stream.truncate(TARGET_BYTES);
            streams.push(stream);
        }
        base = Some(taken);
    }
    streams
}

/// Of a real stream, so much is worth trying.
const TARGET_BYTES: usize = 12 << 10;
