//! Views (`standby-view`): a dataset shown read-only at a path that is the same whichever role this node has.
//!
//! While this node stands in, the newest complete point is shown; while it is active, the live data are. So a service that
//! only reads, such as a web server of static files, is set up once and alike on all nodes, and never waits for a promotion.
//!
//! Promise: what is shown is switched at once, by `refresh`, which is called whenever something else may be the newest;
//! repeating it changes nothing. A view that cannot be shown is told once, and again when something else is wrong. A crash
//! leaves the view as it was; the next start finds it and goes on.
//!
//! It deliberately does not know who reads the view.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Result;

use super::node::{Node, RoleRun, blocking, lock};
use crate::fs::View;
use crate::logic::name::DatasetName;

/// Brings all views of the role up to date, and the trees in which its points are browsed.
pub async fn refresh(node: &Arc<Node>, run: &Arc<RoleRun>) {
    super::browse::refresh(node, run).await;
    let mut told = run.viewed.lock().await;
    for (dataset, at) in &run.role.views {
        match show(node, run, dataset, at).await {
            Ok(shown) => {
                told.remove(dataset);
                remember(run, dataset, shown);
            }
            Err(error) => {
                remember(run, dataset, None);
                let text = format!("could not show {dataset} at {}: {error:#}", at.display());
                if told.get(dataset) != Some(&text) {
                    node.hub.warn(Some(&run.name), text.clone());
                    told.insert(dataset.clone(), text);
                }
            }
        }
    }
}

/// Why the view of each dataset cannot be shown, for `check`.
pub async fn look(node: &Arc<Node>, run: &Arc<RoleRun>) -> Vec<(DatasetName, PathBuf, Result<()>)> {
    let _told = run.viewed.lock().await;
    let mut looked = Vec::new();
    for (dataset, at) in &run.role.views {
        let shown = show(node, run, dataset, at).await.map(|_| ());
        looked.push((dataset.clone(), at.clone(), shown));
    }
    looked
}

/// Takes away the views of `before` that the config does not name any more.
pub async fn forget(node: &Arc<Node>, before: Vec<Arc<RoleRun>>) {
    for old in before {
        let now = node.role(&old.name).ok();
        for (dataset, at) in &old.role.views {
            let stays = now
                .as_ref()
                .is_some_and(|now| now.role.views.get(dataset) == Some(at));
            if stays {
                continue;
            }
            let _told = old.viewed.lock().await;
            let (fs, name, path) = (old.fs.clone(), dataset.clone(), at.clone());
            if let Err(error) = blocking(move || fs.view(&name, View::Nothing, &path)).await {
                let text = format!(
                    "could not take away the view at {}: {error:#}",
                    at.display()
                );
                node.hub.warn(Some(&old.name), text);
            }
        }
    }
}

fn remember(run: &RoleRun, dataset: &DatasetName, shows: Option<String>) {
    let mut shown = lock(&run.shown);
    match shows {
        Some(shows) => shown.insert(dataset.clone(), shows),
        None => shown.remove(dataset),
    };
}

/// What can be seen there now: `live`, or a point.
async fn show(
    node: &Arc<Node>,
    run: &Arc<RoleRun>,
    dataset: &DatasetName,
    at: &Path,
) -> Result<Option<String>> {
    let active = node
        .record(run)?
        .is_some_and(|record| record.part.plays() || record.active());
    let (fs, name, at) = (run.fs.clone(), dataset.clone(), at.to_owned());
    blocking(move || {
        if active && fs.live_identity(&name)?.is_some() {
            fs.view(&name, View::Live, &at)?;
            return Ok(Some("live".to_owned()));
        }
        let points = fs.list()?;
        let holds =
            |stored: &&crate::logic::manifest::Stored| stored.manifest.datasets.contains_key(&name);
        match points.iter().rev().find(holds) {
            Some(newest) => {
                fs.view(&name, View::Point(&newest.manifest.point), &at)?;
                Ok(Some(newest.manifest.point.to_string()))
            }
            None => fs.view(&name, View::Nothing, &at).map(|()| None),
        }
    })
    .await
}
