//! The catalogue as people ask for it: every point with where it is and what holds it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Result;

use super::api::{AsideView, DamagedView, DumpView, PointView, Points, RolePoints};
use super::node::{Node, RoleRun, blocking, lock};
use super::prune;
use crate::fs::{Inspection, KeptAside};
use crate::logic::damage::Damaged;
use crate::logic::lineage::Entry;
use crate::logic::manifest::{Reason, Stored};
use crate::logic::name::{DatasetName, RoleName};

pub async fn points(node: &Arc<Node>, role: Option<&RoleName>) -> Result<Points> {
    let mut roles = Vec::new();
    for run in node.chosen(role)? {
        let fs = run.fs.clone();
        let (found, known, aside, forks) = blocking(move || {
            let found = fs.inspect()?;
            let known = fs.known_as(&found.points)?;
            Ok((found, known, fs.kept_aside()?, fs.forks()?))
        })
        .await?;
        let Inspection {
            points: stored,
            damaged,
            ..
        } = found;
        let candidates = prune::candidates(node, &run, &stored)?;
        let views = stored
            .iter()
            .zip(known)
            .zip(&candidates)
            .map(|((stored, known), candidate)| {
                let pinned = candidate.pins.iter().map(ToString::to_string).collect();
                view(&run, stored, known, pinned)
            })
            .collect();
        let part = node.record(&run)?.map(|record| record.part);
        roles.push(RolePoints {
            role: run.name.clone(),
            state: part.as_ref().map(|part| part.state.to_string()),
            active: part.map(|part| part.seen.holder),
            points: views,
            damaged: damaged
                .iter()
                .map(|damaged| broken(node, damaged))
                .collect(),
            aside: aside.into_iter().map(kept).collect(),
            forks: forks.len(),
        });
    }
    Ok(Points { roles })
}

fn broken(node: &Node, damaged: &Damaged) -> DamagedView {
    DamagedView {
        name: damaged.name,
        short: damaged.short(),
        text: damaged.sentence(&node.name()),
    }
}

fn kept(kept: KeptAside) -> AsideView {
    AsideView {
        name: kept.damaged.name,
        short: kept.damaged.short(),
        why: kept.damaged.why,
        at: kept.at,
        path: kept.path.into(),
    }
}

fn view(
    run: &RoleRun,
    stored: &Stored,
    known: BTreeMap<DatasetName, PathBuf>,
    pinned: Vec<String>,
) -> PointView {
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
        dumps: manifest.dumps.iter().map(DumpView::of).collect(),
        name: manifest.name(),
        short: manifest.point.to_string(),
        taken: manifest.taken,
        node: manifest.node.clone(),
        reason: word(manifest.reason).to_owned(),
        from: local.from.clone(),
        datasets: known,
        data_bytes: (!received.is_empty()).then(|| received.iter().sum()),
        on_peers,
        pinned,
        dropped: stored
            .local
            .datasets
            .iter()
            .filter(|(_, local)| !local.dropped.is_nothing())
            .map(|(name, local)| (name.clone(), local.dropped.phrases()))
            .collect(),
        not_replicated: manifest
            .datasets
            .iter()
            .filter(|(_, facts)| !facts.not_replicated.is_empty())
            .map(|(name, facts)| (name.clone(), facts.not_replicated.clone()))
            .collect(),
        not_carried: local
            .datasets
            .iter()
            .filter(|(_, facts)| !facts.not_carried.is_empty())
            .map(|(name, facts)| (name.clone(), facts.not_carried.clone()))
            .collect(),
    }
}

fn word(reason: Reason) -> &'static str {
    match reason {
        Reason::Schedule => "schedule",
        Reason::Asked => "asked",
        Reason::BeforeRestore => "before-restore",
        Reason::BeforePromotion => "before-promotion",
        Reason::Fenced => "fenced",
    }
}
