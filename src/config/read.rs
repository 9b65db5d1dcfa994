//! From a document to its meaning: every key of the file, its default and its rules.
//!
//! Promise: either a [`Config`] of which everything was checked, or every complaint there is. A value that is wrong in itself
//! gives one complaint, not a second one from each place that would have used it. Values that were complained of may be
//! passed on incomplete: with one complaint, nothing of the result is used.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use super::datasets::{Paths, datasets};
use super::document::{Found, Page, Section};
use super::logs::{self, Logs};
use super::permit;
use super::{
    CONTROL_DEFAULT, Complaints, Config, Grant, Node, Peer, Role, RoleGrants, STATE_DIR_DEFAULT,
};
use crate::logic::absent::{self, Floor};
use crate::logic::accept::Accept;
use crate::logic::bandwidth::{Bandwidth, Limit};
use crate::logic::drill::Drill;
use crate::logic::dump::Dump;
use crate::logic::name::{NodeName, RoleName, nearest};
use crate::logic::play::Play;
use crate::logic::retention::Keep;
use crate::logic::schedule::Every;
use crate::logic::units;

/// Longest path of a unix socket, in bytes (unix(7): sun_path is 108 with the final NUL).
const SOCKET_PATH_BYTES_MAX: usize = 107;

/// Largest count of a retention rule: beyond any use, and small enough to add up.
const KEEP_MAX: u64 = 100_000;

pub fn config(text: &str, path: &Path) -> Result<Config, Complaints> {
    let page = Page::new(text);
    let config = page
        .parse()
        .and_then(|document| whole(Section::top(&page, &document), path));
    let list = page.into_complaints();
    match config {
        Some(config) if list.is_empty() => Ok(config),
        _ => Err(Complaints {
            path: path.to_owned(),
            list,
        }),
    }
}

/// The names that roles may refer to. `here` is none where the node's own name is wrong or missing.
struct Known {
    here: Option<NodeName>,
    peers: BTreeSet<NodeName>,
    /// The node's, which roles have too where they do not say.
    reserve: u64,
}

fn whole(mut top: Section, path: &Path) -> Option<Config> {
    // Read when the peers are known.
    let mut watched = None;
    let node = match top.section("node") {
        Some(mut section) => {
            watched = section.get("watch");
            Some(node(section))
        }
        None => {
            // A `node` that is no table has been complained of.
            if top.get("node").is_none() {
                top.complain("node", "missing: write [node] and name = \"...\"");
            }
            None
        }
    };
    let mut known = Known {
        here: node.as_ref().and_then(|(name, _)| name.clone()),
        peers: BTreeSet::new(),
        reserve: node
            .as_ref()
            .and_then(|(_, node)| Some(node.as_ref()?.reserve))
            .unwrap_or(RESERVE_DEFAULT),
    };
    let mut peers = BTreeMap::new();
    for found in top.section("peer").iter().flat_map(Section::entries) {
        let Some(name) = named(&found, NodeName::parse) else {
            continue;
        };
        if known.here.as_ref() == Some(&name) {
            found.refuse_key("this is the name of this node: a peer is another one");
            continue;
        }
        known.peers.insert(name.clone());
        if let Some(peer) = found.section().and_then(|section| peer(section, &name)) {
            peers.insert(name, peer);
        }
    }
    let watches = watched.map(|found| super::watch::watches(&found, &known.peers));
    let mut roles = BTreeMap::new();
    let mut paths = Paths::default();
    for found in top.section("role").iter().flat_map(Section::entries) {
        let Some(name) = named(&found, RoleName::parse) else {
            continue;
        };
        let section = found.clone().section();
        let role = section.and_then(|section| role(section, &name, &known, &mut paths));
        let expanded = role.map(|role| logs::expanded(role, known.here.as_ref(), &found));
        for role in expanded.into_iter().flatten() {
            let name = role.name.clone();
            if roles.insert(name.clone(), role).is_some() {
                found.refuse_key(format!("there are two roles {name}: give one another name"));
            }
        }
    }
    paths.finish();
    top.finish();
    let mut node = node?.1?;
    node.watches = watches.unwrap_or_else(|| Some(Vec::new()))?;
    Some(Config {
        path: path.to_owned(),
        node,
        peers,
        roles,
    })
}

/// A key that is itself a name.
pub(super) fn named<T, E: std::fmt::Display>(
    found: &Found,
    parse: impl FnOnce(&str) -> Result<T, E>,
) -> Option<T> {
    match parse(found.name) {
        Ok(name) => Some(name),
        Err(error) => {
            found.refuse_key(error.to_string());
            None
        }
    }
}

/// The name alone when the rest is wrong, so that roles can still be checked against it.
fn node(mut section: Section) -> (Option<NodeName>, Option<Node>) {
    let name = section
        .need("name", "\"...\"")
        .and_then(|found| found.parsed(NodeName::parse));
    let listen = section.get("listen").map(|found| listen(&found));
    let advertise = section.get("advertise").map(|found| found.parsed(address));
    let state_dir = section.get("state-dir").map(|found| found.parsed(absolute));
    let control = section.get("control").map(|found| found.parsed(socket));
    let reserve = section.get("reserve").map(|found| size(&found));
    let checkpoint = section.get("checkpoint").map(checkpoint);
    let verify_rate = section.get("verify-rate").map(|found| rate(&found));
    let vars = section.get("vars").map(super::seed::vars);
    section.finish();
    let node = || {
        let (checkpoint_bytes, checkpoint_every) =
            checkpoint.unwrap_or(Some(CHECKPOINT_DEFAULT))?;
        Some(Node {
            name: name.clone()?,
            listen: listen.unwrap_or(Some(Vec::new()))?,
            advertise: or_none(advertise)?,
            state_dir: state_dir.unwrap_or_else(|| Some(PathBuf::from(STATE_DIR_DEFAULT)))?,
            control: control.unwrap_or_else(|| Some(PathBuf::from(CONTROL_DEFAULT)))?,
            reserve: reserve.unwrap_or(Some(RESERVE_DEFAULT))?,
            checkpoint_bytes,
            checkpoint_every,
            verify_rate: verify_rate.unwrap_or(Some(VERIFY_RATE_DEFAULT))?,
            vars: vars.unwrap_or_else(|| Some(BTreeMap::new()))?,
            watches: Vec::new(),
        })
    };
    let node = node();
    (name, node)
}

const RESERVE_DEFAULT: u64 = 1 << 30;

const CHECKPOINT_DEFAULT: (u64, Duration) = (256 << 20, Duration::from_secs(30));

const VERIFY_RATE_DEFAULT: u64 = 32 << 20;

fn rate(found: &Found) -> Option<u64> {
    let rate = found.parsed(units::parse_rate)?;
    if rate == 0 {
        found.refuse("must be more than nothing");
    }
    Some(rate)
}

/// Absent is fine (`Some(None)`), present but wrong is not (`None`).
fn or_none<T>(value: Option<Option<T>>) -> Option<Option<T>> {
    match value {
        None => Some(None),
        Some(None) => None,
        Some(value) => Some(value),
    }
}

fn listen(found: &Found) -> Option<Vec<SocketAddr>> {
    let mut addresses = Vec::new();
    for word in found.texts()? {
        let address = word.parsed(|text| {
            text.parse::<SocketAddr>().map_err(
                |_| "not an IP address with a port, such as \"0.0.0.0:7321\" or \"[::]:7321\"",
            )
        });
        let Some(address) = address else { continue };
        if addresses.contains(&address) {
            word.refuse("listed twice");
        }
        addresses.push(address);
    }
    Some(addresses)
}

fn checkpoint(found: Found) -> Option<(u64, Duration)> {
    let mut section = found.section()?;
    let bytes = section.get("bytes").map(|found| {
        let bytes = size(&found)?;
        if bytes == 0 {
            found.refuse("must be more than nothing");
        }
        Some(bytes)
    });
    let every = section.get("every").map(|found| {
        let every = found.parsed(units::parse_duration)?;
        if every.is_zero() {
            found.refuse("must be more than nothing");
        }
        Some(every)
    });
    section.finish();
    Some((
        bytes.unwrap_or(Some(CHECKPOINT_DEFAULT.0))?,
        every.unwrap_or(Some(CHECKPOINT_DEFAULT.1))?,
    ))
}

fn peer(mut section: Section, name: &NodeName) -> Option<Peer> {
    let address = section.get("address").map(|found| found.parsed(address));
    let via = section.get("via").map(|found| via(&found));
    if address.is_some() && via.is_some() {
        section.complain(
            "",
            "has both `address` and `via`: the link goes one way, write one of them",
        );
    }
    let key = section.get("key").map(|found| found.parsed(fingerprint));
    let bandwidth = section.get("bandwidth").map(|found| bandwidth(&found));
    let grants = section.get("grants").map(|found| permit::grants(&found));
    let accept = section.get("accept").map(permit::accept);
    section.finish();
    Some(Peer {
        name: name.clone(),
        address: or_none(address)?,
        via: or_none(via)?,
        key: or_none(key)?,
        bandwidth: bandwidth.unwrap_or_else(|| Some(Bandwidth::default()))?,
        grants: grants.unwrap_or_else(|| Some(Grant::DEFAULT.to_vec()))?,
        accept: accept.unwrap_or_else(|| Some(Accept::default()))?,
    })
}

/// A limit, or a list of them of which the first that covers the present moment is in force.
fn bandwidth(found: &Found) -> Option<Bandwidth> {
    let mut limits: Vec<Limit> = Vec::new();
    for word in found.texts()? {
        let Some(limit) = word.parsed(Limit::parse) else {
            continue;
        };
        if limits.last().is_some_and(Limit::is_always) {
            word.refuse("never in force: the one before it covers all times");
        }
        limits.push(limit);
    }
    Some(Bandwidth::new(limits))
}

/// An argument vector: a list, or a text cut at blanks.
fn via(found: &Found) -> Option<Vec<String>> {
    let words: Vec<String> = if found.is_text() {
        found
            .text()?
            .split_whitespace()
            .map(str::to_owned)
            .collect()
    } else {
        found
            .texts()?
            .iter()
            .map(|word| word.text.to_owned())
            .collect()
    };
    if words.first().is_none_or(String::is_empty) {
        found.refuse("empty: write a command such as \"ssh birch standin link --stdio\"");
        return None;
    }
    Some(words)
}

fn role<'a>(
    mut section: Section<'a>,
    name: &RoleName,
    known: &Known,
    paths: &mut Paths<'a>,
) -> Option<Role> {
    let peers = section.get("peers");
    let peers = peers.map_or(Some(Vec::new()), |found| role_peers(&found, known));
    let grants = section
        .get("grants")
        .map(|found| permit::role_grants(found, peers.as_deref()));
    let kind = section.get("kind").map(|found| logs::kind(&found));
    if kind == Some(None) {
        // What else is wrong depends on it.
        return None;
    }
    let is_logs = kind == Some(Some(true));
    let home = if is_logs {
        logs::refuse_moving(&mut section);
        known.here.clone()
    } else {
        section
            .need("home", "\"NODE\", the node on which the role lives")
            .and_then(|found| home(&found, known, peers.as_deref()))
    };
    let every = section
        .need("every", "\"5m\"")
        .and_then(|found| found.parsed(Every::parse));
    let keep = section
        .need("keep", "{ last = 3, daily = 7 }")
        .and_then(keep);
    let keep_standby = section.get("keep-standby").map(self::keep);
    let snapshot_unchanged = section.get("snapshot-unchanged").map(|found| found.flag());
    let verify_every = section.get("verify-every").map(|found| verifies(&found));
    let reserve = section.get("reserve").map(|found| size(&found));
    let absent = section.get("keep-for-absent-peers").map(absent);
    let mut moving = match is_logs {
        true => Moving::nothing(),
        false => Moving::read(&mut section),
    };
    let nodes = logs::Nodes {
        here: known.here.as_ref(),
        peers: peers.as_deref().unwrap_or_default(),
    };
    let datasets = datasets(&mut section, paths, is_logs.then_some(nodes));
    let seeds = moving.seeds.take();
    let seeds = seeds.map(|found| seeds_of(&found, datasets.as_ref(), paths));
    section.finish();
    let logs = is_logs.then(|| Logs::of(name, datasets.as_ref()));
    Some(Role {
        name: name.clone(),
        logs,
        home: home?,
        peers: peers?,
        grants: grants.unwrap_or_else(|| Some(RoleGrants::new()))?,
        every: every?,
        keep: keep?,
        keep_standby: keep_standby.unwrap_or(keep)?,
        snapshot_unchanged: snapshot_unchanged.unwrap_or(Some(false))?,
        verify_every: verify_every.unwrap_or(Some(None))?,
        reserve: reserve.unwrap_or(Some(known.reserve))?,
        absent: absent.unwrap_or_else(|| Some(absent::Limits::default()))?,
        seeds: seeds.unwrap_or_else(|| Some(Vec::new()))?,
        views: datasets.as_ref()?.views.clone(),
        datasets: datasets?.live,
        play: moving.play?,
        drill: moving.drill?,
        dumps: moving.dumps?,
    })
}

fn verifies(found: &Found) -> Option<Option<Every>> {
    super::drill::times(found, "comparisons")
}

fn seeds_of<'a>(
    found: &Found<'a>,
    datasets: Option<&super::datasets::Datasets>,
    paths: &mut Paths<'a>,
) -> Option<Vec<super::Seed>> {
    let names = datasets.map(|datasets| datasets.live.keys().cloned().collect::<Vec<_>>());
    super::seed::seeds(found, names.as_deref(), paths)
}

/// What only a role has that moves from node to node.
struct Moving<'a> {
    play: Option<Play>,
    drill: Option<Drill>,
    dumps: Option<Vec<Dump>>,
    /// Read when the datasets are known.
    seeds: Option<Found<'a>>,
}

impl<'a> Moving<'a> {
    fn nothing() -> Moving<'a> {
        Moving {
            play: Some(Play::default()),
            drill: Some(Drill::default()),
            dumps: Some(Vec::new()),
            seeds: None,
        }
    }

    fn read(section: &mut Section<'a>) -> Moving<'a> {
        let play = super::play::play(section);
        let drill = section.get("drill").map(super::drill::drill);
        let dumps = section.get("dump").map(super::dump::dumps);
        Moving {
            play,
            drill: drill.unwrap_or_else(|| Some(Drill::default())),
            dumps: dumps.unwrap_or_else(|| Some(Vec::new())),
            seeds: section.get("seed"),
        }
    }
}

fn role_peers(found: &Found, known: &Known) -> Option<Vec<NodeName>> {
    let mut peers: Vec<NodeName> = Vec::new();
    for word in found.texts()? {
        let Some(peer) = word.parsed(NodeName::parse) else {
            continue;
        };
        if known.here.as_ref() == Some(&peer) {
            word.refuse("is this node: list the other ones");
        } else if !known.peers.contains(&peer) {
            let near = nearest(peer.as_str(), known.peers.iter().map(NodeName::as_str));
            let hint =
                near.map_or_else(String::new, |near| format!("did you mean \"{near}\", or "));
            word.refuse(format!("no such peer: {hint}is [peer.{peer}] missing?"));
        } else if peers.contains(&peer) {
            word.refuse("listed twice");
        }
        peers.push(peer);
    }
    Some(peers)
}

fn home(found: &Found, known: &Known, peers: Option<&[NodeName]>) -> Option<NodeName> {
    let home = found.parsed(NodeName::parse)?;
    // With a wrong name of this node nobody can tell which home is meant.
    let here = known.here.as_ref()?;
    if home == *here {
        return Some(home);
    }
    if !known.peers.contains(&home) {
        found.refuse(format!("neither this node ({here}) nor one of the peers"));
    } else if peers.is_some_and(|peers| !peers.contains(&home)) {
        found.refuse(format!(
            "not among the role's peers: add \"{home}\" to `peers`"
        ));
    }
    Some(home)
}

fn keep(found: Found) -> Option<Keep> {
    let place = found.clone();
    let mut section = found.section()?;
    let mut count = |name| match section.get(name) {
        None => Some(0),
        Some(found) => {
            let count = found.whole()?;
            if count > KEEP_MAX {
                found.refuse(format!("more than {KEEP_MAX}"));
            }
            u32::try_from(count).ok()
        }
    };
    let (last, hourly, daily) = (count("last"), count("hourly"), count("daily"));
    let (weekly, monthly, yearly) = (count("weekly"), count("monthly"), count("yearly"));
    let refused = section.finish();
    let keep = Keep {
        last: last?,
        hourly: hourly?,
        daily: daily?,
        weekly: weekly?,
        monthly: monthly?,
        yearly: yearly?,
    };
    // Where a rule is misspelt, that is the one complaint to make.
    if keep.is_empty() && refused == 0 {
        place.refuse("keeps nothing: write at least one rule, such as last = 3");
    }
    Some(keep)
}

fn absent(found: Found) -> Option<absent::Limits> {
    let place = found.clone();
    let mut section = found.section()?;
    let longest = section.get("for").map(|found| {
        let longest = found.parsed(units::parse_duration)?;
        if longest < absent::ABSENT_LEAST {
            found.refuse("too short: at least 1h, after which a peer counts as absent");
        }
        Some(longest)
    });
    let bytes = section.get("bytes").map(|found| size(&found));
    let floor = section.get("free").map(|found| floor(&found));
    let any = longest.is_some() || bytes.is_some() || floor.is_some();
    let refused = section.finish();
    if !any && refused == 0 {
        place.refuse("sets no limit: write at least one, such as for = \"60d\", or leave it out");
    }
    Some(absent::Limits {
        longest: or_none(longest)?,
        bytes: or_none(bytes)?,
        floor: or_none(floor)?,
    })
}

/// A size, or a share of the filesystem.
fn floor(found: &Found) -> Option<Floor> {
    if found.is_number() {
        return found.whole().map(Floor::Bytes);
    }
    found.parsed(|text| match text.strip_suffix('%') {
        Some(percent) => match percent.trim_end().parse::<u8>() {
            Ok(percent) if percent < 100 => Ok(Floor::Percent(percent)),
            _ => Err("not a share of the filesystem, such as \"10%\"".to_owned()),
        },
        None => units::parse_size(text)
            .map(Floor::Bytes)
            .map_err(|error| error.to_string()),
    })
}

/// Bytes as a bare number, or text with a unit.
fn size(found: &Found) -> Option<u64> {
    if found.is_number() {
        return found.whole();
    }
    found.parsed(units::parse_size)
}

/// An absolute path without `..`; `/srv//web/./` is read as `/srv/web`.
pub(super) fn absolute(text: &str) -> Result<PathBuf, &'static str> {
    let path = Path::new(text);
    if !path.is_absolute() {
        return Err("not an absolute path: it must begin with /");
    }
    if path.components().any(|part| part == Component::ParentDir) {
        return Err("write the path without \"..\"");
    }
    if text.contains('\0') {
        return Err("a path cannot hold a NUL");
    }
    Ok(path.components().collect())
}

fn socket(text: &str) -> Result<PathBuf, String> {
    let path = absolute(text)?;
    if path.as_os_str().len() > SOCKET_PATH_BYTES_MAX {
        return Err(format!(
            "too long for a socket: at most {SOCKET_PATH_BYTES_MAX} bytes"
        ));
    }
    Ok(path)
}

/// `host:port`; the host is a name or an IP address, IPv6 in brackets.
pub(super) fn address(text: &str) -> Result<String, &'static str> {
    const WRONG: &str =
        "not host:port, such as \"birch.example.org:7321\" or \"[2001:db8::7]:7321\"";
    let (host, port) = text.rsplit_once(':').ok_or(WRONG)?;
    let bracketed = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'));
    let host_good = match bracketed {
        Some(host) => host.parse::<std::net::Ipv6Addr>().is_ok(),
        None => {
            !host.is_empty()
                && host
                    .chars()
                    .all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_'))
        }
    };
    let digits = port.bytes().all(|b| b.is_ascii_digit());
    let port_good = digits && port.parse::<u16>().is_ok_and(|port| port > 0);
    if host_good && port_good {
        Ok(text.to_owned())
    } else {
        Err(WRONG)
    }
}

/// `SHA256:` and the base64 of 32 bytes without padding, the spelling of ssh-keygen(1).
pub(super) fn fingerprint(text: &str) -> Result<String, &'static str> {
    use base64::Engine;
    let bytes = text.strip_prefix("SHA256:").and_then(|hash| {
        base64::engine::general_purpose::STANDARD_NO_PAD
            .decode(hash)
            .ok()
    });
    if bytes.is_some_and(|bytes| bytes.len() == 32) {
        Ok(text.to_owned())
    } else {
        Err(
            "not a key fingerprint: \"SHA256:\" and 43 letters and digits, as `standin pair` prints it",
        )
    }
}
