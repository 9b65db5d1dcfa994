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

#[cfg(test)]
pub fn sample() -> LoadReport {
    use crate::daemon::api::DumpLoad;
    use crate::logic::name::RoleName;
    let dump = |name: &str, kind: &str, result: &str, text: &str| DumpLoad {
        name: RoleName::parse(name).unwrap(),
        kind: kind.into(),
        result: result.into(),
        text: text.into(),
        hint: (result == "failed").then(|| "systemctl start mariadb".into()),
    };
    LoadReport {
        dry_run: false,
        role: RoleName::parse("web").unwrap(),
        skipped: None,
        dumps: vec![
            dump(
                "orders",
                "postgres",
                "loaded",
                "2 databases from /srv/web/dumps/orders",
            ),
            dump(
                "stock",
                "postgres",
                "left",
                "the server holds database stock already",
            ),
            dump(
                "news",
                "mysql",
                "failed",
                "could not reach the server at /run/mysqld/mysqld.sock",
            ),
            dump(
                "cache",
                "redis",
                "nothing",
                "the server starts from its own data",
            ),
        ],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;

    #[test]
    fn one_line_each() {
        console::set_colors_enabled(false);
        expect![[r#"
            orders (postgres)  loaded: 2 databases from /srv/web/dumps/orders
            stock (postgres)  left alone: the server holds database stock already
              hint: where the dump is the better one: standin load web stock --replace
            news (mysql)  FAILED: could not reach the server at /run/mysqld/mysqld.sock
              hint: systemctl start mariadb
            cache (redis)  the server starts from its own data"#]]
        .assert_eq(&load(&sample()));
    }
}
