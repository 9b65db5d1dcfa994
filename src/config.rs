//! The configuration file: words first (`document`), checked meaning second (`read`).
//!
//! Promise: whoever holds a [`Config`] holds parsed names, real durations, absolute paths and resolved peers; nothing is
//! validated again. Every complaint about a file is reported at once, each with line, key, value and the nearest valid key.
//! docs/standin.toml explains every key; a test reads it.
//!
//! It deliberately does not know the state database or the disk: `standin check` compares the file with the machine.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::logic::absent;
use crate::logic::accept::Accept;
use crate::logic::bandwidth::Bandwidth;
use crate::logic::drift::Watch;
use crate::logic::drill::Drill;
use crate::logic::dump::Dump;
use crate::logic::name::{DatasetName, NodeName, RoleName};
use crate::logic::play::Play;
use crate::logic::retention::Keep;
use crate::logic::schedule::Every;
use crate::logic::seed::Seed;
use crate::logic::transfer::Kind;

mod complaint;
mod datasets;
mod document;
mod drill;
mod dump;
pub mod edit;
mod logs;
mod permit;
mod play;
mod read;
mod seed;
mod show;
pub mod skeleton;
pub mod store;
#[cfg(test)]
mod tests;
mod watch;

pub use complaint::{Complaint, Complaints};
pub use logs::Logs;
pub use permit::{Grant, RoleGrants, in_force};

/// Where the file is unless `--config` says otherwise.
pub const PATH_DEFAULT: &str = "/etc/standin/standin.toml";
/// Default of `node.state-dir`.
pub const STATE_DIR_DEFAULT: &str = "/var/lib/standin";
/// Default of `node.control`.
pub const CONTROL_DEFAULT: &str = "/run/standin/control.sock";

/// A whole configuration, checked.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// The file it was read from, absolute.
    pub path: PathBuf,
    pub node: Node,
    pub peers: BTreeMap<NodeName, Peer>,
    pub roles: BTreeMap<RoleName, Role>,
}

impl Config {
    /// Reads and checks a file.
    pub fn load(path: &Path) -> Result<Config, Complaints> {
        let unreadable = |error: std::io::Error| Complaints {
            path: path.to_owned(),
            list: vec![Complaint {
                line: 0,
                column: None,
                key: String::new(),
                value: None,
                what: format!("cannot be read: {error}"),
            }],
        };
        let absolute = std::path::absolute(path).map_err(unreadable)?;
        let text = std::fs::read_to_string(path).map_err(unreadable)?;
        Config::parse(&text, &absolute)
    }

    /// Checks the text of a file; `path`, absolute, is only for messages and [`Config::path`].
    pub fn parse(text: &str, path: &Path) -> Result<Config, Complaints> {
        read::config(text, path)
    }

    /// The effective configuration as TOML, defaults filled in. Parses back to an equal value.
    pub fn show(&self) -> String {
        show::config(self)
    }

    /// The live path of every dataset, with its role and name.
    pub fn live_paths(&self) -> impl Iterator<Item = (&RoleName, &DatasetName, &Path)> {
        self.roles.values().flat_map(|role| {
            role.datasets
                .iter()
                .map(|(name, dataset)| (&role.name, name, dataset.path()))
        })
    }
}

/// This node.
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
    /// Bytes a second that are read at most for a peer that compares copies. Default 32 MiB.
    pub verify_rate: u64,
    /// Words for templates of seeded files. Default: none.
    pub vars: BTreeMap<String, String>,
    /// What is compared with other nodes. Default: nothing.
    pub watches: Vec<Watch>,
}

/// Another node that this one is, or will be, paired with.
#[derive(Debug, Clone, PartialEq)]
pub struct Peer {
    pub name: NodeName,
    /// host:port to dial; none where the peer dials.
    pub address: Option<String>,
    /// A command whose stdin and stdout carry the link instead of TCP, e.g. `ssh birch standin link --stdio`; argv.
    pub via: Option<Vec<String>>,
    /// Pinned public key fingerprint, as `pair` prints it; none: not paired yet, every connection is refused.
    pub key: Option<String>,
    /// The most this node sends to the peer, by time of the local clock. Default: no limit.
    pub bandwidth: Bandwidth,
    pub grants: Vec<Grant>,
    /// What of its files this node takes over. Default: everything.
    pub accept: Accept,
}

/// What fails over together.
#[derive(Debug, Clone, PartialEq)]
pub struct Role {
    pub name: RoleName,
    /// Of the kind `logs`: what the node `home` writes for itself. None: of the usual kind, one node plays it.
    pub logs: Option<Logs>,
    /// The node on which the role lives when all is well: active there at first.
    pub home: NodeName,
    pub peers: Vec<NodeName>,
    /// What peers may do in this role, where that differs from their own `grants`.
    pub grants: RoleGrants,
    pub every: Every,
    /// What this node keeps while it is active in the role.
    pub keep: Keep,
    /// What this node keeps while it stands in. Default: the same as `keep`.
    pub keep_standby: Keep,
    /// Take a point even when nothing changed. Default false.
    pub snapshot_unchanged: bool,
    /// When copies are compared by themselves.
    pub verify_every: Option<Every>,
    /// Free space that receiving for this role never uses, in bytes. Default: the node's.
    pub reserve: u64,
    /// When the base of an absent peer is let go. Default: never.
    pub absent: absent::Limits,
    /// What moves with the role besides data. Default: nothing.
    pub play: Play,
    /// How it is rehearsed. Default: by hand, reading every file.
    pub drill: Drill,
    /// How its databases are made consistent in a point, in this order. Default: nothing.
    pub dumps: Vec<Dump>,
    /// Files made here from templates of the role. Default: none.
    pub seeds: Vec<Seed>,
    /// Live paths, absolute.
    pub datasets: BTreeMap<DatasetName, Dataset>,
    /// Where datasets are shown read-only, absolute (`standby-view`). Default: nowhere.
    pub views: BTreeMap<DatasetName, PathBuf>,
}

/// The live data, by kind of filesystem.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Dataset {
    /// Path of a subvolume, absolute.
    Btrfs(PathBuf),
    Zfs {
        /// A filesystem in a pool: `tank/www`.
        name: String,
        /// Where it is mounted while it is live, absolute.
        path: PathBuf,
        /// A file that holds its key, absolute. Default: as the dataset itself says.
        key: Option<PathBuf>,
    },
}

impl Dataset {
    /// Where the live data are.
    pub fn path(&self) -> &Path {
        match self {
            Dataset::Btrfs(path) | Dataset::Zfs { path, .. } => path,
        }
    }

    pub fn kind(&self) -> Kind {
        match self {
            Dataset::Btrfs(_) => Kind::Btrfs,
            Dataset::Zfs { .. } => Kind::Zfs,
        }
    }
}
