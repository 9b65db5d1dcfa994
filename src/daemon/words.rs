//! What nodes say to each other of a role: the highest term they know, whether they play it, the line; and the grant that ends
//! a hand-over.
//!
//! Promise: whoever may send us points of a role may tell us of a higher term, nobody else (P7); our answer is given when
//! what follows from theirs is on disk. A word that is lost is said again: on every link, and for as long as a state asks.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::cycle::our_lineage;
use super::incoming::permitted;
use super::node::{Node, RoleRun};
use super::outgoing;
use super::supervisor::Beside;
use super::{grant, heard};
use crate::config::Grant;
use crate::error::{Code, Failure};
use crate::host::part::RoleRecord;
use crate::logic::claim;
use crate::logic::line::Line;
use crate::logic::logs;
use crate::logic::name::{NodeName, RoleName};
use crate::logic::point::{PointId, RoleId, Term};
use crate::logic::role::{Event, State, Word};
use crate::peer::message::{Answer, Request, RoleFigures, RoleWord};

/// A grant may have to wait until the other disk has the term.
const GRANT_TIMEOUT: Duration = Duration::from_secs(60);

/// What this node says of the role.
async fn ours(node: &Node, run: &Arc<RoleRun>) -> Result<Option<(RoleId, RoleWord)>> {
    let Some(record) = node.record(run)? else {
        return Ok(None);
    };
    let newest = heard::newest(run).await?;
    let figures = heard::figures(node, run, &record, newest.as_ref());
    let newest = newest.map(|entry| entry.point);
    Ok(Some((record.id, word(record, newest, figures))))
}

fn word(record: RoleRecord, newest: Option<PointId>, figures: RoleFigures) -> RoleWord {
    RoleWord {
        figures,
        plays: record.part.plays(),
        held: record.part.held,
        spent: record.part.spent,
        newest,
        line: record.line,
        state: record.part.state.to_string(),
        seen: record.part.seen,
    }
}

/// Tells a peer what is known here, and hears what it knows, without anybody waiting for it.
pub fn exchange(node: &Arc<Node>, run: &Arc<RoleRun>, peer: &NodeName) {
    let (node, run, peer) = (node.clone(), run.clone(), peer.clone());
    tokio::spawn(async move {
        if let Err(error) = ask(&node, &run, &peer).await {
            tracing::debug!(role = run.name.as_str(), "could not ask {peer}: {error:#}");
        }
    });
}

/// The same; returns what the peer said, after it has been taken in. None: nobody has named the role to it yet.
pub async fn ask(
    node: &Arc<Node>,
    run: &Arc<RoleRun>,
    peer: &NodeName,
) -> Result<Option<RoleWord>> {
    let Some((role_id, word)) = ours(node, run).await? else {
        return Ok(None);
    };
    let request = Request::Word {
        role: run.name.clone(),
        role_id,
        word: Box::new(word),
    };
    let mut exchange = node.link(peer)?.open(&request).await?;
    match outgoing::answer(
        &format!("ask {peer} about role {}", run.name),
        exchange.recv(),
    )
    .await?
    {
        Answer::Word { word } => {
            let word = word.map(|word| *word);
            if let Some(word) = &word {
                heard::note(node, run, peer, word);
            }
            take_in(node, run, peer, word.as_ref()).await?;
            Ok(word)
        }
        other => bail!("{peer} answered a word with {other:?}"),
    }
}

/// Takes in what a peer said of the role, where that may change anything.
async fn take_in(
    node: &Arc<Node>,
    run: &Arc<RoleRun>,
    peer: &NodeName,
    word: Option<&RoleWord>,
) -> Result<()> {
    let Some(record) = node.record(run)? else {
        return Ok(());
    };
    let part = &record.part;
    if let Some(word) = word {
        believable(node, &run.name, peer, part.seen.epoch, &word.seen)?;
    }
    if grant::expect(node, peer, &run.name, Grant::Send).is_err() {
        return Ok(());
    }
    let waking = matches!(part.state, State::Waking { .. });
    let waits = matches!(part.state, State::HandedOff | State::Conflict { .. });
    let Some(word) = word else {
        // It knows no term at all: nothing higher.
        if waking {
            let lowest = Term {
                epoch: 0,
                ..part.seen.clone()
            };
            hear(run, peer, (lowest, false, false), Line::default()).await?;
        }
        return Ok(());
    };
    let sequence = node.state.sequence(&run.name)?;
    let ahead = word.newest.as_ref().is_some_and(|newest| {
        Some(&newest.term) == part.held.as_ref() && newest.sequence > sequence
    });
    if ahead {
        // What the role falls for is on disk before the fall is: what is kept then is named by it.
        heard::remember(node, run, peer, word).await?;
    }
    let lower = word.seen.epoch < part.seen.epoch;
    let news = ahead || waits || word.seen != part.seen || record.line.term() != Some(&part.seen);
    if waking || news && !lower {
        let said = (word.seen.clone(), word.plays, ahead);
        hear(run, peer, said, word.line.clone()).await?;
    }
    Ok(())
}

async fn hear(
    run: &RoleRun,
    peer: &NodeName,
    (term, plays, ahead): (Term, bool, bool),
    line: Line,
) -> Result<RoleRecord> {
    let event = Event::Heard {
        from: peer.clone(),
        word: Word { term, plays, ahead },
    };
    let beside = Beside {
        line: Some(line),
        base: None,
    };
    Ok(run.supervisor.tell(event, beside).await?.record)
}

/// A peer speaks for the role under a higher term than the one known here, by sending of it.
pub async fn heard_sending(
    run: &RoleRun,
    peer: &NodeName,
    term: &Term,
    line: Line,
) -> Result<RoleRecord> {
    hear(run, peer, (term.clone(), true, false), line).await
}

/// Answers `Word` and `Grant`.
pub async fn answer(node: &Arc<Node>, peer: &NodeName, request: Request) -> Result<Answer> {
    match request {
        Request::Word {
            role,
            role_id,
            word,
        } => {
            let run = named(node, peer, &role)?;
            let Some(record) = node.record(&run)? else {
                return Ok(Answer::Word { word: None });
            };
            same_role(node, &record, role_id, &role)?;
            heard::note(node, &run, peer, &word);
            take_in(node, &run, peer, Some(&word)).await?;
            let word = ours(node, &run).await?.map(|(_, word)| Box::new(word));
            Ok(Answer::Word { word })
        }
        Request::Grant {
            role,
            role_id,
            term,
            line,
        } => {
            let run = permitted(node, peer, &role, Grant::Send)?;
            let record = node.record(&run)?;
            let record = record.context("take a role over that nobody has named here yet")?;
            same_role(node, &record, role_id, &role)?;
            granted(node, &run, peer, term, line).await?;
            let word = ours(node, &run).await?.map(|(_, word)| Box::new(word));
            Ok(Answer::Word { word })
        }
        other => bail!("answer {other:?} as if it were a word about a role"),
    }
}

/// The role, where the peer is one of its nodes: whatever it is granted, it may know who plays it.
pub fn named(node: &Node, peer: &NodeName, role: &RoleName) -> Result<Arc<RoleRun>> {
    let ours = node.name();
    let run = node.role(role).ok();
    let run = run.filter(|run| run.role.peers.contains(peer));
    run.ok_or_else(|| {
        let what = format!("{ours} has no role {role} that names {peer} as a peer");
        let hint = format!("add \"{peer}\" to `peers` of [role.{role}] in the config of {ours}");
        Failure::new(Code::Refused, what).hint(hint).into()
    })
}

pub fn same_role(node: &Node, record: &RoleRecord, id: RoleId, name: &RoleName) -> Result<()> {
    if record.id == id {
        return Ok(());
    }
    let what = format!(
        "role {name} on {} is another role (id {}, not {id})",
        node.name(),
        record.id
    );
    Err(Failure::new(Code::Refused, what).into())
}

/// Refuses a term that no role can have come to; see `claim::EPOCHS_AHEAD_MAX`. `known`: the highest epoch here, 0 for none.
pub fn believable(
    node: &Node,
    role: &RoleName,
    peer: &NodeName,
    known: u64,
    term: &Term,
) -> Result<()> {
    let ours = node.name();
    let run = node.role(role).ok().filter(|run| run.role.logs.is_some());
    if let Some(why) = run.and_then(|run| logs::hindrance(&run.role.home, term)) {
        let what = format!("follow {peer} to term {term} of role {role}: {why}");
        let hint = format!("is [role.{role}] of kind = \"logs\" in the config of {peer} too?");
        return Err(Failure::new(Code::Refused, what).hint(hint).into());
    }
    if claim::can_be(known, term.epoch) {
        return Ok(());
    }
    let what = format!(
        "follow {peer} to term {term} of role {role}: {ours} knows term {known}, and no role moves that often"
    );
    let hint = format!("{peer} is damaged or lies: look at it before it may send to {ours} again");
    Err(Failure::new(Code::Refused, what).hint(hint).into())
}

/// The releasing node says that the role is ours.
async fn granted(
    node: &Arc<Node>,
    run: &Arc<RoleRun>,
    peer: &NodeName,
    term: Term,
    line: Line,
) -> Result<()> {
    super::logs::refuse(node, &run.name, super::logs::Asked::TakeOver)?;
    let record = node.record(run)?.context("find the record of the role")?;
    let seen = &record.part.seen;
    believable(node, &run.name, peer, seen.epoch, &term)?;
    if !claim::may_give(peer, &term, seen, &record.line) {
        let what = format!(
            "take role {} over from {peer}: it is not its to give, {} knows term {seen}",
            run.name,
            node.name()
        );
        return Err(Failure::new(Code::Refused, what).into());
    }
    let base = line.base_of(&term).cloned();
    let base = base.context("take a role over without knowing from which point it goes on")?;
    let (lineage, _) = our_lineage(run).await?;
    if lineage.get(&base).is_none() {
        let what = format!(
            "take role {} over: {} does not hold {base}",
            run.name,
            node.name()
        );
        return Err(Failure::new(Code::Refused, what).into());
    }
    let event = Event::Granted {
        by: peer.clone(),
        term,
    };
    let beside = Beside {
        line: Some(line),
        base: Some(base),
    };
    run.supervisor.tell(event, beside).await.map(|_| ())
}

/// Tells the holder of the seen term that the role is its own, without anybody waiting for it.
pub fn grant(node: &Arc<Node>, run: &Arc<RoleRun>, record: &RoleRecord) {
    let (node, run, record) = (node.clone(), run.clone(), record.clone());
    tokio::spawn(async move {
        let to = record.part.seen.holder.clone();
        match give(&node, &run, &record, &to).await {
            Ok(true) => {
                let event = Event::Accepted {
                    by: to,
                    term: record.part.seen,
                };
                run.supervisor.mention(event, Beside::default());
            }
            // It knows better: the role went on without it.
            Ok(false) => exchange(&node, &run, &to),
            Err(error) => {
                let text = format!("{to} does not take the role over yet: {error:#}");
                node.hub.warn(Some(&run.name), text);
            }
        }
    });
}

/// Whether the other holds the term now.
async fn give(
    node: &Arc<Node>,
    run: &Arc<RoleRun>,
    record: &RoleRecord,
    to: &NodeName,
) -> Result<bool> {
    let term = record.part.seen.clone();
    let request = Request::Grant {
        role: run.name.clone(),
        role_id: record.id,
        term: term.clone(),
        line: record.line.clone(),
    };
    let mut exchange = node.link(to)?.open(&request).await?;
    let answered = tokio::time::timeout(GRANT_TIMEOUT, exchange.recv()).await;
    let answered = answered.context("hear from the peer in time")??;
    match answered {
        Answer::Word { word } => {
            let word = word.context("find the role there")?;
            Ok(word.seen == term && word.held.as_ref() == Some(&term))
        }
        Answer::Refused(refusal) => {
            Err(refusal.into_error(&format!("grant role {} to {to}", run.name)))
        }
        other => bail!("{to} answered a grant with {other:?}"),
    }
}
