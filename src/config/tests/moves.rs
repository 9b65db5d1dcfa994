//! What moves with a role besides its data.

use super::*;
use crate::logic::play::Moment;

/// Complaints about further lines of the role.
fn moves(lines: &str, expected: Expect) {
    role("every =", &format!("{lines}\nevery ="), expected);
}

#[test]
fn what_moves_with_a_role() {
    let lines = r#"services = ["nginx.service", "app"]
addresses = "192.0.2.10/24 eth0"
ports = ["tcp/80", "udp/53"]
service.app = { start = "app start", stop = ["app", "st op"], health = "app ping" }
hooks.before-start = "a b"
hooks.after-stop = { run = ["a b"], timeout = "2m" }
"#;
    let text = format!(
        "{NODE}{PEER}{}",
        ROLE.replace("every", &format!("{lines}every"))
    );
    let config = parse(&text).unwrap();
    let play = &config.roles.values().next().unwrap().play;
    let names: Vec<&str> = play.services.iter().map(|service| service.name()).collect();
    assert_eq!(names, ["nginx.service", "app"]);
    assert_eq!(play.hooks[&Moment::BeforeStart].run, ["a", "b"]);
    assert_eq!(
        play.hooks[&Moment::AfterStop].timeout,
        Duration::from_secs(120)
    );
    assert_eq!(parse(&config.show()).unwrap().roles, config.roles);
    assert!(
        parse(&format!("{NODE}{PEER}{ROLE}"))
            .unwrap()
            .roles
            .values()
            .all(|role| role.play.is_empty())
    );
}

#[test]
fn mistakes_in_what_moves() {
    moves(
        "services = [\"nginx\"]",
        expect![[
            r#"/c.toml:7: role.web.services = "nginx": no such service: write "nginx.service" for a systemd unit, else describe it in a section of its own, [role.ROLE.service.nginx]"#
        ]],
    );
    moves(
        "services = [\"a.servise\", \"a.service\", \"a.service\"]",
        expect![[r#"
            /c.toml:7: role.web.services = "a.servise": not a systemd unit: its name ends in .service, .socket, .target, .timer, .path, .mount
            /c.toml:7: role.web.services = "a.service": listed twice"#]],
    );
    moves(
        "services = [\"ap\"]\nservice.app = { start = \"\", stop = \"b\", helth = \"c\" }",
        expect![[r#"
            /c.toml:7: role.web.services = "ap": no such service: did you mean "app"?
            /c.toml:8: role.web.service.app.start = "": empty: write a command, such as "/usr/local/bin/app-start --quiet"
            /c.toml:8: role.web.service.app.helth: unknown key: did you mean "health"?"#]],
    );
    moves(
        "service.\"a.b\" = {}\nservice.c = 3",
        expect![[r#"
        /c.toml:7: role.web.service.a.b: not a name for a service: use letters, digits, '_' or '-', starting with a letter or digit
        /c.toml:8: role.web.service.c = 3: is a number, not a table
        /c.toml:8: role.web.service.c: never started: add "c" to `services`, which tells the order"#]],
    );
    moves(
        "addresses = [\"192.0.2.10 eth0\", \"192.0.2.1/24 a\", \"192.0.2.1/25 b\"]",
        expect![[r#"
            /c.toml:7: role.web.addresses = "192.0.2.10 eth0": not an address with its network and link, such as "192.0.2.10/24 eth0"
            /c.toml:7: role.web.addresses = "192.0.2.1/25 b": listed twice"#]],
    );
    moves(
        "ports = [80, \"tcp/http\", \"tcp/1\", \"tcp/1\"]",
        expect![[r#"
            /c.toml:7: role.web.ports = 80: is a number, not text in quotes
            /c.toml:7: role.web.ports = "tcp/http": not a port, such as "tcp/443" or "udp/53"
            /c.toml:7: role.web.ports = "tcp/1": listed twice"#]],
    );
    moves(
        "hooks.befor-start = \"a\"\nhooks.after-stop = { timeout = \"0s\" }",
        expect![[r#"
            /c.toml:7: role.web.hooks.befor-start: unknown key: did you mean "before-start"?
            /c.toml:8: role.web.hooks.after-stop.timeout = "0s": must be more than nothing and at most a day
            /c.toml:8: role.web.hooks.after-stop.run: missing: write run = "COMMAND""#]],
    );
}
