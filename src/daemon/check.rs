//! `check`: compares the config with the machine and the peers, and says what to do about each difference.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Result;

use super::api::{CheckReport, Finding, Level};
use super::cycle::first_line;
use super::node::{Contact, Node, PeerRun, RoleRun, blocking, lock};
use crate::error::{Code, Failure};
use crate::fs::{AfterReboot, FsError, Live, Scan, Space, nested_sentence};
use crate::logic::name::{DatasetName, NodeName};
use crate::logic::role::State;
use crate::logic::transfer::Kind;
use crate::logic::units;
use crate::peer::message::plain;

/// Clocks that differ by more make times in lists confusing (order never depends on them).
const CLOCK_DIFFERENCE_MAX_S: f64 = 5.0;

/// The sending side of stream protocol 2 and the new mount calls are there from this kernel on.
const KERNEL_MIN: (u32, u32) = (6, 1);

pub async fn check(node: &Arc<Node>) -> Result<CheckReport> {
    let mut findings = vec![ok(
        "config",
        format!("{} is valid", node.config().path.display()),
    )];
    kernel(&mut findings);
    if let Some(doubt) = super::clock::look(node).await? {
        let hint = "if it is wrong, set it, and run a time service (systemd-timesyncd, chrony)";
        findings.push(warning("clock", super::clock::sentence(&doubt), hint));
    }
    for run in node.peers() {
        findings.push(peer(&node.name(), &run));
    }
    if node.config().peers.is_empty() {
        let hint = "`standin pair invite` here, then `standin pair accept LINE` on the other node";
        findings.push(warning("peers", "none: nothing is replicated", hint));
    }
    if node.config().roles.is_empty() {
        findings.push(warning(
            "roles",
            "none: nothing is snapshotted",
            "add [role.NAME] to the config, then `standin reload`",
        ));
    }
    super::drift::check(node, &mut findings).await;
    for run in node.roles() {
        role(node, &run, &mut findings).await?;
    }
    Ok(CheckReport { findings })
}

fn finding(
    level: Level,
    subject: impl Into<String>,
    text: impl Into<String>,
    hint: Option<String>,
) -> Finding {
    Finding {
        level,
        subject: subject.into(),
        text: text.into(),
        hint,
    }
}

pub(super) fn ok(subject: impl Into<String>, text: impl Into<String>) -> Finding {
    finding(Level::Ok, subject, text, None)
}

pub(super) fn warning(
    subject: impl Into<String>,
    text: impl Into<String>,
    hint: impl Into<String>,
) -> Finding {
    finding(Level::Warning, subject, text, Some(hint.into()))
}

pub(super) fn problem(
    subject: impl Into<String>,
    text: impl Into<String>,
    hint: impl Into<String>,
) -> Finding {
    finding(Level::Problem, subject, text, Some(hint.into()))
}

/// What could not be done.
pub(super) fn failing(subject: &str, error: &anyhow::Error) -> Finding {
    let hint = Failure::of(error).and_then(|failure| failure.hint.clone());
    finding(
        Level::Problem,
        subject,
        format!("could not {error:#}"),
        hint,
    )
}

fn kernel(findings: &mut Vec<Finding>) {
    let release = rustix::system::uname()
        .release()
        .to_string_lossy()
        .into_owned();
    let mut parts = release
        .split(|c: char| !c.is_ascii_digit())
        .map(|part| part.parse::<u32>().unwrap_or(0));
    let version = (parts.next().unwrap_or(0), parts.next().unwrap_or(0));
    let streams = crate::fs::btrfs::stream_version_max();
    findings.push(if version < KERNEL_MIN {
        let (major, minor) = KERNEL_MIN;
        let hint = format!("{major}.{minor} or newer is what standin is tested on");
        warning("kernel", format!("{release} is old"), hint)
    } else if streams < 2 {
        warning(
            "kernel",
            format!("{release}: send streams of protocol 1 only"),
            "holes are sent as zeros until both kernels know protocol 2",
        )
    } else {
        ok(
            "kernel",
            format!("{release}, send streams up to protocol {streams}"),
        )
    });
}

fn peer(here: &NodeName, run: &PeerRun) -> Finding {
    let subject = format!("peer {}", run.peer.name);
    if run.peer.key.is_none() {
        let hint = "`standin pair invite` on one node, `standin pair accept LINE` on the other";
        return problem(subject, "not paired: no key is pinned", hint);
    }
    let contact = lock(&run.contact);
    let Some(linked) = &contact.link else {
        let (text, hint) = no_link(here, run, &contact);
        return problem(subject, text, hint);
    };
    let (theirs, ours) = (
        plain(&linked.link.hello().version),
        env!("CARGO_PKG_VERSION"),
    );
    let seconds = linked.link.clock_difference_s();
    if seconds.abs() > CLOCK_DIFFERENCE_MAX_S {
        let direction = if seconds > 0.0 { "ahead of" } else { "behind" };
        let text = format!(
            "linked, but its clock is {} {direction} ours",
            units::human_duration(seconds.abs())
        );
        return warning(
            subject,
            text,
            "run a time service (systemd-timesyncd, chrony) on both nodes",
        );
    }
    let rtt = linked
        .link
        .rtt_ms()
        .map(|ms| format!(", round trip {ms:.0} ms"))
        .unwrap_or_default();
    if theirs != ours {
        return ok(
            subject,
            format!("linked{rtt}; it runs standin {theirs}, this node {ours}"),
        );
    }
    ok(subject, format!("linked{rtt}, standin {theirs}"))
}

/// Why there is no link, and what to do.
fn no_link(here: &NodeName, run: &PeerRun, contact: &Contact) -> (String, String) {
    let dialled = run.peer.address.is_some() || run.peer.via.is_some();
    match (&contact.last_error, &contact.last_hint) {
        (Some(why), hint) => {
            let usual = || "is its daemon running, and the address right?".to_owned();
            // An attempt that failed, or how the last link ended.
            let verb = if why.starts_with("link to ") {
                "could not "
            } else {
                ""
            };
            (
                format!("no link: {verb}{why}"),
                hint.clone().unwrap_or_else(usual),
            )
        }
        (None, _) if dialled => (
            "no link yet: it is being dialled".to_owned(),
            "look again in a moment".to_owned(),
        ),
        (None, _) => (
            "no link: it has no `address` here, and has not dialled in".to_owned(),
            format!(
                "is its daemon running, and the address of {here} right in its config? Or give it an `address` here"
            ),
        ),
    }
}

async fn role(node: &Arc<Node>, run: &Arc<RoleRun>, findings: &mut Vec<Finding>) -> Result<()> {
    let subject = format!("role {}", run.name);
    let (active, unread) = match node.record(run) {
        Ok(record) => (record.is_some_and(|record| record.active()), None),
        Err(error) => (false, Some(failing(&subject, &error))),
    };
    let config = node.config();
    let unknown = |peer: &&NodeName| !config.peers.contains_key(*peer);
    findings.extend(run.role.peers.iter().filter(unknown).map(|peer| {
        let text = format!("its peer {peer} has no [peer.{peer}]");
        problem(&subject, text, "pair with it")
    }));
    if active {
        standbys(node, run, &subject, findings).await;
    }
    super::standing::check(node, run, &subject, findings);
    damaged(node, run, &subject, findings).await;
    forks(run, &subject, findings).await;
    views(node, run, findings).await;
    super::seed::check(node, run, findings).await;
    super::play::check(run, active, findings).await;
    if active {
        super::bracket::check(node, run, findings).await;
    }
    if run.role.peers.is_empty() {
        let text = "no peers: points stay on this node alone";
        findings.push(warning(&subject, text, "add peers = [\"NAME\"]"));
    }
    ground(run, &subject, findings).await;
    datasets(node, run, active, findings).await;
    findings.extend(unread);
    // What is said of a dataset need not be said of the role too.
    let role = format!("role {}", run.name);
    let of_datasets: Vec<String> = findings
        .iter()
        .filter(|finding| finding.subject != role)
        .map(|finding| finding.text.clone())
        .collect();
    findings.retain(|finding| finding.subject != role || !of_datasets.contains(&finding.text));
    Ok(())
}

/// What the datasets stand on.
async fn ground(run: &Arc<RoleRun>, subject: &str, findings: &mut Vec<Finding>) {
    let fs = run.fs.clone();
    for ground in blocking(move || Ok(fs.ground())).await.unwrap_or_default() {
        findings.push(told(
            subject,
            ground.sentence,
            ground.hint,
            ground.is_problem,
        ));
    }
}

/// Every dataset of the role: its live copy, room, and what a reboot will show.
async fn datasets(node: &Arc<Node>, run: &Arc<RoleRun>, active: bool, findings: &mut Vec<Finding>) {
    for dataset in run.fs.datasets().keys() {
        let (fs, name) = (run.fs.clone(), dataset.clone());
        let looked = blocking(move || {
            fs.prepare()?;
            let live = match fs.live(&name, Scan::Whole) {
                Err(error)
                    if matches!(error.downcast_ref::<FsError>(), Some(FsError::Missing(_))) =>
                {
                    None
                }
                Err(error) if !active => {
                    let failure = Failure::new(Code::Failed, "find the place of the live copy free");
                    return Err(error.context(failure.hint(
                        "this node stands in for the role: what is at that path is in the way when it takes over; move it away",
                    )));
                }
                live => Some(live?),
            };
            Ok((live, fs.space(&name)?, fs.after_reboot(&name)?))
        })
        .await;
        let subject = format!("dataset {}/{dataset}", run.name);
        match looked {
            Ok((live, space, after)) => {
                findings.extend(occupied(&subject, (node, run), (dataset, live.as_ref())));
                dataset_findings(&subject, (run, dataset), active, live, space, findings);
                // What another node writes has no live path here.
                if active || run.role.logs.is_none() {
                    findings.push(reboot(&subject, after));
                }
            }
            Err(error) => findings.push(failing(&subject, &error)),
        }
    }
}

/// A live copy where none should be.
fn occupied(
    subject: &str,
    (node, run): (&Node, &RoleRun),
    (dataset, live): (&DatasetName, Option<&Live>),
) -> Option<Finding> {
    let live = live?.path.display();
    let record = node.record(run).ok().flatten()?;
    if record.part.state != State::Standby {
        return None;
    }
    let text = format!("a live copy is at {live}, though this node stands in");
    let hint = format!(
        "when this node takes over, what is in it becomes a fork; where nobody needs it: {}",
        run.fs.how_to_remove(dataset)
    );
    Some(warning(subject, text, hint))
}

/// What a reboot will show at the live path.
fn reboot(subject: &str, after: AfterReboot) -> Finding {
    told(subject, after.sentence, after.hint, after.is_problem)
}

fn told(subject: &str, sentence: String, hint: Option<String>, is_problem: bool) -> Finding {
    match hint {
        None => ok(subject, sentence),
        Some(hint) if is_problem => problem(subject, sentence, hint),
        Some(hint) => warning(subject, sentence, hint),
    }
}

/// Datasets that are to be shown, and whether they can be.
async fn views(node: &Arc<Node>, run: &Arc<RoleRun>, findings: &mut Vec<Finding>) {
    for (dataset, at, shown) in super::view::look(node, run).await {
        let subject = format!("dataset {}/{dataset}", run.name);
        let at = at.display();
        findings.push(match shown {
            Ok(()) => ok(subject, format!("shown read-only at {at}")),
            Err(error) => {
                let hint = Failure::of(&error).and_then(|failure| failure.hint.clone());
                let text = format!("cannot be shown at {at}: {error:#}");
                finding(Level::Problem, subject, text, hint)
            }
        });
    }
}

/// Points that are not used any more, here and, as far as known, on the peers.
async fn damaged(node: &Node, run: &RoleRun, subject: &str, findings: &mut Vec<Finding>) {
    let fs = run.fs.clone();
    // A filesystem that cannot be looked at has a finding of its own.
    let Ok((found, aside)) = blocking(move || Ok((fs.inspect()?, fs.kept_aside()?))).await else {
        return;
    };
    let role = &run.name;
    for damaged in found.damaged {
        let hint = format!("standin rescan {role} fetches it again from a peer that holds it");
        findings.push(problem(subject, damaged.sentence(&node.name()), hint));
    }
    for (peer, replica) in &*lock(&run.replicas) {
        for damaged in &replica.damaged {
            let hint = format!("standin rescan {role}, on {peer}, fetches it again");
            findings.push(warning(subject, plain(&damaged.sentence(peer)), hint));
        }
    }
    for kept in aside {
        let (short, path) = (kept.damaged.short(), &kept.path);
        findings.push(warning(
            subject,
            format!(
                "{short}, which {}, is kept aside in {path}",
                kept.damaged.why
            ),
            match run.fs.kind() {
                Kind::Btrfs => "when nobody needs it, delete its snapshots (btrfs subvolume delete), then the directory (rm -r)",
                Kind::Zfs => "docs/zfs.md tells how to remove it when nobody needs it",
            },
        ));
    }
}

/// Forks lie on this node alone: they are nobody's backup, and somebody should decide about them.
async fn forks(run: &RoleRun, subject: &str, findings: &mut Vec<Finding>) {
    let fs = run.fs.clone();
    // A filesystem that cannot be looked at has a finding of its own.
    let forks = blocking(move || fs.forks()).await.unwrap_or_default();
    for fork in forks {
        let (role, short) = (&run.name, fork.short());
        let size = match &fork.measured {
            Some(measure) => units::human_bytes(measure.total.bytes),
            None => "data of unknown size".to_owned(),
        };
        let text = format!(
            "fork {short} holds {size} that lie on this node alone ({})",
            fork.why.phrase()
        );
        let hint = format!(
            "standin fork diff {role} {short} shows it; standin fork export keeps a copy elsewhere, standin fork discard \
             lets it go"
        );
        findings.push(warning(subject, text, hint));
    }
}

/// Asks each linked peer whether it would take this role's points.
async fn standbys(
    node: &Arc<Node>,
    run: &Arc<RoleRun>,
    subject: &str,
    findings: &mut Vec<Finding>,
) {
    for peer in &run.role.peers {
        let absent = lock(&run.watched)
            .get(peer)
            .and_then(|watched| watched.sentence.clone());
        if let Some(absent) = absent {
            let hint =
                "bring it back, remove it (`standin pair remove`), or set `keep-for-absent-peers`";
            findings.push(warning(subject, absent, hint));
        }
        let replica = lock(&run.replicas).get(peer).cloned().unwrap_or_default();
        if let Some(waiting) = replica.waiting {
            let (said, hint) = match (waiting.sentence, replica.last_error) {
                (Some(said), _) => (
                    said,
                    "free some space there; the transfer goes on by itself",
                ),
                (None, error) => (
                    first_line(&error.unwrap_or_default()),
                    "it is tried again by itself; `standin status` says when, and the log tells more",
                ),
            };
            findings.push(warning(subject, said, hint));
        }
        let linked = node
            .peer(peer)
            .is_some_and(|run| lock(&run.contact).link.is_some());
        if !linked {
            continue;
        }
        findings.push(match super::replicate::probe(node, run, peer).await {
            Ok(()) if run.role.logs.is_some() => ok(subject, format!("{peer} keeps a copy of it")),
            Ok(()) => ok(subject, format!("{peer} stands in for it")),
            Err(error) => failing(subject, &error),
        });
    }
}

/// The lines that make a nested subvolume a dataset of the role.
fn as_dataset(run: &RoleRun, path: &Path) -> String {
    let role = &run.name;
    let Some(text) = path.to_str() else {
        return "its name is not UTF-8, which the config cannot spell: rename it first".to_owned();
    };
    let words = path.file_name().unwrap_or_default().to_string_lossy();
    let tame: String = words
        .chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() {
                c.to_ascii_lowercase()
            } else {
                '-'
            }
        })
        .collect();
    let taken = |name: &str| run.fs.datasets().keys().any(|other| other.as_str() == name);
    let names = (1..100).map(|number| match number {
        1 => tame.clone(),
        _ => format!("{}-{number}", tame.chars().take(40).collect::<String>()),
    });
    let mut names = names.filter(|name| DatasetName::parse(name).is_ok() && !taken(name));
    let name = names.next().unwrap_or_else(|| "NAME".to_owned());
    // A basic string of TOML and a string of JSON are escaped alike.
    let quoted = serde_json::Value::from(text).to_string();
    format!(
        "to have it replicated, add this to the config of every node of the role, then `standin reload`:\n\
         [role.{role}.dataset.{name}]\nbtrfs = {quoted}"
    )
}

fn dataset_findings(
    subject: &str,
    (run, dataset): (&RoleRun, &DatasetName),
    active: bool,
    live: Option<Live>,
    space: Space,
    findings: &mut Vec<Finding>,
) {
    let path = run.fs.datasets()[dataset].display().to_string();
    match &live {
        Some(live) => {
            findings.push(ok(
                subject,
                format!(
                    "{path}, {} of {} free",
                    units::human_bytes(space.free),
                    units::human_bytes(space.total)
                ),
            ));
            for lost in &live.not_replicated {
                let is_it = |path: &&PathBuf| nested_sentence(path) == *lost;
                let hint = match live.nested.iter().find(is_it) {
                    Some(nested) => as_dataset(run, &live.path.join(nested)),
                    None => "accept that it stays behind when a peer takes over, or do without it"
                        .to_owned(),
                };
                findings.push(warning(subject, format!("not replicated: {lost}"), hint));
            }
            for prevents in &live.prevents {
                let hint = "swapoff it, and move it to a subvolume of its own outside the dataset";
                findings.push(problem(subject, prevents, hint));
            }
        }
        None if active => {
            findings.push(problem(
                subject,
                format!("{path} does not exist"),
                run.fs.how_to_create(dataset),
            ));
        }
        // With too little space the finding below says all there is to say.
        None if space.free < run.role.reserve => {}
        None => findings.push(ok(
            subject,
            format!(
                "{}; {} free for points, above the reserve of {}",
                match run.role.logs {
                    None => format!("{path} has no live copy, as it should be"),
                    Some(_) => format!("written on {} alone", run.role.home),
                },
                units::human_bytes(space.free - run.role.reserve),
                units::human_bytes(run.role.reserve)
            ),
        )),
    }
    let reserve = run.role.reserve;
    if space.free < reserve {
        let text = format!(
            "{} free is less than the reserve of {}",
            units::human_bytes(space.free),
            units::human_bytes(reserve)
        );
        findings.push(problem(
            subject,
            text,
            "free some space, or lower `reserve`",
        ));
    }
}
