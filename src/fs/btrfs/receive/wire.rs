//! What the daemon and a worker say to each other: frames over a pair of stream sockets, some with a descriptor.
//!
//! Promise: nothing is allocated from a stated length before it is checked against the reader's bound; a frame comes whole
//! or not at all. The two ends are one program, so there are no versions.
//!
//! ```text
//!   kind     1 byte
//!   length   4 bytes, little endian
//!   payload  bytes of the stream, or JSON
//! ```
//!
//! The daemon says `Start` (with the tree's mount), then `Data`, `Save` or `Settle`; the worker answers each with `Done`,
//! `Saved`, `Settled` or `Failed`, in order. In between the worker may `Ask`, which the daemon answers with `Given` before all
//! else.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::{PollFd, PollFlags};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Longest frame the daemon takes from a worker: what a checkpoint must remember, see `apply::later`.
pub(super) const FROM_WORKER_BYTES_MAX: usize = 16 << 20;

/// Longest frame a worker takes from the daemon: the same and the flags of a whole offer.
pub(super) const TO_WORKER_BYTES_MAX: usize = 32 << 20;

const HEAD_BYTES: usize = 5;

/// What a frame is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Kind {
    Start = 1,
    Data = 2,
    Save = 3,
    Settle = 4,
    Given = 5,
    Done = 16,
    Saved = 17,
    Settled = 18,
    Failed = 19,
    Ask = 20,
}

impl Kind {
    const ALL: [Kind; 10] = [
        Kind::Start,
        Kind::Data,
        Kind::Save,
        Kind::Settle,
        Kind::Given,
        Kind::Done,
        Kind::Saved,
        Kind::Settled,
        Kind::Failed,
        Kind::Ask,
    ];
}

/// What a worker has not and asks for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Ask {
    /// A declared snapshot, to be read.
    Source(Uuid),
    /// The attribute of the file whose descriptor comes along (O_PATH): set it, or remove it where `value` is none. In hex:
    /// the longest one (64 KiB) must fit into a socket's buffer (208 KiB), or both sides might wait to be read.
    Attribute { name: String, value: Option<String> },
}

/// The answer to an [`Ask`]: none, or the error.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Given {
    pub errno: Option<i32>,
}

/// A received frame; its payload is in the caller's buffer.
#[derive(Debug)]
pub(super) struct Frame {
    pub kind: Kind,
    pub descriptor: Option<OwnedFd>,
}

/// One end.
#[derive(Debug)]
pub(super) struct Wire(OwnedFd);

impl Wire {
    pub fn new(socket: OwnedFd) -> Wire {
        Wire(socket)
    }

    pub fn send_json<T: Serialize>(
        &self,
        kind: Kind,
        value: &T,
        descriptor: Option<BorrowedFd<'_>>,
    ) -> io::Result<()> {
        self.send(kind, &serde_json::to_vec(value)?, descriptor)
    }

    pub fn send(
        &self,
        kind: Kind,
        payload: &[u8],
        descriptor: Option<BorrowedFd<'_>>,
    ) -> io::Result<()> {
        let length = u32::try_from(payload.len()).map_err(io::Error::other)?;
        let mut head = [kind as u8; HEAD_BYTES];
        head[1..].copy_from_slice(&length.to_le_bytes());
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        let descriptors: Vec<BorrowedFd<'_>> = descriptor.into_iter().collect();
        if !descriptors.is_empty() {
            control.push(SendAncillaryMessage::ScmRights(&descriptors));
        }
        let (mut sent, whole) = (0, HEAD_BYTES + payload.len());
        while sent < whole {
            let rest = [
                IoSlice::new(&head[sent.min(HEAD_BYTES)..]),
                IoSlice::new(&payload[sent.saturating_sub(HEAD_BYTES)..]),
            ];
            match rustix::net::sendmsg(&self.0, &rest, &mut control, SendFlags::NOSIGNAL) {
                Ok(count) => {
                    sent += count;
                    // It goes along with the first byte.
                    control.clear();
                }
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// The next frame, its payload in `buffer`; none when the other side has gone between two frames.
    pub fn receive(&self, buffer: &mut Vec<u8>, most: usize) -> io::Result<Option<Frame>> {
        let mut head = [0; HEAD_BYTES];
        let mut descriptor = None;
        let mut have = 0;
        while have < HEAD_BYTES {
            match self.receive_some(&mut head[have..], &mut descriptor)? {
                0 if have == 0 => return Ok(None),
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                count => have += count,
            }
        }
        let kind = Kind::ALL.into_iter().find(|kind| *kind as u8 == head[0]);
        let kind = kind.ok_or_else(|| io::Error::other("a frame of no known kind"))?;
        let length = u32::from_le_bytes([head[1], head[2], head[3], head[4]]) as usize;
        if length > most {
            return Err(io::Error::other(format!("a frame of {length} bytes")));
        }
        buffer.resize(length, 0);
        let mut have = 0;
        while have < length {
            match rustix::io::read(&self.0, &mut buffer[have..]) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(count) => have += count,
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(Some(Frame { kind, descriptor }))
    }

    /// Whether a frame has come, its beginning at least, or the other side has gone.
    pub fn has_something(&self) -> bool {
        let at_once = rustix::event::Timespec::default();
        let mut ends = [PollFd::new(&self.0, PollFlags::IN)];
        rustix::event::poll(&mut ends, Some(&at_once)).is_ok_and(|ready| ready > 0)
    }

    fn receive_some(&self, into: &mut [u8], descriptor: &mut Option<OwnedFd>) -> io::Result<usize> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut into = [IoSliceMut::new(into)];
        loop {
            let flags = RecvFlags::CMSG_CLOEXEC;
            match rustix::net::recvmsg(&self.0, &mut into, &mut control, flags) {
                Ok(message) => {
                    for message in control.drain() {
                        if let RecvAncillaryMessage::ScmRights(found) = message {
                            *descriptor = found.last().or(descriptor.take());
                        }
                    }
                    return Ok(message.bytes);
                }
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

impl AsFd for Wire {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// A payload as what it should be.
pub(super) fn read<T: DeserializeOwned>(payload: &[u8]) -> io::Result<T> {
    Ok(serde_json::from_slice(payload)?)
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;

    fn pair() -> (Wire, Wire) {
        let (one, other) = UnixStream::pair().unwrap();
        (Wire::new(one.into()), Wire::new(other.into()))
    }

    #[test]
    fn frames_come_as_they_went() {
        let (one, other) = pair();
        let sizes = [0, 1, 5, 4096, 3 << 20];
        let sending = std::thread::spawn(move || {
            for size in sizes {
                one.send(Kind::Data, &vec![7; size], None).unwrap();
            }
        });
        let mut buffer = Vec::new();
        for size in sizes {
            let frame = other.receive(&mut buffer, 4 << 20).unwrap().unwrap();
            assert_eq!((frame.kind, buffer.len()), (Kind::Data, size));
            assert!(frame.descriptor.is_none() && buffer.iter().all(|byte| *byte == 7));
        }
        sending.join().unwrap();
        assert!(other.receive(&mut buffer, 1).unwrap().is_none());
    }

    #[test]
    fn whether_something_came() {
        let (one, other) = pair();
        assert!(!other.has_something());
        one.send(Kind::Data, b"x", None).unwrap();
        assert!(other.has_something());
        other.receive(&mut Vec::new(), 1).unwrap();
        assert!(!other.has_something());
        drop(one);
        assert!(other.has_something());
    }

    #[test]
    fn descriptors_come_with_their_frame() {
        let (one, other) = pair();
        let file = tempfile::tempfile().unwrap();
        let inode = rustix::fs::fstat(&file).unwrap().st_ino;
        one.send(Kind::Save, b"", None).unwrap();
        one.send(Kind::Start, b"abc", Some(file.as_fd())).unwrap();
        one.send(Kind::Settle, b"", None).unwrap();
        let mut buffer = Vec::new();
        let mut next = || other.receive(&mut buffer, 10).unwrap().unwrap();
        assert!(next().descriptor.is_none());
        let found = next().descriptor.unwrap();
        assert_eq!(rustix::fs::fstat(found).unwrap().st_ino, inode);
        assert!(next().descriptor.is_none());
    }

    #[test]
    fn nonsense_is_refused() {
        let check = |bytes: &[u8], words: &str| {
            let (mut one, other) = UnixStream::pair().unwrap();
            std::io::Write::write_all(&mut one, bytes).unwrap();
            drop(one);
            let outcome = Wire::new(other.into()).receive(&mut Vec::new(), 100);
            let said = outcome.unwrap_err().to_string();
            assert!(said.contains(words), "{said}");
        };
        check(&[99, 0, 0, 0, 0], "no known kind");
        check(&[2, 101, 0, 0, 0], "a frame of 101 bytes");
        check(&[2, 255, 255, 255, 255], "a frame of 4294967295 bytes");
        check(&[2, 1], "");
        check(&[2, 9, 0, 0, 0, 1], "");
    }
}
