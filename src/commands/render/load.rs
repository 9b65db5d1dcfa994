//! `standin load`: one line for each dump.

use super::{attention, trouble};
use crate::daemon::api::LoadReport;

pub fn load(report: &LoadReport) -> String {
    let mut lines: Vec<String> = report.skipped.iter().cloned().collect();
    for dump in &report.dumps {
        let (name, kind) = (&dump.name, &dump.kind);
        let text = match dump.result.as_str() {
            "left" => attention(&format!("left alone: {}", dump.text)),
            "failed" => trouble(&format!("FAILED: {}", dump.text)),
            "loaded" => format!("loaded: {}", dump.text),
            _ => dump.text.clone(),
        };
        lines.push(format!("{name} ({kind})  {text}"));
        if dump.result == "left" {
            lines.push(format!(
                "  hint: where the dump is the better one: standin load {} {name} --replace",
                report.role
            ));
        }
        lines.extend(dump.hint.iter().map(|hint| format!("  hint: {hint}")));
    }
    lines.join("\n")
}
