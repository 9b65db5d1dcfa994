//! Keys of a dump of kind `postgres`.
//!
//! A unix socket is kept as the socket's own file: a directory and a port name it too.

use std::path::PathBuf;

use toml_edit::{Array, Table, value};

use super::{choice, or_none, path_value, server, show_server};
use crate::config::document::{Found, Section};
use crate::config::read::absolute;
use crate::logic::dump::postgres::{
    JOBS_DEFAULT, JOBS_MAX, Mode, PORT, Postgres, SOCKET_DIR, SOCKET_PREFIX,
};
use crate::logic::dump::{Address, Server};

/// Longest name of a database, in bytes (NAMEDATALEN - 1).
const NAME_BYTES_MAX: usize = 63;

pub(super) fn read(section: &mut Section) -> Option<Postgres> {
    let mode = section.get("mode").map(|found| {
        let words = [Mode::Freeze, Mode::Backup, Mode::Dump].map(|mode| (mode.word(), mode));
        choice(&found, &words)
    });
    let mode = mode.unwrap_or(Some(Mode::Freeze));
    // A wrong one is complained of once, by `server`.
    let port = section
        .get("port")
        .filter(Found::is_number)
        .and_then(|found| found.whole().and_then(|port| u16::try_from(port).ok()))
        .unwrap_or(PORT);
    let default = Address::Socket(PathBuf::from(SOCKET_DIR));
    let server = server(section, default, PORT);
    let to = section.get("to");
    let databases = section.get("databases");
    let jobs = section.get("jobs");
    if let Some(mode) = mode.filter(|mode| *mode != Mode::Dump) {
        let word = mode.word();
        for found in [&to, &databases, &jobs].into_iter().flatten() {
            found.refuse_key(format!("means nothing with mode = \"{word}\", which keeps the whole server: remove it, or write mode = \"dump\""));
        }
    } else if mode.is_some() && to.is_none() {
        section.complain("to", "missing: write to = \"/PATH\", a directory inside a dataset of this role, for the dump");
        return None;
    }
    let to = to.map(|found| found.parsed(absolute));
    let databases = databases.map(|found| names(&found));
    let jobs = jobs.map(|found| count(&found));
    Some(Postgres {
        mode: mode?,
        server: socket_file(server?, port),
        to: or_none(to)?,
        databases: databases.unwrap_or_else(|| Some(Vec::new()))?,
        jobs: jobs.unwrap_or(Some(JOBS_DEFAULT))?,
    })
}

fn socket_file(server: Server, port: u16) -> Server {
    let address = match server.address {
        Address::Socket(path) => {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            let is_file = name.starts_with(SOCKET_PREFIX);
            let file = format!("{SOCKET_PREFIX}{port}");
            Address::Socket(if is_file { path } else { path.join(file) })
        }
        address => address,
    };
    Server { address, ..server }
}

fn names(found: &Found) -> Option<Vec<String>> {
    let mut names: Vec<String> = Vec::new();
    for word in found.texts()? {
        if word.text.is_empty() || word.text.len() > NAME_BYTES_MAX || word.text.contains('\0') {
            word.refuse("not a name of a database");
        } else if word.text == "template0" || word.text == "template1" {
            word.refuse("a template: every server has its own");
        } else if names.iter().any(|name| name == word.text) {
            word.refuse("listed twice");
        }
        names.push(word.text.to_owned());
    }
    if names.is_empty() {
        found.refuse("empty: leave it out for every database");
    }
    Some(names)
}

fn count(found: &Found) -> Option<u32> {
    let jobs = found.whole().and_then(|jobs| u32::try_from(jobs).ok());
    let jobs = jobs.filter(|jobs| (1..=JOBS_MAX).contains(jobs));
    if jobs.is_none() {
        found.refuse(format!("must be 1 to {JOBS_MAX}"));
    }
    jobs
}

pub(super) fn show(postgres: &Postgres, table: &mut Table) {
    show_server(&postgres.server, table);
    if let Some(to) = &postgres.to {
        table["to"] = path_value(to);
        table["jobs"] = value(i64::from(postgres.jobs));
    }
    if !postgres.databases.is_empty() {
        table["databases"] = value(postgres.databases.iter().collect::<Array>());
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use expect_test::{Expect, expect};

    use crate::config::Config;

    fn parse(keys: &str) -> Result<Config, String> {
        let text = format!(
            "[node]\nname = \"alder\"\n[role.web]\nhome = \"alder\"\nevery = \"5m\"\nkeep = {{ last = 3 }}\n\
             [role.web.dataset.files]\nbtrfs = \"/srv/web\"\n[[role.web.dump]]\nname = \"x\"\nkind = \"postgres\"\n{keys}\n"
        );
        let config = Config::parse(&text, Path::new("/c.toml"));
        config.map_err(|complaints| complaints.to_string())
    }

    #[test]
    fn servers_and_modes() {
        let check = |keys: &str, shown: &str| {
            let config = parse(keys).unwrap();
            let again = Config::parse(&config.show(), Path::new("/c.toml")).unwrap();
            assert_eq!(config, again, "{}", config.show());
            let text = config.show();
            assert!(text.contains(shown), "{text}");
        };
        check("", "socket = \"/var/run/postgresql/.s.PGSQL.5432\"");
        check(
            "port = 5433",
            "socket = \"/var/run/postgresql/.s.PGSQL.5433\"",
        );
        check("socket = \"/run/x\"", "socket = \"/run/x/.s.PGSQL.5432\"");
        check(
            "socket = \"/run/x/.s.PGSQL.7\"",
            "socket = \"/run/x/.s.PGSQL.7\"",
        );
        check("host = \"::1\"\nmode = \"backup\"", "port = 5432");
        let dump = "mode = \"dump\"\nto = \"/srv/web/d\"\n";
        check(dump, "jobs = 2");
        check(
            &format!("{dump}databases = [\"a b\"]\njobs = 4"),
            "databases = [\"a b\"]",
        );
    }

    #[test]
    fn what_is_refused() {
        let check = |keys: &str, expected: Expect| {
            let said = parse(keys).err();
            expected.assert_eq(said.as_deref().unwrap_or("accepted"));
        };
        check(
            "mode = \"dump\"",
            expect![[
                r#"/c.toml:9: role.web.dump.to: missing: write to = "/PATH", a directory inside a dataset of this role, for the dump"#
            ]],
        );
        check(
            "mode = \"frozen\"",
            expect![[
                r#"/c.toml:12: role.web.dump.mode = "frozen": write one of "freeze", "backup", "dump""#
            ]],
        );
        check(
            "to = \"/srv/web/d\"\njobs = 2",
            expect![[r#"
            /c.toml:12: role.web.dump.to: means nothing with mode = "freeze", which keeps the whole server: remove it, or write mode = "dump"
            /c.toml:13: role.web.dump.jobs: means nothing with mode = "freeze", which keeps the whole server: remove it, or write mode = "dump""#]],
        );
        check(
            "mode = \"dump\"\nto = \"d\"\njobs = 0",
            expect![[r#"
            /c.toml:13: role.web.dump.to = "d": not an absolute path: it must begin with /
            /c.toml:14: role.web.dump.jobs = 0: must be 1 to 64"#]],
        );
        check(
            "mode = \"dump\"\nto = \"/d\"\ndatabases = [\"a\", \"a\", \"template1\"]",
            expect![[r#"
                /c.toml:14: role.web.dump.databases = "a": listed twice
                /c.toml:14: role.web.dump.databases = "template1": a template: every server has its own"#]],
        );
        check(
            "port = 70000",
            expect!["/c.toml:12: role.web.dump.port = 70000: not a port: 1 to 65535"],
        );
    }
}
