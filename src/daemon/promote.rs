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
use super::supervisor::{Beside, Told};
use super::{rescan, words};
use crate::error::{Code, Failure};
use crate::host::part::RoleRecord;
use crate::logic::choose;
use crate::logic::manifest::Stored;
use crate::logic::name::{NodeName, RoleName};
use crate::logic::point::PointId;
use crate::logic::promotion::{Answered, Facts, Promotion, Refused, Statements, Verdict, judge};
use crate::logic::role::{Event, State};
use crate::peer::message::RoleWord;

/// A peer that has not answered by then is silent.
const SILENT_AFTER: Duration = Duration::from_secs(10);

/// Points that are fetched before a promotion, at most: each time the peers are asked anew.
const FETCHES_MAX: usize = 5;

/// What was looked up.
struct Gathered {
    record: RoleRecord,
    stored: Vec<Stored>,
    /// Those of the line, oldest first.
    points: Vec<PointId>,
    peers: BTreeMap<NodeName, Option<RoleWord>>,
}

/// Promotes this node, or with `dry_run` says what that would do.
pub async fn promote(node: &Arc<Node>, request: PromoteRequest) -> Result<MoveReport> {
    let begun = Instant::now();
    let run = node.role(&request.role)?;
    let mut report = MoveReport::new(&run.name, request.dry_run);
    let (gathered, promotion) = judged(node, &run, &request, &mut report.steps).await?;
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

async fn gather(node: &Arc<Node>, run: &Arc<RoleRun>) -> Result<Gathered> {
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

fn recorded(node: &Node, run: &RoleRun) -> Result<RoleRecord> {
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
        plays: word.plays,
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

fn names(list: &[NodeName]) -> String {
    let names: Vec<&str> = list.iter().map(NodeName::as_str).collect();
    names.join(", ")
}

fn taken(gathered: &Gathered, point: &PointId) -> String {
    let found = gathered
        .stored
        .iter()
        .find(|stored| stored.manifest.point == *point);
    found.map_or_else(
        || point.to_string(),
        |stored| {
            let zoned = stored.manifest.taken.to_zoned(jiff::tz::TimeZone::system());
            format!("{point} (taken {})", zoned.strftime("%Y-%m-%d %H:%M:%S"))
        },
    )
}

/// The refusal, and what to do next.
fn why_not(node: &Node, run: &RoleRun, gathered: &Gathered, refused: Refused) -> anyhow::Error {
    let role = &run.name;
    let fail = |code: Code, why: String, hint: String| -> anyhow::Error {
        Failure::new(code, format!("promote {role}: {why}"))
            .hint(hint)
            .into()
    };
    match refused {
        Refused::State(why) => fail(
            Code::Refused,
            why.to_owned(),
            match gathered.record.part.state {
                State::Waking { .. } => format!("standin resume {role}"),
                State::Conflict { .. } => format!("standin resolve {role} --keep NODE"),
                _ => format!("see: standin status {role}"),
            },
        ),
        Refused::Active(name) => fail(
            Code::Refused,
            format!("{name} plays the role, and answers"),
            format!(
                "move it without loss, on {name}: standin handover {role} --to {}",
                node.name()
            ),
        ),
        Refused::Released(name) => fail(
            Code::Refused,
            format!(
                "the role was released to {name}, which answers and may take it up at any moment"
            ),
            format!("wait for it, or promote on {name}"),
        ),
        Refused::HigherTerm { by, term } => fail(
            Code::Fenced,
            format!(
                "{by} knows term {term}, which is higher than {}",
                gathered.record.term()
            ),
            "a higher term is never overridden; try again when this node has caught up with it"
                .to_owned(),
        ),
        Refused::Silent(silent) => {
            let mut flags = String::new();
            for name in &silent {
                flags += &format!(" --assert-stopped {name}");
            }
            fail(
                Code::Refused,
                format!(
                    "no answer from {}: it may play the role at this moment",
                    names(&silent)
                ),
                format!(
                    "make sure that it serves nobody (power, network, services), then say so: add{flags}"
                ),
            )
        }
        Refused::NoPoint => fail(
            Code::NotFound,
            "this node holds no whole point of it".to_owned(),
            "there is nothing to promote here; try the other nodes".to_owned(),
        ),
        Refused::UnknownPoint(point) => fail(
            Code::NotFound,
            format!("{point} is not of the line"),
            format!("see: standin points {role}"),
        ),
        Refused::Loss {
            after,
            unheard,
            other_lines,
            left_behind,
        } => {
            let lost = losses(gathered, &after, &unheard, &other_lines, &left_behind);
            fail(
                Code::Refused,
                format!(
                    "this would go on from {}: {}",
                    taken(gathered, &after),
                    lost.join("; ")
                ),
                format!(
                    "nothing of it is destroyed, it becomes a fork; if that is right: add --accept-loss-after {after}"
                ),
            )
        }
        Refused::OtherLoss { accepted, promoted } => fail(
            Code::Refused,
            format!(
                "the loss after {accepted} was accepted, but this would go on from {}",
                taken(gathered, &promoted)
            ),
            format!("if that is right: --accept-loss-after {promoted}"),
        ),
    }
}

/// What would not be in the line, a sentence each.
fn losses(
    gathered: &Gathered,
    after: &PointId,
    unheard: &[NodeName],
    other_lines: &[NodeName],
    left_behind: &[PointId],
) -> Vec<String> {
    let mut sentences = Vec::new();
    for name in unheard {
        sentences.push(format!(
            "whatever {name} wrote after {after} is not in this copy, and becomes a fork on {name} when it returns"
        ));
    }
    for name in other_lines {
        sentences.push(format!(
            "{name} followed another claim of the epoch: what it holds of that becomes a fork there"
        ));
    }
    if let (Some(first), Some(last)) = (left_behind.first(), left_behind.last()) {
        let count = left_behind.len();
        let points = if count == 1 { "point" } else { "points" };
        sentences.push(format!(
            "{count} {points} held here ({first} to {}) come after it and become a fork",
            taken(gathered, last)
        ));
    }
    sentences
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

/// The operator says that nobody else played the role while this node was away.
pub async fn resume(node: &Arc<Node>, role: &RoleName, dry_run: bool) -> Result<MoveReport> {
    let begun = Instant::now();
    let run = node.role(role)?;
    let mut report = MoveReport::new(role, dry_run);
    let record = recorded(node, &run)?;
    if !matches!(
        record.part.state,
        State::Waking { .. } | State::Promoting { .. }
    ) {
        let what = format!("resume {role}: this node is {}", record.part.state);
        let hint = match record.part.state {
            State::Standby => format!("to make it active: standin promote {role}"),
            _ => format!("see: standin status {role}"),
        };
        return Err(Failure::new(Code::Refused, what).hint(hint).into());
    }
    let text = format!(
        "go on as the active node under term {}, without waiting for the other peers",
        record.term()
    );
    if dry_run {
        report.steps.push(planned("resume", text));
        return Ok(report);
    }
    report.steps.push(done("resume", text));
    follow(
        &run,
        &format!("resume {role}"),
        Event::Resume,
        Beside::default(),
    )
    .await?;
    let record = risen(node, &run, "resume").await?;
    report.settle(&record, begun.elapsed());
    Ok(report)
}

/// Ends a conflict: this node goes on under a higher term, or gives way.
pub async fn resolve(
    node: &Arc<Node>,
    role: &RoleName,
    keep: &NodeName,
    dry_run: bool,
) -> Result<MoveReport> {
    let begun = Instant::now();
    let run = node.role(role)?;
    let mut report = MoveReport::new(role, dry_run);
    let gathered = gather(node, &run).await?;
    let State::Conflict { other, .. } = &gathered.record.part.state else {
        let what = format!(
            "resolve {role}: this node is {}",
            gathered.record.part.state
        );
        let hint = "there is no conflict here; is it on another node?".to_owned();
        return Err(Failure::new(Code::Refused, what).hint(hint).into());
    };
    let (ours, theirs) = (node.name(), other.holder.clone());
    if *keep == ours {
        let plays = gathered
            .peers
            .iter()
            .find(|(_, word)| word.as_ref().is_some_and(|word| word.plays));
        if let Some((name, _)) = plays {
            let what = format!("keep {ours} in role {role}: {name} serves at this moment");
            let hint = format!("first on {name}: standin resolve {role} --keep {ours}");
            return Err(Failure::new(Code::Refused, what).hint(hint).into());
        }
        let highest = gathered
            .peers
            .values()
            .flatten()
            .map(|word| word.seen.epoch);
        let epoch = highest.max().unwrap_or(0).max(gathered.record.term().epoch) + 1;
        let text =
            format!("go on here under term {epoch}; what {theirs} wrote becomes a fork there");
        if dry_run {
            report.steps.push(planned("resolve", text));
            return Ok(report);
        }
        report.steps.push(done("resolve", text));
        let term = node.claim(epoch)?;
        let beside = Beside {
            line: None,
            base: gathered.points.last().cloned(),
        };
        follow(
            &run,
            &format!("resolve {role}"),
            Event::Stay { term },
            beside,
        )
        .await?;
        let record = risen(node, &run, "resolve").await?;
        report.settle(&record, begun.elapsed());
        return Ok(report);
    }
    if *keep != theirs {
        let what = format!("keep {keep} in role {role}: the claims are of {ours} and {theirs}");
        return Err(Failure::new(Code::Usage, what)
            .hint("name one of the two")
            .into());
    }
    let text = format!("stop here; what was written here is kept as a fork, {theirs} goes on");
    if dry_run {
        report.steps.push(planned("resolve", text));
        return Ok(report);
    }
    report.steps.push(done("resolve", text));
    let told = follow(
        &run,
        &format!("resolve {role}"),
        Event::Yield,
        Beside::default(),
    )
    .await?;
    report.settle(&told.record, begun.elapsed());
    let text = format!("then, on {theirs}: standin resolve {role} --keep {theirs}");
    report.steps.push(done("next", text));
    Ok(report)
}

/// Nothing starts by itself; or does again.
pub async fn pause(node: &Arc<Node>, role: &RoleName, off: bool) -> Result<MoveReport> {
    let run = node.role(role)?;
    let mut report = MoveReport::new(role, false);
    let event = if off { Event::Unpause } else { Event::Pause };
    let told = follow(&run, &format!("pause {role}"), event, Beside::default()).await?;
    let text = match off {
        true => "things start by themselves again",
        false => {
            "no cycle, drill or retry starts by itself until `standin pause --off`; what is asked for by hand is done, and a higher term still stops this node"
        }
    };
    report.steps.push(done("pause", text));
    report.settle(&told.record, Duration::ZERO);
    Ok(report)
}
