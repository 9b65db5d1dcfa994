//! Keys of a dump of kind `mysql`.

use toml_edit::{Array, Table, value};

use super::{choice, or_none, path_value, server, show_server};
use crate::config::document::{Found, Section};
use crate::config::read::absolute;
use crate::logic::dump::Address;
use crate::logic::dump::mysql::{
    Mode, Mysql, NAME_CHARS_MAX, OWN_DATABASES, PORT_DEFAULT, SOCKET_DEFAULT,
};

pub(super) fn read(section: &mut Section) -> Option<Mysql> {
    let words = [("freeze", Mode::Freeze), ("dump", Mode::Dump)];
    let mode = section.get("mode").map(|found| choice(&found, &words));
    let mode = mode.unwrap_or(Some(Mode::Freeze));
    let databases = section.get("databases").map(|found| {
        only_for_dumps(&found, mode);
        databases(&found)
    });
    let to = section.get("to").map(|found| {
        only_for_dumps(&found, mode);
        found.parsed(absolute)
    });
    if mode == Some(Mode::Dump) && to.is_none() {
        section.complain("to", "missing: write to = \"/srv/app/database.sql\"");
    }
    let server = server(
        section,
        Address::Socket(SOCKET_DEFAULT.into()),
        PORT_DEFAULT,
    );
    Some(Mysql {
        mode: mode?,
        server: server?,
        databases: databases.unwrap_or(Some(Vec::new()))?,
        to: or_none(to)?,
    })
}

fn only_for_dumps(found: &Found, mode: Option<Mode>) {
    if mode == Some(Mode::Freeze) {
        found.refuse_key("with mode = \"freeze\" the whole server is held, and no file is written");
    }
}

fn databases(found: &Found) -> Option<Vec<String>> {
    let words = found.texts()?;
    if words.is_empty() {
        found.refuse("empty: leave the key out to dump every database");
        return None;
    }
    let mut names: Vec<String> = Vec::new();
    for word in &words {
        if word.text.is_empty() || word.text.chars().count() > NAME_CHARS_MAX {
            word.refuse(format!("not a database: 1 to {NAME_CHARS_MAX} characters"));
        } else if word.text.starts_with('-') || word.text.chars().any(char::is_control) {
            word.refuse("not a database: names that begin with '-' or hold control characters cannot be dumped");
        } else if OWN_DATABASES.contains(&word.text.to_ascii_lowercase().as_str()) {
            word.refuse("the server's own: it cannot be loaded into another server");
        } else if names.iter().any(|name| name == word.text) {
            word.refuse("listed twice");
        }
        names.push(word.text.to_owned());
    }
    Some(names)
}

pub(super) fn show(mysql: &Mysql, table: &mut Table) {
    show_server(&mysql.server, table);
    if !mysql.databases.is_empty() {
        table["databases"] = value(mysql.databases.iter().collect::<Array>());
    }
    if let Some(to) = &mysql.to {
        table["to"] = path_value(to);
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use expect_test::{Expect, expect};

    use crate::config::Config;

    const ROLE: &str = "[node]\nname = \"alder\"\n[role.web]\nhome = \"alder\"\nevery = \"5m\"\nkeep = { last = 3 }\n\
                        [role.web.dataset.files]\nbtrfs = \"/srv/web\"\n\
                        [[role.web.dump]]\nname = \"x\"\nkind = \"mariadb\"\n";

    fn parse(keys: &str) -> Result<Config, String> {
        let config = Config::parse(&format!("{ROLE}{keys}\n"), Path::new("/c.toml"));
        config.map_err(|complaints| complaints.to_string())
    }

    #[test]
    fn what_is_read_is_shown() {
        let dump = "mode = \"dump\"\nto = \"/srv/web/a.sql\"";
        for keys in [
            "",
            "mode = \"freeze\"\nsocket = \"/s\"\nuser = \"u\"\npassword-file = \"/p\"",
            "host = \"127.0.0.1\"",
            dump,
            &format!("{dump}\ndatabases = [\"a\", \"b c\"]"),
        ] {
            let config = parse(keys).unwrap();
            let again = Config::parse(&config.show(), Path::new("/c.toml")).unwrap();
            assert_eq!(config, again, "{keys}\n{}", config.show());
        }
    }

    #[test]
    fn what_is_refused() {
        let refused = |keys: &str, expected: Expect| {
            expected.assert_eq(&parse(keys).err().unwrap_or_else(|| "accepted".to_owned()));
        };
        refused(
            "mode = \"backup\"",
            expect![[
                r#"/c.toml:12: role.web.dump.mode = "backup": write one of "freeze", "dump""#
            ]],
        );
        refused(
            "mode = \"dump\"",
            expect![[
                r#"/c.toml:9: role.web.dump.to: missing: write to = "/srv/app/database.sql""#
            ]],
        );
        refused(
            "mode = \"dump\"\nto = \"a.sql\"",
            expect![[
                r#"/c.toml:13: role.web.dump.to = "a.sql": not an absolute path: it must begin with /"#
            ]],
        );
        refused(
            "to = \"/srv/web/a.sql\"\ndatabases = [\"a\"]",
            expect![[r#"
                /c.toml:12: role.web.dump.to: with mode = "freeze" the whole server is held, and no file is written
                /c.toml:13: role.web.dump.databases: with mode = "freeze" the whole server is held, and no file is written"#]],
        );
        let dump = "mode = \"dump\"\nto = \"/srv/web/a.sql\"";
        refused(
            &format!("{dump}\ndatabases = []"),
            expect![
                "/c.toml:14: role.web.dump.databases = []: empty: leave the key out to dump every database"
            ],
        );
        refused(
            &format!("{dump}\ndatabases = [\"a\", \"a\", \"MySQL\", \"-x\", \"\"]"),
            expect![[r#"
                /c.toml:14: role.web.dump.databases = "a": listed twice
                /c.toml:14: role.web.dump.databases = "MySQL": the server's own: it cannot be loaded into another server
                /c.toml:14: role.web.dump.databases = "-x": not a database: names that begin with '-' or hold control characters cannot be dumped
                /c.toml:14: role.web.dump.databases = "": not a database: 1 to 64 characters"#]],
        );
    }
}
