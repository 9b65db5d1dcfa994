//! A drill, and what `status` says of the last one.

use jiff::Timestamp;

use super::{attention, heading, trouble};
use crate::commands::human;
use crate::daemon::api::{DrillReport, DrillStep, RoleStatus};
use crate::logic::units::human_duration;

/// Lines of a command's output that are shown: its end.
const LINES_SHOWN: usize = 12;

pub fn drill(report: &DrillReport) -> String {
    let word = match report.passed {
        None => "plan".to_owned(),
        Some(true) => format!("passed in {}", human_duration(report.seconds)),
        Some(false) => format!(
            "{} after {}",
            trouble("FAILED"),
            human_duration(report.seconds)
        ),
    };
    let mut lines = vec![format!(
        "{}  of point {}, taken {}: {word}",
        heading(&format!("drill {}", report.role)),
        report.point.short,
        human::local_zoned(report.point.taken),
    )];
    lines.extend(report.steps.iter().flat_map(step));
    let gone = |step: &DrillStep| step.what == "discard" && step.ok == Some(true);
    if report.dry_run {
        lines.push("nothing was changed (dry run)".to_owned());
    } else if report.steps.iter().any(gone) {
        lines.push("the copy is discarded; live data and points are as they were".to_owned());
    }
    if report.passed == Some(false) {
        let (role, point) = (&report.role, &report.point.short);
        lines.push(format!(
            "to look at the same data: standin restore {role} --point {point} --to DIR"
        ));
    }
    lines.join("\n")
}

fn step(step: &DrillStep) -> Vec<String> {
    let mark = match step.ok {
        None => "-".to_owned(),
        Some(true) => "ok".to_owned(),
        Some(false) => trouble("FAILED"),
    };
    let took = step.seconds.map(|seconds| match seconds < 0.05 {
        true => "  (under 0.1s)".to_owned(),
        false => format!("  ({})", human_duration(seconds)),
    });
    let mut lines = vec![format!(
        "  {mark}  {}{}",
        step.text,
        took.unwrap_or_default()
    )];
    let error = step.error.iter().flat_map(|error| error.lines());
    lines.extend(error.map(|line| format!("      {line}")));
    let said: Vec<&str> = step.output.lines().collect();
    let end = &said[said.len().saturating_sub(LINES_SHOWN)..];
    lines.extend(end.iter().map(|line| format!("      | {line}")));
    lines
}

/// `drill passed 3d ago (1.42, 12s)`.
pub(super) fn last_drill(role: &RoleStatus, now: Timestamp) -> String {
    let word = match &role.drill {
        None => "never".to_owned(),
        Some(last) => {
            let (ago, took) = (human::ago(last.ended, now), human_duration(last.seconds));
            let facts = format!("{ago} ({}, {took})", last.point.short);
            match &last.failure {
                None => format!("passed {facts}"),
                Some(failure) => format!("{} {facts}: {failure}", trouble("FAILED")),
            }
        }
    };
    let running = match role.drilling {
        true => format!("{}, last: ", attention("running")),
        false => String::new(),
    };
    format!("  drill  {running}{word}")
}

#[cfg(test)]
pub use tests::{last, sample};

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::samples;
    use crate::daemon::api::DrillView;
    use expect_test::expect;

    pub fn sample() -> DrillReport {
        let step = |what: &str, text: &str, error: Option<&str>, output: &str| DrillStep {
            what: what.into(),
            text: text.into(),
            ok: Some(error.is_none()),
            error: error.map(str::to_owned),
            output: output.into(),
            seconds: Some(if what == "check" { 11.6 } else { 0.01 }),
        };
        let copy = "make a throw-away copy of 1.42 (files) at /run/standin/drill/web";
        let check = "check /usr/local/bin/check-web --full";
        DrillReport {
            dry_run: false,
            role: samples::role(),
            point: samples::summary(42, "12:30:05"),
            passed: Some(false),
            steps: vec![
                step("copy", copy, None, ""),
                step(
                    "check",
                    check,
                    Some("exit status: 1"),
                    "index.html\nno index",
                ),
                step("discard", "discard the copy", None, ""),
            ],
            seconds: 12.0,
        }
    }

    pub fn last() -> DrillView {
        DrillView {
            ended: "2026-11-20T12:32:45Z".parse().unwrap(),
            point: samples::summary(42, "12:30:05"),
            passed: true,
            seconds: 12.0,
            failure: None,
        }
    }

    #[test]
    fn a_drill_that_failed() {
        console::set_colors_enabled(false);
        expect![[r#"
            drill web  of point 1.42, taken 2026-11-20 12:30:05 UTC: FAILED after 12s
              ok  make a throw-away copy of 1.42 (files) at /run/standin/drill/web  (under 0.1s)
              FAILED  check /usr/local/bin/check-web --full  (12s)
                  exit status: 1
                  | index.html
                  | no index
              ok  discard the copy  (under 0.1s)
            the copy is discarded; live data and points are as they were
            to look at the same data: standin restore web --point 1.42 --to DIR"#]]
        .assert_eq(&drill(&sample()));
    }

    #[test]
    fn a_drill_that_would_be() {
        console::set_colors_enabled(false);
        let mut plan = sample();
        (plan.dry_run, plan.passed) = (true, None);
        for step in &mut plan.steps {
            (step.ok, step.seconds, step.error) = (None, None, None);
            step.output.clear();
        }
        expect![[r#"
            drill web  of point 1.42, taken 2026-11-20 12:30:05 UTC: plan
              -  make a throw-away copy of 1.42 (files) at /run/standin/drill/web
              -  check /usr/local/bin/check-web --full
              -  discard the copy
            nothing was changed (dry run)"#]]
        .assert_eq(&drill(&plan));
    }

    #[test]
    fn the_last_one() {
        console::set_colors_enabled(false);
        let status = samples::status();
        let mut role = status.roles[0].clone();
        let check = |role: &RoleStatus, expected: &str| {
            assert_eq!(last_drill(role, status.now), expected);
        };
        role.drill = Some(last());
        check(&role, "  drill  passed 3m ago (1.42, 12s)");
        if let Some(last) = &mut role.drill {
            last.failure = Some("check a: exit status: 1".into());
        }
        role.drilling = true;
        check(
            &role,
            "  drill  running, last: FAILED 3m ago (1.42, 12s): check a: exit status: 1",
        );
        (role.drill, role.drilling) = (None, false);
        check(&role, "  drill  never");
    }
}
