//! The first page: a line for each role, its peers below it where there is room, and what goes on beside.

use console::{measure_text_width, style, truncate_str};
use jiff::Timestamp;

use super::sections::{Section, fit};
use super::{event_line, first};
use crate::commands::human;
use crate::commands::progress;
use crate::commands::render;
use crate::commands::table::Table;
use crate::commands::watch::model::{Entry, Model};
use crate::daemon::api::{ReplicaStatus, RoleStatus};
use crate::logic::progress::TransferView;
use crate::logic::units;

/// Events that are shown where there is room.
const EVENTS_SHOWN: usize = 20;

/// Lines of warnings that stay before anything else does, but for the roles.
const WARNINGS_LEAST: usize = 3;

/// Columns of the table that are shown however narrow the terminal is: the role, what this node is in it, and what would be
/// lost.
const COLUMNS_LEAST: usize = 3;

/// The page in so many rows and columns.
pub fn lines(model: &Model, rows: usize, columns: usize) -> Vec<String> {
    let status = &model.status;
    if status.roles.is_empty() {
        let nothing = "no roles configured: standin.toml names them, standin reload reads it";
        let mut lines = vec![nothing.to_owned()];
        lines.extend(fit(&beside(model, columns), rows.saturating_sub(2)));
        return lines;
    }
    let mut sections = vec![roles(model, columns, true)];
    sections.extend(beside(model, columns));
    if fit_as_is(&sections, rows) {
        return fit(&sections, rows);
    }
    sections[0] = roles(model, columns, false);
    // The heading and some roles around the one that is chosen.
    let most = rows.saturating_sub(WARNINGS_LEAST + 1).max(2);
    let heading = sections[0].lines.remove(0);
    sections[0].lines = around(&sections[0].lines, model.chosen(), most - 1);
    sections[0].lines.insert(0, heading);
    sections[0].least = sections[0].lines.len();
    fit(&sections, rows)
}

/// Whether what nobody should miss has room beside the roles with all their peers.
fn fit_as_is(sections: &[Section], rows: usize) -> bool {
    let needed = |section: &Section| match section.least {
        0 => 0,
        least => least.min(section.lines.len()) + 2,
    };
    sections.iter().map(needed).sum::<usize>() <= rows + 2
}

/// So many of the lines, with the one that is chosen among them; the others are counted where there is a line for that.
fn around(lines: &[String], chosen: usize, rows: usize) -> Vec<String> {
    let counted = usize::from(lines.len() > rows && rows > 1);
    let shown = rows - counted;
    let from = chosen.saturating_sub(shown / 2);
    let from = from.min(lines.len().saturating_sub(shown));
    let mut part: Vec<String> = lines.iter().skip(from).take(shown).cloned().collect();
    if counted > 0 {
        part.push(format!("   ... {} more", lines.len() - shown));
    }
    part
}

/// The table of roles, with its heading; with a line for each peer and each trouble where `whole`.
fn roles(model: &Model, columns: usize, whole: bool) -> Section {
    let now = model.status.now;
    let chosen = model.chosen();
    let mut table = Table::new(["   ROLE", "IS", "EXPOSURE", "NEWEST POINT", "NEXT", "DRILL"]);
    // Behind which row of the table lines come that are no cells.
    let mut remarks: Vec<Vec<String>> = vec![vec![]];
    for (at, entry) in model.entries().iter().enumerate() {
        let Some(role) = entry.first() else { continue };
        let troubles: Vec<String> = entry.roles.iter().copied().flat_map(troubles).collect();
        let warned = entry.roles.iter().any(|role| is_warned(model, role));
        let marks = marks(at == chosen, warned || !troubles.is_empty());
        table.row(entry_row(&marks, entry, role, now, whole));
        let mut behind = troubles;
        if whole {
            for replica in &role.replicas {
                remarks.push(std::mem::take(&mut behind));
                table.row(replica_row(role, replica, now));
                behind.extend(said_of(replica, now));
            }
        }
        remarks.push(behind);
    }
    let mut lines = Vec::new();
    for (row, said) in as_fits(table, columns).into_iter().zip(remarks) {
        let heading = lines.is_empty();
        let row = truncate_str(&row, columns, "...").into_owned();
        lines.push(match heading {
            true => style(row).bold().to_string(),
            false => row,
        });
        if whole {
            let wrapped = said.iter().map(|line| render::fitted(line, columns));
            lines.extend(wrapped.flat_map(|text| {
                let lines: Vec<String> = text.lines().map(str::to_owned).collect();
                lines
            }));
        }
    }
    Section {
        title: String::new(),
        least: lines.len(),
        lines,
    }
}

/// The lines of the table, without the last columns where they have no room.
fn as_fits(table: Table, columns: usize) -> Vec<String> {
    let is_wide = |line: &String| measure_text_width(line) > columns;
    let lines = table.lines("");
    match lines.iter().any(is_wide) && table.columns() > COLUMNS_LEAST {
        true => {
            let fewer = table.columns() - 1;
            as_fits(table.first_columns(fewer), columns)
        }
        false => lines,
    }
}

/// Whether a warning is about the role.
fn is_warned(model: &Model, role: &RoleStatus) -> bool {
    let prefix = format!("{}: ", role.name);
    let mut warnings = model.status.warnings.iter();
    warnings.any(|warning| warning.starts_with(&prefix))
}

/// `>` for the one that is chosen, `!` where somebody should look.
fn marks(chosen: bool, troubled: bool) -> String {
    let chosen = if chosen { ">" } else { " " };
    let troubled = if troubled { "!" } else { " " };
    format!("{chosen}{troubled} ")
}

fn entry_row(
    marks: &str,
    entry: &Entry,
    role: &RoleStatus,
    now: Timestamp,
    whole: bool,
) -> [String; 6] {
    let is = match role.logs {
        Some(_) => format!("logs of {}", human::count(entry.roles.len(), "node")),
        None => is(role),
    };
    let exposure = match (role.replicas.is_empty(), &role.loss) {
        (true, Some(loss)) => loss.exposure_s.map_or("everything".into(), span),
        (true, None) => "-".to_owned(),
        // Each peer has a line of its own.
        (false, _) if whole => String::new(),
        (false, _) => worst(role),
    };
    let next = match (&role.phase, role.next_run) {
        (Some(phase), _) => phase.clone(),
        (None, Some(next)) if next <= now => "now".to_owned(),
        (None, Some(next)) => format!("in {}", human::between(now, next)),
        (None, None) => "-".to_owned(),
    };
    [
        style(format!("{marks}{}", entry.name)).bold().to_string(),
        is,
        exposure,
        render::newest(role.newest.as_ref(), now),
        next,
        drill(role, now),
    ]
}

/// `active`, `standby of alder`, `promoting (live data), paused`.
fn is(role: &RoleStatus) -> String {
    let state = match (role.state.as_str(), &role.active) {
        ("standby", Some(active)) => format!("standby of {active}"),
        (state, _) => state.to_owned(),
    };
    match role.paused {
        true => format!("{state}, paused"),
        false => state,
    }
}

fn span(seconds: f64) -> String {
    match seconds {
        s if s < 1.0 => "under 1s".to_owned(),
        seconds => units::human_duration(seconds),
    }
}

/// The peer that would lose most.
fn worst(role: &RoleStatus) -> String {
    let seconds = |replica: &&ReplicaStatus| replica.exposure_s.unwrap_or(f64::INFINITY);
    let order = |a: &&ReplicaStatus, b: &&ReplicaStatus| seconds(a).total_cmp(&seconds(b));
    let worst = role.replicas.iter().max_by(order);
    worst.map_or(String::new(), |replica| {
        format!("{} ({})", render::exposure(replica), replica.peer)
    })
}

fn drill(role: &RoleStatus, now: Timestamp) -> String {
    match &role.drill {
        _ if role.drilling => "running".to_owned(),
        None => "never".to_owned(),
        Some(last) if last.failure.is_some() => {
            let ago = human::ago(last.ended, now);
            style(format!("FAILED {ago}")).red().to_string()
        }
        Some(last) => format!("passed {}", human::ago(last.ended, now)),
    }
}

fn replica_row(role: &RoleStatus, replica: &ReplicaStatus, now: Timestamp) -> [String; 6] {
    let word = role.words.iter().find(|word| word.peer == replica.peer);
    let is = word.and_then(|word| word.state.clone());
    let behind = match replica.behind {
        0 => "up to date".to_owned(),
        points => format!("{points} behind"),
    };
    let handover = match render::handover(replica).as_str() {
        "-" => String::new(),
        span => format!("hand-over {span}"),
    };
    [
        format!("     {}", replica.peer),
        is.unwrap_or_else(|| "not heard".to_owned()),
        render::exposure(replica),
        render::newest(replica.newest.as_ref(), now),
        behind,
        handover,
    ]
}

/// What is in the way of a role, but for what its peers have a line for.
fn troubles(role: &RoleStatus) -> Vec<String> {
    let mut said = Vec::new();
    if let Some(outlook) = &role.outlook {
        said.push(outlook.meaning.clone());
        said.extend(outlook.next.iter().map(|next| format!("hint: {next}")));
    }
    said.extend(role.trouble.clone());
    let of_peers: Vec<&str> = role
        .replicas
        .iter()
        .filter_map(|replica| replica.last_error.as_deref())
        .map(first)
        .collect();
    let last = role.last_error.as_deref().map(first);
    let last = last.filter(|error| !of_peers.contains(error));
    said.extend(last.map(|error| format!("last cycle failed: {error}")));
    let failed = role.drill.as_ref().and_then(|last| last.failure.as_ref());
    said.extend(failed.map(|failure| format!("the last drill failed: {}", first(failure))));
    said.iter()
        .map(|line| format!("    {}", style(format!("! {line}")).yellow()))
        .collect()
}

fn said_of(replica: &ReplicaStatus, now: Timestamp) -> Vec<String> {
    let said = render::replica_trouble(replica, now);
    said.iter()
        .map(|line| format!("      ! {}", line.trim_start()))
        .collect()
}

/// All but the roles, in the order of weight.
fn beside(model: &Model, columns: usize) -> Vec<Section> {
    let status = &model.status;
    let titled = |title: &str, lines: Vec<String>, least: usize| Section {
        title: style(title).bold().to_string(),
        least: least.min(lines.len()),
        lines,
    };
    let wrapped = |lines: Vec<String>| -> Vec<String> {
        let text = render::fitted(&lines.join("\n"), columns);
        text.lines().map(str::to_owned).collect()
    };
    let transfers: Vec<String> = status
        .transfers
        .iter()
        .map(|t| transfer(t, columns))
        .collect();
    let warnings: Vec<String> = render::warning_lines(status)
        .iter()
        .skip(1)
        .map(|line| format!("  {}", style(format!("! {}", line.trim_start())).yellow()))
        .collect();
    let peers = render::peer_lines(status);
    let peers = peers.iter().skip(1).map(|line| format!("  {line}"));
    let newest = model.events.iter().rev().take(EVENTS_SHOWN);
    let events: Vec<String> = newest.map(|event| event_line(event, model)).collect();
    vec![
        titled("transfers", transfers, 1),
        titled("warnings", wrapped(warnings), WARNINGS_LEAST),
        titled("links", wrapped(peers.collect()), 0),
        titled("events", events, 0),
    ]
}

/// `web/files -> birch  [=====>     ]  61 %  1.2 of 2.0 GiB  34.0 MiB/s  24s left`.
pub fn transfer(t: &TransferView, columns: usize) -> String {
    let title = progress::title(t);
    let (bar, figures) = progress::layout(t, columns.saturating_sub(2));
    let done = match t.total_bytes {
        0 => bar,
        total => (t.done_bytes.min(total) as f64 / total as f64 * bar as f64) as usize,
    };
    let bar = match bar {
        0 => String::new(),
        bar => {
            let tip = if done < bar { ">" } else { "" };
            let rest = " ".repeat(bar.saturating_sub(done + tip.len()));
            format!("[{}{tip}{rest}] ", "=".repeat(done))
        }
    };
    let line = format!("  {title} {bar}{figures}");
    match measure_text_width(&line) > columns {
        true => truncate_str(&line, columns, "...").into_owned(),
        false => line,
    }
}
