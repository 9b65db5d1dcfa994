//! Trees in which people browse points: `standin mount`.
//!
//! The mounts are the kernel's and need nobody to serve them: they outlive this process, and the next one finds them again by
//! the table of mounts. What is new appears in them with the next `refresh`, which is called whenever points come or go.
//!
//! Promise: a tree never keeps a point from being pruned. A crash leaves a tree that is behind, brought up to date at the next
//! start; a reboot leaves the empty directory.
//!
//! It deliberately does not know who looks at them.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Result;

use super::api::{BrowseReport, BrowseRequest, MountView, Step};
use super::cycle::{done, planned};
use super::node::{Node, RoleRun, blocking};
use crate::error::{Code, Failure};
use crate::fs::browse::{self, Allowed, Browsed, Tree};
use crate::host::user;
use crate::logic::name::RoleName;

/// Answers `standin mount` and `standin unmount`.
pub async fn answer(node: &Arc<Node>, request: BrowseRequest) -> Result<BrowseReport> {
    let steps = match request {
        BrowseRequest::List => Vec::new(),
        BrowseRequest::Mount { dir, role, allow } => {
            mount(node, dir, role, allow.as_deref()).await?
        }
        BrowseRequest::Unmount { dir } => unmount(node, &dir).await?,
    };
    Ok(BrowseReport {
        mounts: views(node),
        steps,
    })
}

/// What is mounted; nothing where that cannot be told.
pub fn views(node: &Node) -> Vec<MountView> {
    let found = trees(node).unwrap_or_default().into_iter();
    let mut views: Vec<MountView> = found
        .map(|tree| MountView {
            dir: tree.at,
            role: tree.role,
        })
        .collect();
    views.sort_by(|a, b| a.dir.cmp(&b.dir));
    views
}

fn trees(node: &Node) -> Result<Vec<Tree>> {
    browse::trees(&node.config().node.state_dir)
}

async fn mount(
    node: &Arc<Node>,
    dir: PathBuf,
    role: Option<RoleName>,
    allow: Option<&str>,
) -> Result<Vec<Step>> {
    let runs = node.chosen(role.as_ref())?;
    let allowed = allow.map(allowed).transpose()?.unwrap_or_default();
    refuse_bad_place(node, &dir)?;
    let _browsing = node.browsing.lock().await;
    let owner = node.config().node.state_dir.clone();
    let (at, of) = (dir.clone(), role.clone());
    let planted = blocking(move || browse::plant(&at, &owner, of.as_ref(), allowed)).await?;
    let mut steps = vec![done("mount", sentence(&dir, role.as_ref()))];
    let mut shown = 0;
    for run in &runs {
        match bring(run, &planted).await {
            Ok(browsed) => {
                shown += browsed.shown;
                steps.extend(left_out(run, browsed).map(|text| planned("skip", text)));
            }
            Err(error) if runs.len() > 1 => {
                let text = format!("could not show the points of {}: {error:#}", run.name);
                node.hub.warn(Some(&run.name), text.clone());
                steps.push(planned("skip", text));
            }
            Err(error) => {
                blocking(move || browse::fell(&planted)).await?;
                return Err(error);
            }
        }
    }
    if shown == 0 {
        let text = "there are no points yet; they appear when they are taken".to_owned();
        steps.push(planned("nothing", text));
    }
    Ok(steps)
}

fn sentence(dir: &Path, role: Option<&RoleName>) -> String {
    let whose = role.map_or("all roles".to_owned(), |role| format!("role {role}"));
    format!(
        "show the points of {whose} below {}, read-only",
        dir.display()
    )
}

fn left_out(run: &RoleRun, browsed: Browsed) -> Option<String> {
    (browsed.left_out > 0).then(|| {
        format!(
            "the {} oldest points of {} are not shown: too many mounts; standin restore reaches them all the same",
            browsed.left_out, run.name
        )
    })
}

/// `USER`, `:GROUP` or `USER:GROUP`, by name or number.
fn allowed(words: &str) -> Result<Allowed> {
    let (user, group) = words.split_once(':').unwrap_or((words, ""));
    let known = |name: &str, kind: &str, number: fn(&str) -> Option<u32>| match name {
        "" => Ok(None),
        name => number(name).map(Some).ok_or_else(|| {
            let what = format!(
                "find {kind} {name:?} in /etc/{}",
                if kind == "user" { "passwd" } else { "group" }
            );
            Failure::new(Code::Usage, what)
                .hint("write its number, or a local one: --allow USER, --allow :GROUP")
        }),
    };
    let allowed = Allowed {
        user: known(user, "user", user::user_number)?,
        group: known(group, "group", user::group_number)?,
    };
    if allowed == Allowed::default() {
        let what = format!("understand --allow {words:?}");
        return Err(Failure::new(Code::Usage, what)
            .hint("write --allow USER, --allow :GROUP or --allow USER:GROUP")
            .into());
    }
    Ok(allowed)
}

/// Refuses a directory in live data, or over it.
fn refuse_bad_place(node: &Node, dir: &Path) -> Result<()> {
    let settled = dir.canonicalize().unwrap_or_else(|_| dir.to_owned());
    for run in node.roles() {
        for (dataset, live) in run.fs.datasets() {
            let why = if settled.starts_with(live) {
                "lies in"
            } else if live.starts_with(&settled) {
                "would hide"
            } else {
                continue;
            };
            let what = format!(
                "mount at {}: it {why} the dataset {dataset} of role {}",
                dir.display(),
                run.name
            );
            return Err(Failure::new(Code::Usage, what)
                .hint("name an empty directory outside of all datasets, such as /mnt/points")
                .into());
        }
    }
    Ok(())
}

async fn unmount(node: &Arc<Node>, dir: &Path) -> Result<Vec<Step>> {
    let _browsing = node.browsing.lock().await;
    let settled = dir.canonicalize().unwrap_or_else(|_| dir.to_owned());
    let trees = trees(node)?;
    if !trees.iter().any(|tree| tree.at == settled) {
        let mut known: Vec<String> = trees.iter().map(|t| t.at.display().to_string()).collect();
        known.sort();
        let hint = match known.as_slice() {
            [] => "this daemon has no points mounted; a fork is unmounted by standin fork unmount"
                .to_owned(),
            known => format!("points are mounted at {}", known.join(", ")),
        };
        let what = format!("unmount {}: no points are mounted there", dir.display());
        return Err(Failure::new(Code::Refused, what).hint(hint).into());
    }
    blocking(move || browse::fell(&settled)).await?;
    Ok(vec![done("unmount", format!("unmount {}", dir.display()))])
}

async fn bring(run: &Arc<RoleRun>, tree: &Path) -> Result<Browsed> {
    let (fs, at) = (run.fs.clone(), tree.to_owned());
    blocking(move || fs.browse(&at)).await
}

/// Brings what is shown of the role up to date, in all trees.
pub async fn refresh(node: &Arc<Node>, run: &Arc<RoleRun>) {
    // Where nothing is mounted, nobody waits for another role whose disk hangs.
    let any = |trees: &Vec<Tree>| trees.iter().any(|tree| tree.shows(&run.name));
    if trees(node).is_ok_and(|trees| !any(&trees)) {
        return;
    }
    let _browsing = node.browsing.lock().await;
    let trees = match trees(node) {
        Ok(trees) => trees,
        Err(error) => return tell(node, run, &error),
    };
    for tree in trees.iter().filter(|tree| tree.shows(&run.name)) {
        if let Err(error) = bring(run, &tree.at).await {
            tell(node, run, &error);
        }
    }
}

fn tell(node: &Node, run: &RoleRun, error: &anyhow::Error) {
    let text = format!("could not bring mounted points up to date: {error:#}");
    node.hub.warn(Some(&run.name), text);
}

/// Takes roles out of the trees that the config does not name any more.
pub async fn forget(node: &Arc<Node>) {
    let _browsing = node.browsing.lock().await;
    let roles: Vec<String> = node
        .roles()
        .iter()
        .map(|run| run.name.to_string())
        .collect();
    for tree in trees(node).unwrap_or_default() {
        let roles = roles.clone();
        let cut = blocking(move || {
            let tops = browse::tops(&tree.at)?.into_iter();
            let mut gone = tops.filter(|top| !roles.contains(top));
            gone.try_for_each(|top| browse::cut(&tree.at, &top))
        });
        if let Err(error) = cut.await {
            node.hub.warn(
                None,
                format!("could not bring mounted points up to date: {error:#}"),
            );
        }
    }
}
