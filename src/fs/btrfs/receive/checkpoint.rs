//! Checkpoints: durable places inside a transfer from which it can go on.
//!
//! A checkpoint is a read-only snapshot of the half-received subvolume, `ckpt.<offset>`, and beside it `ckpt.<offset>.json`
//! with what a tree cannot hold: the hash of the stream up to there and what the applier must remember. The applier stands
//! still between two commands while it is taken; the data is written out and the file is on disk *before* the snapshot is
//! made. The snapshot appears atomically, so a checkpoint is there and whole, or it is not there.
//!
//! A crash in here leaves the older checkpoint, and perhaps a file without its snapshot, which counts for nothing.

use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use anyhow::Context;
use serde::{Deserialize, Serialize};

use super::super::apply::Later;
use super::super::freeze::freeze;
use super::engine::{Progress, Saved};
use super::work::{self, Work};
use crate::fs::Result;
use crate::logic::prefix::{PrefixHash, SavedPrefix};

const VERSION: u32 = 1;
const PREFIX: &str = "ckpt.";

/// What is beside a checkpoint's snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct State {
    version: u32,
    /// Bytes of the stream that the snapshot holds.
    pub offset: u64,
    pub hash: SavedPrefix,
    /// Whether that is all of it, the end command included.
    pub ended: bool,
    /// File data applied, in bytes.
    pub data_bytes: u64,
    pub later: Later,
}

impl State {
    pub fn new(hash: &PrefixHash, ended: bool, data_bytes: u64, later: Later) -> State {
        State {
            version: VERSION,
            offset: hash.bytes(),
            hash: hash.save(),
            ended,
            data_bytes,
            later,
        }
    }
}

impl State {
    /// What the engine must be told to go on from here.
    pub fn saved(self) -> Saved {
        Saved {
            progress: Progress {
                commands: 0,
                offset: self.offset,
                ended: self.ended,
                data_bytes: self.data_bytes,
                file: String::new(),
            },
            later: self.later,
        }
    }
}

fn snapshot_name(offset: u64) -> String {
    format!("{PREFIX}{offset}")
}

fn state_name(offset: u64) -> String {
    format!("{PREFIX}{offset}.json")
}

/// Takes a checkpoint of the work's tree, whose top is `top`, and removes the older ones.
pub(super) fn take(work: &Work, top: impl AsFd, state: &State) -> Result<()> {
    // The snapshot flushes by itself, but only this tells of data that could not be written.
    rustix::fs::syncfs(top).context("write out the received data")?;
    freeze("checkpoint-flushed");
    work.write(&state_name(state.offset), state)?;
    freeze("checkpoint-state-written");
    let snapshot = work.dir().join(snapshot_name(state.offset));
    libbtrfsutil::CreateSnapshotOptions::new()
        .readonly(true)
        .create(work.tree(), &snapshot)
        .context("snapshot the received data")?;
    freeze("checkpoint-taken");
    for (offset, _) in states(work.dir())? {
        if offset != state.offset {
            remove(work, offset)?;
        }
    }
    Ok(())
}

/// The newest whole checkpoint and its snapshot.
pub(super) fn newest(dir: &Path) -> Result<Option<(State, PathBuf)>> {
    for (offset, path) in states(dir)? {
        let snapshot = dir.join(snapshot_name(offset));
        let Some(state) = work::read::<State>(&path) else {
            continue;
        };
        let whole = state.version == VERSION
            && state.offset == offset
            && state.hash.bytes == offset
            && libbtrfsutil::is_subvolume(&snapshot).unwrap_or(false)
            && libbtrfsutil::subvolume_read_only(&snapshot).unwrap_or(false)
            && untouched(&snapshot);
        if whole {
            return Ok(Some((state, snapshot)));
        }
    }
    Ok(None)
}

/// Whether a snapshot holds what it was made with: a later change has a later transaction than the one that made it.
fn untouched(snapshot: &Path) -> bool {
    let info = super::super::subvolume::info(snapshot);
    info.is_ok_and(|info| info.ctransid <= info.otransid)
}

/// The names that belong to a checkpoint.
pub(super) fn names(offset: u64) -> [String; 2] {
    [snapshot_name(offset), state_name(offset)]
}

/// Removes all of them.
pub(super) fn remove_all(work: &Work) -> Result<()> {
    for (offset, _) in states(work.dir())? {
        remove(work, offset)?;
    }
    Ok(())
}

/// Snapshot before file: a snapshot without its file would never be found again.
fn remove(work: &Work, offset: u64) -> Result<()> {
    work::delete_subvolume(&work.dir().join(snapshot_name(offset)))?;
    freeze("checkpoint-rotated");
    work::remove_file(&work.dir().join(state_name(offset)))
}

/// State files, newest first.
fn states(dir: &Path) -> Result<Vec<(u64, PathBuf)>> {
    let mut states = Vec::new();
    for entry in std::fs::read_dir(dir).context("list staging")? {
        let entry = entry.context("list staging")?;
        let offset = entry
            .file_name()
            .to_str()
            .and_then(|name| name.strip_prefix(PREFIX)?.strip_suffix(".json"))
            .and_then(|offset| offset.parse::<u64>().ok());
        if let Some(offset) = offset {
            states.push((offset, entry.path()));
        }
    }
    states.sort_by_key(|(offset, _)| std::cmp::Reverse(*offset));
    Ok(states)
}
