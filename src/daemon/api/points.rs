//! Points of roles, as they are listed.

use std::collections::BTreeMap;
use std::path::PathBuf;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::DumpView;
use crate::logic::name::{DatasetName, NodeName, RoleName};
use crate::logic::point::PointName;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Points {
    pub roles: Vec<RolePoints>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RolePoints {
    pub role: RoleName,
    /// This node in the role; none: nobody has named the role to it yet.
    #[serde(default)]
    pub state: Option<String>,
    /// The node that is active, as far as this node knows.
    #[serde(default)]
    pub active: Option<NodeName>,
    /// Oldest first.
    pub points: Vec<PointView>,
    /// Points that lie here and are not used: `standin rescan` fetches them again from a peer.
    #[serde(default)]
    pub damaged: Vec<DamagedView>,
    /// Damaged points that were set aside: nobody but a person removes them.
    #[serde(default)]
    pub aside: Vec<AsideView>,
    /// How many forks lie beside these points: `standin fork list` shows them.
    #[serde(default)]
    pub forks: usize,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DamagedView {
    pub name: PointName,
    pub short: String,
    /// The whole sentence: "birch's copy of 1.42 was changed after it was stored (files); it is not used".
    pub text: String,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AsideView {
    pub name: PointName,
    pub short: String,
    /// Reads after "1.42".
    pub why: String,
    /// When it was set aside.
    pub at: Timestamp,
    pub path: PathBuf,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PointView {
    pub name: PointName,
    pub short: String,
    pub taken: Timestamp,
    /// The node that took it.
    pub node: NodeName,
    /// `schedule`, `asked`, `before-restore`.
    pub reason: String,
    /// The node it was received from; none where it was taken here.
    pub from: Option<NodeName>,
    /// Where each is found here: a path, or on ZFS the name of its snapshot (`tank/www@standin_...`).
    pub datasets: BTreeMap<DatasetName, PathBuf>,
    /// File data received for it, in bytes, over all datasets; none where it was taken here.
    pub data_bytes: Option<u64>,
    /// Peers that are known to hold it.
    pub on_peers: Vec<NodeName>,
    /// Why pruning must not touch it now: `base of birch`, `newest` ...
    pub pinned: Vec<String>,
    pub not_replicated: BTreeMap<DatasetName, Vec<String>>,
    /// What this node's policy (`accept`) left out when it received the point.
    #[serde(default)]
    pub dropped: BTreeMap<DatasetName, Vec<String>>,
    /// What of the sender's files is not as it was there.
    #[serde(default)]
    pub not_carried: BTreeMap<DatasetName, Vec<String>>,
    /// How its databases were made consistent; empty where the role has none, or nobody asked.
    #[serde(default)]
    pub dumps: Vec<DumpView>,
}
