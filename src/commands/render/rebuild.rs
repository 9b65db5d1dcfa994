//! What a rebuild will do, and what came of it.

use super::cycle::step_lines;
use super::{heading, trouble};
use crate::daemon::api::{RebuildReport, RoleRebuild};
use crate::error::Code;

pub fn rebuild(report: &RebuildReport) -> String {
    let mut lines = Vec::new();
    if !report.sections.is_empty() && report.dry_run {
        let path = report.config.display();
        lines.push(heading(&format!("to be added to {path}:")));
        let sections = report.sections.lines();
        lines.extend(sections.map(|line| format!("    {line}").trim_end().to_owned()));
        lines.push(String::new());
    }
    for role in &report.roles {
        lines.push(title(report, role));
        lines.extend(step_lines(&role.steps, false));
        if let Some(next) = &role.next {
            lines.push(format!("  next: {next}"));
        }
    }
    for problem in &report.problems {
        lines.push(format!("{}: {problem}", trouble("in the way")));
    }
    if report.dry_run && !report.problems.is_empty() {
        lines.push("nothing can be done before that".to_owned());
    } else if report.dry_run {
        lines.push("nothing was changed so far".to_owned());
    }
    lines.join("\n")
}

fn title(report: &RebuildReport, role: &RoleRebuild) -> String {
    let title = heading(&format!("role {}", role.role));
    let from = &report.from;
    match (report.dry_run, role.code) {
        (true, _) => format!("{title}  from {from}:"),
        (false, Code::Done) => format!("{title}  {} here", points(role.points)),
        (false, Code::Partial) => format!(
            "{title}  {}: {} here, {} still missing",
            trouble("partly done"),
            points(role.points),
            role.missing
        ),
        (false, code) => format!("{title}  {} ({})", trouble("failed"), code.word()),
    }
}

fn points(count: usize) -> String {
    match count {
        1 => "1 point is".to_owned(),
        count => format!("{count} points are"),
    }
}

/// One exit code for all roles: theirs where they agree, else partly done.
pub fn rebuild_code(report: &RebuildReport) -> Code {
    if report.dry_run && !report.problems.is_empty() {
        return Code::Refused;
    }
    let mut codes = report.roles.iter().map(|role| role.code);
    let first = codes.next().unwrap_or(Code::Done);
    match codes.all(|code| code == first) {
        true => first,
        false => Code::Partial,
    }
}

/// An example, for docs/json.md and the tests.
#[cfg(test)]
pub fn sample() -> RebuildReport {
    use crate::daemon::api::Step;
    let step = |text: &str| Step {
        what: "fetch".into(),
        text: text.into(),
        ok: Some(true),
        error: None,
    };
    RebuildReport {
        dry_run: false,
        from: crate::logic::name::NodeName::parse("birch").unwrap(),
        config: "/etc/standin/standin.toml".into(),
        sections: "# As birch has it; look through it, then `standin check`.\n[role.web]\nhome = \"alder\"\n".into(),
        problems: Vec::new(),
        roles: vec![RoleRebuild {
            role: crate::logic::name::RoleName::parse("web").unwrap(),
            steps: vec![
                step("fetch 1.43, in full, from birch"),
                step("fetch 42 more points from birch"),
            ],
            points: 43,
            missing: 0,
            code: Code::Done,
            next: Some(
                "nobody serves the role now; to serve it here: standin promote web".into(),
            ),
        }],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::{Expect, expect};

    fn check(change: impl Fn(&mut RebuildReport), code: Code, expected: Expect) {
        console::set_colors_enabled(false);
        let mut report = sample();
        change(&mut report);
        expected.assert_eq(&rebuild(&report));
        assert_eq!(rebuild_code(&report), code);
    }

    #[test]
    fn before_and_after() {
        check(
            |_| {},
            Code::Done,
            expect![[r#"
            role web  43 points are here
              ok  fetch 1.43, in full, from birch
              ok  fetch 42 more points from birch
              next: nobody serves the role now; to serve it here: standin promote web"#]],
        );
        check(
            |report| {
                report.roles[0].code = Code::Partial;
                report.roles[0].missing = 7;
            },
            Code::Partial,
            expect![[r#"
                role web  partly done: 43 points are here, 7 still missing
                  ok  fetch 1.43, in full, from birch
                  ok  fetch 42 more points from birch
                  next: nobody serves the role now; to serve it here: standin promote web"#]],
        );
        check(
            |report| report.dry_run = true,
            Code::Done,
            expect![[r#"
            to be added to /etc/standin/standin.toml:
                # As birch has it; look through it, then `standin check`.
                [role.web]
                home = "alder"

            role web  from birch:
              ok  fetch 1.43, in full, from birch
              ok  fetch 42 more points from birch
              next: nobody serves the role now; to serve it here: standin promote web
            nothing was changed so far"#]],
        );
        check(
            |report| {
                report.dry_run = true;
                report.problems = vec!["files of role web cannot be at /srv/web".into()];
            },
            Code::Refused,
            expect![[r#"
                to be added to /etc/standin/standin.toml:
                    # As birch has it; look through it, then `standin check`.
                    [role.web]
                    home = "alder"

                role web  from birch:
                  ok  fetch 1.43, in full, from birch
                  ok  fetch 42 more points from birch
                  next: nobody serves the role now; to serve it here: standin promote web
                in the way: files of role web cannot be at /srv/web
                nothing can be done before that"#]],
        );
    }
}
