//! Frames over a byte stream: the async half of `frame`.
//!
//! Promise: reading is cancel-safe (a `next` that is dropped loses nothing) and takes no byte beyond the present frame;
//! an end without an end frame is told apart from one with it. Writing hands each frame to the stream in one piece.
//!
//! It deliberately does not know what the stream is, nor what the messages mean.

use std::io::{ErrorKind, IoSlice};

use anyhow::{Context, Result, bail};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::frame::{Decoder, Dialect, Frame};
use super::message::plain;

/// Reads frames.
#[derive(Debug)]
pub struct FrameReader<R> {
    stream: R,
    decoder: Decoder,
}

impl<R: AsyncRead + Unpin> FrameReader<R> {
    /// Messages larger than `message_max` bytes are refused.
    pub fn new(stream: R, message_max: usize) -> FrameReader<R> {
        FrameReader {
            stream,
            decoder: Decoder::new(message_max),
        }
    }

    pub fn set_dialect(&mut self, dialect: Dialect) {
        self.decoder.set_dialect(dialect);
    }

    /// See [`Decoder::expect_whole`].
    pub fn expect_whole(&mut self) {
        self.decoder.expect_whole();
    }

    pub fn set_message_max(&mut self, message_max: usize) {
        self.decoder.set_message_max(message_max);
    }

    /// The next frame; none when the stream ends between two frames. Cancel-safe.
    pub async fn next(&mut self) -> Result<Option<Frame>> {
        loop {
            let space = self.decoder.space();
            let bytes = match self.stream.read(space).await {
                // TLS calls it unexpected when the other side vanishes; to us it is an end like any other.
                Err(error) if error.kind() == ErrorKind::UnexpectedEof => 0,
                other => other.context("read")?,
            };
            if bytes == 0 {
                if self.decoder.at_boundary() {
                    return Ok(None);
                }
                bail!("the stream ended inside a frame");
            }
            if let Some(frame) = self.decoder.filled(bytes)? {
                return Ok(Some(frame));
            }
        }
    }

    /// The next frame, which must be a message of the given type. Cancel-safe.
    pub async fn message<T: DeserializeOwned>(&mut self) -> Result<T> {
        match self.next().await? {
            Some(Frame::Message(json)) => Ok(parse(&json)?),
            Some(Frame::End) => bail!("the other side ended the conversation"),
            Some(Frame::Raw(_) | Frame::Zstd { .. } | Frame::Unpacked { .. }) => {
                bail!("data came where a message belongs")
            }
            None => bail!("the other side hung up"),
        }
    }

    pub fn into_inner(self) -> R {
        self.stream
    }
}

/// JSON that is not the message expected.
#[derive(Debug, thiserror::Error)]
#[error("not a message we understand: {error}: {start}")]
pub struct Unreadable {
    error: String,
    /// A little of what came.
    start: String,
}

/// A message from JSON; the error shows a little of what came.
pub fn parse<T: DeserializeOwned>(json: &[u8]) -> Result<T, Unreadable> {
    serde_json::from_slice(json).map_err(|error| Unreadable {
        // It repeats words of the message: names, types, unknown variants.
        error: plain(&error.to_string()),
        start: plain(&String::from_utf8_lossy(&json[..json.len().min(80)])),
    })
}

/// Of a frame that is written in parts, the first has this many bytes: on a stream of a link it fills a piece of its own
/// (`link::SPLIT_BYTES`), and the payload is cut as if it were written at once.
const FIRST_BYTES: usize = 16 * 1024 - 12;

/// Writes frames. Not cancel-safe: a write that is dropped half-way leaves the stream useless.
#[derive(Debug)]
pub struct FrameWriter<W> {
    stream: W,
    /// Beginnings of frames; kept between them for its capacity.
    wire: Vec<u8>,
}

impl<W: AsyncWrite + Unpin> FrameWriter<W> {
    pub fn new(stream: W) -> FrameWriter<W> {
        FrameWriter {
            stream,
            wire: Vec::new(),
        }
    }

    pub async fn frame(&mut self, frame: &Frame) -> Result<()> {
        self.wire.clear();
        let mut payload = frame.encode_head(&mut self.wire)?;
        let written = if self.stream.is_write_vectored() {
            both(&mut self.stream, &self.wire, payload).await
        } else {
            let together = payload.len().min(FIRST_BYTES - self.wire.len());
            self.wire.extend_from_slice(&payload[..together]);
            payload = &payload[together..];
            match self.stream.write_all(&self.wire).await {
                Ok(()) => self.stream.write_all(payload).await,
                failed => failed,
            }
        };
        written.context("write")?;
        self.stream.flush().await.context("write")
    }

    pub async fn message<T: Serialize>(&mut self, message: &T) -> Result<()> {
        let json = serde_json::to_vec(message).context("write a message")?;
        self.frame(&Frame::Message(json)).await
    }

    /// Nothing follows, on purpose: the end frame, then the end of the stream.
    pub async fn finish(&mut self) -> Result<()> {
        self.frame(&Frame::End).await?;
        self.stream.shutdown().await.context("close")
    }

    pub fn into_inner(self) -> W {
        self.stream
    }
}

/// One after the other, in one call where the stream takes as much.
async fn both<W: AsyncWrite + Unpin>(
    stream: &mut W,
    mut head: &[u8],
    mut payload: &[u8],
) -> std::io::Result<()> {
    while !head.is_empty() {
        let parts = [IoSlice::new(head), IoSlice::new(payload)];
        let written = stream.write_vectored(&parts).await?;
        if written == 0 {
            return Err(ErrorKind::WriteZero.into());
        }
        let of_head = written.min(head.len());
        head = &head[of_head..];
        payload = &payload[written - of_head..];
    }
    stream.write_all(payload).await
}

#[cfg(test)]
mod tests {
    use tokio_util::compat::{FuturesAsyncWriteCompatExt, TokioAsyncWriteCompatExt};

    use super::super::message::{Request, SMALL_BYTES_MAX};
    use super::*;

    fn pair() -> (
        FrameWriter<tokio::io::DuplexStream>,
        FrameReader<tokio::io::DuplexStream>,
    ) {
        let (near, far) = tokio::io::duplex(64);
        (
            FrameWriter::new(near),
            FrameReader::new(far, SMALL_BYTES_MAX),
        )
    }

    #[tokio::test]
    async fn messages_data_and_the_end() {
        let (mut writer, mut reader) = pair();
        let writing = async {
            writer.message(&Request::Ping).await.unwrap();
            writer.frame(&Frame::Raw(vec![7; 1000])).await.unwrap();
            writer.finish().await.unwrap();
        };
        let reading = async {
            assert_eq!(reader.message::<Request>().await.unwrap(), Request::Ping);
            assert_eq!(
                reader.next().await.unwrap(),
                Some(Frame::Raw(vec![7; 1000]))
            );
            assert_eq!(reader.next().await.unwrap(), Some(Frame::End));
            assert_eq!(reader.next().await.unwrap(), None);
        };
        tokio::join!(writing, reading);
    }

    /// Of every size, over a stream that takes little at a time, with and without vectored writes.
    #[tokio::test]
    async fn frames_of_every_size() {
        let edge = FIRST_BYTES - 5;
        let sizes = [1, 4, 5, 6, 100, edge - 1, edge, edge + 1, 100_000, 262_144];
        let frames: Vec<Frame> = sizes
            .iter()
            .map(|size| Frame::Raw(vec![3; *size]))
            .collect();
        async fn check(
            frames: &[Frame],
            near: impl AsyncWrite + Unpin,
            far: impl AsyncRead + Unpin,
        ) {
            let (mut writer, mut reader) = (
                FrameWriter::new(near),
                FrameReader::new(far, SMALL_BYTES_MAX),
            );
            let writing = async {
                for frame in frames {
                    writer.frame(frame).await.unwrap();
                }
            };
            let reading = async {
                for frame in frames {
                    assert_eq!(reader.next().await.unwrap().as_ref(), Some(frame));
                }
            };
            tokio::join!(writing, reading);
        }
        for most in [3, 64, 40_000] {
            let (near, far) = tokio::io::duplex(most);
            check(&frames, near, far).await;
            // As a stream of a link is.
            let (near, far) = tokio::io::duplex(most);
            let near = near.compat_write().compat_write();
            assert!(!near.is_write_vectored());
            check(&frames, near, far).await;
        }
        let (near, far) = tokio::net::UnixStream::pair().unwrap();
        assert!(near.is_write_vectored());
        check(&frames, near, far).await;
    }

    #[tokio::test]
    async fn a_cut_is_not_an_end() {
        let (mut writer, mut reader) = pair();
        writer
            .stream
            .write_all(&[1, 0, 0, 0, 9, b'{'])
            .await
            .unwrap();
        drop(writer);
        let error = reader.next().await.unwrap_err();
        assert!(error.to_string().contains("inside a frame"), "{error:#}");
    }

    #[tokio::test]
    async fn a_read_that_is_dropped_loses_nothing() {
        let (mut writer, mut reader) = pair();
        writer.stream.write_all(&[2, 0, 0, 0]).await.unwrap();
        tokio::select! {
            biased;
            _ = reader.next() => panic!("the frame is not complete"),
            () = tokio::task::yield_now() => {}
        }
        writer.stream.write_all(&[3, 1, 2, 3]).await.unwrap();
        assert_eq!(
            reader.next().await.unwrap(),
            Some(Frame::Raw(vec![1, 2, 3]))
        );
    }

    #[tokio::test]
    async fn rubbish_is_shown_but_harmless() {
        let (mut writer, mut reader) = pair();
        writer
            .frame(&Frame::Message(b"\x1b[2J".to_vec()))
            .await
            .unwrap();
        let error = format!("{:#}", reader.message::<Request>().await.unwrap_err());
        assert!(
            !error.contains('\x1b') && error.contains("[2J"),
            "{error:?}"
        );
    }
}
