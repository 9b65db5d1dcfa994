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
    if let (Some(down), Some(moved)) = (report.down_s, report.moved_s) {
        let stopping = units::human_duration((down - moved).max(0.0));
        lines.push(format!(
            "nobody was served for {}: {stopping} until the services here had stopped, {} until the other node was up",
            units::human_duration(down),
            units::human_duration(moved)
        ));
    }
    lines.join("\n")
}
