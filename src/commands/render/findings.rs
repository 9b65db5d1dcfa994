//! `standin check`: problems first, then warnings, then what is well.

use super::{attention, trouble};
use crate::commands::human;
use crate::daemon::api::{CheckReport, Finding, Level};
use crate::error::Code;

/// Where the sentences begin, in columns.
const WORD_WIDTH: usize = 9;

pub fn findings(report: &CheckReport) -> String {
    let mut lines = Vec::new();
    for level in [Level::Problem, Level::Warning, Level::Ok] {
        for finding in report.findings.iter().filter(|f| f.level == level) {
            lines.extend(finding_lines(finding));
        }
    }
    let count = |level| report.findings.iter().filter(|f| f.level == level).count();
    lines.push(format!(
        "{} ok, {}, {}",
        count(Level::Ok),
        human::count(count(Level::Warning), "warning"),
        human::count(count(Level::Problem), "problem")
    ));
    lines.join("\n")
}

/// 2 when the configuration is wrong, 14 when only the daemon is missing, 1 for other problems.
pub fn findings_code(report: &CheckReport) -> Code {
    let problems = report.findings.iter().filter(|f| f.level == Level::Problem);
    let subjects: Vec<&str> = problems.map(|f| f.subject.as_str()).collect();
    if subjects.is_empty() {
        Code::Done
    } else if subjects.contains(&"config") {
        Code::Usage
    } else if subjects == ["daemon"] {
        Code::NoDaemon
    } else {
        Code::Failed
    }
}

fn finding_lines(finding: &Finding) -> Vec<String> {
    let word = match finding.level {
        Level::Ok => "ok".to_owned(),
        Level::Warning => attention("warning"),
        Level::Problem => trouble("PROBLEM"),
    };
    let width = console::measure_text_width(&word);
    let blanks = " ".repeat(WORD_WIDTH.saturating_sub(width));
    let mut lines = vec![format!(
        "{word}{blanks}{}: {}",
        finding.subject, finding.text
    )];
    if let Some(hint) = &finding.hint {
        let mut told = hint.lines();
        let first = told.next().unwrap_or_default();
        let blanks = " ".repeat(WORD_WIDTH);
        lines.push(format!("{blanks}hint: {first}"));
        lines.extend(told.map(|line| format!("{blanks}  {line}")));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::samples;
    use expect_test::expect;

    #[test]
    fn the_worst_first() {
        console::set_colors_enabled(false);
        expect![[r#"
            PROBLEM  peer cedar: is not paired
                     hint: standin pair invite, here; standin pair accept, on cedar
            warning  peer birch: its clock is 3s ahead
                     hint: run a time service on both nodes
            ok       config: /etc/standin/standin.toml is in order
            1 ok, 1 warning, 1 problem"#]]
        .assert_eq(&findings(&samples::check()));
    }

    fn check(problems: &[&str], code: Code) {
        let findings = problems
            .iter()
            .map(|subject| Finding {
                level: Level::Problem,
                subject: (*subject).to_owned(),
                text: String::new(),
                hint: None,
            })
            .collect();
        assert_eq!(findings_code(&CheckReport { findings }), code);
    }

    #[test]
    fn codes() {
        check(&[], Code::Done);
        check(&["daemon"], Code::NoDaemon);
        check(&["daemon", "config"], Code::Usage);
        check(&["daemon", "kernel"], Code::Failed);
        check(&["peer birch"], Code::Failed);
    }
}
