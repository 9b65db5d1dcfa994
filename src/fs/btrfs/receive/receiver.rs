//! One running receive: bytes in, handed to an engine, checkpoints taken when they are due.
//!
//! Promise: see `fs::Incoming`. What was written may still be on its way to the engine, [`WINDOW`] pieces at most; `checkpoint` and
//! `finish` wait for it, and an error of the engine is told by whichever call comes next. The hash is made here, of the bytes that were handed over, and stands with the offset at the
//! end of the last whole command. After any error the receiver takes no more bytes and no checkpoint: the tree may be inside
//! a command. `restart` makes a new one. What takes rights (subvolumes, checkpoints, the identity) is done here; what reads
//! the stream is the engine, in this process or in a confined one.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Instant;

use anyhow::Context;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::super::apply::outside;
use super::super::apply::tree::Tree;
use super::super::freeze::freeze;
use super::super::room::{self, Gauge};
use super::checkpoint::{self, State};
use super::engine::{Applies, Engine, Here, Progress, Saved, Start, Trouble};
use super::remote::Remote;
use super::work::{self, Work};
use super::{Applying, Source, finish, stubs};
use crate::error::{Code, Failure};
use crate::fs::{FsError, Incoming, Limits, Result, Standing};
use crate::logic::accept;
use crate::logic::manifest::LocalDataset;
use crate::logic::name::DatasetName;
use crate::logic::prefix::PrefixHash;
use crate::logic::shortage::{Shortage, least_needed};
use crate::logic::transfer::{FileFlags, StreamIdentity};

/// Free space is looked at after so many bytes of the stream ...
const SPACE_EVERY_BYTES: u64 = 16 << 20;

/// ... or so many commands: one that makes an empty file takes few bytes of the stream and about 2 KiB of metadata on disk.
/// Together they bound what a stream takes of the reserve between two looks to some 32 MiB.
const SPACE_EVERY_COMMANDS: u64 = 8192;

/// Most bytes handed to the engine at a time.
const PIECE_BYTES: usize = 64 << 10;

/// Pieces that are on the way to the engine at most: enough that it need not wait for us, few enough that what they take of the reserve
/// unseen stays near the bound above, and that all its answers have room in its socket, or both sides might wait to be read.
const WINDOW: usize = 4;

/// Bytes handed over: which of the buffer they came in.
type Piece = (Arc<Vec<u8>>, Range<usize>);

/// What a receive is told once and for all.
#[derive(Debug)]
pub(super) struct Setting {
    pub work: Work,
    pub dataset: DatasetName,
    pub applying: Applying,
    pub identity: StreamIdentity,
    pub base: Option<Source>,
    pub clones: Vec<Source>,
    pub flags: FileFlags,
    pub limits: Limits,
}

/// See the file's head.
#[derive(Debug)]
pub(super) struct Receiver {
    pub setting: Setting,
    gauge: Gauge,
    /// File data of the whole stream, as announced.
    expected: u64,
    pub run: Run,
    /// Why no more bytes are taken.
    failed: Option<String>,
}

/// What `restart` replaces.
#[derive(Debug)]
pub(super) struct Run {
    pub engine: Box<dyn Applies>,
    /// The tree's top directory; open since before the first write, so that a sync tells of all that failed.
    pub top: OwnedFd,
    /// Of the whole commands that were applied.
    pub hash: PrefixHash,
    /// What was handed over beyond that, and said to be through.
    pub tail: Vec<u8>,
    /// What was handed over, and not said to be through.
    on_the_way: VecDeque<Piece>,
    pub progress: Progress,
    checkpoint: u64,
    checkpoint_at: Instant,
    space_at: u64,
    /// Commands that were applied when free space was looked at last.
    commands_at: u64,
    /// File data written out, in bytes.
    flushed: u64,
}

impl Receiver {
    pub fn open(setting: Setting) -> Result<Receiver> {
        let run = resumed(&setting)?;
        Ok(Receiver {
            gauge: Gauge::new(&run.top, setting.limits.reserve),
            expected: 0,
            run,
            setting,
            failed: None,
        })
    }

    /// Refuses a stream of so many bytes of file data, as a whole, when what is still to come has no room.
    pub fn expect_room(&mut self, data_bytes: u64) -> Result<()> {
        self.expected = data_bytes;
        let (needed, free) = (self.needed(), self.free()?);
        if needed > free {
            return Err(self.no_space(needed, free));
        }
        Ok(())
    }

    /// The least room that what is still to come takes, in bytes.
    fn needed(&self) -> u64 {
        let to_come = self.expected.saturating_sub(self.run.progress.data_bytes);
        least_needed(to_come, room::compresses(&self.run.top))
    }

    /// Bytes free above the reserve.
    fn free(&self) -> Result<u64> {
        let unwritten = self
            .run
            .progress
            .data_bytes
            .saturating_sub(self.run.flushed);
        self.gauge.free(self.setting.work.dir(), unwritten)
    }

    fn no_space(&self, needed: u64, free: u64) -> anyhow::Error {
        let dir = self.setting.work.dir();
        self.gauge.no_space(dir, needed, free).into()
    }

    fn feed(&mut self, bytes: Vec<u8>) -> Result<()> {
        // With a short interval a piece is short too: one is never taken back in part.
        let interval = usize::try_from(self.setting.limits.checkpoint_bytes).unwrap_or(usize::MAX);
        let most = interval.clamp(1, PIECE_BYTES);
        let bytes = Arc::new(bytes);
        for from in (0..bytes.len()).step_by(most) {
            let until = bytes.len().min(from + most);
            self.hand_over((bytes.clone(), from..until))?;
        }
        Ok(())
    }

    /// The engine works on it while the next one comes.
    fn hand_over(&mut self, piece: Piece) -> Result<()> {
        let bytes = &piece.0[piece.1.clone()];
        if self.run.on_the_way.len() == WINDOW {
            self.took()?;
        }
        // Before more is handed over than may be lost: what is on the way counts as applied.
        if self.must_look(self.run.ahead() + bytes.len()) {
            self.catch_up()?;
            self.look_around(bytes.len())?;
        }
        let put = self.run.engine.put(bytes);
        put.map_err(|trouble| self.error(trouble))?;
        self.run.on_the_way.push_back(piece);
        // On a slow line the next piece may be long in coming: what is through is told now.
        while !self.run.on_the_way.is_empty() && self.run.engine.has_answered() {
            self.took()?;
        }
        Ok(())
    }

    /// Waits until nothing is on the way.
    pub(super) fn catch_up(&mut self) -> Result<()> {
        while !self.run.on_the_way.is_empty() {
            self.took()?;
        }
        Ok(())
    }

    /// The oldest piece on the way is through.
    fn took(&mut self) -> Result<()> {
        let progress = self.run.engine.took();
        let progress = progress.map_err(|trouble| self.error(trouble))?;
        let (bytes, range) = self.run.on_the_way.pop_front().unwrap_or_default();
        if self.run.account(&bytes[range], progress) {
            return Ok(());
        }
        let what = "it claims to have applied what it was not given";
        Err(self.error(Trouble::Gone(what.into())))
    }

    /// So that a kill never costs more than one interval; `next` more bytes are about to be applied.
    fn checkpoint_is_due(&self, next: usize) -> bool {
        let (run, limits) = (&self.run, &self.setting.limits);
        let applied = run.hash.bytes() + (run.tail.len() + next) as u64;
        applied - run.checkpoint > limits.checkpoint_bytes
            || run.checkpoint_at.elapsed() >= limits.checkpoint_every
    }

    fn must_look(&self, next: usize) -> bool {
        self.checkpoint_is_due(next) || self.space_is_due()
    }

    fn space_is_due(&self) -> bool {
        let run = &self.run;
        run.hash.bytes() - run.space_at >= SPACE_EVERY_BYTES
            || run.progress.commands.saturating_sub(run.commands_at) >= SPACE_EVERY_COMMANDS
    }

    /// With nothing on the way: is a checkpoint due, is there room to go on?
    fn look_around(&mut self, next: usize) -> Result<()> {
        if self.checkpoint_is_due(next) && !self.run.progress.ended {
            self.take_checkpoint()?;
        }
        if self.space_is_due() {
            self.expect_to_go_on()?;
        }
        Ok(())
    }

    /// Stops at a checkpoint when the reserve is reached.
    fn expect_to_go_on(&mut self) -> Result<()> {
        self.run.space_at = self.run.hash.bytes();
        self.run.commands_at = self.run.progress.commands;
        if self.free()? > 0 {
            return Ok(());
        }
        // Promises are generous, and what is compressed takes less: written out, the figures are the truth.
        rustix::fs::syncfs(&self.run.top).context("write out the received data")?;
        self.run.flushed = self.run.progress.data_bytes;
        if self.free()? > 0 {
            return Ok(());
        }
        self.take_checkpoint()?;
        Err(self.no_space(self.needed(), 0))
    }

    fn take_checkpoint(&mut self) -> Result<()> {
        self.run.checkpoint_at = Instant::now();
        self.catch_up()?;
        if self.run.hash.bytes() == self.run.checkpoint {
            return Ok(());
        }
        let later = self.run.engine.later();
        let later = later.map_err(|trouble| self.error(trouble))?;
        let progress = &self.run.progress;
        let state = State::new(&self.run.hash, progress.ended, progress.data_bytes, later);
        checkpoint::take(&self.setting.work, &self.run.top, &state)?;
        self.run.checkpoint = state.offset;
        self.run.flushed = self.run.progress.data_bytes;
        Ok(())
    }

    pub fn error(&self, trouble: Trouble) -> anyhow::Error {
        error(trouble, &self.setting)
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

impl Run {
    /// Bytes on the way.
    fn ahead(&self) -> usize {
        self.on_the_way.iter().map(|(_, range)| range.len()).sum()
    }

    /// Moves the hash to where the engine says it is after `piece`. False where it cannot be there.
    fn account(&mut self, piece: &[u8], progress: Progress) -> bool {
        let Some(whole) = progress.offset.checked_sub(self.hash.bytes()) else {
            return false;
        };
        let Ok(whole) = usize::try_from(whole) else {
            return false;
        };
        match whole.checked_sub(self.tail.len()) {
            None if whole == 0 => self.tail.extend_from_slice(piece),
            // Handed over earlier, and said to be whole only now: a command ends with the piece that ends it.
            None => return false,
            Some(of_piece) if of_piece > piece.len() => return false,
            Some(of_piece) => {
                let (head, rest) = piece.split_at(of_piece);
                self.hash.update(&self.tail);
                self.hash.update(head);
                self.tail.clear();
                self.tail.extend_from_slice(rest);
            }
        }
        self.progress = progress;
        true
    }
}

impl Incoming for Receiver {
    fn standing(&self) -> Standing {
        Standing {
            prefix: self.run.hash.value(),
            ..self.progress()
        }
    }

    fn progress(&self) -> Standing {
        Standing {
            offset: self.run.hash.bytes(),
            data_bytes: self.run.progress.data_bytes,
            checkpoint: self.run.checkpoint,
            prefix: String::new(),
            file: self.run.progress.file.clone(),
            token: None,
        }
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.usable()?;
        let outcome = self.feed(bytes.to_vec());
        self.noting(outcome)
    }

    fn take(&mut self, bytes: Vec<u8>) -> Result<()> {
        self.usable()?;
        let outcome = self.feed(bytes);
        self.noting(outcome)
    }

    fn settle(&mut self) -> Result<()> {
        self.usable()?;
        let outcome = self.catch_up();
        self.noting(outcome)
    }

    fn checkpoint(&mut self) -> Result<()> {
        self.usable()?;
        let outcome = self.take_checkpoint();
        self.noting(outcome)
    }

    fn restart(&mut self) -> Result<()> {
        // Nothing is applied any more where it is cleared; what was wrong with it is of no interest now.
        let _ = self.catch_up();
        let Setting { work, identity, .. } = &self.setting;
        let outcome = work
            .clear()
            .and_then(|()| work.write(work::IDENTITY, identity))
            .and_then(|()| resumed(&self.setting));
        let run = self.noting(outcome)?;
        self.run = run;
        self.failed = None;
        Ok(())
    }

    fn finish(mut self: Box<Self>, bytes: u64, hash: &str) -> Result<LocalDataset> {
        self.usable()?;
        self.catch_up()?;
        self.look_around(0)?;
        finish::finish(*self, bytes, hash)
    }
}

/// The same data would be refused again: nobody tries that by itself every few seconds.
fn not_accepted() -> Failure {
    let hint = "on the receiving node, let it in (`accept` of the peer: \"keep\", or \"drop\" to leave it out) and \
                `standin reload`; or take it out of the data there";
    Failure::new(Code::Refused, "take over everything that is sent").hint(hint)
}

/// Whose fault it is, for those who branch on it.
pub(super) fn error(trouble: Trouble, setting: &Setting) -> anyhow::Error {
    match trouble {
        Trouble::Refused {
            offset,
            command,
            why,
        } => {
            let by_policy = accept::is_refused(&why).then(not_accepted);
            let error = anyhow::Error::new(FsError::BadStream {
                offset,
                command,
                why,
            });
            match by_policy {
                Some(failure) => error.context(failure),
                None => error,
            }
        }
        // The kernel's word counts, whatever figures say: nothing is free, how much is needed nobody knows.
        Trouble::Full => FsError::NoSpace {
            path: setting.work.dir().to_owned(),
            shortage: Shortage::default(),
        }
        .into(),
        Trouble::Reserve { needed, free } => FsError::NoSpace {
            path: setting.work.dir().to_owned(),
            shortage: Shortage {
                needed,
                free,
                reserve: setting.limits.reserve,
            },
        }
        .into(),
        Trouble::Machine { what, errno } => {
            anyhow::Error::from(Errno::from_raw_os_error(errno)).context(what)
        }
        Trouble::Gone(why) => {
            let what = format!("apply the stream of {}", setting.dataset);
            anyhow::Error::from(FsError::ApplierEnded(why)).context(
                Failure::new(Code::Interrupted, what)
                    .hint("the next cycle goes on from the last checkpoint"),
            )
        }
    }
}

/// Makes the tree, from the newest checkpoint or fresh, and all that goes with it. Everything else is cleared away.
fn resumed(setting: &Setting) -> Result<Run> {
    let Setting { work, base, .. } = setting;
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
    let (hash, saved) = match newest {
        Some((hash, state, _)) => (hash, Some(state.saved())),
        None => (PrefixHash::default(), None),
    };
    let progress = saved.as_ref().map(|saved| saved.progress.clone());
    let progress = progress.unwrap_or_default();
    let data_bytes = progress.data_bytes;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let top = rustix::fs::open(&tree, flags, Mode::empty())
        .with_context(|| format!("open {}", tree.display()))?;
    let offset = hash.bytes();
    Ok(Run {
        engine: engine(setting, &top, saved)?,
        top,
        hash,
        tail: Vec::new(),
        on_the_way: VecDeque::new(),
        progress,
        checkpoint: offset,
        checkpoint_at: Instant::now(),
        space_at: offset,
        commands_at: 0,
        flushed: data_bytes,
    })
}

/// Starts what applies the stream.
fn engine(setting: &Setting, top: &OwnedFd, saved: Option<Saved>) -> Result<Box<dyn Applies>> {
    let sources = setting.clones.iter().chain(&setting.base);
    let sources: BTreeMap<_, _> = sources
        .map(|source| (source.identity, source.path.clone()))
        .collect();
    let start = Start {
        identity: setting.identity.clone(),
        flags: setting.flags.clone(),
        accept: setting.limits.accept,
        reserve: setting.limits.reserve,
        saved,
    };
    match &setting.applying {
        Applying::Here => {
            let tree = Tree::open(&setting.work.tree()).context("open the tree")?;
            let outside = Arc::new(outside::Here(sources));
            let engine = Engine::new(tree, outside, start);
            let engine = engine.map_err(|trouble| error(trouble, setting))?;
            Ok(Box::new(Here::new(engine)))
        }
        Applying::Child(program) => match Remote::start(program, top, &start, sources) {
            Ok(remote) => Ok(Box::new(remote)),
            Err(failed) => Err(match failed.downcast::<Trouble>() {
                Ok(trouble) => error(trouble, setting),
                Err(failed) => failed.context("start the applier"),
            }),
        },
    }
}
