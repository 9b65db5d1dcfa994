//! `standin status`, and the one-line form of a transfer that progress shows too.

use jiff::Timestamp;

use super::{attention, heading, trouble};
use crate::commands::human;
use crate::commands::table::Table;
use crate::daemon::api::{PeerStatus, PointSummary, ReplicaStatus, RoleStatus, Status};
use crate::logic::progress::{Bottleneck, Direction, TransferView};
use crate::logic::units;

/// The whole picture.
pub fn status(status: &Status) -> String {
    let mut lines = vec![format!(
        "{}  standin {}, up {}",
        heading(&format!("node {}", status.node)),
        status.version,
        human::between(status.started, status.now),
    )];
    if status.roles.is_empty() {
        lines.push("no roles configured".into());
    }
    for role in &status.roles {
        lines.push(String::new());
        lines.extend(role_lines(role, status));
    }
    if !status.peers.is_empty() {
        lines.push(String::new());
        lines.extend(peer_lines(status));
    }
    if !status.transfers.is_empty() {
        lines.push(String::new());
        lines.push(heading("transfers"));
        let shown = status.transfers.iter();
        lines.extend(shown.map(|t| format!("  {}  {}", transfer_name(t), transfer(t))));
    }
    if !status.warnings.is_empty() {
        lines.push(String::new());
        lines.push(attention("warnings"));
        lines.extend(status.warnings.iter().map(|w| format!("  {w}")));
    }
    lines.join("\n")
}

/// One line per role, for a log or a pipe.
pub fn status_brief(status: &Status) -> String {
    let mut lines: Vec<String> = Vec::new();
    for role in &status.roles {
        let mut parts = vec![format!(
            "{} {} {}",
            human::local(status.now),
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

/// `web/files -> birch  1.43 on 1.42`.
fn transfer_name(t: &TransferView) -> String {
    let arrow = match t.direction {
        Direction::Sending => "->",
        Direction::Receiving => "<-",
    };
    let base = t.base.as_ref().map_or("whole".to_owned(), |base| {
        format!("on {}.{}", base.epoch, base.sequence)
    });
    format!(
        "{}/{} {arrow} {}  {}.{} {base}",
        t.role, t.dataset, t.peer, t.point.epoch, t.point.sequence
    )
}

/// `61 %  1.2 of 2.0 GiB  34 MiB/s  23s left  link is the slow side  var/www/x.jpg`.
pub fn transfer(t: &TransferView) -> String {
    let percent = match t.total_bytes {
        0 => 100,
        total => (t.done_bytes.min(total) as f64 * 100.0 / total as f64) as u64,
    };
    let mut parts = vec![
        format!("{percent:3} %"),
        human::part(t.done_bytes, t.total_bytes),
        units::human_rate(t.rate),
    ];
    if let Some(eta) = t.eta_s {
        parts.push(format!("{} left", units::human_duration(eta)));
    }
    if t.resumed_at > 0 {
        parts.push(format!("resumed at {}", units::human_bytes(t.resumed_at)));
    }
    match t.bottleneck {
        Some(Bottleneck::Source) => parts.push("reading is the slow side".into()),
        Some(Bottleneck::Link) => parts.push("the link is the slow side".into()),
        Some(Bottleneck::Target) => parts.push("writing is the slow side".into()),
        None => {}
    }
    if !t.file.is_empty() {
        parts.push(printable(&t.file));
    }
    parts.join("  ")
}

/// A file name from a stream, with nothing in it that a terminal would obey.
fn printable(name: &str) -> String {
    let safe = |c: char| if c.is_control() { '\u{fffd}' } else { c };
    name.chars().map(safe).collect()
}

fn role_lines(role: &RoleStatus, status: &Status) -> Vec<String> {
    let now = status.now;
    let mut facts = vec![state(role)];
    if let Some(term) = &role.term {
        facts.push(format!("term {term}"));
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
    let mut lines = vec![format!("{title}  {}", facts.join(", "))];
    lines.push(format!(
        "  newest point  {}   {} here",
        newest(role.newest.as_ref(), now),
        human::count(role.points, "point"),
    ));
    if let Some(error) = &role.last_error {
        lines.push(format!("  {}  {error}", trouble("last cycle failed")));
    }
    if !role.replicas.is_empty() {
        let mut table = Table::new(["PEER", "HOLDS", "EXPOSURE", "BEHIND", ""]);
        for replica in &role.replicas {
            table.row(replica_row(replica, now));
        }
        lines.extend(table.lines("  "));
    }
    for dataset in &role.datasets {
        let space = match (dataset.free_bytes, dataset.total_bytes) {
            (Some(free), Some(total)) => {
                format!(
                    "  {} free of {}",
                    units::human_bytes(free),
                    units::human_bytes(total)
                )
            }
            _ => String::new(),
        };
        let path = dataset.path.display();
        lines.push(format!("  dataset {}  {path}{space}", dataset.name));
    }
    lines
}

/// `standby (active is alder)`.
fn state(role: &RoleStatus) -> String {
    match &role.active {
        Some(active) if role.state != "active" => format!("{} (active is {active})", role.state),
        _ => role.state.clone(),
    }
}

fn replica_row(replica: &ReplicaStatus, now: Timestamp) -> [String; 5] {
    let behind = match replica.behind {
        0 => "-".to_owned(),
        points => human::count(points, "point"),
    };
    let error = replica.last_error.as_deref().map(trouble);
    [
        replica.peer.to_string(),
        newest(replica.newest.as_ref(), now),
        exposure(replica),
        behind,
        error.unwrap_or_default(),
    ]
}

fn exposure(replica: &ReplicaStatus) -> String {
    match (replica.exposure_s, &replica.newest) {
        (Some(seconds), Some(_)) if seconds < 0.5 => "nothing".into(),
        (Some(seconds), Some(_)) => units::human_duration(seconds),
        (_, None) => "everything".into(),
        (None, Some(_)) => "unknown".into(),
    }
}

fn newest(point: Option<&PointSummary>, now: Timestamp) -> String {
    point.map_or("none".into(), |point| {
        format!("{} ({})", point.short, human::ago(point.taken, now))
    })
}

fn peer_lines(status: &Status) -> Vec<String> {
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
            peer_remark(peer),
        ]);
    }
    table.lines("")
}

/// What is worth a look about a peer.
fn peer_remark(peer: &PeerStatus) -> String {
    if !peer.paired {
        return "pair it: standin pair invite".into();
    }
    if let (false, Some(error)) = (peer.linked, &peer.last_error) {
        return error.clone();
    }
    match peer.clock_difference_s {
        Some(difference) if difference.abs() >= 2.0 => {
            let words = if difference > 0.0 { "ahead" } else { "behind" };
            attention(&format!(
                "its clock is {} {words}",
                units::human_duration(difference.abs())
            ))
        }
        _ => String::new(),
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

            role web  active, term 1 (alder), running: transfer
              newest point  1.43 (40s ago)   43 points here
              PEER   HOLDS              EXPOSURE    BEHIND
              birch  1.42 (5m 40s ago)  5m 40s      1 point
              cedar  none               everything  43 points  cedar is not paired
              dataset files  /srv/web  40.0 GiB free of 100.0 GiB

            PEER   LINK                       VERSION
            birch  up          2h 35m, 12 ms  0.1.0    its clock is 3.2s ahead
            cedar  not paired                          pair it: standin pair invite

            transfers
              web/files -> birch  1.43 on 1.42   61 %  1.2 of 2.0 GiB  34.0 MiB/s  24s left  resumed at 512.0 MiB  the link is the slow side  var/www/video/intro.mp4

            warnings
              web: files holds a swap file, which is not replicated: swap.img"#]].assert_eq(&status(&samples::status()));
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
        .assert_eq(&status(&bare));
    }

    #[test]
    fn a_hostile_file_name_cannot_steer_the_terminal() {
        let mut view = samples::transfer();
        view.file = "a\x1b[2Jb\nc".into();
        let text = transfer(&view);
        assert!(!text.contains(['\x1b', '\n']), "{text:?}");
    }
}
