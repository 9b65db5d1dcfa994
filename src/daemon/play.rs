//! What moves with a role besides data, on this node: services, addresses, ports and hooks, in the order that is safe.
//!
//! Promise: every step may be called again at any moment, also after a crash in the middle of it, and ends in the same state:
//! what was done is looked at, not remembered. A step that ends well was verified. Each part is noted with the time it took.
//!
//! Order: leaving, ports are closed before services are stopped and addresses go before that too, so that nobody is promised
//! anything any more; coming, ports are open before services start, and addresses come last, when there is something to reach.
//! Under urgency (fencing) nothing waits for the admin's programs: ports first, hooks short and never in the way, every part
//! tried whatever failed before it.
//!
//! It deliberately does not know why a role moves: the supervisor calls.

#[cfg(test)]
mod tests;

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::time::Instant;

use super::api::Finding;
use super::check::problem;
use super::load;
use super::node::{Node, RoleRun, blocking};
use crate::config::Dataset;
use crate::error::{Code, Failure};
use crate::host::command::{self, Surroundings};
use crate::host::writers::{Writer, writers};
use crate::host::{address, hook, ports, service, systemd};
use crate::logic::play::{Address, Moment, Service};
use crate::logic::units::exact_duration;

/// What a hook may take while a node is being fenced.
const HOOK_URGENT: Duration = Duration::from_secs(2);

/// How long writers may take to let go after the services are stopped.
const LET_GO_MAX: Duration = Duration::from_secs(5);

/// Offenders that an error names.
const WRITERS_NAMED: usize = 10;

/// Most of a hook's words that go into the event history, in bytes.
const TOLD_BYTES_MAX: usize = 4096;

/// Inode number of a btrfs subvolume's root (BTRFS_FIRST_FREE_OBJECTID, kernel: include/uapi/linux/btrfs_tree.h).
const SUBVOLUME_ROOT: u64 = 256;

pub(super) fn around(node: &Node, run: &RoleRun) -> Surroundings {
    let record = node.state.role(&run.name).ok().flatten();
    Surroundings {
        role: run.name.clone(),
        node: node.name(),
        term: record.map(|record| record.term().epoch),
        output: node.config().node.state_dir.join("output"),
    }
}

/// The role leaves this node: nobody reaches it, nothing of it runs. With `urgent`, nothing delays: see the head.
pub async fn stop(node: &Arc<Node>, run: &Arc<RoleRun>, urgent: bool) -> Result<()> {
    if urgent {
        return stop_urgently(node, run).await;
    }
    before(node, run, Moment::BeforeStop).await?;
    close(node, run).await?;
    for address in run.role.play.addresses.iter().rev() {
        address_down(node, run, address).await?;
    }
    for service in run.role.play.services.iter().rev() {
        service_down(node, run, service, false).await?;
    }
    after(node, run, Moment::AfterStop, None).await;
    Ok(())
}

/// Ports, addresses, services: each is tried, whatever became of the others; the first failure is told in the end.
async fn stop_urgently(node: &Arc<Node>, run: &Arc<RoleRun>) -> Result<()> {
    let mut first = Ok(());
    if let Err(error) = close(node, run).await {
        // The services are about to stop: that alone decides.
        node.hub
            .warn(Some(&run.name), format!("could not {error:#}"));
    }
    let mut note = |result: Result<()>| {
        if let Err(error) = result {
            node.hub
                .warn(Some(&run.name), format!("could not {error:#}"));
            if first.is_ok() {
                first = Err(error);
            }
        }
    };
    for address in run.role.play.addresses.iter().rev() {
        note(address_down(node, run, address).await);
    }
    after(node, run, Moment::BeforeStop, Some(HOOK_URGENT)).await;
    for service in run.role.play.services.iter().rev() {
        note(service_down(node, run, service, true).await);
    }
    after(node, run, Moment::AfterStop, Some(HOOK_URGENT)).await;
    first
}

async fn close(node: &Node, run: &RoleRun) -> Result<()> {
    let list = &run.role.play.ports;
    if list.is_empty() {
        return Ok(());
    }
    let began = Instant::now();
    ports::close(&run.name, list).await?;
    let names: Vec<String> = list.iter().map(ToString::to_string).collect();
    done(node, run, began, format!("closed {}", names.join(", ")));
    Ok(())
}

async fn address_down(node: &Node, run: &RoleRun, address: &Address) -> Result<()> {
    let began = Instant::now();
    let held = address::held(address).await?;
    address::down(address).await?;
    if held {
        done(node, run, began, format!("took down address {address}"));
    }
    Ok(())
}

async fn service_down(node: &Node, run: &RoleRun, service: &Service, urgent: bool) -> Result<()> {
    let said = service::stop(service, &around(node, run), urgent).await?;
    tell(node, run, &said.sentence, &said.output);
    Ok(())
}

/// Proves that nothing can write into the live copies any more.
pub async fn prove(node: &Arc<Node>, run: &Arc<RoleRun>) -> Result<()> {
    let paths: Vec<PathBuf> = run
        .role
        .datasets
        .values()
        .map(|dataset| dataset.path().to_owned())
        .collect();
    let end = Instant::now() + LET_GO_MAX;
    let mut pause = Duration::from_millis(20);
    loop {
        let looked = paths.clone();
        let found = blocking(move || offenders(&looked)).await;
        let found = found.with_context(|| format!("see who writes into {}", run.name))?;
        if found.is_empty() {
            node.hub
                .note(Some(&run.name), "nothing can write into the live data");
            return Ok(());
        }
        if Instant::now() >= end {
            return Err(refused(run, &found));
        }
        // What was stopped a moment ago may still be on its way out.
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_millis(500));
    }
}

fn offenders(paths: &[PathBuf]) -> Result<Vec<Writer>> {
    let mut found = Vec::new();
    for path in paths.iter().filter(|path| is_live(path)) {
        found.extend(writers(path)?);
    }
    Ok(found)
}

/// Whether a live copy is there: a directory in its place is part of another filesystem, whose writers are nobody's concern.
fn is_live(path: &Path) -> bool {
    match std::fs::symlink_metadata(path) {
        Ok(facts) => facts.ino() == SUBVOLUME_ROOT,
        Err(error) => error.kind() != std::io::ErrorKind::NotFound,
    }
}

fn refused(run: &RoleRun, found: &[Writer]) -> anyhow::Error {
    let mut named: Vec<String> = found
        .iter()
        .take(WRITERS_NAMED)
        .map(ToString::to_string)
        .collect();
    if found.len() > WRITERS_NAMED {
        named.push(format!("and {} more", found.len() - WRITERS_NAMED));
    }
    let what = format!(
        "see role {} let go of its live data:\n  {}",
        run.name,
        named.join("\n  ")
    );
    let hint = "stop them, and try again; what belongs to the role should be one of its `services`, \
                so that it is stopped with it";
    Failure::new(Code::Refused, what).hint(hint).into()
}

/// The role begins to run here: its services, healthy. Addresses come with [`address`].
pub async fn start(node: &Arc<Node>, run: &Arc<RoleRun>) -> Result<()> {
    open(node, run).await?;
    load::before_start(node, run).await?;
    before(node, run, Moment::BeforeStart).await?;
    for service in &run.role.play.services {
        let said = service::start(service, &around(node, run)).await?;
        tell(node, run, &said.sentence, &said.output);
    }
    load::after_start(node, run).await?;
    after(node, run, Moment::AfterStart, None).await;
    Ok(())
}

async fn open(node: &Node, run: &RoleRun) -> Result<()> {
    let began = Instant::now();
    let closed = match ports::closed(&run.name).await {
        // A machine whose nft does not work closes nothing either.
        Err(error) if run.role.play.ports.is_empty() => {
            tracing::debug!(role = run.name.as_str(), "could not {error:#}");
            false
        }
        answer => answer?,
    };
    if closed {
        ports::open(&run.name).await?;
        done(node, run, began, "opened the ports again".to_owned());
    }
    Ok(())
}

/// Brings the addresses here and tells the neighbours; those that are here already are announced again.
pub async fn address(node: &Arc<Node>, run: &Arc<RoleRun>) -> Result<()> {
    for address in &run.role.play.addresses {
        let began = Instant::now();
        address::up(address).await?;
        done(node, run, began, format!("address {address} is here"));
    }
    Ok(())
}

/// Whether every service of the role runs; true where it has none.
pub async fn runs(node: &Arc<Node>, run: &Arc<RoleRun>) -> Result<bool> {
    for service in &run.role.play.services {
        if !service::runs(service, &around(node, run)).await? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// This node stands in: its ports serve whom they may, its addresses are elsewhere. Services that run nevertheless are
/// warned of and left alone: somebody started them, and they have no live data.
pub async fn standing_in(node: &Arc<Node>, run: &Arc<RoleRun>) -> Result<()> {
    open(node, run).await?;
    for address in &run.role.play.addresses {
        if address::held(address).await? {
            let text = format!("address {address} was here, where the role stands in");
            node.hub.warn(Some(&run.name), text);
            address_down(node, run, address).await?;
        }
    }
    let mut running = Vec::new();
    for service in &run.role.play.services {
        match service::runs(service, &around(node, run)).await {
            Ok(true) => running.push(service.name()),
            Ok(false) => {}
            // Without the live data its health may not even be there to be asked.
            Err(error) => tracing::debug!(role = run.name.as_str(), "could not {error:#}"),
        }
    }
    if !running.is_empty() {
        let names = running.join(", ");
        let text = format!("runs here, where the role stands in: {names}; stop it");
        node.hub.warn(Some(&run.name), text);
    }
    Ok(())
}

/// A hook that may stop the step.
async fn before(node: &Node, run: &RoleRun, moment: Moment) -> Result<()> {
    let Some(called) = run.role.play.hooks.get(&moment) else {
        return Ok(());
    };
    let began = Instant::now();
    let word = moment.word();
    match hook::run(called, moment, &around(node, run), None).await {
        Ok(said) => {
            ended_well(node, run, moment, began, &said);
            Ok(())
        }
        Err(failed) => {
            let what = format!("go past the hook {word} of {}: {failed}", run.name);
            let hint = format!("mend it, or take it out of [role.{}.hooks]", run.name);
            Err(Failure::new(Code::Refused, what).hint(hint).into())
        }
    }
}

/// A hook that only warns.
async fn after(node: &Node, run: &RoleRun, moment: Moment, most: Option<Duration>) {
    let Some(called) = run.role.play.hooks.get(&moment) else {
        return;
    };
    let began = Instant::now();
    let word = moment.word();
    match hook::run(called, moment, &around(node, run), most).await {
        Ok(said) => ended_well(node, run, moment, began, &said),
        Err(failed) => {
            let text = format!("hook {word}: could not {failed}");
            node.hub.warn(Some(&run.name), text);
        }
    }
}

fn ended_well(node: &Node, run: &RoleRun, moment: Moment, began: Instant, said: &str) {
    let (word, took) = (moment.word(), exact_duration(whole_ms(began)));
    let text = format!("hook {word} ended well, after {took}");
    tell(node, run, &text, said);
}

fn whole_ms(began: Instant) -> Duration {
    Duration::from_millis(u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX))
}

fn done(node: &Node, run: &RoleRun, began: Instant, what: String) {
    let took = exact_duration(whole_ms(began));
    node.hub
        .note(Some(&run.name), format!("{what}, after {took}"));
}

/// A sentence, and the end of what a program said.
fn tell(node: &Node, run: &RoleRun, sentence: &str, said: &str) {
    let text = match said {
        "" => sentence.to_owned(),
        said => format!("{sentence}; it said: {}", end_of(said)),
    };
    node.hub.note(Some(&run.name), text);
}

fn end_of(said: &str) -> &str {
    let mut from = said.len().saturating_sub(TOLD_BYTES_MAX);
    while !said.is_char_boundary(from) {
        from += 1;
    }
    &said[from..]
}

/// What stands in the way of moving the role to or from this node.
pub(super) async fn check(run: &RoleRun, active: bool, findings: &mut Vec<Finding>) {
    let play = &run.role.play;
    let subject = format!("role {}", run.name);
    for service in &play.services {
        match service {
            Service::Unit(unit) => match systemd::show(unit).await {
                Ok(facts) => {
                    let complaints = systemd::complaints(unit, &facts).into_iter();
                    findings.extend(complaints.map(|(text, hint)| problem(&subject, text, hint)));
                }
                Err(error) => {
                    let text = format!("cannot {error:#}");
                    let hint = "without systemd, describe the service: [role.ROLE.service.NAME]";
                    findings.push(problem(&subject, text, hint));
                }
            },
            Service::Command(service) => {
                for argv in [&service.start, &service.stop, &service.health] {
                    let of = format!("service {}", service.name);
                    program(run, active, &of, argv, &subject, findings);
                }
            }
        }
    }
    for (moment, hook) in &play.hooks {
        let of = format!("hook {}", moment.word());
        program(run, active, &of, &hook.run, &subject, findings);
    }
    let drill = &run.role.drill;
    for argv in drill.checks.iter().chain(&drill.start).chain(&drill.stop) {
        program(run, active, "drill", argv, &subject, findings);
    }
    if !play.ports.is_empty() && !ports::can_close() {
        let text = "its `ports` cannot be closed: there is no program nft";
        findings.push(problem(&subject, text, ports::INSTALL));
    }
    for address in &play.addresses {
        let text = match address::missing(address).await {
            Ok(None) => continue,
            Ok(Some(text)) => text,
            Err(error) => format!("cannot {error:#}"),
        };
        let text = format!("address {address}: {text}");
        findings.push(problem(
            &subject,
            text,
            "mend `addresses` or this machine's network",
        ));
    }
}

/// A program that a command names and that is not there. Where the role stands in, those inside its live data are not.
fn program(
    run: &RoleRun,
    active: bool,
    of: &str,
    argv: &[String],
    subject: &str,
    findings: &mut Vec<Finding>,
) {
    let Some(name) = argv.first() else { return };
    let mut live = run.role.datasets.values().map(Dataset::path);
    if command::find(name).is_some()
        || (!active && live.any(|live| Path::new(name).starts_with(live)))
    {
        return;
    }
    let text = format!("{of}: there is no program {name} that can be executed");
    findings.push(problem(
        subject,
        text,
        "write its whole path, or install it",
    ));
}
