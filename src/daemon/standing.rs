//! Where a role stands, for people: what peers said, what would be lost, what lies beside the line.

use anyhow::Result;
use jiff::Timestamp;

use super::api::{Finding, ForksStatus, LossStatus, RoleStatus, ViewStatus, WordStatus};
use super::node::{Node, RoleRun, lock};
use super::{check, clock, heard};
use crate::host::part::RoleRecord;
use crate::logic::fork::Fork;
use crate::logic::manifest::Stored;
use crate::logic::name::NodeName;
use crate::logic::role::State;
use crate::logic::units;

/// The last word of each peer of the role.
pub fn words(node: &Node, run: &RoleRun) -> Result<Vec<WordStatus>> {
    let mut words = Vec::new();
    for peer in &run.role.peers {
        let heard = heard::last(node, run, peer)?;
        let at = heard.as_ref().map(|heard| heard.at);
        let word = heard.map(|heard| heard.word);
        let of = word.as_ref();
        words.push(WordStatus {
            peer: peer.clone(),
            said: at,
            state: of.map(|word| word.state.clone()),
            since: of.and_then(|word| word.figures.since),
            epoch: of.map(|word| word.seen.epoch),
            newest: of.and_then(|word| Some(word.newest.as_ref()?.to_string())),
            taken: of.and_then(|word| word.figures.taken),
        });
    }
    Ok(words)
}

/// What would be lost if this node were promoted now; none where it does not stand in.
pub fn loss(
    node: &Node,
    run: &RoleRun,
    record: &RoleRecord,
    newest: Option<&Stored>,
    now: Timestamp,
) -> Result<Option<LossStatus>> {
    if record.part.state != State::Standby {
        return Ok(None);
    }
    let active = record.term().holder.clone();
    let heard = heard::last(node, run, &active)?;
    let ours = newest.map(|stored| &stored.manifest);
    let theirs = heard.as_ref().and_then(|heard| heard.word.newest.as_ref());
    let missing = theirs.filter(|point| ours.is_none_or(|ours| ours.point.rank() < point.rank()));
    let age = ours.map(|ours| clock::age_s(node, run, &ours.point, ours.taken, now));
    // It said that nothing was written after the very point that is newest here.
    let quiet = heard.as_ref().and_then(|heard| {
        let same = ours.is_some_and(|ours| theirs == Some(&ours.point));
        let quiet = heard.word.figures.quiet_ms.filter(|_| same)?;
        Some(quiet as f64 / 1000.0 + heard.age_s(now))
    });
    let least = |age: f64| quiet.map_or(age, |quiet| quiet.min(age));
    Ok(Some(LossStatus {
        said: heard.as_ref().map(|heard| heard.at),
        exposure_s: age.map(least),
        missing: missing.map(ToString::to_string),
        active,
    }))
}

pub fn forks(forks: &[Fork]) -> Option<ForksStatus> {
    let oldest = forks.iter().map(|fork| fork.found).min()?;
    let bytes = forks
        .iter()
        .map(|fork| Some(fork.measured.as_ref()?.total.bytes));
    Some(ForksStatus {
        count: forks.len(),
        bytes: bytes.sum(),
        oldest,
    })
}

/// For `check`: a role that is away from home, and peers that were never heard of it.
pub fn check(node: &Node, run: &RoleRun, subject: &str, findings: &mut Vec<Finding>) {
    let Ok(Some(record)) = node.record(run) else {
        return;
    };
    let (name, home, active) = (&run.name, &run.role.home, &record.term().holder);
    let settled = *active != node.name() || record.part.plays();
    if home != active && settled {
        let since = away_since(node, run, active).map(|since| {
            let seconds = Timestamp::now().duration_since(since).as_secs_f64();
            format!(" for {}", units::human_duration(seconds.max(0.0)))
        });
        let text = format!(
            "lives on {active}{}; its home is {home}",
            since.unwrap_or_default()
        );
        let there = match *active == node.name() {
            true => String::new(),
            false => format!(", on {active}"),
        };
        let hint = format!(
            "standin failback {name}{there}; or name {active} as its `home` in the configs, if it is to stay"
        );
        findings.push(check::warning(subject, text, hint));
    }
    for peer in &run.role.peers {
        let paired = node.peer(peer).is_some_and(|run| run.peer.key.is_some());
        let linked = node.link(peer).is_ok();
        let silent = heard::last(node, run, peer).is_ok_and(|heard| heard.is_none());
        if paired && !linked && silent {
            let text = format!("{peer} has never said anything of it");
            let hint = format!(
                "is [role.{name}] in the config of {peer}, with this node among its `peers`, and its daemon running?"
            );
            findings.push(check::warning(subject, text, hint));
        }
    }
}

/// Since when the node is active, as far as known.
fn away_since(node: &Node, run: &RoleRun, active: &NodeName) -> Option<Timestamp> {
    if *active == node.name() {
        return node.state.since(&run.name).ok()?.0;
    }
    let word = heard::last(node, run, active).ok()??.word;
    word.figures.since.filter(|_| word.plays)
}

/// For the warnings: somebody should decide about them.
pub fn of_forks(role: &RoleStatus, forks: &ForksStatus, now: Timestamp) -> String {
    let (name, count) = (&role.name, forks.count);
    let plural = if count == 1 { "fork" } else { "forks" };
    let size = forks
        .bytes
        .map_or_else(|| "data of unknown size".to_owned(), units::human_bytes);
    let age = units::human_age(now.duration_since(forks.oldest).as_secs_f64().max(0.0));
    let found = if count == 1 {
        "found"
    } else {
        "the oldest found"
    };
    format!(
        "{name}: {count} {plural} with {size} on this node alone, {found} {age}: standin fork list {name}"
    )
}

/// Datasets that are to be shown, and what can be seen of them.
pub fn views(run: &RoleRun) -> Vec<ViewStatus> {
    let shown = lock(&run.shown);
    let view = |(dataset, path): (&_, &std::path::PathBuf)| ViewStatus {
        dataset: Clone::clone(dataset),
        path: path.clone(),
        shows: shown.get(dataset).cloned(),
    };
    run.role.views.iter().map(view).collect()
}
