//! Answers a peer that compares: reads this node's copy, then tells of the directories that it asks for.
//!
//! Promise: only what the peer may have anyway (the grant to receive) is told, as hashes; one copy is read for peers at a time,
//! no faster than the configuration says, and no longer than the peer listens. A crash leaves nothing.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio_util::sync::CancellationToken;

use super::super::cycle::our_lineage;
use super::super::incoming::refuse;
use super::super::node::{Node, RoleRun, blocking};
use super::super::returning::admit;
use super::read::{Hold, Paced, Wanted, Whole, left_out, read};
use crate::error::{Code, Failure};
use crate::logic::name::NodeName;
use crate::logic::prefix::{hex, unhex};
use crate::logic::verify::{ENTRIES_MAX, Entry, TOLD_MAX};
use crate::peer::exchange::{Exchange, Item};
use crate::peer::message::{Answer, Request, SenderWord};

/// How often the peer hears how far it is.
const TELL_EVERY: Duration = Duration::from_secs(1);

/// How long a peer may think between two questions.
const IDLE_MAX: Duration = Duration::from_secs(120);

/// Longest path that a peer may ask for, in bytes.
const PATH_BYTES_MAX: usize = 64 << 10;

/// Answers `Verify`, to its end.
pub async fn answer(
    node: &Arc<Node>,
    peer: &NodeName,
    request: Request,
    mut exchange: Exchange,
) -> Result<()> {
    let wanted = match gather(node, peer, request).await {
        Ok(wanted) => wanted,
        Err(error) => return refuse(&mut exchange, error).await,
    };
    let _held = Hold::new(&wanted.run, &wanted.point);
    let cancel = node.stop.child_token();
    // Whatever ends this, ends the reading.
    let _cancelled = cancel.clone().drop_guard();
    let whole = match tell(node, wanted, cancel, &mut exchange).await {
        Ok(whole) => Arc::new(whole),
        Err(error) => return refuse(&mut exchange, error).await,
    };
    loop {
        let next = tokio::select! {
            next = tokio::time::timeout(IDLE_MAX, exchange.next::<SenderWord>()) => next,
            () = node.stop.cancelled() => return Ok(()),
        };
        // Whoever lets the exchange go has heard enough.
        let Ok(Ok(Item::Word(SenderWord::Look { dir, after }))) = next else {
            return Ok(());
        };
        match look(&whole, dir, after).await {
            Ok(answer) => exchange.send(&answer).await?,
            Err(error) => return refuse(&mut exchange, error).await,
        }
    }
}

async fn gather(node: &Arc<Node>, peer: &NodeName, request: Request) -> Result<Wanted> {
    let Request::Verify {
        role,
        role_id,
        term,
        point,
        dataset,
        full,
        leave,
    } = request
    else {
        bail!("answer {request:?} as if something were to be compared");
    };
    let run: Arc<RoleRun> = admit(node, peer, &role, role_id, &term)?;
    let (_, found) = our_lineage(&run).await?;
    let stored = found.points.iter();
    let stored = stored
        .clone()
        .find(|stored| stored.manifest.point == point)
        .filter(|stored| stored.manifest.datasets.contains_key(&dataset));
    let Some(stored) = stored else {
        let what = format!("{} does not hold {dataset} of {point} whole", node.name());
        return Err(Failure::new(Code::NotFound, what).into());
    };
    Ok(Wanted {
        point: stored.clone(),
        leave: leave.and(left_out(node, &found.points, &dataset)),
        dataset,
        full,
        run,
    })
}

/// Reads, and tells how far it is.
async fn tell(
    node: &Arc<Node>,
    wanted: Wanted,
    cancel: CancellationToken,
    exchange: &mut Exchange,
) -> Result<Whole> {
    let rate = Some(node.config().node.verify_rate);
    let pace = Arc::new(Paced::new(rate, cancel));
    let leave = wanted.leave;
    let mut reading = {
        let (node, pace) = (node.clone(), pace.clone());
        tokio::spawn(async move {
            let _turn = node.answering.clone().lock_owned().await;
            let reader = node.clone();
            blocking(move || read(&reader, wanted, pace)).await
        })
    };
    let mut ticks = tokio::time::interval(TELL_EVERY);
    let whole = loop {
        tokio::select! {
            read = &mut reading => break read.context("wait for the reading")??,
            _ = ticks.tick() => {
                let mark = Answer::Reading {
                    leave,
                    files: pace.files.load(Ordering::Relaxed),
                    bytes: pace.bytes.load(Ordering::Relaxed),
                };
                exchange.send(&mark).await?;
            }
        }
    };
    let unreadable = whole.tree.unreadable.iter().take(TOLD_MAX);
    let read = Answer::Read {
        root: hex(&whole.tree.root),
        files: whole.tree.files,
        bytes: whole.tree.bytes,
        unreadable: unreadable.map(|path| hex(path)).collect(),
    };
    exchange.send(&read).await?;
    Ok(whole)
}

async fn look(whole: &Arc<Whole>, dir: String, after: Option<String>) -> Result<Answer> {
    let path = unhex(&dir).filter(|path| path.len() <= PATH_BYTES_MAX);
    let path = path.context("read the path of a directory")?;
    let steps = || path.split(|byte| *byte == b'/');
    if !path.is_empty() && steps().any(|name| matches!(name, b"" | b"." | b"..")) {
        bail!("look into a directory whose path is none");
    }
    let whole = whole.clone();
    let mut entries: Vec<Entry> = blocking(move || whole.list(&path)).await?;
    if let Some(after) = after {
        entries.retain(|entry| entry.name > after);
    }
    let more = entries.len() > ENTRIES_MAX;
    entries.truncate(ENTRIES_MAX);
    Ok(Answer::Entries { entries, more })
}
