//! Receives one dataset: frames in, filesystem applied.
//!
//! A plain thread applies; the task that reads the link hands frames over a bounded queue, so that a slow
//! disk stops the line. When the link, the daemon or the sender ends early, everything applied is made a checkpoint, and
//! the next offer of the same stream goes on from there.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::hub::{Tracked, TransferFacts};
use super::incoming::{refusal, refuse, take_turn};
use super::node::{Node, PeerRun, RoleRun, blocking, lock};
use crate::error::{Code, Failure};
use crate::fs::btrfs::freeze::freeze;
use crate::fs::{Incoming, Opened, Receipt, Standing};
use crate::logic::point::PointName;
use crate::logic::progress::{Bottleneck, Direction};
use crate::peer::exchange::{Exchange, Item, Receiving};
use crate::peer::frame::Frame;
use crate::peer::message::{Answer, Offer, SenderWord, plain};

/// Frames between the link and the applying thread.
const QUEUE_FRAMES: usize = 8;

/// How often the sender hears how far we are.
const MARK_EVERY: Duration = Duration::from_millis(500);

/// A receiver that waited less than this share of the time is what holds the transfer up.
const TARGET_BUSY: f64 = 0.3;

/// What the link gives to the applying thread.
enum Piece {
    Frame(Frame),
    Word(SenderWord),
}

/// How the applying thread and the reading task are doing, for the marks.
#[derive(Default)]
struct Shared {
    /// `files of 1.2`, for the log.
    what: String,
    standing: Mutex<Standing>,
    waited_us: AtomicU64,
    wire_bytes: AtomicU64,
    /// Why the reading task ended early.
    broken: Mutex<Option<String>>,
}

/// Answers an offer and receives the dataset.
pub async fn receive(
    node: &Arc<Node>,
    run: &Arc<RoleRun>,
    peer: &Arc<PeerRun>,
    offer: Offer,
    mut exchange: Exchange,
) -> Result<()> {
    let receiving = take_turn(run, &offer.dataset);
    let _turn = receiving.turn.lock().await;
    if receiving.cancel.is_cancelled() {
        return Ok(());
    }
    let point = offer.manifest.point.clone();
    let receipt = Receipt {
        manifest: offer.manifest.clone(),
        dataset: offer.dataset.clone(),
        identity: offer.identity.clone(),
        base: offer.base.clone(),
        data_bytes: offer.data_bytes,
        flags: offer.flags.clone(),
        accept: *lock(&peer.accept),
    };
    let fs = run.fs.clone();
    let incoming = match blocking(move || fs.receive(&receipt)).await {
        Ok(Opened::Complete(_)) => return exchange.send(&Answer::Stored).await,
        Ok(Opened::Transfer(incoming)) => incoming,
        Err(error) => return refuse(&mut exchange, error).await,
    };
    let returned = run.wants(&peer.peer.name, &point);
    if let Some(base) = offer.base.as_ref().filter(|_| !returned) {
        // Pinned here too, until the sender names another; only now, when it proved to be a point held here: a base
        // that was refused must not take the place of the good one (P2), nor one that an older point is sent upon.
        if let Err(error) = node.state.record_base(&run.name, &peer.peer.name, base) {
            return refuse(&mut exchange, error).await;
        }
        freeze("offer-base-recorded");
    }
    let standing = incoming.standing();
    let have = Answer::Have {
        offset: standing.offset,
        prefix: standing.prefix.clone(),
        token: standing.token.clone(),
    };
    let tracked = begun(node, run, peer, &offer, &standing).await;
    let result = async {
        exchange.send(&have).await?;
        let what = format!("{} of {point}", offer.dataset);
        let shared = Shared {
            what,
            standing: Mutex::new(standing),
            ..Shared::default()
        };
        let cancel = &receiving.cancel;
        carry(node, peer, incoming, exchange, cancel, (&tracked, shared)).await
    }
    .await;
    tracked.end(result.as_ref().err().map(|error| format!("{error:#}")));
    result.with_context(|| format!("receive {} of {point}", offer.dataset))
}

/// Tells that the receiving begins, and where.
async fn begun(
    node: &Arc<Node>,
    run: &Arc<RoleRun>,
    peer: &Arc<PeerRun>,
    offer: &Offer,
    standing: &Standing,
) -> Tracked {
    let point = &offer.manifest.point;
    let tracked = node.hub.track(TransferFacts {
        role: run.name.clone(),
        dataset: offer.dataset.clone(),
        peer: peer.peer.name.clone(),
        id: point.clone(),
        point: offer.manifest.name(),
        base: base_name(run, offer).await,
        direction: Direction::Receiving,
        total_bytes: offer.data_bytes,
    });
    if standing.offset > 0 {
        tracked.resumed(standing.offset);
        let text = format!(
            "resume {} of {point} from {} at byte {} of its stream",
            offer.dataset, peer.peer.name, standing.offset
        );
        node.hub.note(Some(&run.name), text);
    }
    tracked.done(standing.data_bytes, "");
    tracing::debug!(
        "receiving {} of {point} from byte {}",
        offer.dataset,
        standing.offset
    );
    tracked
}

async fn base_name(run: &Arc<RoleRun>, offer: &Offer) -> Option<PointName> {
    let base = offer.base.clone()?;
    let fs = run.fs.clone();
    let stored = blocking(move || fs.list()).await.ok()?;
    stored
        .into_iter()
        .find(|stored| stored.manifest.point == base)
        .map(|stored| stored.manifest.name())
}

/// Moves the bytes: one task reads the link, a thread applies, this task sends marks.
async fn carry(
    node: &Arc<Node>,
    peer: &Arc<PeerRun>,
    incoming: Box<dyn Incoming>,
    exchange: Exchange,
    superseded: &CancellationToken,
    (tracked, shared): (&Tracked, Shared),
) -> Result<()> {
    let (mut sender, receiver) = exchange.into_split();
    let (pieces, queue) = mpsc::channel(QUEUE_FRAMES);
    let shared = Arc::new(shared);
    // Aborting the reader is how reading ends early: the queue closes, the thread makes a checkpoint and returns.
    let reading = tokio::spawn(read(receiver, pieces, shared.clone()));
    let mut applier = {
        let shared = shared.clone();
        tokio::task::spawn_blocking(move || apply(incoming, queue, &shared))
    };
    let stop = async {
        tokio::select! {
            () = superseded.cancelled() => {}
            () = node.stop.cancelled() => {}
            () = peer.gone.cancelled() => {}
        }
    };
    tokio::pin!(stop);
    // A future that has ended must not be asked again, however long the reader takes to notice.
    let mut stopped = false;
    let mut ticks = tokio::time::interval(MARK_EVERY);
    let mut last = Instant::now();
    let applied = loop {
        tokio::select! {
            applied = &mut applier => break applied,
            () = &mut stop, if !stopped => {
                stopped = true;
                reading.abort();
            }
            _ = ticks.tick() => {
                let mark = mark(&shared, tracked, last.elapsed());
                last = Instant::now();
                if sender.send(&mark).await.is_err() {
                    reading.abort();
                }
            }
        }
    };
    reading.abort();
    match applied {
        Ok(Ok(())) => {
            sender.send(&Answer::Stored).await?;
            sender.finish().await
        }
        Ok(Err(error)) => {
            // The sender learns why; whether it still listens does not change what is logged here.
            let _ = sender.send(&Answer::Refused(refusal(&error))).await;
            Err(error)
        }
        Err(error) => bail!("the applying thread ended without an answer: {error}"),
    }
}

fn mark(shared: &Shared, tracked: &Tracked, elapsed: Duration) -> Answer {
    let standing = lock(&shared.standing).clone();
    let waited = shared.waited_us.swap(0, Ordering::Relaxed) as f64 / 1e6;
    let waiting = (waited / elapsed.as_secs_f64().max(1e-3)).clamp(0.0, 1.0);
    tracked.done(standing.data_bytes, &standing.file);
    tracked.wire(shared.wire_bytes.swap(0, Ordering::Relaxed));
    // Seen from here source and line look alike: the sender tells them apart.
    tracked.bottleneck(Some(if waiting < TARGET_BUSY {
        Bottleneck::Target
    } else {
        Bottleneck::Link
    }));
    Answer::Mark {
        offset: standing.offset,
        data_bytes: standing.data_bytes,
        checkpoint: standing.checkpoint,
        file: standing.file,
        waiting,
    }
}

/// Hands frames to the applying thread until the sender has no more or the link ends.
async fn read(mut receiver: Receiving, pieces: mpsc::Sender<Piece>, shared: Arc<Shared>) {
    loop {
        let piece = match receiver.next().await {
            Ok(Item::Data(frame)) => {
                shared
                    .wire_bytes
                    .fetch_add(frame.wire_bytes() as u64, Ordering::Relaxed);
                Piece::Frame(frame)
            }
            Ok(Item::Word(word)) => Piece::Word(word),
            Ok(Item::End) => return,
            Err(error) => {
                tracing::debug!("the link gives no more frames: {error:#}");
                *lock(&shared.broken) = Some(format!("{error:#}"));
                return;
            }
        };
        if pieces.send(piece).await.is_err() {
            return;
        }
    }
}

/// The applying thread. `Ok` means that the dataset is complete, verified and on disk.
fn apply(
    mut incoming: Box<dyn Incoming>,
    mut queue: mpsc::Receiver<Piece>,
    shared: &Shared,
) -> Result<()> {
    loop {
        let piece = match queue.try_recv() {
            Ok(piece) => Some(piece),
            Err(_) => {
                // Nothing is there to go on with: what is wrong with the last pieces is told now, and not when more comes.
                incoming.settle()?;
                *lock(&shared.standing) = incoming.progress();
                let begun = Instant::now();
                let piece = queue.blocking_recv();
                let waited = u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX);
                shared.waited_us.fetch_add(waited, Ordering::Relaxed);
                piece
            }
        };
        match piece {
            Some(Piece::Frame(frame)) => {
                // The link's worker unpacks; a frame that is still packed does not get here.
                let bytes = frame.into_data().context("a frame came without data")?;
                incoming.take(bytes)?;
                let standing = incoming.progress();
                // What a checkpoint bounds, to the frame: the campaigns hold the next attempt to it.
                let (offset, safe) = (standing.offset, standing.checkpoint);
                tracing::trace!("applied {} to byte {offset}, safe to {safe}", shared.what);
                *lock(&shared.standing) = standing;
            }
            Some(Piece::Word(SenderWord::Restart { why })) => {
                tracing::warn!("start again from the first byte: {}", plain(&why));
                incoming.restart()?;
            }
            Some(Piece::Word(SenderWord::End { bytes, hash })) => {
                return incoming.finish(bytes, &hash).map(|_| ());
            }
            Some(Piece::Word(SenderWord::Look { .. })) => {
                bail!("the sender asks for a directory inside a transfer");
            }
            Some(Piece::Word(SenderWord::Failed { why })) => {
                incoming.checkpoint()?;
                bail!("the sender failed: {}", plain(&why));
            }
            None => {
                incoming.checkpoint()?;
                let offset = incoming.standing().offset;
                let why = lock(&shared.broken).take();
                let why = why.map_or_else(String::new, |why| format!(": {why}"));
                let what =
                    format!("interrupted at byte {offset} of its stream, checkpoint kept{why}");
                bail!(Failure::new(Code::Interrupted, what));
            }
        }
    }
}
