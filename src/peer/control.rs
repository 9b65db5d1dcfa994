//! The control stream, the first stream of every link: heartbeats both ways, and goodbyes.
//!
//! Promise: a beat leaves at the agreed distance and is echoed at once; a peer that sends beats faster than we can echo them
//! makes nothing grow. Two tasks that end with the link.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::io::{ReadHalf, WriteHalf};
use tokio::sync::{mpsc, oneshot};
use tokio::time::MissedTickBehavior;

use super::codec::{FrameReader, FrameWriter};
use super::exchange::Stream;
use super::link::Link;
use super::message::{Control, SMALL_BYTES_MAX, plain};
use super::pulse::Pulse;
use crate::logic::name::NodeName;

/// Echoes waiting to be written; more are dropped, the next beat asks again.
pub(super) const WORDS_WAITING: usize = 8;

/// How long the task that knows better gets to say why the link ended.
const MOMENT: Duration = Duration::from_millis(200);

/// A word to say, and who wants to know that it was handed over.
pub(super) struct Word {
    pub control: Control,
    pub said: Option<oneshot::Sender<()>>,
}

/// Starts both directions of the control stream, and waits for the first word of the peer.
pub(super) async fn start(stream: Stream, link: &Link, to_say: mpsc::Receiver<Word>) -> Result<()> {
    let (read, write) = tokio::io::split(stream);
    let (heard, first) = oneshot::channel();
    let (pulse, peer) = (link.pulse(), link.peer().clone());
    let writer = FrameWriter::new(write);
    tokio::spawn(speak(writer, to_say, pulse.clone(), link.timing().beat));
    let reader = FrameReader::new(read, SMALL_BYTES_MAX);
    tokio::spawn(listen(reader, link.words(), pulse, peer, heard));
    first.await.context("hear the other side's first word")
}

async fn speak(
    mut writer: FrameWriter<WriteHalf<Stream>>,
    mut words: mpsc::Receiver<Word>,
    pulse: Arc<Pulse>,
    beat: Duration,
) {
    let mut ticks = tokio::time::interval(beat);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut number = 0;
    loop {
        let word = tokio::select! {
            _ = pulse.ended() => return,
            word = words.recv() => match word {
                Some(word) => word,
                None => return,
            },
            _ = ticks.tick() => {
                number += 1;
                pulse.beat_sent(number);
                let now = Some(pulse.our_clock());
                Word { control: Control::Beat { number, now }, said: None }
            }
        };
        if writer.message(&word.control).await.is_err() {
            return;
        }
        if let Some(said) = word.said {
            let _ = said.send(());
        }
    }
}

async fn listen(
    mut reader: FrameReader<ReadHalf<Stream>>,
    words: mpsc::Sender<Word>,
    pulse: Arc<Pulse>,
    peer: NodeName,
    first: oneshot::Sender<()>,
) {
    let mut first = Some(first);
    loop {
        let word = match reader.message::<Control>().await {
            Ok(word) => word,
            Err(error) => {
                if tokio::time::timeout(MOMENT, pulse.ended()).await.is_err() {
                    pulse.end(format!("the control stream broke: {error:#}"));
                }
                return;
            }
        };
        match word {
            Control::Beat { number, now } => {
                if let Some(now) = now {
                    pulse.clock_told(now);
                }
                let control = Control::Echo { number };
                let _ = words.try_send(Word {
                    control,
                    said: None,
                });
            }
            Control::Echo { number } => pulse.echoed(number),
            Control::Bye { why } => pulse.end(format!("{peer} closed the link: {}", plain(&why))),
            Control::Unknown => {}
        }
        if let Some(first) = first.take() {
            let _ = first.send(());
        }
    }
}
