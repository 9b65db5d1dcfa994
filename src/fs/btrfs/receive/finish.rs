//! The end of a receive: everything is checked, then the subvolume gets its place, its identity and its record.
//!
//! Order, and what a crash after each step leaves. Before the record the checkpoints are still there, and opening the place
//! again removes what is in the finished place and goes on from the newest of them:
//!
//! ```text
//!   what waited is done, the tree moved   a writable subvolume in the finished place
//!   identity set, read-only, synced       one that only lacks its record
//!   local.json                            complete
//!   checkpoints removed                   complete
//! ```
//!
//! A read-only subvolume cannot be moved to another directory, so it is moved first.

use anyhow::Context;

use super::super::apply::ioctl;
use super::super::freeze::freeze;
use super::engine::Trouble;
use super::receiver::{Receiver, error};
use super::{checkpoint, work};
use crate::fs::Result;
use crate::logic::manifest::LocalDataset;
use crate::logic::transfer::StreamIdentity;

/// What a stream of this identity does not say, and what could not be done.
fn not_carried(lost: u64, identity: &StreamIdentity) -> Vec<String> {
    let mut sentences = Vec::new();
    if lost > 0 {
        sentences.push(format!(
            "{lost} facts of files (flags, attributes) could not be carried over"
        ));
    }
    if identity.version < 2 && identity.base.is_some() {
        sentences.push(
            "it came as a stream of version 1: flags (chattr) that were changed on files of the base are as they were, and \
             holes that were made in them are zeros"
                .to_owned(),
        );
    }
    sentences
}

/// `bytes` and `hash`: the sender's, of the whole stream.
pub(super) fn finish(receiver: Receiver, bytes: u64, hash: &str) -> Result<LocalDataset> {
    let offset = receiver.run.hash.bytes();
    let refuse = |why: String| {
        let command = "end".to_owned();
        Err(receiver.error(Trouble::Refused {
            offset,
            command,
            why,
        }))
    };
    if !receiver.run.progress.ended || !receiver.run.tail.is_empty() {
        return refuse("the stream ends before its end command".into());
    }
    if offset != bytes {
        return refuse(format!("{offset} bytes came, {bytes} were sent"));
    }
    let ours = receiver.run.hash.value();
    if ours != hash {
        return refuse("the hash differs from the sender's".into());
    }
    let Receiver { setting, run, .. } = receiver;
    let (work, dataset) = (&setting.work, &setting.dataset);
    let data_bytes = run.progress.data_bytes;
    // From here on nobody but this process works in the tree.
    let settled = run.engine.settle();
    let settled = settled.map_err(|trouble| error(trouble, &setting))?;
    if settled.lost > 0 {
        tracing::warn!(%dataset, lost = settled.lost, "facts of files were not carried over");
    }

    let finished = work.finished();
    std::fs::rename(work.tree(), finished)
        .with_context(|| format!("move the received data to {}", finished.display()))?;
    freeze("finish-moved");
    ioctl::set_received(&run.top, setting.identity.snapshot, settled.ctransid)
        .context("set the received identity")?;
    libbtrfsutil::set_subvolume_read_only(finished, true).context("make it read-only")?;
    freeze("finish-read-only");
    rustix::fs::syncfs(&run.top).context("write out the received data")?;
    // Only after the sync: the first writeback still raises the ctransid.
    let info = libbtrfsutil::subvolume_info(finished).context("read what was received")?;
    let local = LocalDataset {
        uuid: info.uuid(),
        ctransid: info.ctransid(),
        stream_bytes: Some(bytes),
        data_bytes: Some(data_bytes),
        stream_hash: Some(ours),
        dropped: settled.dropped,
        not_carried: not_carried(settled.lost, &setting.identity),
    };
    work.write(work::LOCAL, &local)?;
    freeze("finish-recorded");
    checkpoint::remove_all(work)?;
    Ok(local)
}
