//! A role of this node's configuration as its section would read on another node, and such a section as text.
//!
//! Promise: what would run programs there goes over as text for people (`rest`), and is written as comments; a text made
//! from whatever a peer says holds no line that a person was not shown. The caller checks the whole with `Config::parse`.
//!
//! It deliberately does not know who may be told, nor whether the paths exist anywhere.

use std::fmt::Write;

use toml_edit::{DocumentMut, Item, Key, Table, Value};

use super::{Dataset, Role, show};
use crate::logic::name::NodeName;
use crate::logic::play::Service;
use crate::logic::retention::Keep;
use crate::logic::skeleton::{Place, REST_BYTES_MAX, Skeleton};

/// Keys that have fields of their own, or are nobody else's business.
const TOLD: [&str; 10] = [
    "home",
    "kind",
    "peers",
    "grants",
    "every",
    "keep",
    "keep-standby",
    "reserve",
    "addresses",
    "ports",
];

/// The role as `to`, one of its peers, would have it.
pub fn of(role: &Role, ours: &NodeName, to: &NodeName) -> Skeleton {
    let others = role.peers.iter().filter(|peer| *peer != to).cloned();
    // A service that is described by commands means nothing without them.
    let units = role.play.services.iter();
    let all_units = units.clone().all(|one| matches!(one, Service::Unit(_)));
    let services = units.map(|service| service.name().to_owned());
    let datasets = role.datasets.iter().map(|(name, dataset)| {
        let written = role.logs.as_ref().and_then(|logs| logs.live.get(name));
        let (kind, zfs, path) = match written.unwrap_or(dataset) {
            Dataset::Btrfs(path) => ("btrfs", None, path),
            Dataset::Zfs { name, path, .. } => ("path", Some(name.clone()), path),
        };
        let view = role.views.get(name).filter(|_| role.logs.is_none());
        let place = Place {
            kind: kind.to_owned(),
            path: path.to_string_lossy().into_owned(),
            zfs,
            view: view.map(|view| view.to_string_lossy().into_owned()),
        };
        (name.clone(), place)
    });
    let name = role.logs.as_ref().map_or(&role.name, |logs| &logs.of);
    Skeleton {
        name: name.to_string(),
        logs: role.logs.is_some(),
        home: role.logs.is_none().then(|| role.home.clone()),
        peers: others.chain([ours.clone()]).collect(),
        every: role.every.to_string(),
        keep: counts(&role.keep),
        keep_standby: counts(&role.keep_standby),
        services: services.filter(|_| all_units).collect(),
        addresses: role
            .play
            .addresses
            .iter()
            .map(ToString::to_string)
            .collect(),
        ports: role.play.ports.iter().map(ToString::to_string).collect(),
        datasets: datasets.collect(),
        rest: rest(role, all_units),
    }
}

fn counts(keep: &Keep) -> std::collections::BTreeMap<String, u32> {
    let rules = keep.rules().into_iter().filter(|(_, count)| *count > 0);
    rules
        .map(|(name, count)| (name.to_owned(), count))
        .collect()
}

/// What has no field of its own, as TOML below the section's header.
fn rest(role: &Role, all_units: bool) -> String {
    let mut table = show::role(role);
    for key in TOLD {
        table.remove(key);
    }
    table.remove("dataset");
    if all_units {
        table.remove("services");
    }
    if !role.snapshot_unchanged {
        table.remove("snapshot-unchanged");
    }
    if table.is_empty() {
        return String::new();
    }
    let mut roles = Table::new();
    roles.set_implicit(true);
    let header = role.logs.as_ref().map_or(&role.name, |logs| &logs.of);
    roles.insert(header.as_str(), Item::Table(table));
    let mut document = DocumentMut::new();
    document["role"] = Item::Table(roles);
    let text = document.to_string();
    let first = format!("[role.{}]", Key::new(header.as_str()));
    let lines = text.lines().filter(|line| line.trim() != first);
    let mut text = String::new();
    for line in lines.skip_while(|line| line.is_empty()) {
        if text.len() + line.len() >= REST_BYTES_MAX {
            break;
        }
        text += line;
        text.push('\n');
    }
    text
}

/// The section as text, in the words of `from`. Every value is quoted anew, and every line of `rest` is a comment.
pub fn text(skeleton: &Skeleton, from: &NodeName) -> String {
    let name = Key::new(skeleton.name.as_str());
    let mut text =
        format!("# As {from} has it; look through it, then `standin check`.\n[role.{name}]\n");
    let mut line = |key: &str, value: Value| {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{key} = {value}");
    };
    if skeleton.logs {
        line("kind", "logs".into());
    }
    if let Some(home) = &skeleton.home {
        line("home", home.as_str().into());
    }
    line("peers", list(skeleton.peers.iter().map(NodeName::as_str)));
    line("every", skeleton.every.as_str().into());
    line("keep", table(&skeleton.keep));
    if skeleton.keep_standby != skeleton.keep && !skeleton.keep_standby.is_empty() {
        line("keep-standby", table(&skeleton.keep_standby));
    }
    let lists = [
        ("services", &skeleton.services),
        ("addresses", &skeleton.addresses),
        ("ports", &skeleton.ports),
    ];
    for (key, words) in lists {
        if !words.is_empty() {
            line(key, list(words.iter().map(String::as_str)));
        }
    }
    if !skeleton.rest.trim().is_empty() {
        text += "# What else is said there. Programs are run as root: take the \"#\" away from what you know.\n";
        for line in skeleton.rest.lines() {
            let shown = line.chars().filter(|c| !c.is_control());
            text.push('#');
            text.extend(shown);
            text.push('\n');
        }
    }
    for (dataset, place) in &skeleton.datasets {
        let dataset = Key::new(dataset.as_str());
        text += &format!("[role.{name}.dataset.{dataset}]\n");
        text += &format!("# The path on {from}; is it this machine's too?\n");
        if let Some(zfs) = &place.zfs {
            text += &format!("zfs = {}\n", Value::from(zfs.as_str()));
        }
        text += &format!("{} = {}\n", place.kind, Value::from(place.path.as_str()));
        if let Some(view) = &place.view {
            text += &format!("#standby-view = {}\n", Value::from(view.as_str()));
        }
    }
    text
}

fn list<'a>(words: impl Iterator<Item = &'a str>) -> Value {
    Value::from(words.collect::<toml_edit::Array>())
}

fn table(counts: &std::collections::BTreeMap<String, u32>) -> Value {
    let pairs = counts.iter();
    let pairs = pairs.map(|(name, count)| (name.as_str(), Value::from(i64::from(*count))));
    Value::from(pairs.collect::<toml_edit::InlineTable>())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::Config;
    use expect_test::{Expect, expect};

    const BIRCH: &str = r#"[node]
name = "birch"
[peer.alder]
[peer.cedar]
[role.web]
home = "alder"
peers = ["alder", "cedar"]
every = "5m"
keep = { last = 3, daily = 7 }
"#;

    fn name(word: &str) -> NodeName {
        NodeName::parse(word).unwrap()
    }

    /// What alder gets of birch's role, given further lines of it; it is a configuration with alder's own head.
    fn check(more: &str, expected: Expect) {
        let birch = format!("{BIRCH}{more}\n[role.web.dataset.files]\nbtrfs = \"/srv/we\\\"b\"\n");
        let birch = Config::parse(&birch, Path::new("/c")).unwrap();
        let role = birch.roles.values().next().unwrap();
        let skeleton = of(role, &name("birch"), &name("alder"));
        skeleton.sound().unwrap();
        let text = text(&skeleton, &name("birch"));
        expected.assert_eq(&text);
        let alder = format!("[node]\nname = \"alder\"\n[peer.birch]\n[peer.cedar]\n{text}");
        let alder = Config::parse(&alder, Path::new("/c")).unwrap();
        let theirs = alder.roles.values().next().unwrap();
        assert_eq!(theirs.keep, role.keep);
        assert_eq!(theirs.datasets, role.datasets);
        assert_eq!(theirs.play.addresses, role.play.addresses);
    }

    #[test]
    fn sections() {
        check(
            "",
            expect![[r##"
            # As birch has it; look through it, then `standin check`.
            [role.web]
            home = "alder"
            peers = ["cedar", "birch"]
            every = "5m"
            keep = { daily = 7, last = 3 }
            [role.web.dataset.files]
            # The path on birch; is it this machine's too?
            btrfs = '/srv/we"b'
        "##]],
        );
        check(
            "services = [\"nginx.service\"]\naddresses = [\"192.0.2.10/24 eth0\"]\nkeep-standby = { daily = 30 }\n\
             hooks.after-start = \"/bin/x\"\ndrill.checks = [\"/bin/y\"]",
            expect![[r##"
                # As birch has it; look through it, then `standin check`.
                [role.web]
                home = "alder"
                peers = ["cedar", "birch"]
                every = "5m"
                keep = { daily = 7, last = 3 }
                keep-standby = { daily = 30 }
                services = ["nginx.service"]
                addresses = ["192.0.2.10/24 eth0"]
                # What else is said there. Programs are run as root: take the "#" away from what you know.
                #hooks.after-start = { run = ["/bin/x"], timeout = "30s" }
                #drill.checks = [["/bin/y"]]
                #drill.timeout = "10m"
                [role.web.dataset.files]
                # The path on birch; is it this machine's too?
                btrfs = '/srv/we"b'
            "##]],
        );
        check(
            "services = [\"app\"]\nservice.app = { start = \"/a\", stop = \"/b\", health = \"/c\" }",
            expect![[r##"
                # As birch has it; look through it, then `standin check`.
                [role.web]
                home = "alder"
                peers = ["cedar", "birch"]
                every = "5m"
                keep = { daily = 7, last = 3 }
                # What else is said there. Programs are run as root: take the "#" away from what you know.
                #services = ["app"]
                #service.app = { start = ["/a"], stop = ["/b"], health = ["/c"], timeout = "1m" }
                [role.web.dataset.files]
                # The path on birch; is it this machine's too?
                btrfs = '/srv/we"b'
            "##]],
        );
    }

    #[test]
    fn no_line_of_a_peer_is_more_than_a_comment() {
        let place = Place {
            kind: "btrfs".into(),
            zfs: None,
            path: "/srv\"\nhooks.after-start = \"/bin/evil".into(),
            view: None,
        };
        let dataset = crate::logic::name::DatasetName::parse("files").unwrap();
        let skeleton = Skeleton {
            name: "web]\nhooks = 1\n[x".into(),
            every: "5m\"\nhooks = 1 #".into(),
            services: vec!["a\"]\nhooks = 1 #".into()],
            rest: "\u{1b}[2Jx\r\nhooks = 1\n[node]\nname = \"evil\"\n".into(),
            datasets: [(dataset, place)].into(),
            ..Skeleton::default()
        };
        let text = text(&skeleton, &name("birch"));
        let parsed: toml_edit::DocumentMut = text.parse().unwrap();
        assert_eq!(parsed.as_table().len(), 1, "{text}");
        let role = parsed["role"].as_table_like().unwrap();
        let (_, role) = role.iter().next().unwrap();
        assert!(role.get("hooks").is_none(), "{text}");
    }
}
