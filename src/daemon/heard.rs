//! What peers said last of a role, and what this node says of itself beside what is decided by.
//!
//! Promise: it is for operators, so that they see on any node how things were when a peer last spoke, and for the name of what
//! is kept at the end of a term (`kept`); nothing else is decided by it. The last word of each peer survives a restart. A crash
//! loses words of the last minute that said nothing new, and none that [`remember`] wrote down.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use jiff::Timestamp;

use super::cycle::our_lineage;
use super::node::{Node, RoleRun, blocking, lock};
use super::{measured, words};
use crate::host::part::RoleRecord;
use crate::logic::lineage::Entry;
use crate::logic::name::NodeName;
use crate::logic::role::State;
use crate::peer::message::{RoleFigures, RoleWord, plain};

/// A word that says nothing new is written down this often at most.
const WRITE_EVERY: Duration = Duration::from_secs(60);

/// The last words of the peers of a role, since this daemon started.
#[derive(Debug, Default)]
pub struct Words(Mutex<BTreeMap<NodeName, Heard>>);

/// A word and when it came.
#[derive(Debug, Clone)]
pub struct Heard {
    pub at: Timestamp,
    pub word: RoleWord,
    /// The same by the clock nobody can set; none: before this daemon started.
    came: Option<Instant>,
    written: Option<Instant>,
}

impl Heard {
    /// Seconds since it came.
    pub fn age_s(&self, now: Timestamp) -> f64 {
        match self.came {
            Some(came) => came.elapsed().as_secs_f64(),
            None => now.duration_since(self.at).as_secs_f64().max(0.0),
        }
    }
}

/// A peer said this.
pub fn note(node: &Node, run: &RoleRun, peer: &NodeName, word: &RoleWord) {
    let mut word = word.clone();
    word.state = plain(&word.state);
    let mut heard = lock(&run.heard.0);
    let before = heard.get(peer);
    let says_as_before = |before: &&Heard| {
        let (then, now) = (&before.word, &word);
        (&then.seen, &then.state, &then.newest) == (&now.seen, &now.state, &now.newest)
    };
    let fresh = |at: &Instant| at.elapsed() < WRITE_EVERY;
    let written = before
        .filter(says_as_before)
        .and_then(|before| before.written)
        .filter(fresh);
    let at = Timestamp::now();
    let written = written.or_else(|| {
        let text = serde_json::to_string(&word).ok()?;
        let (state, role, peer) = (node.state.clone(), run.name.clone(), peer.clone());
        // Who waits for what follows from the word does not wait for this.
        tokio::task::spawn_blocking(move || {
            if let Err(error) = state.note_heard(&role, &peer, at, &text) {
                tracing::debug!("could not remember what {peer} said: {error:#}");
            }
        });
        Some(Instant::now())
    });
    let came = Some(Instant::now());
    let now = Heard {
        at,
        word,
        came,
        written,
    };
    heard.insert(peer.clone(), now);
}

/// The same, on disk when this returns.
pub async fn remember(
    node: &Arc<Node>,
    run: &RoleRun,
    peer: &NodeName,
    word: &RoleWord,
) -> Result<()> {
    let mut word = word.clone();
    word.state = plain(&word.state);
    let text = serde_json::to_string(&word).context("write a peer's word")?;
    let (state, role, peer) = (node.state.clone(), run.name.clone(), peer.clone());
    blocking(move || state.record_heard(&role, &peer, Timestamp::now(), &text)).await
}

/// The last word of a peer; of before a restart, where there is none since.
pub fn last(node: &Node, run: &RoleRun, peer: &NodeName) -> Result<Option<Heard>> {
    if let Some(heard) = lock(&run.heard.0).get(peer) {
        return Ok(Some(heard.clone()));
    }
    let Some((at, text)) = node.state.heard(&run.name, peer)? else {
        return Ok(None);
    };
    // What another version wrote is as good as nothing.
    Ok(serde_json::from_str(&text).ok().map(|word| Heard {
        at,
        word,
        came: None,
        written: None,
    }))
}

/// Tells the peers that know of the role where the line stands, without anybody waiting for it. Those that refuse it are
/// left alone.
pub fn say_where_we_are(node: &Arc<Node>, run: &Arc<RoleRun>) {
    for peer in run.role.peers.iter().filter(|peer| node.link(peer).is_ok()) {
        let spoke = lock(&run.heard.0).contains_key(peer);
        let replicas = lock(&run.replicas);
        let holds = replicas.get(peer).is_some_and(|one| one.lineage.is_some());
        drop(replicas);
        if spoke || holds {
            words::exchange(node, run, peer);
        }
    }
}

/// What this node tells of itself beside what is decided by.
pub fn figures(
    node: &Node,
    run: &RoleRun,
    record: &RoleRecord,
    newest: Option<&Entry>,
) -> RoleFigures {
    let (term, state) = node.state.since(&run.name).unwrap_or_default();
    let active = record.part.state == State::Active;
    let quiet = newest.filter(|_| active).and_then(|newest| {
        let looked = run.looked.quiet_for(&newest.point);
        looked.or_else(|| super::clock::taken_ago(run, &newest.point))
    });
    let whole_ms = |span: Duration| u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
    RoleFigures {
        since: if active { term } else { state },
        taken: newest.map(|entry| entry.taken),
        quiet_ms: quiet.map(whole_ms),
        rise_ms: measured::rise(node, run).map(whole_ms),
    }
}

/// The newest point here.
pub async fn newest(run: &Arc<RoleRun>) -> Result<Option<Entry>> {
    let (lineage, _) = our_lineage(run).await?;
    Ok(lineage.newest().cloned())
}
