//! Promotion by hand, and what an operator says when nodes do not agree: promote, resume, resolve, pause.
//!
//! Gather what every peer knows, judge (`logic::promotion`), show, perform. Promise: with `dry_run` nothing is changed on any
//! node but that terms seen on the way are remembered; what would be lost is named before it is, and must be accepted by name.
//!
//! It deliberately does not know how a role comes up: that is the supervisor's (`moves`).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::api::{MoveReport, PromoteRequest, Step};
use super::cycle::{done, our_lineage, planned};
use super::node::{Node, RoleRun};
use super::refusal::{losses, taken, why_not};
use super::supervisor::{Beside, Told};
use super::{rescan, words};
use crate::error::{Code, Failure};
use crate::host::part::RoleRecord;
use crate::logic::choose;
use crate::logic::manifest::Stored;
use crate::logic::name::NodeName;
use crate::logic::point::PointId;
use crate::logic::promotion::{Answered, Facts, Promotion, Statements, Verdict, judge};
use crate::logic::role::{Event, State};
use crate::peer::message::RoleWord;

/// A peer that has not answered by then is silent.
const SILENT_AFTER: Duration = Duration::from_secs(10);

/// Points that are fetched before a promotion, at most: each time the peers are asked anew.
const FETCHES_MAX: usize = 5;

/// What was looked up.
pub struct Gathered {
    pub record: RoleRecord,
    pub stored: Vec<Stored>,
    /// Those of the line, oldest first.
    pub points: Vec<PointId>,
    pub peers: BTreeMap<NodeName, Option<RoleWord>>,
}

/// Promotes this node, or with `dry_run` says what that would do.
pub async fn promote(node: &Arc<Node>, request: PromoteRequest) -> Result<MoveReport> {
    let begun = Instant::now();
    let run = node.role(&request.role)?;
    let mut report = MoveReport::new(&run.name, request.dry_run);
    let (gathered, promotion) = judged(node, &run, &request, &mut report.steps).await?;
    super::preview::expect_openable(&run, promotion.point.clone())
        .await
        .with_context(|| format!("promote {}", run.name))?;
    report
        .steps
        .extend(preview(node, &run, &gathered, &promotion));
    if request.dry_run {
        return Ok(report);
    }
    let event = Event::Promote {
        term: node.claim(promotion.epoch)?,
    };
    let beside = Beside {
        line: None,
        base: Some(promotion.point.clone()),
    };
    node.hub.note(Some(&run.name), spoken(&request, &promotion));
    follow(&run, &format!("promote {}", run.name), event, beside).await?;
    let record = risen(node, &run, "promote").await?;
    for step in &mut report.steps {
        step.ok = Some(true);
    }
    report.settle(&record, begun.elapsed());
    Ok(report)
}

/// What an operator said goes into the history, in their words.
fn spoken(request: &PromoteRequest, promotion: &Promotion) -> String {
    let mut text = format!("promotion from {} asked for", promotion.point);
    if !request.stopped.is_empty() {
        let names: Vec<&str> = request.stopped.iter().map(NodeName::as_str).collect();
        text += &format!("; stated as stopped: {}", names.join(", "));
    }
    if let Some(point) = &request.accept_loss_after {
        text += &format!("; loss accepted after {point}");
    }
    text
}

/// Asks, and judges; fetches a newer point that a peer holds, and asks again.
async fn judged(
    node: &Arc<Node>,
    run: &Arc<RoleRun>,
    request: &PromoteRequest,
    steps: &mut Vec<Step>,
) -> Result<(Gathered, Promotion)> {
    for _ in 0..FETCHES_MAX {
        let gathered = gather(node, run).await?;
        let statements = statements(run, request, &gathered)?;
        match judge(&facts(&gathered), &statements) {
            Verdict::Promote(promotion) => return Ok((gathered, promotion)),
            Verdict::Refused(refused) => return Err(why_not(node, run, &gathered, refused)),
            Verdict::Fetch { from, point } if request.dry_run => {
                let text = format!("fetch {point}, which is newer, from {from} first");
                steps.push(planned("fetch", text));
                let without = without(gathered, &from);
                let promotion = match judge(&facts(&without), &statements) {
                    Verdict::Promote(promotion) => Promotion { point, ..promotion },
                    Verdict::Refused(refused) => return Err(why_not(node, run, &without, refused)),
                    Verdict::Fetch { .. } => continue,
                };
                return Ok((without, promotion));
            }
            Verdict::Fetch { from, point } => {
                let text = format!("fetch {point}, which is newer, from {from}");
                rescan::fetch_newer(node, run, &from, &point)
                    .await
                    .with_context(|| text.clone())?;
                steps.push(done("fetch", text));
            }
        }
    }
    let what = format!("promote {}: peers take new points all the time", run.name);
    Err(Failure::new(Code::Refused, what)
        .hint("is one of them active? see `standin status` there")
        .into())
}

/// As if that peer held nothing newer.
fn without(mut gathered: Gathered, peer: &NodeName) -> Gathered {
    if let Some(Some(word)) = gathered.peers.get_mut(peer) {
        word.newest = None;
    }
    gathered
}

pub async fn gather(node: &Arc<Node>, run: &Arc<RoleRun>) -> Result<Gathered> {
    let mut asked = tokio::task::JoinSet::new();
    for peer in run.role.peers.clone() {
        let (node, run) = (node.clone(), run.clone());
        asked.spawn(async move {
            let answer = tokio::time::timeout(SILENT_AFTER, words::ask(&node, &run, &peer)).await;
            (peer, answer)
        });
    }
    let mut peers = BTreeMap::new();
    while let Some(answered) = asked.join_next().await {
        let (peer, answer) = answered.context("wait for a peer")?;
        let word = match answer {
            Ok(Ok(Some(word))) => Some(word),
            // It knows nothing of the role: nobody plays it there.
            Ok(Ok(None)) => continue,
            Ok(Err(_)) | Err(_) => None,
        };
        peers.insert(peer, word);
    }
    // After the answers: they may have taught a higher term.
    let record = recorded(node, run)?;
    let (_, found) = our_lineage(run).await?;
    let ids = found.points.iter().map(|stored| &stored.manifest.point);
    let points = ids.filter(|point| record.line.contains(point));
    Ok(Gathered {
        points: points.cloned().collect(),
        record,
        stored: found.points,
        peers,
    })
}

pub fn recorded(node: &Node, run: &RoleRun) -> Result<RoleRecord> {
    node.record(run)?.ok_or_else(|| {
        let what = format!(
            "find anything of role {}: nobody has sent it here yet",
            run.name
        );
        let hint = format!("its home is {}", run.role.home);
        Failure::new(Code::NotFound, what).hint(hint).into()
    })
}

fn facts(gathered: &Gathered) -> Facts<'_> {
    let answered = |word: &RoleWord| Answered {
        seen: word.seen.clone(),
        // A node that wakes up is about to go on; one that is being stopped has not put in safety what it wrote.
        plays: word.plays || word.held.is_some(),
        spent: word.spent.clone(),
        newest: word.newest.clone(),
    };
    Facts {
        record: &gathered.record.part,
        points: &gathered.points,
        peers: gathered
            .peers
            .iter()
            .map(|(name, word)| (name.clone(), word.as_ref().map(answered)))
            .collect(),
    }
}

fn statements(run: &RoleRun, request: &PromoteRequest, gathered: &Gathered) -> Result<Statements> {
    let named = |words: &Option<String>| -> Result<Option<PointId>> {
        let Some(words) = words else { return Ok(None) };
        let found = choose::find(&gathered.stored, words).map_err(|why| {
            let what = format!("find point {words} of role {}: {why}", run.name);
            Failure::new(Code::NotFound, what)
        })?;
        Ok(Some(found.manifest.point.clone()))
    };
    for name in &request.stopped {
        if !run.role.peers.contains(name) {
            let what = format!(
                "take {name} for stopped: it is no peer of role {}",
                run.name
            );
            let peers: Vec<&str> = run.role.peers.iter().map(NodeName::as_str).collect();
            let hint = format!("its peers: {}", peers.join(", "));
            return Err(Failure::new(Code::Usage, what).hint(hint).into());
        }
    }
    Ok(Statements {
        point: named(&request.point)?,
        stopped: request.stopped.iter().cloned().collect(),
        loss_after: named(&request.accept_loss_after)?,
    })
}

fn preview(node: &Node, run: &RoleRun, gathered: &Gathered, promotion: &Promotion) -> Vec<Step> {
    let mut steps = Vec::new();
    let Promotion {
        epoch,
        point,
        left_behind,
        unheard,
        other_lines,
    } = promotion;
    steps.push(planned(
        "term",
        format!(
            "claim term {epoch} for {}, and tell every peer",
            node.name()
        ),
    ));
    for (name, live) in run.fs.datasets() {
        let text = format!(
            "make {name} of {} live at {}; what is there becomes a fork unless a point holds it",
            taken(gathered, point),
            live.display()
        );
        steps.push(planned("live", text));
    }
    for text in losses(gathered, point, unheard, other_lines, left_behind) {
        steps.push(planned("lost", text));
    }
    steps.extend(super::preview::starts(run));
    steps
}

/// Has the supervisor follow an event; its refusal is a failure.
pub async fn follow(run: &RoleRun, what: &str, event: Event, beside: Beside) -> Result<Told> {
    let told = run.supervisor.tell(event, beside).await?;
    if told.refused {
        let what = format!("{what}: {}", told.why);
        let hint = format!("see: standin status {}", run.name);
        return Err(Failure::new(Code::Refused, what).hint(hint).into());
    }
    Ok(told)
}

/// Waits until the role is up here, or is not going to be.
pub async fn risen(node: &Arc<Node>, run: &Arc<RoleRun>, verb: &str) -> Result<RoleRecord> {
    let mut changes = run.supervisor.changes();
    loop {
        changes.mark_unchanged();
        let record = recorded(node, run)?;
        let trouble = run.supervisor.trouble();
        let name = &run.name;
        match (&record.part.state, trouble) {
            (State::Active, _) => return Ok(record),
            (State::Promoting { step }, Some(trouble)) => {
                let what = format!(
                    "{verb} {name} to the end: the term is held and the data is here, but {step} did not come up: {trouble}"
                );
                let hint = format!("it is tried again by itself; see `standin status {name}`");
                return Err(Failure::new(Code::Partial, what).hint(hint).into());
            }
            (State::Promoting { .. }, None) => {}
            (state, trouble) => {
                let why = trouble.unwrap_or_else(|| format!("it is {state} now"));
                let what = format!("{verb} {name}: {why}");
                let hint = format!("nothing was lost; see `standin status {name}`");
                return Err(Failure::new(Code::Failed, what).hint(hint).into());
            }
        }
        changes.changed().await.context("wait for the role")?;
    }
}
