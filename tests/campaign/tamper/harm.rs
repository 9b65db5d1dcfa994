//! What is done to a point behind the daemon's back, with the tools of an admin.

use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use crate::case::Case;
use crate::support::cluster::{TestNode, btrfs, noise};

/// Ways to harm one point, none of which destroys the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Harm {
    /// Made writable, changed, and flipped back.
    Changed,
    /// Made writable and left so.
    Writable,
    /// One of its files shares its blocks with another now: its bytes are the same, its stream is not.
    Deduplicated,
    /// `btrfs subvolume delete`.
    Gone,
    /// Replaced by a snapshot of itself: every byte is the same.
    Replaced,
    /// A file of its own is missing, empty, cut off, nonsense, another point's, or a link.
    Sidecar(Sidecar),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sidecar {
    Missing,
    Empty,
    CutOff,
    Nonsense,
    OtherPoints,
    Link,
    Directory,
}

pub const HARMS: [Harm; 12] = [
    Harm::Changed,
    Harm::Writable,
    Harm::Deduplicated,
    Harm::Gone,
    Harm::Replaced,
    Harm::Sidecar(Sidecar::Missing),
    Harm::Sidecar(Sidecar::Empty),
    Harm::Sidecar(Sidecar::CutOff),
    Harm::Sidecar(Sidecar::Nonsense),
    Harm::Sidecar(Sidecar::OtherPoints),
    Harm::Sidecar(Sidecar::Link),
    Harm::Sidecar(Sidecar::Directory),
];

impl Harm {
    pub fn words(self) -> &'static str {
        match self {
            Harm::Changed => "snapshots changed and flipped back",
            Harm::Writable => "snapshots left writable",
            Harm::Deduplicated => "snapshots deduplicated",
            Harm::Gone => "snapshots deleted",
            Harm::Replaced => "snapshots replaced by copies",
            Harm::Sidecar(_) => "manifests and local facts lost, cut or swapped",
        }
    }
}

/// Does it to a dataset of the node's point; `other` is another point of the node.
pub fn inflict(case: &mut Case, harm: Harm, node: &TestNode, short: &str, other: &str) {
    let dataset = *case.pick(&["files", "db"]);
    let snapshot = node.snapshot(short, dataset);
    match harm {
        Harm::Changed => {
            read_only(&snapshot, false);
            change(case, &snapshot);
            read_only(&snapshot, true);
        }
        Harm::Writable => {
            read_only(&snapshot, false);
            change(case, &snapshot);
        }
        Harm::Deduplicated => deduplicate(&snapshot),
        Harm::Gone => btrfs(&["subvolume", "delete", text(&snapshot)]),
        Harm::Replaced => {
            let copy = snapshot.with_file_name("copy");
            btrfs(&["subvolume", "snapshot", "-r", text(&snapshot), text(&copy)]);
            btrfs(&["subvolume", "delete", text(&snapshot)]);
            fs::rename(&copy, &snapshot).unwrap();
        }
        Harm::Sidecar(sidecar) => {
            let name = *case.pick(&[".manifest.json", ".local.json"]);
            let file = snapshot.with_file_name(name);
            spoil(
                sidecar,
                &file,
                &node.snapshot(other, dataset).with_file_name(name),
            );
        }
    }
}

fn spoil(sidecar: Sidecar, file: &Path, others: &Path) {
    let bytes = fs::read(file).unwrap();
    match sidecar {
        Sidecar::Missing => fs::remove_file(file).unwrap(),
        Sidecar::Empty => fs::write(file, "").unwrap(),
        Sidecar::CutOff => fs::write(file, &bytes[..bytes.len() / 2]).unwrap(),
        Sidecar::Nonsense => fs::write(file, noise(7, 5000)).unwrap(),
        Sidecar::OtherPoints => fs::write(file, fs::read(others).unwrap()).unwrap(),
        Sidecar::Link => {
            fs::remove_file(file).unwrap();
            std::os::unix::fs::symlink(others, file).unwrap();
        }
        Sidecar::Directory => {
            fs::remove_file(file).unwrap();
            fs::create_dir(file).unwrap();
        }
    }
}

/// One small change, of a kind the seed chooses.
fn change(case: &mut Case, snapshot: &Path) {
    let victim = first_file(snapshot);
    match case.below(4) {
        0 => fs::remove_file(victim).unwrap(),
        1 => fs::write(snapshot.join("planted"), "x").unwrap(),
        2 => fs::rename(&victim, snapshot.join("moved")).unwrap(),
        _ => {
            let mut bytes = fs::read(&victim).unwrap();
            bytes[0] ^= 1;
            fs::write(&victim, bytes).unwrap();
        }
    }
}

pub fn read_only(snapshot: &Path, yes: bool) {
    let word = if yes { "true" } else { "false" };
    btrfs(&["property", "set", "-f", "-ts", text(snapshot), "ro", word]);
}

fn first_file(dir: &Path) -> PathBuf {
    let mut entries: Vec<PathBuf> = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    entries.sort();
    let found = entries.iter().find(|path| path.is_file()).cloned();
    found.unwrap_or_else(|| {
        let dirs = entries.iter().filter(|path| path.is_dir());
        dirs.map(|dir| first_file(dir)).next().unwrap()
    })
}

/// `struct file_dedupe_range` with one `file_dedupe_range_info` (linux/fs.h).
#[repr(C)]
struct Dedupe {
    from: u64,
    length: u64,
    count: u16,
    reserved: [u16; 3],
    to: i64,
    to_offset: u64,
    deduped: u64,
    status: i32,
    reserved_too: u32,
}

/// The twins that every dataset holds share their blocks afterwards.
pub fn deduplicate(snapshot: &Path) {
    let twins = ["twin-a", "twin-b"].map(|name| File::open(snapshot.join(name)).unwrap());
    let mut dedupe = Dedupe {
        from: 0,
        length: TWIN_BYTES as u64,
        count: 1,
        reserved: [0; 3],
        to: i64::from(twins[1].as_raw_fd()),
        to_offset: 0,
        deduped: 0,
        status: 0,
        reserved_too: 0,
    };
    // SAFETY: the kernel reads and writes the one struct, which is as long as it says; both files are open.
    #[allow(unsafe_code)]
    let outcome = unsafe { libc::ioctl(twins[0].as_raw_fd(), FIDEDUPERANGE, &raw mut dedupe) };
    assert_eq!((outcome, dedupe.status), (0, 0));
    assert_eq!(dedupe.deduped, dedupe.length);
}

/// Size of each of the twins, in bytes.
pub const TWIN_BYTES: usize = 256 << 10;

/// _IOWR(0x94, 54, struct file_dedupe_range) (linux/fs.h)
const FIDEDUPERANGE: libc::Ioctl = 0xC018_9436_u32 as libc::Ioctl;

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}
