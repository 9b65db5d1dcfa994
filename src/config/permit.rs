//! What a peer may do here: its grants, and what of its files is taken over.
//!
//! Promise: nothing that could take data away or show it is granted unless the file says so (P7).

use std::collections::BTreeMap;

use super::Peer;
use super::document::{Found, Section};
use crate::logic::accept::{Accept, Treatment};
use crate::logic::name::NodeName;

/// What a peer may do here, for the roles whose `peers` name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Grant {
    /// Send points to this node, to be stored under our own retention.
    Send,
    /// Receive the points this node takes.
    Receive,
    /// Read points that this node holds, whoever took them: more than it received.
    Read,
    /// Ask this node to remove points; never below what our own retention and pins keep.
    Prune,
}

impl Grant {
    pub const ALL: [Grant; 4] = [Grant::Send, Grant::Receive, Grant::Read, Grant::Prune];

    /// Where the file does not say.
    pub const DEFAULT: [Grant; 2] = [Grant::Send, Grant::Receive];

    /// The word in the file.
    pub fn word(self) -> &'static str {
        match self {
            Grant::Send => "send",
            Grant::Receive => "receive",
            Grant::Read => "read",
            Grant::Prune => "prune",
        }
    }
}

/// Of one role, what peers may do there instead of what their own sections say.
pub type RoleGrants = BTreeMap<NodeName, Vec<Grant>>;

/// The grants in force, and the key of the file that gives them.
pub fn in_force<'a>(peer: &'a Peer, role: &str, grants: &'a RoleGrants) -> (&'a [Grant], String) {
    match grants.get(&peer.name) {
        Some(grants) => (grants, format!("`grants.{}` of [role.{role}]", peer.name)),
        None => (&peer.grants, format!("`grants` of [peer.{}]", peer.name)),
    }
}

pub(super) fn grants(found: &Found) -> Option<Vec<Grant>> {
    let mut grants = Vec::new();
    for word in found.texts()? {
        let grant = word.parsed(|text| {
            Grant::ALL
                .into_iter()
                .find(|grant| grant.word() == text)
                .ok_or("not a grant: use \"send\", \"receive\", \"read\" and \"prune\"")
        });
        let Some(grant) = grant else { continue };
        if grants.contains(&grant) {
            word.refuse("listed twice");
        }
        grants.push(grant);
    }
    Some(grants)
}

/// `peers` are those of the role; none where they are wrong themselves.
pub(super) fn role_grants(found: Found, peers: Option<&[NodeName]>) -> Option<RoleGrants> {
    let mut all = RoleGrants::new();
    let mut whole = true;
    for found in found.section()?.entries() {
        let name = match NodeName::parse(found.name) {
            Ok(name) => name,
            Err(error) => {
                found.refuse_key(error.to_string());
                whole = false;
                continue;
            }
        };
        if peers.is_some_and(|peers| !peers.contains(&name)) {
            found.refuse_key(format!(
                "not among the role's peers: add \"{name}\" to `peers`"
            ));
        }
        match grants(&found) {
            Some(grants) => {
                all.insert(name, grants);
            }
            None => whole = false,
        }
    }
    whole.then_some(all)
}

pub(super) fn accept(found: Found) -> Option<Accept> {
    let mut section = found.section()?;
    let mut one = |name| match section.get(name) {
        None => Some(Treatment::Keep),
        Some(found) => treatment(&found),
    };
    let (devices, setuid) = (one("devices"), one("setuid"));
    let (security, trusted) = (one("security"), one("trusted"));
    Section::finish(section);
    Some(Accept {
        devices: devices?,
        setuid: setuid?,
        security: security?,
        trusted: trusted?,
    })
}

fn treatment(found: &Found) -> Option<Treatment> {
    found.parsed(|text| {
        let known = Treatment::ALL
            .into_iter()
            .find(|known| known.word() == text);
        known.ok_or("not a way to treat it: use \"keep\", \"drop\" or \"refuse\"")
    })
}
