//! Looks at a live dataset for what a snapshot or a stream of it would not hold.
//!
//! Promise: every finding is one sentence that names an example and how many more there are. Reads only; follows no links;
//! stays in the subvolume. It deliberately does not know what is done about the findings.

use std::fs::File;
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use anyhow::Context;
use rustix::fs::{IFlags, OFlags};

use super::mountinfo;
use super::place::{Place, SUBVOLUME_INODE};
use super::{ioctl, subvolume, top};
use crate::fs::{Live, Result, Scan};

/// Facts about the live subvolume of `place`.
pub fn live(place: &Place, scan: Scan) -> Result<Live> {
    let dir = place.open_live()?;
    let shown = place.live.display();
    let info = ioctl::subvolume(&dir).with_context(|| format!("look at {shown}"))?;
    let mut not_replicated = nested_sentences(&top::fd_path(&dir))?;
    let mounts = mountinfo::read()?;
    not_replicated.extend(mountinfo::below(&mounts, &place.live).map(|mount| {
        format!(
            "{} is another filesystem mounted inside: its files are not in snapshots",
            mount.point.display()
        )
    }));
    if scan == Scan::Whole {
        let mut findings = Findings::default();
        // Through our own mount: it shows nothing mounted inside, and reading by it moves no access time.
        let inside = place.top.open_dir(&place.relative);
        inside
            .and_then(|dir| walk(&top::fd_path(&dir), &mut findings))
            .with_context(|| format!("look through {shown}"))?;
        not_replicated.extend(findings.sentences());
        not_replicated.extend(swap_sentences(&place.live)?);
    }
    Ok(Live {
        path: place.live.clone(),
        generation: info.ctransid,
        uuid: info.uuid,
        not_replicated,
    })
}

/// One sentence per nested subvolume.
pub fn nested_sentences(subvolume: &Path) -> Result<Vec<String>> {
    let nested = subvolume::nested(subvolume).context("list nested subvolumes")?;
    Ok(nested
        .iter()
        .map(|path| {
            format!(
                "{} is a nested subvolume: make it a dataset of the role to have it replicated",
                path.display()
            )
        })
        .collect())
}

/// Files with one property: how many, and the first met.
#[derive(Default)]
struct Finding {
    count: u64,
    example: PathBuf,
}

impl Finding {
    fn note(&mut self, path: &Path) {
        if self.count == 0 {
            self.example = path.to_owned();
        }
        self.count += 1;
    }

    fn sentence(&self, what: &str) -> Option<String> {
        let example = self.example.display();
        match self.count {
            0 => None,
            1 => Some(format!("{example} {what}")),
            more => Some(format!("{example} and {} more: each {what}", more - 1)),
        }
    }
}

/// Attributes that a file's first stream does not carry (measured on Linux 6.18, version 2: FILEATTR comes only for a file
/// that the base holds too, and only when it changed).
#[derive(Default)]
struct Findings {
    nocow: Finding,
    locked: Finding,
}

impl Findings {
    fn note(&mut self, path: &Path, flags: IFlags) {
        if flags.contains(IFlags::NOCOW) {
            self.nocow.note(path);
        }
        if flags.intersects(IFlags::IMMUTABLE | IFlags::APPEND) {
            self.locked.note(path);
        }
    }

    fn sentences(&self) -> Vec<String> {
        let nocow = self.nocow.sentence(
            "has the no-copy-on-write attribute (chattr +C): its content is replicated, the attribute is not",
        );
        let locked = self.locked.sentence(
            "is immutable or append-only (chattr +i, +a): its content is replicated, the attribute is not",
        );
        nocow.into_iter().chain(locked).collect()
    }
}

/// Visits every file and directory of the subvolume at `root`.
fn walk(root: &Path, findings: &mut Findings) -> io::Result<()> {
    let mut open = vec![PathBuf::new()];
    while let Some(dir) = open.pop() {
        let entries = match std::fs::read_dir(root.join(&dir)) {
            Ok(entries) => entries,
            // The dataset is live: what goes away while we look is no finding.
            Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
            Err(e) => return Err(e),
        };
        for entry in entries {
            let entry = entry?;
            let kind = entry.file_type()?;
            if !kind.is_dir() && !kind.is_file() {
                continue;
            }
            let path = dir.join(entry.file_name());
            let Some((flags, inode)) = flags(&root.join(&path)) else {
                continue;
            };
            if inode == SUBVOLUME_INODE {
                continue; // nested, reported by itself
            }
            findings.note(&path, flags);
            if kind.is_dir() {
                open.push(path);
            }
        }
    }
    Ok(())
}

fn flags(path: &Path) -> Option<(IFlags, u64)> {
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::NOATIME;
    let file = File::options()
        .read(true)
        .custom_flags(flags.bits() as i32)
        .open(path)
        .ok()?;
    let inode = file.metadata().ok()?.ino();
    Some((rustix::fs::ioctl_getflags(&file).ok()?, inode))
}

/// Swap files in use below `live`: snapshots are refused while they are.
fn swap_sentences(live: &Path) -> Result<Vec<String>> {
    let text = std::fs::read_to_string("/proc/swaps").context("read /proc/swaps")?;
    Ok(text
        .lines()
        .skip(1)
        .filter_map(|line| line.split_whitespace().next())
        .filter(|file| Path::new(file).starts_with(live))
        .map(|file| {
            format!("{file} is a swap file in use: btrfs refuses snapshots of its subvolume")
        })
        .collect())
}
