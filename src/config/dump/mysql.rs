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
        section.complain(
            "to",
            "is missing: write the file for the dump, such as to = \"/srv/app/database.sql\"",
        );
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
