//! What a point says of itself: the manifest, written by the node that took it and carried unchanged to every peer, and
//! the local facts each node keeps beside it.
//!
//! Promise: a reader of an older or newer version finds what it knows and ignores the rest (`version` rises only when an
//! old reader would be wrong). The catalogue of points is rebuilt from these files alone.
//!
//! It deliberately does not know where the files lie.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::accept::Dropped;
use super::dump::DumpFacts;
use super::name::{DatasetName, NodeName, RoleName};
use super::point::{PointId, PointName, RoleId};

/// Version of the manifest's meaning.
pub const MANIFEST_VERSION: u32 = 1;

/// Largest manifest a node accepts, in bytes of JSON.
pub const MANIFEST_BYTES_MAX: usize = 1 << 20;

/// Why a point was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reason {
    /// The role's schedule was due.
    Schedule,
    /// Somebody ran `standin run`.
    Asked,
    /// The live state kept before a restore replaced it.
    BeforeRestore,
    /// What lay at a live path before a promotion put another copy there. Part of a fork, never sent.
    BeforePromotion,
    /// What was live when the node lost the role. Part of a fork, never sent.
    Fenced,
}

/// One recovery point, as the node that took it describes it. The same bytes of meaning on every node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    pub version: u32,
    pub role: RoleId,
    pub role_name: RoleName,
    pub point: PointId,
    pub taken: Timestamp,
    /// The node that took it.
    pub node: NodeName,
    pub reason: Reason,
    pub datasets: BTreeMap<DatasetName, DatasetFacts>,
    /// How its databases were made consistent; empty where the role has none, or nobody asked.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dumps: Vec<DumpFacts>,
}

impl Manifest {
    pub fn name(&self) -> PointName {
        PointName::of(&self.point, self.taken)
    }
}

/// One dataset of a point.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DatasetFacts {
    /// The identity that streams of this snapshot carry: btrfs, the received uuid if there is one, else the uuid.
    pub identity: Uuid,
    /// What the snapshot does not hold (nested subvolumes, swap files ...), one sentence each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub not_replicated: Vec<String>,
    /// Paths in it at which the live dataset had a nested subvolume: the snapshot that was taken has an empty directory at
    /// each, copies of it on other nodes have nothing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub nested: Vec<String>,
}

/// What one node alone knows of a point it holds; beside the manifest, never sent.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LocalFacts {
    /// When the point was complete here.
    pub stored: Option<Timestamp>,
    /// The node that sent it; none where it was taken here.
    pub from: Option<NodeName>,
    #[serde(default)]
    pub datasets: BTreeMap<DatasetName, LocalDataset>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LocalDataset {
    /// The snapshot's own uuid on this node.
    pub uuid: Uuid,
    /// The snapshot's ctransid after the final sync: any later rise means that somebody changed it.
    pub ctransid: u64,
    /// Length of the stream it was received from, in bytes; none where it was taken here.
    pub stream_bytes: Option<u64>,
    /// File data in that stream, in bytes.
    pub data_bytes: Option<u64>,
    /// Prefix hash of the whole stream, hex (see `logic::prefix`).
    pub stream_hash: Option<String>,
    /// What this node's policy towards the sender left out of that stream.
    #[serde(default, skip_serializing_if = "Dropped::is_nothing")]
    pub dropped: Dropped,
    /// What of the sender's files is not as it was there, one sentence each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub not_carried: Vec<String>,
}

/// A point as one node holds it: complete, every dataset present.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stored {
    pub manifest: Manifest,
    pub local: LocalFacts,
}
