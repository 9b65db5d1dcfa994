//! The control socket: one JSON request a connection, events while it runs, one reply at the end.
//!
//! Only root may open it (mode 0600). A client that goes away leaves the work running.

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde::Serialize;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::broadcast::error::RecvError;

use super::api::{
    Cancelled, CatRequest, CycleReport, Event, EventView, Events, MoveReport, PruneReport, Reply,
    Request, RolePrune,
};
use super::node::Node;
use super::{
    bring, browse, cat, check, cycle, diff, drift, drill, find, forks, handover, load, logs,
    pairing, points, promote, prune, rebuild, rescan, resolve, restore, seed, status, verify,
};
use crate::error::Failure;
use crate::host::events::EventRecord;
use crate::logic::manifest::Reason;
use crate::logic::name::RoleName;
use crate::logic::progress::Direction;

/// Longest request, in bytes.
const REQUEST_BYTES_MAX: u64 = 64 * 1024;

/// The most events that are told at once.
const EVENTS_MAX: u32 = 200;

/// How often a client hears the figures of running transfers.
const TRANSFERS_EVERY: Duration = Duration::from_millis(250);

/// Binds a socket that only root may open, in place of one left by a daemon that died.
pub fn bind(path: &Path) -> Result<UnixListener> {
    if let Some(dir) = path.parent() {
        std::fs::create_dir_all(dir).with_context(|| format!("create {}", dir.display()))?;
    }
    if std::os::unix::net::UnixStream::connect(path).is_ok() {
        let what = format!("open {}: another daemon is listening there", path.display());
        return Err(Failure::new(crate::error::Code::Locked, what)
            .hint("stop the other one, or give this one a `control` path in another directory")
            .into());
    }
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(error).with_context(|| format!("remove the old {}", path.display()));
        }
        _ => {}
    }
    let listener = UnixListener::bind(path).with_context(|| format!("open {}", path.display()))?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))
        .with_context(|| format!("restrict {}", path.display()))?;
    Ok(listener)
}

/// Serves clients until the daemon stops.
pub async fn serve(node: Arc<Node>, listener: UnixListener) {
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = node.stop.cancelled() => return,
        };
        match accepted {
            Ok((stream, _)) => {
                tokio::spawn(client(node.clone(), stream));
            }
            Err(error) => {
                tracing::warn!("could not accept a client: {error}");
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        }
    }
}

async fn client(node: Arc<Node>, stream: UnixStream) {
    let (read, write) = stream.into_split();
    let mut client = Client { write };
    let outcome = match request(read).await {
        Ok(request) => answer(&node, request, &mut client).await,
        Err(error) => Err(error),
    };
    let reply = match outcome {
        Ok(value) => Reply::Done { value },
        Err(error) => {
            let hint = Failure::of(&error).and_then(|failure| failure.hint.clone());
            Reply::Failed {
                code: Failure::code_of(&error),
                what: format!("{error:#}"),
                hint,
            }
        }
    };
    // A client that went away does not want to hear it.
    let _ = client.say(&reply).await;
}

async fn request(read: OwnedReadHalf) -> Result<Request> {
    let mut line = String::new();
    let mut reader = BufReader::new(read.take(REQUEST_BYTES_MAX));
    reader
        .read_line(&mut line)
        .await
        .context("read the request")?;
    serde_json::from_str(&line)
        .context("understand the request (is this the CLI of the same version?)")
}

struct Client {
    write: OwnedWriteHalf,
}

impl Client {
    async fn say(&mut self, reply: &Reply) -> Result<()> {
        let mut line = serde_json::to_vec(reply)?;
        line.push(b'\n');
        self.write
            .write_all(&line)
            .await
            .context("answer the client")
    }

    async fn event(&mut self, event: Event) -> Result<()> {
        self.say(&Reply::Event { event }).await
    }
}

fn value<T: Serialize>(value: &T) -> Result<serde_json::Value> {
    Ok(serde_json::to_value(value)?)
}

async fn answer(
    node: &Arc<Node>,
    request: Request,
    client: &mut Client,
) -> Result<serde_json::Value> {
    match logs::checked(node, request)? {
        Request::Status => value(&status::status(node).await?),
        Request::Watch => watch(node, client).await,
        Request::Events { most } => value(&events(node, most)?),
        Request::Points { role } => value(&points::points(node, role.as_ref()).await?),
        Request::Run {
            role,
            dry_run: true,
            ..
        } => value(&preview(node, role.as_ref()).await?),
        Request::Run { role, attach, .. } => {
            value(&run(node, role.as_ref(), attach, client).await?)
        }
        Request::Cancel { role } => cancel(node, role.as_ref()),
        Request::Prune { role, dry_run } => {
            let mut roles = Vec::new();
            for run in node.chosen(role.as_ref())? {
                roles.push(RolePrune {
                    role: run.name.clone(),
                    verdicts: prune::prune(node, &run, dry_run).await?,
                });
            }
            value(&PruneReport { dry_run, roles })
        }
        Request::Rescan { role, dry_run } => {
            let reports = rescanned(node, role.as_ref(), dry_run);
            value(&follow(node, client, reports).await?)
        }
        asked @ (Request::Load(_) | Request::Seed(_) | Request::Drift(_) | Request::Drill(_)) => {
            content(node, asked, client).await
        }
        asked @ (Request::Rebuild(_) | Request::Verify(_) | Request::Mend(_)) => {
            copies(node, asked, client).await
        }
        asked @ (Request::Promote(_)
        | Request::HandOver { .. }
        | Request::HandOverCancel { .. }
        | Request::Resume { .. }
        | Request::Resolve { .. }
        | Request::Pause { .. }) => value(&follow(node, client, moved(node, asked)).await?),
        asked @ (Request::Restore(_)
        | Request::Find(_)
        | Request::Came(_)
        | Request::Cat(_)
        | Request::Bring(_)
        | Request::Fork(_)
        | Request::Diff(_)
        | Request::Browse(_)) => back(node, asked, client).await,
        Request::Check => value(&check::check(node).await?),
        asked @ (Request::PairInvite { .. }
        | Request::PairAccept { .. }
        | Request::PairRemove { .. }) => paired(node, asked).await,
        Request::Reload => {
            pairing::reload(node).await?;
            Ok(serde_json::Value::Null)
        }
    }
}

async fn preview(node: &Arc<Node>, role: Option<&RoleName>) -> Result<CycleReport> {
    let mut roles = Vec::new();
    for run in node.chosen(role)? {
        roles.push(cycle::preview(node, &run).await);
    }
    Ok(CycleReport {
        dry_run: true,
        roles,
    })
}

/// What is looked for, looked at and brought back.
async fn back(
    node: &Arc<Node>,
    request: Request,
    client: &mut Client,
) -> Result<serde_json::Value> {
    match request {
        Request::Restore(request) => value(&restore::restore(node, request).await?),
        Request::Find(request) => value(&find::find(node, request).await?),
        Request::Came(request) => value(&bring::came(node, request).await?),
        Request::Cat(request) => cat(node, request, client).await,
        Request::Bring(request) => value(&follow(node, client, bring::bring(node, request)).await?),
        Request::Fork(request) => forks::answer(node, request).await,
        Request::Diff(request) => value(&diff::diff(node, request).await?),
        Request::Browse(request) => value(&browse::answer(node, request).await?),
        other => anyhow::bail!("bring back by {other:?}"),
    }
}

/// The bytes of a version, as events, for as long as somebody takes them.
async fn cat(
    node: &Arc<Node>,
    request: CatRequest,
    client: &mut Client,
) -> Result<serde_json::Value> {
    let (pieces, mut queue) = tokio::sync::mpsc::channel::<Vec<u8>>(cat::QUEUE_PIECES);
    let reading = cat::cat(node, request, pieces);
    let telling = async {
        while let Some(piece) = queue.recv().await {
            let data = BASE64_STANDARD.encode(&piece);
            client.event(Event::Data { data }).await?;
        }
        anyhow::Ok(())
    };
    let (shown, told) = tokio::join!(reading, telling);
    let shown = shown?;
    told?;
    value(&shown)
}

async fn rescanned(
    node: &Arc<Node>,
    role: Option<&RoleName>,
    dry_run: bool,
) -> Result<CycleReport> {
    let mut roles = Vec::new();
    for run in node.chosen(role)? {
        roles.push(rescan::rescan(node, &run, dry_run).await);
    }
    Ok(CycleReport { dry_run, roles })
}

/// What is asked of kinds of content.
async fn content(
    node: &Arc<Node>,
    request: Request,
    client: &mut Client,
) -> Result<serde_json::Value> {
    match request {
        Request::Drill(request) => value(&follow(node, client, drill::drill(node, request)).await?),
        Request::Load(request) => value(&follow(node, client, load::load(node, request)).await?),
        Request::Seed(request) => value(&follow(node, client, seed::seed(node, request)).await?),
        Request::Drift(request) => value(&drift::drift(node, request).await?),
        other => anyhow::bail!("answer {other:?}"),
    }
}

fn events(node: &Node, most: u32) -> Result<Events> {
    let kept = node.state.events(most.min(EVENTS_MAX))?;
    let view = |event: EventRecord| EventView {
        at: event.at,
        role: event.role,
        warning: event.warning,
        text: event.text,
    };
    Ok(Events {
        events: kept.into_iter().map(view).collect(),
    })
}

/// Invitations, and what becomes of them.
async fn paired(node: &Arc<Node>, request: Request) -> Result<serde_json::Value> {
    match request {
        Request::PairInvite {
            expires_s,
            address,
            replace,
        } => {
            let expires = Duration::from_secs(expires_s);
            value(&pairing::invite(node, expires, address, replace).await?)
        }
        Request::PairAccept { line } => value(&pairing::accept(node, &line).await?),
        Request::PairRemove { peer } => value(&pairing::remove(node, &peer).await?),
        other => anyhow::bail!("pair by {other:?}"),
    }
}

/// What is asked of copies of points on this node and its peers.
async fn copies(
    node: &Arc<Node>,
    request: Request,
    client: &mut Client,
) -> Result<serde_json::Value> {
    match request {
        Request::Rebuild(request) => {
            value(&follow(node, client, rebuild::rebuild(node, request)).await?)
        }
        Request::Verify(request) => {
            value(&follow(node, client, verify::verify(node, request)).await?)
        }
        Request::Mend(request) => value(&follow(node, client, verify::mend(node, request)).await?),
        other => anyhow::bail!("answer {other:?}"),
    }
}

/// Tells running cycles and drills to stop, and how many there were.
fn cancel(node: &Arc<Node>, role: Option<&RoleName>) -> Result<serde_json::Value> {
    let mut cancelled = 0;
    for run in node.chosen(role)? {
        cancelled += u32::from(cycle::cancel(&run)) + u32::from(drill::cancel(&run));
    }
    let mut senders = BTreeSet::new();
    for transfer in node.hub.transfers() {
        let meant = role.is_none_or(|role| *role == transfer.role);
        if meant && transfer.direction == Direction::Receiving {
            senders.insert(transfer.peer);
        }
    }
    value(&Cancelled { cancelled, senders })
}

/// A role that moves, or is told how to.
async fn moved(node: &Arc<Node>, request: Request) -> Result<MoveReport> {
    match request {
        Request::Promote(request) => promote::promote(node, request).await,
        Request::HandOver { role, to, dry_run } => {
            handover::handover(node, &role, to.as_ref(), dry_run).await
        }
        Request::HandOverCancel { role } => handover::cancel(node, &role).await,
        Request::Resume { role, dry_run } => resolve::resume(node, &role, dry_run).await,
        Request::Resolve {
            role,
            keep,
            dry_run,
        } => resolve::resolve(node, &role, &keep, dry_run).await,
        Request::Pause { role, off } => resolve::pause(node, &role, off).await,
        other => anyhow::bail!("move a role by {other:?}"),
    }
}

/// Starts or joins cycles and tells the client what happens until the last one ends.
async fn run(
    node: &Arc<Node>,
    role: Option<&RoleName>,
    attach: bool,
    client: &mut Client,
) -> Result<CycleReport> {
    let mut running = Vec::new();
    for run in node.chosen(role)? {
        // Without a name, roles for which this node stands in are simply not this node's to run.
        if role.is_none() && !node.record(&run)?.is_some_and(|record| record.active()) {
            continue;
        }
        // Refused before a cycle is begun: a standby's refusal is an answer, not a failed cycle.
        cycle::active_record(node, &run)?;
        running.push(cycle::start(node, &run, Reason::Asked, attach)?);
    }
    if running.is_empty() {
        let failure = Failure::new(
            crate::error::Code::NotFound,
            "run a cycle: this node is active in no role",
        );
        return Err(failure
            .hint("a role is active on its `home` node; `standin status` shows which")
            .into());
    }
    let reports = async {
        let mut roles = Vec::new();
        for cycle in &mut running {
            roles.push(cycle::wait(cycle).await?);
        }
        Ok(CycleReport {
            dry_run: false,
            roles,
        })
    };
    follow(node, client, reports).await
}

/// Tells the client what happens until the work is over.
async fn follow<T>(
    node: &Arc<Node>,
    client: &mut Client,
    work: impl Future<Output = Result<T>>,
) -> Result<T> {
    let mut events = node.hub.subscribe();
    tokio::pin!(work);
    let mut ticks = tokio::time::interval(TRANSFERS_EVERY);
    let mut listening = true;
    loop {
        let said = tokio::select! {
            outcome = &mut work => return outcome,
            event = events.recv() => match event {
                Ok(event) => client.event(event).await,
                Err(RecvError::Lagged(_)) => Ok(()),
                Err(RecvError::Closed) => std::future::pending().await,
            },
            _ = ticks.tick(), if listening => transfers(node, client).await,
        };
        // The client is gone: the work goes on without anybody listening.
        listening &= said.is_ok();
    }
}

async fn transfers(node: &Arc<Node>, client: &mut Client) -> Result<()> {
    for transfer in node.hub.transfers() {
        client.event(Event::Transfer { transfer }).await?;
    }
    Ok(())
}

async fn watch(node: &Arc<Node>, client: &mut Client) -> Result<serde_json::Value> {
    let mut events = node.hub.subscribe();
    let mut seconds = tokio::time::interval(Duration::from_secs(1));
    let mut ticks = tokio::time::interval(TRANSFERS_EVERY);
    loop {
        tokio::select! {
            () = node.stop.cancelled() => return Ok(serde_json::Value::Null),
            event = events.recv() => match event {
                Ok(event) => client.event(event).await?,
                Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => return Ok(serde_json::Value::Null),
            },
            _ = ticks.tick() => transfers(node, client).await?,
            _ = seconds.tick() => {
                let status = Box::new(status::status(node).await?);
                client.event(Event::Status { status }).await?;
            }
        }
    }
}
