//! `standin mount`: what was done, and where points can be browsed.

use super::cycle::step_lines;
use crate::daemon::api::{BrowseReport, MountView, Step};

pub fn browse(report: &BrowseReport) -> String {
    let mut lines = step_lines(&report.steps, false);
    let mounted = |step: &Step| step.what == "mount";
    if report.steps.iter().any(mounted) {
        lines.push("each point is a directory there, with its datasets in it; standin unmount takes it down".into());
    }
    if report.steps.is_empty() {
        lines = mounts(&report.mounts);
        if lines.is_empty() {
            lines.push(
                "no points are mounted; standin mount DIR shows them in an empty directory".into(),
            );
        }
    }
    lines.join("\n")
}

/// One line for each.
pub fn mounts(mounts: &[MountView]) -> Vec<String> {
    let line = |mount: &MountView| {
        let whose = mount
            .role
            .as_ref()
            .map_or("all roles".to_owned(), |role| format!("role {role}"));
        format!("points of {whose} are mounted at {}", mount.dir.display())
    };
    mounts.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::samples;
    use expect_test::expect;

    #[test]
    fn what_is_mounted() {
        console::set_colors_enabled(false);
        expect![[r#"
              ok  show the points of role web below /mnt/web, read-only
            each point is a directory there, with its datasets in it; standin unmount takes it down"#]].assert_eq(&browse(&samples::browse()));
        let list = BrowseReport {
            steps: Vec::new(),
            ..samples::browse()
        };
        expect![[r#"
            points of all roles are mounted at /mnt/points
            points of role web are mounted at /mnt/web"#]]
        .assert_eq(&browse(&list));
        let none = BrowseReport {
            mounts: Vec::new(),
            ..list
        };
        expect!["no points are mounted; standin mount DIR shows them in an empty directory"]
            .assert_eq(&browse(&none));
    }
}
