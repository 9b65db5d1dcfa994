//! What is asked and answered about trees in which people browse points.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::Step;
use crate::logic::name::RoleName;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "step", rename_all = "kebab-case")]
pub enum BrowseRequest {
    /// Which trees there are.
    List,
    /// Paths are absolute.
    Mount {
        dir: PathBuf,
        role: Option<RoleName>,
        /// Who besides root may enter: `USER`, `:GROUP` or `USER:GROUP`.
        allow: Option<String>,
    },
    Unmount {
        dir: PathBuf,
    },
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BrowseReport {
    /// All that are mounted now.
    pub mounts: Vec<MountView>,
    /// What was done; empty for a list.
    pub steps: Vec<Step>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MountView {
    pub dir: PathBuf,
    /// None: all roles.
    pub role: Option<RoleName>,
}
