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
