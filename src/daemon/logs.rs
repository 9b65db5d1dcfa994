//! Roles of the kind `logs` in the daemon: which rules decide, what is refused, and the short name of this node's own.
//!
//! Promise: nothing moves such a role, whoever asks. It deliberately does not know what terms mean: `logic::logs` does.

use std::sync::Arc;

use anyhow::{Context, Result};

use super::api::{BrowseRequest, ForkRequest, Request};
use super::cycle;
use super::node::{Node, RoleRun, blocking};
use super::supervisor::Beside;
use crate::error::{Code, Failure};
use crate::host::part::RoleRecord;
use crate::logic::line::Line;
use crate::logic::logs;
use crate::logic::manifest::Reason;
use crate::logic::name::{NodeName, RoleName};
use crate::logic::plan::Conflict;
use crate::logic::point::Term;
use crate::logic::role::{self, Event, Record, Step, Word};

/// Whether this node plays the role whatever others say.
pub fn goes_on(run: &RoleRun) -> bool {
    run.role.logs.is_some()
}

/// What follows from an event, by the rules of the role's kind.
pub fn step(run: &RoleRun, part: &Record, event: &Event) -> Result<Step> {
    if run.role.logs.is_none() {
        return Ok(role::step(part, event));
    }
    let nonce = crate::host::random::number().context("draw a nonce for a term")?;
    Ok(logs::step(part, event, &run.role.home, nonce))
}

/// What is known of the line beside a step. A term that the writer of logs begins because of a word goes on from its own newest
/// point; else from the point that was named, or with nothing before it.
pub async fn beside(
    run: &RoleRun,
    before: &Record,
    after: &Record,
    said: Beside,
) -> Result<Beside> {
    if !begins(run, before, after) {
        return Ok(said);
    }
    if said.line.is_none() {
        let first = || Line::first(after.seen.clone());
        let line = said.base.is_none().then(first);
        return Ok(Beside { line, ..said });
    }
    let fs = run.fs.clone();
    let newest = blocking(move || Ok(fs.list()?.pop())).await?;
    Ok(Beside {
        line: None,
        base: newest.map(|newest| newest.manifest.point),
    })
}

/// Whether the writer of logs begins a term with this step.
fn begins(run: &RoleRun, before: &Record, after: &Record) -> bool {
    run.role.logs.is_some() && after.seen != before.seen && after.held.as_ref() == Some(&after.seen)
}

/// The record is on disk: a term that began goes to everybody with a point of it.
pub fn tell(node: &Arc<Node>, run: &Arc<RoleRun>, before: &Record, after: &Record, why: &str) {
    if !begins(run, before, after) {
        return;
    }
    let text = format!("goes on under term {}: {why}", after.seen);
    node.hub.note(Some(&run.name), text);
    let (node, run) = (node.clone(), run.clone());
    tokio::spawn(async move {
        // One that runs already goes on under the old term.
        for _ in 0..2 {
            if let Ok(mut cycle) = cycle::start(&node, &run, Reason::Schedule, true) {
                let _ = cycle::wait(&mut cycle).await;
            }
        }
    });
}

/// A peer holds points that this disk does not know. Where they are logs of this node, they were taken in an earlier life of
/// it, and it goes on above them; none in a role that moves, where somebody has to choose.
pub fn go_on_above(
    node: &Node,
    run: &RoleRun,
    record: &RoleRecord,
    peer: &NodeName,
    conflict: &Conflict,
) -> Option<anyhow::Error> {
    run.role.logs.as_ref()?;
    let word = Word {
        term: record.part.seen.clone(),
        plays: false,
        ahead: true,
    };
    let from = peer.clone();
    let base = match conflict {
        Conflict::Unrelated { .. } => None,
        Conflict::Diverged { common, .. } => Some(common.point.clone()),
    };
    run.supervisor
        .mention(Event::Heard { from, word }, Beside { line: None, base });
    let ours = node.name();
    let what =
        format!("bring {peer} up to date: it holds points of {ours} that {ours} itself does not");
    let hint = format!(
        "nothing is to be done: {ours} goes on under a new term, and they become a fork on {peer}"
    );
    Some(Failure::new(Code::Diverged, what).hint(hint).into())
}

/// Why a peer that writes logs is not followed yet: it has not heard that its term was taken before.
pub fn earlier_life(
    ours: &NodeName,
    peer: &NodeName,
    role: &RoleName,
    known: &Term,
) -> anyhow::Error {
    let what = format!(
        "{ours} knows {peer} in role {role} under another term {}, of an earlier life",
        known.epoch
    );
    let hint = format!("nothing is to be done: {peer} goes on under a higher one by itself");
    Failure::new(Code::Diverged, what).hint(hint).into()
}

/// What somebody may want of a role that moves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked {
    Promote,
    HandOver,
    Resume,
    Resolve,
    TakeOver,
    Drill,
}

/// Refuses what makes no sense of logs.
pub fn refuse(node: &Node, role: &RoleName, asked: Asked) -> Result<()> {
    let Ok(run) = node.role(role) else {
        return Ok(());
    };
    if run.role.logs.is_none() {
        return Ok(());
    }
    let (writer, ours) = (&run.role.home, node.name());
    let of = match *writer == ours {
        true => "this node".to_owned(),
        false => writer.to_string(),
    };
    let never = format!(
        "role {role} is of kind = \"logs\": {of} writes it, always, and nobody else ever does"
    );
    let what = match asked {
        Asked::Promote => format!("promote this node: {never}"),
        Asked::HandOver => format!("hand {role} over: {never}"),
        Asked::Resume => format!("resume {role}: {never}, so it waits for nobody"),
        Asked::Resolve => format!("resolve {role}: {never}, so there is no conflict"),
        Asked::TakeOver => format!("take role {role} over: {never}"),
        Asked::Drill => {
            format!("drill {role}: {never}, so there is no promotion to rehearse")
        }
    };
    let hint = match run.role.views.values().next() {
        None => format!(
            "nothing is to be done: {ours} goes on with it by itself, and so does every other node with its own"
        ),
        Some(path) => format!(
            "read them at {}, or make a copy of a point: standin restore {role} --to DIR",
            path.display()
        ),
    };
    Err(Failure::new(Code::Refused, what).hint(hint).into())
}

/// The request with roles named in full, where it makes sense of them.
pub fn checked(node: &Node, mut request: Request) -> Result<Request> {
    if let Some(role) = named(&mut request) {
        *role = meant(node, role);
    }
    let (asked, role) = match &request {
        Request::Promote(asked) => (Asked::Promote, &asked.role),
        Request::HandOver { role, .. } | Request::HandOverCancel { role } => {
            (Asked::HandOver, role)
        }
        Request::Resume { role, .. } => (Asked::Resume, role),
        Request::Resolve { role, .. } => (Asked::Resolve, role),
        Request::Drill(asked) => (Asked::Drill, &asked.role),
        _ => return Ok(request),
    };
    refuse(node, role, asked)?;
    Ok(request)
}

/// The role that a word means: that of this node, where it names logs that every node has.
pub(super) fn meant(node: &Node, word: &RoleName) -> RoleName {
    let roles = node.roles();
    if roles.iter().any(|run| run.name == *word) {
        return word.clone();
    }
    let ours = |run: &&Arc<RoleRun>| {
        let logs = run.role.logs.as_ref();
        logs.is_some_and(|logs| logs.of == *word) && run.role.home == node.name()
    };
    let own = roles.iter().find(ours);
    own.map_or_else(|| word.clone(), |run| run.name.clone())
}

fn named(request: &mut Request) -> Option<&mut RoleName> {
    match request {
        Request::Points { role }
        | Request::Run { role, .. }
        | Request::Cancel { role }
        | Request::Prune { role, .. }
        | Request::Rescan { role, .. }
        | Request::Fork(ForkRequest::List { role }) => role.as_mut(),
        Request::Seed(asked) => asked.role.as_mut(),
        Request::Browse(BrowseRequest::Mount { role, .. }) => role.as_mut(),
        Request::Load(asked) => Some(&mut asked.role),
        Request::Promote(asked) => Some(&mut asked.role),
        Request::Restore(asked) => Some(&mut asked.role),
        Request::Drill(asked) => Some(&mut asked.role),
        Request::HandOver { role, .. }
        | Request::HandOverCancel { role }
        | Request::Resume { role, .. }
        | Request::Resolve { role, .. }
        | Request::Pause { role, .. }
        | Request::Fork(
            ForkRequest::Show { role, .. }
            | ForkRequest::Diff { role, .. }
            | ForkRequest::Mount { role, .. }
            | ForkRequest::Export { role, .. }
            | ForkRequest::Discard { role, .. },
        ) => Some(role),
        Request::Browse(BrowseRequest::List | BrowseRequest::Unmount { .. })
        | Request::Diff(_)
        | Request::Fork(ForkRequest::Unmount { .. })
        | Request::Drift(_)
        | Request::Status
        | Request::Watch
        | Request::Check
        | Request::PairInvite { .. }
        | Request::PairAccept { .. }
        | Request::PairRemove { .. }
        | Request::Reload => None,
    }
}
