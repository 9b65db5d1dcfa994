//! Keys of a dump of kind `redis`.

use toml_edit::Table;

use super::{choice, server, show_server};
use crate::config::document::Section;
use crate::logic::dump::Address;
use crate::logic::dump::redis::{Mode, Redis};

/// As the server itself listens where nobody says otherwise.
const PORT: u16 = 6379;

pub(super) fn read(section: &mut Section) -> Option<Redis> {
    let mode = section.get("mode").map(|found| {
        let words = [("save", Mode::Save), ("freeze", Mode::Freeze)];
        choice(&found, &words)
    });
    let server = server(section, Address::Tcp("127.0.0.1".to_owned(), PORT), PORT);
    if server
        .as_ref()
        .is_some_and(|server| server.user.is_some() && server.password.is_none())
    {
        section.complain(
            "user",
            "needs a password: write password-file or password-env",
        );
    }
    Some(Redis {
        mode: mode.unwrap_or(Some(Mode::Save))?,
        server: server?,
    })
}

pub(super) fn show(redis: &Redis, table: &mut Table) {
    show_server(&redis.server, table);
}
