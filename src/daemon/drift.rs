//! Drift: what this node and its peers have of what both watch, and where they differ.
//!
//! Compared when a link comes up, every hour, after a reload, and when somebody asks. Promise: a peer is told of a watch only
//! what this node's own configuration names for it, and nothing of a secret but hashes; a name that is not watched with it is
//! answered like one that does not exist. However often peers ask, this node looks at its files and runs its commands one look
//! at a time, and not again within a moment. A difference is warned of once, and counted in `status`.
//!
//! What is known is in memory only: a restart compares anew.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use jiff::Timestamp;

use super::api::{DriftReport, DriftRequest, DriftView, Finding, PeerDrift};
use super::check::{ok, warning as finding};
use super::node::{Node, blocking, lock};
use super::outgoing::answer as heard;
use crate::error::{Code, Failure};
use crate::host::watch;
use crate::logic::drift::{ANSWER_BYTES_MAX, Compared, Found, Watch, compare, hash, told};
use crate::logic::name::{NodeName, nearest};
use crate::logic::units;
use crate::peer::message::{Answer, Request};
use crate::peer::timing::hurried;

/// Between two comparisons that nobody asked for.
const COMPARE_EVERY: Duration = Duration::from_secs(3600);

/// A look that is no older is good enough for a peer.
const LOOK_LASTS: Duration = Duration::from_secs(2);

/// Longest wait for a peer that looks: more than a look takes.
const ANSWER_MAX: Duration = Duration::from_secs(90);

/// Names of one question.
const NAMES_MAX: usize = 1000;

/// What this node found last, and how it compared.
#[derive(Default)]
pub struct Drift {
    /// Held by whoever looks.
    looked: tokio::sync::Mutex<Option<Look>>,
    last: Mutex<BTreeMap<NodeName, Last>>,
}

struct Look {
    at: Instant,
    watches: Vec<Watch>,
    found: Arc<BTreeMap<String, Found>>,
}

struct Last {
    view: DriftView,
    /// Of all that differs: warned of when it changes.
    mark: String,
}

/// What is here, looked at no longer ago than `age`.
async fn look(node: &Node, age: Duration) -> Arc<BTreeMap<String, Found>> {
    let mut looked = node.drift.looked.lock().await;
    let watches = node.config().node.watches.clone();
    if let Some(last) = looked.as_ref() {
        if last.at.elapsed() <= age && last.watches == watches {
            return last.found.clone();
        }
    }
    let found = Arc::new(watch::look(&watches).await);
    *looked = Some(Look {
        at: Instant::now(),
        watches,
        found: found.clone(),
    });
    found
}

/// Answers a peer.
pub async fn answer(node: &Node, peer: &NodeName, names: &[String]) -> Answer {
    let names: BTreeSet<&str> = names.iter().take(NAMES_MAX).map(String::as_str).collect();
    let config = node.config();
    let meant = |watch: &&Watch| names.contains(watch.name.as_str()) && watch.is_for(peer);
    let watches: Vec<&Watch> = config.node.watches.iter().filter(meant).collect();
    let mut found = BTreeMap::new();
    if !watches.is_empty() {
        let ours = look(node, LOOK_LASTS).await;
        let mut room = ANSWER_BYTES_MAX;
        for watch in watches {
            if let Some(ours) = ours.get(&watch.name) {
                found.insert(watch.name.clone(), told(watch, ours, &mut room));
            }
        }
    }
    Answer::Drift { found }
}

/// A comparison that somebody asked for.
pub async fn drift(node: &Arc<Node>, request: DriftRequest) -> Result<DriftReport> {
    let config = node.config();
    let (mut peers, mut names) = (Vec::new(), Vec::new());
    for name in &request.names {
        let peer = config.peers.keys().find(|peer| peer.as_str() == name);
        match peer {
            Some(peer) => peers.push(peer.clone()),
            None if config.node.watches.iter().any(|watch| watch.name == *name) => {
                names.push(name.clone())
            }
            None => return Err(unknown(node, name)),
        }
    }
    if peers.is_empty() {
        peers = config.peers.keys().cloned().collect();
    }
    let ours = look(node, Duration::ZERO).await;
    let mut asked = tokio::task::JoinSet::new();
    for peer in peers.iter().cloned() {
        let (node, ours, names) = (node.clone(), ours.clone(), names.clone());
        asked.spawn(async move {
            let compared = with(&node, &peer, ours, &names).await;
            (peer, compared)
        });
    }
    let mut made: BTreeMap<NodeName, PeerDrift> = BTreeMap::new();
    while let Some(done) = asked.join_next().await {
        let (peer, compared) = done?;
        made.insert(peer.clone(), report(peer, compared));
    }
    Ok(DriftReport {
        node: node.name(),
        peers: peers.iter().filter_map(|peer| made.remove(peer)).collect(),
    })
}

fn unknown(node: &Node, name: &str) -> anyhow::Error {
    let config = node.config();
    let watches = config.node.watches.iter().map(|watch| watch.name.as_str());
    let known: Vec<&str> = config
        .peers
        .keys()
        .map(NodeName::as_str)
        .chain(watches)
        .collect();
    let hint = match nearest(name, known.iter().copied()) {
        Some(near) => format!(
            "did you mean \"{near}\"? Peers and watches here: {}",
            known.join(", ")
        ),
        None => format!("peers and watches here: {}", known.join(", ")),
    };
    let what = format!("find {name}: it is neither a peer nor the name of a watch");
    Failure::new(Code::NotFound, what).hint(hint).into()
}

fn report(peer: NodeName, compared: Result<Vec<Compared>>) -> PeerDrift {
    match compared {
        Ok(compared) => PeerDrift {
            peer,
            error: None,
            hint: None,
            code: None,
            compared,
        },
        Err(error) => PeerDrift {
            peer,
            error: Some(format!("could not {error:#}")),
            hint: Failure::of(&error).and_then(|failure| failure.hint.clone()),
            code: Some(Failure::code_of(&error)),
            compared: Vec::new(),
        },
    }
}

/// Compares with one peer; with `names`, only these. What all of them say is remembered.
async fn with(
    node: &Arc<Node>,
    peer: &NodeName,
    ours: Arc<BTreeMap<String, Found>>,
    names: &[String],
) -> Result<Vec<Compared>> {
    let config = node.config();
    let meant =
        |watch: &&Watch| watch.is_for(peer) && (names.is_empty() || names.contains(&watch.name));
    let watches: Vec<Watch> = config.node.watches.iter().filter(meant).cloned().collect();
    if watches.is_empty() {
        lock(&node.drift.last).remove(peer);
        return Ok(Vec::new());
    }
    let asked = watches.iter().map(|watch| watch.name.clone()).collect();
    let theirs = tokio::time::timeout(ANSWER_MAX, ask(node, peer, asked)).await;
    let theirs = theirs.unwrap_or_else(|_| {
        let what = format!(
            "compare with {peer}: it gave no answer within {}",
            units::exact_duration(ANSWER_MAX)
        );
        Err(Failure::new(Code::Unreachable, what)
            .hint("try again; a command that is watched there may take long")
            .into())
    })?;
    let (here, there) = (node.name(), peer.clone());
    let compared = blocking(move || {
        let ours = watches
            .iter()
            .filter_map(|watch| Some((watch, ours.get(&watch.name)?)));
        Ok(compare((&here, &there), ours, &theirs))
    })
    .await?;
    if names.is_empty() {
        remember(node, peer, &compared);
    }
    Ok(compared)
}

async fn ask(
    node: &Arc<Node>,
    peer: &NodeName,
    names: Vec<String>,
) -> Result<BTreeMap<String, Found>> {
    let link = node.link(peer)?;
    let mut exchange = link.open(&Request::Drift { names }).await?;
    let what = format!("ask {peer} what it has of what is watched");
    match heard(&what, exchange.recv()).await? {
        Answer::Drift { found } => Ok(found),
        other => bail!(
            "{peer} answered a question for what is watched with {:.40}",
            format!("{other:?}")
        ),
    }
}

/// Keeps what `status` shows, and warns of what is new.
fn remember(node: &Node, peer: &NodeName, compared: &[Compared]) {
    let count = |is: fn(&Compared) -> bool| compared.iter().filter(|one| is(one)).count() as u64;
    let view = DriftView {
        compared: Timestamp::now(),
        same: count(|one| !one.state.is_difference() && !one.state.is_unknown()),
        differences: count(|one| one.state.is_difference()),
        unknown: count(|one| one.state.is_unknown()),
    };
    let differing = compared.iter().filter(|one| one.state.is_difference());
    let differing: Vec<String> = differing.map(|one| format!("{one:?}")).collect();
    let mark = match differing.is_empty() {
        true => String::new(),
        false => hash(differing.join("\n").as_bytes()),
    };
    let differences = view.differences;
    let last = Last {
        view,
        mark: mark.clone(),
    };
    let before = lock(&node.drift.last).insert(peer.clone(), last);
    let before = before.map_or_else(String::new, |before| before.mark);
    if before == mark {
        return;
    }
    match differences {
        0 => node.hub.note(
            None,
            format!("{peer} does not differ any more in what is watched"),
        ),
        _ => node.hub.warn(None, sentence(peer, differences)),
    }
}

fn sentence(peer: &NodeName, differences: u64) -> String {
    let word = if differences == 1 {
        "difference"
    } else {
        "differences"
    };
    format!("{differences} {word} from {peer}: standin drift {peer}")
}

/// Compares with every linked peer, every hour and after each reload, until the daemon stops.
pub async fn keep(node: Arc<Node>) {
    loop {
        tokio::select! {
            () = node.stop.cancelled() => return,
            () = node.reloaded.notified() => {}
            () = tokio::time::sleep(hurried(COMPARE_EVERY)) => {}
        }
        for run in node.peers() {
            linked(&node, &run.peer.name);
        }
    }
}

/// Compares with a peer that can be asked, without anybody waiting for it.
pub fn linked(node: &Arc<Node>, peer: &NodeName) {
    let (node, peer) = (node.clone(), peer.clone());
    tokio::spawn(async move {
        let config = node.config();
        if !config.node.watches.iter().any(|watch| watch.is_for(&peer)) {
            lock(&node.drift.last).remove(&peer);
            return;
        }
        if node.link(&peer).is_err() {
            return;
        }
        let work = async {
            let ours = look(&node, LOOK_LASTS).await;
            with(&node, &peer, ours, &[]).await
        };
        tokio::select! {
            () = node.stop.cancelled() => {}
            compared = work => if let Err(error) = compared {
                // Links come and go: the next one asks again.
                tracing::debug!("could not {error:#}");
            }
        }
    });
}

/// The last comparison, for `status`.
pub fn view(node: &Node, peer: &NodeName) -> Option<DriftView> {
    lock(&node.drift.last)
        .get(peer)
        .map(|last| last.view.clone())
}

/// What somebody should look at.
pub fn warning(node: &Node, peer: &NodeName, now: Timestamp) -> Option<String> {
    let view = view(node, peer).filter(|view| view.differences > 0)?;
    let age = units::human_age(now.duration_since(view.compared).as_secs_f64());
    Some(format!(
        "{} (compared {age})",
        sentence(peer, view.differences)
    ))
}

/// Watches of this node, and whether they can be read.
pub async fn check(node: &Arc<Node>, findings: &mut Vec<Finding>) {
    let config = node.config();
    if config.node.watches.is_empty() {
        return;
    }
    let found = look(node, LOOK_LASTS).await;
    for watch in &config.node.watches {
        let Some(found) = found.get(&watch.name) else {
            continue;
        };
        let subject = format!("watch {}", watch.name);
        let unreadable = found.items.iter().filter_map(|(item, value)| match value {
            crate::logic::drift::Value::Unreadable(why) => {
                Some(format!("could not {why} ({item})"))
            }
            _ => None,
        });
        let problem = found.problem.iter().map(|why| format!("could not {why}"));
        let mut wrong: Vec<String> = problem.chain(unreadable).collect();
        if found.more > 0 {
            wrong.push(format!("{} more than can be compared", found.more));
        }
        let kind = watch.what.word();
        findings.push(match (wrong.first(), found.items.len()) {
            (Some(first), _) => {
                let more = match wrong.len() {
                    1 => String::new(),
                    count => format!(", and {} more", count - 1),
                };
                let hint = "mend it, or the watch: what cannot be read is not compared";
                finding(&subject, format!("{first}{more}"), hint)
            }
            (None, 0) => ok(&subject, format!("no such {kind} here")),
            (None, 1) => ok(&subject, format!("{kind} is read")),
            (None, count) => ok(&subject, format!("{count} {kind}s are read")),
        });
    }
}
