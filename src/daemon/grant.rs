//! The one place where it is decided what a peer may do here.
//!
//! Promise (P7): what no grant names is refused, with a refusal that names the grant that is missing and the key of our
//! config that would give it. Grants are read anew each time, so a reload is in force at once.

use super::node::{Node, lock};
use crate::config::{Grant, Peer, RoleGrants, in_force};
use crate::error::{Code, Failure};
use crate::logic::name::{NodeName, RoleName};

/// A peer wanted what it is not granted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{node} does not grant {peer} to {}", grant.word())]
pub struct NotGranted {
    pub node: NodeName,
    pub peer: NodeName,
    pub grant: Grant,
    /// The key of the config, in words: "`grants` of [peer.birch]".
    pub key: String,
}

impl From<NotGranted> for Failure {
    fn from(missing: NotGranted) -> Failure {
        let hint = format!(
            "add \"{}\" to {} in the config of {}, then `standin reload` there",
            missing.grant.word(),
            missing.key,
            missing.node
        );
        Failure::new(Code::Refused, missing.to_string()).hint(hint)
    }
}

/// Whether the peer may do this in the role.
pub fn expect(
    node: &Node,
    peer: &NodeName,
    role: &RoleName,
    grant: Grant,
) -> Result<(), NotGranted> {
    let config = node.config();
    let ours = &config.node.name;
    let none = RoleGrants::new();
    let overrides = config.roles.get(role).map_or(&none, |role| &role.grants);
    let Some(run) = node.peer(peer) else {
        return Err(NotGranted {
            node: ours.clone(),
            peer: peer.clone(),
            grant,
            key: format!("`grants` of [peer.{peer}]"),
        });
    };
    let peer = Peer {
        grants: lock(&run.grants).clone(),
        ..run.peer.clone()
    };
    judge(ours, &peer, role, overrides, grant)
}

fn judge(
    ours: &NodeName,
    peer: &Peer,
    role: &RoleName,
    overrides: &RoleGrants,
    grant: Grant,
) -> Result<(), NotGranted> {
    let (grants, key) = in_force(peer, role.as_str(), overrides);
    if grants.contains(&grant) {
        return Ok(());
    }
    Err(NotGranted {
        node: ours.clone(),
        peer: peer.name.clone(),
        grant,
        key,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    /// What birch may do in role web, of all grants; `refusal` is that of the first it may not.
    fn check(peer: &str, role: &str, may: &[Grant], refusal: &str) {
        let text = format!(
            "[node]\nname = \"alder\"\n[peer.birch]\n{peer}\n[role.web]\nhome = \"alder\"\npeers = [\"birch\"]\n\
             every = \"5m\"\nkeep = {{ last = 1 }}\n{role}\n[role.web.dataset.files]\nbtrfs = \"/srv\"\n"
        );
        let config = Config::parse(&text, std::path::Path::new("/c")).unwrap();
        let role = config.roles.values().next().unwrap();
        let peer = config.peers.values().next().unwrap();
        let mut first = None;
        for grant in Grant::ALL {
            let judged = judge(&config.node.name, peer, &role.name, &role.grants, grant);
            assert_eq!(judged.is_ok(), may.contains(&grant), "{grant:?}: {text}");
            if let Err(missing) = judged {
                first.get_or_insert(Failure::from(missing));
            }
        }
        let told = first.map_or(String::new(), |first| {
            format!("{}: {}", first.what, first.hint.unwrap_or_default())
        });
        assert!(told.starts_with(refusal), "{told}");
    }

    #[test]
    fn nothing_is_granted_that_is_not_named() {
        use Grant::{Prune, Read, Receive, Send};
        check(
            "",
            "",
            &[Send, Receive],
            "alder does not grant birch to read: add \"read\" to `grants` of [peer.birch] in the config of alder",
        );
        check("grants = []", "", &[], "alder does not grant birch to send");
        check(
            "grants = [\"receive\", \"prune\"]",
            "",
            &[Receive, Prune],
            "alder does not grant birch to send",
        );
        check(
            "grants = []",
            "grants = { birch = [\"send\", \"receive\", \"read\"] }",
            &[Send, Receive, Read],
            "alder does not grant birch to prune: add \"prune\" to `grants.birch` of [role.web]",
        );
        check(
            "",
            "grants = { birch = \"prune\" }",
            &[Prune],
            "alder does not grant birch to send: add \"send\" to `grants.birch` of [role.web]",
        );
    }
}
