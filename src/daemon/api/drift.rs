//! Drift, as the command line and the daemon speak of it. `--json` prints these as they stand.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::error::Code;
use crate::logic::drift::Compared;
use crate::logic::name::NodeName;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DriftRequest {
    /// Peers and watches to compare, by their names; empty: all.
    pub names: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DriftReport {
    /// The node that asked: the `here` of the states.
    pub node: NodeName,
    pub peers: Vec<PeerDrift>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PeerDrift {
    pub peer: NodeName,
    /// Why nothing could be compared.
    pub error: Option<String>,
    pub hint: Option<String>,
    pub code: Option<Code>,
    /// In the order of the configuration.
    pub compared: Vec<Compared>,
}

/// The last comparison with a peer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DriftView {
    /// When it was made.
    pub compared: Timestamp,
    pub same: u64,
    pub differences: u64,
    /// What could not be compared.
    pub unknown: u64,
}
