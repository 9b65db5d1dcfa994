//! Looks at a live dataset for what a snapshot or a stream of it would not hold.
//!
//! Promise: every finding is one sentence. Reads only; stays in the subvolume. It deliberately does not know what is done
//! about the findings.

use std::fs::File;
use std::path::Path;

use anyhow::Context;
use rustix::fs::IFlags;

use super::mountinfo;
use super::place::Place;
use super::{flags, ioctl, subvolume, top};
use crate::fs::{Live, Result, Scan};

/// Facts about the live subvolume of `place`.
pub fn live(place: &Place, scan: Scan) -> Result<Live> {
    let dir = place.open_live()?;
    let shown = place.live.display();
    let info = ioctl::subvolume(&dir).with_context(|| format!("look at {shown}"))?;
    let mut not_replicated = root_sentences(&top::fd_path(&dir))?;
    let mounts = mountinfo::read()?;
    not_replicated.extend(mountinfo::below(&mounts, &place.live).map(|mount| {
        format!(
            "{} is another filesystem mounted inside: its files are not in snapshots",
            mount.point.display()
        )
    }));
    if scan == Scan::Whole {
        let found = flags::read(&dir, None::<&File>)
            .with_context(|| format!("read the flags of files in {shown}"))?;
        if found.left_out > 0 {
            not_replicated.push(format!("{} {}", found.left_out, flags::LEFT_OUT));
        }
        not_replicated.extend(swap_sentences(&place.live)?);
    }
    Ok(Live {
        path: place.live.clone(),
        generation: info.ctransid,
        uuid: info.uuid,
        not_replicated,
        nested: subvolume::nested(&top::fd_path(&dir)).context("list nested subvolumes")?,
    })
}

/// One sentence per nested subvolume, and one when the top directory cannot be as it is here.
pub fn root_sentences(subvolume: &Path) -> Result<Vec<String>> {
    let nested = subvolume::nested(subvolume).context("list nested subvolumes")?;
    let mut sentences: Vec<String> = nested
        .iter()
        .map(|path| {
            format!(
                "{} is a nested subvolume: make it a dataset of the role to have it replicated",
                path.display()
            )
        })
        .collect();
    let top = File::open(subvolume).context("open the top directory")?;
    let flags = rustix::fs::ioctl_getflags(&top).context("read flags of the top directory")?;
    if flags.intersects(IFlags::IMMUTABLE | IFlags::APPEND) {
        sentences.push(
            "the top directory is immutable or append-only (chattr +i, +a): this flag is not replicated"
                .to_owned(),
        );
    }
    Ok(sentences)
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
