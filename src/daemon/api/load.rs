//! Dumps read back into servers.

use serde::{Deserialize, Serialize};

use crate::logic::dump::Dump;
use crate::logic::name::RoleName;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LoadRequest {
    pub role: RoleName,
    /// None: all.
    pub dump: Option<RoleName>,
    /// In the place of what the server holds.
    pub replace: bool,
    /// The role that waits for a load goes on without it.
    pub skip: bool,
    pub dry_run: bool,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LoadReport {
    pub dry_run: bool,
    pub role: RoleName,
    /// What became of `--skip`.
    pub skipped: Option<String>,
    pub dumps: Vec<DumpLoad>,
}

impl LoadReport {
    pub fn of(role: &RoleName, request: &LoadRequest) -> LoadReport {
        LoadReport {
            dry_run: request.dry_run,
            role: role.clone(),
            skipped: None,
            dumps: Vec::new(),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DumpLoad {
    pub name: RoleName,
    pub kind: String,
    /// `loaded`, `left` (the server holds data, and was left alone), `nothing`, `planned`, `failed`.
    pub result: String,
    pub text: String,
    pub hint: Option<String>,
}

impl DumpLoad {
    pub fn of(dump: &Dump, result: &str, text: &str) -> DumpLoad {
        DumpLoad {
            name: dump.name.clone(),
            kind: dump.how.kind().to_owned(),
            result: result.to_owned(),
            text: text.to_owned(),
            hint: None,
        }
    }
}
