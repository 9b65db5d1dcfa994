//! What the configuration accepts, and what it says of the rest.

use super::*;
use expect_test::{Expect, expect};
use std::path::Path;

#[cfg(test)]
mod logs;
#[cfg(test)]
mod moves;
#[cfg(test)]
mod zfs;

const NODE: &str = "[node]\nname = \"alder\"\n";
const PEER: &str = "[peer.birch]\n";
const ROLE: &str = r#"[role.web]
home = "alder"
peers = ["birch"]
every = "5m"
keep = { last = 3 }
[role.web.dataset.files]
btrfs = "/srv/web"
"#;

fn parse(text: &str) -> Result<Config, Complaints> {
    Config::parse(text, Path::new("/c.toml"))
}

/// The complaints, one a line.
fn complaints(text: &str, expected: Expect) {
    let told = match parse(text) {
        Ok(_) => "accepted".to_owned(),
        Err(complaints) => complaints.to_string(),
    };
    expected.assert_eq(&told);
}

/// Complaints about one `[node]` line.
fn node(line: &str, expected: Expect) {
    complaints(&format!("{NODE}{line}\n"), expected);
}

/// Complaints about one `[peer.birch]` line.
fn peer(line: &str, expected: Expect) {
    complaints(&format!("{NODE}{PEER}{line}\n"), expected);
}

/// Complaints about a role in which `old` is `new` instead.
fn role(old: &str, new: &str, expected: Expect) {
    assert!(ROLE.contains(old));
    complaints(&format!("{NODE}{PEER}{}", ROLE.replace(old, new)), expected);
}

#[test]
fn the_least_that_is_enough() {
    let config = parse(NODE).unwrap();
    assert_eq!(config.node.reserve, 1 << 30);
    assert_eq!(config.node.control, Path::new(CONTROL_DEFAULT));
    assert_eq!(config.node.checkpoint_every, Duration::from_secs(30));
    let config = parse(&format!("{NODE}{PEER}{ROLE}")).unwrap();
    let role = config.roles.values().next().unwrap();
    assert_eq!(role.keep_standby, role.keep);
    assert_eq!(config.peers.values().next().unwrap().grants, Grant::DEFAULT);
    let paths: Vec<&Path> = config.live_paths().map(|(_, _, path)| path).collect();
    assert_eq!(paths, [Path::new("/srv/web")]);
}

/// The shape in full, in both spellings of what has two.
const FULL: &str = r#"
[node]
name = "alder"
listen = "0.0.0.0:7321"
advertise = "[2001:db8::7]:7321"
state-dir = "/var/lib//standin/"
control = "/run/standin/control.sock"
reserve = 1048576
checkpoint = { bytes = "64MiB", every = "1m30s" }
[peer.birch]
address = "birch.example.org:7321"
key = "SHA256:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
bandwidth = "16Mbit/s"
grants = []
accept = { devices = "drop", setuid = "refuse" }
[peer."cedar.example.org"]
via = "ssh cedar  standin link --stdio"
bandwidth = ["mon..tue 8:00-20:00 16Mbit/s", "22:00-06:00 none", "8MB/s"]
[role.web]
home = "birch"
peers = ["birch", "cedar.example.org"]
grants = { "cedar.example.org" = "prune", birch = [] }
every = "mon..fri 03:30"
keep = { last = 3, hourly = 24, daily = 7, weekly = 4, monthly = 6, yearly = 1 }
keep-standby = { daily = 14 }
snapshot-unchanged = true
verify-every = "7d"
reserve = "2MiB"
keep-for-absent-peers = { for = "60d", bytes = "50GiB", free = "10%" }
dataset.files.btrfs = "/srv/web"
dataset.files.standby-view = "/srv/web-view/"
[role.web.dataset.db]
btrfs = "/srv/db"
"#;

#[test]
fn everything_in_both_spellings() {
    let config = parse(FULL).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(config.node.state_dir, Path::new("/var/lib/standin"));
    assert_eq!(config.node.reserve, 1 << 20);
    let [birch, cedar] = config.peers.values().collect::<Vec<_>>()[..] else {
        panic!("two peers");
    };
    assert_eq!(birch.bandwidth.limits()[0].to_string(), "2MB/s");
    let limits = cedar.bandwidth.limits().iter().map(ToString::to_string);
    assert_eq!(
        limits.collect::<Vec<_>>().join("; "),
        "mon,tue 08:00-20:00 2MB/s; daily 22:00-06:00 none; 8MB/s"
    );
    assert_eq!(birch.grants, []);
    assert_eq!(
        cedar.via.as_ref().unwrap().join(","),
        "ssh,cedar,standin,link,--stdio"
    );
    let role = config.roles.values().next().unwrap();
    assert_eq!(role.datasets.len(), 2);
    assert_eq!(role.keep_standby.to_string(), "daily 14");
}

#[test]
fn what_is_shown_reads_back() {
    for text in [NODE, FULL] {
        let config = parse(text).unwrap();
        let shown = config.show();
        assert_eq!(
            parse(&shown).unwrap_or_else(|e| panic!("{e}\n{shown}")),
            config,
            "{shown}"
        );
    }
    expect![[r#"
        [node]
        name = "alder"
        listen = ["0.0.0.0:7321"]
        advertise = "[2001:db8::7]:7321"
        state-dir = "/var/lib/standin"
        control = "/run/standin/control.sock"
        reserve = "1MiB"
        verify-rate = "32MiB/s"
        checkpoint = { bytes = "64MiB", every = "1m30s" }

        [peer.birch]
        address = "birch.example.org:7321"
        key = "SHA256:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
        bandwidth = "2MB/s"
        grants = []
        accept = { devices = "drop", setuid = "refuse", security = "keep", trusted = "keep" }

        [peer."cedar.example.org"]
        via = ["ssh", "cedar", "standin", "link", "--stdio"]
        bandwidth = ["mon,tue 08:00-20:00 2MB/s", "daily 22:00-06:00 none", "8MB/s"]
        grants = ["send", "receive"]
        accept = { devices = "keep", setuid = "keep", security = "keep", trusted = "keep" }

        [role.web]
        home = "birch"
        peers = ["birch", "cedar.example.org"]
        grants = { birch = [], "cedar.example.org" = ["prune"] }
        every = "mon..fri 03:30"
        keep = { last = 3, hourly = 24, daily = 7, weekly = 4, monthly = 6, yearly = 1 }
        keep-standby = { daily = 14 }
        snapshot-unchanged = true
        verify-every = "1w"
        reserve = "2MiB"
        keep-for-absent-peers = { for = "8w4d", bytes = "50GiB", free = "10%" }

        [role.web.dataset.db]
        btrfs = "/srv/db"

        [role.web.dataset.files]
        btrfs = "/srv/web"
        standby-view = "/srv/web-view"
    "#]]
    .assert_eq(&parse(FULL).unwrap().show());
}

#[test]
fn all_complaints_at_once() {
    complaints(
        r#"
[node]
name = "alder"
lisen = "0.0.0.0:7321"
reserve = true
[peer.birch]
key = "SHA256:tooshort"
[role.web]
home = "oak"
peers = ["brich"]
every = "5 minutes"
keep = {}
[role.web.dataset.files]
btrfs = "srv/web"
[role.mail]
home = "alder"
every = "1h"
keep = { dialy = 7 }
[role.mail.dataset.a]
btrfs = "/srv/mail"
[role.mail.dataset.b]
btrfs = "/srv/mail/"
[extra]
"#,
        expect![[r#"
            /c.toml:4: node.lisen: unknown key: did you mean "listen"?
            /c.toml:5: node.reserve = true: is a truth value, not text in quotes
            /c.toml:7: peer.birch.key = "SHA256:tooshort": not a key fingerprint: "SHA256:" and 43 letters and digits, as `standin pair` prints it
            /c.toml:9: role.web.home = "oak": neither this node (alder) nor one of the peers
            /c.toml:10: role.web.peers = "brich": no such peer: did you mean "birch", or is [peer.brich] missing?
            /c.toml:11: role.web.every = "5 minutes": not a schedule: write an interval ("5m"), "on-change", "manual", "hourly", "daily 03:30", "mon..fri 03:30", or five cron fields ("*/15 8-19 * * 1-5")
            /c.toml:12: role.web.keep = {}: keeps nothing: write at least one rule, such as last = 3
            /c.toml:14: role.web.dataset.files.btrfs = "srv/web": not an absolute path: it must begin with /
            /c.toml:18: role.mail.keep.dialy: unknown key: did you mean "daily"?
            /c.toml:22: role.mail.dataset.b.btrfs = "/srv/mail/": role.mail.dataset.a.btrfs is the same path: data belong to one dataset
            /c.toml:23: extra: unknown key: the keys here are node, peer, role"#]],
    );
}

#[test]
fn not_toml() {
    complaints(
        "[node]\nname = alder\n",
        expect![
            "/c.toml:2:8: this is not TOML: string values must be quoted, expected literal string"
        ],
    );
    complaints(
        "[node\n",
        expect!["/c.toml:1:6: this is not TOML: unclosed table, expected `]`"],
    );
    complaints(
        "[node]\nname = \"a\"\nname = \"b\"\n",
        expect!["/c.toml:3:1: this is not TOML: duplicate key"],
    );
}

#[test]
fn an_empty_file() {
    complaints(
        "",
        expect![[r#"/c.toml:1: node: missing: write [node] and name = "...""#]],
    );
    complaints(
        "node = 3",
        expect!["/c.toml:1: node = 3: is a number, not a table"],
    );
    complaints(
        "[node]",
        expect![[r#"/c.toml:1: node.name: missing: write name = "...""#]],
    );
}

#[test]
fn a_file_that_is_not_there() {
    let error = Config::load(Path::new("/nonexistent/standin.toml")).unwrap_err();
    expect!["/nonexistent/standin.toml: cannot be read: No such file or directory (os error 2)"]
        .assert_eq(&error.to_string());
    assert_eq!(
        crate::error::Failure::from(error).code,
        crate::error::Code::Usage
    );
}

#[test]
fn node_lines() {
    node(
        "listen = \"localhost:7321\"",
        expect![[
            r#"/c.toml:3: node.listen = "localhost:7321": not an IP address with a port, such as "0.0.0.0:7321" or "[::]:7321""#
        ]],
    );
    node(
        "listen = [\n  \"[::]:7321\",\n  \"[::]:7321\",\n  7,\n]",
        expect![[r#"
            /c.toml:5: node.listen = "[::]:7321": listed twice
            /c.toml:6: node.listen = 7: is a number, not text in quotes"#]],
    );
    node(
        "advertise = \"alder\"",
        expect![[
            r#"/c.toml:3: node.advertise = "alder": not host:port, such as "birch.example.org:7321" or "[2001:db8::7]:7321""#
        ]],
    );
    node(
        "state-dir = \"/var/../lib\"",
        expect![[r#"/c.toml:3: node.state-dir = "/var/../lib": write the path without "..""#]],
    );
    node(
        "control = 'standin.sock'",
        expect![
            "/c.toml:3: node.control = 'standin.sock': not an absolute path: it must begin with /"
        ],
    );
    node(
        &format!("control = '/{}'", "x".repeat(107)),
        expect![
            "/c.toml:3: node.control = '/xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx': too long for a socket: at most 107 bytes"
        ],
    );
    node(
        "reserve = \"1G\"",
        expect![[
            r#"/c.toml:3: node.reserve = "1G": "G" can mean two sizes: write GiB (powers of 1024) or GB (powers of 1000)"#
        ]],
    );
    node(
        "reserve = -1",
        expect!["/c.toml:3: node.reserve = -1: must not be negative"],
    );
    node(
        "checkpoint = \"30s\"",
        expect![[r#"/c.toml:3: node.checkpoint = "30s": is text, not a table"#]],
    );
    node(
        "checkpoint = { bytes = 0, evry = \"1s\" }",
        expect![[r#"
            /c.toml:3: node.checkpoint.bytes = 0: must be more than nothing
            /c.toml:3: node.checkpoint.evry: unknown key: did you mean "every"?"#]],
    );
}

#[test]
fn peer_lines() {
    peer(
        "address = \"birch:99999\"",
        expect![[
            r#"/c.toml:4: peer.birch.address = "birch:99999": not host:port, such as "birch.example.org:7321" or "[2001:db8::7]:7321""#
        ]],
    );
    peer(
        "address = \"birch:7321\"\nvia = [\"ssh\"]",
        expect![
            "/c.toml:3: peer.birch: has both `address` and `via`: the link goes one way, write one of them"
        ],
    );
    peer(
        "via = \" \"",
        expect![[
            r#"/c.toml:4: peer.birch.via = " ": empty: write a command such as "ssh birch standin link --stdio""#
        ]],
    );
    peer(
        "bandwidth = \"2MB\"",
        expect![[
            r#"/c.toml:4: peer.birch.bandwidth = "2MB": not a rate: write a rate such as "2MB/s" or "16Mbit/s""#
        ]],
    );
    peer(
        "bandwidth = \"0MB/s\"",
        expect![[
            r#"/c.toml:4: peer.birch.bandwidth = "0MB/s": nothing would ever be sent: write "none" for no limit"#
        ]],
    );
    peer(
        "bandwidth = [\n\"08:00-20:00 2MB/s\",\n\"mon..fun 2MB/s\",\n\"8MB/s\", \"none\",\n7]",
        expect![[r#"
            /c.toml:6: peer.birch.bandwidth = "mon..fun 2MB/s": "fun" is not a day: use mon, tue, wed, thu, fri, sat, sun or daily
            /c.toml:7: peer.birch.bandwidth = "none": never in force: the one before it covers all times
            /c.toml:8: peer.birch.bandwidth = 7: is a number, not text in quotes"#]],
    );
    peer(
        "grants = [\"send\", \"recieve\", \"send\"]",
        expect![[r#"
            /c.toml:4: peer.birch.grants = "recieve": not a grant: use "send", "receive", "read" and "prune"
            /c.toml:4: peer.birch.grants = "send": listed twice"#]],
    );
    peer(
        "[peer.alder]",
        expect!["/c.toml:4: peer.alder: this is the name of this node: a peer is another one"],
    );
    peer(
        "[peer.\"../x\"]",
        expect![[
            r#"/c.toml:4: peer.../x: "../x" is not a valid node name: use 1 to 48 letters, digits, '.', '_' or '-', starting with a letter or digit"#
        ]],
    );
}

#[test]
fn role_lines() {
    role(
        "home = \"alder\"",
        "",
        expect![[
            r#"/c.toml:4: role.web.home: missing: write home = "NODE", the node on which the role lives"#
        ]],
    );
    role("home = \"alder\"", "home = \"birch\"", expect!["accepted"]);
    role(
        "peers = [\"birch\"]",
        "peers = [\"alder\", \"birch\", \"birch\"]",
        expect![[r#"
            /c.toml:6: role.web.peers = "alder": is this node: list the other ones
            /c.toml:6: role.web.peers = "birch": listed twice"#]],
    );
    role("peers = [\"birch\"]", "peers = []", expect!["accepted"]);
    role(
        "\"alder\"\npeers = [\"birch\"]",
        "\"birch\"",
        expect![[
            r#"/c.toml:5: role.web.home = "birch": not among the role's peers: add "birch" to `peers`"#
        ]],
    );
    role(
        "every = \"5m\"",
        "every = 5",
        expect!["/c.toml:7: role.web.every = 5: is a number, not text in quotes"],
    );
    role(
        "keep = { last = 3 }",
        "keep = { last = 1000000, daily = \"7\" }",
        expect![[r#"
            /c.toml:8: role.web.keep.last = 1000000: more than 100000
            /c.toml:8: role.web.keep.daily = "7": is text, not a whole number"#]],
    );
    role(
        "keep = { last = 3 }",
        "",
        expect!["/c.toml:4: role.web.keep: missing: write keep = { last = 3, daily = 7 }"],
    );
    role(
        "keep = { last = 3 }",
        "keep = { last = 3 }\nkeep-standby = { last = 0 }",
        expect![
            "/c.toml:9: role.web.keep-standby = { last = 0 }: keeps nothing: write at least one rule, such as last = 3"
        ],
    );
    role(
        "keep = { last = 3 }",
        "keep = { last = 3 }\nkeep-for-absent-peers = {}",
        expect![[
            r#"/c.toml:9: role.web.keep-for-absent-peers = {}: sets no limit: write at least one, such as for = "60d", or leave it out"#
        ]],
    );
    role(
        "keep = { last = 3 }",
        "keep = { last = 3 }\nkeep-for-absent-peers = { for = \"5m\", free = \"100%\", byts = 1 }",
        expect![[r#"
            /c.toml:9: role.web.keep-for-absent-peers.for = "5m": too short: at least 1h, after which a peer counts as absent
            /c.toml:9: role.web.keep-for-absent-peers.free = "100%": not a share of the filesystem, such as "10%"
            /c.toml:9: role.web.keep-for-absent-peers.byts: unknown key: did you mean "bytes"?"#]],
    );
    role(
        "keep = { last = 3 }",
        "keep = { last = 3 }\nsnapshot-unchanged = \"no\"",
        expect![[r#"/c.toml:9: role.web.snapshot-unchanged = "no": is text, not true or false"#]],
    );
    role(
        "keep = { last = 3 }",
        "keep = { last = 3 }\nverify-every = \"on-change\"",
        expect![[
            r#"/c.toml:9: role.web.verify-every = "on-change": comparisons have times: write an interval ("7d"), or "sun 03:30""#
        ]],
    );
}

#[test]
fn dataset_lines() {
    role(
        "btrfs",
        "btfs",
        expect![[r#"/c.toml:10: role.web.dataset.files.btfs: unknown key: did you mean "btrfs"?"#]],
    );
    for (view, what) in [
        (
            "srv/view",
            expect![[
                r#"/c.toml:10: role.web.dataset.files.standby-view = "srv/view": not an absolute path: it must begin with /"#
            ]],
        ),
        (
            "/srv/web",
            expect![[
                r#"/c.toml:10: role.web.dataset.files.standby-view = "/srv/web": role.web.dataset.files.btrfs is the same path: data belong to one dataset"#
            ]],
        ),
        (
            "/srv/web/view",
            expect![[
                r#"/c.toml:10: role.web.dataset.files.standby-view = "/srv/web/view": inside the dataset at /srv/web, which nothing may be mounted in"#
            ]],
        ),
        (
            "/srv",
            expect![[
                r#"/c.toml:10: role.web.dataset.files.standby-view = "/srv": would hide the dataset at /srv/web"#
            ]],
        ),
    ] {
        role(
            "btrfs = \"/srv/web\"",
            &format!("standby-view = \"{view}\"\nbtrfs = \"/srv/web\""),
            what,
        );
    }
    role(
        "[role.web.dataset.files]\nbtrfs = \"/srv/web\"\n",
        "",
        expect![[
            r#"/c.toml:4: role.web.dataset: missing: a role needs at least one, such as [role.ROLE.dataset.files] with btrfs = "/srv/files""#
        ]],
    );
    role(
        "dataset.files",
        "dataset.-files",
        expect![[
            r#"/c.toml:9: role.web.dataset.-files: "-files" is not a valid dataset name: use 1 to 48 letters, digits, '.', '_' or '-', starting with a letter or digit"#
        ]],
    );
}

#[test]
fn a_wrong_name_of_this_node_is_one_complaint() {
    let text = format!("{NODE}{PEER}{ROLE}").replace("name = \"alder\"", "name = \"al der\"");
    complaints(
        &text,
        expect![[
            r#"/c.toml:2: node.name = "al der": "al der" is not a valid node name: use 1 to 48 letters, digits, '.', '_' or '-', starting with a letter or digit"#
        ]],
    );
}
