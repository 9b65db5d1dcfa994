//! `standin init`: what was made, and the next step.

use super::attention;
use crate::commands::init::InitReport;

pub fn init(report: &InitReport) -> String {
    let config = report.config.display();
    let mut lines = vec![
        format!("node {}, key {}", report.node, report.key),
        format!(
            "wrote {config}; its state and key are in {}",
            report.state_dir.display()
        ),
    ];
    if !report.btrfs.is_empty() {
        let paths = report.btrfs.iter().map(|path| path.display().to_string());
        let paths: Vec<String> = paths.collect();
        lines.push(format!(
            "found on btrfs, offered there as roles: {}",
            paths.join(", ")
        ));
    }
    if !report.zfs.is_empty() {
        let names = report.zfs.join(", ");
        lines.push(format!("found on ZFS, offered there as roles: {names}"));
    }
    for warning in &report.warnings {
        lines.push(format!("{} {warning}", attention("warning:")));
    }
    lines.push(format!(
        "next: read and edit {config}, then start the daemon: systemctl enable --now standin"
    ));
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::samples;
    use expect_test::expect;

    #[test]
    fn what_comes_next() {
        console::set_colors_enabled(false);
        expect![[r#"
            node alder, key SHA256:2jmj7l5rSw0yVb1vlWAYkK1YBwk3PVnlxCQ0dZ7m9sA
            wrote /etc/standin/standin.toml; its state and key are in /var/lib/standin
            found on btrfs, offered there as roles: /srv/web
            found on ZFS, offered there as roles: tank/home
            warning: /var/lib/standin was there and is open to others: chmod 700 it
            next: read and edit /etc/standin/standin.toml, then start the daemon: systemctl enable --now standin"#]].assert_eq(&init(&samples::init()));
    }
}
