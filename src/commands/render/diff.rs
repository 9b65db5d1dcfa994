//! `standin diff`: by dataset, what differs and by how much.

use console::style;

use super::{attention, heading};
use crate::commands::human;
use crate::commands::table::Table;
use crate::daemon::api::{
    DatasetDiff, DiffReport, DiffSide, DiffSum, DiffSums, DiffTop, DifferenceView,
};
use crate::host::command::harmless;
use crate::logic::units;

pub fn diff(report: &DiffReport) -> String {
    let side = |side: &DiffSide| match side.kind.as_str() {
        "live" => "live".to_owned(),
        kind => {
            let fork = if kind == "fork" { "fork " } else { "" };
            format!("{fork}{} ({})", side.short, human::local(side.taken))
        }
    };
    let title = heading(&format!("role {}", report.role));
    let mut lines = vec![format!(
        "{title}  {} -> {}",
        side(&report.old),
        side(&report.new)
    )];
    for dataset in &report.datasets {
        lines.push(String::new());
        lines.extend(of_dataset(dataset));
    }
    lines.join("\n")
}

fn of_dataset(of: &DatasetDiff) -> Vec<String> {
    let mut lines = vec![heading(&format!("dataset {}", of.dataset))];
    let note = of.note.iter();
    lines.extend(note.map(|note| format!("  {}", attention(note))));
    if of.compared {
        lines.extend(listed(&of.differences));
        lines.extend(of_tops(&of.tops));
        if of.left_out > 0 && of.tops.is_empty() {
            lines.push(format!("  and {} more", of.left_out));
        }
        lines.push(format!("  {}", in_words(&of.sums)));
    }
    lines
}

fn listed(differences: &[DifferenceView]) -> Vec<String> {
    let mut table = Table::bare().right([1]);
    for difference in differences {
        table.row([word(difference), sizes(difference), path(difference)]);
    }
    let rows = table.lines("  ").into_iter().zip(differences);
    rows.flat_map(|(row, difference)| {
        let mut lines = vec![row];
        let note = difference.text_note.iter();
        lines.extend(note.map(|note| format!("      ({note})")));
        let text = difference.text.iter();
        lines.extend(text.flat_map(|text| text_lines(text)));
        lines
    })
    .collect()
}

fn word(difference: &DifferenceView) -> String {
    let word = style(&difference.what);
    match difference.what.as_str() {
        "added" => word.green(),
        "removed" => word.red(),
        "changed" => word.yellow(),
        "renamed" => word.cyan(),
        _ => word.dim(),
    }
    .to_string()
}

/// What it came to: `9.5 KiB -> 12 KiB`, `12 files, 1.2 MiB`.
fn sizes(difference: &DifferenceView) -> String {
    if let Some(inside) = &difference.inside {
        return sum(inside);
    }
    match (difference.old_bytes, difference.new_bytes) {
        (None, None) => String::new(),
        (Some(one), None) | (None, Some(one)) => units::human_bytes(one),
        (Some(old), Some(new)) if old != new => {
            format!("{} -> {}", units::human_bytes(old), units::human_bytes(new))
        }
        (Some(_), Some(same)) if difference.content => units::human_bytes(same),
        (Some(_), Some(_)) => String::new(),
    }
}

fn path(difference: &DifferenceView) -> String {
    let slash = |path: &str| match difference.kind.as_deref() {
        Some("directory") => format!("{path}/"),
        _ => path.to_owned(),
    };
    let path = slash(&difference.path);
    let mut text = match (difference.what.as_str(), &difference.from) {
        ("added", Some(first)) => format!("{path} (a further name of {first})"),
        ("renamed", Some(was)) => format!("{} -> {path}", slash(was)),
        _ => path,
    };
    if let (Some(was), Some(kind)) = (&difference.was, &difference.kind) {
        text.push_str(&format!(" ({kind}, was a {was})"));
    }
    let beside: Vec<&str> = [
        ("renamed", difference.content, "changed"),
        ("renamed", difference.metadata, "metadata"),
    ]
    .iter()
    .filter(|(what, is, _)| *is && *what == difference.what)
    .map(|(_, _, word)| *word)
    .collect();
    if !beside.is_empty() {
        text.push_str(&format!(" (and {})", beside.join(", ")));
    }
    text
}

/// Texts of files: not a terminal's to obey. The names stand above.
fn text_lines(text: &str) -> Vec<String> {
    let text = harmless(text.as_bytes());
    let body = text.lines().skip(2);
    body.map(|line| {
        let shown = style(line);
        let shown = match line.as_bytes().first() {
            Some(b'+') => shown.green(),
            Some(b'-') => shown.red(),
            Some(b'@') => shown.cyan(),
            _ => shown,
        };
        format!("      {shown}")
    })
    .collect()
}

fn of_tops(tops: &[DiffTop]) -> Vec<String> {
    let mut table = Table::bare().right([1]);
    for top in tops {
        let path = match top.path.as_str() {
            "" => "(at the top)".to_owned(),
            path => format!("{path}/"),
        };
        table.row([
            path,
            units::human_bytes(bytes(&top.sums)),
            in_words(&top.sums),
        ]);
    }
    table.lines("  ")
}

fn all(sums: &DiffSums) -> [(&'static str, &DiffSum); 5] {
    [
        ("added", &sums.added),
        ("removed", &sums.removed),
        ("changed", &sums.changed),
        ("renamed", &sums.renamed),
        ("metadata only", &sums.metadata),
    ]
}

fn bytes(sums: &DiffSums) -> u64 {
    all(sums).iter().map(|(_, sum)| sum.bytes).sum()
}

/// `12 files, 3 directories, 1.2 MiB`.
fn sum(sum: &DiffSum) -> String {
    let mut words = Vec::new();
    if sum.files > 0 {
        words.push(human::count(sum.files as usize, "file"));
    }
    match sum.directories {
        0 => {}
        1 => words.push("1 directory".to_owned()),
        many => words.push(format!("{many} directories")),
    }
    if sum.bytes > 0 {
        words.push(units::human_bytes(sum.bytes));
    }
    match words.is_empty() {
        true => "empty".to_owned(),
        false => words.join(", "),
    }
}

/// `added: 12 files, 1.2 MiB; changed: 1 file, 9.5 KiB`.
fn in_words(sums: &DiffSums) -> String {
    let some = all(sums);
    let some = some.iter().filter(|(_, sum)| **sum != DiffSum::default());
    let words: Vec<String> = some
        .map(|(word, of)| format!("{word}: {}", sum(of)))
        .collect();
    match words.is_empty() {
        true => "no difference".to_owned(),
        false => words.join("; "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::samples;
    use expect_test::expect;

    #[test]
    fn what_differs() {
        console::set_colors_enabled(false);
        expect![[r#"
            role web  1.42 (2026-11-20 12:30:05) -> live

            dataset files
              metadata                                  bin/tool
              changed                     12 B -> 13 B  etc/app.conf
                  @@ -1,2 +1,2 @@
                   name = x
                  -port = 1
                  +port = 22
              changed             40.0 KiB -> 48.0 KiB  orders.db
                  (not text)
              renamed                                   www/draft.html -> www/index.html
              added     12 files, 1 directory, 3.2 MiB  www/new/
              removed                          2.9 KiB  www/old.html
              added: 12 files, 2 directories, 3.2 MiB; removed: 1 file, 2.9 KiB; changed: 2 files, 9.5 KiB; renamed: 1 file; metadata only: 1 file"#]].assert_eq(&diff(&samples::diff()));
        let mut stat = samples::diff();
        let dataset = &mut stat.datasets[0];
        dataset.left_out = dataset.differences.len() as u64;
        dataset.differences.clear();
        dataset.tops = vec![
            DiffTop {
                path: "www/new".into(),
                sums: DiffSums {
                    added: dataset.sums.added,
                    ..DiffSums::default()
                },
            },
            DiffTop {
                path: String::new(),
                sums: DiffSums {
                    changed: dataset.sums.changed,
                    ..DiffSums::default()
                },
            },
        ];
        expect![[r#"
            role web  1.42 (2026-11-20 12:30:05) -> live

            dataset files
              www/new/      3.2 MiB  added: 12 files, 2 directories, 3.2 MiB
              (at the top)  9.5 KiB  changed: 2 files, 9.5 KiB
              added: 12 files, 2 directories, 3.2 MiB; removed: 1 file, 2.9 KiB; changed: 2 files, 9.5 KiB; renamed: 1 file; metadata only: 1 file"#]].assert_eq(&diff(&stat));
    }

    #[test]
    fn nothing_and_one_side_only() {
        console::set_colors_enabled(false);
        let mut none = samples::diff();
        none.datasets[0].differences.clear();
        none.datasets[0].sums = DiffSums::default();
        expect![[r#"
            role web  1.42 (2026-11-20 12:30:05) -> live

            dataset files
              no difference"#]]
        .assert_eq(&diff(&none));
        none.datasets[0].compared = false;
        none.datasets[0].note =
            Some("1.42 does not hold this dataset: there is nothing to compare live with".into());
        expect![[r#"
            role web  1.42 (2026-11-20 12:30:05) -> live

            dataset files
              1.42 does not hold this dataset: there is nothing to compare live with"#]]
        .assert_eq(&diff(&none));
    }
}
