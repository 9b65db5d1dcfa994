//! A role that moved, or would.

use super::cycle::step_lines;
use super::heading;
use crate::daemon::api::MoveReport;
use crate::logic::units;

pub fn moved(report: &MoveReport) -> String {
    let title = heading(&format!("role {}", report.role));
    let mut lines = Vec::new();
    lines.push(match (&report.state, &report.term) {
        (Some(state), Some(term)) => format!("{title}  {state} here, term {term}"),
        _ => format!("{title}  plan:"),
    });
    lines.extend(step_lines(&report.steps, false));
    if report.dry_run {
        lines.push("nothing was changed (dry run)".into());
        return lines.join("\n");
    }
    if let Some(down) = report.down_s {
        lines.push(format!(
            "nobody was served for {}, from the first service that stopped until the other node said it was up",
            units::human_duration(down)
        ));
    }
    lines.join("\n")
}
