//! The reading thread of a transfer: stream in, hashed, skipped to where the peer is, compressed, handed over.
//!
//! Blocks; runs on a thread of its own. It never holds more than one piece beside what the queue holds, and ends at the
//! next hand-over when the queue is gone or `halt` was cancelled.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::outgoing::Job;
use crate::fs::{Filesystem, Outgoing};
use crate::logic::packing::{Packing, Spans};
use crate::logic::prefix::PrefixHash;
use crate::peer::bulk::Packer;
use crate::peer::frame::{DATA_BYTES_MAX, Frame};
use crate::peer::message::SenderWord;

/// Stream bytes skipped at a time.
const CHUNK_BYTES: usize = 128 * 1024;

/// zstd level of the wire.
const ZSTD_LEVEL: i32 = 3;

/// What the reading thread gives to the link.
pub enum Piece {
    Frame(Frame),
    Word(SenderWord),
}

/// Where the reading thread's time went, in microseconds: tells a slow source from a slow line.
#[derive(Debug, Default)]
pub struct Pace {
    reading: AtomicU64,
    handing: AtomicU64,
    /// The receiver has no time to wait for us, as far as it told.
    receiver_busy: AtomicBool,
}

impl Pace {
    /// Share of the time since the last call that was spent handing frames over, 0 to 1.
    pub fn handing_share(&self) -> f64 {
        let reading = self.reading.swap(0, Ordering::Relaxed) as f64;
        let handing = self.handing.swap(0, Ordering::Relaxed) as f64;
        if reading + handing == 0.0 {
            1.0
        } else {
            handing / (reading + handing)
        }
    }

    /// What the receiver told of itself.
    pub fn tell_receiver(&self, waits: bool) {
        self.receiver_busy.store(!waits, Ordering::Relaxed);
    }

    fn receiver_waits(&self) -> bool {
        !self.receiver_busy.load(Ordering::Relaxed)
    }

    fn add(slot: &AtomicU64, spent: Duration) {
        slot.fetch_add(
            u64::try_from(spent.as_micros()).unwrap_or(u64::MAX),
            Ordering::Relaxed,
        );
    }
}

/// The link stopped taking frames: the conversation's own error says why.
#[derive(Debug, thiserror::Error)]
#[error("the link takes no more frames")]
pub struct HandedOff;

/// What the peer holds of the stream.
#[derive(Debug, Clone)]
pub struct Already {
    pub offset: u64,
    /// Prefix hash at `offset`.
    pub prefix: String,
    /// See `fs::Standing::token`.
    pub token: Option<String>,
}

/// What the thread needs.
pub struct Producer<'a> {
    pub fs: &'a dyn Filesystem,
    pub job: &'a Job,
    /// Stream protocol version agreed in the offer.
    pub version: u32,
    pub held: Already,
    pub pieces: mpsc::Sender<Piece>,
    pub halt: CancellationToken,
    pub pace: &'a Pace,
}

impl Producer<'_> {
    /// Produces the whole stream. `tell` hears why a transfer starts from the first byte again.
    pub fn run(&self, tell: &dyn Fn(&str)) -> Result<()> {
        let result = self.produce(tell);
        if let Err(error) = &result {
            // The peer keeps its checkpoint either way; whether it hears this does not change the outcome here.
            let _ = self.give(Piece::Word(SenderWord::Failed {
                why: format!("{error:#}"),
            }));
        }
        result
    }

    fn produce(&self, tell: &dyn Fn(&str)) -> Result<()> {
        let mut hash = PrefixHash::default();
        let held = &self.held;
        let (mut outgoing, other) = match &held.token {
            None => (self.open()?, None),
            Some(token) => match self.resume(token)? {
                Some(outgoing) => (outgoing, None),
                None => (
                    self.open()?,
                    Some("what was already received is of another stream than this one"),
                ),
            },
        };
        let differs = match other {
            Some(why) => Some(why),
            None => {
                let whole = self.skip(&mut *outgoing, &mut hash, held.offset)?;
                (!whole || hash.value() != held.prefix).then_some(
                    "the source's stream no longer begins with what was already received",
                )
            }
        };
        if let Some(why) = differs {
            tell(why);
            self.give(Piece::Word(SenderWord::Restart {
                why: why.to_owned(),
            }))?;
            drop(outgoing);
            outgoing = self.open()?;
            hash = PrefixHash::default();
        }
        self.pump(&mut *outgoing, &mut hash)?;
        outgoing.finish()?;
        self.give(Piece::Word(SenderWord::End {
            bytes: hash.bytes(),
            hash: hash.value(),
        }))
    }

    fn open(&self) -> Result<Box<dyn Outgoing>> {
        let job = self.job;
        self.fs
            .send(
                &job.dataset,
                job.base.as_ref(),
                &job.manifest.point,
                self.version,
            )
            .with_context(|| format!("send {} of {}", job.dataset, job.manifest.point))
    }

    fn resume(&self, token: &str) -> Result<Option<Box<dyn Outgoing>>> {
        let (job, point) = (self.job, &self.job.manifest.point);
        self.fs
            .resume(&job.dataset, job.base.as_ref(), point, token)
            .with_context(|| format!("go on with {} of {point}", job.dataset))
    }

    fn give(&self, piece: Piece) -> Result<()> {
        let begun = Instant::now();
        let given = self.pieces.blocking_send(piece);
        Pace::add(&self.pace.handing, begun.elapsed());
        given.map_err(|_| HandedOff.into())
    }

    fn read(&self, outgoing: &mut dyn Outgoing, buffer: &mut [u8]) -> Result<usize> {
        self.expect_wanted()?;
        let begun = Instant::now();
        let got = outgoing.read(buffer).context("read the stream")?;
        Pace::add(&self.pace.reading, begun.elapsed());
        Ok(got)
    }

    /// Reads and hashes the first `offset` bytes. False when the stream ended before.
    fn skip(
        &self,
        outgoing: &mut dyn Outgoing,
        hash: &mut PrefixHash,
        offset: u64,
    ) -> Result<bool> {
        let mut buffer = vec![0; CHUNK_BYTES];
        while hash.bytes() < offset {
            let left = offset - hash.bytes();
            let want = usize::try_from(left).map_or(CHUNK_BYTES, |left| left.min(CHUNK_BYTES));
            let got = self.read(outgoing, &mut buffer[..want])?;
            if got == 0 {
                return Ok(false);
            }
            hash.update(&buffer[..got]);
        }
        Ok(true)
    }

    /// Reads to the end of the stream, a frame at a time.
    fn pump(&self, outgoing: &mut dyn Outgoing, hash: &mut PrefixHash) -> Result<()> {
        let mut packer = Packer::new(ZSTD_LEVEL)?;
        let mut packing = Packing::default();
        loop {
            self.expect_wanted()?;
            let begun = Instant::now();
            let piece = outgoing.piece(DATA_BYTES_MAX).context("read the stream")?;
            Pace::add(&self.pace.reading, begun.elapsed());
            if piece.is_empty() {
                return Ok(());
            }
            let reading = begun.elapsed();
            hash.update(&piece);
            let begun = Instant::now();
            let frame = match packing.packs() {
                true => packer.pack_whole(piece)?,
                false => Frame::Raw(piece),
            };
            let (packed, begun) = (begun.elapsed(), Instant::now());
            self.give(Piece::Frame(frame))?;
            let spans = Spans {
                reading,
                packing: packed,
                handing: begun.elapsed(),
            };
            packing.note(spans, self.pace.receiver_waits());
        }
    }

    fn expect_wanted(&self) -> Result<()> {
        match self.halt.is_cancelled() {
            true => Err(HandedOff.into()),
            false => Ok(()),
        }
    }
}
