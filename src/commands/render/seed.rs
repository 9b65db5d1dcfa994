//! `standin seed`: each file, and what was done about it.

use super::{attention, trouble};
use crate::daemon::api::{SeedReport, SeedState, SeedStep};
use crate::error::Code;
use crate::host::command::harmless;

pub fn seeded(report: &SeedReport) -> String {
    if report.files.is_empty() {
        return "no seeded files: [[role.NAME.seed]] in the configuration names them".to_owned();
    }
    let words: Vec<String> = report.files.iter().map(|step| word(report, step)).collect();
    let widest = words.iter().map(|word| console::measure_text_width(word));
    let widest = widest.max().unwrap_or(0);
    let mut lines = Vec::new();
    for (step, word) in report.files.iter().zip(&words) {
        let blanks = " ".repeat(widest - console::measure_text_width(word));
        let (role, file) = (&step.role, &step.file);
        let (to, from) = (file.to.display(), &file.from);
        lines.push(format!("{word}{blanks}  {to}  (role {role}, from {from})"));
        let told = file.state != SeedState::Fresh;
        if let Some(why) = file.why.as_ref().filter(|_| told) {
            lines.extend(indented(why));
        }
        if let Some(hint) = file.hint.as_ref().filter(|_| told) {
            lines.extend(indented(&format!("hint: {hint}")));
        }
        if let Some(kept) = &step.kept {
            lines.extend(indented(&format!(
                "what was there is kept as {}",
                kept.display()
            )));
        }
        if let Some(diff) = step.diff.as_ref().filter(|_| report.dry_run) {
            lines.extend(indented(diff));
        }
    }
    lines.join("\n")
}

/// A text under its file; what a template holds is not a terminal's to obey.
fn indented(text: &str) -> Vec<String> {
    let text = harmless(text.as_bytes());
    text.lines().map(|line| format!("    {line}")).collect()
}

fn word(report: &SeedReport, step: &SeedStep) -> String {
    match (step.file.state, step.what.as_str()) {
        (SeedState::Failing, _) => trouble("FAILING"),
        (SeedState::Edited, _) => attention("left alone"),
        (SeedState::Idle, _) => "not now".to_owned(),
        (_, "nothing") => "unchanged".to_owned(),
        (_, "attributes") if report.dry_run => "would set mode or owner of".to_owned(),
        (_, "attributes") => "set mode or owner of".to_owned(),
        (_, what) if report.dry_run => format!("would {what}"),
        (_, "replace") => "replaced".to_owned(),
        _ => "wrote".to_owned(),
    }
}

/// 1 when nothing could be made, 3 when some could not, 15 when the worst is a file that was left alone.
pub fn seeded_code(report: &SeedReport) -> Code {
    let count = |state| {
        report
            .files
            .iter()
            .filter(|step| step.file.state == state)
            .count()
    };
    match (count(SeedState::Failing), count(SeedState::Edited)) {
        (0, 0) => Code::Done,
        (0, _) => Code::Refused,
        (failing, _) if failing == report.files.len() => Code::Failed,
        _ => Code::Partial,
    }
}

/// What the renderings are tested on, and what docs/json.md shows.
#[cfg(test)]
pub fn sample() -> SeedReport {
    use crate::commands::samples;
    use crate::daemon::api::SeedView;
    let step = |to: &str, state, what: &str| SeedStep {
        role: samples::role(),
        file: SeedView {
            to: to.into(),
            from: format!("files{to}"),
            state,
            why: None,
            hint: None,
            written: None,
        },
        what: what.to_owned(),
        diff: None,
        kept: None,
    };
    let mut wrote = step("/etc/app.conf", SeedState::Fresh, "write");
    wrote.file.written = Some("2026-11-20T12:35:45Z".parse().unwrap());
    wrote.diff = Some(
        "--- now\n+++ from the template\n@@ -1 +1 @@\n-host birch\n+host \u{1b}alder\n".to_owned(),
    );
    let mut edited = step("/etc/motd", SeedState::Edited, "nothing");
    edited.file.why =
        Some("it was edited here since standin wrote it; it is left alone".to_owned());
    edited.file.hint = Some("standin seed web --dry-run shows the difference".to_owned());
    let mut failing = step("/etc/hosts", SeedState::Failing, "nothing");
    failing.file.why =
        Some("could not use the template files/etc/hosts: read it: it is not UTF-8".to_owned());
    SeedReport {
        dry_run: false,
        files: vec![
            wrote,
            edited,
            failing,
            step("/etc/b", SeedState::Fresh, "nothing"),
        ],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;

    #[test]
    fn each_file_and_what_was_done() {
        console::set_colors_enabled(false);
        let mut report = sample();
        expect![[r#"
            wrote       /etc/app.conf  (role web, from files/etc/app.conf)
            left alone  /etc/motd  (role web, from files/etc/motd)
                it was edited here since standin wrote it; it is left alone
                hint: standin seed web --dry-run shows the difference
            FAILING     /etc/hosts  (role web, from files/etc/hosts)
                could not use the template files/etc/hosts: read it: it is not UTF-8
            unchanged   /etc/b  (role web, from files/etc/b)"#]]
        .assert_eq(&seeded(&report));
        report.dry_run = true;
        report.files.truncate(1);
        report.files[0].file.state = SeedState::Stale;
        report.files[0].file.why = Some("the template, or a value, changed".to_owned());
        expect![[r#"
            would write  /etc/app.conf  (role web, from files/etc/app.conf)
                the template, or a value, changed
                --- now
                +++ from the template
                @@ -1 +1 @@
                -host birch
                +host  alder"#]]
        .assert_eq(&seeded(&report));
    }

    #[test]
    fn codes() {
        let check = |take: &[usize], code| {
            let mut report = sample();
            let files = take.iter().map(|at| report.files[*at].clone()).collect();
            report.files = files;
            assert_eq!(seeded_code(&report), code, "{take:?}");
        };
        check(&[], Code::Done);
        check(&[0, 3], Code::Done);
        check(&[0, 1], Code::Refused);
        check(&[1, 2], Code::Partial);
        check(&[2], Code::Failed);
    }
}
