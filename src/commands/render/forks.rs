//! `standin fork`: the list, one fork, what differs, what was done.

use super::cycle::step_lines;
use super::{attention, heading};
use crate::commands::human;
use crate::commands::table::Table;
use crate::daemon::api::{ChangeView, ForkChanges, ForkDiff, ForkReport, ForkView, Forks};
use crate::logic::fork::Figures;
use crate::logic::units;

pub fn forks(forks: &Forks) -> String {
    let mut lines = Vec::new();
    for role in &forks.roles {
        if !lines.is_empty() {
            lines.push(String::new());
        }
        lines.push(heading(&format!("role {}", role.role)));
        if role.forks.is_empty() {
            lines.push("  no forks on this node".into());
            continue;
        }
        let mut table =
            Table::new(["FORK", "TERM", "WRITTEN", "FILES", "SIZE", "FOUND", "WHY"]).right([3, 4]);
        for fork in role.forks.iter().rev() {
            let total = fork.measured.as_ref().map(|measure| measure.total);
            let found = fork.found.map(|at| human::ago(at, forks.now));
            table.row([
                fork.short.clone(),
                fork.term.to_string(),
                written(fork),
                total.map_or("-".into(), |total| total.files.to_string()),
                total.map_or("-".into(), |total| units::human_bytes(total.bytes)),
                found.unwrap_or("-".into()),
                fork.reason.clone(),
            ]);
        }
        lines.extend(table.lines("  "));
    }
    if lines.is_empty() {
        lines.push("no roles configured".into());
    }
    lines.join("\n")
}

/// From when to when, in local time; the day once where it is one.
fn written(fork: &ForkView) -> String {
    let (Some(first), Some(last)) = (fork.first, fork.last) else {
        return "-".into();
    };
    let (from, to) = (human::local(first), human::local_zoned(last));
    match (from.split_once(' '), to.split_once(' ')) {
        (Some((day, _)), Some((other, time))) if day == other => format!("{from} - {time}"),
        _ => format!("{from} - {to}"),
    }
}

pub fn fork(fork: &ForkView) -> String {
    let title = format!("fork {} of role {}", fork.short, fork.role);
    let mut lines = vec![heading(&title)];
    let mut table = Table::bare();
    let mut row = |word: &str, text: String| table.row([word.to_owned(), text]);
    row("why", fork.reason.clone());
    row("term", fork.term.to_string());
    row("written", written(fork));
    row(
        "found",
        fork.found.map_or("not known".into(), human::local_zoned),
    );
    let unknown = "not known which point it grew from".to_owned();
    let base = fork.base.as_ref();
    row("base", base.map_or(unknown, ToString::to_string));
    for (number, point) in fork.points.iter().enumerate() {
        let word = if number == 0 { "points" } else { "" };
        let taken = human::local_zoned(point.taken);
        row(word, format!("{}  {taken}", point.short));
    }
    for dir in &fork.mounted {
        row("mounted", dir.display().to_string());
    }
    match &fork.measured {
        None => row("differs", "not measured: its base was not here".into()),
        Some(measure) => {
            row("differs", figures(&measure.total));
            if measure.datasets.len() > 1 {
                for (dataset, of) in &measure.datasets {
                    row("", format!("{dataset}: {}", figures(of)));
                }
            }
        }
    }
    lines.extend(table.lines("  "));
    lines.join("\n")
}

/// `12 files (3 added, 9 changed), 2 directories, 1.2 MiB`.
fn figures(figures: &Figures) -> String {
    let kinds = [
        (figures.added, "added"),
        (figures.changed, "changed"),
        (figures.removed, "removed"),
        (figures.renamed, "renamed"),
    ];
    let kinds = kinds.iter().filter(|(number, _)| *number > 0);
    let kinds: Vec<String> = kinds
        .map(|(number, word)| format!("{number} {word}"))
        .collect();
    let mut text = human::count(figures.files as usize, "file");
    if !kinds.is_empty() {
        text.push_str(&format!(" ({})", kinds.join(", ")));
    }
    match figures.directories {
        0 => {}
        1 => text.push_str(", 1 directory"),
        many => text.push_str(&format!(", {many} directories")),
    }
    format!("{text}, {}", units::human_bytes(figures.bytes))
}

pub fn fork_diff(diff: &ForkDiff, stat: bool) -> String {
    let mut lines = Vec::new();
    for dataset in &diff.datasets {
        if !lines.is_empty() {
            lines.push(String::new());
        }
        lines.extend(dataset_lines(dataset, &diff.fork, stat));
    }
    lines.join("\n")
}

fn dataset_lines(of: &ForkChanges, fork: &ForkView, stat: bool) -> Vec<String> {
    let title = heading(&format!("dataset {}", of.dataset));
    let against = of.against.as_ref();
    let newest = fork.points.last().map_or(&fork.short, |point| &point.short);
    let compared = against.map(|base| format!("  {base} -> {newest}"));
    let mut lines = vec![title + &compared.unwrap_or_default()];
    if let Some(note) = &of.note {
        lines.push(format!("  {}", attention(note)));
    }
    if against.is_none() {
        return lines;
    }
    let mut table = Table::bare().right([1]);
    for change in &of.changes {
        table.row(change_row(change));
    }
    lines.extend(table.lines("  "));
    if of.left_out > 0 && !stat {
        lines.push(format!("  and {} more", of.left_out));
    }
    lines.push(format!("  {}", figures(&of.figures)));
    lines
}

fn change_row(change: &ChangeView) -> [String; 3] {
    let slash = |path: &str| match change.kind.as_deref() {
        Some("directory") => format!("{path}/"),
        _ => path.to_owned(),
    };
    let mut path = slash(&change.path);
    path = match (change.what.as_str(), &change.from) {
        ("added", Some(first)) => format!("{path} (also {first})"),
        (_, Some(was)) => format!("{} -> {path}", slash(was)),
        (_, None) => path,
    };
    let bytes = match change.bytes {
        0 => String::new(),
        bytes => units::human_bytes(bytes),
    };
    [change.what.clone(), bytes, path]
}

/// What it is about, and what is or would be done.
pub fn fork_report(report: &ForkReport) -> String {
    let about = report.fork.as_ref().filter(|_| report.dry_run);
    let about = about.map(|about| format!("{}\n", fork(about)));
    about.unwrap_or_default() + &fork_steps(report)
}

/// What was or would be done.
pub fn fork_steps(report: &ForkReport) -> String {
    step_lines(&report.steps, false).join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::samples;
    use expect_test::expect;

    #[test]
    fn the_list() {
        console::set_colors_enabled(false);
        expect![[r#"
            role web
              FORK  TERM       WRITTEN                             FILES     SIZE  FOUND       WHY
              1.45  1 (alder)  2026-11-20 10:04:00 - 10:31:00 UTC      3  1.2 MiB  1h 34m ago  written by a node that had lost the term"#]].assert_eq(&forks(&samples::forks()));
        let mut none = samples::forks();
        none.roles[0].forks.clear();
        expect![[r#"
            role web
              no forks on this node"#]]
        .assert_eq(&forks(&none));
    }

    #[test]
    fn one_fork() {
        console::set_colors_enabled(false);
        expect![[r#"
            fork 1.45 of role web
              why      written by a node that had lost the term
              term     1 (alder)
              written  2026-11-20 10:04:00 - 10:31:00 UTC
              found    2026-11-20 11:02:00 UTC
              base     1.42
              points   1.43  2026-11-20 10:10:05 UTC
                       1.45  2026-11-20 10:31:05 UTC
              differs  3 files (1 added, 1 changed, 1 renamed), 1 directory, 1.2 MiB"#]]
        .assert_eq(&fork(&samples::fork()));
        let mut lost = samples::fork();
        (lost.base, lost.measured, lost.found) = (None, None, None);
        lost.mounted = vec!["/mnt".into()];
        expect![[r#"
            fork 1.45 of role web
              why      written by a node that had lost the term
              term     1 (alder)
              written  2026-11-20 10:04:00 - 10:31:00 UTC
              found    not known
              base     not known which point it grew from
              points   1.43  2026-11-20 10:10:05 UTC
                       1.45  2026-11-20 10:31:05 UTC
              mounted  /mnt
              differs  not measured: its base was not here"#]]
        .assert_eq(&fork(&lost));
    }

    #[test]
    fn what_differs() {
        console::set_colors_enabled(false);
        expect![[r#"
            dataset files  1.42 -> 1.45
              changed  9.5 KiB  orders.db
              renamed           www/draft.html -> www/index.html
              added             www/new/
              added    1.2 MiB  www/new/photo.jpg
              3 files (1 added, 1 changed, 1 renamed), 1 directory, 1.2 MiB"#]]
        .assert_eq(&fork_diff(&samples::fork_diff(), false));
        let mut alone = samples::fork_diff();
        alone.datasets[0].against = None;
        alone.datasets[0].note = Some("there is nothing to compare with".into());
        expect![[r#"
            dataset files
              there is nothing to compare with"#]]
        .assert_eq(&fork_diff(&alone, true));
    }

    #[test]
    fn what_is_given_up() {
        console::set_colors_enabled(false);
        expect![[r#"
            fork 1.45 of role web
              why      written by a node that had lost the term
              term     1 (alder)
              written  2026-11-20 10:04:00 - 10:31:00 UTC
              found    2026-11-20 11:02:00 UTC
              base     1.42
              points   1.43  2026-11-20 10:10:05 UTC
                       1.45  2026-11-20 10:31:05 UTC
              differs  3 files (1 added, 1 changed, 1 renamed), 1 directory, 1.2 MiB
              -  discard fork 1.45 for good: 1.43, 1.45"#]]
        .assert_eq(&fork_report(&samples::fork_report()));
    }
}
