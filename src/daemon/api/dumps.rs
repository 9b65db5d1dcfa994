//! What a point says of its databases.

use serde::{Deserialize, Serialize};

use crate::host::command::harmless;
use crate::logic::dump::{DumpFacts, DumpResult};
use crate::logic::name::RoleName;

/// One dump of a point. Texts may come from a peer, and are harmless to a terminal.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DumpView {
    pub name: RoleName,
    /// `postgres`, `mysql`, `redis`, `sqlite`, `command`.
    pub kind: String,
    /// `freeze`, `backup`, `dump`, `save`; empty where the kind has only one way.
    pub mode: String,
    /// `good`, `failed`, `stopped` (its services had been stopped, in order).
    pub result: String,
    /// Why it failed.
    pub why: Option<String>,
    /// All steps together, in milliseconds.
    pub took_ms: u64,
    /// How long writers were held, in milliseconds; none where nobody was.
    pub held_ms: Option<u64>,
    pub server: Option<String>,
    /// LSN, GTID, or file and offset, as the server calls it.
    pub position: Option<String>,
    pub bytes: Option<u64>,
}

impl DumpView {
    pub fn of(facts: &DumpFacts) -> DumpView {
        let tame = |text: &str| harmless(text.replace('\n', " ").as_bytes());
        let (result, why) = match &facts.result {
            DumpResult::Good => ("good", None),
            DumpResult::Failed { why } => ("failed", Some(tame(why))),
            DumpResult::Stopped => ("stopped", None),
        };
        DumpView {
            name: facts.name.clone(),
            kind: tame(&facts.kind),
            mode: tame(&facts.mode),
            result: result.to_owned(),
            why,
            took_ms: facts.took_ms,
            held_ms: facts.held_ms,
            server: facts.found.server.as_deref().map(tame),
            position: facts.found.position.as_deref().map(tame),
            bytes: facts.found.bytes,
        }
    }
}
