//! What `standin rebuild` asks, and is answered.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::Step;
use crate::error::Code;
use crate::logic::name::{NodeName, RoleName};

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RebuildRequest {
    /// The peer that tells of the roles and sends their points.
    pub from: NodeName,
    /// Only these; empty: all that it shares with this node.
    pub roles: Vec<RoleName>,
    /// Live paths here, by `ROLE/DATASET`, where they are not to be the peer's.
    #[serde(default)]
    pub paths: BTreeMap<String, PathBuf>,
    pub dry_run: bool,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RebuildReport {
    pub dry_run: bool,
    pub from: NodeName,
    /// The file that gets, or got, new sections.
    pub config: PathBuf,
    /// The sections that are missing in it, as they are written; empty where none is.
    pub sections: String,
    /// What stands in the way of writing them, a sentence each; nothing is done then.
    pub problems: Vec<String>,
    pub roles: Vec<RoleRebuild>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RoleRebuild {
    pub role: RoleName,
    pub steps: Vec<Step>,
    /// Points held here when it ended, or now in a dry run.
    pub points: usize,
    /// Points that are still to be fetched.
    pub missing: usize,
    pub code: Code,
    /// What to do next, for people.
    pub next: Option<String>,
}
