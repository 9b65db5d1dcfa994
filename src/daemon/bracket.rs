//! The bracket around the snapshots of a point: every dump of the role, in order, each step under its limit.
//!
//! Promise: whatever happens (a step that fails or takes too long, a snapshot that cannot be made, a cycle that is cancelled),
//! everybody who was held is let go, the last first, and every dump is finished. A dump that failed fails the point or marks
//! it, as its policy says; never silently. Writers are let go when their limit is over although the snapshots are not made:
//! the point is marked then, or not taken.
//!
//! A crash ends connections and with them their holds; what commands hold was noted before, and is thawed by the next daemon.
//!
//! It deliberately does not know any server, nor how a snapshot is made: the filesystem calls `hold` and `release`.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use tokio::sync::{OwnedMutexGuard, oneshot};
use tokio_util::sync::CancellationToken;

use super::api::Finding;
use super::check::{failing, ok, problem};
use super::cycle::first_line;
use super::node::{Node, RoleRun, lock};
use super::play;
use crate::error::{Code, Failure};
use crate::fs::{self, Bracket};
use crate::host::dump::{self, Around, Open, command};
use crate::logic::dump::{
    Dump, DumpFacts, DumpResult, Found, How, KEPT_BYTES_ALL_MAX, KEPT_BYTES_MAX, Policy,
};
use crate::logic::manifest::Manifest;
use crate::logic::name::DatasetName;
use crate::logic::units;

/// Longest that letting writers go may take where they wait for a server: it has only to hear it.
const RELEASE_MAX: Duration = Duration::from_secs(10);

/// What the role's services do while a point is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Services {
    Run,
    /// They were stopped, in order: what lies on disk is consistent. Only what is dumped to a file is not in there.
    Stopped,
}

/// The dumps of a point, prepared. Given to the filesystem; where that never comes to the snapshots, all of it is ended.
pub struct Prepared {
    late: BTreeSet<DatasetName>,
    hold: Option<oneshot::Sender<()>>,
    held: Option<oneshot::Receiver<Result<()>>>,
    snapped: Option<oneshot::Sender<()>>,
    facts: Option<oneshot::Receiver<Result<Vec<DumpFacts>>>>,
    /// Dropped with this value, when the late snapshots are made too: until then servers keep the log that these must hold.
    _over: oneshot::Sender<()>,
}

impl Bracket for Prepared {
    fn late(&self) -> BTreeSet<DatasetName> {
        self.late.clone()
    }

    fn hold(&mut self) -> fs::Result<()> {
        if let Some(hold) = self.hold.take() {
            // Gone: what it came to is in the answer.
            let _ = hold.send(());
        }
        answer(self.held.take())
    }

    fn release(&mut self, manifest: &mut Manifest) -> fs::Result<()> {
        if let Some(snapped) = self.snapped.take() {
            let _ = snapped.send(());
        }
        manifest.dumps = answer(self.facts.take())?;
        Ok(())
    }
}

fn answer<T>(from: Option<oneshot::Receiver<Result<T>>>) -> Result<T> {
    let gone = || Failure::new(Code::Failed, "hear how the dumps ended: their task is gone");
    let answered = from.map(oneshot::Receiver::blocking_recv);
    answered
        .and_then(Result::ok)
        .unwrap_or_else(|| Err(gone().into()))
}

/// One dump of the point under way.
struct Taking {
    dump: Dump,
    open: Open,
    took: Duration,
    asked: Option<Instant>,
    held: Option<Duration>,
    found: Found,
    result: Outcome,
}

enum Outcome {
    Good,
    Stopped,
    Failed(anyhow::Error),
}

/// Whose turn it is with the dumps of a role.
pub type Turn = OwnedMutexGuard<()>;

/// Waits until no other point of the role has its dumps in hand.
pub async fn turn(node: &Node, run: &RoleRun) -> Result<Turn> {
    let cancel = canceller(node, run);
    tokio::select! {
        turn = run.dumping.clone().lock_owned() => Ok(turn),
        () = cancel.cancelled() => {
            let what = "wait for the dumps of another point: the cycle was cancelled";
            Err(Failure::new(Code::Interrupted, what).into())
        }
    }
}

/// What ends the cycle of the role that runs now, or else the daemon.
fn canceller(node: &Node, run: &RoleRun) -> CancellationToken {
    let cycle = lock(&run.cycle);
    let cancel = cycle.as_ref().map(|cycle| cycle.cancel.clone());
    cancel.unwrap_or_else(|| node.stop.child_token())
}

/// Prepares every dump of the role. An error: a required one failed, and all are ended.
pub async fn prepare(
    node: &Arc<Node>,
    run: &Arc<RoleRun>,
    services: Services,
    turn: Turn,
) -> Result<Prepared> {
    let cancel = canceller(node, run);
    let phase = lock(&run.cycle).as_ref().map(|cycle| cycle.phase.clone());
    let around = around(node, run);
    let mut taking = Vec::new();
    let mut refused = None;
    for dump in &run.role.dumps {
        if let Some(phase) = &phase {
            *lock(phase) = format!("dumping {}", dump.name);
        }
        let mut one = Taking {
            open: Open::new(dump, &around),
            dump: dump.clone(),
            took: Duration::ZERO,
            asked: None,
            held: None,
            found: Found::default(),
            result: Outcome::Good,
        };
        if services == Services::Stopped && !dump.how.writes_a_file() {
            one.result = Outcome::Stopped;
        } else {
            one.prepare(&cancel).await;
        }
        refused = one.refusal(run);
        taking.push(one);
        if refused.is_some() {
            break;
        }
    }
    if let Some(error) = refused {
        for one in taking.iter_mut().rev() {
            one.finish().await;
        }
        return Err(error);
    }
    Ok(conduct(node, run, taking, services, turn))
}

/// What dumps find around them.
pub fn around(node: &Node, run: &RoleRun) -> Around {
    Around {
        surroundings: play::around(node, run),
        datasets: run.fs.datasets().clone(),
        copies: run.fs.datasets().clone(),
    }
}

/// The task that holds and lets go.
fn conduct(
    node: &Arc<Node>,
    run: &Arc<RoleRun>,
    mut taking: Vec<Taking>,
    services: Services,
    turn: Turn,
) -> Prepared {
    let (hold, asked) = oneshot::channel();
    let (tell_held, held) = oneshot::channel();
    let (snapped, made) = oneshot::channel();
    let (tell_facts, facts) = oneshot::channel();
    let (_over, over) = oneshot::channel::<()>();
    let late = match services {
        Services::Run => taking.iter().flat_map(|one| one.open.late()).collect(),
        Services::Stopped => BTreeSet::new(),
    };
    let (node, run) = (node.clone(), run.clone());
    tokio::spawn(async move {
        let mut refused = None;
        if asked.await.is_ok() {
            let began = Instant::now();
            let mut limit = None;
            for one in &mut taking {
                one.hold(&node, &run, began).await;
                if one.open.holds() {
                    let most = one.dump.hold;
                    limit = Some(limit.map_or(most, |limit: Duration| limit.min(most)));
                }
                refused = one.refusal(&run);
                if refused.is_some() {
                    break;
                }
            }
            let mut tell_held = Some(tell_held);
            if refused.is_none() {
                let _ = tell_held.take().map(|tell| tell.send(Ok(())));
                wait(made, began, limit, &mut taking).await;
            }
            for one in taking.iter_mut().rev() {
                one.release(&node, &run).await;
            }
            // Told when nobody is held any more: the next cycle may begin at once.
            if let (Some(error), Some(tell)) = (refused.take(), tell_held) {
                let _ = tell.send(Err(error));
            }
        }
        for one in taking.iter_mut().rev() {
            one.finish().await;
        }
        drop(turn);
        bound(&mut taking);
        let refused = taking.iter().find_map(|one| one.refusal(&run));
        let facts: Vec<DumpFacts> = taking.iter().map(Taking::facts).collect();
        tell(&node, &run, &taking);
        // Where the point is not taken nobody listens.
        let _ = tell_facts.send(refused.map_or(Ok(facts), Err));
        let _ = over.await;
    });
    Prepared {
        late,
        hold: Some(hold),
        held: Some(held),
        snapped: Some(snapped),
        facts: Some(facts),
        _over,
    }
}

/// What dumps want kept goes into the manifest, which has bounds everywhere: past them no peer would take the point.
fn bound(taking: &mut [Taking]) {
    let mut room = KEPT_BYTES_ALL_MAX;
    for one in taking {
        let bytes = one.found.kept_bytes();
        if bytes <= KEPT_BYTES_MAX.min(room) {
            room -= bytes;
            continue;
        }
        let most = units::human_bytes(KEPT_BYTES_MAX.min(room) as u64);
        let bytes = units::human_bytes(bytes as u64);
        let what = format!("keep {bytes} of it beside the point: there is room for {most}");
        one.note(
            Ok(Err(Failure::new(Code::Failed, what).into())),
            Duration::ZERO,
            "",
        );
    }
}

/// Until the snapshots are made, or will not be; or until writers have waited long enough.
async fn wait(
    made: oneshot::Receiver<()>,
    began: Instant,
    limit: Option<Duration>,
    taking: &mut [Taking],
) {
    let Some(limit) = limit else {
        let _ = made.await;
        return;
    };
    let left = limit.saturating_sub(began.elapsed());
    if tokio::time::timeout(left, made).await.is_ok() {
        return;
    }
    for one in taking.iter_mut().filter(|one| one.open.holds()) {
        if matches!(one.result, Outcome::Good) {
            let limit = units::exact_duration(limit);
            let what = format!("make the snapshots within {limit}: writers were let go before");
            let hint = "the filesystem is slow now: raise the dump's `hold`, or take points when less is written";
            one.result = Outcome::Failed(Failure::new(Code::Failed, what).hint(hint).into());
        }
    }
}

impl Taking {
    async fn prepare(&mut self, cancel: &CancellationToken) {
        let (began, limit) = (Instant::now(), self.dump.timeout);
        let done = tokio::select! {
            done = tokio::time::timeout(limit, self.open.prepare()) => done,
            () = cancel.cancelled() => {
                let what = "dump: the cycle was cancelled";
                Ok(Err(Failure::new(Code::Interrupted, what).into()))
            }
        };
        self.took += began.elapsed();
        self.note(done, limit, "timeout");
    }

    async fn hold(&mut self, node: &Node, run: &RoleRun, began: Instant) {
        if !matches!(self.result, Outcome::Good) {
            return;
        }
        if self.open.unattended() {
            let noted = node.state.note_held(&run.name, &self.dump.name);
            if let Err(error) = noted {
                self.result = Outcome::Failed(error);
                return;
            }
        }
        let asked = Instant::now();
        self.asked = Some(asked);
        let limit = self.dump.hold.saturating_sub(began.elapsed());
        let done = tokio::time::timeout(limit, self.open.hold()).await;
        self.took += asked.elapsed();
        self.note(done, self.dump.hold, "hold");
    }

    /// Whatever came of the hold.
    async fn release(&mut self, node: &Node, run: &RoleRun) {
        let Some(asked) = self.asked else { return };
        let began = Instant::now();
        // Commands have a limit of their own, and are ended after it.
        let limit = match self.open.unattended() {
            true => self.dump.timeout + RELEASE_MAX,
            false => RELEASE_MAX,
        };
        let done = tokio::time::timeout(limit, self.open.release()).await;
        let thawed = matches!(done, Ok(Ok(())));
        self.took += began.elapsed();
        self.held = self.open.holds().then(|| asked.elapsed());
        self.note(done, limit, "");
        if thawed && self.open.unattended() {
            if let Err(error) = node.state.note_thawed(&run.name, &self.dump.name) {
                tracing::debug!(
                    "could not note that {} is thawed: {error:#}",
                    self.dump.name
                );
            }
        }
    }

    async fn finish(&mut self) {
        if matches!(self.result, Outcome::Stopped) {
            return;
        }
        let (began, limit) = (Instant::now(), self.dump.timeout);
        let done = tokio::time::timeout(limit, self.open.finish()).await;
        self.took += began.elapsed();
        let done = done.map(|done| done.map(|found| self.found = found));
        self.note(done, limit, "timeout");
    }

    /// The first thing that went wrong is what is told.
    fn note(
        &mut self,
        done: Result<Result<()>, tokio::time::error::Elapsed>,
        limit: Duration,
        key: &str,
    ) {
        let error = match done {
            Ok(Ok(())) => return,
            Ok(Err(error)) => error,
            Err(_) => {
                let limit = units::exact_duration(limit);
                let what = format!("be done within {limit}");
                let hint = match key {
                    "" => "its server does not answer; look at it".to_owned(),
                    key => format!(
                        "look at its server for what waits or is slow, or raise the dump's `{key}`"
                    ),
                };
                Failure::new(Code::Failed, what).hint(hint).into()
            }
        };
        if matches!(self.result, Outcome::Good) {
            self.result = Outcome::Failed(error);
        }
    }

    /// Why there must be no point.
    fn refusal(&self, run: &RoleRun) -> Option<anyhow::Error> {
        let Outcome::Failed(error) = &self.result else {
            return None;
        };
        if self.dump.policy != Policy::Required {
            return None;
        }
        let (name, kind) = (&self.dump.name, self.dump.how.kind());
        let what = format!(
            "dump {name} ({kind}) of role {}: could not {error:#}",
            run.name
        );
        let code = Failure::code_of(error);
        let hint = Failure::of(error).and_then(|failure| failure.hint.clone());
        let otherwise = "policy = \"best-effort\" would take the point all the same, marked";
        let hint = hint.map_or(otherwise.to_owned(), |hint| format!("{hint}; {otherwise}"));
        Some(Failure::new(code, what).hint(hint).into())
    }

    fn facts(&self) -> DumpFacts {
        let ms = |span: Duration| u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
        DumpFacts {
            name: self.dump.name.clone(),
            kind: self.dump.how.kind().to_owned(),
            mode: self.dump.how.mode().to_owned(),
            result: match &self.result {
                Outcome::Good => DumpResult::Good,
                Outcome::Stopped => DumpResult::Stopped,
                Outcome::Failed(error) => DumpResult::Failed {
                    why: first_line(&format!("could not {error:#}")),
                },
            },
            took_ms: ms(self.took),
            held_ms: self.held.map(ms),
            found: match &self.result {
                Outcome::Good => self.found.clone(),
                // A label of a backup that failed must never be put anywhere.
                _ => Found {
                    keeps: Default::default(),
                    ..self.found.clone()
                },
            },
        }
    }
}

/// Dumps that failed and whose point is taken nevertheless: warned of when it is new, and told when it is over.
fn tell(node: &Node, run: &RoleRun, taking: &[Taking]) {
    let mut failing = lock(&run.failing);
    for one in taking {
        let name = &one.dump.name;
        match &one.result {
            Outcome::Failed(error) if one.dump.policy == Policy::BestEffort => {
                let text = format!("{error:#}");
                if failing.insert(name.clone(), text.clone()).as_ref() != Some(&text) {
                    let text = format!(
                        "dump {name} failed: could not {text}; points are taken without it, and marked"
                    );
                    node.hub.warn(Some(&run.name), text);
                }
            }
            Outcome::Failed(_) => {}
            Outcome::Good | Outcome::Stopped => {
                if failing.remove(name).is_some() {
                    node.hub
                        .note(Some(&run.name), format!("dump {name} is good again"));
                }
            }
        }
    }
}

/// Once, at the start of the daemon: nobody waits for the next point to be let go.
pub async fn at_start(node: Arc<Node>) {
    for run in node.roles() {
        let Ok(_turn) = turn(&node, &run).await else {
            return;
        };
        if let Err(error) = thaw(&node, &run).await {
            node.hub.warn(
                Some(&run.name),
                format!("could not {error:#}; the next point tries again"),
            );
        }
    }
}

/// Lets go whom an earlier daemon, killed in the middle, left held by commands.
pub async fn thaw(node: &Node, run: &RoleRun) -> Result<()> {
    for name in node.state.held(&run.name)? {
        let dump = run.role.dumps.iter().find(|dump| dump.name == name);
        match dump.map(|dump| (&dump.how, dump.timeout)) {
            Some((How::Command(commands), limit)) => {
                command::thaw(commands, limit, &play::around(node, run))
                    .await
                    .with_context(|| format!("thaw {name}, which an earlier daemon left frozen"))?;
                let text = format!("thawed {name}, which an earlier daemon left frozen");
                node.hub.note(Some(&run.name), text);
            }
            _ => {
                let text = format!(
                    "dump {name} may be frozen since an earlier daemon was killed, and is no more in the config: thaw it by hand"
                );
                node.hub.warn(Some(&run.name), text);
            }
        }
        node.state.note_thawed(&run.name, &name)?;
    }
    Ok(())
}

/// What a person should know of the dumps of a role that is active here. Changes nothing.
pub async fn check(node: &Node, run: &RoleRun, findings: &mut Vec<Finding>) {
    let around = around(node, run);
    for dump in &run.role.dumps {
        let subject = format!("dump {} of role {}", dump.name, run.name);
        let looked = tokio::time::timeout(RELEASE_MAX, dump::check(dump, &around)).await;
        findings.push(match looked {
            Ok(Ok(text)) => ok(subject, text),
            Ok(Err(error)) => failing(&subject, &error),
            Err(_) => {
                let limit = units::exact_duration(RELEASE_MAX);
                problem(
                    subject,
                    format!("no answer within {limit}"),
                    "look at its server",
                )
            }
        });
    }
}
