//! The part of a receive that reads what a stranger sent: parses the stream and applies its commands to the tree.
//!
//! Promise: the account it gives (`Progress`) always stands at the end of a whole command. After any trouble it must be
//! thrown away with its tree: that may be inside a command. It runs in the daemon ([`Here`]) or in a process of its own
//! (`worker`); whoever drives it cannot tell but by the price.
//!
//! A crash leaves a half-applied tree. It deliberately does not know checkpoints, places, peers or whole streams.

use std::collections::VecDeque;
use std::fmt::Debug;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::super::apply::outside::Outside;
use super::super::apply::tree::Tree;
use super::super::apply::{Applier, Fault, Later, Settled};
use super::super::stream::{Kind, Parser, Piece};
use crate::fs::FsError;
use crate::logic::accept::Accept;
use crate::logic::transfer::{FileFlags, StreamIdentity};

/// Where an engine begins.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Start {
    pub identity: StreamIdentity,
    pub flags: FileFlags,
    /// What of the stream is taken over.
    pub accept: Accept,
    /// Free space that is never used, in bytes.
    pub reserve: u64,
    /// What was saved with the checkpoint that the tree was made from; none: it is fresh.
    pub saved: Option<Saved>,
}

/// What an engine must be told to go on.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Saved {
    pub progress: Progress,
    pub later: Later,
}

/// What was applied so far.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Progress {
    /// Bytes of the stream, in whole commands.
    pub offset: u64,
    /// Whether that is all of it, the end command included.
    pub ended: bool,
    /// File data, in bytes.
    pub data_bytes: u64,
    /// Commands since the engine began.
    pub commands: u64,
    /// The file being written, lossy, for people.
    pub file: String,
}

/// Why an engine goes no further.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub(super) enum Trouble {
    /// The stream's fault.
    #[error("stream refused at byte {offset}, command {command}: {why}")]
    Refused {
        offset: u64,
        command: String,
        why: String,
    },
    /// No space, or no quota.
    #[error("the filesystem is full")]
    Full,
    /// It would take so many bytes, and so many are free above the reserve.
    #[error("{needed} bytes are needed and {free} are free above the reserve")]
    Reserve { needed: u64, free: u64 },
    /// This machine failed at something.
    #[error("{what}: errno {errno}")]
    Machine { what: String, errno: i32 },
    /// The process it ran in is gone, or speaks nonsense: why.
    #[error("{0}")]
    Gone(String),
}

/// Something that applies pieces of a stream in their order.
pub(super) trait Applies: Debug + Send {
    /// Hands over the next piece. Several may be on the way.
    fn put(&mut self, piece: &[u8]) -> Result<(), Trouble>;

    /// Whether `took` would not wait.
    fn has_answered(&self) -> bool;

    /// What was applied when the oldest piece that is on the way was through.
    fn took(&mut self) -> Result<Progress, Trouble>;

    /// What a checkpoint must remember. With nothing on the way.
    fn later(&mut self) -> Result<Later, Trouble>;

    /// Does what waited for the end. When it returns, nothing touches the tree any more.
    fn settle(self: Box<Self>) -> Result<Settled, Trouble>;
}

/// See the file's head.
#[derive(Debug)]
pub(super) struct Engine {
    applier: Applier,
    parser: Parser,
    version: u32,
    commands: u64,
    file: Vec<u8>,
    /// Where the file began that was made last.
    begun: u64,
}

impl Engine {
    pub fn new(tree: Tree, outside: Arc<dyn Outside>, start: Start) -> Result<Engine, Trouble> {
        let Start {
            identity,
            flags,
            accept,
            reserve,
            saved,
        } = start;
        let version = identity.version;
        let (parser, at, later) = match saved {
            Some(Saved { progress, later }) => {
                let parser = Parser::resume(version, progress.offset, progress.ended);
                (parser, progress, Some(later))
            }
            None => (Parser::new(), Progress::default(), None),
        };
        let applier = Applier::new(tree, &identity, outside, flags, later, at.data_bytes);
        Ok(Engine {
            applier: applier
                .map_err(|fault| trouble(fault, at.offset, at.offset, "none"))?
                .bounded(accept, reserve),
            parser,
            version,
            commands: 0,
            file: Vec::new(),
            begun: at.offset,
        })
    }

    pub fn feed(&mut self, mut bytes: &[u8]) -> Result<Progress, Trouble> {
        while !bytes.is_empty() {
            let offset = self.parser.offset();
            let taken = self.parser.next(bytes).map_err(refused)?;
            match taken.step.map(|step| step.piece) {
                Some(Piece::Header { version }) if version != self.version => {
                    return Err(Trouble::Refused {
                        offset,
                        command: "header".into(),
                        why: format!("version {version}, not {}", self.version),
                    });
                }
                None | Some(Piece::Header { .. }) => {}
                Some(Piece::Command(command)) => {
                    self.commands += 1;
                    let begun = self.begun;
                    if command.kind() == Kind::Mkfile {
                        self.begun = offset;
                    }
                    let outcome = self.applier.apply(&command);
                    outcome
                        .map_err(|fault| trouble(fault, begun, offset, command.kind().name()))?;
                    if let Some(path) = command.data_path() {
                        self.file.clear();
                        self.file.extend_from_slice(path);
                    }
                }
            }
            bytes = &bytes[taken.used..];
        }
        Ok(self.progress())
    }

    pub fn progress(&self) -> Progress {
        Progress {
            offset: self.parser.offset(),
            ended: self.parser.has_ended(),
            data_bytes: self.applier.data_bytes(),
            commands: self.commands,
            file: String::from_utf8_lossy(&self.file).into_owned(),
        }
    }

    pub fn later(&mut self) -> Result<&Later, Trouble> {
        let (begun, offset) = (self.begun, self.parser.offset());
        let later = self.applier.later();
        later.map_err(|fault| trouble(fault, begun, offset, "checkpoint"))
    }

    pub fn settle(self) -> Result<Settled, Trouble> {
        let (begun, offset) = (self.begun, self.parser.offset());
        let settled = self.applier.settle();
        settled.map_err(|fault| trouble(fault, begun, offset, "end"))
    }
}

/// What the parser did not take.
fn refused(error: FsError) -> Trouble {
    match error {
        FsError::BadStream {
            offset,
            command,
            why,
        } => Trouble::Refused {
            offset,
            command,
            why,
        },
        other => Trouble::Gone(other.to_string()),
    }
}

/// Says where in the stream it was; `begun` is where the file began that may have waited to be made.
fn trouble(fault: Fault, begun: u64, offset: u64, command: &str) -> Trouble {
    let refuse = |why| Trouble::Refused {
        offset,
        command: command.to_owned(),
        why,
    };
    match fault {
        Fault::Earlier(fault) => trouble(*fault, begun, begun, Kind::Mkfile.name()),
        Fault::Refused(why) => refuse(why),
        Fault::Denied(what, error) => refuse(format!("{what}: {error}")),
        Fault::Full => Trouble::Full,
        Fault::Reserve { needed, free } => Trouble::Reserve { needed, free },
        Fault::Machine(what, error) => Trouble::Machine {
            what: format!("apply {command} at byte {offset} of the stream: {what}"),
            errno: error.raw_os_error(),
        },
    }
}

/// An engine in this process.
#[derive(Debug)]
pub(super) struct Here {
    engine: Engine,
    through: VecDeque<Progress>,
}

impl Here {
    pub fn new(engine: Engine) -> Here {
        Here {
            engine,
            through: VecDeque::new(),
        }
    }
}

impl Applies for Here {
    fn put(&mut self, piece: &[u8]) -> Result<(), Trouble> {
        let progress = self.engine.feed(piece)?;
        self.through.push_back(progress);
        Ok(())
    }

    fn has_answered(&self) -> bool {
        true
    }

    fn took(&mut self) -> Result<Progress, Trouble> {
        let oldest = self.through.pop_front();
        Ok(oldest.unwrap_or_else(|| self.engine.progress()))
    }

    fn later(&mut self) -> Result<Later, Trouble> {
        Ok(self.engine.later()?.clone())
    }

    fn settle(self: Box<Self>) -> Result<Settled, Trouble> {
        self.engine.settle()
    }
}
