//! The page of one role: where it stands, its peers, what happened, and its newest points.

use console::style;

use super::overview::transfer;
use super::{event_line, first};
use crate::commands::render;
use crate::commands::watch::model::{Entry, Model};
use crate::daemon::api::{Points, RolePoints};
use crate::logic::name::{NodeName, RoleName};

/// Events and points on the page; `standin points` lists all of these.
const EVENTS_SHOWN: usize = 10;
const POINTS_SHOWN: usize = 50;

/// The page, as long as it is, in so many columns.
pub fn lines(model: &Model, columns: usize) -> Vec<String> {
    let entries = model.entries();
    let Some(entry) = entries.get(model.chosen()) else {
        return vec!["the role is not configured any more: esc goes back".to_owned()];
    };
    let mut parts: Vec<Vec<String>> = vec![render::role_block(&model.status, entry.name)];
    parts.push(transfers(model, entry, columns));
    parts.push(warnings(model, entry));
    parts.push(peers(model, entry));
    parts.push(events(model, entry));
    parts.push(points(model, entry));
    let mut text: Vec<String> = Vec::new();
    for part in parts.into_iter().filter(|part| !part.is_empty()) {
        if !text.is_empty() {
            text.push(String::new());
        }
        text.extend(part);
    }
    let text = render::fitted(&text.join("\n"), columns);
    text.lines().map(str::to_owned).collect()
}

fn titled(title: &str, lines: Vec<String>) -> Vec<String> {
    if lines.is_empty() {
        return lines;
    }
    let mut titled = vec![style(title).bold().to_string()];
    titled.extend(lines);
    titled
}

fn is_of(entry: &Entry, role: &RoleName) -> bool {
    entry.roles.iter().any(|of| of.name == *role)
}

fn transfers(model: &Model, entry: &Entry, columns: usize) -> Vec<String> {
    let of = model.status.transfers.iter();
    let of = of.filter(|t| is_of(entry, &t.role));
    titled("transfers", of.map(|t| transfer(t, columns)).collect())
}

fn warnings(model: &Model, entry: &Entry) -> Vec<String> {
    let prefixes = entry.roles.iter().map(|role| format!("{}: ", role.name));
    let prefixes: Vec<String> = prefixes.collect();
    let all = render::warning_lines(&model.status);
    let said = all.iter().map(|line| line.trim_start());
    let ours = said.filter_map(|line| {
        let ours = prefixes.iter().find_map(|prefix| line.strip_prefix(prefix));
        Some(format!("  ! {}", ours?))
    });
    titled("warnings", ours.collect())
}

/// The links to the peers of the role.
fn peers(model: &Model, entry: &Entry) -> Vec<String> {
    let of = entry.roles.iter().flat_map(|role| {
        let replicas = role.replicas.iter().map(|replica| &replica.peer);
        replicas.chain(role.words.iter().map(|word| &word.peer))
    });
    let names: Vec<&NodeName> = of.collect();
    let mut status = model.status.clone();
    status.peers.retain(|peer| names.contains(&&peer.name));
    let lines = render::peer_lines(&status);
    let lines = lines.iter().skip(1).map(|line| format!("  {line}"));
    titled("links", lines.collect())
}

fn events(model: &Model, entry: &Entry) -> Vec<String> {
    let of = model.events.iter().rev();
    let of = of.filter(|event| event.role.as_ref().is_some_and(|role| is_of(entry, role)));
    let lines = of.take(EVENTS_SHOWN).map(|event| event_line(event, model));
    titled("events", lines.collect())
}

fn points(model: &Model, entry: &Entry) -> Vec<String> {
    let Some(role) = entry.first() else {
        return vec![];
    };
    let points = match model.points(&role.name) {
        None => return titled("points", vec!["  being listed".to_owned()]),
        Some(Err(why)) => return titled("points", vec![format!("  ! {}", first(why))]),
        Some(Ok(points)) => points,
    };
    let older = points.points.len().saturating_sub(POINTS_SHOWN);
    let shown = RolePoints {
        points: points.points[older..].to_vec(),
        ..(**points).clone()
    };
    let text = render::points(&Points { roles: vec![shown] });
    // Its first line names the role, which stands above.
    let mut lines: Vec<String> = text.lines().skip(1).map(str::to_owned).collect();
    if older > 0 {
        lines.push(format!("  ... {older} older: standin points {}", role.name));
    }
    titled("points", lines)
}
