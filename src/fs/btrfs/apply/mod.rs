//! Applies the commands of a stream to the subvolume being received, and to nothing else.
//!
//! Promise: whatever the stream says, nothing outside the subvolume changes, and no file is read but those of the subvolume,
//! its declared base and the other snapshots it was given (clone sources). Memory and descriptors stay bounded. After a
//! failed command the tree is in between two commands and must be thrown away (`receive` goes back to a checkpoint).
//!
//! What a crash leaves is the caller's matter: nothing here syncs. It deliberately does not know offsets, checkpoints or
//! peers.

mod data;
mod decode;
mod facts;
mod fault;
mod finish;
mod fresh;
pub(super) mod ioctl;
mod later;
mod names;
pub(super) mod outside;
mod policy;
mod room;
pub(super) mod tree;

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::fs::OFlags;
use uuid::Uuid;

pub(super) use fault::{Applied, Fault};
pub(super) use finish::Settled;
pub(super) use later::Later;

use super::stream::{Command, Moment};
use crate::logic::accept::Accept;
use crate::logic::transfer::{FileFlags, StreamIdentity};
use fault::refuse;
use outside::Outside;
use tree::Tree;

/// The running applier of one stream.
#[derive(Debug)]
pub(super) struct Applier {
    tree: Tree,
    identity: StreamIdentity,
    /// Snapshots cloned from so far.
    sources: BTreeMap<Uuid, Tree>,
    outside: Arc<dyn Outside>,
    /// The file worked on last: most commands in a row are about one file.
    open: Option<OpenFile>,
    /// A new file that is not made yet.
    fresh: Option<fresh::Fresh>,
    /// Directories, and whether files made in them inherit nothing.
    plain: BTreeMap<Vec<u8>, bool>,
    /// The file last cloned from, in another snapshot.
    open_source: Option<(Uuid, OpenFile)>,
    /// What the stream does not say of new files.
    flags: FileFlags,
    later: Later,
    data_bytes: u64,
    /// Bytes given to the open file since its writeback was started.
    unwritten: u64,
    accept: Accept,
    room: room::Room,
}

#[derive(Debug)]
struct OpenFile {
    path: Vec<u8>,
    file: OwnedFd,
}

impl Applier {
    /// For the writable subvolume `tree`. `outside` has the snapshots that may be cloned from. `later` is what was saved with
    /// the checkpoint that the tree was made from, or none when it is fresh.
    pub fn new(
        tree: Tree,
        identity: &StreamIdentity,
        outside: Arc<dyn Outside>,
        flags: FileFlags,
        later: Option<Later>,
        data_bytes: u64,
    ) -> Applied<Applier> {
        let mut applier = Applier {
            tree,
            identity: identity.clone(),
            sources: BTreeMap::new(),
            outside,
            open: None,
            fresh: None,
            plain: BTreeMap::new(),
            open_source: None,
            flags,
            later: Later::default(),
            data_bytes,
            unwritten: 0,
            accept: Accept::default(),
            room: room::Room::default(),
        };
        match later {
            Some(later) => applier.later = later,
            None if identity.base.is_some() => applier.hold_back_top()?,
            None => applier.flag_top()?,
        }
        Ok(applier)
    }

    /// Takes over what `accept` says, and never goes below `reserve` bytes of free space.
    pub fn bounded(mut self, accept: Accept, reserve: u64) -> Applier {
        self.accept = accept;
        self.room = room::Room::new(reserve);
        self
    }

    /// What a checkpoint must remember; the tree is that of all commands so far.
    pub fn later(&mut self) -> Applied<&Later> {
        self.make_fresh()?;
        Ok(&self.later)
    }

    /// File data applied, in bytes.
    pub fn data_bytes(&self) -> u64 {
        self.data_bytes
    }

    pub fn apply(&mut self, command: &Command<'_>) -> Applied<()> {
        let is_first = self.later.ctransid.is_none();
        let begins = matches!(command, Command::Subvol { .. } | Command::Snapshot { .. });
        if is_first != begins {
            return refuse(if begins {
                "a second subvolume in one stream"
            } else {
                "comes before the subvolume is named"
            });
        }
        self.take_room(room::COMMAND_BYTES)?;
        if self
            .fresh
            .as_mut()
            .is_some_and(|fresh| fresh.takes(command))
        {
            self.data_bytes = self.data_bytes.saturating_add(command.data_bytes());
            return Ok(());
        }
        self.make_fresh()?;
        match *command {
            Command::Subvol { uuid, ctransid, .. } => self.begin(uuid, ctransid, None),
            Command::Snapshot {
                uuid,
                ctransid,
                base,
                ..
            } => self.begin(uuid, ctransid, Some(base)),
            Command::Mkfile { path, inode } => self.mkfile(path, inode),
            Command::Mkdir { path, inode } => self.mkdir(path, inode),
            Command::Mknod { path, mode, device } => self.mknod(path, mode, device),
            Command::Mkfifo { path } => self.mkfifo(path),
            Command::Mksock { path } => self.mksock(path),
            Command::Symlink { path, target } => self.symlink(path, target),
            Command::Rename { from, to } => self.rename(from, to),
            Command::Link { path, existing } => self.link(path, existing),
            Command::Unlink { path } => self.unlink(path),
            Command::Rmdir { path } => self.rmdir(path),
            Command::SetXattr { path, name, value } => self.set_xattr(path, name, value),
            Command::RemoveXattr { path, name } => self.remove_xattr(path, name),
            Command::Chmod { path, mode } => self.chmod(path, mode),
            Command::Chown { path, uid, gid } => self.chown(path, uid, gid),
            Command::Utimes {
                path,
                accessed,
                modified,
                ..
            } => self.utimes(path, accessed, modified),
            Command::Fileattr { path, flags } => self.fileattr(path, flags),
            Command::Write { path, offset, data } => self.write(path, offset, data),
            Command::EncodedWrite(ref piece) => self.encoded_write(piece),
            Command::Clone(ref piece) => self.clone_range(piece),
            Command::Truncate { path, size } => self.truncate(path, size),
            Command::Fallocate {
                path,
                mode,
                offset,
                len,
            } => self.fallocate(path, mode, offset, len),
            Command::End => Ok(()),
            Command::UpdateExtent { .. } => refuse("the stream carries no file data"),
            Command::EnableVerity { .. } => refuse("fs-verity is not supported"),
        }?;
        self.data_bytes = self.data_bytes.saturating_add(command.data_bytes());
        Ok(())
    }

    fn begin(&mut self, uuid: Uuid, ctransid: u64, base: Option<Uuid>) -> Applied<()> {
        if uuid != self.identity.snapshot {
            return refuse(format!(
                "is of snapshot {uuid}, not of {}",
                self.identity.snapshot
            ));
        }
        if base != self.identity.base {
            let name =
                |uuid: Option<Uuid>| uuid.map_or("none".to_string(), |uuid| uuid.to_string());
            return refuse(format!(
                "is on top of base {}, not of {}",
                name(base),
                name(self.identity.base)
            ));
        }
        self.later.ctransid = Some(ctransid);
        Ok(())
    }

    /// The open file at `path`, opened if it is another than the last one.
    fn file(&mut self, path: &[u8]) -> Applied<&OwnedFd> {
        if self.open.as_ref().is_none_or(|open| open.path != path) {
            let file = self.unlocking(&[path], |tree| {
                tree.open_file(path, OFlags::RDWR | OFlags::NOATIME)
            })?;
            self.keep_open(path, file);
        }
        match &self.open {
            Some(open) => Ok(&open.file),
            None => refuse("no file is open"),
        }
    }

    fn keep_open(&mut self, path: &[u8], file: OwnedFd) {
        self.unwritten = 0;
        self.open = Some(OpenFile {
            path: path.to_vec(),
            file,
        });
    }

    /// The open file, if it is the one at `path`: its descriptor spares looking the path up.
    fn opened(&self, path: &[u8]) -> Option<&OwnedFd> {
        let open = self.open.as_ref()?;
        (open.path == path).then_some(&open.file)
    }

    /// `path` no longer names what it did.
    fn forget(&mut self, path: &[u8]) {
        self.tree.forget(path);
        self.plain.remove(path);
        for below in tree::below(&self.plain, path) {
            self.plain.remove(&below);
        }
        let stale = |open: &OpenFile| {
            open.path
                .strip_prefix(path)
                .is_some_and(|rest| rest.is_empty() || rest[0] == b'/')
        };
        if self.open.as_ref().is_some_and(stale) {
            self.open = None;
        }
        if self
            .open_source
            .as_ref()
            .is_some_and(|(uuid, open)| *uuid == self.identity.snapshot && stale(open))
        {
            self.open_source = None;
        }
    }
}

fn timestamps(accessed: Moment, modified: Moment) -> rustix::fs::Timestamps {
    let spec = |moment: Moment| rustix::fs::Timespec {
        tv_sec: moment.seconds,
        tv_nsec: i64::from(moment.nanoseconds) as _,
    };
    rustix::fs::Timestamps {
        last_access: spec(accessed),
        last_modification: spec(modified),
    }
}
