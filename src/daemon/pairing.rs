//! Pairing, both ends: hands out invitations, judges who uses them, and writes the pinned keys into the config file.
//!
//! Promise: a key is pinned on this node only after the other end proved the secret of an unused, unexpired invitation;
//! the invitation is marked used on disk before the answer leaves. A crash between the two leaves one node paired: the
//! next `accept` is told that the invitation was used, and a new one finishes the job.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use jiff::Timestamp;

use super::api::{self, Invitation};
use super::node::{Node, blocking, lock};
use crate::config::edit::{self, InRoles};
use crate::config::{Config, store};
use crate::error::{Code, Failure};
use crate::logic::name::NodeName;
use crate::peer::dial::Target;
use crate::peer::identity::Fingerprint;
use crate::peer::invite::Invite;
use crate::peer::message::{PairAnswer, PairRequest};
use crate::peer::pair::{self, StoredInvite, Verdict};
use crate::peer::pairing::{PairConversation, Paired};

/// Makes an invitation, valid for `expires`.
pub async fn invite(
    node: &Arc<Node>,
    expires: Duration,
    address: Option<String>,
    replace: Option<NodeName>,
) -> Result<Invitation> {
    if let Some(peer) = &replace {
        gives_way(node, peer)?;
    }
    let address = match address {
        Some(address) => {
            let bad = |error| Failure::new(Code::Usage, format!("invite: {error}"));
            address.parse::<Target>().map_err(bad)?.to_string()
        }
        None => own_address(node)?,
    };
    let now = Timestamp::now();
    let until = now
        .checked_add(expires)
        .context("add the time the invitation is valid")?;
    let invite = Invite::new(node.name(), address, node.identity.fingerprint(), until)?;
    let stored = StoredInvite {
        made: Some(now),
        replaces: replace,
        ..invite.stored()
    };
    record(node, &stored, now)?;
    node.hub.note(
        None,
        format!("made invitation {}, valid until {until}", invite.id),
    );
    Ok(Invitation {
        line: invite.to_line(),
        expires: invite.expires,
    })
}

/// Whether the key of a peer may give way: not while the node that has it is there.
fn gives_way(node: &Node, peer: &NodeName) -> Result<()> {
    let Some(run) = node.peer(peer) else {
        return Err(no_such_peer(node, peer));
    };
    let linked = lock(&run.contact).link.is_some();
    if !linked {
        return Ok(());
    }
    let what = format!("invite a new {peer}: the {peer} that is paired is linked at this moment");
    bail!(Failure::new(Code::Refused, what).hint(format!(
        "a key is replaced when its machine is lost; if {peer} is to move, stop standin there first"
    )));
}

fn no_such_peer(node: &Node, peer: &NodeName) -> anyhow::Error {
    let config = node.config();
    let names: Vec<&str> = config.peers.keys().map(NodeName::as_str).collect();
    let failure = Failure::new(Code::NotFound, format!("find peer {peer}"));
    let hint = match names.is_empty() {
        true => "this node has no peers yet: standin pair invite makes it one".to_owned(),
        false => format!("peers: {}", names.join(", ")),
    };
    failure.hint(hint).into()
}

fn record(node: &Node, invite: &StoredInvite, now: Timestamp) -> Result<()> {
    node.state.record_invite(
        &invite.id,
        invite.expires,
        &serde_json::to_string(invite)?,
        now,
    )
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
pub async fn accept(node: &Arc<Node>, line: &str) -> Result<api::Paired> {
    let ours = node.name();
    let own =
        Invite::parse(line).is_ok_and(|invite| invite.fingerprint == node.identity.fingerprint());
    if own {
        let what = "accept the invitation: this very node made it";
        bail!(Failure::new(Code::Usage, what).hint("run `standin pair accept` on the other node"));
    }
    let address = own_address(node).ok();
    let accepting = node.workers.accept_invite(line, &ours, address);
    let Paired {
        node: peer,
        fingerprint,
        address,
    } = accepting.await?;
    let config = node.config();
    let known = config.peers.get(&peer).and_then(|peer| peer.key.clone());
    let again = known.is_some_and(|key| key == fingerprint.to_string());
    pin(node, &peer, address, fingerprint).await?;
    reload(node).await?;
    let path = node.config().path.display().to_string();
    node.hub
        .note(None, format!("paired with {peer} (key {fingerprint})"));
    let text = match again {
        true => format!(
            "{peer} was a peer already: its key {fingerprint} was pinned in {path} before, and still is"
        ),
        false => format!(
            "paired with {peer}: its key {fingerprint} is pinned in {path}, and ours is pinned there.\n\
             Name it in `peers` of a role on both nodes to replicate that role."
        ),
    };
    Ok(api::Paired {
        peer,
        key: fingerprint.to_string(),
        text,
    })
}

/// Removes a peer: its key, its link, and what was pinned for it.
pub async fn remove(node: &Arc<Node>, peer: &NodeName) -> Result<api::Paired> {
    let config = node.config();
    let Some(known) = config.peers.get(peer) else {
        return Err(no_such_peer(node, peer));
    };
    let key = known.key.clone().unwrap_or_default();
    let (path, name) = (config.path.clone(), peer.clone());
    blocking(move || {
        rewrite(&path, |text| {
            edit::remove_peer(text, &name, InRoles::Refuse)
        })
    })
    .await?;
    node.state.forget_peer(peer)?;
    reload(node).await?;
    node.hub
        .note(None, format!("removed peer {peer} (key {key})"));
    let text = format!(
        "removed {peer} here; on {peer} run `standin pair remove {}`",
        node.name()
    );
    Ok(api::Paired {
        peer: peer.clone(),
        key,
        text,
    })
}

/// The inviting end: judges a request that came in on a connection with an unknown key.
pub async fn answer(node: &Arc<Node>, conversation: PairConversation) {
    let request = conversation.request().clone();
    let key = conversation.fingerprint();
    let answer = match judge(node, &request, key, conversation.own_fingerprint()).await {
        Ok(answer) => answer,
        Err(error) => {
            node.hub.warn(
                None,
                format!("could not pair with {}: {error:#}", request.node),
            );
            PairAnswer::Refused(super::incoming::refusal(&error))
        }
    };
    let paired = matches!(answer, PairAnswer::Paired { .. });
    if let Err(error) = conversation.answer(&answer).await {
        node.hub.warn(
            None,
            format!(
                "could not answer the pairing of {}: {error:#}",
                request.node
            ),
        );
    } else if paired {
        node.hub
            .note(None, format!("paired with {} (key {key})", request.node));
    }
}

async fn judge(
    node: &Arc<Node>,
    request: &PairRequest,
    key: Fingerprint,
    own: Fingerprint,
) -> Result<PairAnswer> {
    let now = Timestamp::now();
    let stored: Option<StoredInvite> = match node.state.invite(&request.invite)? {
        Some(body) => Some(serde_json::from_str(&body).context("read the invitation")?),
        None => None,
    };
    let ours = node.name();
    match pair::judge(stored.as_ref(), request, &ours, own, key, now) {
        Verdict::Accept { proof } => {
            may_pair(node, request, key, stored.as_ref())?;
            if let Some(stored) = stored {
                record(
                    node,
                    &StoredInvite {
                        used_by: Some(key),
                        ..stored
                    },
                    now,
                )?;
            }
            pin(node, &request.node, request.address.clone(), key).await?;
            Ok(PairAnswer::Paired { node: ours, proof })
        }
        Verdict::Refuse {
            refusal,
            fault,
            count,
        } => {
            if let (Some(stored), true) = (stored, count) {
                let attempts = stored.attempts + 1;
                record(node, &StoredInvite { attempts, ..stored }, now)?;
            }
            node.hub.warn(
                None,
                format!("refused to pair with {} (key {key}): {fault}", request.node),
            );
            Ok(PairAnswer::Refused(refusal))
        }
    }
}

/// Whether who proved the secret may have the name that it says, with its key.
fn may_pair(
    node: &Node,
    request: &PairRequest,
    key: Fingerprint,
    stored: Option<&StoredInvite>,
) -> Result<()> {
    let ours = node.name();
    let peers = &node.config().peers;
    let known = peers.get(&request.node).and_then(|peer| peer.key.as_ref());
    let other = known.is_some_and(|known| *known != key.to_string());
    let replaces = stored.and_then(|stored| stored.replaces.as_ref());
    let replaced = other && replaces == Some(&request.node);
    if replaced {
        gives_way(node, &request.node)?;
    } else if other {
        let name = &request.node;
        let what =
            format!("pair with {name}: a node of that name is paired already, with another key");
        let hint = format!(
            "if {name} was lost and set up anew: `standin pair invite --replace {name}` on {ours}, and accept that line; else give this node another name"
        );
        bail!(Failure::new(Code::Refused, what).hint(hint));
    }
    // The same key may repeat its request when an answer was lost; once removed, it needs a new invitation.
    let used = stored.is_some_and(|stored| stored.used_by.is_some());
    if (known.is_none() || replaced) && used {
        let what = format!("pair with {}: the invitation was used before", request.node);
        bail!(Failure::new(Code::Refused, what).hint("make a new one with `standin pair invite`"));
    }
    Ok(())
}

/// Writes the key into the config file; a reload takes it over.
async fn pin(
    node: &Arc<Node>,
    peer: &NodeName,
    address: Option<String>,
    key: Fingerprint,
) -> Result<()> {
    let (path, peer, key) = (node.config().path.clone(), peer.clone(), key.to_string());
    blocking(move || {
        rewrite(&path, |text| {
            edit::set_peer(text, &peer, address.as_deref(), &key)
        })
    })
    .await
    .context("pin the key in the config")?;
    reload(node).await
}

/// Changes the config file. A result that would not load is not written.
fn rewrite(path: &Path, change: impl Fn(&str) -> Result<String>) -> Result<()> {
    let text = std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
    let new = change(&text)?;
    Config::parse(&new, path).map_err(Failure::from)?;
    store::replace(path, &new)
}

/// Reads the config file again. A broken file changes nothing.
pub async fn reload(node: &Arc<Node>) -> Result<()> {
    let path = node.config().path.clone();
    let config = blocking(move || Ok(Config::load(&path).map_err(Failure::from)?)).await?;
    let old = node.config();
    if config.node.state_dir != old.node.state_dir || config.node.name != old.node.name {
        bail!(
            Failure::new(
                Code::Usage,
                "take the new config over: `name` or `state-dir` of [node] changed"
            )
            .hint("restart the daemon for that")
        );
    }
    if config.node.listen != old.node.listen || config.node.control != old.node.control {
        node.hub.warn(
            None,
            "`listen` or `control` of [node] changed: that needs a restart of the daemon",
        );
    }
    let before = node.roles();
    node.apply(config)?;
    super::view::forget(node, before).await;
    node.prepare_roles().await;
    super::browse::forget(node).await;
    super::blank::settle(node).await;
    node.hub.note(None, "read the config again");
    Ok(())
}
