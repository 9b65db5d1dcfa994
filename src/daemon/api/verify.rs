//! What `standin verify` asks, and is answered.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::PointSummary;
use crate::error::Code;
use crate::logic::name::{DatasetName, NodeName, RoleName};
use crate::logic::verify::Difference;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VerifyRequest {
    pub role: RoleName,
    /// As in [`super::RestoreRequest`]; `latest` is the newest point that both nodes hold.
    pub point: String,
    /// Only with this peer; none: with all of the role.
    pub peer: Option<NodeName>,
    pub dataset: Option<DatasetName>,
    /// Read also what was read before.
    pub full: bool,
    /// Bytes a second that this node reads at most; none: as fast as it can.
    pub rate: Option<u64>,
}

/// Has this node's copy of a point set aside, and fetched again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MendRequest {
    pub role: RoleName,
    pub point: String,
    /// Whose copy it differs from.
    pub peer: NodeName,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct VerifyReport {
    pub node: NodeName,
    pub role: RoleName,
    pub peers: Vec<PeerVerify>,
}

/// This node's copy against one peer's.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PeerVerify {
    pub peer: NodeName,
    /// None where there was none to compare.
    pub point: Option<PointSummary>,
    /// The node that took the point.
    pub taken_by: Option<NodeName>,
    /// None where it could not be compared.
    pub equal: Option<bool>,
    pub datasets: BTreeMap<DatasetName, DatasetVerify>,
    /// What is known of why they differ: sentences.
    pub causes: Vec<String>,
    /// What to do about it, in words.
    pub advice: Vec<String>,
    pub code: Code,
    /// Why it could not be compared.
    pub error: Option<String>,
    pub seconds: f64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DatasetVerify {
    pub equal: bool,
    pub files: u64,
    /// Of all files.
    pub bytes: u64,
    /// Bytes that this node read for it; the others were read before, and have not changed.
    pub read_bytes: u64,
    pub differences: Vec<PathDifference>,
    /// There are more than these.
    pub more: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PathDifference {
    /// In the dataset, lossy; empty for its top directory.
    pub path: String,
    pub what: Difference,
}

/// The last comparison with a peer that came to its end.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct VerifiedView {
    pub peer: NodeName,
    pub ended: Timestamp,
    pub point: PointSummary,
    pub equal: bool,
    /// Every file was read.
    pub full: bool,
    pub differences: u64,
}
