//! Push parser of the send stream: bytes in any cut go in, whole commands come out.
//!
//! Promise: never panics, and never holds more than one command of the bounded length, whatever comes in; a length is
//! checked before anything is allocated for it. A command that lies whole in the bytes given is not copied. After an error
//! the parser must not be used again.
//!
//! It deliberately does not know whether a command makes sense in its place, except that nothing follows END.

use super::attrs::Attrs;
use super::typed::typed;
use super::{
    COMMAND_HEADER_BYTES, Command, HEADER_BYTES, Kind, MAGIC, VERSION_MAX, checksum,
    command_bytes_max,
};
use crate::fs::FsError;

/// The running parser.
#[derive(Debug)]
pub struct Parser {
    /// None before the stream's header.
    version: Option<u32>,
    /// The beginning of a unit that was cut; after it was handed out it stays until the next call.
    buffer: Vec<u8>,
    handed_out: bool,
    offset: u64,
    ended: bool,
}

/// A whole unit of the stream.
#[derive(Debug, PartialEq, Eq)]
pub struct Step<'a> {
    /// Its bytes.
    pub raw: &'a [u8],
    pub piece: Piece<'a>,
}

#[derive(Debug, PartialEq, Eq)]
pub enum Piece<'a> {
    Header { version: u32 },
    Command(Command<'a>),
}

/// What one call of [`Parser::next`] did.
#[derive(Debug)]
pub struct Taken<'a> {
    /// Bytes of the input consumed.
    pub used: usize,
    /// None: all input is consumed and the unit is not whole yet.
    pub step: Option<Step<'a>>,
}

impl Default for Parser {
    fn default() -> Parser {
        Parser::new()
    }
}

impl Parser {
    /// For the beginning of a stream.
    pub fn new() -> Parser {
        Parser {
            version: None,
            buffer: Vec::new(),
            handed_out: false,
            offset: 0,
            ended: false,
        }
    }

    /// For a stream of `version` that goes on at `offset`, between two commands; `ended`: after its end command.
    pub fn resume(version: u32, offset: u64, ended: bool) -> Parser {
        Parser {
            version: Some(version),
            offset,
            ended,
            ..Parser::new()
        }
    }

    /// Bytes of the units handed out so far.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Whether the beginning of a unit waits for its rest.
    pub fn is_inside_unit(&self) -> bool {
        !self.handed_out && !self.buffer.is_empty()
    }

    #[cfg(test)]
    pub(super) fn held_bytes(&self) -> usize {
        self.buffer.capacity()
    }

    /// Whether END was handed out.
    pub fn has_ended(&self) -> bool {
        self.ended
    }

    /// Takes what it needs of `input` for the next unit. Call again with the rest until the rest is empty.
    pub fn next<'a>(&'a mut self, input: &'a [u8]) -> Result<Taken<'a>, FsError> {
        if self.handed_out {
            self.buffer.clear();
            self.handed_out = false;
        }
        if input.is_empty() {
            return Ok(Taken {
                used: 0,
                step: None,
            });
        }
        if self.ended {
            return Err(self.refusal("end", "bytes follow the end of the stream".into()));
        }
        if self.buffer.is_empty() {
            if let Some(length) = self.unit_bytes(input)? {
                if length <= input.len() {
                    let raw = &input[..length];
                    let step = self.step(raw)?;
                    self.account(&step);
                    return Ok(Taken {
                        used: length,
                        step: Some(step),
                    });
                }
            }
        }
        let used = self.gather(input)?;
        if self.unit_bytes(&self.buffer)? != Some(self.buffer.len()) {
            return Ok(Taken { used, step: None });
        }
        // `step` borrows the buffer for as long as the caller holds it, so the accounts are settled first.
        let bytes = self.buffer.len() as u64;
        let ends = self.version.is_some() && kind_of(&self.buffer) == Kind::End as u16;
        if self.version.is_none() {
            let version = self.header(&self.buffer)?;
            (self.version, self.handed_out) = (Some(version), true);
            self.offset += bytes;
            let step = Step {
                raw: &self.buffer,
                piece: Piece::Header { version },
            };
            return Ok(Taken {
                used,
                step: Some(step),
            });
        }
        let start = self.offset;
        (self.handed_out, self.ended, self.offset) = (true, ends, start + bytes);
        let step = self.step_at(&self.buffer, start)?;
        Ok(Taken {
            used,
            step: Some(step),
        })
    }

    /// Appends input to the buffer until the unit is whole; gives how much was taken.
    fn gather(&mut self, input: &[u8]) -> Result<usize, FsError> {
        let mut used = 0;
        loop {
            let wanted = match self.unit_bytes(&self.buffer)? {
                Some(length) => length,
                None => self.head_bytes(),
            };
            let take = (wanted - self.buffer.len()).min(input.len() - used);
            if take == 0 {
                return Ok(used);
            }
            self.buffer.reserve_exact(wanted - self.buffer.len());
            self.buffer.extend_from_slice(&input[used..used + take]);
            used += take;
        }
    }

    /// Bytes that tell how long the unit is.
    fn head_bytes(&self) -> usize {
        if self.version.is_none() {
            HEADER_BYTES
        } else {
            COMMAND_HEADER_BYTES
        }
    }

    /// Length of the unit that begins with `bytes`, once that can be told; refused when it is beyond the bound.
    fn unit_bytes(&self, bytes: &[u8]) -> Result<Option<usize>, FsError> {
        let Some(version) = self.version else {
            return Ok(Some(HEADER_BYTES));
        };
        let Some((head, _)) = bytes.split_first_chunk::<COMMAND_HEADER_BYTES>() else {
            return Ok(None);
        };
        let payload = u32::from_le_bytes([head[0], head[1], head[2], head[3]]) as usize;
        let bytes_max = command_bytes_max(version);
        if payload > bytes_max - COMMAND_HEADER_BYTES {
            let why = format!("length {payload} is beyond the bound of {bytes_max}");
            return Err(self.refusal(&name_of(kind_of(bytes)), why));
        }
        Ok(Some(COMMAND_HEADER_BYTES + payload))
    }

    fn account(&mut self, step: &Step<'_>) {
        self.offset += step.raw.len() as u64;
        match step.piece {
            Piece::Header { version } => self.version = Some(version),
            Piece::Command(command) => self.ended = command == Command::End,
        }
    }

    fn step<'a>(&self, raw: &'a [u8]) -> Result<Step<'a>, FsError> {
        if self.version.is_none() {
            let version = self.header(raw)?;
            return Ok(Step {
                raw,
                piece: Piece::Header { version },
            });
        }
        self.step_at(raw, self.offset)
    }

    fn step_at<'a>(&self, raw: &'a [u8], start: u64) -> Result<Step<'a>, FsError> {
        let version = self.version.unwrap_or(1);
        match command(version, raw) {
            Ok(command) => Ok(Step {
                raw,
                piece: Piece::Command(command),
            }),
            Err(why) => Err(FsError::BadStream {
                offset: start,
                command: name_of(kind_of(raw)),
                why,
            }),
        }
    }

    fn header(&self, raw: &[u8]) -> Result<u32, FsError> {
        let (magic, version) = raw.split_at(MAGIC.len());
        if magic != MAGIC {
            return Err(self.refusal("header", "not a btrfs send stream".into()));
        }
        let version = version.try_into().map_or(0, u32::from_le_bytes);
        if version == 0 || version > VERSION_MAX {
            return Err(self.refusal("header", format!("version {version} is not known")));
        }
        Ok(version)
    }

    fn refusal(&self, command: &str, why: String) -> FsError {
        FsError::BadStream {
            offset: self.offset,
            command: command.into(),
            why,
        }
    }
}

fn kind_of(raw: &[u8]) -> u16 {
    raw.get(4..6)
        .and_then(|bytes| bytes.try_into().ok())
        .map_or(0, u16::from_le_bytes)
}

fn name_of(number: u16) -> String {
    Kind::of(number).map_or_else(|| format!("number {number}"), |kind| kind.name().into())
}

/// Reads one whole command.
fn command(version: u32, raw: &[u8]) -> Result<Command<'_>, String> {
    let (head, payload) = raw.split_at(COMMAND_HEADER_BYTES);
    let stated = u32::from_le_bytes([head[6], head[7], head[8], head[9]]);
    if checksum(&head[..6], payload) != stated {
        return Err("checksum does not match".into());
    }
    let number = kind_of(raw);
    let kind = Kind::of(number).ok_or_else(|| format!("command number {number} is not known"))?;
    let needs = match kind {
        Kind::Fallocate | Kind::Fileattr | Kind::EncodedWrite => 2,
        Kind::EnableVerity => 3,
        _ => 1,
    };
    if version < needs {
        return Err(format!("does not exist in version {version}"));
    }
    typed(kind, &Attrs::cut(version, payload)?)
}
