//! Steps planned or done, of a cycle or a restore.

use super::{heading, trouble};
use crate::commands::human;
use crate::daemon::api::{CycleReport, RestoreReport, RestoreRequest, Step};
use crate::error::Code;
use crate::logic::units;

pub fn cycle(report: &CycleReport) -> String {
    let mut lines = Vec::new();
    for role in &report.roles {
        if !lines.is_empty() {
            lines.push(String::new());
        }
        let title = heading(&format!("role {}", role.role));
        lines.push(match (report.dry_run, role.code) {
            (true, _) => format!("{title}  plan:"),
            (false, Code::Done) => {
                format!("{title}  done in {}", units::human_duration(role.seconds))
            }
            (false, Code::Partial) => {
                let took = units::human_duration(role.seconds);
                format!("{title}  {} in {took}", trouble("partly done"))
            }
            (false, Code::Interrupted) => {
                format!("{title}  cancelled; what arrived is kept and the next cycle goes on")
            }
            (false, code) => format!("{title}  {} ({})", trouble("failed"), code.word()),
        });
        lines.extend(step_lines(&role.steps, role.code == Code::Interrupted));
    }
    if lines.is_empty() {
        lines.push("nothing to do: no role is active on this node".into());
    }
    if report.dry_run {
        lines.push("nothing was changed (dry run)".into());
    }
    lines.join("\n")
}

/// What was damaged and what became of it.
pub fn rescan(report: &CycleReport) -> String {
    if report.roles.is_empty() {
        return "no roles configured".into();
    }
    cycle(report)
}

/// One exit code for all roles: theirs where they agree or there is one, else partly done.
pub fn cycle_code(report: &CycleReport) -> Code {
    let mut codes = report.roles.iter().map(|role| role.code);
    let first = codes.next().unwrap_or(Code::Done);
    if codes.all(|code| code == first) {
        first
    } else {
        Code::Partial
    }
}

pub fn restore(report: &RestoreReport) -> String {
    let failed = report.steps.iter().any(|step| step.ok == Some(false));
    let word = match (report.dry_run, failed) {
        (true, _) => "restore",
        (false, false) => "restored",
        (false, true) => "partly restored",
    };
    let mut lines = vec![format!(
        "{}  from point {}, taken {}",
        heading(&format!("{word} {}", report.role)),
        report.point.short,
        human::local_zoned(report.point.taken),
    )];
    lines.extend(step_lines(&report.steps, false));
    lines.join("\n")
}

/// What a restore over live data replaced, and the command that brings just that back; none when nothing live was
/// replaced.
pub fn undo(request: &RestoreRequest, report: &RestoreReport) -> Option<String> {
    let kept = &report.kept.as_ref()?.short;
    let mut command = format!("standin restore {} --point {kept}", request.role);
    if let Some(dataset) = &request.dataset {
        command += &format!(" --dataset {dataset}");
    }
    if let Some(path) = &request.path {
        command += &format!(" --path {}", path.display());
    }
    Some(format!(
        "what was live before is kept as point {kept}; to undo: {command}"
    ))
}

/// Where somebody wanted it to stop, a step that did not end is no failure.
/// One line for each step, and what went wrong with it.
pub(super) fn step_lines(steps: &[Step], cancelled: bool) -> Vec<String> {
    let mut lines = Vec::new();
    for step in steps {
        let mark = match step.ok {
            None => "-".to_owned(),
            Some(true) => "ok".to_owned(),
            Some(false) if cancelled => "stopped".to_owned(),
            Some(false) => trouble("FAILED"),
        };
        lines.push(format!("  {mark}  {}", step.text));
        if cancelled {
            continue;
        }
        if let Some(error) = &step.error {
            lines.extend(error.lines().map(|line| format!("      {line}")));
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::samples;
    use expect_test::expect;

    #[test]
    fn a_cycle_with_one_peer_away() {
        console::set_colors_enabled(false);
        expect![[r#"
            role web  partly done in 1m 15s
              ok  take point 1.43
              ok  send 1.43 on top of 1.42 to birch
              FAILED  send 1.43 to cedar
                  cedar cannot be reached: connection refused
                  the next cycle tries again
              ok  remove 1.12"#]]
        .assert_eq(&cycle(&samples::cycle()));
    }

    #[test]
    fn a_cycle_that_was_cancelled() {
        console::set_colors_enabled(false);
        let mut report = samples::cycle();
        let web = &mut report.roles[0];
        web.code = Code::Interrupted;
        web.steps.truncate(3);
        web.steps.remove(1);
        web.steps[1].error = Some("could not send files to cedar: cancelled".into());
        expect![[r#"
            role web  cancelled; what arrived is kept and the next cycle goes on
              ok  take point 1.43
              stopped  send 1.43 to cedar"#]]
        .assert_eq(&cycle(&report));
    }

    #[test]
    fn a_restore_says_how_to_undo_it() {
        console::set_colors_enabled(false);
        expect![[r#"
            restored web  from point 1.42, taken 2026-11-20 12:30:05 UTC
              ok  keep what is live now as point 1.44
              ok  put files of 1.42 in place of /srv/web
        "#]]
        .assert_eq(&(restore(&samples::restore()) + "\n"));
        let request = RestoreRequest {
            before: None,
            role: samples::restore().role,
            point: "1.42".into(),
            dataset: None,
            path: Some("a/b".into()),
            to: None,
            dry_run: false,
        };
        expect!["what was live before is kept as point 1.44; to undo: standin restore web --point 1.44 --path a/b"]
            .assert_eq(&undo(&request, &samples::restore()).unwrap());
    }

    fn check(codes: &[Code], code: Code) {
        let mut report = samples::cycle();
        let role = report.roles.remove(0);
        report.roles = codes
            .iter()
            .map(|&code| crate::daemon::api::RoleCycle {
                code,
                ..role.clone()
            })
            .collect();
        assert_eq!(cycle_code(&report), code, "{codes:?}");
    }

    #[test]
    fn one_code_for_many_roles() {
        use Code::*;
        check(&[], Done);
        check(&[Done, Done], Done);
        check(&[Unreachable], Unreachable);
        check(&[Unreachable, Unreachable], Unreachable);
        check(&[Done, Unreachable], Partial);
        check(&[Failed, Diverged], Partial);
    }
}
