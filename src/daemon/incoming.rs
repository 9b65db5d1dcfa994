//! Answers what a peer asks: what we hold, take this dataset, make this point visible.
//!
//! Everything a peer says is checked against the config and the state database before the filesystem hears of it: the role
//! must name the peer, the peer must hold the grant, the role's id must be ours, the term must not be lower than the one we
//! know (P3). A crash anywhere leaves finished points and the last checkpoint; an answer is given only for what is durable.

use std::collections::BTreeSet;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use jiff::Timestamp;

use super::node::{Node, PeerRun, RoleRun, blocking, lock};
use super::{
    cycle, drift, fetch, find, grant, handover, logs, moves, prune, receiving, returning, verify,
    words,
};
use crate::config::Grant;
use crate::error::{Code, Failure};
use crate::fs::FsError;
use crate::fs::btrfs::freeze::freeze;
use crate::host::part::RoleRecord;
use crate::logic::claim::{self, Claim, Known};
use crate::logic::line::Line;
use crate::logic::manifest::Manifest;
use crate::logic::name::{DatasetName, NodeName, RoleName};
use crate::logic::point::{RoleId, Term};
use crate::logic::role::State;
use crate::logic::transfer::Kind;
use crate::peer::exchange::Exchange;
use crate::peer::message::{Answer, Refusal, Request, plain};

/// Answers one request; what it cannot do is told to the peer and, where it matters, to our log. After what passes the peer asks
/// again.
pub async fn serve(node: Arc<Node>, peer: Arc<PeerRun>, request: Request, mut exchange: Exchange) {
    let what = asked_for(&request);
    let early = is_early(&node, &peer.peer.name, &request);
    let result = match request {
        Request::Ping => {
            let now = Timestamp::now();
            exchange.send(&Answer::Pong { now }).await
        }
        // Once, before the link counts as one: nobody gets a second signature.
        Request::Prove { .. } => {
            let what = "a link is proved once, when it begins";
            refuse(&mut exchange, Failure::new(Code::Refused, what).into()).await
        }
        asked @ Request::Lineage { .. } => match list(&node, &peer.peer.name, asked).await {
            Ok(answer) => exchange.send(&answer).await,
            Err(error) => refuse(&mut exchange, error).await,
        },
        Request::Offer(offer) => {
            let term = offer.term.as_ref();
            match admit(&node, &peer.peer.name, &offer.manifest, term).await {
                Ok(run) => receiving::receive(&node, &run, &peer, *offer, exchange).await,
                Err(error) => refuse(&mut exchange, error).await,
            }
        }
        Request::Commit { manifest, term } => {
            match commit(&node, &peer.peer.name, manifest, term.as_ref()).await {
                Ok(()) => exchange.send(&Answer::Committed).await,
                Err(error) => refuse(&mut exchange, error).await,
            }
        }
        asked @ Request::Word { .. } => {
            say_word(&node, &peer.peer.name, asked, &what, &mut exchange).await
        }
        asked @ Request::Grant { .. } => match words::answer(&node, &peer.peer.name, asked).await {
            Ok(answer) => exchange.send(&answer).await,
            Err(error) => refuse(&mut exchange, error).await,
        },
        Request::Ready { role, role_id } => {
            match handover::ready(&node, &peer.peer.name, &role, role_id).await {
                Ok(problems) => exchange.send(&Answer::Ready { problems }).await,
                Err(error) => refuse(&mut exchange, error).await,
            }
        }
        Request::Drift { names } => {
            let answer = drift::answer(&node, &peer.peer.name, &names).await;
            exchange.send(&answer).await
        }
        asked @ Request::Find { .. } => match find::answer(&node, &peer.peer.name, asked).await {
            Ok(answer) => exchange.send(&answer).await,
            Err(error) => refuse(&mut exchange, error).await,
        },
        Request::Read(asked) => fetch::serve(&node, &peer, *asked, exchange).await,
        asked @ Request::Verify { .. } => {
            verify::answer(&node, &peer.peer.name, asked, exchange).await
        }
        asked @ (Request::Holds { .. } | Request::Fetch { .. } | Request::Describe { .. }) => {
            match returning::answer(&node, &peer.peer.name, asked).await {
                Ok(answer) => exchange.send(&answer).await,
                Err(error) => refuse(&mut exchange, error).await,
            }
        }
    };
    if let Err(error) = result {
        let passes = early || Failure::code_of(&error) == Code::Locked;
        let text = format!("could not {what} for {}: {error:#}", peer.peer.name);
        tell(&node, passes, text);
    }
}

/// What passes is only noted.
fn tell(node: &Node, passes: bool, text: String) {
    match passes {
        true => node.hub.note(None, text),
        false => node.hub.warn(None, text),
    }
}

/// Answers a word. A peer that does not wait for it any more, or whose link ended, asks again.
async fn say_word(
    node: &Arc<Node>,
    peer: &NodeName,
    asked: Request,
    what: &str,
    exchange: &mut Exchange,
) -> Result<()> {
    let answer = match words::answer(node, peer, asked).await {
        Ok(answer) => answer,
        Err(error) => return refuse(exchange, error).await,
    };
    if let Err(error) = exchange.send(&answer).await {
        let text = format!("did not {what} to {peer}: {error:#}");
        node.hub.note(None, text);
    }
    Ok(())
}

/// A role that is new gets into one node's config before it is in the other's: the peer asks again, and there is nothing to do.
fn is_early(node: &Node, peer: &NodeName, request: &Request) -> bool {
    match request {
        Request::Word { role, .. } => words::named(node, peer, role).is_err(),
        _ => false,
    }
}

/// The request in words that read after "could not".
fn asked_for(request: &Request) -> String {
    match request {
        Request::Lineage { role, .. } => format!("list role {role}"),
        Request::Offer(offer) => {
            format!(
                "take {} of {} {}",
                offer.dataset, offer.manifest.role_name, offer.manifest.point
            )
        }
        Request::Commit { manifest, .. } => {
            format!("publish {} {}", manifest.role_name, manifest.point)
        }
        Request::Word { role, .. } => format!("say what is known of role {role}"),
        Request::Grant { role, .. } => format!("take role {role} over"),
        Request::Ready { role, .. } => format!("say whether role {role} could be taken over"),
        Request::Holds { role, .. } => format!("list what can be fetched of role {role}"),
        Request::Fetch { role, point, .. } => format!("send {role} {point} again"),
        Request::Verify { role, point, .. } => format!("read its copy of {role} {point}"),
        Request::Describe { .. } => "say which roles are shared".to_owned(),
        Request::Drift { .. } => "say what is watched".to_owned(),
        Request::Find { path, .. } => format!("look for {}", plain(path)),
        Request::Read(asked) => format!("read {} of {}", plain(&asked.path), asked.point),
        Request::Ping => "answer a ping".to_owned(),
        Request::Prove { .. } => "prove this node's key again".to_owned(),
    }
}

/// Tells the peer, and hands the error back to be logged once.
pub async fn refuse(exchange: &mut Exchange, error: anyhow::Error) -> Result<()> {
    let answer = Answer::Refused(refusal(&error));
    // A peer that no longer listens does not change what is logged here.
    let _ = exchange.send(&answer).await;
    Err(error)
}

/// An error as the peer may see it.
pub fn refusal(error: &anyhow::Error) -> Refusal {
    let hint = Failure::of(error).and_then(|failure| failure.hint.clone());
    // A full disk is told by the words around it, with all figures.
    let bare = |cause: &&(dyn std::error::Error + 'static)| {
        !matches!(cause.downcast_ref(), Some(FsError::NoSpace { .. }))
    };
    let words: Vec<String> = error
        .chain()
        .filter(bare)
        .map(ToString::to_string)
        .collect();
    Refusal {
        code: Failure::code_of(error),
        why: match words.is_empty() {
            true => format!("{error:#}"),
            false => words.join(": "),
        },
        hint,
        shortage: match error.downcast_ref() {
            Some(FsError::NoSpace { shortage, .. }) => Some(*shortage),
            _ => None,
        },
    }
}

fn refused(code: Code, what: String, hint: String) -> anyhow::Error {
    Failure::new(code, what).hint(hint).into()
}

/// Whether the peer may act on the role here, under this term, and the role is the one it means.
async fn admit_role(
    node: &Arc<Node>,
    peer: &NodeName,
    name: &RoleName,
    id: RoleId,
    (term, line): (&Term, Line),
) -> Result<Arc<RoleRun>> {
    let run = permitted(node, peer, name, Grant::Send)?;
    let record = node.record(&run)?;
    let known = record.as_ref().map_or(0, |record| record.term().epoch);
    words::believable(node, name, peer, known, term)?;
    let record = match record {
        Some(record) => record,
        None => node.join(&run, id, term, line.clone())?,
    };
    let known = Known {
        id: record.id,
        term: record.term(),
        active: record.part.held.is_some(),
    };
    let record = match claim::judge(Some(known), id, term) {
        Claim::OtherRole | Claim::Lower => {
            let claim = claim::judge(Some(known), id, term);
            return Err(unacceptable(node, peer, name, (id, term), claim, &record));
        }
        Claim::Current if record.line.term() == Some(term) => record,
        // Seen terms are remembered before anything is done under them (P3).
        Claim::New | Claim::Current | Claim::Higher | Claim::BothActive | Claim::SameEpoch => {
            words::heard_sending(&run, peer, term, line).await?
        }
    };
    if record.part.accepts(term) {
        return Ok(run);
    }
    let claim = match record.term() == term {
        true => Claim::BothActive,
        false => Claim::SameEpoch,
    };
    Err(unacceptable(node, peer, name, (id, term), claim, &record))
}

/// The role, when the config grants the peer this on it.
pub fn permitted(
    node: &Node,
    peer: &NodeName,
    name: &RoleName,
    grant: Grant,
) -> Result<Arc<RoleRun>> {
    let ours = node.name();
    let Ok(run) = node.role(name) else {
        // The name that a role of kind = "logs" has for what the peer writes.
        let of_logs = name.as_str().strip_suffix(peer.as_str());
        let hint = match of_logs.and_then(|of| of.strip_suffix('.')) {
            Some(of) => format!(
                "add [role.{of}] with kind = \"logs\" and {peer} among its `peers` to the config of {ours}, then `standin reload` there"
            ),
            None => format!(
                "add [role.{name}] with its datasets to the config of {ours}, then `standin reload` there"
            ),
        };
        return Err(refused(
            Code::Refused,
            format!("{ours} has no role {name}"),
            hint,
        ));
    };
    if !run.role.peers.contains(peer) {
        let what = format!("role {name} on {ours} does not name {peer} as a peer");
        let hint = format!("add \"{peer}\" to `peers` of [role.{name}] in the config of {ours}");
        return Err(refused(Code::Refused, what, hint));
    }
    grant::expect(node, peer, name, grant).map_err(Failure::from)?;
    Ok(run)
}

/// Why nothing is taken in a state in which the role is not stood in for.
fn code_of(state: &State) -> Code {
    match state.passes() {
        true => Code::Locked,
        false => Code::Refused,
    }
}

/// Why a claim cannot be followed, in words for both sides.
fn unacceptable(
    node: &Node,
    peer: &NodeName,
    name: &RoleName,
    (id, term): (RoleId, &Term),
    claim: Claim,
    record: &RoleRecord,
) -> anyhow::Error {
    let ours = node.name();
    let known = record.term();
    // It may have been mended since.
    let names = match node.role(name) {
        Ok(run) if run.role.home == ours => "names",
        _ => "named",
    };
    match claim {
        Claim::OtherRole if record.part.held.is_some() => refused(
            Code::Refused,
            format!("{ours} has begun a role {name} of its own: its config {names} {ours} as home"),
            format!(
                "name the same `home` in both configs; then, on the node that is not the home and only there, delete what it \
                 took by mistake, on each of its filesystems: btrfs subvolume delete .standin/{name}/*/*, then rm -r \
                 .standin/{name} (on ZFS, beside each dataset: release what is held below .standin/{name}, for which docs/zfs.md has \
                 the line, then zfs destroy -r .standin/{name})"
            ),
        ),
        Claim::OtherRole => refused(
            Code::Refused,
            format!(
                "role {name} on {ours} is another role (id {}, not {id})",
                record.id
            ),
            "give one of the two roles another name, or remove the copy that was begun by mistake"
                .to_owned(),
        ),
        Claim::Lower => refused(
            Code::Fenced,
            format!("{peer} speaks for term {term} of role {name}, but {ours} knows term {known}"),
            format!("{} is active now", known.holder),
        ),
        Claim::BothActive => refused(
            code_of(&record.part.state),
            format!(
                "{ours} takes nothing of role {name} now: it is {} under term {known}",
                record.part.state
            ),
            match record.part.held.is_some() {
                true => format!(
                    "what was written on {ours} is put in safety first; the next cycle tries again"
                ),
                false => format!("see `standin status {name}` on {ours}"),
            },
        ),
        Claim::SameEpoch if node.role(name).is_ok_and(|run| logs::goes_on(&run)) => {
            logs::earlier_life(&ours, peer, name, known)
        }
        Claim::SameEpoch => refused(
            Code::Diverged,
            format!(
                "two nodes claim epoch {} of role {name}: {} and {}",
                term.epoch, known.holder, term.holder
            ),
            format!("choose one: standin resolve {name} --keep NODE"),
        ),
        Claim::New | Claim::Current | Claim::Higher => {
            anyhow::anyhow!("judge the claim of {peer} to role {name}")
        }
    }
}

async fn admit(
    node: &Arc<Node>,
    peer: &NodeName,
    manifest: &Manifest,
    term: Option<&Term>,
) -> Result<Arc<RoleRun>> {
    if let Some(run) = asked_back(node, peer, manifest)? {
        return Ok(run);
    }
    let under = term.unwrap_or(&manifest.point.term);
    let said = (under, Line::default());
    let run = admit_role(node, peer, &manifest.role_name, manifest.role, said).await?;
    if let Some(record) = node.record(&run)? {
        let line = &record.line;
        if line.term() == Some(under) && !line.contains(&manifest.point) {
            let what = format!(
                "{} is not of the line of role {}: term {under} went on without it",
                manifest.point, run.name
            );
            return Err(Failure::new(Code::Diverged, what).into());
        }
    }
    same_datasets(node, &run, manifest.datasets.keys())?;
    in_reach(&run, under, manifest).await?;
    Ok(run)
}

/// A point whose number lies beyond all that can have been taken would leave no number to those after it; and one of a later
/// term than the one spoken for would stay the newest for ever.
async fn in_reach(run: &Arc<RoleRun>, under: &Term, manifest: &Manifest) -> Result<()> {
    if manifest.point.term.epoch > under.epoch {
        let what = format!("take {} under term {under}, which is older", manifest.point);
        return Err(Failure::new(Code::Refused, what).into());
    }
    let fs = run.fs.clone();
    let stored = blocking(move || fs.list()).await?;
    let sequences = stored.iter().map(|stored| stored.manifest.point.sequence);
    let known = sequences.max().unwrap_or(0);
    let point = &manifest.point;
    if point.sequence.saturating_sub(known) <= claim::SEQUENCES_AHEAD_MAX {
        return Ok(());
    }
    let what =
        format!("take {point}: no role has so many points, the newest here is number {known}");
    Err(Failure::new(Code::Refused, what).into())
}

/// The role of a point that this node asked the peer to send again: such a point may be of an older term, and the role
/// may have got datasets since.
fn asked_back(node: &Node, peer: &NodeName, manifest: &Manifest) -> Result<Option<Arc<RoleRun>>> {
    let asked = |run: &Arc<RoleRun>| run.wants(peer, &manifest.point);
    let Some(run) = node.role(&manifest.role_name).ok().filter(asked) else {
        return Ok(None);
    };
    permitted(node, peer, &run.name, Grant::Send)?;
    let record = node.state.role(&run.name)?;
    Ok(record
        .is_some_and(|record| record.id == manifest.role)
        .then_some(run))
}

/// Both nodes must mean the same datasets by the role.
fn same_datasets<'a>(
    node: &Node,
    run: &RoleRun,
    theirs: impl Iterator<Item = &'a DatasetName>,
) -> Result<()> {
    let theirs: BTreeSet<&DatasetName> = theirs.collect();
    let ours: BTreeSet<&DatasetName> = run.fs.datasets().keys().collect();
    let (role, node) = (&run.name, node.name());
    if let Some(missing) = theirs.difference(&ours).next() {
        let what = format!("role {role} on {node} has no dataset {missing}");
        let hint = format!("add [role.{role}.dataset.{missing}] to the config of {node}");
        return Err(refused(Code::Refused, what, hint));
    }
    if let Some(extra) = ours.difference(&theirs).next() {
        let what = format!(
            "role {role} has a dataset {extra} on {node} that the active node does not have"
        );
        let hint = format!("both configs must list the same datasets for role {role}");
        return Err(refused(Code::Refused, what, hint));
    }
    Ok(())
}

/// Both sides read the refusal: it is told to the peer, and logged here.
fn same_kind(node: &Node, run: &RoleRun, peer: &NodeName, theirs: Kind) -> Result<()> {
    let ours = run.fs.kind();
    if ours == theirs {
        return Ok(());
    }
    let (role, node) = (&run.name, node.name());
    let (ours, theirs) = (ours.word(), theirs.word());
    let what = format!("role {role} is on {ours} on {node} and on {theirs} on {peer}");
    let hint = format!("keep role {role} on one kind of filesystem on all its nodes");
    Err(refused(Code::Refused, what, hint))
}

/// Answers `Lineage`.
async fn list(node: &Arc<Node>, peer: &NodeName, asked: Request) -> Result<Answer> {
    let Request::Lineage {
        role,
        role_id,
        term,
        datasets,
        line,
        bases,
        kind,
    } = asked
    else {
        bail!("answer {asked:?} as if it asked for a lineage");
    };
    let run = admit_role(node, peer, &role, role_id, (&term, line)).await?;
    same_kind(node, &run, peer, kind)?;
    if !datasets.is_empty() {
        same_datasets(node, &run, datasets.iter())?;
    }
    moves::keep_to_the_line(node, &run).await?;
    for (other, base) in bases {
        // Should this node have to serve them one day, it goes on from there.
        if run.role.peers.contains(&other) && other != *peer {
            node.state.record_base(&run.name, &other, &base)?;
        }
    }
    lineage(node, &run).await
}

async fn lineage(node: &Arc<Node>, run: &Arc<RoleRun>) -> Result<Answer> {
    let (lineage, found) = cycle::our_lineage(run).await?;
    let fs = run.fs.clone();
    let (partials, room) = blocking(move || {
        let room = |dataset: &DatasetName| Some((dataset.clone(), fs.space(dataset).ok()?.room));
        let room = fs.datasets().keys().filter_map(room).collect();
        Ok((fs.partials()?, room))
    })
    .await?;
    let term = node.state.role(&run.name)?.map(|record| record.part.seen);
    Ok(Answer::Lineage {
        lineage,
        partials,
        term,
        room,
        damaged: found.damaged,
    })
}

async fn commit(
    node: &Arc<Node>,
    peer: &NodeName,
    manifest: Manifest,
    term: Option<&Term>,
) -> Result<()> {
    let run = admit(node, peer, &manifest, term).await?;
    let point = manifest.point.clone();
    {
        let _catalogue = run.catalogue.lock().await;
        let (fs, from) = (run.fs.clone(), peer.clone());
        blocking(move || {
            fs.publish(&manifest, &from)?;
            freeze("commit-published");
            fs.sweep()
        })
        .await
        .with_context(|| format!("publish {point}"))?;
    }
    freeze("commit-unanswered");
    node.hub.note(
        Some(&run.name),
        format!("{point} from {peer} is complete and stored"),
    );
    // The answer does not wait for pruning: what was asked for is done.
    let (node, run) = (node.clone(), run.clone());
    tokio::spawn(async move {
        // First, so that what is pruned is not shown any more.
        super::view::refresh(&node, &run).await;
        if let Err(error) = prune::prune(&node, &run, false).await {
            node.hub
                .warn(Some(&run.name), format!("could not prune: {error:#}"));
        }
        super::seed::refresh(&node, &run).await;
    });
    Ok(())
}

/// The receiver of a dataset in turn: whoever received before is told to end.
pub fn take_turn(
    run: &RoleRun,
    dataset: &crate::logic::name::DatasetName,
) -> super::node::Receiving {
    let mut receiving = lock(&run.receiving);
    let slot = receiving.entry(dataset.clone()).or_default();
    slot.cancel.cancel();
    slot.cancel = tokio_util::sync::CancellationToken::new();
    slot.clone()
}
