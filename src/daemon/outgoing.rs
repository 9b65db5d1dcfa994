//! Sends one dataset of a point to a peer: filesystem stream in, frames out.
//!
//! A plain thread (`produce`) reads the stream; a bounded queue between it and the link makes a slow line stop the
//! reading. Promise: `Ok` means that the peer said `stored`; anything else leaves the peer's checkpoint in place and costs
//! nothing but time.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::hub::{Tracked, TransferFacts};
use super::node::{Node, PeerRun, RoleRun, blocking};
use super::produce::{Already, HandedOff, Pace, Piece, Producer};
use crate::error::{Code, Failure};
use crate::fs::Measured;
use crate::logic::lineage::Lineage;
use crate::logic::manifest::Manifest;
use crate::logic::name::DatasetName;
use crate::logic::point::{PointId, PointName, Term};
use crate::logic::progress::{Bottleneck, Direction};
use crate::peer::exchange::{Exchange, Receiving, Sending};
use crate::peer::link::Link;
use crate::peer::message::{Answer, Offer, Request};

/// Frames between the reading thread and the link: with the chunk size, what a transfer holds in memory.
const QUEUE_FRAMES: usize = 8;

/// A peer that stops answering inside an exchange, link alive, is given up after this time.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(600);

/// How long a peer that takes nothing any more has to say why: longer than what its words have on their way through a link's
/// worker (`Timing::close`).
const LAST_WORD: Duration = Duration::from_secs(5);

/// A receiver that waited less than this share of the time is what holds the transfer up.
const TARGET_BUSY: f64 = 0.3;

/// What to send.
#[derive(Debug, Clone)]
pub struct Job {
    pub manifest: Manifest,
    pub dataset: DatasetName,
    pub base: Option<PointId>,
    /// The term under which it is sent.
    pub term: Option<Term>,
}

impl Job {
    /// In words that read after "could not".
    fn what(&self, peer: &PeerRun) -> String {
        let (dataset, point) = (&self.dataset, &self.manifest.point);
        format!("send {dataset} of {point} to {}", peer.peer.name)
    }
}

/// Where a transfer begins, after the peer's answer.
struct Start {
    job: Job,
    version: u32,
    held: Already,
}

/// Sends the dataset; how many bytes on the wire that took. Errors carry a `Failure` where the peer refused.
pub async fn send_dataset(
    node: &Arc<Node>,
    run: &Arc<RoleRun>,
    peer: &Arc<PeerRun>,
    link: &Link,
    ours: &Lineage,
    job: Job,
    cancel: &CancellationToken,
) -> Result<u64> {
    let _turn = node
        .sends
        .acquire()
        .await
        .context("wait for a turn to send")?;
    let version_max = link.hello().stream_version_max.max(1);
    let measured = measure(run, &job, version_max)
        .await
        .with_context(|| format!("measure {} of {}", job.dataset, job.manifest.point))?;
    // What measuring kept is there until the end.
    let _kept = measured.kept;
    let offer = Offer {
        manifest: job.manifest.clone(),
        dataset: job.dataset.clone(),
        base: job.base.clone(),
        identity: measured.identity.clone(),
        data_bytes: measured.data_bytes,
        term: job.term.clone(),
        flags: measured.flags,
    };
    let mut exchange = link.open(&Request::Offer(Box::new(offer))).await?;
    let answered = answer(&job.what(peer), exchange.recv()).await?;
    let Some(held) = already(answered, peer)? else {
        return Ok(0);
    };
    let tracked = node.hub.track(TransferFacts {
        role: run.name.clone(),
        dataset: job.dataset.clone(),
        peer: peer.peer.name.clone(),
        id: job.manifest.point.clone(),
        point: job.manifest.name(),
        base: base_name(ours, job.base.as_ref()),
        direction: Direction::Sending,
        total_bytes: measured.data_bytes,
    });
    if held.offset > 0 {
        tracked.resumed(held.offset);
        let (dataset, point, name, offset) = (
            &job.dataset,
            &job.manifest.point,
            &peer.peer.name,
            held.offset,
        );
        node.hub.note(
            Some(&run.name),
            format!("resume {dataset} of {point} to {name} at byte {offset} of its stream"),
        );
    }
    let start = Start {
        job,
        version: measured.identity.version,
        held,
    };
    let result = carry(node, run, peer, exchange, start, &tracked, cancel).await;
    let bytes = tracked.wire_bytes();
    tracked.end(result.as_ref().err().map(|error| format!("{error:#}")));
    result.map(|()| bytes)
}

/// Where the peer has it go on; none where it has all of it.
fn already(answered: Answer, peer: &PeerRun) -> Result<Option<Already>> {
    match answered {
        Answer::Have {
            offset,
            prefix,
            token,
        } => Ok(Some(Already {
            offset,
            prefix,
            token,
        })),
        Answer::Stored => Ok(None),
        other => bail!("{} answered an offer with {other:?}", peer.peer.name),
    }
}

async fn measure(run: &RoleRun, job: &Job, version_max: u32) -> Result<Measured> {
    let (fs, job) = (run.fs.clone(), job.clone());
    blocking(move || {
        let (base, point) = (job.base.as_ref(), &job.manifest.point);
        fs.measure(&job.dataset, base, point, version_max)
    })
    .await
}

fn base_name(ours: &Lineage, base: Option<&PointId>) -> Option<PointName> {
    let entry = ours.base(base?)?;
    Some(PointName::of(&entry.point, entry.taken))
}

/// Moves the bytes: one thread reads, one task writes, this one follows the answers.
async fn carry(
    node: &Arc<Node>,
    run: &Arc<RoleRun>,
    peer: &Arc<PeerRun>,
    exchange: Exchange,
    start: Start,
    tracked: &Tracked,
    cancel: &CancellationToken,
) -> Result<()> {
    let (sender, receiver) = exchange.into_split();
    let (pieces, queue) = mpsc::channel(QUEUE_FRAMES);
    let halt = CancellationToken::new();
    let halting = halt.clone().drop_guard();
    let pace = Arc::new(Pace::default());
    let (dataset, sending) = (start.job.dataset.clone(), start.job.what(peer));
    let reader = {
        let (fs, pace) = (run.fs.clone(), pace.clone());
        let (hub, role, name) = (node.hub.clone(), run.name.clone(), peer.peer.name.clone());
        tokio::task::spawn_blocking(move || {
            let tell = |why: &str| {
                hub.warn(
                    Some(&role),
                    format!("start again from the first byte with {name}: {why}"),
                );
            };
            let Start { job, version, held } = start;
            Producer {
                fs: &*fs,
                job: &job,
                version,
                held,
                pieces,
                halt,
                pace: &pace,
            }
            .run(&tell)
        })
    };
    let stop = async {
        tokio::select! {
            () = cancel.cancelled() => "cancelled",
            () = node.stop.cancelled() => "the daemon is stopping",
            () = peer.gone.cancelled() => "the peer was removed",
        }
    };
    let moved = tokio::select! {
        moved = write_and_watch(
            write(sender, queue, peer, tracked),
            watch(receiver, &sending, tracked, &pace),
        ) => moved,
        why = stop => {
            let what = format!("send {dataset} to {}: {why}", peer.peer.name);
            Err(Failure::new(Code::Interrupted, what).into())
        }
    };
    drop(halting);
    match reader.await {
        // The source's own failure explains the broken conversation better than the conversation does.
        Ok(Err(error)) if moved.is_err() && error.downcast_ref::<HandedOff>().is_none() => {
            Err(error)
        }
        Ok(_) => moved,
        Err(error) => bail!("the reading thread ended without an answer: {error}"),
    }
}

/// Both to their ends. A peer that refuses goes on reading for nobody: that nothing can be written any more may be known here
/// before its reason has been read.
async fn write_and_watch(
    write: impl Future<Output = Result<()>>,
    watch: impl Future<Output = Result<()>>,
) -> Result<()> {
    let (mut write, mut watch) = (pin!(write), pin!(watch));
    let error = tokio::select! {
        biased;
        written = &mut write => match written {
            Ok(()) => return watch.await,
            Err(error) => error,
        },
        watched = &mut watch => {
            watched?;
            return write.await;
        }
    };
    match tokio::time::timeout(LAST_WORD, watch).await {
        Ok(Err(told)) if told.is::<Failure>() => Err(told),
        _ => Err(error),
    }
}

/// Writes what the reading thread gives, at the peer's rate limit.
async fn write(
    mut sender: Sending,
    mut queue: mpsc::Receiver<Piece>,
    peer: &PeerRun,
    tracked: &Tracked,
) -> Result<()> {
    while let Some(piece) = queue.recv().await {
        match piece {
            Piece::Frame(frame) => {
                let bytes = frame.wire_bytes() as u64;
                peer.limiter.take(bytes).await;
                sender.send_frame(&frame).await?;
                tracked.wire(bytes);
            }
            Piece::Word(word) => sender.send(&word).await?,
        }
    }
    sender.finish().await
}

/// Follows the peer's marks until it says `stored`.
async fn watch(
    mut receiver: Receiving,
    sending: &str,
    tracked: &Tracked,
    pace: &Pace,
) -> Result<()> {
    loop {
        match answer(sending, receiver.recv()).await? {
            Answer::Mark {
                data_bytes,
                file,
                waiting,
                ..
            } => {
                tracked.done(data_bytes, &file);
                pace.tell_receiver(waiting >= TARGET_BUSY);
                let side = if waiting < TARGET_BUSY {
                    Bottleneck::Target
                } else if pace.handing_share() > 0.5 {
                    Bottleneck::Link
                } else {
                    Bottleneck::Source
                };
                tracked.bottleneck(Some(side));
            }
            Answer::Stored => return Ok(()),
            other => bail!("the peer said {other:?} inside a transfer"),
        }
    }
}

/// Waits for the next answer to `what`, a verb phrase; a refusal becomes an error with its code and hint.
pub async fn answer(what: &str, next: impl Future<Output = Result<Answer>>) -> Result<Answer> {
    let waited = ANSWER_TIMEOUT.as_secs();
    match tokio::time::timeout(ANSWER_TIMEOUT, next).await {
        Err(_) => bail!("hear from the peer: it said nothing for {waited} s"),
        Ok(Err(error)) => Err(error),
        Ok(Ok(Answer::Refused(refusal))) => Err(refusal.into_error(what)),
        Ok(Ok(answer)) => Ok(answer),
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};

    use super::*;

    /// What the writing side and the watching side come to (`refused` is a reason of the peer's, none: it goes on for ever), and
    /// what the transfer does.
    async fn check(written: Option<&str>, watched: Option<&str>, expected: &str) {
        let outcome = |words: &str| match words {
            "ok" => Ok(()),
            "refused" => Err(Failure::new(Code::NoSpace, "refused").into()),
            words => Err(anyhow::anyhow!("{words}")),
        };
        let side = async |words: Option<&str>| match words {
            Some(words) => ready(outcome(words)).await,
            None => pending().await,
        };
        let came = write_and_watch(side(written), side(watched)).await;
        let came = came.map_or_else(|error| format!("{error:#}"), |()| "ok".to_owned());
        assert_eq!(came, expected, "{written:?} {watched:?}");
    }

    #[tokio::test]
    async fn a_peer_s_reason_is_heard() {
        check(Some("ok"), Some("ok"), "ok").await;
        check(None, Some("refused"), "refused").await;
        check(Some("ok"), Some("refused"), "refused").await;
        check(Some("broken pipe"), Some("refused"), "refused").await;
        check(Some("broken pipe"), Some("it broke off"), "broken pipe").await;
    }
}
