//! What a peer says that it holds of a role.
//!
//! Asking is telling: the question carries this node's term and line, and the points that other peers may need as a base. A
//! peer that knows better refuses.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::{Result, bail};

use super::node::{Node, RoleRun, lock};
use super::outgoing::answer;
use crate::host::part::RoleRecord;
use crate::logic::lineage::{Entry, Lineage};
use crate::logic::manifest::Manifest;
use crate::logic::name::{DatasetName, NodeName};
use crate::logic::transfer::Partial;
use crate::peer::link::Link;
use crate::peer::message::{Answer, Request};

/// A conversation with a peer about a role.
pub struct Towards<'a> {
    pub node: &'a Arc<Node>,
    pub run: &'a Arc<RoleRun>,
    pub record: &'a RoleRecord,
    pub peer: &'a NodeName,
    pub link: &'a Link,
}

/// What a peer says of itself.
pub struct Held {
    pub lineage: Lineage,
    pub partials: Vec<Partial>,
    /// What it may still use for each dataset, in bytes.
    pub room: BTreeMap<DatasetName, u64>,
}

pub async fn ask(to: &Towards<'_>) -> Result<Held> {
    let Towards {
        node,
        run,
        record,
        peer,
        link,
    } = to;
    let request = Request::Lineage {
        role: run.name.clone(),
        role_id: record.id,
        term: record.term().clone(),
        datasets: run.fs.datasets().keys().cloned().collect(),
        line: record.line.clone(),
        bases: node.state.bases(&run.name)?.into_iter().collect(),
        kind: run.fs.kind(),
    };
    let mut exchange = link.open(&request).await?;
    let what = format!("ask {peer} what it holds of role {}", run.name);
    match answer(&what, exchange.recv()).await? {
        Answer::Lineage {
            lineage,
            partials,
            room,
            damaged,
            ..
        } => {
            let lineage = lineage.with_damaged(&damaged);
            let mut replicas = lock(&run.replicas);
            replicas.entry((*peer).clone()).or_default().damaged = damaged;
            Ok(Held {
                lineage,
                partials,
                room,
            })
        }
        other => bail!("{peer} answered a question for its lineage with {other:?}"),
    }
}

/// Whether the peer says that it holds this very point, whole.
pub async fn holds(
    node: &Arc<Node>,
    run: &Arc<RoleRun>,
    record: &RoleRecord,
    peer: &NodeName,
    manifest: &Manifest,
) -> Result<bool> {
    let link = node.link(peer)?;
    let to = Towards {
        node,
        run,
        record,
        peer,
        link: &link,
    };
    let held = ask(&to).await?;
    Ok(held.lineage.holds(&Entry::of(manifest)))
}
