//! Sends a point again to a peer whose copy of it was damaged, because the peer asked.
//!
//! What is sent, and on top of what, is the peer's choice; whether it may have it is ours: the role must name the peer, the
//! peer must hold the grant to receive, mean the same role, and speak for a term that is not lower than the one known (P3).
//! A crash leaves what any interrupted transfer leaves.
//!
//! It deliberately does not know why the peer needs it, nor whether this node is active.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::{Result, bail};

use super::cycle::our_lineage;
use super::incoming::permitted;
use super::node::{Node, RoleRun, lock};
use super::{describe, replicate};
use crate::config::Grant;
use crate::error::{Code, Failure};
use crate::logic::claim::{self, Claim, Known};
use crate::logic::name::{DatasetName, NodeName, RoleName};
use crate::logic::plan::Step;
use crate::logic::point::{PointId, RoleId, Term};
use crate::peer::message::{Answer, Request};

/// Answers `Holds`, `Fetch` and `Describe`.
pub async fn answer(node: &Arc<Node>, peer: &NodeName, request: Request) -> Result<Answer> {
    match request {
        Request::Holds {
            role,
            role_id,
            term,
        } => {
            let run = admit(node, peer, &role, role_id, &term)?;
            let (lineage, _) = our_lineage(&run).await?;
            Ok(Answer::Lineage {
                lineage,
                partials: Vec::new(),
                room: BTreeMap::new(),
                term: node.state.role(&role)?.map(|record| record.part.seen),
                damaged: Vec::new(),
            })
        }
        Request::Fetch {
            role,
            role_id,
            term,
            point,
            bases,
        } => {
            let run = admit(node, peer, &role, role_id, &term)?;
            send(node, &run, peer, &point, bases).await?;
            Ok(Answer::Committed)
        }
        Request::Describe { role } => describe::answer(node, peer, role.as_ref()).await,
        other => bail!("answer {other:?} as if a point were asked back"),
    }
}

/// Whether the peer may have points of the role, and the role is the one it means.
pub fn admit(
    node: &Node,
    peer: &NodeName,
    name: &RoleName,
    id: RoleId,
    term: &Term,
) -> Result<Arc<RoleRun>> {
    let run = permitted(node, peer, name, Grant::Receive)?;
    let ours = node.name();
    let Some(record) = node.state.role(name)? else {
        return Err(Failure::new(
            Code::NotFound,
            format!("{ours} holds nothing of role {name}"),
        )
        .into());
    };
    let known = Known {
        id: record.id,
        term: record.term(),
        active: false,
    };
    match claim::judge(Some(known), id, term) {
        Claim::New | Claim::Current | Claim::Higher => Ok(run),
        Claim::Lower | Claim::SameEpoch | Claim::BothActive => {
            let known = record.term();
            let what = format!(
                "{peer} speaks for term {term} of role {name}, but {ours} knows term {known}"
            );
            Err(Failure::new(Code::Fenced, what).into())
        }
        Claim::OtherRole => {
            let what = format!(
                "role {name} on {ours} is another role ({}, not {id})",
                record.id
            );
            Err(Failure::new(Code::Refused, what).into())
        }
    }
}

async fn send(
    node: &Arc<Node>,
    run: &Arc<RoleRun>,
    peer: &NodeName,
    point: &PointId,
    bases: BTreeMap<DatasetName, Option<PointId>>,
) -> Result<()> {
    // One conversation with the peer at a time: a cycle and this would cut each other's transfers short.
    let turn = lock(&run.replicas)
        .entry(peer.clone())
        .or_default()
        .turn
        .clone();
    let _turn = turn.lock().await;
    let (ours, found) = our_lineage(run).await?;
    let Some(entry) = ours.get(point) else {
        let what = format!("{} does not hold {point} whole", node.name());
        return Err(Failure::new(Code::NotFound, what).into());
    };
    if !entry.datasets.keys().eq(bases.keys()) {
        let what = format!("{peer} asks for other datasets than those of {point}");
        return Err(Failure::new(Code::Refused, what).into());
    }
    let base = bases.values().flatten().max_by_key(|base| base.rank());
    let step = Step {
        base: base.cloned(),
        to: point.clone(),
        resumes: false,
        bases,
    };
    let link = node.link(peer)?;
    let text = format!("{peer} asks for {point}");
    node.hub.note(Some(&run.name), text);
    let cancel = lock(&run.beside).child_token();
    replicate::send(
        node,
        run,
        peer,
        &link,
        (&ours, &found.points),
        &step,
        &cancel,
    )
    .await
}
