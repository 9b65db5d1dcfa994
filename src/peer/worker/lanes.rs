//! The exchanges of a link inside its worker: each has a socket to the daemon, and what comes from the peer is read, checked
//! and written anew on the way.
//!
//! Promise: the daemon gets typed messages that were written here, data that are unpacked already, and an end only where
//! the peer sent one; a slow side slows the other, exchange by exchange, and nothing piles up here but one frame each way.

use std::pin::{Pin, pin};

use anyhow::{Result, bail};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};

use super::super::bulk::{BadData, Unpacker};
use super::super::codec::{FrameReader, FrameWriter, Unreadable};
use super::super::exchange::{Exchange, Item, Receiving, Sending};
use super::super::frame::{BadFrame, Frame};
use super::super::link::Link;
use super::super::message::{Answer, MESSAGE_BYTES_MAX, Refusal, Request, SenderWord, plain};
use super::super::timing::Timing;
use crate::error::Code;

/// What a peer says inside an exchange.
pub(super) trait Said: Serialize + DeserializeOwned + Send + Sync {
    /// The data after it are a new zstd stream.
    fn restarts(&self) -> bool {
        false
    }

    /// Its words for people made harmless.
    fn harmless(self) -> Self;

    /// In place of what could not be read: nothing follows it.
    fn unreadable(why: String) -> Self;
}

impl Said for Answer {
    fn harmless(self) -> Answer {
        match self {
            Answer::Refused(refusal) => Answer::Refused(Refusal {
                code: refusal.code,
                why: plain(&refusal.why),
                hint: refusal.hint.as_deref().map(plain),
                shortage: refusal.shortage,
            }),
            Answer::Word {
                word: Some(mut word),
            } => {
                word.state = plain(&word.state);
                Answer::Word { word: Some(word) }
            }
            Answer::Ready { problems } => Answer::Ready {
                problems: problems.iter().map(|problem| plain(problem)).collect(),
            },
            other => other,
        }
    }

    fn unreadable(why: String) -> Answer {
        Answer::Refused(Refusal::new(Code::Failed, why))
    }
}

impl Said for SenderWord {
    fn restarts(&self) -> bool {
        matches!(self, SenderWord::Restart { .. })
    }

    fn harmless(self) -> SenderWord {
        match self {
            SenderWord::Restart { why } => SenderWord::Restart { why: plain(&why) },
            SenderWord::Failed { why } => SenderWord::Failed { why: plain(&why) },
            other @ (SenderWord::End { .. } | SenderWord::Look { .. }) => other,
        }
    }

    fn unreadable(why: String) -> SenderWord {
        SenderWord::Failed { why }
    }
}

/// An exchange that the daemon opens: its first frame is the request.
pub(super) async fn outgoing(link: Link, lane: UnixStream, timing: Timing) {
    let (read, write) = lane.into_split();
    let mut reader = FrameReader::new(read, MESSAGE_BYTES_MAX);
    reader.expect_whole();
    let opened = async {
        match reader.next().await? {
            Some(request @ Frame::Message(_)) => link.open_frame(&request).await,
            _ => bail!("the daemon opened an exchange without a request"),
        }
    };
    let carried = match opened.await {
        Ok(exchange) => carry::<Answer>(exchange, reader, FrameWriter::new(write), timing).await,
        Err(error) => Err(error),
    };
    tell(carried);
}

/// An exchange that the peer opened.
pub(super) async fn incoming(
    request: Request,
    exchange: Exchange,
    lane: UnixStream,
    timing: Timing,
) {
    let (read, write) = lane.into_split();
    let mut reader = FrameReader::new(read, MESSAGE_BYTES_MAX);
    reader.expect_whole();
    let mut writer = FrameWriter::new(write);
    let carried = match writer.message(&request).await {
        Ok(()) => carry::<SenderWord>(exchange, reader, writer, timing).await,
        Err(error) => Err(error),
    };
    tell(carried);
}

/// How an exchange ends is told to both sides by how its streams end; only damage is worth a line in the log.
fn tell(carried: Result<()>) {
    match carried {
        Err(error) if error.is::<BadData>() => tracing::warn!("an exchange was cut: {error:#}"),
        Err(error) => tracing::debug!("an exchange was cut: {error:#}"),
        Ok(()) => {}
    }
}

/// Why one direction ended: its source ended it (well or not), or its target takes nothing any more.
#[derive(Debug)]
enum Ended {
    Source(Result<()>),
    Target(anyhow::Error),
}

/// Until the daemon lets the exchange go, or the peer breaks it. Who takes nothing any more may have said why: its last words
/// still go the other way.
async fn carry<T: Said>(
    exchange: Exchange,
    mut reader: FrameReader<OwnedReadHalf>,
    mut writer: FrameWriter<OwnedWriteHalf>,
    timing: Timing,
) -> Result<()> {
    let (mut sending, mut receiving) = exchange.into_split();
    let mut to = pin!(to_peer(&mut reader, &mut sending));
    let mut from = pin!(from_peer_or_why::<T>(&mut receiving, &mut writer));
    let (ended, other): (_, Pin<&mut (dyn Future<Output = Ended> + Send)>) = tokio::select! {
        ended = &mut to => (ended, from),
        ended = &mut from => (ended, to),
    };
    match ended {
        Ended::Source(ended) => ended,
        Ended::Target(error) => {
            let _ = tokio::time::timeout(timing.close, other).await;
            Err(error)
        }
    }
}

/// The daemon's own messages and data go as they are. Its end of the socket closes when it has let the exchange go.
async fn to_peer(reader: &mut FrameReader<OwnedReadHalf>, sending: &mut Sending) -> Ended {
    loop {
        let sent = match reader.next().await {
            Ok(Some(Frame::End)) => sending.finish().await,
            Ok(Some(frame)) => sending.send_frame(&frame).await,
            Ok(None) => return Ended::Source(Ok(())),
            Err(error) => return Ended::Source(Err(error)),
        };
        if let Err(error) = sent {
            return Ended::Target(error);
        }
    }
}

/// Nonsense is told to the daemon as the peer's last word, so that the daemon tells the peer and its own log.
async fn from_peer_or_why<T: Said>(
    receiving: &mut Receiving,
    writer: &mut FrameWriter<OwnedWriteHalf>,
) -> Ended {
    let error = match from_peer::<T>(receiving, writer).await {
        Ended::Source(Err(error)) => error,
        ended => return ended,
    };
    let nonsense = error.is::<BadData>() || error.is::<Unreadable>() || error.is::<BadFrame>();
    if !nonsense {
        return Ended::Source(Err(error));
    }
    let why = format!(
        "what it sent cannot be used: {}",
        plain(&format!("{error:#}"))
    );
    if let Err(error) = writer.message(&T::unreadable(why)).await {
        return Ended::Target(error);
    }
    // The daemon lets the exchange go when it has answered.
    std::future::pending().await
}

async fn from_peer<T: Said>(
    receiving: &mut Receiving,
    writer: &mut FrameWriter<OwnedWriteHalf>,
) -> Ended {
    // Made at the first frame that needs it: most exchanges have none.
    let mut unpacker: Option<Unpacker> = None;
    loop {
        let written = match next::<T>(receiving, &mut unpacker).await {
            Ok(Some(Checked::Word(word))) => writer.message(&word).await,
            Ok(Some(Checked::Data(frame))) => writer.frame(&frame).await,
            Ok(None) => match writer.frame(&Frame::End).await {
                // The other direction may go on.
                Ok(()) => std::future::pending().await,
                failed => failed,
            },
            Err(error) => return Ended::Source(Err(error)),
        };
        if let Err(error) = written {
            return Ended::Target(error);
        }
    }
}

/// What a peer said, as the daemon may have it.
enum Checked<T> {
    Word(T),
    Data(Frame),
}

/// None: it says no more, on purpose.
async fn next<T: Said>(
    receiving: &mut Receiving,
    unpacker: &mut Option<Unpacker>,
) -> Result<Option<Checked<T>>> {
    Ok(Some(match receiving.next::<T>().await? {
        Item::Word(word) => {
            if word.restarts() {
                *unpacker = None;
            }
            Checked::Word(word.harmless())
        }
        Item::Data(frame @ Frame::Zstd { .. }) => {
            let unpacker = match unpacker {
                Some(unpacker) => unpacker,
                none => none.insert(Unpacker::new()?),
            };
            let data = unpacker.unpack(&frame)?.to_vec();
            let wire = frame.wire_bytes() as u32;
            Checked::Data(Frame::Unpacked { wire, data })
        }
        Item::Data(frame) => Checked::Data(frame),
        Item::End => return Ok(None),
    }))
}
