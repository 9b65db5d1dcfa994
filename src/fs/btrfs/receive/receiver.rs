//! One running receive: bytes in, commands applied, checkpoints taken when they are due.
//!
//! Promise: see `fs::Incoming`. Offset and hash always stand at the end of the last whole command. After any error the
//! receiver takes no more bytes and no checkpoint: the tree may be inside a command. `restart` makes a new one.

use std::path::Path;
use std::time::Instant;

use anyhow::Context;

use super::super::apply::{Applied, Applier, Fault};
use super::super::freeze::freeze;
use super::super::stream::{Parser, Piece};
use super::checkpoint::{self, State};
use super::work::{self, Work};
use super::{Source, finish, stubs};
use crate::fs::{FsError, Incoming, Limits, Result, Standing};
use crate::logic::manifest::LocalDataset;
use crate::logic::name::DatasetName;
use crate::logic::prefix::PrefixHash;
use crate::logic::transfer::{FileFlags, StreamIdentity};

/// Free space is looked at after so many bytes of the stream.
const SPACE_EVERY_BYTES: u64 = 16 << 20;

/// See the file's head.
#[derive(Debug)]
pub(super) struct Receiver {
    pub work: Work,
    pub dataset: DatasetName,
    pub identity: StreamIdentity,
    base: Option<Source>,
    clones: Vec<Source>,
    flags: FileFlags,
    limits: Limits,
    pub run: Run,
    /// Why no more bytes are taken.
    failed: Option<String>,
}

/// What `restart` replaces.
#[derive(Debug)]
pub(super) struct Run {
    pub applier: Applier,
    pub parser: Parser,
    pub hash: PrefixHash,
    file: Vec<u8>,
    checkpoint: u64,
    checkpoint_at: Instant,
    space_at: u64,
}

impl Receiver {
    pub fn open(
        work: Work,
        dataset: DatasetName,
        identity: StreamIdentity,
        base: Option<Source>,
        clones: Vec<Source>,
        flags: FileFlags,
        limits: Limits,
    ) -> Result<Receiver> {
        let run = resumed(&work, &identity, base.as_ref(), &clones, &flags)?;
        Ok(Receiver {
            work,
            dataset,
            identity,
            base,
            clones,
            flags,
            limits,
            run,
            failed: None,
        })
    }

    /// Refuses a stream of so many bytes of file data, as a whole, when what is still to come has no room.
    pub fn expect_room(&self, data_bytes: u64) -> Result<()> {
        let needed = data_bytes.saturating_sub(self.run.applier.data_bytes());
        let free = self.free()?;
        if needed > free {
            return Err(self.no_space(needed, free).into());
        }
        Ok(())
    }

    /// Bytes free above the reserve.
    fn free(&self) -> Result<u64> {
        Ok(free_bytes(self.work.dir())?.saturating_sub(self.limits.reserve))
    }

    fn no_space(&self, needed: u64, free: u64) -> FsError {
        FsError::NoSpace {
            path: self.work.dir().to_owned(),
            needed,
            free,
        }
    }

    fn feed(&mut self, mut bytes: &[u8]) -> Result<()> {
        while !bytes.is_empty() {
            let run = &mut self.run;
            let offset = run.parser.offset();
            let taken = run.parser.next(bytes)?;
            if let Some(step) = taken.step {
                match step.piece {
                    Piece::Header { version } if version != self.identity.version => {
                        return Err(bad_stream(
                            offset,
                            "header",
                            format!("version {version}, not {}", self.identity.version),
                        )
                        .into());
                    }
                    Piece::Header { .. } => {}
                    Piece::Command(command) => {
                        let outcome = run.applier.apply(&command);
                        let name = command.kind().name();
                        outcome.or_else(|fault| located(fault, &self.work, offset, name))?;
                        if let Some(path) = command.data_path() {
                            run.file.clear();
                            run.file.extend_from_slice(path);
                        }
                    }
                }
                run.hash.update(step.raw);
                bytes = &bytes[taken.used..];
                self.look_around()?;
            } else {
                bytes = &bytes[taken.used..];
            }
        }
        Ok(())
    }

    /// Between two commands: is a checkpoint due, is there room to go on?
    fn look_around(&mut self) -> Result<()> {
        let run = &self.run;
        let offset = run.hash.bytes();
        let due = offset - run.checkpoint >= self.limits.checkpoint_bytes
            || run.checkpoint_at.elapsed() >= self.limits.checkpoint_every;
        if due && !run.parser.has_ended() {
            self.take_checkpoint()?;
        }
        if offset - self.run.space_at >= SPACE_EVERY_BYTES {
            self.run.space_at = offset;
            let free = self.free()?;
            if free == 0 {
                self.take_checkpoint()?;
                return Err(self.no_space(SPACE_EVERY_BYTES, free).into());
            }
        }
        Ok(())
    }

    fn take_checkpoint(&mut self) -> Result<()> {
        let run = &mut self.run;
        run.checkpoint_at = Instant::now();
        if run.hash.bytes() == run.checkpoint {
            return Ok(());
        }
        let ended = run.parser.has_ended();
        let data_bytes = run.applier.data_bytes();
        let state = State::new(&run.hash, ended, data_bytes, run.applier.later());
        checkpoint::take(&self.work, run.applier.top(), &state)?;
        run.checkpoint = state.offset;
        Ok(())
    }

    fn usable(&self) -> Result<()> {
        match &self.failed {
            Some(why) => anyhow::bail!("the transfer has failed before: {why}"),
            None => Ok(()),
        }
    }

    fn noting<T>(&mut self, outcome: Result<T>) -> Result<T> {
        if let Err(error) = &outcome {
            self.failed = Some(format!("{error:#}"));
        }
        outcome
    }
}

impl Incoming for Receiver {
    fn standing(&self) -> Standing {
        Standing {
            offset: self.run.hash.bytes(),
            data_bytes: self.run.applier.data_bytes(),
            checkpoint: self.run.checkpoint,
            prefix: self.run.hash.value(),
            file: String::from_utf8_lossy(&self.run.file).into_owned(),
        }
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.usable()?;
        let outcome = self.feed(bytes);
        self.noting(outcome)
    }

    fn checkpoint(&mut self) -> Result<()> {
        self.usable()?;
        let outcome = self.take_checkpoint();
        self.noting(outcome)
    }

    fn restart(&mut self) -> Result<()> {
        let outcome = self
            .work
            .clear()
            .and_then(|()| self.work.write(work::IDENTITY, &self.identity))
            .and_then(|()| {
                let (base, clones) = (self.base.as_ref(), &self.clones);
                resumed(&self.work, &self.identity, base, clones, &self.flags)
            });
        let run = self.noting(outcome)?;
        self.run = run;
        self.failed = None;
        Ok(())
    }

    fn finish(self: Box<Self>, bytes: u64, hash: &str) -> Result<LocalDataset> {
        self.usable()?;
        finish::finish(*self, bytes, hash)
    }
}

fn free_bytes(path: &Path) -> Result<u64> {
    let space = rustix::fs::statvfs(path).context("read free space")?;
    Ok(space.f_bavail.saturating_mul(space.f_frsize))
}

pub(super) fn bad_stream(offset: u64, command: &str, why: impl Into<String>) -> FsError {
    FsError::BadStream {
        offset,
        command: command.into(),
        why: why.into(),
    }
}

/// Says where in the stream it was, and whose fault.
pub(super) fn located<T>(fault: Fault, work: &Work, offset: u64, command: &str) -> Result<T> {
    Err(match fault {
        Fault::Refused(why) => bad_stream(offset, command, why).into(),
        Fault::Denied(what, error) => {
            bad_stream(offset, command, format!("{what}: {error}")).into()
        }
        Fault::Full => FsError::NoSpace {
            path: work.dir().to_owned(),
            needed: SPACE_EVERY_BYTES,
            free: free_bytes(work.dir()).unwrap_or_default(),
        }
        .into(),
        Fault::Machine(what, error) => anyhow::Error::from(error)
            .context(what)
            .context(format!("apply {command} at byte {offset} of the stream")),
    })
}

/// Makes the tree, from the newest checkpoint or fresh, and all that goes with it. Everything else is cleared away.
fn resumed(
    work: &Work,
    identity: &StreamIdentity,
    base: Option<&Source>,
    clones: &[Source],
    flags: &FileFlags,
) -> Result<Run> {
    let newest = checkpoint::newest(work.dir())?
        .and_then(|(state, snapshot)| Some((PrefixHash::restore(&state.hash)?, state, snapshot)));
    let mut kept = vec![work::IDENTITY.to_string()];
    if let Some((_, state, _)) = &newest {
        kept.extend(checkpoint::names(state.offset));
    }
    work.clear_but(&kept)?;
    freeze("resume-cleared");
    let tree = work.tree();
    let origin = match (&newest, base) {
        (Some((_, _, snapshot)), _) => Some(snapshot),
        (None, Some(base)) => Some(&base.path),
        (None, None) => None,
    };
    match origin {
        Some(origin) => libbtrfsutil::CreateSnapshotOptions::new()
            .create(origin, &tree)
            .with_context(|| format!("snapshot {}", origin.display()))?,
        None => libbtrfsutil::create_subvolume(&tree)
            .with_context(|| format!("create subvolume {}", tree.display()))?,
    }
    if let (None, Some(base)) = (&newest, base) {
        stubs::remove(&tree, &base.nested)?;
    }
    let sources = clones.iter().chain(base);
    let sources = sources.map(|source| (source.identity, source.path.clone()));
    let (hash, parser, data_bytes, later) = match newest {
        Some((hash, state, _)) => {
            let parser = Parser::resume(identity.version, state.offset, state.ended);
            (hash, parser, state.data_bytes, Some(state.later))
        }
        None => (PrefixHash::default(), Parser::new(), 0, None),
    };
    let applier: Applied<Applier> =
        Applier::new(&tree, identity, sources, flags.clone(), later, data_bytes);
    let offset = hash.bytes();
    let applier = applier.or_else(|fault| located(fault, work, offset, "none"))?;
    Ok(Run {
        applier,
        parser,
        hash,
        file: Vec::new(),
        checkpoint: offset,
        checkpoint_at: Instant::now(),
        space_at: offset,
    })
}
