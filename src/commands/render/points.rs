//! `standin points`: newest first, one line each.

use std::collections::BTreeSet;

use super::{attention, heading, trouble};
use crate::commands::human;
use crate::commands::table::Table;
use crate::daemon::api::{DumpView, PointView, Points, RolePoints};
use crate::logic::units;

pub fn points(points: &Points) -> String {
    let mut lines = Vec::new();
    for role in &points.roles {
        if !lines.is_empty() {
            lines.push(String::new());
        }
        lines.extend(role_lines(role));
    }
    if lines.is_empty() {
        lines.push("no roles configured".into());
    }
    lines.join("\n")
}

fn role_lines(role: &RolePoints) -> Vec<String> {
    let title = heading(&format!("role {}", role.role));
    let active = role.active.as_ref().map(|active| active.as_str());
    let state = match (role.state.as_deref(), active) {
        (Some(state), Some(active)) if state != "active" => {
            format!("  {state} (active is {active})")
        }
        (Some(state), _) => format!("  {state}"),
        (None, _) => String::new(),
    };
    let mut lines = vec![format!("{title}{state}")];
    if role.points.is_empty() {
        let where_to = match (role.state.as_deref(), active) {
            (Some("active"), _) => "here".to_owned(),
            (_, Some(active)) => format!("on {active}, the active node"),
            (_, None) => "on the active node".to_owned(),
        };
        lines.push(format!(
            "  no points yet (standin run takes one {where_to})"
        ));
        lines.extend(damage_lines(role));
        return lines;
    }
    // One offset for all stands in the heading; where summer time began or ended, each has its own.
    let offsets: BTreeSet<String> = role.points.iter().map(|p| human::offset(p.taken)).collect();
    let mixed = offsets.len() > 1;
    let taken = match offsets.first() {
        Some(offset) if !mixed => format!("TAKEN ({offset})"),
        _ => "TAKEN".to_owned(),
    };
    let heading = [
        "POINT", &taken, "ON", "WHY", "RECEIVED", "ALSO ON", "PINNED",
    ];
    let mut table = Table::new(heading).right([4]);
    for point in role.points.iter().rev() {
        table.row(row(point, mixed));
    }
    lines.extend(table.lines("  "));
    lines.extend(dump_lines(role));
    for point in role.points.iter().rev() {
        for (dataset, left_out) in &point.not_replicated {
            for what in left_out {
                let text = format!("not in {}: {dataset}: {what}", point.short);
                lines.push(format!("  {}", attention(&text)));
            }
        }
        for (dataset, dropped) in &point.dropped {
            let text = format!(
                "dropped from {}: {dataset}: {}",
                point.short,
                dropped.join(", ")
            );
            lines.push(format!("  {}", attention(&text)));
        }
        for (dataset, lost) in &point.not_carried {
            for what in lost {
                let text = format!("lost on the way of {}: {dataset}: {what}", point.short);
                lines.push(format!("  {}", attention(&text)));
            }
        }
    }
    lines.extend(damage_lines(role));
    lines
}

/// The databases of the newest point that has any, and of every point in which one is not consistent.
fn dump_lines(role: &RolePoints) -> Vec<String> {
    let mut lines = Vec::new();
    let mut told = false;
    for point in role.points.iter().rev() {
        let newest = !told;
        told |= !point.dumps.is_empty();
        for dump in &point.dumps {
            let failed = dump.result == "failed";
            if !failed && !newest {
                continue;
            }
            let text = format!("{} in {}: {}", dump.name, point.short, dump_phrase(dump));
            let text = if failed { trouble(&text) } else { text };
            lines.push(format!("  {text}"));
        }
    }
    lines
}

fn dump_phrase(dump: &DumpView) -> String {
    let mut parts = vec![format!("{} {}", dump.kind, dump.mode).trim_end().to_owned()];
    parts.push(match (dump.result.as_str(), &dump.why) {
        ("failed", Some(why)) => format!("NOT CONSISTENT, the dump failed: {why}"),
        ("stopped", _) => "its services had been stopped in order".to_owned(),
        (result, _) => format!("{result}, {}", milliseconds(dump.took_ms)),
    });
    parts.extend(
        dump.held_ms
            .map(|ms| format!("writers held {}", milliseconds(ms))),
    );
    parts.extend(dump.bytes.map(units::human_bytes));
    parts.extend(dump.server.clone());
    parts.extend(
        dump.position
            .as_ref()
            .map(|position| format!("at {position}")),
    );
    parts.join(", ")
}

fn milliseconds(ms: u64) -> String {
    match ms {
        0..1000 => format!("{ms} ms"),
        _ => format!("{:.1} s", ms as f64 / 1000.0),
    }
}

/// What is damaged, what was set aside, and that there are forks.
fn damage_lines(role: &RolePoints) -> Vec<String> {
    let mut lines = Vec::new();
    for damaged in role.damaged.iter().rev() {
        lines.push(format!("  {}", trouble(&damaged.text)));
    }
    if !role.damaged.is_empty() {
        lines.push(format!(
            "  hint: standin rescan {} fetches them again from a peer",
            role.role
        ));
    }
    if role.forks > 0 {
        let forks = human::count(role.forks, "fork");
        let kept = format!("{forks} kept beside them: standin fork list {}", role.role);
        lines.push(format!("  {}", attention(&kept)));
    }
    for aside in &role.aside {
        lines.push(format!(
            "  set aside {}: {}, which {}: {}",
            human::local(aside.at),
            aside.short,
            aside.why,
            aside.path.display()
        ));
    }
    lines
}

fn row(point: &PointView, zoned: bool) -> [String; 7] {
    let peers: Vec<&str> = point.on_peers.iter().map(|peer| peer.as_str()).collect();
    [
        point.short.clone(),
        if zoned {
            human::local_zoned(point.taken)
        } else {
            human::local(point.taken)
        },
        point.node.to_string(),
        point.reason.clone(),
        point
            .data_bytes
            .map(units::human_bytes)
            .unwrap_or("-".into()),
        if peers.is_empty() {
            "-".into()
        } else {
            peers.join(" ")
        },
        point.pinned.join(", "),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::samples;
    use expect_test::expect;

    #[test]
    fn newest_first() {
        console::set_colors_enabled(false);
        expect![[r#"
            role web  active
              POINT  TAKEN (UTC)          ON     WHY       RECEIVED  ALSO ON  PINNED
              1.43   2026-11-20 12:35:05  alder  schedule         -  -        newest
              1.42   2026-11-20 12:30:05  alder  schedule         -  birch    base of birch
              1.41   2026-11-20 12:25:05  alder  schedule         -  birch
              orders in 1.43: postgres freeze, good, 1.2 s, writers held 12 ms, 5.0 MiB, PostgreSQL 15.14, at 0/1A2B3C4
              sessions in 1.43: postgres dump, NOT CONSISTENT, the dump failed: could not reach /run/postgresql: no such file, 5.0 MiB, PostgreSQL 15.14, at 0/1A2B3C4
              not in 1.43: files: nested subvolume cache/thumbs
              alder's copy of 1.40 was changed after it was stored (files); it is not used
              hint: standin rescan web fetches them again from a peer
              1 fork kept beside them: standin fork list web
              set aside 2026-11-20 12:34:00: 1.39, which has lost its manifest: /mnt/pool/.standin/.aside/web/20261120T121505Z.1.39.7f3a"#]]
        .assert_eq(&points(&samples::points()));
    }
}
