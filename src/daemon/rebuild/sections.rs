//! The sections of the configuration that a rebuild adds: made of what the peer says, judged by this machine.
//!
//! Promise: what is there is not touched: sections come to the end of the file, whole, in one replacement. A crash leaves the
//! old file or the new one.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};

use super::super::api::RebuildRequest;
use super::super::node::{Node, RoleRun, blocking};
use super::super::pairing;
use crate::config::{Config, skeleton, store};
use crate::error::{Code, Failure};
use crate::fs::Limits;
use crate::logic::accept::Accept;
use crate::logic::name::{NodeName, RoleName};
use crate::logic::skeleton::{Described, Skeleton};
use crate::peer::message::plain;

/// What is to be added.
pub struct Sections {
    /// Empty: nothing.
    pub text: String,
    /// What stands in the way, a sentence each.
    pub problems: Vec<String>,
}

/// The sections of what was described that this node does not have.
pub async fn missing(
    node: &Arc<Node>,
    request: &RebuildRequest,
    described: &[Described],
) -> Result<Sections> {
    let config = node.config();
    let from = &request.from;
    let known = |name: &str| {
        let mut roles = config.roles.values();
        roles.any(|role| {
            let section = role.logs.as_ref().map_or(&role.name, |logs| &logs.of);
            section.as_str() == name
        })
    };
    let mut paths = request.paths.clone();
    // Said again by whoever goes on with a rebuild.
    paths.retain(|dataset, path| !is_there(&config, dataset, path));
    let (mut texts, mut strangers) = (Vec::new(), BTreeSet::new());
    let mut seen = BTreeSet::new();
    for one in described {
        let Some(skeleton) = one.skeleton.as_ref().filter(|one| !known(&one.name)) else {
            continue;
        };
        if !seen.insert(skeleton.name.clone()) {
            continue;
        }
        let mut skeleton = trusted(skeleton, from)?;
        for (dataset, place) in &mut skeleton.datasets {
            if let Some(path) = paths.remove(&format!("{}/{dataset}", skeleton.name)) {
                place.path = path.to_string_lossy().into_owned();
            }
        }
        let nodes = skeleton.peers.iter().chain(&skeleton.home);
        let nodes = nodes.filter(|peer| **peer != node.name() && !config.peers.contains_key(*peer));
        strangers.extend(nodes.cloned());
        texts.push(skeleton::text(&skeleton, from));
    }
    if let Some(unused) = paths.keys().next() {
        let what =
            format!("use --path {unused}=...: no section that is written has such a dataset");
        let hint = "write ROLE/DATASET=PATH; a role that is in the config already keeps its paths";
        return Err(Failure::new(Code::Usage, what).hint(hint).into());
    }
    let strangers = strangers.iter().map(stranger);
    let text: String = strangers.chain(texts).collect::<Vec<_>>().join("\n");
    let problems = problems(node, from, &text).await?;
    Ok(Sections { text, problems })
}

/// Whether the dataset, ROLE/DATASET, has this live path already.
fn is_there(config: &Config, dataset: &str, path: &Path) -> bool {
    config
        .live_paths()
        .any(|(role, name, live)| live == path && dataset == format!("{role}/{name}"))
}

/// What the peer says, held to bounds.
fn trusted(skeleton: &Skeleton, from: &NodeName) -> Result<Skeleton> {
    let name = RoleName::parse(&skeleton.name).map_err(|_| "is called what no role can be".into());
    match name.and_then(|_| skeleton.sound()) {
        Ok(()) => Ok(skeleton.clone()),
        Err(why) => {
            let what = format!(
                "take over what {from} says: its role {}",
                plain(&skeleton.name)
            );
            let failure = Failure::new(Code::Refused, format!("{what} {why}"));
            let hint = format!("{from} is damaged or lies: look at it first");
            Err(failure.hint(hint).into())
        }
    }
}

/// A peer of the role with which nobody has paired from here.
fn stranger(name: &NodeName) -> String {
    let key = toml_edit::Key::new(name.as_str());
    format!("# Not paired yet: standin pair invite --replace, on {name}.\n[peer.{key}]\n")
}

fn joined(old: &str, text: &str) -> String {
    let gap = if old.ends_with('\n') { "\n" } else { "\n\n" };
    format!("{old}{gap}{text}")
}

/// Whether it would load, and its filesystems are there.
async fn problems(node: &Arc<Node>, from: &NodeName, text: &str) -> Result<Vec<String>> {
    if text.is_empty() {
        return Ok(Vec::new());
    }
    let before = node.config();
    let path = before.path.clone();
    let old = std::fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
    let config = match Config::parse(&joined(&old, text), &path) {
        Ok(config) => config,
        Err(complaints) => {
            let complaints = complaints.list.iter();
            let told = complaints.map(|complaint| {
                let complaint = plain(&complaint.to_string());
                format!(
                    "what {from} says does not fit into {}: {complaint}",
                    path.display()
                )
            });
            return Ok(told.collect());
        }
    };
    let state_dir = before.node.state_dir.clone();
    let new = config.roles.into_values();
    let new: Vec<_> = new
        .filter(|role| !before.roles.contains_key(&role.name))
        .collect();
    blocking(move || {
        let mut problems = Vec::new();
        for role in new {
            let name = role.name.clone();
            let limits = Limits {
                accept: Accept::default(),
                ..Limits::default()
            };
            let run = RoleRun::new(role, limits, &state_dir)?;
            for (dataset, path) in run.fs.datasets() {
                if let Err(error) = run.fs.space(dataset) {
                    let path = path.display();
                    problems.push(format!(
                        "{dataset} of role {name} cannot be at {path}: {error:#}; mount its filesystem, or name another place: --path {name}/{dataset}=PATH"
                    ));
                }
            }
        }
        Ok(problems)
    })
    .await
}

/// Writes the sections and takes them over.
pub async fn write(node: &Arc<Node>, sections: &Sections) -> Result<()> {
    if sections.text.is_empty() {
        return Ok(());
    }
    let (path, text) = (node.config().path.clone(), sections.text.clone());
    blocking(move || {
        let old =
            std::fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
        let new = joined(&old, &text);
        Config::parse(&new, &path).map_err(Failure::from)?;
        store::replace(&path, &new)
    })
    .await
    .context("add sections to the config")?;
    pairing::reload(node).await
}
