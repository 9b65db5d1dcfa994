//! Keeps one link to each peer: dials where an address is known, accepts what dials in, and serves what peers ask.
//!
//! Promise: an unknown key gets no further than the pairing conversation; a slow or silent client occupies a task of its
//! own and its deadline, never the accept loop. A lost link is dialled again after a growing, jittered pause.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use jiff::Timestamp;
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use super::absent;
use super::node::{Linked, Node, PeerRun, lock};
use super::{blank, incoming, pairing, replicate, words};
use crate::error::Failure;
use crate::logic::name::NodeName;
use crate::peer::accept::{Accepted, Acceptor};
use crate::peer::dial::{Expected, Target};
use crate::peer::identity::Fingerprint;
use crate::peer::link::{Incoming, Link};
use crate::peer::message::{Hello, PROTOCOL, plain};
use crate::peer::timing::{Timing, hurried};

/// First and longest pause between two attempts to dial.
const BACKOFF: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// A link that lived this long was a good one.
const LASTING: Duration = Duration::from_secs(30);

/// Longest pause after a link that was up, however short it lived: a line that breaks twice a minute is worth dialling at once.
const LOST_PAUSE: Duration = Duration::from_secs(5);

/// Before the first attempt.
const FIRST_PAUSE: Duration = Duration::from_millis(300);

/// Two links that cross are told apart within this time.
const CROSSING: Duration = Duration::from_secs(10);

/// What this node says first on a link.
pub fn hello(node: &Node) -> Hello {
    Hello {
        node: node.name(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        protocol: PROTOCOL,
        capabilities: Vec::new(),
        now: Timestamp::now(),
        stream_version_max: crate::fs::btrfs::stream_version_max(),
    }
}

/// Keeps dialling every peer that has an address, until the daemon stops; looks anew after each reload.
pub async fn keep(node: Arc<Node>) {
    let mut known: Vec<Arc<PeerRun>> = Vec::new();
    loop {
        for run in node.peers() {
            if !known.iter().any(|old| Arc::ptr_eq(old, &run)) {
                tokio::spawn(dialling(node.clone(), run.clone()));
                known.push(run);
            }
        }
        known.retain(|run| !run.gone.is_cancelled());
        tokio::select! {
            () = node.stop.cancelled() => return,
            () = node.reloaded.notified() => {}
        }
    }
}

async fn dialling(node: Arc<Node>, run: Arc<PeerRun>) {
    let (Some(target), Some(key)) = (target(&run), run.peer.key.as_ref()) else {
        return;
    };
    let Ok(fingerprint) = key.parse::<Fingerprint>() else {
        return;
    };
    let expected = Expected {
        name: run.peer.name.clone(),
        fingerprint,
    };
    let mut pause = hurried(BACKOFF.0);
    // After a pairing the other end is still pinning our key, and may be dialling us already.
    tokio::select! {
        () = tokio::time::sleep(hurried(FIRST_PAUSE)) => {}
        () = run.changed.notified() => {}
    }
    loop {
        let linked = lock(&run.contact).link.clone();
        if let Some(linked) = linked {
            tokio::select! {
                _ = linked.link.closed() => {}
                () = run.gone.cancelled() => return,
                () = node.stop.cancelled() => return,
            }
            if linked.since.elapsed() < hurried(LASTING) {
                // Somebody takes the link away again and again: not to be answered at the same speed.
                pause = pause.min(hurried(LOST_PAUSE));
                wait(&node, &run, jittered(pause)).await;
                pause *= 2;
            } else {
                pause = hurried(BACKOFF.0);
            }
            if run.gone.is_cancelled() || node.stop.is_cancelled() {
                return;
            }
            // Another link may have taken its place meanwhile.
            if lock(&run.contact).link.is_some() {
                continue;
            }
        }
        let greeting = hello(&node);
        let attempt = tokio::select! {
            attempt = node.workers.dial(&target, &expected, &greeting) => attempt,
            // A link that comes meanwhile does not end the attempt: the peer may just have taken ours for the better one.
            () = run.gone.cancelled() => return,
            () = node.stop.cancelled() => return,
        };
        match attempt {
            Ok((link, incoming)) => {
                adopt(&node, &run, link, incoming, true);
                continue;
            }
            Err(error) => missed(&node, &run, &error),
        }
        wait(&node, &run, jittered(pause)).await;
        if run.gone.is_cancelled() || node.stop.is_cancelled() {
            return;
        }
        pause = (pause * 2).min(hurried(BACKOFF.1));
    }
}

/// Waits, but no longer than until the link comes by itself or is not wanted any more.
async fn wait(node: &Node, run: &PeerRun, pause: Duration) {
    tokio::select! {
        () = tokio::time::sleep(pause) => {}
        () = run.changed.notified() => {}
        () = run.gone.cancelled() => {}
        () = node.stop.cancelled() => {}
    }
}

fn target(run: &PeerRun) -> Option<Target> {
    match (&run.peer.via, &run.peer.address) {
        (Some(command), _) => Some(Target::Command(command.clone())),
        (None, Some(address)) => address.parse().ok(),
        (None, None) => None,
    }
}

/// Between three quarters and five quarters of the pause, so that two nodes do not stay in step.
fn jittered(pause: Duration) -> Duration {
    let draw = crate::host::random::number().unwrap_or(0) % 512;
    pause.mul_f64(0.75 + draw as f64 / 1024.0)
}

/// A failed attempt is told once, not each time it fails the same way.
fn missed(node: &Node, run: &PeerRun, error: &anyhow::Error) {
    let text = format!("{error:#}");
    let mut contact = lock(&run.contact);
    if contact.link.is_some() {
        return;
    }
    if contact.last_error.as_deref() != Some(&text) {
        contact.since.get_or_insert(Timestamp::now());
        contact.last_error = Some(text.clone());
        contact.last_hint = Failure::of(error).and_then(|failure| failure.hint.clone());
        drop(contact);
        node.hub.note(None, format!("could not {text}"));
    }
}

/// Makes a fresh link the peer's link and serves what comes over it.
fn adopt(node: &Arc<Node>, run: &Arc<PeerRun>, link: Link, incoming: Incoming, dialled: bool) {
    let linked = Linked {
        link: link.clone(),
        since: Instant::now(),
        dialled,
    };
    {
        let mut contact = lock(&run.contact);
        // The config was read again while it was made: nobody would look at it here, and the peer would take it for up.
        if run.gone.is_cancelled() {
            drop(contact);
            close(link, "the peer's configuration changed");
            return;
        }
        if let Some(old) = &contact.link {
            if old.since.elapsed() < hurried(CROSSING)
                && preferred(node, run, old.dialled)
                && !preferred(node, run, dialled)
            {
                drop(contact);
                close(link, "another link between the same nodes was first");
                return;
            }
            close(old.link.clone(), "a newer link took its place");
        }
        contact.link = Some(linked);
        contact.since = Some(Timestamp::now());
        contact.last_error = None;
    }
    run.changed.notify_waiters();
    let version = plain(&link.hello().version);
    node.hub.note(
        None,
        format!("link to {} is up (standin {version})", run.peer.name),
    );
    // What could not be sent while the peer was away is sent now.
    for role in node
        .roles()
        .iter()
        .filter(|role| role.role.peers.contains(&run.peer.name))
    {
        words::exchange(node, role, &run.peer.name);
        replicate::catch_up(node, role, &run.peer.name);
        blank::linked(node, role, &run.peer.name);
    }
    tokio::spawn(serve(node.clone(), run.clone(), link, incoming));
    super::drift::linked(node, &run.peer.name);
}

/// Closes a link without waiting for its goodbye.
fn close(link: Link, why: &'static str) {
    tokio::spawn(async move { link.close(why).await });
}

/// Both nodes prefer the link that the node with the smaller name dialled, so that both keep the same of two that cross.
fn preferred(node: &Node, run: &PeerRun, dialled: bool) -> bool {
    let ours: NodeName = node.name();
    (ours < run.peer.name) == dialled
}

async fn serve(node: Arc<Node>, run: Arc<PeerRun>, link: Link, mut incoming: Incoming) {
    loop {
        tokio::select! {
            next = incoming.next() => match next {
                Some((request, exchange)) => {
                    tokio::spawn(incoming::serve(node.clone(), run.clone(), request, exchange));
                }
                None => break,
            },
            // Whoever said so closes the link, and says why.
            () = run.gone.cancelled() => break,
        }
    }
    let why = link.closed().await;
    let lost = {
        let mut contact = lock(&run.contact);
        let ours = contact
            .link
            .as_ref()
            .is_some_and(|linked| linked.link.same(&link));
        if ours {
            contact.link = None;
            contact.since = Some(Timestamp::now());
            contact.last_error = Some(why.clone());
            contact.last_hint = None;
        }
        ours
    };
    if lost && !node.stop.is_cancelled() {
        run.changed.notify_waiters();
        absent::last_word(&node, &run.peer.name);
        node.hub
            .warn(None, format!("link to {} is down: {why}", run.peer.name));
    }
}

/// Opens the configured listeners.
pub async fn listen(node: &Node) -> Result<Vec<TcpListener>> {
    let mut listeners = Vec::new();
    for address in &node.config().node.listen {
        let listener = TcpListener::bind(address)
            .await
            .with_context(|| format!("listen on {address}"))?;
        listeners.push(listener);
    }
    Ok(listeners)
}

/// What the listeners hand their connections to.
pub fn acceptor(node: &Arc<Node>) -> Result<Acceptor> {
    let (keys, greeter) = (node.clone(), node.clone());
    let known = move |key: &Fingerprint| {
        let key = key.to_string();
        let pinned = |run: &&Arc<PeerRun>| run.peer.key.as_deref() == Some(&key);
        keys.peers()
            .iter()
            .find(pinned)
            .map(|run| run.peer.name.clone())
    };
    let hello = move || hello(&greeter);
    let acceptor = Acceptor::new(&node.identity, known, hello, Timing::in_force())?;
    Ok(acceptor.by(node.workers.clone()))
}

/// Takes what the listeners accepted until the daemon stops.
pub async fn welcome(node: Arc<Node>, mut accepted: mpsc::Receiver<Accepted>) {
    loop {
        let next = tokio::select! {
            next = accepted.recv() => next,
            () = node.stop.cancelled() => return,
        };
        match next {
            Some(Accepted::Link(link, incoming)) => match node.peer(link.peer()) {
                Some(run) => adopt(&node, &run, link, incoming, false),
                None => close(link, "the peer was removed from the config"),
            },
            Some(Accepted::Pairing(conversation)) => {
                let node = node.clone();
                tokio::spawn(async move { pairing::answer(&node, *conversation).await });
            }
            None => return,
        }
    }
}
