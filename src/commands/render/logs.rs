//! Roles of kind = "logs" in `standin status`: one block for all nodes, a line for each.
//!
//! Promise: what needs attention in one of them is told below its line, as with any role.

use jiff::Timestamp;

use super::status::{exposure, newest, replica_trouble};
use super::{attention, heading, standing, trouble};
use crate::commands::human;
use crate::commands::table::Table;
use crate::daemon::api::{RoleStatus, Status};
use crate::logic::name::RoleName;

/// The roles that one section of the config stands for, this node's own first; none where `role` is not the first of them.
pub fn block<'s>(status: &'s Status, role: &RoleStatus) -> Option<Vec<&'s RoleStatus>> {
    let of = role.logs.as_ref()?;
    let mut all: Vec<&RoleStatus> = status.roles.iter().collect();
    all.retain(|role| role.logs.as_ref() == Some(of));
    let is_first = all.first().is_some_and(|first| first.name == role.name);
    all.sort_by_key(|role| (role.home.as_ref() != Some(&status.node), role.name.clone()));
    is_first.then_some(all)
}

/// `role syslog  logs of 3 nodes, on-change`.
pub fn title(of: &RoleName, roles: &[&RoleStatus]) -> String {
    let title = heading(&format!("role {of}"));
    let every = roles.first().map_or("", |own| own.every.as_str());
    let mut facts = vec![
        format!("logs of {}", human::count(roles.len(), "node")),
        format!("every {every}"),
    ];
    let phase = roles.first().and_then(|own| own.phase.as_ref());
    facts.extend(phase.map(|phase| format!("running: {phase}")));
    format!("{title}  {}", facts.join(", "))
}

pub fn details(roles: &[&RoleStatus], now: Timestamp) -> Vec<String> {
    let mut table = Table::new(["LOGS OF", "NEWEST POINT", "POINTS", "AT", ""]);
    for (at, role) in roles.iter().enumerate() {
        let home = role.home.as_ref().map(ToString::to_string);
        table.row([
            home.unwrap_or_default(),
            newest(role.newest.as_ref(), now),
            role.points.to_string(),
            paths(role),
            if at == 0 {
                "written here".into()
            } else {
                shown(role)
            },
        ]);
    }
    let mut rows = table.lines("  ").into_iter();
    let mut lines: Vec<String> = rows.next().into_iter().collect();
    for (role, row) in roles.iter().zip(rows) {
        lines.push(row);
        let said = remarks(role);
        lines.extend(said.iter().map(|line| format!("  {line}")));
    }
    if let Some(own) = roles.first().filter(|own| !own.replicas.is_empty()) {
        lines.extend(copies(own, now));
    }
    lines
}

/// Where the peers are with what this node writes.
fn copies(own: &RoleStatus, now: Timestamp) -> Vec<String> {
    let mut table = Table::new(["COPY ON", "HOLDS", "MISSING"]);
    for replica in &own.replicas {
        table.row([
            replica.peer.to_string(),
            newest(replica.newest.as_ref(), now),
            exposure(replica),
        ]);
    }
    let mut rows = table.lines("  ").into_iter();
    let mut lines: Vec<String> = rows.next().into_iter().collect();
    for (replica, row) in own.replicas.iter().zip(rows) {
        lines.push(row);
        lines.extend(replica_trouble(replica, now));
    }
    lines
}

fn paths(role: &RoleStatus) -> String {
    let paths = role.datasets.iter();
    let paths: Vec<String> = paths.map(|one| one.path.display().to_string()).collect();
    paths.join(", ")
}

/// Whether what another node wrote can be read here.
fn shown(role: &RoleStatus) -> String {
    let shows = |view: &crate::daemon::api::ViewStatus| view.shows.is_some();
    match role.newest {
        None => "nothing came yet".to_owned(),
        Some(_) if role.views.iter().all(shows) => "shown read-only".to_owned(),
        Some(_) => attention("not shown: standin check tells why"),
    }
}

fn remarks(role: &RoleStatus) -> Vec<String> {
    let mut lines = standing::outlook(role);
    if let Some(error) = &role.last_error {
        let error = error.lines().next().unwrap_or_default();
        lines.push(format!("  {}  {error}", trouble("last cycle failed")));
    }
    lines
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::super::status::{role_block, status};
    use crate::commands::samples;
    use crate::daemon::api::{RoleStatus, Status, ViewStatus};
    use crate::logic::name::{NodeName, RoleName};

    /// alder, where the logs of alder are active and those of birch and cedar are not.
    fn said(change: &dyn Fn(&mut RoleStatus)) -> Status {
        console::set_colors_enabled(false);
        let sample = samples::status();
        let of = |node: &str| {
            let mut role = sample.roles[0].clone();
            let home = NodeName::parse(node).unwrap();
            role.name = RoleName::parse(&format!("syslog.{node}")).unwrap();
            role.logs = Some(RoleName::parse("syslog").unwrap());
            role.every = "on-change".into();
            role.phase = None;
            role.datasets[0].path = format!("/srv/logs/{node}").into();
            if home != sample.node {
                role.state = "standby".into();
                role.replicas.clear();
                role.views = vec![ViewStatus {
                    dataset: role.datasets[0].name.clone(),
                    path: role.datasets[0].path.clone(),
                    shows: role.newest.as_ref().map(|newest| newest.short.clone()),
                }];
            }
            (role.active, role.home) = (Some(home.clone()), Some(home));
            change(&mut role);
            role
        };
        Status {
            roles: vec![of("alder"), of("birch"), of("cedar")],
            peers: vec![],
            transfers: vec![],
            warnings: vec![],
            ..sample
        }
    }

    fn check(change: &dyn Fn(&mut RoleStatus), expected: Expect) {
        let text = status(&said(change), None);
        let (_, role) = text.split_once("\n\n").unwrap();
        expected.assert_eq(role);
    }

    #[test]
    fn one_block_a_line_a_node() {
        check(
            &|_| {},
            expect![[r#"
                role syslog  logs of 3 nodes, every on-change
                  LOGS OF  NEWEST POINT    POINTS  AT
                  alder    1.43 (40s ago)  43      /srv/logs/alder  written here
                  birch    1.43 (40s ago)  43      /srv/logs/birch  shown read-only
                  cedar    1.43 (40s ago)  43      /srv/logs/cedar  shown read-only
                  COPY ON  HOLDS              MISSING
                  birch    1.42 (5m 40s ago)  5m 40s, 12.0 MiB
                  cedar    none               everything
                    cedar is not paired"#]],
        );
        check(
            &|role| match role.name.as_str() {
                "syslog.birch" => (role.newest, role.points) = (None, 0),
                "syslog.cedar" => role.views[0].shows = None,
                _ => role.paused = true,
            },
            expect![[r#"
                role syslog  logs of 3 nodes, every on-change
                  LOGS OF  NEWEST POINT    POINTS  AT
                  alder    1.43 (40s ago)  43      /srv/logs/alder  written here
                    paused: nothing starts by itself
                    hint: standin pause syslog.alder --off
                  birch    none            0       /srv/logs/birch  nothing came yet
                  cedar    1.43 (40s ago)  43      /srv/logs/cedar  not shown: standin check tells why
                  COPY ON  HOLDS              MISSING
                  birch    1.42 (5m 40s ago)  5m 40s, 12.0 MiB
                  cedar    none               everything
                    cedar is not paired"#]],
        );
        let of = RoleName::parse("syslog").unwrap();
        let text = role_block(&said(&|_| {}), &of).join("\n");
        assert_eq!(text.matches("LOGS OF").count(), 1, "{text}");
    }
}
