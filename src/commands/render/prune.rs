//! `standin prune`: each point and why it stays or goes.

use super::{heading, trouble};
use crate::commands::human;
use crate::commands::table::Table;
use crate::daemon::api::{PruneReport, VerdictView};

pub fn prune(report: &PruneReport) -> String {
    let mut lines = Vec::new();
    for role in &report.roles {
        if !lines.is_empty() {
            lines.push(String::new());
        }
        let going = role
            .verdicts
            .iter()
            .filter(|v| !v.keep && v.error.is_none());
        let going = going.count();
        let staying = role.verdicts.len() - going;
        let tense = if report.dry_run { "would go" } else { "went" };
        let title = heading(&format!("role {}", role.role));
        lines.push(format!("{title}  {staying} left, {going} {tense}"));
        let mut table = Table::bare();
        for verdict in &role.verdicts {
            table.row(row(verdict, report.dry_run));
        }
        lines.extend(table.lines("  "));
    }
    if lines.is_empty() {
        lines.push("no roles configured".into());
    }
    if report.dry_run {
        lines.push("nothing was removed (dry run)".into());
    }
    lines.join("\n")
}

fn row(verdict: &VerdictView, dry_run: bool) -> [String; 4] {
    let word = match (verdict.keep, &verdict.error, dry_run) {
        (true, _, _) => "stays".to_owned(),
        (false, Some(_), _) => trouble("could not go"),
        (false, None, true) => "would go".to_owned(),
        (false, None, false) => "went".to_owned(),
    };
    let mut reasons = verdict.reasons.join(", ");
    if let Some(error) = &verdict.error {
        reasons.push_str(": ");
        reasons.push_str(error);
    }
    [
        word,
        verdict.short.clone(),
        human::local_zoned(verdict.taken),
        reasons,
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::samples;
    use expect_test::expect;

    #[test]
    fn reasons_for_both() {
        console::set_colors_enabled(false);
        expect![[r#"
            role web  3 left, 1 went
              stays         1.43  2026-11-20 12:35:05 UTC  newest
              stays         1.42  2026-11-20 12:30:05 UTC  base of birch
              could not go  1.41  2026-11-20 12:25:05 UTC  no rule keeps it: a send is using it
              went          1.40  2026-11-20 12:20:05 UTC  no rule keeps it"#]]
        .assert_eq(&prune(&samples::prune()));
    }
}
