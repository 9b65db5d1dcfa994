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

#[cfg(test)]
mod tests {
    use crate::config::dump::tests::{accepted, dump_of, refused};
    use expect_test::expect;

    #[test]
    fn keys() {
        let dump = |keys: &str| dump_of("redis", keys);
        for keys in [
            "",
            "mode = \"freeze\"\nsocket = \"/run/redis/s\"",
            "port = 6380",
            "mode = \"save\"\nhost = \"::1\"\nport = 6380\nuser = \"u\"\npassword-env = \"P\"",
            "password-file = \"/p\"",
        ] {
            accepted(&dump(keys));
        }
        refused(
            &dump("mode = \"bgsave\""),
            expect![[
                r#"/c.toml:12: role.web.dump.mode = "bgsave": write one of "save", "freeze""#
            ]],
        );
        refused(
            &dump("user = \"u\""),
            expect![
                "/c.toml:9: role.web.dump.user: needs a password: write password-file or password-env"
            ],
        );
        refused(
            &dump("to = \"/srv/web/x\""),
            expect![
                "/c.toml:12: role.web.dump.to: unknown key: the keys here are name, policy, timeout, hold, load-on-promotion, drill, kind, mode, socket, host, port, user, password, password-file, password-env"
            ],
        );
    }
}
