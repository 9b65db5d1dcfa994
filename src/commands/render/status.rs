//! `standin status`: the whole picture, its short form for a small terminal, and a line for a log.
//!
//! Promise: one failure is told once, where it belongs: at the peer, else at the role, else among the warnings.

use jiff::Timestamp;

use super::browse::mounts;
use super::drill::last_drill;
use super::transfer::{transfer, transfer_name, transfer_within};
use super::{attention, heading, trouble};
use super::{logs, standing};
use crate::commands::human;
use crate::commands::table::Table;
use crate::daemon::api::{
    DatasetStatus, PeerStatus, PointSummary, ReplicaStatus, RoleStatus, Status,
};
use crate::logic::units;

/// The whole picture. Transfers drop what does not fit into `columns`; none: nothing is dropped.
pub fn status(status: &Status, columns: Option<usize>) -> String {
    let mut lines = vec![node_line(status)];
    for (title, details) in blocks(status) {
        lines.push(String::new());
        lines.push(title);
        lines.extend(details);
    }
    for part in [
        peer_lines(status),
        transfer_lines(status, columns),
        mounts(&status.mounts),
        warning_lines(status),
    ] {
        if !part.is_empty() {
            lines.push(String::new());
            lines.extend(part);
        }
    }
    lines.join("\n")
}

/// The same for a terminal that cannot hold it all: what needs attention stands first.
pub fn status_small(status: &Status, columns: usize) -> String {
    let mut lines = vec![node_line(status)];
    lines.extend(blocks(status).into_iter().map(|(title, _)| title));
    lines.extend(warning_lines(status));
    lines.extend(transfer_lines(status, Some(columns)));
    for (title, details) in blocks(status) {
        // The facts stand above.
        lines.extend(title.split("  ").next().map(str::to_owned));
        lines.extend(details);
    }
    lines.extend(peer_lines(status));
    lines.join("\n")
}

/// The title and the lines of each role; one of both for those that one section of the config stands for.
fn blocks(status: &Status) -> Vec<(String, Vec<String>)> {
    let block = |role: &RoleStatus| match &role.logs {
        None => Some((role_title(role, status.now), role_details(role, status.now))),
        Some(of) => logs::block(status, role)
            .map(|roles| (logs::title(of, &roles), logs::details(&roles, status.now))),
    };
    status.roles.iter().filter_map(block).collect()
}

fn node_line(status: &Status) -> String {
    let node = heading(&format!("node {}", status.node));
    let up = human::between(status.started, status.now);
    let none = if status.roles.is_empty() {
        "\nno roles configured"
    } else {
        ""
    };
    format!("{node}  standin {}, up {up}{none}", status.version)
}

fn transfer_lines(status: &Status, columns: Option<usize>) -> Vec<String> {
    if status.transfers.is_empty() {
        return vec![];
    }
    let mut lines = vec![heading("transfers")];
    for t in &status.transfers {
        let name = transfer_name(t);
        let left = columns.map(|columns| columns.saturating_sub(name.len() + 4));
        let figures = transfer_within(t, left.unwrap_or(usize::MAX));
        lines.push(format!("  {name}  {figures}"));
    }
    lines
}

fn warning_lines(status: &Status) -> Vec<String> {
    let told: Vec<&str> = status.roles.iter().flat_map(failures).collect();
    let news = |warning: &&String| !told.iter().any(|failure| warning.contains(failure));
    let warnings: Vec<&String> = status.warnings.iter().filter(news).collect();
    if warnings.is_empty() {
        return vec![];
    }
    let mut lines = vec![attention("warnings")];
    lines.extend(warnings.iter().map(|warning| format!("  {warning}")));
    lines
}

/// The failures of a role that are told with it.
fn failures(role: &RoleStatus) -> impl Iterator<Item = &str> {
    let replicas = role.replicas.iter();
    let errors = replicas.flat_map(|of| [&of.last_error, &of.waiting, &of.absent]);
    let errors = errors.chain([&role.last_error]).flatten();
    let drill = role.drill.iter().filter_map(|last| last.failure.as_ref());
    errors
        .chain(drill)
        .map(|error| first_line(error))
        .filter(|error| !error.is_empty())
}

/// The reason without its hint.
fn first_line(error: &str) -> &str {
    error.lines().next().unwrap_or_default()
}

/// One line per role, for a log or a pipe.
pub fn status_brief(status: &Status) -> String {
    let mut lines: Vec<String> = Vec::new();
    for role in &status.roles {
        let mut parts = vec![format!(
            "{} {} {}",
            human::local_zoned(status.now),
            role.name,
            role.state
        )];
        parts.push(format!(
            "newest {}",
            newest(role.newest.as_ref(), status.now)
        ));
        for replica in &role.replicas {
            parts.push(format!("{} exposure {}", replica.peer, exposure(replica)));
        }
        if let Some(phase) = &role.phase {
            parts.push(phase.clone());
        }
        if let Some(error) = &role.last_error {
            parts.push(format!("last error: {error}"));
        }
        lines.push(parts.join(", "));
    }
    let transfers = status.transfers.iter();
    lines.extend(transfers.map(|t| format!("  {}  {}", transfer_name(t), transfer(t))));
    lines.join("\n")
}

/// `role web  active, term 1 (alder), every 5m, next in 2m`.
fn role_title(role: &RoleStatus, now: Timestamp) -> String {
    let mut facts = vec![state(role, now)];
    if let Some(term) = &role.term {
        facts.push(format!("term {term}"));
    }
    if role.paused {
        facts.push(attention("paused"));
    }
    match (&role.phase, role.next_run) {
        (Some(phase), _) => facts.push(format!("running: {phase}")),
        (None, Some(next)) => facts.push(format!(
            "every {}, next in {}",
            role.every,
            human::between(now, next)
        )),
        (None, None) if role.state == "active" => facts.push(format!("every {}", role.every)),
        (None, None) => {}
    }
    let title = heading(&format!("role {}", role.name));
    format!("{title}  {}", facts.join(", "))
}

fn role_details(role: &RoleStatus, now: Timestamp) -> Vec<String> {
    let mut lines = standing::outlook(role);
    let good = match role.last_good {
        Some(good) if is_active(role) => format!("   last good cycle {}", human::ago(good, now)),
        _ => String::new(),
    };
    lines.push(format!(
        "  newest point  {}   {} here{good}",
        newest(role.newest.as_ref(), now),
        human::count(role.points, "point"),
    ));
    lines.push(last_drill(role, now));
    lines.extend(standing::loss(role, now));
    let of_replicas = role.replicas.iter().filter_map(|r| r.last_error.as_deref());
    let of_replicas: Vec<&str> = of_replicas.map(first_line).collect();
    match role.last_error.as_deref().map(first_line) {
        Some(error) if !of_replicas.contains(&error) => {
            lines.push(format!("  {}  {error}", trouble("last cycle failed")));
        }
        _ => {}
    }
    if !role.replicas.is_empty() {
        let mut table = Table::new(["PEER", "IS", "HOLDS", "EXPOSURE", "BEHIND", "HAND-OVER"]);
        for replica in &role.replicas {
            table.row(replica_row(role, replica, now));
        }
        let mut rows = table.lines("  ").into_iter();
        lines.extend(rows.next());
        for (replica, row) in role.replicas.iter().zip(rows) {
            lines.push(row);
            lines.extend(replica_trouble(replica, now));
        }
    }
    lines.extend(standing::words(role, now));
    lines.extend(role.datasets.iter().map(dataset_line));
    lines.extend(standing::views(role));
    lines
}

/// What keeps a peer behind, and when it is tried again.
pub(super) fn replica_trouble(replica: &ReplicaStatus, now: Timestamp) -> Vec<String> {
    let again = match replica.retry_at {
        Some(at) if at > now => format!(", next try in {}", human::between(now, at)),
        Some(_) => ", trying again now".to_owned(),
        None => String::new(),
    };
    let said = match (&replica.waiting, &replica.last_error) {
        (Some(waiting), _) => Some(attention(&format!("{waiting}{again}"))),
        (None, Some(error)) => Some(trouble(&format!("{}{again}", first_line(error)))),
        (None, None) => None,
    };
    let absent = replica.absent.as_deref().map(attention);
    let lines = said.into_iter().chain(absent);
    lines.map(|line| format!("    {line}")).collect()
}

fn dataset_line(dataset: &DatasetStatus) -> String {
    let space = match (dataset.free_bytes, dataset.total_bytes) {
        (Some(free), Some(total)) => {
            let (free, total) = (units::human_bytes(free), units::human_bytes(total));
            format!("  {free} free of {total}")
        }
        _ => String::new(),
    };
    let path = dataset.path.display();
    format!("  dataset {}  {path}{space}", dataset.name)
}

fn is_active(role: &RoleStatus) -> bool {
    role.state == "active"
}

/// `active since 3d 4h`, `standby (active is alder since 3d 4h)`.
fn state(role: &RoleStatus, now: Timestamp) -> String {
    let since = |since: Option<Timestamp>| match since {
        Some(since) => format!(" since {}", human::between(since, now)),
        None => String::new(),
    };
    match &role.active {
        _ if is_active(role) => format!("active{}", since(role.since)),
        // The term is this node's own, and it is not active under it.
        Some(active) if !role.words.iter().any(|word| word.peer == *active) => role.state.clone(),
        Some(active) => {
            let word = role.words.iter().find(|word| word.peer == *active);
            let theirs = word.filter(|word| word.state.as_deref() == Some("active"));
            let since = since(theirs.and_then(|word| word.since));
            format!("{} (active is {active}{since})", role.state)
        }
        None => role.state.clone(),
    }
}

fn replica_row(role: &RoleStatus, replica: &ReplicaStatus, now: Timestamp) -> [String; 6] {
    let word = role.words.iter().find(|word| word.peer == replica.peer);
    let is = word.and_then(|word| word.state.clone());
    let behind = match replica.behind {
        0 => "-".to_owned(),
        points => human::count(points, "point"),
    };
    [
        replica.peer.to_string(),
        is.unwrap_or_else(|| "-".to_owned()),
        newest(replica.newest.as_ref(), now),
        exposure(replica),
        behind,
        standing::handover(replica),
    ]
}

pub(super) fn exposure(replica: &ReplicaStatus) -> String {
    match (replica.exposure_s, &replica.newest) {
        (Some(seconds), Some(_)) if seconds <= 0.0 => "nothing".into(),
        (Some(seconds), Some(_)) => {
            let span = match seconds {
                seconds if seconds < 1.0 => "under 1s".into(),
                seconds => units::human_duration(seconds),
            };
            let bytes = replica.exposure_bytes;
            let bytes = bytes.map_or("size unknown".into(), units::human_bytes);
            format!("{span}, {bytes}")
        }
        (_, None) => "everything".into(),
        (None, Some(_)) => "unknown".into(),
    }
}

pub(super) fn newest(point: Option<&PointSummary>, now: Timestamp) -> String {
    point.map_or("none".into(), |point| {
        let age = human::ago(point.taken, now);
        match point.consistent {
            Some(false) => {
                let spoilt = attention("databases not consistent: standin points");
                format!("{} ({age}; {spoilt})", point.short)
            }
            Some(true) | None => format!("{} ({age})", point.short),
        }
    })
}

fn peer_lines(status: &Status) -> Vec<String> {
    if status.peers.is_empty() {
        return vec![];
    }
    let mut table = Table::new(["PEER", "LINK", "", "VERSION", ""]);
    for peer in &status.peers {
        let since = peer.since.map_or(String::new(), |since| {
            format!("{}, ", human::between(since, status.now))
        });
        let link = match (peer.paired, peer.linked) {
            (false, _) => attention("not paired"),
            (true, true) => "up".into(),
            (true, false) => trouble("down"),
        };
        let measured = peer
            .rtt_ms
            .map(|ms| format!("{ms:.0} ms"))
            .unwrap_or_default();
        let since = format!("{since}{measured}");
        table.row([
            peer.name.to_string(),
            link,
            since.trim_end_matches(", ").to_owned(),
            peer.version.clone().unwrap_or_default(),
            peer_remark(peer, status.now),
        ]);
    }
    table.lines("")
}

/// What is worth a look about a peer.
fn peer_remark(peer: &PeerStatus, now: Timestamp) -> String {
    if !peer.paired {
        return "pair it: standin pair invite".into();
    }
    if let (false, Some(error)) = (peer.linked, &peer.last_error) {
        return error.clone();
    }
    let mut remarks = Vec::new();
    if let Some(difference) = peer.clock_difference_s.filter(|s| s.abs() >= 2.0) {
        let words = if difference > 0.0 { "ahead" } else { "behind" };
        remarks.push(attention(&format!(
            "its clock is {} {words}",
            units::human_duration(difference.abs())
        )));
    }
    remarks.extend(limit(peer, now));
    remarks.join(", ")
}

/// `at most 250kB/s until 20:00`; nothing where there is no limit, now or later.
fn limit(peer: &PeerStatus, now: Timestamp) -> Option<String> {
    let rate = peer
        .limit
        .map(|rate| format!("at most {}", units::exact_rate(rate)));
    match (rate, peer.limit_until) {
        (rate, None) => rate,
        (rate, Some(until)) => {
            let rate = rate.unwrap_or_else(|| "no limit".to_owned());
            Some(format!("{rate} until {}", human::soon(until, now)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::samples;
    use expect_test::expect;

    #[test]
    fn an_active_node_in_the_middle_of_a_transfer() {
        console::set_colors_enabled(false);
        expect![[r#"
            node alder  standin 0.1.0, up 4h 5m

            role web  active since 3d 4h, term 1 (alder), running: transfer
              newest point  1.43 (40s ago)   43 points here   last good cycle 4m 35s ago
              drill  passed 3m ago (1.42, 12s)
              PEER   IS       HOLDS              EXPOSURE          BEHIND     HAND-OVER
              birch  standby  1.42 (5m 40s ago)  5m 40s, 12.0 MiB  1 point    about 3 s
              cedar  -        none               everything        43 points  -
                cedar is not paired
              dataset files  /srv/web  40.0 GiB free of 100.0 GiB

            PEER   LINK                       VERSION
            birch  up          2h 35m, 12 ms  0.1.0    its clock is 3.2s ahead, at most 250kB/s until 20:00
            cedar  not paired                          pair it: standin pair invite

            transfers
              web/files -> birch  1.43 on 1.42   61 %  1.2 of 2.0 GiB  34.0 MiB/s  24s left  resumed at 512.0 MiB  the link is the slow side  var/www/video/intro.mp4

            warnings
              web: files holds a swap file, which is not replicated: swap.img"#]].assert_eq(&status(&samples::status(), None));
    }

    #[test]
    fn nothing_configured() {
        console::set_colors_enabled(false);
        let bare = Status {
            roles: vec![],
            peers: vec![],
            transfers: vec![],
            warnings: vec![],
            ..samples::status()
        };
        expect![[r#"
            node alder  standin 0.1.0, up 4h 5m
            no roles configured"#]]
        .assert_eq(&status(&bare, None));
    }

    #[test]
    fn one_failure_is_told_once() {
        console::set_colors_enabled(false);
        let mut broken = samples::status();
        let error = "could not send files to birch: the link went down";
        broken.roles[0].last_error = Some(error.into());
        broken.roles[0].replicas[0].last_error = Some(format!("{error}\nhint: wait"));
        broken
            .warnings
            .push(format!("web: the last cycle failed: {error}"));
        let check = |text: &str| assert_eq!(text.matches(error).count(), 1, "{text}");
        check(&status(&broken, None));
        check(&status_small(&broken, 200));
        broken.roles[0].replicas.clear();
        check(&status(&broken, None));
    }

    #[test]
    fn a_small_terminal_shows_what_needs_attention_first() {
        console::set_colors_enabled(false);
        expect![[r#"
            node alder  standin 0.1.0, up 4h 5m
            role web  active since 3d 4h, term 1 (alder), running: transfer
            warnings
              web: files holds a swap file, which is not replicated: swap.img
            transfers
              web/files -> birch  1.43 on 1.42   61 %  1.2 of 2.0 GiB  34.0 MiB/s  24s left
            role web
              newest point  1.43 (40s ago)   43 points here   last good cycle 4m 35s ago
              drill  passed 3m ago (1.42, 12s)
              PEER   IS       HOLDS              EXPOSURE          BEHIND     HAND-OVER
              birch  standby  1.42 (5m 40s ago)  5m 40s, 12.0 MiB  1 point    about 3 s
              cedar  -        none               everything        43 points  -
                cedar is not paired
              dataset files  /srv/web  40.0 GiB free of 100.0 GiB
            PEER   LINK                       VERSION
            birch  up          2h 35m, 12 ms  0.1.0    its clock is 3.2s ahead, at most 250kB/s until 20:00
            cedar  not paired                          pair it: standin pair invite"#]]
        .assert_eq(&status_small(&samples::status(), 80));
    }
}
