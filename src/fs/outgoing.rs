//! What is sent: how much it is, and the stream itself.
//!
//! It deliberately does not know how a filesystem makes one.

use std::any::Any;
use std::fmt;
use std::io::{self, Read};
use std::sync::Arc;

use super::Result;
use crate::logic::transfer::{FileFlags, StreamIdentity};

/// What a send will carry, known before its first byte.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Measured {
    pub identity: StreamIdentity,
    /// File data in the stream, in bytes: exact, from the no-data pass.
    pub data_bytes: u64,
    /// Flags of new files that the stream itself does not carry.
    pub flags: FileFlags,
    pub kept: Remembered,
}

/// What measuring learnt, for a send of the same while this lives. Never needed, and equal to any other.
#[derive(Clone, Default)]
pub struct Remembered(pub Option<Arc<dyn Any + Send + Sync>>);

impl PartialEq for Remembered {
    fn eq(&self, _: &Remembered) -> bool {
        true
    }
}

impl Eq for Remembered {}

impl fmt::Debug for Remembered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Remembered({})", self.0.is_some())
    }
}

/// What a stream gives at a time, in bytes, where its pieces have no length of their own.
const PIECE_BYTES: usize = 128 << 10;

/// A stream being produced. `read` gives the stream's bytes; 0 is the end.
pub trait Outgoing: Read + Send {
    /// The next bytes, `most` at most and as many as come together; none at the end.
    fn piece(&mut self, most: usize) -> io::Result<Vec<u8>> {
        gathered(self, most)
    }

    /// Whether the source ended well. Only after `read` returned 0. An error names the dataset and, for EIO, the file.
    fn finish(self: Box<Self>) -> Result<()>;
}

/// A piece of a stream that has none of its own: whole ones pack better, and pipes are filled in small ones.
pub(super) fn gathered(stream: &mut (impl Read + ?Sized), most: usize) -> io::Result<Vec<u8>> {
    let mut piece = vec![0; PIECE_BYTES.min(most)];
    let mut filled = 0;
    while filled < piece.len() {
        match stream.read(&mut piece[filled..]) {
            Ok(0) => break,
            Ok(got) => filled += got,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    piece.truncate(filled);
    Ok(piece)
}
