//! Pairing, both ends: hands out invitations, judges who uses them, and writes the pinned keys into the config file.
//!
//! Promise: a key is pinned on this node only after the other end proved the secret of an unused, unexpired invitation;
//! the invitation is marked used on disk before the answer leaves. A crash between the two leaves one node paired: the
//! next `accept` is told that the invitation was used, and a new one finishes the job.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use jiff::Timestamp;

use super::api::{Invitation, Paired};
use super::node::{Node, blocking};
use crate::config::{Config, edit};
use crate::error::{Code, Failure};
use crate::host::state::InviteRecord;
use crate::logic::name::NodeName;
use crate::peer::accept::PairConversation;
use crate::peer::message::PairAnswer;
use crate::peer::pair::{self, Invite, Judged, StoredInvite};

/// Makes an invitation, valid for `expires`.
pub async fn invite(node: &Arc<Node>, expires: Duration, address: Option<String>) -> Result<Invitation> {
    let address = match address {
        Some(address) => address,
        None => own_address(node)?,
    };
    let invite = Invite::new(node.name(), address, node.identity.fingerprint(), expires, Timestamp::now())?;
    let record = InviteRecord {
        id: invite.id.clone(),
        secret: invite.secret_hex(),
        expires: invite.expires,
        attempts: 0,
        used_by: None,
    };
    node.state.record_invite(&record, Timestamp::now())?;
    node.hub.note(None, format!("made invitation {}, valid until {}", invite.id, invite.expires));
    Ok(Invitation { line: invite.to_line(), expires: invite.expires })
}

/// Where other nodes can dial this one.
fn own_address(node: &Node) -> Result<String> {
    let config = node.config();
    if let Some(advertise) = &config.node.advertise {
        return Ok(advertise.clone());
    }
    let reachable = |address: &&SocketAddr| !address.ip().is_unspecified();
    if let Some(address) = config.node.listen.iter().find(reachable) {
        return Ok(address.to_string());
    }
    let what = "invite: this node does not know an address under which others can dial it";
    bail!(
        Failure::new(Code::Usage, what)
            .hint("give it: `standin pair invite --address HOST:PORT`, or set `advertise` and `listen` in [node]")
    );
}

/// Accepts the invitation in `line`: proves its secret to the inviting node and pins its key here.
pub async fn accept(node: &Arc<Node>, line: &str) -> Result<Paired> {
    let invite = Invite::parse(line)?;
    if invite.node == node.name() {
        bail!(
            Failure::new(Code::Usage, "accept the invitation: it was made by this very node")
                .hint("run `standin pair accept` on the other node")
        );
    }
    let address = own_address(node).ok();
    let paired = pair::accept_invite(&invite, &node.identity, &node.name(), address, Timestamp::now()).await?;
    pin(node, &paired.node, Some(paired.address.clone()), &paired.fingerprint).await?;
    let text = format!(
        "paired with {}: its key {} is pinned in {} and ours is pinned there. Add {} to `peers` of a role on both nodes to replicate it",
        paired.node,
        paired.fingerprint,
        node.config().path.display(),
        paired.node,
    );
    node.hub.note(None, format!("paired with {} (key {})", paired.node, paired.fingerprint));
    Ok(Paired { peer: paired.node, key: paired.fingerprint, text })
}

/// Removes a peer: its key, its link, and what was pinned for it.
pub async fn remove(node: &Arc<Node>, peer: &NodeName) -> Result<Paired> {
    let config = node.config();
    let Some(known) = config.peers.get(peer) else {
        let names: Vec<&str> = config.peers.keys().map(NodeName::as_str).collect();
        bail!(Failure::new(Code::NotFound, format!("find peer {peer}")).hint(format!("peers: {}", names.join(", "))));
    };
    let roles: Vec<&str> =
        config.roles.values().filter(|role| role.peers.contains(peer)).map(|role| role.name.as_str()).collect();
    if !roles.is_empty() {
        let what = format!("remove {peer}: it is still a peer of {}", roles.join(", "));
        let hint = format!("take {peer} out of `peers` of those roles in {}, then try again", config.path.display());
        bail!(Failure::new(Code::Refused, what).hint(hint));
    }
    let key = known.key.clone().unwrap_or_default();
    let (path, name) = (config.path.clone(), peer.clone());
    blocking(move || edit::file(&path, |text| edit::remove_peer(text, &name))).await?;
    node.state.forget_peer(peer)?;
    reload(node).await?;
    node.hub.note(None, format!("removed peer {peer} (key {key})"));
    let text = format!("removed {peer} here; on {peer} run `standin pair remove {}`", node.name());
    Ok(Paired { peer: peer.clone(), key, text })
}

/// The inviting end: judges a request that came in on a connection with an unknown key.
pub async fn answer(node: &Arc<Node>, conversation: PairConversation, from: &str) {
    let request = conversation.request().clone();
    let key = conversation.fingerprint().to_owned();
    let verdict = judge(node, &conversation).await;
    let answer = match verdict {
        Ok(answer) => answer,
        Err(error) => {
            node.hub.warn(None, format!("could not pair with {} at {from}: {error:#}", request.node));
            PairAnswer::Refused(super::incoming::refusal(&error))
        }
    };
    let paired = matches!(answer, PairAnswer::Paired { .. });
    if let Err(error) = conversation.answer(answer).await {
        node.hub.warn(None, format!("could not answer the pairing of {} at {from}: {error:#}", request.node));
    } else if paired {
        node.hub.note(None, format!("paired with {} at {from} (key {key})", request.node));
    }
}

async fn judge(node: &Arc<Node>, conversation: &PairConversation) -> Result<PairAnswer> {
    let request = conversation.request();
    let key = conversation.fingerprint();
    let now = Timestamp::now();
    let record = node.state.invite(&request.invite)?;
    let stored = record.as_ref().map(|record| StoredInvite {
        id: record.id.clone(),
        secret: record.secret.clone(),
        expires: record.expires,
        attempts: record.attempts,
        used_by: record.used_by.clone(),
    });
    let judged = pair::judge(stored.as_ref(), request, &node.name(), &node.identity.fingerprint(), key, now);
    match judged {
        Judged::Accept { proof } => {
            if node.config().peers.get(&request.node).is_some_and(|known| known.key.is_some()) {
                let what = format!("pair with {}: a node of that name is paired already", request.node);
                let hint = format!("run `standin pair remove {}` on {} first", request.node, node.name());
                bail!(Failure::new(Code::Refused, what).hint(hint));
            }
            if let Some(record) = record {
                node.state.record_invite(&InviteRecord { used_by: Some(request.node.to_string()), ..record }, now)?;
            }
            pin(node, &request.node, request.address.clone(), key).await?;
            Ok(PairAnswer::Paired { node: node.name(), proof })
        }
        Judged::Refuse { refusal, log, wrong_proof } => {
            if let (Some(record), true) = (record, wrong_proof) {
                node.state.record_invite(&InviteRecord { attempts: record.attempts + 1, ..record }, now)?;
            }
            node.hub.warn(None, format!("refused to pair with {}: {log}", request.node));
            Ok(PairAnswer::Refused(refusal))
        }
    }
}

/// Writes the key into the config file and takes the new config over.
async fn pin(node: &Arc<Node>, peer: &NodeName, address: Option<String>, key: &str) -> Result<()> {
    let (path, peer, key) = (node.config().path.clone(), peer.clone(), key.to_owned());
    blocking(move || edit::file(&path, |text| edit::set_peer(text, &peer, address.as_deref(), &key)))
        .await
        .context("pin the key in the config")?;
    reload(node).await
}

/// Reads the config file again. A broken file changes nothing.
pub async fn reload(node: &Arc<Node>) -> Result<()> {
    let path = node.config().path.clone();
    let config = blocking(move || Ok(Config::load(&path)?)).await?;
    let old = node.config();
    if config.node.state_dir != old.node.state_dir || config.node.name != old.node.name {
        bail!(
            Failure::new(Code::Usage, "take the new config over: `name` or `state-dir` of [node] changed")
                .hint("restart the daemon for that")
        );
    }
    if config.node.listen != old.node.listen || config.node.control != old.node.control {
        node.hub.warn(None, "`listen` or `control` of [node] changed: that needs a restart of the daemon");
    }
    node.apply(config)?;
    node.prepare_roles().await;
    node.hub.note(None, "read the config again");
    Ok(())
}
