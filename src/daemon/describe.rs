//! What this node tells a peer of the roles they share, and what a peer tells.
//!
//! Promise: a peer is told of a role only where this node's configuration names it as a peer of that role; how the role is set
//! up here only where it is granted the role's points (P7). Nothing is changed by a question, on either side.
//!
//! It deliberately does not know what becomes of an answer: `blank` and `rebuild` do.

use std::sync::Arc;

use anyhow::{Result, bail};

use super::cycle::our_lineage;
use super::grant;
use super::node::{Node, RoleRun};
use super::outgoing;
use crate::config::{Grant, skeleton};
use crate::error::{Code, Failure};
use crate::logic::name::{NodeName, RoleName};
use crate::logic::skeleton::{Described, Known, ROLES_MAX};
use crate::peer::message::{Answer, Request};

/// Answers `Describe`.
pub async fn answer(node: &Arc<Node>, peer: &NodeName, only: Option<&RoleName>) -> Result<Answer> {
    let mut roles = Vec::new();
    let shared = |run: &&Arc<RoleRun>| {
        run.role.peers.contains(peer) && only.is_none_or(|only| *only == run.name)
    };
    for run in node.roles().iter().filter(shared).take(ROLES_MAX) {
        roles.push(one(node, run, peer).await?);
    }
    Ok(Answer::Described { roles })
}

async fn one(node: &Arc<Node>, run: &Arc<RoleRun>, peer: &NodeName) -> Result<Described> {
    let ours = node.name();
    let granted = grant::expect(node, peer, &run.name, Grant::Receive).is_ok();
    // A section of kind "logs" stands for many roles, and is told once.
    let told = run.role.logs.is_none() || run.role.home == ours;
    let known = match node.record(run)? {
        None => None,
        Some(record) => {
            let (lineage, _) = our_lineage(run).await?;
            Some(Known {
                id: record.id,
                term: record.term().clone(),
                plays: record.part.plays(),
                newest: lineage.newest().map(|entry| entry.point.clone()),
                points: lineage.entries().len() as u64,
                line: record.line,
            })
        }
    };
    Ok(Described {
        role: run.name.clone(),
        skeleton: (granted && told).then(|| skeleton::of(&run.role, &ours, peer)),
        known,
    })
}

/// Asks a peer what it knows of one role, or of all that it shares with this node.
pub async fn ask(
    node: &Arc<Node>,
    peer: &NodeName,
    role: Option<&RoleName>,
) -> Result<Vec<Described>> {
    let link = node.link(peer)?;
    let version = crate::peer::message::plain(&link.hello().version);
    let request = Request::Describe {
        role: role.cloned(),
    };
    let mut exchange = link.open(&request).await?;
    let what = match role {
        Some(role) => format!("ask {peer} what it knows of role {role}"),
        None => format!("ask {peer} which roles it shares with this node"),
    };
    match outgoing::answer(&what, exchange.recv()).await {
        Ok(Answer::Described { mut roles }) => {
            roles.truncate(ROLES_MAX);
            Ok(roles)
        }
        Ok(other) => bail!("{peer} answered a question for its roles with {other:?}"),
        Err(error) if not_understood(&error) => {
            let what = format!("{what}: standin {version} there does not know the question");
            let hint = format!(
                "install standin {} on {peer} too",
                env!("CARGO_PKG_VERSION")
            );
            Err(Failure::new(Code::Refused, what).hint(hint).into())
        }
        Err(error) => Err(error),
    }
}

/// Whether the peer is of a version that does not know the request.
pub fn not_understood(error: &anyhow::Error) -> bool {
    Failure::code_of(error) == Code::Failed
        && error.chain().any(|cause| {
            cause
                .to_string()
                .contains("does not understand the request")
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peer::message::Refusal;

    #[test]
    fn what_an_older_node_says() {
        // As `peer::link` says it.
        let old = Refusal::new(
            Code::Failed,
            "this node does not understand the request: unknown variant `describe`",
        );
        assert!(not_understood(&old.into_error("ask birch")));
        let other = Refusal::new(Code::Refused, "no");
        assert!(!not_understood(&other.into_error("ask birch")));
    }
}
