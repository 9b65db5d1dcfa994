//! The dumps of a role: `[[role.NAME.dump]]`.
//!
//! Promise: as `read`: everything checked, every complaint made, one for each mistake. Where a password is is known here, never
//! the password. What a kind of server has keys of its own for is read and shown in a file of its own.

use std::path::{Path, PathBuf};
use std::time::Duration;

use toml_edit::{Array, ArrayOfTables, Item, Table, value};

use super::document::{Found, Section};
use super::play::{argv, timeout};
use super::read::absolute;
use crate::logic::dump::{
    Address, Commands, DUMPS_MAX, Dump, HOLD_DEFAULT, How, Load, Policy, Secret, Server,
    TIMEOUT_DEFAULT,
};
use crate::logic::name::{RoleName, nearest};
use crate::logic::units;

mod mysql;
mod postgres;
mod redis;
mod sqlite;

/// Kinds of server, and their words in the config.
const KINDS: [&str; 6] = ["postgres", "mysql", "mariadb", "redis", "sqlite", "command"];

/// Reads the dumps of a role.
pub(super) fn dumps(found: Found) -> Option<Vec<Dump>> {
    let place = found.clone();
    let sections = found.sections()?;
    if sections.len() > DUMPS_MAX {
        place.refuse_key(format!("more than {DUMPS_MAX} dumps"));
    }
    let mut dumps: Vec<Dump> = Vec::new();
    let mut whole = true;
    for section in sections {
        match dump(section, &dumps) {
            Some(dump) => dumps.push(dump),
            None => whole = false,
        }
    }
    whole.then_some(dumps)
}

fn dump(mut section: Section, others: &[Dump]) -> Option<Dump> {
    let name = section.need("name", "\"NAME\", for messages");
    let name = name.and_then(|found| {
        let bad =
            "not a name: use letters, digits, '.', '_' or '-', starting with a letter or digit";
        let name = found.parsed(|word| RoleName::parse(word).map_err(|_| bad))?;
        if others.iter().any(|other| other.name == name) {
            found.refuse("another dump of this role has that name");
        }
        Some(name)
    });
    let policy = section.get("policy").map(|found| {
        choice(
            &found,
            &[
                ("required", Policy::Required),
                ("best-effort", Policy::BestEffort),
            ],
        )
    });
    let limit = section.get("timeout").map(|found| timeout(&found));
    let hold = section.get("hold").map(|found| hold(&found));
    let load = section.get("load-on-promotion").map(|found| {
        let words = [
            ("never", Load::Never),
            ("empty", Load::Empty),
            ("replace", Load::Replace),
        ];
        choice(&found, &words)
    });
    let drill = section.get("drill").map(drill);
    let how = section
        .need("kind", "\"postgres\"")
        .and_then(|found| how(&found, &mut section));
    // Without its kind the other keys cannot be judged.
    match how {
        Some(_) => drop(section.finish()),
        None => section.abandon(),
    }
    Some(Dump {
        name: name?,
        policy: policy.unwrap_or(Some(Policy::Required))?,
        timeout: limit.unwrap_or(Some(TIMEOUT_DEFAULT))?,
        hold: hold.unwrap_or(Some(HOLD_DEFAULT))?,
        load: load.unwrap_or(Some(Load::Empty))?,
        drill: or_none(drill)?,
        how: how?,
    })
}

fn how(found: &Found, section: &mut Section) -> Option<How> {
    match found.text()? {
        "postgres" => postgres::read(section).map(How::Postgres),
        "mysql" | "mariadb" => mysql::read(section).map(How::Mysql),
        "redis" => redis::read(section).map(How::Redis),
        "sqlite" => sqlite::read(section).map(How::Sqlite),
        "command" => commands(found, section).map(How::Command),
        word => {
            let near = nearest(word, KINDS.into_iter());
            found.refuse(match near {
                Some(near) => format!("no such kind: did you mean \"{near}\"?"),
                None => format!("no such kind: write one of {}", KINDS.join(", ")),
            });
            None
        }
    }
}

fn commands(kind: &Found, section: &mut Section) -> Option<Commands> {
    let mut command = |name| section.get(name).map(|found| argv(&found));
    let (dump, freeze) = (command("dump"), command("freeze"));
    let (thaw, load) = (command("thaw"), command("load"));
    let commands = Commands {
        dump: or_none(dump)?,
        freeze: or_none(freeze)?,
        thaw: or_none(thaw)?,
        load: or_none(load)?,
    };
    if commands.dump.is_none() && commands.freeze.is_none() {
        kind.refuse("does nothing: write dump = \"COMMAND\", or freeze and thaw");
        return None;
    }
    if commands.freeze.is_some() != commands.thaw.is_some() {
        kind.refuse("freeze and thaw belong together: what is held must be let go");
        return None;
    }
    Some(commands)
}

/// One word of several. Its complaint names them all.
fn choice<T: Copy>(found: &Found, words: &[(&str, T)]) -> Option<T> {
    let text = found.text()?;
    let known = words.iter().find(|(word, _)| *word == text);
    if known.is_none() {
        let all: Vec<String> = words
            .iter()
            .map(|(word, _)| format!("\"{word}\""))
            .collect();
        found.refuse(format!("write one of {}", all.join(", ")));
    }
    known.map(|(_, value)| *value)
}

/// The server that a drill starts: never the one that serves, so it has no default.
fn drill(found: Found) -> Option<Server> {
    let place = found.clone();
    let mut section = found.section()?;
    let nowhere = Address::Socket(PathBuf::new());
    let server = server(&mut section, nowhere.clone(), 0);
    let refused = section.finish();
    let server = server?;
    let unnamed = match &server.address {
        Address::Tcp(_, port) => *port == 0,
        address => *address == nowhere,
    };
    if unnamed && refused == 0 {
        place.refuse(
            "name the server that drill.start brings up: socket = \"/PATH\", or host and port",
        );
    }
    Some(server)
}

/// Writers wait so long: longer than a minute is an outage, and a mistake.
fn hold(found: &Found) -> Option<Duration> {
    let limit = found.parsed(units::parse_duration)?;
    if limit < Duration::from_millis(100) || limit > Duration::from_secs(60) {
        found.refuse("must be between 100ms and 1m: writers wait so long");
    }
    Some(limit)
}

fn or_none<T>(read: Option<Option<T>>) -> Option<Option<T>> {
    match read {
        None => Some(None),
        Some(None) => None,
        Some(value) => Some(value),
    }
}

/// `socket` or `host` and `port`; `user`; `password-file` or `password-env`. `default` where neither is given.
fn server(section: &mut Section, default: Address, port: u16) -> Option<Server> {
    let socket = section
        .get("socket")
        .map(|found| (found.clone(), found.parsed(absolute)));
    let host = section
        .get("host")
        .map(|found| found.text().map(str::to_owned));
    let given = section.get("port").map(|found| {
        let port = found.whole().and_then(|port| u16::try_from(port).ok());
        if port.is_none_or(|port| port == 0) {
            found.refuse("not a port: 1 to 65535");
        }
        port
    });
    let address = match (socket, host) {
        (Some((found, _)), Some(_)) => {
            found.refuse_key("a socket and a host: write one of them");
            None
        }
        (Some((_, socket)), None) => socket.map(Address::Socket),
        (None, Some(host)) => host.map(|host| Address::Tcp(host, given.flatten().unwrap_or(port))),
        (None, None) => Some(match (default, given.flatten()) {
            (Address::Tcp(host, _), Some(port)) => Address::Tcp(host, port),
            (default, _) => default,
        }),
    };
    let user = section
        .get("user")
        .map(|found| found.text().map(str::to_owned));
    let password = password(section);
    Some(Server {
        address: address?,
        user: or_none(user)?,
        password: password?,
    })
}

fn password(section: &mut Section) -> Option<Option<Secret>> {
    if let Some(found) = section.get("password") {
        found.refuse_key("passwords do not belong in this file: write password-file = \"/PATH\", readable by root alone, or password-env = \"NAME\"");
    }
    let file = section.get("password-file");
    let variable = section.get("password-env");
    match (file, variable) {
        (Some(found), Some(_)) => {
            found.refuse_key("password-file and password-env: write one of them");
            None
        }
        (Some(found), None) => found.parsed(absolute).map(Secret::File).map(Some),
        (None, Some(found)) => {
            let name = found.text()?;
            let good = |c: char| c.is_ascii_alphanumeric() || c == '_';
            if name.is_empty() || !name.chars().all(good) {
                found.refuse("not the name of a variable");
            }
            Some(Some(Secret::Env(name.to_owned())))
        }
        (None, None) => Some(None),
    }
}

/// Writes the dumps into a role's table; nothing where there are none.
pub(super) fn show(dumps: &[Dump], role: &mut Table) {
    if dumps.is_empty() {
        return;
    }
    let mut tables = ArrayOfTables::new();
    for dump in dumps {
        let mut table = Table::new();
        table["name"] = value(dump.name.as_str());
        table["kind"] = value(dump.how.kind());
        if !dump.how.mode().is_empty() {
            table["mode"] = value(dump.how.mode());
        }
        table["policy"] = value(match dump.policy {
            Policy::Required => "required",
            Policy::BestEffort => "best-effort",
        });
        table["timeout"] = value(units::exact_duration(dump.timeout));
        table["hold"] = value(units::exact_duration(dump.hold));
        table["load-on-promotion"] = value(match dump.load {
            Load::Never => "never",
            Load::Empty => "empty",
            Load::Replace => "replace",
        });
        if let Some(server) = &dump.drill {
            let mut drill = Table::new();
            show_server(server, &mut drill);
            table["drill"] = value(drill.into_inline_table());
        }
        match &dump.how {
            How::Postgres(postgres) => postgres::show(postgres, &mut table),
            How::Mysql(mysql) => mysql::show(mysql, &mut table),
            How::Redis(redis) => redis::show(redis, &mut table),
            How::Sqlite(sqlite) => sqlite::show(sqlite, &mut table),
            How::Command(commands) => show_commands(commands, &mut table),
        }
        tables.push(table);
    }
    role["dump"] = Item::ArrayOfTables(tables);
}

fn show_commands(commands: &Commands, table: &mut Table) {
    let all = [
        ("dump", &commands.dump),
        ("freeze", &commands.freeze),
        ("thaw", &commands.thaw),
        ("load", &commands.load),
    ];
    for (key, command) in all {
        if let Some(command) = command {
            table[key] = value(command.iter().collect::<Array>());
        }
    }
}

fn show_server(server: &Server, table: &mut Table) {
    match &server.address {
        Address::Socket(path) => table["socket"] = path_value(path),
        Address::Tcp(host, port) => {
            table["host"] = value(host);
            table["port"] = value(i64::from(*port));
        }
    }
    if let Some(user) = &server.user {
        table["user"] = value(user);
    }
    match &server.password {
        Some(Secret::File(path)) => table["password-file"] = path_value(path),
        Some(Secret::Env(name)) => table["password-env"] = value(name),
        None => {}
    }
}

fn path_value(path: &Path) -> Item {
    value(path.to_string_lossy().into_owned())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use crate::config::Config;
    use expect_test::{Expect, expect};

    const ROLE: &str = "[node]\nname = \"alder\"\n[role.web]\nhome = \"alder\"\nevery = \"5m\"\nkeep = { last = 3 }\n\
                        [role.web.dataset.files]\nbtrfs = \"/srv/web\"\n";

    fn parse(text: &str) -> Result<Config, String> {
        let config = Config::parse(&format!("{ROLE}{text}\n"), Path::new("/c.toml"));
        config.map_err(|complaints| complaints.to_string())
    }

    fn dump(keys: &str) -> String {
        dump_of("command", keys)
    }

    pub fn dump_of(kind: &str, keys: &str) -> String {
        format!("[[role.web.dump]]\nname = \"x\"\nkind = \"{kind}\"\n{keys}\n")
    }

    /// What is read is shown, and read again.
    pub fn accepted(text: &str) {
        let config = parse(text).unwrap();
        let again = Config::parse(&config.show(), Path::new("/c.toml")).unwrap();
        assert_eq!(config, again, "{text}\n{}", config.show());
    }

    pub fn refused(text: &str, expected: Expect) {
        expected.assert_eq(&parse(text).err().unwrap_or_else(|| "accepted".to_owned()));
    }

    #[test]
    fn what_is_read_is_shown() {
        let server = "drill = { host = \"::1\", port = 5, user = \"u\", password-env = \"P_W\" }";
        for text in [
            dump("dump = \"/bin/a b\""),
            dump("freeze = \"f\"\nthaw = [\"t\", \"x y\"]\nload = \"l\"\npolicy = \"best-effort\""),
            dump("dump = \"d\"\ntimeout = \"1h\"\nhold = \"1m\"\nload-on-promotion = \"replace\""),
            dump(&format!("dump = \"d\"\n{server}")),
            dump("dump = \"d\"\ndrill = { socket = \"/s\", password-file = \"/p\" }"),
            dump("dump = \"d\"") + &dump("dump = \"d\"").replace("\"x\"", "\"y\""),
        ] {
            accepted(&text);
        }
    }

    #[test]
    fn a_port_alone() {
        let shown = |keys: &str| parse(&dump_of("redis", keys)).unwrap().show();
        assert!(shown("port = 6380").contains("host = \"127.0.0.1\"\nport = 6380"));
        assert!(shown("").contains("port = 6379"));
    }

    #[test]
    fn what_is_refused() {
        refused(
            "[role.web.dump]\nname = \"x\"",
            expect![
                "/c.toml:9: role.web.dump: must be a list of tables: write [[...dump]], in double brackets"
            ],
        );
        refused(
            "[[role.web.dump]]",
            expect![[r#"
            /c.toml:9: role.web.dump.name: missing: write name = "NAME", for messages
            /c.toml:9: role.web.dump.kind: missing: write kind = "postgres""#]],
        );
        refused(
            &dump("dump = \"d\"").replace("command", "mariabd"),
            expect![[
                r#"/c.toml:11: role.web.dump.kind = "mariabd": no such kind: did you mean "mariadb"?"#
            ]],
        );
        refused(
            &dump("dump = \"d\"").replace("command", "oracle"),
            expect![[
                r#"/c.toml:11: role.web.dump.kind = "oracle": no such kind: write one of postgres, mysql, mariadb, redis, sqlite, command"#
            ]],
        );
        refused(
            &dump("load = \"l\""),
            expect![[
                r#"/c.toml:11: role.web.dump.kind = "command": does nothing: write dump = "COMMAND", or freeze and thaw"#
            ]],
        );
        refused(
            &dump("freeze = \"f\""),
            expect![[
                r#"/c.toml:11: role.web.dump.kind = "command": freeze and thaw belong together: what is held must be let go"#
            ]],
        );
        refused(
            &dump("dump = \"d\"\npolicy = \"maybe\"\nhold = \"2m\""),
            expect![[r#"
                /c.toml:13: role.web.dump.policy = "maybe": write one of "required", "best-effort"
                /c.toml:14: role.web.dump.hold = "2m": must be between 100ms and 1m: writers wait so long"#]],
        );
        refused(
            &dump("dump = \"d\"\nlod = \"l\""),
            expect![[r#"/c.toml:13: role.web.dump.lod: unknown key: did you mean "load"?"#]],
        );
        refused(
            &dump("dump = \"d\"\ndrill = { user = \"u\" }"),
            expect![[
                r#"/c.toml:13: role.web.dump.drill = { user = "u" }: name the server that drill.start brings up: socket = "/PATH", or host and port"#
            ]],
        );
        refused(
            &dump("dump = \"d\"\ndrill = { host = \"h\", socket = \"/s\", password = \"p\" }"),
            expect![[r#"
                /c.toml:13: role.web.dump.drill.socket: a socket and a host: write one of them
                /c.toml:13: role.web.dump.drill.password: passwords do not belong in this file: write password-file = "/PATH", readable by root alone, or password-env = "NAME""#]],
        );
        refused(
            &(dump("dump = \"d\"") + &dump("dump = \"d\"")),
            expect![[
                r#"/c.toml:14: role.web.dump.name = "x": another dump of this role has that name"#
            ]],
        );
    }
}
