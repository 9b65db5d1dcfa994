//! `standin serve`: the one brain of a node. Schedules cycles, keeps links, answers peers and the control socket.
//!
//! Bytes are moved by plain threads, everything that waits is a task. An orderly stop (SIGTERM, SIGINT) ends transfers at
//! a checkpoint and then exits; SIGHUP reads the config again and leaves transfers alone.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use crate::config::Config;
use crate::error::{Code, Failure};
use crate::host::lock;
use crate::host::state::State;
use crate::peer::accept;
use crate::peer::identity::Identity;

mod absent;
pub mod api;
mod asking;
mod blank;
mod bracket;
mod bring;
mod browse;
mod cat;
mod check;
mod clock;
mod control;
mod cycle;
mod describe;
mod diff;
mod drift;
mod drill;
mod fetch;
mod find;
mod forks;
mod grant;
mod handover;
mod heard;
mod hub;
mod incoming;
mod kept;
mod links;
mod load;
mod logs;
mod measured;
mod moves;
mod node;
mod outgoing;
mod pacing;
mod pairing;
mod part;
pub mod play;
mod points;
mod preview;
mod produce;
mod promote;
mod prune;
mod rebuild;
mod receiving;
mod refusal;
mod replicate;
mod rescan;
mod resolve;
mod restore;
mod retry;
mod returning;
mod schedule;
mod seed;
mod standing;
mod status;
mod supervisor;
mod take;
mod unsaved;
mod verify;
mod view;
mod watching;
mod words;

use node::{Node, blocking};

/// Threads for tasks: links and timers, not bytes.
const WORKERS: usize = 2;

/// An orderly stop that takes longer is cut short: checkpoints are taken, the rest is safe to lose.
const STOP_TIMEOUT: Duration = Duration::from_secs(20);

/// For the goodbyes of the links: as long as a worker may take to say one, since it ends with this process and a peer that heard
/// none warns. It takes a busy machine, or a peer that is silent, to need that long.
const GOODBYE: Duration = Duration::from_secs(5);

/// Fresh links that wait to be taken over.
const ACCEPTED_MAX: usize = 8;

/// File name of the node key in the state directory.
pub const KEY_FILE: &str = "node.key";

/// The socket that `standin link --stdio` connects to lies beside the control socket.
pub fn link_socket(control: &Path) -> std::path::PathBuf {
    control.with_file_name("link.sock")
}

/// Runs the daemon until it is told to stop.
pub fn serve(config: &Path) -> Result<()> {
    let config = Config::load(config).map_err(Failure::from)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(WORKERS)
        .enable_all()
        .build()
        .context("start the runtime")?;
    let result = runtime.block_on(run(config));
    runtime.shutdown_timeout(Duration::from_secs(2));
    result
}

async fn run(config: Config) -> Result<()> {
    let state_dir = config.node.state_dir.clone();
    std::fs::create_dir_all(&state_dir)
        .with_context(|| format!("create {}", state_dir.display()))?;
    let _lock = lock::take(&state_dir)?;
    let sockets = [
        config.node.control.clone(),
        link_socket(&config.node.control),
    ];
    let [control_listener, link_listener] =
        [control::bind(&sockets[0])?, control::bind(&sockets[1])?];
    let key = state_dir.join(KEY_FILE);
    if !key.exists() {
        let failure = Failure::new(
            Code::Usage,
            format!("open the node key {}: it does not exist", key.display()),
        );
        return Err(failure.hint("`standin init` makes it").into());
    }
    let identity = Identity::load(&key)?;
    let state = State::open(&state_dir)?;
    let node = Node::new(config, identity, state)?;
    supervisor::wake(&node).context("remember that no role is up yet")?;
    node.prepare_roles().await;
    browse::forget(&node).await;
    let listeners = links::listen(&node).await?;

    // No drill before what an earlier daemon left of one is gone.
    let turn = node.drilling.clone().lock_owned().await;
    let mut tasks = tokio::task::JoinSet::new();
    let acceptor = links::acceptor(&node)?;
    let (accepted, arrivals) = mpsc::channel(ACCEPTED_MAX);
    for listener in listeners {
        tasks.spawn(accept::listen_tcp(
            listener,
            acceptor.clone(),
            accepted.clone(),
        ));
    }
    tasks.spawn(accept::listen_unix(link_listener, acceptor, accepted));
    tasks.spawn(links::welcome(node.clone(), arrivals));
    tasks.spawn(control::serve(node.clone(), control_listener));
    tasks.spawn(links::keep(node.clone()));
    tasks.spawn(supervisor::keep(node.clone()));
    tasks.spawn(schedule::keep(node.clone()));
    tasks.spawn(drill::keep(node.clone(), turn));
    tasks.spawn(verify::keep::keep(node.clone()));
    tasks.spawn(seed::keep(node.clone()));
    tasks.spawn(drift::keep(node.clone()));
    tasks.spawn(retry::keep(node.clone()));
    tasks.spawn(absent::keep(node.clone()));
    tasks.spawn(pacing::keep(node.clone()));
    tasks.spawn(clock::keep(node.clone()));
    tasks.spawn(bracket::at_start(node.clone()));

    announce(&node);
    tell_systemd(&[sd_notify::NotifyState::Ready]);
    signals(&node).await?;
    tell_systemd(&[sd_notify::NotifyState::Stopping]);
    stop(&node, tasks).await;
    for socket in sockets {
        // The next start removes what is left here.
        let _ = std::fs::remove_file(socket);
    }
    Ok(())
}

fn announce(node: &Node) {
    let listening: Vec<String> = node
        .config()
        .node
        .listen
        .iter()
        .map(ToString::to_string)
        .collect();
    let listening = if listening.is_empty() {
        "not listening".to_owned()
    } else {
        format!("listening on {}", listening.join(", "))
    };
    node.hub.note(
        None,
        format!(
            "standin {} serves as {}, {listening}, key {}",
            env!("CARGO_PKG_VERSION"),
            node.name(),
            node.identity.fingerprint()
        ),
    );
}

fn tell_systemd(states: &[sd_notify::NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::debug!("could not tell systemd: {error}");
    }
}

/// Obeys signals until one says stop.
async fn signals(node: &Arc<Node>) -> Result<()> {
    let mut hangup = signal(SignalKind::hangup()).context("listen for SIGHUP")?;
    let mut terminate = signal(SignalKind::terminate()).context("listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("listen for SIGINT")?;
    loop {
        tokio::select! {
            _ = hangup.recv() => {
                if let Err(error) = pairing::reload(node).await {
                    node.hub.warn(None, format!("kept the old config: could not {error:#}"));
                }
            }
            _ = terminate.recv() => return Ok(()),
            _ = interrupt.recv() => return Ok(()),
        }
    }
}

async fn stop(node: &Arc<Node>, mut tasks: tokio::task::JoinSet<()>) {
    node.hub
        .note(None, "stopping: transfers end at a checkpoint");
    node.stop.cancel();
    let quiet = async {
        while !node.hub.transfers().is_empty() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        while tasks.join_next().await.is_some() {}
    };
    if tokio::time::timeout(STOP_TIMEOUT, quiet).await.is_err() {
        node.hub
            .warn(None, "stopped before everything had ended by itself");
    }
    let mut closing = Vec::new();
    for peer in node.peers() {
        closing.extend(node::lock(&peer.contact).link.clone());
        peer.end("the daemon stopped");
    }
    // The workers say goodbye, and end with this process; a peer that misses it notices the silence.
    let closed = async {
        for linked in closing {
            linked.link.closed().await;
        }
    };
    let _ = tokio::time::timeout(GOODBYE, closed).await;
}

impl Node {
    /// Makes each role's directories and finishes what a crash interrupted. A role that fails is told and left alone.
    pub async fn prepare_roles(self: &Arc<Self>) {
        for run in self.roles() {
            let fs = run.fs.clone();
            let prepared = blocking(move || {
                fs.prepare()?;
                fs.sweep()
            })
            .await;
            if let Err(error) = prepared {
                self.hub.warn(
                    Some(&run.name),
                    format!("could not prepare role {}: {error:#}", run.name),
                );
            }
            view::refresh(self, &run).await;
        }
    }
}
