//! What of a peer's files this node takes over as it is: things that give power to whoever can reach the copy.
//!
//! A policy of the config, per peer, and the count of what it left out of one dataset. It deliberately does not know how
//! a stream says these things; the applier does.

use serde::{Deserialize, Serialize};

/// What becomes of one kind of thing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Treatment {
    /// Taken over: the copy is equal.
    #[default]
    Keep,
    /// Left out, counted and shown; the transfer goes on.
    Drop,
    /// The whole transfer is refused.
    Refuse,
}

impl Treatment {
    pub const ALL: [Treatment; 3] = [Treatment::Keep, Treatment::Drop, Treatment::Refuse];

    /// The word in the config.
    pub fn word(self) -> &'static str {
        match self {
            Treatment::Keep => "keep",
            Treatment::Drop => "drop",
            Treatment::Refuse => "refuse",
        }
    }
}

/// The policy towards one peer. Everything is kept unless the config says otherwise: a replica is to be equal.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Accept {
    /// Character and block devices. Dropped: an empty regular file takes the place, so that later changes find it.
    pub devices: Treatment,
    /// The setuid and setgid bits of anything but directories, where setgid only says who owns new files.
    pub setuid: Treatment,
    /// Extended attributes `security.*`: file capabilities, labels of security modules.
    pub security: Treatment,
    /// Extended attributes `trusted.*`, which only root sees: those of overlay filesystems, for one.
    pub trusted: Treatment,
}

/// Ends every sentence of a policy that refuses.
const BY_POLICY: &str = "of its `accept` in the config)";

/// Why the policy refuses a thing; `key` is the one of the config that says so.
pub fn refused(what: &str, key: &str) -> String {
    format!("{what} is not accepted from this peer (`{key}` {BY_POLICY}")
}

/// Whether a policy refused, and no rule of streams was broken.
pub fn is_refused(why: &str) -> bool {
    why.ends_with(BY_POLICY)
}

impl Accept {
    /// Keys of the config and their values, in the order of the documentation.
    pub fn rules(&self) -> [(&'static str, Treatment); 4] {
        [
            ("devices", self.devices),
            ("setuid", self.setuid),
            ("security", self.security),
            ("trusted", self.trusted),
        ]
    }
}

/// How much was left out of one dataset of a point by the policy of the node that received it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Dropped {
    pub devices: u64,
    pub setuid: u64,
    pub security: u64,
    pub trusted: u64,
}

impl Dropped {
    pub fn is_nothing(&self) -> bool {
        *self == Dropped::default()
    }

    /// For people, one phrase for each kind: `2 devices`.
    pub fn phrases(&self) -> Vec<String> {
        let kinds = [
            (self.devices, "device nodes"),
            (self.setuid, "setuid or setgid bits"),
            (self.security, "attributes security.*"),
            (self.trusted, "attributes trusted.*"),
        ];
        let told = kinds.into_iter().filter(|(count, _)| *count > 0);
        told.map(|(count, what)| format!("{count} {what}"))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn phrases_name_only_what_there_is() {
        let check = |dropped: Dropped, phrases: &[&str]| assert_eq!(dropped.phrases(), phrases);
        check(Dropped::default(), &[]);
        let some = Dropped {
            devices: 2,
            trusted: 1,
            ..Dropped::default()
        };
        check(some, &["2 device nodes", "1 attributes trusted.*"]);
        assert!(!some.is_nothing() && Dropped::default().is_nothing());
    }
}
