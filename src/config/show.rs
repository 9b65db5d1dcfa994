//! The effective configuration as TOML: what the node works with once defaults are filled in.
//!
//! Promise: it parses back to an equal [`Config`].

use std::path::Path;

use toml_edit::{Array, DocumentMut, InlineTable, Item, Table, Value, value};

use super::{Config, Dataset, Grant, Node, Peer, Role};
use crate::logic::absent::{self, Floor};
use crate::logic::retention::Keep;
use crate::logic::units;

pub fn config(config: &Config) -> String {
    let mut document = DocumentMut::new();
    document["node"] = Item::Table(node(&config.node));
    let mut peers = implicit();
    for (name, one) in &config.peers {
        peers.insert(name.as_str(), Item::Table(peer(one)));
    }
    document["peer"] = Item::Table(peers);
    let mut roles = implicit();
    for (name, one) in &config.roles {
        match &one.logs {
            None => drop(roles.insert(name.as_str(), Item::Table(role(one)))),
            // Said once, as this node's own.
            Some(logs) if one.home == config.node.name => {
                roles.insert(logs.of.as_str(), Item::Table(role(one)));
            }
            Some(_) => {}
        }
    }
    document["role"] = Item::Table(roles);
    document.to_string()
}

/// A table that has no header of its own, only its children's.
fn implicit() -> Table {
    let mut table = Table::new();
    table.set_implicit(true);
    table
}

fn text(path: &Path) -> Item {
    // Paths come from a TOML text, which is UTF-8: nothing is lost here.
    value(path.to_string_lossy().as_ref())
}

fn list(words: impl Iterator<Item = String>) -> Item {
    value(words.collect::<Array>())
}

fn node(node: &Node) -> Table {
    let mut table = Table::new();
    table["name"] = value(node.name.as_str());
    table["listen"] = list(node.listen.iter().map(ToString::to_string));
    if let Some(advertise) = &node.advertise {
        table["advertise"] = value(advertise);
    }
    table["state-dir"] = text(&node.state_dir);
    table["control"] = text(&node.control);
    table["reserve"] = value(units::exact_size(node.reserve));
    table["verify-rate"] = value(units::exact_rate(node.verify_rate));
    let mut checkpoint = InlineTable::new();
    checkpoint.insert("bytes", units::exact_size(node.checkpoint_bytes).into());
    checkpoint.insert("every", units::exact_duration(node.checkpoint_every).into());
    table["checkpoint"] = value(checkpoint);
    super::seed::show_vars(&node.vars, &mut table);
    super::watch::show(&node.watches, &mut table);
    table
}

fn peer(peer: &Peer) -> Table {
    let mut table = Table::new();
    if let Some(address) = &peer.address {
        table["address"] = value(address);
    }
    if let Some(via) = &peer.via {
        table["via"] = list(via.iter().cloned());
    }
    if let Some(key) = &peer.key {
        table["key"] = value(key);
    }
    match peer.bandwidth.limits() {
        [] => {}
        [one] => table["bandwidth"] = value(one.to_string()),
        limits => table["bandwidth"] = list(limits.iter().map(ToString::to_string)),
    }
    table["grants"] = list(peer.grants.iter().map(|grant| grant.word().to_owned()));
    let rules = peer.accept.rules();
    let rules = rules.map(|(name, treatment)| (name, Value::from(treatment.word())));
    table["accept"] = value(rules.into_iter().collect::<InlineTable>());
    table
}

pub(super) fn role(role: &Role) -> Table {
    let mut table = Table::new();
    match role.logs {
        None => table["home"] = value(role.home.as_str()),
        Some(_) => table["kind"] = value(super::logs::WORD),
    }
    table["peers"] = list(role.peers.iter().map(ToString::to_string));
    if !role.grants.is_empty() {
        let words = |grants: &[Grant]| grants.iter().map(|grant| grant.word()).collect::<Array>();
        let grants = role.grants.iter();
        let grants = grants.map(|(peer, grants)| (peer.as_str(), words(grants)));
        table["grants"] = value(grants.collect::<InlineTable>());
    }
    table["every"] = value(role.every.to_string());
    table["keep"] = keep(&role.keep);
    table["keep-standby"] = keep(&role.keep_standby);
    table["snapshot-unchanged"] = value(role.snapshot_unchanged);
    if let Some(every) = &role.verify_every {
        table["verify-every"] = value(every.to_string());
    }
    table["reserve"] = value(units::exact_size(role.reserve));
    if role.absent != absent::Limits::default() {
        table["keep-for-absent-peers"] = absent(&role.absent);
    }
    super::play::show(&role.play, &mut table);
    super::drill::show(&role.drill, &mut table);
    super::dump::show(&role.dumps, &mut table);
    let mut datasets = implicit();
    for (name, live) in &role.datasets {
        let mut dataset = Table::new();
        let written = role.logs.as_ref().and_then(|logs| logs.live.get(name));
        match written.unwrap_or(live) {
            Dataset::Btrfs(path) => dataset["btrfs"] = text(path),
            Dataset::Zfs { name, path, key } => {
                dataset["zfs"] = value(name.as_str());
                dataset["path"] = text(path);
                if let Some(key) = key {
                    dataset["key-file"] = text(key);
                }
            }
        }
        if let Some(view) = role.views.get(name) {
            dataset["standby-view"] = text(view);
        }
        datasets.insert(name.as_str(), Item::Table(dataset));
    }
    table["dataset"] = Item::Table(datasets);
    super::seed::show(&role.seeds, &mut table);
    table
}

fn absent(limits: &absent::Limits) -> Item {
    let mut table = InlineTable::new();
    if let Some(longest) = limits.longest {
        table.insert("for", units::exact_duration(longest).into());
    }
    if let Some(bytes) = limits.bytes {
        table.insert("bytes", units::exact_size(bytes).into());
    }
    match limits.floor {
        Some(Floor::Bytes(bytes)) => table.insert("free", units::exact_size(bytes).into()),
        Some(Floor::Percent(percent)) => table.insert("free", format!("{percent}%").into()),
        None => None,
    };
    value(table)
}

fn keep(keep: &Keep) -> Item {
    let rules = keep.rules().into_iter().filter(|(_, count)| *count > 0);
    value(
        rules
            .map(|(name, count)| (name, Value::from(i64::from(count))))
            .collect::<InlineTable>(),
    )
}
