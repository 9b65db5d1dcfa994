//! One exchange: a stream of a link, opened with a request, on which both sides send messages and data.
//!
//! Promise: what was sent arrives in order, or the receiver gets an error; an exchange ended with [`Exchange::finish`] (or
//! [`Sending::finish`]) is told apart from one that was cut. A slow receiver slows the sender; nothing piles up in
//! between but the stream's window. An exchange whose halves are both dropped without `finish` is reset.
//!
//! It deliberately does not know what is exchanged, nor deadlines for answers: a transfer takes as long as it takes, and a
//! dead link ends every exchange on it.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{ReadHalf, WriteHalf};
use tokio::sync::OwnedSemaphorePermit;

use super::codec::{FrameReader, FrameWriter, Unreadable, parse};
use super::frame::{BadFrame, Dialect, Frame};
use super::link::Link;
use super::message::MESSAGE_BYTES_MAX;
use super::transport::Transport;
use crate::error::{Code, Failure};

/// What a receiver may find next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Item<T> {
    Word(T),
    /// A raw or zstd frame, for `bulk::Unpacker`.
    Data(Frame),
    /// The other side has finished, on purpose.
    End,
}

/// What carries an exchange: a stream of yamux, or a socket to the link's worker.
pub(super) type Stream = Box<dyn Transport>;

#[derive(Debug)]
pub struct Exchange {
    sending: Sending,
    receiving: Receiving,
}

/// The sending half.
#[derive(Debug)]
pub struct Sending {
    writer: FrameWriter<WriteHalf<Stream>>,
    link: Link,
    _permit: Arc<OwnedSemaphorePermit>,
}

/// The receiving half.
#[derive(Debug)]
pub struct Receiving {
    reader: FrameReader<ReadHalf<Stream>>,
    link: Link,
    _permit: Arc<OwnedSemaphorePermit>,
}

impl Exchange {
    pub(super) fn new(stream: Stream, link: Link, permit: OwnedSemaphorePermit) -> Exchange {
        let (read, write) = tokio::io::split(stream);
        let permit = Arc::new(permit);
        let mut reader = FrameReader::new(read, MESSAGE_BYTES_MAX);
        reader.set_dialect(link.dialect());
        if link.dialect() == Dialect::Inside {
            reader.expect_whole();
        }
        Exchange {
            sending: Sending {
                writer: FrameWriter::new(write),
                link: link.clone(),
                _permit: permit.clone(),
            },
            receiving: Receiving {
                reader,
                link,
                _permit: permit,
            },
        }
    }

    /// The link it runs on.
    pub fn link(&self) -> &Link {
        &self.sending.link
    }

    /// See [`Sending::send`].
    pub async fn send<T: Serialize>(&mut self, message: &T) -> Result<()> {
        self.sending.send(message).await
    }

    /// See [`Sending::send_frame`].
    pub async fn send_frame(&mut self, frame: &Frame) -> Result<()> {
        self.sending.send_frame(frame).await
    }

    /// See [`Receiving::recv`].
    pub async fn recv<T: DeserializeOwned>(&mut self) -> Result<T> {
        self.receiving.recv().await
    }

    /// See [`Receiving::next`].
    pub async fn next<T: DeserializeOwned>(&mut self) -> Result<Item<T>> {
        self.receiving.next().await
    }

    /// Nothing more from here, on purpose. What was sent before still arrives.
    pub async fn finish(mut self) -> Result<()> {
        self.sending.finish().await
    }

    /// For two tasks: one writes frames while the other reads marks.
    pub fn into_split(self) -> (Sending, Receiving) {
        (self.sending, self.receiving)
    }

    pub(super) fn receiving_mut(&mut self) -> &mut Receiving {
        &mut self.receiving
    }
}

impl Sending {
    /// Sends a message. Not cancel-safe: after a send that was dropped half-way, drop the exchange.
    pub async fn send<T: Serialize>(&mut self, message: &T) -> Result<()> {
        while_alive(&self.link, self.writer.message(message)).await
    }

    /// Sends a data frame; waits while the receiver is behind. Not cancel-safe.
    pub async fn send_frame(&mut self, frame: &Frame) -> Result<()> {
        while_alive(&self.link, self.writer.frame(frame)).await
    }

    /// Nothing more from here, on purpose. The other direction stays open.
    pub async fn finish(&mut self) -> Result<()> {
        while_alive(&self.link, self.writer.finish()).await
    }
}

impl Receiving {
    /// The next message. Data or the end in its place are errors. Cancel-safe.
    pub async fn recv<T: DeserializeOwned>(&mut self) -> Result<T> {
        let received = until_dead(&self.link, self.reader.message()).await;
        self.blame(received.as_ref().err());
        explained(&self.link, received).await
    }

    /// The next message, data frame or end; a stream that was cut is an error. Cancel-safe.
    pub async fn next<T: DeserializeOwned>(&mut self) -> Result<Item<T>> {
        let next = async {
            match self.reader.next().await? {
                Some(Frame::Message(json)) => Ok(Item::Word(parse(&json)?)),
                Some(Frame::End) => Ok(Item::End),
                Some(data) => Ok(Item::Data(data)),
                None => anyhow::bail!("the other side broke off"),
            }
        };
        let received = until_dead(&self.link, next).await;
        self.blame(received.as_ref().err());
        explained(&self.link, received).await
    }

    /// What a worker hands over was checked there: if it does not read here, the worker is not what it should be.
    fn blame(&self, error: Option<&anyhow::Error>) {
        let Some(error) = error.filter(|_| self.link.dialect() == Dialect::Inside) else {
            return;
        };
        if error.is::<BadFrame>() || error.is::<Unreadable>() {
            let why = format!("the link's worker broke the rules: {error:#}");
            self.link.pulse().end(why);
        }
    }

    pub(super) async fn raw_frame(&mut self) -> Result<Option<Frame>> {
        let received = self.reader.next().await;
        self.blame(received.as_ref().err());
        received
    }

    pub(super) fn set_message_max(&mut self, message_max: usize) {
        self.reader.set_message_max(message_max);
    }
}

/// A step of an exchange, or the end of its link: of a connection that is closed from here, yamux does not wake those who
/// wait on its streams. What has arrived before the end is still given.
async fn while_alive<T>(link: &Link, step: impl Future<Output = Result<T>>) -> Result<T> {
    explained(link, until_dead(link, step).await).await
}

async fn until_dead<T>(link: &Link, step: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::select! {
        biased;
        result = step => result,
        _ = link.closed() => Err(anyhow::anyhow!("the link ended")),
    }
}

/// An error on a link that is dead is the death of the link, not a puzzle about streams.
async fn explained<T>(link: &Link, result: Result<T>) -> Result<T> {
    let Err(error) = result else { return result };
    // The streams notice before the task that reads the connection has said why.
    let moment = Duration::from_millis(100);
    match tokio::time::timeout(moment, link.closed()).await {
        Ok(why) => {
            let what = format!("use the link to {}: it is down: {why}", link.peer());
            tracing::debug!("{what}; on the stream: {error:#}");
            Err(Failure::new(Code::Unreachable, what).into())
        }
        Err(_) => Err(error.context(format!("exchange with {}", link.peer()))),
    }
}
