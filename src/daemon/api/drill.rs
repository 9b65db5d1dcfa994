//! Drills, as the command line and the daemon speak of them. `--json` prints these as they stand.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::PointSummary;
use crate::logic::name::RoleName;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DrillRequest {
    pub role: RoleName,
    /// As in [`super::RestoreRequest`].
    pub point: String,
    pub dry_run: bool,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DrillReport {
    pub dry_run: bool,
    pub role: RoleName,
    pub point: PointSummary,
    /// None after a dry run.
    pub passed: Option<bool>,
    /// What was done, or would be, in order.
    pub steps: Vec<DrillStep>,
    pub seconds: f64,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DrillStep {
    /// `copy`, `start`, `check`, `read`, `stop`, `discard`.
    pub what: String,
    pub text: String,
    /// None in a dry run.
    pub ok: Option<bool>,
    pub error: Option<String>,
    /// The end of what the command said.
    pub output: String,
    pub seconds: Option<f64>,
}

/// The last drill of a role on this node that came to its end.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DrillView {
    pub ended: Timestamp,
    pub point: PointSummary,
    pub passed: bool,
    pub seconds: f64,
    /// What failed first.
    pub failure: Option<String>,
}
