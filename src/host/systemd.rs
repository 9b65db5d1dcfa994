//! systemd units: started, stopped and looked at through systemctl(1).
//!
//! Promise: nothing is believed that was not looked at afterwards: a stopped unit is one that is inactive or failed and whose
//! control group has no process left, whatever its KillMode. A crash leaves the unit to systemd, which finishes its job.
//!
//! It deliberately does not know roles.

use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use tokio::time::Instant;

use super::command::harmless;
use crate::error::{Code, Failure};
use crate::logic::play::Unit;

/// Longest a start or a stop of a unit may take: beyond the unit's own limits, which systemd enforces (TimeoutStartSec and
/// TimeoutStopSec, 90 s by default, may be set to infinity).
const JOB_MAX: Duration = Duration::from_secs(600);

/// For questions, which systemd answers at once.
const ANSWER_MAX: Duration = Duration::from_secs(20);

/// After a stop, how long the last process may take to leave.
const LEAVE_MAX: Duration = Duration::from_secs(5);

/// Where control groups are: cgroup v2 alone, beside v1, and systemd's own of v1.
const HIERARCHIES: [&str; 3] = [
    "/sys/fs/cgroup",
    "/sys/fs/cgroup/unified",
    "/sys/fs/cgroup/systemd",
];

/// What systemd says of a unit (`systemctl show`).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Facts {
    /// `loaded`, `not-found`, `masked`, `bad-setting`, `error`.
    pub load: String,
    /// `active`, `reloading`, `inactive`, `failed`, `activating`, `deactivating`.
    pub active: String,
    pub sub: String,
    pub result: String,
    /// 0: none.
    pub main_pid: u32,
    /// Empty while it has none.
    pub control_group: String,
    /// `enabled`, `disabled`, `static`, `masked`, ...
    pub file: String,
    /// Units that start this one.
    pub triggered_by: Vec<String>,
}

impl Facts {
    pub fn runs(&self) -> bool {
        matches!(self.active.as_str(), "active" | "reloading")
    }

    fn parse(text: &str) -> Facts {
        let mut facts = Facts::default();
        for (key, word) in text.lines().filter_map(|line| line.split_once('=')) {
            let word = word.to_owned();
            match key {
                "LoadState" => facts.load = word,
                "ActiveState" => facts.active = word,
                "SubState" => facts.sub = word,
                "Result" => facts.result = word,
                "MainPID" => facts.main_pid = word.parse().unwrap_or(0),
                "ControlGroup" => facts.control_group = word,
                "UnitFileState" => facts.file = word,
                "TriggeredBy" => {
                    facts.triggered_by = word.split_whitespace().map(str::to_owned).collect();
                }
                _ => {}
            }
        }
        facts
    }
}

async fn systemctl(arguments: &[&str], limit: Duration) -> Result<Output> {
    let program = super::command::find("systemctl").ok_or_else(|| {
        Failure::new(Code::Failed, "find systemctl: units need systemd")
            .hint("without systemd, describe the service: [role.ROLE.service.NAME]")
    })?;
    let mut command = tokio::process::Command::new(program);
    command.args(arguments).stdin(Stdio::null());
    command.env("LC_ALL", "C").env("SYSTEMD_COLORS", "0");
    // What it says of itself would be taken for a word of the daemon's unit.
    command.env_remove("NOTIFY_SOCKET");
    // Only the question ends with us: what systemd was told to do goes on.
    command.kill_on_drop(true);
    let words = arguments.join(" ");
    match tokio::time::timeout(limit, command.output()).await {
        Ok(output) => output.with_context(|| format!("run systemctl {words}")),
        Err(_) => Err(anyhow!(TooLong { words, limit })),
    }
}

#[derive(Debug, thiserror::Error)]
#[error("see systemctl {words} done within {}", crate::logic::units::exact_duration(*limit))]
struct TooLong {
    words: String,
    limit: Duration,
}

/// What systemd knows of the unit; that there is no such unit is an answer too.
pub async fn show(unit: &Unit) -> Result<Facts> {
    const PROPERTIES: &str = "--property=LoadState,ActiveState,SubState,Result,MainPID,ControlGroup,UnitFileState,TriggeredBy";
    let output = systemctl(&["show", PROPERTIES, "--", unit.as_str()], ANSWER_MAX).await?;
    let facts = Facts::parse(&String::from_utf8_lossy(&output.stdout));
    if !output.status.success() || facts.active.is_empty() {
        let said = harmless(&output.stderr);
        bail!("ask systemd about {}: {said}", unit.as_str());
    }
    Ok(facts)
}

/// Starts it and waits until it is active. What systemd said.
pub async fn start(unit: &Unit) -> Result<String> {
    let name = unit.as_str();
    let output = systemctl(&["start", "--", name], JOB_MAX).await?;
    let facts = show(unit).await?;
    if output.status.success() && facts.runs() {
        return Ok(harmless(&output.stderr));
    }
    let log = match systemctl(
        &["status", "--no-pager", "--lines=15", "--full", "--", name],
        ANSWER_MAX,
    )
    .await
    {
        Ok(output) => harmless(&output.stdout),
        Err(_) => String::new(),
    };
    let (active, result) = (&facts.active, &facts.result);
    let said = harmless(&output.stderr);
    let what = format!("see it run: it is {active} ({result}). {said}\n{log}");
    let hint = match (output.status.success(), facts.load.as_str()) {
        (_, "masked") => format!("systemctl unmask {name}"),
        (_, "not-found") => "install it, or take it out of `services`".to_owned(),
        (true, _) => {
            "it ended at once; a unit that has no process of its own needs RemainAfterExit=yes"
                .to_owned()
        }
        _ => format!("journalctl -u {name} tells more"),
    };
    Err(Failure::new(Code::Failed, what.trim().to_owned())
        .hint(hint)
        .into())
}

/// Stops it and proves that no process of it is left. With a limit, what does not stop within it is killed.
pub async fn stop(unit: &Unit, limit: Option<Duration>) -> Result<String> {
    let name = unit.as_str();
    let before = show(unit).await?;
    if before.load == "not-found" && before.active == "inactive" {
        return Ok("there is no such unit".to_owned());
    }
    let mut words = Vec::new();
    match systemctl(&["stop", "--", name], limit.unwrap_or(JOB_MAX)).await {
        Ok(output) => words.push(harmless(&output.stderr)),
        Err(error) if limit.is_some() && error.is::<TooLong>() => {
            // The job to stop it goes on, so nothing starts it again.
            let output = systemctl(&["kill", "--signal=SIGKILL", "--", name], ANSWER_MAX).await?;
            words.push(format!(
                "it did not stop in time and was killed. {}",
                harmless(&output.stderr)
            ));
        }
        Err(error) => return Err(error),
    }
    let end = Instant::now() + LEAVE_MAX;
    let mut pause = Duration::from_millis(20);
    loop {
        let facts = show(unit).await?;
        let left = processes(&before.control_group);
        let stopped = matches!(facts.active.as_str(), "inactive" | "failed");
        if stopped && left.is_empty() && facts.main_pid == 0 {
            return Ok(words.join("\n").trim().to_owned());
        }
        if Instant::now() >= end {
            let (active, said) = (&facts.active, words.join(" "));
            let what = match left.as_slice() {
                [] => format!("see it stopped: it is {active}. {said}"),
                left => format!(
                    "see the last of its processes gone: it is {active}, and pid {left:?} run on. {said}"
                ),
            };
            let hint =
                format!("systemctl kill --signal=SIGKILL {name}; its KillMode may spare processes");
            return Err(Failure::new(Code::Failed, what.trim().to_owned())
                .hint(hint)
                .into());
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_millis(500));
    }
}

/// Every process in a control group and those below it. A group that is gone has none.
fn processes(control_group: &str) -> Vec<u32> {
    let mut pids = Vec::new();
    // The root is nobody's.
    if control_group.trim_matches('/').is_empty() {
        return pids;
    }
    let inside = control_group.trim_start_matches('/');
    let mut open: Vec<PathBuf> = HIERARCHIES
        .iter()
        .map(|hierarchy| Path::new(hierarchy).join(inside))
        .collect();
    while let Some(dir) = open.pop() {
        let listed = std::fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default();
        pids.extend(listed.lines().filter_map(|line| line.parse::<u32>().ok()));
        let entries = std::fs::read_dir(&dir).into_iter().flatten().flatten();
        let below = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
        open.extend(below.map(|entry| entry.path()));
    }
    pids.sort_unstable();
    pids.dedup();
    pids
}

/// What is wrong with a unit as the service of a role, and what to do about it.
pub fn complaints(unit: &Unit, facts: &Facts) -> Vec<(String, String)> {
    let name = unit.as_str();
    let mut found = Vec::new();
    match facts.load.as_str() {
        "loaded" => {}
        "not-found" => found.push((
            format!("systemd knows no unit {name}"),
            "install it, or take it out of `services`".to_owned(),
        )),
        "masked" => found.push((
            format!("{name} is masked: it cannot be started"),
            format!("systemctl unmask {name}"),
        )),
        load => found.push((
            format!("systemd could not load {name}: {load}"),
            format!("systemctl status {name} tells why"),
        )),
    }
    if matches!(facts.file.as_str(), "enabled" | "enabled-runtime") {
        found.push((
            format!("{name} is started at boot, also where this node stands in: standin starts it"),
            format!("systemctl disable {name}"),
        ));
    }
    if !facts.triggered_by.is_empty() {
        let by = facts.triggered_by.join(", ");
        found.push((
            format!("{name} can be started by {by}, also where this node stands in"),
            format!("put {by} into `services` behind {name}, and disable it at boot"),
        ));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(text: &str) -> Facts {
        Facts::parse(&text.replace(' ', "\n"))
    }

    #[test]
    fn what_systemd_says() {
        let check = |text: &str, runs: bool| assert_eq!(facts(text).runs(), runs, "{text}");
        check("ActiveState=active SubState=running", true);
        check("ActiveState=active SubState=exited", true);
        check("ActiveState=reloading", true);
        check("ActiveState=activating", false);
        check("ActiveState=failed Result=exit-code", false);
        check("", false);
        let all = Facts::parse(
            "MainPID=7\nControlGroup=/system.slice/a=b.service\nTriggeredBy=a.socket b.timer\nX\n",
        );
        assert_eq!(all.main_pid, 7);
        assert_eq!(all.control_group, "/system.slice/a=b.service");
        assert_eq!(all.triggered_by, ["a.socket", "b.timer"]);
    }

    #[test]
    fn what_check_says() {
        let unit = Unit::parse("nginx.service").unwrap();
        let check = |text: &str, count: usize| {
            let found = complaints(&unit, &facts(text));
            assert_eq!(found.len(), count, "{text}: {found:?}");
        };
        check("LoadState=loaded UnitFileState=disabled", 0);
        check("LoadState=loaded UnitFileState=static", 0);
        check("LoadState=loaded UnitFileState=enabled", 1);
        check("LoadState=masked UnitFileState=masked", 1);
        check("LoadState=not-found UnitFileState=", 1);
        check(
            "LoadState=loaded UnitFileState=enabled TriggeredBy=nginx.socket",
            2,
        );
    }

    #[test]
    fn no_group_has_no_processes() {
        assert!(processes("").is_empty());
        assert!(processes("/").is_empty());
        assert!(processes("/no/such/group").is_empty());
    }
}
