//! Looks at a live dataset for what a snapshot or a stream of it would not hold.
//!
//! Promise: every finding is one sentence. Reads only; stays in the subvolume. It deliberately does not know what is done
//! about the findings.

use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::Context;
use rustix::fs::IFlags;

use super::mountinfo;
use super::place::Place;
use super::{flags, ioctl, nested, subvolume, top};
use crate::fs::{Live, Result, Scan, nested_sentence};

/// Facts about the live subvolume of `place`. `datasets` are the live paths of all datasets of the role.
pub fn live(place: &Place, datasets: &[PathBuf], scan: Scan) -> Result<Live> {
    let dir = place.open_live()?;
    let shown = place.live.display();
    let info = ioctl::subvolume(&dir).with_context(|| format!("look at {shown}"))?;
    let around = look_around(&dir, &place.live, datasets)?;
    let mut not_replicated = around.sentences();
    let mounts = mountinfo::read()?;
    not_replicated.extend(mountinfo::below(&mounts, &place.live).filter_map(|mount| {
        let nested = |path: &&PathBuf| path.starts_with(&place.live) && **path != place.live;
        let mut datasets = datasets.iter().filter(nested);
        let is_dataset = datasets.any(|path| mount.point.starts_with(path));
        (!is_dataset).then(|| {
            format!(
                "{} is another filesystem mounted inside: its files are not in snapshots",
                mount.point.display()
            )
        })
    }));
    let mut prevents = Vec::new();
    if scan == Scan::Whole {
        let found = flags::read(&dir, None::<&File>)
            .with_context(|| format!("read the flags of files in {shown}"))?;
        not_replicated.extend(found.sentences());
        prevents = swap_sentences(&dir, &place.live)?;
    }
    Ok(Live {
        path: place.live.clone(),
        uuid: info.uuid,
        not_replicated,
        nested: around.unheld,
        prevents,
    })
}

/// What stands out at a subvolume without looking at its files.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Around {
    /// Nested subvolumes that are no dataset of the role, by their paths inside.
    pub unheld: Vec<PathBuf>,
    /// All that lie in no other nested one: a snapshot has an empty directory in the place of each.
    pub stubs: Vec<PathBuf>,
    others: Vec<String>,
}

impl Around {
    /// What a snapshot does not hold, one sentence each.
    pub fn sentences(&self) -> Vec<String> {
        let nested = self.unheld.iter().map(|path| nested_sentence(path));
        nested.chain(self.others.iter().cloned()).collect()
    }
}

/// Looks at the subvolume behind `dir`, which is live at `live`.
pub fn look_around(dir: &File, live: &Path, datasets: &[PathBuf]) -> Result<Around> {
    let all = subvolume::nested(&top::fd_path(dir)).context("list nested subvolumes")?;
    let mut around = Around {
        stubs: nested::outermost(all.clone()),
        unheld: all,
        others: Vec::new(),
    };
    let inside: Vec<&Path> = datasets
        .iter()
        .filter_map(|path| path.strip_prefix(live).ok())
        .filter(|path| !path.as_os_str().is_empty())
        .collect();
    around
        .unheld
        .retain(|path| !inside.iter().any(|dataset| path.starts_with(dataset)));
    let flags = rustix::fs::ioctl_getflags(dir).context("read flags of the top directory")?;
    if flags.intersects(IFlags::IMMUTABLE | IFlags::APPEND) {
        around.others.push(
            "the top directory is immutable or append-only (chattr +i, +a): this flag is not replicated"
                .to_owned(),
        );
    }
    if is_limited(dir).context("look for a quota limit")? {
        around.others.push(
            "a quota limit is set on the subvolume (btrfs qgroup limit): quota groups and their limits are not replicated"
                .to_owned(),
        );
    }
    Ok(around)
}

/// Whether the quota group of the subvolume itself has a limit (kernel: fs/btrfs/sysfs.c, qgroups/<level>_<id>).
fn is_limited(dir: &File) -> io::Result<bool> {
    let (id, fsid) = (ioctl::subvolume(dir)?.id, ioctl::fs_info(dir)?.fsid);
    let file = format!("/sys/fs/btrfs/{fsid}/qgroups/0_{id}/limit_flags");
    match std::fs::read_to_string(file) {
        Ok(text) => Ok(!matches!(text.trim(), "0" | "0x0")),
        // Quotas are off, or the kernel is older than 5.9.
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(e) => Err(e),
    }
}

/// Swap files in use in the subvolume behind `dir`: snapshots are refused while they are.
fn swap_sentences(dir: &File, live: &Path) -> Result<Vec<String>> {
    let text = std::fs::read_to_string("/proc/swaps").context("read /proc/swaps")?;
    let device = dir.metadata().context("look at the subvolume")?.dev();
    // A nested subvolume may hold one: it has a device number of its own. A name with blanks is spelled with escapes here
    // and not found: then the path decides.
    let here = |file: &&str| match std::fs::metadata(file) {
        Ok(found) => found.dev() == device,
        Err(_) => Path::new(file).starts_with(live),
    };
    Ok(text
        .lines()
        .skip(1)
        .filter_map(|line| line.split_whitespace().next())
        .filter(here)
        .map(|file| {
            format!("{file} is a swap file in use: btrfs refuses snapshots of its subvolume")
        })
        .collect())
}
