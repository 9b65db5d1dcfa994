//! `standin find`, and what a restore of a path shows.

use super::cycle::step_lines;
use super::{attention, heading, trouble};
use crate::commands::human;
use crate::commands::table::Table;
use crate::daemon::api::{BringReport, FindReport, FoundPath, VersionView};
use crate::host::command::harmless;
use crate::logic::changes::shown;
use crate::logic::units;
use crate::logic::versions::{Kind, What};

/// Paths that are shown with all their versions; of more, one line each.
const DETAILED_MAX: usize = 5;

pub fn find(report: &FindReport) -> String {
    let mut lines = Vec::new();
    let detailed = report.paths.len() <= DETAILED_MAX;
    if report.paths.is_empty() {
        lines.push("nothing of that kind".to_owned());
    }
    match detailed {
        true => {
            for path in &report.paths {
                if !lines.is_empty() {
                    lines.push(String::new());
                }
                lines.extend(path_lines(path));
            }
        }
        false => lines.extend(summary_lines(&report.paths)),
    }
    if report.cut {
        lines.push(attention("there is more: write a narrower pattern"));
    }
    for peer in &report.peers {
        if let Some(why) = &peer.why {
            lines.push(attention(&format!("{}: {}", peer.peer, words(why))));
            lines.extend(
                peer.hint
                    .iter()
                    .map(|hint| format!("hint: {}", words(hint))),
            );
        }
    }
    lines.extend(report.notes.iter().map(|note| trouble(&words(note))));
    lines.extend(next(&report.paths));
    lines.join("\n")
}

fn words(text: &str) -> String {
    shown(text.as_bytes())
}

fn path_words(path: &std::path::Path) -> String {
    shown(path.as_os_str().as_encoded_bytes())
}

/// What can be done now.
fn next(paths: &[FoundPath]) -> Option<String> {
    let [path] = paths else {
        return (paths.len() > DETAILED_MAX)
            .then(|| "hint: standin find PATH shows the versions of one".to_owned());
    };
    let numbered = path.versions.iter().filter(|v| !v.live);
    let number = numbered.filter_map(|version| version.number).min()?;
    let word = quoted(&path_words(&path.live_path));
    Some(format!(
        "hint: standin cat {word} --version {number} shows that one, standin restore {word} --version {number} brings it back"
    ))
}

/// A word as a shell takes it.
pub fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_alphanumeric() || "/._-+=:,@%".contains(c);
    match !word.is_empty() && word.chars().all(plain) {
        true => word.to_owned(),
        false => format!("'{}'", word.replace('\'', "'\\''")),
    }
}

fn path_lines(path: &FoundPath) -> Vec<String> {
    let title = heading(&path_words(&path.live_path));
    let mut lines = vec![format!("{title}  ({}/{})", path.role, path.dataset)];
    let headings = ["N", "SINCE", "LAST IN", "SIZE", "MODIFIED", "WHAT", "WHERE"];
    let mut table = Table::new(headings).right([0, 3]);
    for (at, version) in path.versions.iter().enumerate() {
        table.row(row(version, &path.versions[at + 1..]));
    }
    lines.extend(table.lines("  "));
    lines
}

fn row(version: &VersionView, older: &[VersionView]) -> [String; 7] {
    let number = version.number.map_or("-".into(), |n| n.to_string());
    let first = version.first.as_ref();
    let since = first.map_or("after the last point".into(), |first| {
        format!("{} {}", human::local(first.taken), first.short)
    });
    let last = match (&version.last, version.live) {
        (_, true) => "live".to_owned(),
        (Some(last), false) => format!("{} {}", human::local(last.taken), last.short),
        (None, false) => "-".to_owned(),
    };
    let gone = version.number.is_none();
    let modified = version.modified.filter(|_| !gone).map(human::local);
    [
        number,
        since,
        last,
        version.size.map(units::human_bytes).unwrap_or_default(),
        modified.unwrap_or_default(),
        what(version, older),
        if gone { String::new() } else { place(version) },
    ]
}

fn what(version: &VersionView, older: &[VersionView]) -> String {
    let before = older.iter().find(|v| v.fork.is_none() && v.kind.is_some());
    let mut text = match version.what {
        What::Oldest => "there already".to_owned(),
        What::Created => "created".to_owned(),
        What::Changed => "changed".to_owned(),
        What::Metadata => metadata(version, before),
        What::Replaced => format!("now a {}", version.kind.map_or("?", Kind::word)),
        What::Removed => attention("removed"),
    };
    if let Some(by) = &version.by {
        text += &format!(", on {by}");
    }
    if let Some(target) = &version.target {
        text += &format!(", a link to {}", words(target));
    }
    if version.kind == Some(Kind::Directory) && version.what != What::Replaced {
        text += ", a directory";
    }
    if let Some(same) = version.same_as {
        text += &format!(", as version {same}");
    }
    text
}

/// Which of owner and mode differ from the version before.
fn metadata(version: &VersionView, before: Option<&VersionView>) -> String {
    let mut parts = Vec::new();
    if let Some(before) = before {
        if let (Some(was), Some(is)) = (before.mode, version.mode) {
            parts.extend((was != is).then(|| format!("mode {was:o} -> {is:o}")));
        }
        let owner = |v: &VersionView| Some(format!("{}:{}", v.uid?, v.gid?));
        if let (Some(was), Some(is)) = (owner(before), owner(version)) {
            parts.extend((was != is).then(|| format!("owner {was} -> {is}")));
        }
    }
    match parts.is_empty() {
        true => "attributes or names changed".to_owned(),
        false => parts.join(", "),
    }
}

fn place(version: &VersionView) -> String {
    let mut parts = Vec::new();
    if version.live {
        parts.push("live".to_owned());
    }
    if let Some(fork) = &version.fork {
        parts.push(format!("fork {fork}"));
    } else if version.points > 0 {
        parts.push(human::count(version.points, "point"));
    }
    let on: Vec<&str> = version.on.iter().map(|node| node.as_str()).collect();
    match (on.as_slice(), version.here) {
        ([], _) => {}
        (nodes, true) => parts.push(format!("on {}", nodes.join(" "))),
        (nodes, false) => parts.push(format!("only on {}", nodes.join(" "))),
    }
    parts.join(", ")
}

fn summary_lines(paths: &[FoundPath]) -> Vec<String> {
    let mut table = Table::new(["PATH", "VERSIONS", "NOW", "SIZE", "MODIFIED"]).right([1, 3]);
    for path in paths {
        let there = path.versions.iter().find(|v| v.number.is_some());
        let newest = path.versions.iter().find(|v| v.fork.is_none());
        let gone = newest.is_some_and(|version| version.number.is_none());
        let versions = path.versions.iter().filter(|v| v.number.is_some());
        table.row([
            path_words(&path.live_path),
            versions.count().to_string(),
            if gone {
                attention("removed")
            } else {
                "there".into()
            },
            there
                .and_then(|v| v.size)
                .map(units::human_bytes)
                .unwrap_or_default(),
            there
                .and_then(|v| v.modified)
                .map(human::local)
                .unwrap_or_default(),
        ]);
    }
    table.lines("")
}

/// What is, or was, restored of a path.
pub fn bring(report: &BringReport) -> String {
    let failed = report
        .restore
        .steps
        .iter()
        .any(|step| step.ok == Some(false));
    let word = match (report.restore.dry_run, failed) {
        (true, _) => "restore",
        (false, false) => "restored",
        (false, true) => "partly restored",
    };
    let path = path_words(&report.live_path);
    let title = heading(&format!("{word} {path}"));
    let point = &report.restore.point;
    let mut lines = vec![format!(
        "{title}  from {}, taken {}",
        report.source.words(),
        human::local_zoned(point.taken)
    )];
    if let Some(version) = &report.version {
        let number = version
            .number
            .map_or(String::new(), |n| format!("version {n}, "));
        let kind = version.kind.map_or("", Kind::word);
        let size = version.size.map(units::human_bytes);
        let size = size.map_or(String::new(), |size| format!(", {size}"));
        let changed = version.modified.map(human::local);
        let changed = changed.map_or(String::new(), |at| format!(", changed {at}"));
        lines.push(format!("  then  {number}{kind}{size}{changed}"));
        let live = report.live.as_deref().map(words);
        lines.push(format!("  live  {}", live.unwrap_or("nothing".into())));
    }
    lines.extend(step_lines(&report.restore.steps, false));
    if report.restore.dry_run && report.same {
        lines.push("  the content is the same; owner, mode and times may differ".to_owned());
    }
    if let Some(diff) = &report.diff {
        lines.extend(harmless(diff.as_bytes()).lines().map(coloured));
    }
    lines.join("\n")
}

fn coloured(line: &str) -> String {
    match line.chars().next() {
        Some('+') => console::style(line).green().to_string(),
        Some('-') => console::style(line).red().to_string(),
        _ => line.to_owned(),
    }
}

/// The command that brings back what was replaced; none when nothing live was.
pub fn bring_undo(report: &BringReport) -> Option<String> {
    let kept = &report.restore.kept.as_ref()?.short;
    let path = quoted(&path_words(&report.live_path));
    // Where nothing was before, the point shows nothing.
    if report.live.is_none() {
        return Some(format!("there was nothing at {path} before"));
    }
    Some(format!(
        "what was live before is kept as point {kept}; to undo: standin restore {path} --point {kept}"
    ))
}

#[cfg(test)]
pub(in crate::commands) use tests::{bring_sample, sample};

#[cfg(test)]
mod tests;
