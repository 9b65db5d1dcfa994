//! Who alone changes this node's part in a role: one task a role, which takes one event after the other.
//!
//! For each event: decide (`logic::role::step`), write the new record, then carry out what follows. Promise: nothing is
//! carried out before the record that calls for it is on disk, so after a crash anywhere `Started` finds what to do again; one
//! piece of work runs at a time, and the one before it has ended before it begins; what fails is tried again for as long as
//! the state asks for it.
//!
//! A stop of the daemon leaves services as they are and work half done: that is what `Started` is for. It deliberately does
//! not know how work is done (`moves`) nor how peers are asked (`words`).

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::node::{Node, RoleRun, lock};
use super::{drill, logs, measured, moves, play, replicate, words};
use crate::error::{Code, Failure};
use crate::fs::btrfs::freeze::freeze;
use crate::host::part::RoleRecord;
use crate::logic::line::Line;
use crate::logic::name::{NodeName, RoleName};
use crate::logic::point::PointId;
use crate::logic::role::{Action, Event, State, Work};
use crate::peer::timing::hurried;

/// First and longest pause before something is tried again.
const RETRY: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(30));

/// An alarm that goes on is repeated after this time.
const ALARM_AGAIN: Duration = Duration::from_secs(600);

/// The way to the task of a role; lives as long as the role is in the config.
pub struct Supervisor {
    orders: mpsc::UnboundedSender<Order>,
    /// Taken by the task.
    inbox: Mutex<Option<mpsc::UnboundedReceiver<Order>>>,
    /// Changes with every record.
    changes: watch::Sender<u64>,
    /// Why the work at hand could not be done the last time.
    trouble: Mutex<Option<String>>,
    /// The same, when it is over.
    before: Mutex<Option<String>>,
    /// When the services of a hand-over began to stop, and when they had.
    stopping: Mutex<(Option<Instant>, Option<Instant>)>,
}

struct Order {
    event: Event,
    /// What is known of the line beside it.
    beside: Beside,
    reply: Option<oneshot::Sender<Result<Told>>>,
}

/// What an event says of the line.
#[derive(Debug, Clone, Default)]
pub struct Beside {
    /// The line of whoever spoke.
    pub line: Option<Line>,
    /// The point from which a term that begins with this event goes on.
    pub base: Option<PointId>,
}

/// What became of an event.
#[derive(Debug, Clone)]
pub struct Told {
    pub record: RoleRecord,
    pub why: &'static str,
    /// The event was not followed.
    pub refused: bool,
}

impl Default for Supervisor {
    fn default() -> Supervisor {
        let (orders, inbox) = mpsc::unbounded_channel();
        Supervisor {
            orders,
            inbox: Mutex::new(Some(inbox)),
            changes: watch::Sender::new(0),
            trouble: Mutex::default(),
            before: Mutex::default(),
            stopping: Mutex::default(),
        }
    }
}

impl Supervisor {
    /// Has an event decided; returns when the record is on disk and what follows is under way.
    pub async fn tell(&self, event: Event, beside: Beside) -> Result<Told> {
        let (reply, told) = oneshot::channel();
        let reply = Some(reply);
        let order = Order {
            event,
            beside,
            reply,
        };
        self.orders
            .send(order)
            .ok()
            .context("reach the supervisor of the role: it ended")?;
        told.await
            .context("hear from the supervisor of the role: it ended")?
    }

    /// The same, for whoever does not wait.
    pub fn mention(&self, event: Event, beside: Beside) {
        let reply = None;
        // Ended with the role or the daemon: nobody is left to care.
        let _ = self.orders.send(Order {
            event,
            beside,
            reply,
        });
    }

    /// Rings when a record was written.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// A record was written by somebody else: the role was joined.
    pub fn joined(&self) {
        self.changes.send_modify(|count| *count += 1);
    }

    /// From here on nobody is served until the other node plays the role.
    pub fn services_stop(&self) {
        *lock(&self.stopping) = (Some(Instant::now()), None);
    }

    /// They have stopped: from here on it is the move that takes time.
    pub fn services_stopped(&self) {
        lock(&self.stopping).1 = Some(Instant::now());
    }

    /// How long ago either was; forgets it.
    pub fn stopped_for(&self) -> (Option<Duration>, Option<Duration>) {
        let (began, ended) = std::mem::take(&mut *lock(&self.stopping));
        (began.map(|at| at.elapsed()), ended.map(|at| at.elapsed()))
    }

    pub fn trouble(&self) -> Option<String> {
        lock(&self.trouble).clone()
    }

    /// What was in the way last, though it is no more.
    pub fn last_trouble(&self) -> Option<String> {
        lock(&self.before).clone()
    }

    /// Something new begins.
    pub fn forget_trouble(&self) {
        *lock(&self.before) = None;
        *lock(&self.stopping) = (None, None);
    }

    fn over(&self) {
        let was = lock(&self.trouble).take();
        if was.is_some() {
            *lock(&self.before) = was;
        }
    }
}

/// Before anybody may ask: a role that was up when the daemon ended is not up because its record says so. Whether its services
/// run is looked at by its task, which takes time.
pub fn wake(node: &Node) -> Result<()> {
    node.roles().iter().try_for_each(|run| not_yet(node, run))
}

fn not_yet(node: &Node, run: &RoleRun) -> Result<()> {
    let Some(mut before) = node.state.role(&run.name)? else {
        return Ok(());
    };
    // The record may be older than the pairing.
    before.part.peers = paired(node, run);
    let up = matches!(
        before.part.state,
        State::Active | State::Promoting { .. } | State::HandingOver { .. }
    );
    if !up || logs::goes_on(run) || begins(node, run, &before)? {
        return Ok(());
    }
    let decided = logs::step(run, &before.part, &Event::Started { serving: false })?;
    let record = RoleRecord {
        part: decided.record,
        ..before.clone()
    };
    node.state.record_role(&run.name, &record)?;
    freeze("role-recorded");
    let (was, is) = (&before.part.state, &record.part.state);
    let text = format!("{was} -> {is}: {}", decided.why);
    node.hub.note(Some(&run.name), text);
    Ok(())
}

/// The first term of all, and no daemon ran with it yet: nobody can know better.
fn begins(node: &Node, run: &RoleRun, record: &RoleRecord) -> Result<bool> {
    let first = record.line.turns().len() == 1 && record.part.held.as_ref() == Some(record.term());
    let rises = matches!(record.part.state, State::Active | State::Promoting { .. });
    Ok(rises && first && node.state.boot(&run.name)?.is_none())
}

/// Runs a task for each role until the daemon stops; looks anew after each reload.
pub async fn keep(node: Arc<Node>) {
    loop {
        for run in node.roles() {
            let inbox = lock(&run.supervisor.inbox).take();
            if let Some(inbox) = inbox {
                if let Err(error) = not_yet(&node, &run) {
                    let text = format!("could not begin with role {}: {error:#}", run.name);
                    node.hub.warn(Some(&run.name), text);
                }
                tokio::spawn(role(node.clone(), run.name.clone(), inbox));
            }
        }
        tokio::select! {
            () = node.stop.cancelled() => return,
            () = node.reloaded.notified() => {}
        }
    }
}

/// Work under way.
struct Running {
    work: Work,
    cancel: CancellationToken,
    task: JoinHandle<Result<Beside>>,
}

/// The task of a role.
struct Role {
    node: Arc<Node>,
    name: RoleName,
    running: Option<Running>,
    pause: Duration,
    /// From when the pause counts: words of peers, however many, do not put a retry off.
    rested: Instant,
    alarmed: Option<Instant>,
    /// The boot is in the record.
    noted: bool,
}

async fn role(node: Arc<Node>, name: RoleName, mut inbox: mpsc::UnboundedReceiver<Order>) {
    let mut role = Role {
        node: node.clone(),
        name,
        running: None,
        pause: hurried(RETRY.0),
        rested: Instant::now(),
        alarmed: None,
        noted: false,
    };
    role.start().await;
    loop {
        let retry = role.retry();
        tokio::select! {
            () = node.stop.cancelled() => return role.stop(),
            order = inbox.recv() => match order {
                Some(order) => role.obey(order).await,
                None => return role.stop(),
            },
            (work, ended) = finished(&mut role.running) => role.ended(work, ended).await,
            () = retry => {
                role.pause = (role.pause * 2).min(hurried(RETRY.1));
                role.rested = Instant::now();
                role.happened(Event::Retry, Beside::default()).await;
            }
        }
        if node.role(&role.name).is_err() {
            // Taken out of the config.
            return role.stop();
        }
    }
}

/// When the work under way has ended; never, where there is none.
async fn finished(running: &mut Option<Running>) -> (Work, Result<Beside>) {
    let Some(run) = running else {
        return std::future::pending().await;
    };
    let ended = (&mut run.task).await;
    let work = run.work;
    *running = None;
    let ended = ended.unwrap_or_else(|error| Err(anyhow::anyhow!("the work ended early: {error}")));
    (work, ended)
}

impl Role {
    fn stop(&mut self) {
        if let Some(running) = self.running.take() {
            running.cancel.cancel();
        }
    }

    fn run(&self) -> Result<Arc<RoleRun>> {
        self.node.role(&self.name)
    }

    /// The daemon started: what the record says is not believed before it is asked for.
    async fn start(&mut self) {
        let serving = match self.serving().await {
            Ok(Some(serving)) => serving,
            Ok(None) => return self.happened(Event::Retry, Beside::default()).await,
            Err(error) => {
                let text = format!("could not tell whether its services run: {error:#}");
                self.node.hub.warn(Some(&self.name), text);
                false
            }
        };
        self.happened(Event::Started { serving }, Beside::default())
            .await;
        self.stand_in();
    }

    /// On a node that stands in nothing of the role is held or runs, whatever a boot has started.
    fn stand_in(&self) {
        let Ok(run) = self.run() else { return };
        let standby = |record: &RoleRecord| record.part.state == State::Standby;
        if !matches!(self.node.record(&run), Ok(Some(record)) if standby(&record)) {
            return;
        }
        let node = self.node.clone();
        tokio::spawn(async move {
            if let Err(error) = play::standing_in(&node, &run).await {
                let text = format!("could not {error:#}");
                node.hub.warn(Some(&run.name), text);
            }
        });
    }

    /// Whether this is still the boot in which the daemon ran last, and the services of the role run. None: the role begins
    /// here and now, nobody can know better.
    async fn serving(&mut self) -> Result<Option<bool>> {
        let run = self.run()?;
        let Some(record) = self.node.record(&run)? else {
            return Ok(Some(false));
        };
        let before = self.node.state.boot(&run.name)?;
        let begins = begins(&self.node, &run, &record)?;
        self.note_boot(&run)?;
        if begins {
            return Ok(None);
        }
        let same_boot = before.is_some() && before == self.node.state.boot(&run.name)?;
        Ok(Some(same_boot && play::runs(&self.node, &run).await?))
    }

    /// From here on, a restart in this boot finds what this daemon left running.
    fn note_boot(&mut self, run: &RoleRun) -> Result<()> {
        if !self.noted {
            let boot = crate::host::clock::read()?.boot;
            self.node.state.record_boot(&run.name, &boot)?;
            self.noted = true;
        }
        Ok(())
    }

    async fn obey(&mut self, order: Order) {
        let told = self.decide(order.event, order.beside).await;
        match (order.reply, told) {
            (Some(reply), told) => drop(reply.send(told)),
            (None, Ok(_)) => {}
            (None, Err(error)) => self.warn(&error),
        }
    }

    async fn happened(&mut self, event: Event, beside: Beside) {
        if let Err(error) = self.decide(event, beside).await {
            self.warn(&error);
        }
    }

    fn warn(&self, error: &anyhow::Error) {
        // A role that nobody has named yet has nothing to decide.
        if Failure::code_of(error) != Code::NotFound {
            let text = format!("could not {error:#}");
            self.node.hub.warn(Some(&self.name), text);
        }
    }

    async fn ended(&mut self, work: Work, ended: Result<Beside>) {
        let Ok(run) = self.run() else { return };
        if self.node.stop.is_cancelled() {
            return;
        }
        self.rested = Instant::now();
        match ended {
            Ok(beside) => {
                run.supervisor.over();
                self.happened(Event::Done(work), beside).await;
            }
            Err(error) => {
                let text = format!("could not {error:#}");
                let new = lock(&run.supervisor.trouble).replace(text.clone()) != Some(text.clone());
                if new {
                    self.node.hub.warn(Some(&self.name), text);
                }
                self.happened(Event::Failed(work), Beside::default()).await;
            }
        }
    }

    /// Decide, record, carry out.
    async fn decide(&mut self, event: Event, beside: Beside) -> Result<Told> {
        let run = self.run()?;
        let nobody = || {
            let what = format!("decide about role {}: no peer has named it yet", run.name);
            Failure::new(Code::NotFound, what).hint("it is joined when its active node reaches us")
        };
        let mut before = self.node.record(&run)?.ok_or_else(nobody)?;
        before.part.peers = paired(&self.node, &run);
        let decided = logs::step(&run, &before.part, &event)?;
        let beside = logs::beside(&run, &before.part, &decided.record, beside).await?;
        let mut record = RoleRecord {
            part: decided.record,
            ..before.clone()
        };
        follow_line(&mut record, beside);
        if record != before {
            self.node
                .state
                .record_role(&run.name, &record)
                .with_context(|| {
                    format!("remember that role {} is {}", run.name, record.part.state)
                })?;
            freeze("role-recorded");
        }
        self.note_boot(&run)?;
        if record.part.state != before.part.state {
            self.pause = hurried(RETRY.0);
            self.rested = Instant::now();
            let (was, is) = (&before.part.state, &record.part.state);
            let text = format!("{was} -> {is}: {}", decided.why);
            self.node.hub.note(Some(&run.name), text);
            self.changed(&run, &before, &record);
        }
        logs::tell(&self.node, &run, &before.part, &record.part, decided.why);
        for action in decided.actions {
            self.carry_out(&run, &record, action);
        }
        run.supervisor.joined();
        Ok(Told {
            record,
            why: decided.why,
            refused: decided.refused,
        })
    }

    fn changed(&mut self, run: &Arc<RoleRun>, before: &RoleRecord, record: &RoleRecord) {
        if before.active() && !record.active() {
            // Points that are under way are of no use to anybody now.
            if let Some(cycle) = lock(&run.cycle).as_ref() {
                cycle.cancel.cancel();
            }
        }
        if !matches!(record.part.state, State::Conflict { .. }) {
            self.alarmed = None;
        }
        let resting = matches!(record.part.state, State::Active | State::Standby);
        if resting {
            run.supervisor.over();
        } else {
            drill::cancel(run);
        }
        if record.part.state == State::Active {
            for peer in &run.role.peers {
                replicate::catch_up(&self.node, run, peer);
            }
        }
        run.wake.notify_one();
    }

    fn carry_out(&mut self, run: &Arc<RoleRun>, record: &RoleRecord, action: Action) {
        match action {
            Action::Work(work) => self.work(run, work),
            Action::AskPeers | Action::TellAll => {
                for peer in &record.part.peers {
                    words::exchange(&self.node, run, peer);
                }
            }
            // The answer to what it said, or the question it was asked, has told it already.
            Action::Tell(_) | Action::Accept(_) => {}
            Action::Grant => words::grant(&self.node, run, record),
            Action::Alarm { other } => {
                if self.alarmed.is_none_or(|at| at.elapsed() > ALARM_AGAIN) {
                    self.alarmed = Some(Instant::now());
                    self.node.hub.warn(
                        Some(&run.name),
                        format!(
                            "two nodes claim epoch {} of role {}: {} and {}; nobody's data is touched. Choose with: standin resolve {} --keep NODE",
                            other.epoch, run.name, record.part.seen.holder, other.holder, run.name
                        ),
                    );
                }
            }
        }
    }

    /// Begins the work when the one before it has ended.
    fn work(&mut self, run: &Arc<RoleRun>, work: Work) {
        let before = self.running.take();
        if let Some(before) = &before {
            before.cancel.cancel();
        }
        let cancel = CancellationToken::new();
        let (node, run, token) = (self.node.clone(), run.clone(), cancel.clone());
        let task = tokio::spawn(async move {
            if let Some(before) = before {
                // What it came to is of no interest any more.
                let _ = before.task.await;
            }
            let begun = Instant::now();
            let done = moves::perform(&node, &run, work, &token).await;
            if done.is_ok() {
                measured::note(&node, &run, work, begun.elapsed());
            }
            done
        });
        self.running = Some(Running { work, cancel, task });
    }

    /// Ends when it is time to try again; never, where there is nothing to try.
    fn retry(&self) -> impl Future<Output = ()> + use<> {
        let wanted = self.running.is_none() && self.unsettled();
        let due = self.rested + self.pause;
        async move {
            if wanted {
                tokio::time::sleep_until(due.into()).await;
            } else {
                std::future::pending::<()>().await;
            }
        }
    }

    fn unsettled(&self) -> bool {
        let Ok(run) = self.run() else { return false };
        let Ok(Some(record)) = self.node.record(&run) else {
            return false;
        };
        match record.part.state {
            State::Standby | State::Active | State::HandingOver { .. } => false,
            State::Promoting { .. }
            | State::Waking { .. }
            | State::HandedOff
            | State::Fencing { .. }
            | State::Fenced
            | State::Reconciling { .. }
            | State::Conflict { .. } => true,
        }
    }
}

/// The peers of the role that may have been told of it. One that was never paired knows nothing.
pub fn paired(node: &Node, run: &RoleRun) -> BTreeSet<NodeName> {
    let has_key = |name: &&NodeName| node.peer(name).is_some_and(|peer| peer.peer.key.is_some());
    run.role.peers.iter().filter(has_key).cloned().collect()
}

/// The line changes with the term: told by its holder, or begun here.
fn follow_line(record: &mut RoleRecord, beside: Beside) {
    let seen = record.part.seen.clone();
    if record.line.term() == Some(&seen) {
        return;
    }
    let told = beside.line.filter(|line| line.term() == Some(&seen));
    if let Some(line) = told {
        record.line = line;
    } else if record.part.held.as_ref() == Some(&seen) || record.part.state == State::HandedOff {
        record.line.begin(seen, beside.base);
    }
}
