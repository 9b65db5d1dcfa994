//! Asks peers for versions of a path, and answers peers that ask.
//!
//! Promise (P7): a peer is told only of points of roles that both share and that it is granted to read, and sees nothing of the live
//! data. An answer is bounded. A crash leaves nothing.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, bail};

use super::super::api::PeerAsked;
use super::super::incoming::permitted;
use super::super::node::{Node, RoleRun};
use super::super::outgoing::answer as heard;
use super::look;
use crate::config::Grant;
use crate::error::{Code, Failure};
use crate::logic::locate::{self, Located};
use crate::logic::name::{DatasetName, NodeName, RoleName};
use crate::logic::point::RoleId;
use crate::logic::versions::told::{POINTS_MAX, Trail, believed, tell};
use crate::peer::message::{Answer, Request};

/// Longest wait for what peers tell: somebody waits in front of a terminal.
const ANSWER_MAX: Duration = Duration::from_secs(5);

/// Longest path that is asked for, in bytes: PATH_MAX of Linux.
const PATH_BYTES_MAX: usize = 4096;

/// What a peer told.
pub struct Heard {
    pub trails: Vec<Trail>,
    pub cut: bool,
}

/// Asks every peer of the role at once.
pub async fn ask(
    node: &Arc<Node>,
    run: &Arc<RoleRun>,
    at: &Located,
) -> Vec<(NodeName, Result<Heard, PeerAsked>)> {
    let mut asked = tokio::task::JoinSet::new();
    for peer in run.role.peers.iter().filter(|peer| **peer != node.name()) {
        let (node, run, at, peer) = (node.clone(), run.clone(), at.clone(), peer.clone());
        asked.spawn(async move {
            let answer = tokio::time::timeout(ANSWER_MAX, one(&node, &run, &at, &peer)).await;
            let answer = answer.unwrap_or_else(|_| {
                let waited = ANSWER_MAX.as_secs();
                let why = format!("gave no answer within {waited} s");
                Err(Failure::new(Code::Unreachable, why).into())
            });
            let answer = answer.map_err(|error| silent(&node, &peer, &error));
            (peer, answer)
        });
    }
    let mut answers = asked.join_all().await;
    answers.sort_by(|a, b| a.0.cmp(&b.0));
    answers
}

/// Why a peer told nothing.
fn silent(node: &Node, peer: &NodeName, error: &anyhow::Error) -> PeerAsked {
    let text = format!("{error:#}");
    let hint = Failure::of(error).and_then(|failure| failure.hint.clone());
    let told = |why: String, hint: Option<String>| PeerAsked {
        peer: peer.clone(),
        why: Some(why),
        hint,
    };
    // What a version says that does not know the question (peer::link).
    if text.contains("does not understand the request") {
        let version = node.link(peer).ok();
        let version = version.map(|link| crate::peer::message::plain(&link.hello().version));
        let version = version.map_or(String::new(), |version| format!(" ({version})"));
        return told(
            format!("not asked: its standin{version} does not know this question"),
            Some(format!("update standin on {peer}")),
        );
    }
    let away = Failure::code_of(error) == Code::Unreachable || text.starts_with("reach ");
    let outcome = if away { "not asked" } else { "told nothing" };
    told(format!("{outcome}: {}", bare(&text)), hint)
}

/// Without what the sentence around it says already.
fn bare(text: &str) -> &str {
    let text = text.rsplit("the peer refused: ").next().unwrap_or(text);
    text.strip_prefix("reach ")
        .and_then(|rest| rest.split_once(": "))
        .map_or(text, |(_, why)| why)
}

async fn one(node: &Arc<Node>, run: &Arc<RoleRun>, at: &Located, peer: &NodeName) -> Result<Heard> {
    let link = node.link(peer)?;
    let Some(record) = node.record(run)? else {
        let why = "the role has not begun here yet";
        return Err(Failure::new(Code::Refused, why).into());
    };
    let Some(path) = at.inner.to_str() else {
        let why = "the path is no text, and cannot be asked for";
        return Err(Failure::new(Code::Usage, why).into());
    };
    let request = Request::Find {
        role: run.name.clone(),
        role_id: record.id,
        dataset: at.dataset.clone(),
        path: path.to_owned(),
    };
    let mut exchange = link.open(&request).await?;
    match heard(
        &format!("ask {peer} for versions of {path}"),
        exchange.recv(),
    )
    .await?
    {
        Answer::Versions { trails, cut } => Ok(Heard {
            cut,
            trails: believed(&at.inner, trails),
        }),
        other => bail!(
            "{peer} answered a question for versions with {:.40}",
            format!("{other:?}")
        ),
    }
}

/// The role and the dataset, where the peer may read them.
pub fn serves(
    node: &Node,
    peer: &NodeName,
    (role, id): (&RoleName, RoleId),
    dataset: &DatasetName,
    path: &str,
) -> Result<(Arc<RoleRun>, Located)> {
    let run = permitted(node, peer, role, Grant::Read)?;
    let ours = node.name();
    if node.record(&run)?.is_none_or(|record| record.id != id) {
        let what = format!("role {role} on {ours} is another role");
        return Err(Failure::new(Code::Refused, what).into());
    }
    let Some(live) = run.fs.datasets().get(dataset) else {
        let what = format!("role {role} on {ours} has no dataset {dataset}");
        return Err(Failure::new(Code::NotFound, what).into());
    };
    let inner = Path::new(path);
    if path.len() > PATH_BYTES_MAX || !locate::is_plain(inner) {
        let shown: String = path.chars().take(100).collect();
        let what = format!("{shown:?} is no path in a dataset");
        return Err(Failure::new(Code::Usage, what).into());
    }
    let at = Located {
        role: role.clone(),
        dataset: dataset.clone(),
        inner: inner.to_owned(),
        live: live.join(inner),
    };
    Ok((run, at))
}

/// Answers `Find`.
pub async fn answer(node: &Arc<Node>, peer: &NodeName, request: Request) -> Result<Answer> {
    let Request::Find {
        role,
        role_id,
        dataset,
        path,
    } = request
    else {
        bail!("answer {request:?} as if it asked for versions");
    };
    let (run, at) = serves(node, peer, (&role, role_id), &dataset, &path)?;
    let looked = look::look(node, &run, &at, false).await?;
    let mut room = POINTS_MAX;
    let (mut trails, mut cut) = (Vec::new(), looked.cut);
    for path in looked.paths() {
        let told = path
            .to_str()
            .map(|text| tell(text, &looked.history(&path), &mut room));
        match told.flatten() {
            Some(trail) => trails.push(trail),
            None => cut = true,
        }
    }
    Ok(Answer::Versions { trails, cut })
}
