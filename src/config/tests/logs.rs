//! Roles of the kind `logs`.

use super::*;

const PEERS: &str = "[peer.birch]\n[peer.cedar]\n";
const LOGS: &str = r#"[role.syslog]
kind = "logs"
peers = ["birch", "cedar"]
every = "on-change"
keep = { last = 3 }
[role.syslog.dataset.syslog]
btrfs = "/srv/logs/{node}"
"#;

/// Complaints about the role in which `old` is `new` instead.
fn logs(old: &str, new: &str, expected: Expect) {
    assert!(LOGS.contains(old));
    complaints(
        &format!("{NODE}{PEERS}{}", LOGS.replace(old, new)),
        expected,
    );
}

#[test]
fn one_section_is_a_role_a_node() {
    let config = parse(&format!("{NODE}{PEERS}{LOGS}")).unwrap();
    let line = |role: &Role| {
        let live = role.datasets.values().map(Dataset::path);
        format!(
            "{} of {} to {:?}: {:?} {:?}\n",
            role.name,
            role.home,
            role.peers
                .iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>(),
            live.collect::<Vec<_>>(),
            role.views.values().collect::<Vec<_>>()
        )
    };
    let lines: String = config.roles.values().map(line).collect();
    expect![[r#"
        syslog.alder of alder to ["birch", "cedar"]: ["/srv/logs/alder"] []
        syslog.birch of birch to ["birch", "cedar"]: ["/srv/logs/.standin.birch"] ["/srv/logs/birch"]
        syslog.cedar of cedar to ["birch", "cedar"]: ["/srv/logs/.standin.cedar"] ["/srv/logs/cedar"]
    "#]]
    .assert_eq(&lines);
    let shown = config.show();
    assert!(shown.contains("kind = \"logs\""), "{shown}");
    assert_eq!(parse(&shown).unwrap(), config, "{shown}");
}

#[test]
fn what_is_wrong_about_logs() {
    logs(
        "\"logs\"",
        "\"log\"",
        expect![[
            r#"/c.toml:6: role.syslog.kind = "log": no such kind: write "logs", or leave it out for a role that one node plays"#
        ]],
    );
    logs(
        "/{node}",
        "",
        expect![[
            r#"/c.toml:11: role.syslog.dataset.syslog.btrfs = "/srv/logs": each node of a role of kind = "logs" writes at a path of its own: write {node} where its name belongs, such as "/srv/logs/{node}""#
        ]],
    );
    logs(
        "kind = \"logs\"",
        "home = \"alder\"",
        expect![[
            r#"/c.toml:11: role.syslog.dataset.syslog.btrfs = "/srv/logs/{node}": {node} stands for the names of nodes in a role of kind = "logs" only"#
        ]],
    );
    logs(
        "every",
        "home = \"alder\"\nevery",
        expect![[
            r#"/c.toml:8: role.syslog.home: has no meaning for kind = "logs": every node is the home of what it writes"#
        ]],
    );
    logs(
        "every",
        "services = [\"a.service\"]\naddresses = []\nports = []\nhooks.after-start = \"x\"\ndrill.every = \"7d\"\nevery",
        expect![[r#"
            /c.toml:8: role.syslog.services: has no use for kind = "logs": nothing starts or stops with it, every node writes its own, always
            /c.toml:9: role.syslog.addresses: has no use for kind = "logs": nothing starts or stops with it, every node writes its own, always
            /c.toml:10: role.syslog.ports: has no use for kind = "logs": nothing starts or stops with it, every node writes its own, always
            /c.toml:11: role.syslog.hooks: has no use for kind = "logs": nothing starts or stops with it, every node writes its own, always
            /c.toml:12: role.syslog.drill: rehearses a promotion; a role of kind = "logs" is never promoted"#]],
    );
    logs(
        "[role.syslog.",
        "standby-view = \"/a\"\n[role.syslog.",
        expect![
            "/c.toml:10: role.syslog.standby-view: unknown key: the keys here are peers, grants, kind, home, services, service, addresses, ports, hooks, drill, every, keep, keep-standby, snapshot-unchanged, verify-every, reserve, keep-for-absent-peers, dataset"
        ],
    );
    logs(
        "{node}\"",
        "{node}\"\nstandby-view = \"/a\"",
        expect![[
            r#"/c.toml:12: role.syslog.dataset.syslog.standby-view: needs no saying for kind = "logs": what the others write is shown at their paths"#
        ]],
    );
    logs(
        "\"cedar\"",
        "\"acorn\"",
        expect![[
            r#"/c.toml:7: role.syslog.peers = "acorn": no such peer: is [peer.acorn] missing?"#
        ]],
    );
    logs(
        "[role.syslog]",
        "[role.\"syslog.birch\"]\nhome = \"alder\"\nevery = \"5m\"\nkeep = { last = 1 }\ndataset.a.btrfs = \"/srv/logs/birch\"\n[role.syslog]",
        expect![[r#"
            /c.toml:10: role.syslog: there are two roles syslog.birch: give one another name
            /c.toml:16: role.syslog.dataset.syslog.btrfs = "/srv/logs/{node}": role.syslog.birch.dataset.a.btrfs is the same path: data belong to one dataset"#]],
    );
    logs(
        "role.syslog",
        "role.abcdefghijklmnopqrstuvwxyzabcdefghijklmnopqrstuv",
        expect![[r#"
            /c.toml:5: role.abcdefghijklmnopqrstuvwxyzabcdefghijklmnopqrstuv: too long: it stands for the role abcdefghijklmnopqrstuvwxyzabcdefghijklmnopqrstuv.alder, and a name has at most 48 characters
            /c.toml:5: role.abcdefghijklmnopqrstuvwxyzabcdefghijklmnopqrstuv: too long: it stands for the role abcdefghijklmnopqrstuvwxyzabcdefghijklmnopqrstuv.birch, and a name has at most 48 characters
            /c.toml:5: role.abcdefghijklmnopqrstuvwxyzabcdefghijklmnopqrstuv: too long: it stands for the role abcdefghijklmnopqrstuvwxyzabcdefghijklmnopqrstuv.cedar, and a name has at most 48 characters"#]],
    );
}
