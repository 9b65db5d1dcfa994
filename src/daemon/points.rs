//! The catalogue as people ask for it: every point with where it is and what holds it.

use std::sync::Arc;

use anyhow::Result;

use super::api::{PointView, Points, RolePoints};
use super::node::{Node, RoleRun, blocking, lock};
use super::prune;
use crate::logic::lineage::Entry;
use crate::logic::manifest::{Reason, Stored};
use crate::logic::name::RoleName;

pub async fn points(node: &Arc<Node>, role: Option<&RoleName>) -> Result<Points> {
    let mut roles = Vec::new();
    for run in node.chosen(role)? {
        let fs = run.fs.clone();
        let stored = blocking(move || fs.list()).await?;
        let candidates = prune::candidates(node, &run, &stored)?;
        let views = stored
            .iter()
            .zip(&candidates)
            .map(|(stored, candidate)| {
                let pinned = candidate.pins.iter().map(ToString::to_string).collect();
                view(&run, stored, pinned)
            })
            .collect();
        roles.push(RolePoints {
            role: run.name.clone(),
            points: views,
        });
    }
    Ok(Points { roles })
}

fn view(run: &RoleRun, stored: &Stored, pinned: Vec<String>) -> PointView {
    let (manifest, local) = (&stored.manifest, &stored.local);
    let entry = Entry::of(manifest);
    let on_peers = lock(&run.replicas)
        .iter()
        .filter(|(_, replica)| {
            replica
                .lineage
                .as_ref()
                .is_some_and(|lineage| lineage.holds(&entry))
        })
        .map(|(peer, _)| peer.clone())
        .collect();
    let received: Vec<u64> = local
        .datasets
        .values()
        .filter_map(|dataset| dataset.data_bytes)
        .collect();
    PointView {
        name: manifest.name(),
        short: manifest.point.to_string(),
        taken: manifest.taken,
        node: manifest.node.clone(),
        reason: word(manifest.reason).to_owned(),
        from: local.from.clone(),
        datasets: run.fs.datasets().clone(),
        data_bytes: (!received.is_empty()).then(|| received.iter().sum()),
        on_peers,
        pinned,
        not_replicated: manifest
            .datasets
            .iter()
            .filter(|(_, facts)| !facts.not_replicated.is_empty())
            .map(|(name, facts)| (name.clone(), facts.not_replicated.clone()))
            .collect(),
    }
}

fn word(reason: Reason) -> &'static str {
    match reason {
        Reason::Schedule => "schedule",
        Reason::Asked => "asked",
        Reason::BeforeRestore => "before-restore",
    }
}
