//! The daemon's side of a worker: an engine that runs in a process of its own.
//!
//! Promise: the worker gets the tree (read-write) and, when it asks, a declared snapshot (read-only), each by a mount of
//! that subvolume alone; attributes that take the daemon's rights are set only in that tree and only where the name calls for
//! them. What the worker answers is bounded and not believed further than its own tree: the hash of the stream is kept on
//! this side. A worker that ends, is silent for too long or speaks out of turn is an engine in trouble, nothing worse.
//!
//! A crash of this process ends the worker (`child`).

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::MountAttrFlags;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use uuid::Uuid;

use super::super::apply::{Later, Settled, outside};
use super::super::top::{Top, make_mount};
use super::child::Process;
use super::engine::{Applies, Progress, Start, Trouble};
use super::wire::{Ask, FROM_WORKER_BYTES_MAX, Frame, Given, Kind, Wire, read};
use super::worker::is_for_the_daemon;
use crate::logic::prefix::unhex;

/// Longest silence of a worker that has something to do: a disk may take its time.
const SILENCE_MAX: Duration = Duration::from_secs(15 * 60);

/// See the file's head.
#[derive(Debug)]
pub(super) struct Remote {
    wire: Wire,
    process: Process,
    outside: Outside,
    buffer: Vec<u8>,
}

/// What a worker may have.
#[derive(Debug)]
struct Outside {
    /// Device of the tree, as stat tells it: every subvolume has its own.
    tree_device: u64,
    /// A device of the filesystem.
    device: PathBuf,
    sources: BTreeMap<Uuid, PathBuf>,
}

impl Remote {
    /// Starts `program` as a worker on the subvolume whose top directory is `top`. The error may be a [`Trouble`].
    pub fn start(
        program: &Path,
        top: &OwnedFd,
        start: &Start,
        sources: BTreeMap<Uuid, PathBuf>,
    ) -> anyhow::Result<Remote> {
        let path = super::super::top::fd_path(top);
        let device = Top::holding(&path, top)?.device.clone();
        let outside = Outside {
            tree_device: rustix::fs::fstat(top).context("look at the tree")?.st_dev,
            device,
            sources,
        };
        let mount = outside
            .mount(&path, MountAttrFlags::empty())
            .context("mount the tree for the applier")?;
        let (ours, theirs) = UnixStream::pair().context("make a pair of sockets")?;
        let wire = Wire::new(ours.into());
        for way in [Timeout::Recv, Timeout::Send] {
            set_socket_timeout(&wire, way, Some(SILENCE_MAX)).context("set up a socket")?;
        }
        let process = Process::start(program, theirs.into())
            .with_context(|| format!("start {}", program.display()))?;
        let mut remote = Remote {
            wire,
            process,
            outside,
            buffer: Vec::new(),
        };
        let begun = remote
            .wire
            .send_json(Kind::Start, start, Some(mount.as_fd()));
        drop(mount);
        match begun {
            Ok(()) => remote.took()?,
            Err(error) => return Err(remote.gone(error).into()),
        };
        Ok(remote)
    }

    fn say(&mut self, kind: Kind, payload: &[u8]) -> Result<(), Trouble> {
        match self.wire.send(kind, payload, None) {
            Ok(()) => Ok(()),
            Err(error) => Err(self.last_word().unwrap_or_else(|| self.gone(error))),
        }
    }

    /// Nothing can be sent any more: perhaps it said why.
    fn last_word(&mut self) -> Option<Trouble> {
        while let Ok(Some(frame)) = self.wire.receive(&mut self.buffer, FROM_WORKER_BYTES_MAX) {
            if frame.kind == Kind::Failed {
                return read(&self.buffer).ok();
            }
        }
        None
    }

    fn gone(&mut self, error: io::Error) -> Trouble {
        let how = self.process.end();
        Trouble::Gone(match error.kind() {
            io::ErrorKind::WouldBlock => format!("it was silent for {} s", SILENCE_MAX.as_secs()),
            io::ErrorKind::UnexpectedEof
            | io::ErrorKind::BrokenPipe
            | io::ErrorKind::ConnectionReset => how,
            _ => error.to_string(),
        })
    }

    /// Waits for this answer; grants what is asked for meanwhile. The payload is in the buffer.
    fn answer(&mut self, wanted: Kind) -> Result<(), Trouble> {
        loop {
            match self.wire.receive(&mut self.buffer, FROM_WORKER_BYTES_MAX) {
                Ok(Some(frame)) if frame.kind == wanted => return Ok(()),
                Ok(Some(frame)) if frame.kind == Kind::Ask => {
                    if let Err(error) = self.grant(frame) {
                        return Err(self.gone(error));
                    }
                }
                Ok(Some(frame)) if frame.kind == Kind::Failed => {
                    return Err(read(&self.buffer).unwrap_or_else(|error| self.gone(error)));
                }
                Ok(Some(frame)) => {
                    let what = format!("it said {:?} instead of {wanted:?}", frame.kind);
                    self.process.end();
                    return Err(Trouble::Gone(what));
                }
                Ok(None) => return Err(self.gone(io::ErrorKind::UnexpectedEof.into())),
                Err(error) => return Err(self.gone(error)),
            }
        }
    }

    fn grant(&mut self, frame: Frame) -> io::Result<()> {
        let (outcome, mount) = match read::<Ask>(&self.buffer)? {
            Ask::Source(identity) => match self.outside.source(identity) {
                Ok(mount) => (Ok(()), Some(mount)),
                Err(error) => (Err(error), None),
            },
            Ask::Attribute { name, value } => {
                let invalid = || io::Error::from(io::ErrorKind::InvalidData);
                let file = frame.descriptor.ok_or_else(invalid)?;
                let name = unhex(&name).ok_or_else(invalid)?;
                let value = value.map(|value| unhex(&value).ok_or_else(invalid));
                let value = value.transpose()?;
                let outcome = self.outside.set_xattr(&file, &name, value.as_deref());
                (outcome, None)
            }
        };
        let given = Given {
            errno: outcome.err().map(Errno::raw_os_error),
        };
        let mount = mount.as_ref().map(AsFd::as_fd);
        self.wire.send_json(Kind::Given, &given, mount)
    }

    fn read<T: serde::de::DeserializeOwned>(&mut self) -> Result<T, Trouble> {
        read(&self.buffer).map_err(|error| {
            self.process.end();
            Trouble::Gone(format!("it answered what cannot be read: {error}"))
        })
    }
}

impl Outside {
    fn source(&self, identity: Uuid) -> Result<OwnedFd, Errno> {
        let path = self.sources.get(&identity).ok_or(Errno::NOENT)?;
        let mount = self.mount(path, MountAttrFlags::MOUNT_ATTR_RDONLY);
        mount.map_err(|error| {
            tracing::warn!(
                path = %super::super::top::plain(&path.display().to_string()),
                "clone source cannot be mounted: {error:#}"
            );
            Errno::IO
        })
    }

    /// A mount of the subvolume at `path` alone, attached nowhere.
    fn mount(&self, path: &Path, more: MountAttrFlags) -> anyhow::Result<OwnedFd> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let dir = File::from(rustix::fs::open(path, flags, Mode::empty()).context("open")?);
        let id = super::super::ioctl::subvolume(&dir).context("look up")?.id;
        let attributes = MountAttrFlags::MOUNT_ATTR_NOATIME
            | MountAttrFlags::MOUNT_ATTR_NOSUID
            | MountAttrFlags::MOUNT_ATTR_NODEV
            | MountAttrFlags::MOUNT_ATTR_NOEXEC
            | more;
        let which = ("subvolid", OsStr::new(&id.to_string()).to_owned());
        make_mount(&self.device, (which.0, &which.1), false, attributes).context("mount")
    }

    /// Only what the worker cannot do itself, and only in its tree: it may pass whatever descriptor it has.
    fn set_xattr(&self, file: &OwnedFd, name: &[u8], value: Option<&[u8]>) -> Result<(), Errno> {
        if rustix::fs::fstat(file)?.st_dev != self.tree_device || !is_for_the_daemon(name) {
            return Err(Errno::PERM);
        }
        outside::set_xattr(file.as_fd(), name, value)
    }
}

impl Applies for Remote {
    fn put(&mut self, piece: &[u8]) -> Result<(), Trouble> {
        self.say(Kind::Data, piece)
    }

    fn has_answered(&self) -> bool {
        self.wire.has_something()
    }

    fn took(&mut self) -> Result<Progress, Trouble> {
        self.answer(Kind::Done)?;
        self.read()
    }

    fn later(&mut self) -> Result<Later, Trouble> {
        self.say(Kind::Save, b"")?;
        self.answer(Kind::Saved)?;
        self.read()
    }

    fn settle(mut self: Box<Self>) -> Result<Settled, Trouble> {
        self.say(Kind::Settle, b"")?;
        self.answer(Kind::Settled)?;
        let settled = self.read();
        // It has nothing more to say; whatever it still wants to do, it does not.
        self.process.end();
        settled
    }
}
