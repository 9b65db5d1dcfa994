//! The socket between the daemon and a worker: one datagram is one word, and may carry one descriptor.
//!
//! Promise: a word is at most [`WORD_BYTES_MAX`] bytes of JSON and whole or not there; whoever does not want descriptors
//! (the daemon) gets none into its table, whatever the other side sends: the kernel drops them and says so.
//!
//! It deliberately does not know what the words mean.

use std::io::{self, ErrorKind, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream as StdUnixStream;

use anyhow::{Context, Result, bail};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags,
    SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg,
    sendmsg, socketpair,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::Interest;
use tokio::net::UnixStream;

/// Largest word, in bytes of JSON: a greeting (at most 16 KiB) and what stands around it.
pub(super) const WORD_BYTES_MAX: usize = 64 << 10;

/// A word and what came with it.
pub(super) type Heard<T> = Option<(T, Option<OwnedFd>)>;

/// One end, for tasks.
#[derive(Debug)]
pub(super) struct Channel {
    /// Only the readiness of this type is used: it does not know datagrams.
    socket: UnixStream,
    /// Whether a descriptor may come along.
    takes: Takes,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Takes {
    Words,
    Descriptors,
}

/// Two ends, both blocking.
pub(super) fn pair() -> Result<(OwnedFd, OwnedFd)> {
    let flags = SocketFlags::CLOEXEC;
    socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)
        .context("make a socket for a worker")
}

impl Channel {
    pub fn new(socket: OwnedFd, takes: Takes) -> Result<Channel> {
        let socket = StdUnixStream::from(socket);
        socket
            .set_nonblocking(true)
            .context("set up the worker's socket")?;
        let socket = UnixStream::from_std(socket).context("set up the worker's socket")?;
        Ok(Channel { socket, takes })
    }

    /// Cancel-safe: a word is sent whole or not at all.
    pub async fn send<T: Serialize>(&self, word: &T, along: Option<BorrowedFd<'_>>) -> Result<()> {
        let text = serde_json::to_vec(word).context("write a word")?;
        let sent = self
            .socket
            .async_io(Interest::WRITABLE, || {
                put(self.socket.as_fd(), &text, along)
            })
            .await;
        sent.context("tell the worker's socket")
    }

    /// The next word; none when the other side is gone. Cancel-safe.
    pub async fn recv<T: DeserializeOwned>(&self) -> Result<Heard<T>> {
        let takes = self.takes;
        let taken = self
            .socket
            .async_io(Interest::READABLE, || take(self.socket.as_fd(), takes))
            .await;
        read(taken.context("hear the worker's socket")?)
    }
}

/// As [`Channel::recv`], for a process that has no tasks yet; the end must be a blocking one.
pub(super) fn recv_blocking<T: DeserializeOwned>(socket: BorrowedFd<'_>) -> Result<Heard<T>> {
    read(take(socket, Takes::Descriptors).context("hear the daemon's socket")?)
}

/// As [`Channel::send`], for a process that has no tasks.
pub(super) fn send_blocking<T: Serialize>(socket: BorrowedFd<'_>, word: &T) -> Result<()> {
    let text = serde_json::to_vec(word).context("write a word")?;
    put(socket, &text, None).context("tell the daemon's socket")
}

fn put(socket: BorrowedFd<'_>, text: &[u8], along: Option<BorrowedFd<'_>>) -> io::Result<()> {
    if text.len() > WORD_BYTES_MAX {
        return Err(io::Error::new(
            ErrorKind::InvalidInput,
            "the word is too long",
        ));
    }
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let along: Vec<BorrowedFd<'_>> = along.into_iter().collect();
    if !along.is_empty() && !control.push(SendAncillaryMessage::ScmRights(&along)) {
        return Err(io::Error::other("no room for the descriptor"));
    }
    let parts = [IoSlice::new(text)];
    sendmsg(socket, &parts, &mut control, SendFlags::NOSIGNAL)?;
    Ok(())
}

/// Text and descriptor of one datagram; empty text: the end.
fn take(socket: BorrowedFd<'_>, takes: Takes) -> io::Result<(Vec<u8>, Option<OwnedFd>)> {
    let mut text = vec![0; WORD_BYTES_MAX];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let space = match takes {
        Takes::Words => &mut space[..0],
        Takes::Descriptors => &mut space[..],
    };
    let mut control = RecvAncillaryBuffer::new(space);
    let mut parts = [IoSliceMut::new(&mut text)];
    let heard = recvmsg(socket, &mut parts, &mut control, RecvFlags::CMSG_CLOEXEC)?;
    let descriptors: Vec<OwnedFd> = control
        .drain()
        .filter_map(|message| match message {
            RecvAncillaryMessage::ScmRights(descriptors) => Some(descriptors),
            _ => None,
        })
        .flatten()
        .collect();
    if heard
        .flags
        .intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC)
    {
        let what = "a word came that is too long, or with a descriptor that nobody wants";
        return Err(io::Error::new(ErrorKind::InvalidData, what));
    }
    text.truncate(heard.bytes);
    Ok((text, descriptors.into_iter().next()))
}

fn read<T: DeserializeOwned>((text, along): (Vec<u8>, Option<OwnedFd>)) -> Result<Heard<T>> {
    if text.is_empty() {
        return Ok(None);
    }
    match serde_json::from_slice(&text) {
        Ok(word) => Ok(Some((word, along))),
        Err(error) => bail!("a word came that is none: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use super::*;

    fn ends(near: Takes) -> (Channel, Channel) {
        let (a, b) = pair().unwrap();
        let a = Channel::new(a, near).unwrap();
        (a, Channel::new(b, Takes::Descriptors).unwrap())
    }

    #[tokio::test]
    async fn words_and_a_descriptor_and_the_end() {
        let (near, far) = ends(Takes::Words);
        let (mut kept, given) = StdUnixStream::pair().unwrap();
        near.send(&"take", Some(given.as_fd())).await.unwrap();
        drop(given);
        let (word, along) = far.recv::<String>().await.unwrap().unwrap();
        assert_eq!(word, "take");
        StdUnixStream::from(along.unwrap()).write_all(b"x").unwrap();
        kept.read_exact(&mut [0]).unwrap();
        drop(near);
        assert!(far.recv::<String>().await.unwrap().is_none());
    }

    #[tokio::test]
    async fn a_descriptor_nobody_wants_is_an_error() {
        let (near, far) = ends(Takes::Words);
        let gift = StdUnixStream::pair().unwrap().0;
        far.send(&"gift", Some(gift.as_fd())).await.unwrap();
        let error = near.recv::<String>().await.unwrap_err();
        assert!(format!("{error:#}").contains("nobody wants"), "{error:#}");
    }

    #[tokio::test]
    async fn what_is_not_a_word() {
        let (near, far) = ends(Takes::Words);
        far.send(&7, None).await.unwrap();
        assert!(near.recv::<String>().await.is_err());
        let long = "x".repeat(WORD_BYTES_MAX);
        assert!(far.send(&long, None).await.is_err());
    }
}
