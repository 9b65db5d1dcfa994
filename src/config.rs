//! The configuration file: words first, checked meaning second.
//!
//! Promise: whoever holds a [`Config`] holds parsed names, real durations, absolute paths and resolved peers; nothing is
//! validated again. Every complaint about a file is reported at once, each with key, value and the nearest valid key.
//!
//! It deliberately does not know the state database or the disk: `standin check` compares the file with the machine.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::logic::name::{DatasetName, NodeName, RoleName};
use crate::logic::retention::Keep;
use crate::logic::schedule::Every;

#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// The file it was read from, absolute.
    pub path: PathBuf,
    pub node: Node,
    pub peers: BTreeMap<NodeName, Peer>,
    pub roles: BTreeMap<RoleName, Role>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    pub name: NodeName,
    /// Where peers dial in; empty: this node only dials.
    pub listen: Vec<SocketAddr>,
    /// What `pair invite` prints as our address (host:port); none: the first `listen` address, if it is not a wildcard.
    pub advertise: Option<String>,
    /// State database and node key. Default /var/lib/standin.
    pub state_dir: PathBuf,
    /// Control socket. Default /run/standin/control.sock.
    pub control: PathBuf,
    /// Free space that receiving never uses, in bytes. Default 1 GiB.
    pub reserve: u64,
    /// A checkpoint at least after this many stream bytes. Default 256 MiB.
    pub checkpoint_bytes: u64,
    /// ... or after this time. Default 30 s.
    pub checkpoint_every: Duration,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Peer {
    pub name: NodeName,
    /// host:port to dial; none where the peer dials.
    pub address: Option<String>,
    /// A command whose stdin and stdout carry the link instead of TCP, e.g. `ssh birch standin link --stdio`; argv.
    pub via: Option<Vec<String>>,
    /// Pinned public key fingerprint, as `pair` prints it; none: not paired yet, every connection is refused.
    pub key: Option<String>,
    /// Bytes per second this node sends to the peer at most; none: no limit.
    pub bandwidth: Option<u64>,
    pub grants: Vec<Grant>,
}

/// What a peer may do here, for the roles whose `peers` name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Grant {
    /// Send points to this node, to be stored under our own retention.
    Send,
    /// Receive the points this node takes.
    Receive,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Role {
    pub name: RoleName,
    /// The node on which the role lives when all is well: active there at first.
    pub home: NodeName,
    pub peers: Vec<NodeName>,
    pub every: Every,
    /// What this node keeps while it is active in the role.
    pub keep: Keep,
    /// What this node keeps while it stands in. Default: the same as `keep`.
    pub keep_standby: Keep,
    /// Take a point even when nothing changed. Default false.
    pub snapshot_unchanged: bool,
    /// Live paths, absolute.
    pub datasets: BTreeMap<DatasetName, Dataset>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Dataset {
    Btrfs(PathBuf),
}
