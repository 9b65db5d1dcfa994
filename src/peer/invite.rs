//! The invitation: one line that a person carries from the inviting node to the accepting one.
//!
//! Promise: a line that was damaged on its way is said to be damaged, never taken for a wrong secret. The secret is printed
//! by [`Invite::to_line`] and by serde (for the database), nowhere else.
//!
//! It deliberately does not know what is proved with the secret (see `pair`), nor where invitations are kept.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;
use ring::rand::{SecureRandom, SystemRandom};
use serde::{Deserialize, Serialize};
use zeroize::Zeroize;

use super::identity::Fingerprint;
use super::pair::StoredInvite;
use crate::logic::name::NodeName;
use crate::logic::prefix::{hex, unhex};

const PREFIX: &str = "standin-pair:";
const VERSION: &str = "v1";

/// Longest line read, in bytes; ours have about 400.
const LINE_BYTES_MAX: usize = 4096;

/// Characters of the checksum in front of a line's body.
const CHECKSUM_CHARS: usize = 8;

/// 128 bits that only the two nodes know. Never printed but by [`Invite::to_line`] and by serde (hex), for the database.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Secret([u8; 16]);

impl Secret {
    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }

    fn draw() -> Result<Secret, BadInvite> {
        let mut bytes = [0; 16];
        SystemRandom::new()
            .fill(&mut bytes)
            .map_err(|_| BadInvite::NoRandomness)?;
        Ok(Secret(bytes))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

impl Drop for Secret {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl From<Secret> for String {
    fn from(secret: Secret) -> String {
        hex(&secret.0)
    }
}

impl TryFrom<String> for Secret {
    type Error = &'static str;

    fn try_from(word: String) -> Result<Secret, &'static str> {
        unhex(&word)
            .and_then(|bytes| bytes.try_into().ok())
            .map(Secret)
            .ok_or("not a secret")
    }
}

/// What the line carries.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Invite {
    /// The inviting node.
    pub node: NodeName,
    /// Where it listens: host:port.
    pub address: String,
    /// Its key.
    pub fingerprint: Fingerprint,
    /// Names the invitation; no secret.
    pub id: String,
    pub secret: Secret,
    pub expires: Timestamp,
}

/// Why a line is no invitation.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadInvite {
    #[error("this is not an invitation: it should begin with {PREFIX:?}")]
    NotOne,
    #[error(
        "this invitation is of version {0:?}; this node understands {VERSION:?}: upgrade the older node"
    )]
    Version(String),
    #[error("the invitation is damaged (cut off or changed): copy the whole line again")]
    Damaged,
    #[error("the system gives no random numbers")]
    NoRandomness,
}

impl Invite {
    /// A fresh invitation with a secret of its own.
    pub fn new(
        node: NodeName,
        address: String,
        fingerprint: Fingerprint,
        expires: Timestamp,
    ) -> Result<Invite, BadInvite> {
        let mut id = [0; 8];
        SystemRandom::new()
            .fill(&mut id)
            .map_err(|_| BadInvite::NoRandomness)?;
        Ok(Invite {
            node,
            address,
            fingerprint,
            id: hex(&id),
            secret: Secret::draw()?,
            expires,
        })
    }

    /// One line of letters, digits, `-`, `_` and `:`, for a person to carry.
    pub fn to_line(&self) -> String {
        // Names, hex and times always have a JSON form.
        let json = serde_json::to_vec(self).unwrap_or_default();
        format!(
            "{PREFIX}{VERSION}:{}{}",
            checksum(&json),
            URL_SAFE_NO_PAD.encode(&json)
        )
    }

    /// The inverse of [`Invite::to_line`]. Spaces and line breaks from copying, and quotes around it, do no harm.
    pub fn parse(line: &str) -> Result<Invite, BadInvite> {
        if line.len() > LINE_BYTES_MAX {
            return Err(BadInvite::Damaged);
        }
        let line: String = line
            .chars()
            .filter(|c| !c.is_whitespace() && !matches!(c, '"' | '\'' | '`'))
            .collect();
        let rest = line.strip_prefix(PREFIX).ok_or(BadInvite::NotOne)?;
        let (version, body) = rest.split_once(':').ok_or(BadInvite::Damaged)?;
        if version != VERSION {
            return Err(BadInvite::Version(version.chars().take(20).collect()));
        }
        let (sum, body) = body
            .split_at_checked(CHECKSUM_CHARS)
            .ok_or(BadInvite::Damaged)?;
        let json = URL_SAFE_NO_PAD
            .decode(body)
            .map_err(|_| BadInvite::Damaged)?;
        if checksum(&json) != sum {
            return Err(BadInvite::Damaged);
        }
        serde_json::from_slice(&json).map_err(|_| BadInvite::Damaged)
    }

    /// What the inviting node keeps of it.
    pub fn stored(&self) -> StoredInvite {
        StoredInvite {
            id: self.id.clone(),
            secret: self.secret.clone(),
            expires: self.expires,
            made: None,
            attempts: 0,
            used_by: None,
            replaces: None,
        }
    }
}

/// Against damage, not against malice: the secret is against malice.
fn checksum(bytes: &[u8]) -> String {
    let digest = ring::digest::digest(&ring::digest::SHA256, bytes);
    URL_SAFE_NO_PAD.encode(&digest.as_ref()[..CHECKSUM_CHARS * 3 / 4])
}

#[cfg(test)]
mod tests {
    use super::super::identity::Identity;
    use super::*;

    fn fingerprint() -> Fingerprint {
        Identity::ephemeral().unwrap().fingerprint()
    }

    fn invite(key: Fingerprint) -> Invite {
        let node = NodeName::parse("alder").unwrap();
        let expires = Timestamp::from_second(1000).unwrap();
        Invite::new(node, "alder.example.org:7170".into(), key, expires).unwrap()
    }

    #[test]
    fn a_line_survives_copying() {
        let invite = invite(fingerprint());
        let line = invite.to_line();
        assert!(
            line.chars()
                .all(|c| c.is_ascii_alphanumeric() || "-_:".contains(c)),
            "{line}"
        );
        assert_eq!(Invite::parse(&line).unwrap(), invite);
        let (left, right) = line.split_at(100);
        assert_eq!(
            Invite::parse(&format!("  \"{left}\n  {right}\"\r\n")).unwrap(),
            invite
        );
    }

    #[test]
    fn every_damage_is_called_damage() {
        let line = invite(fingerprint()).to_line();
        let body = PREFIX.len() + VERSION.len() + 1;
        for place in body..line.len() {
            let mut damaged = line.clone().into_bytes();
            damaged[place] = if damaged[place] == b'A' { b'B' } else { b'A' };
            let damaged = String::from_utf8(damaged).unwrap();
            assert_eq!(
                Invite::parse(&damaged),
                Err(BadInvite::Damaged),
                "{damaged}"
            );
        }
        for cut in [body, body + 5, line.len() - 1] {
            assert_eq!(Invite::parse(&line[..cut]), Err(BadInvite::Damaged));
        }
        assert_eq!(Invite::parse("hello"), Err(BadInvite::NotOne));
        assert_eq!(
            Invite::parse("standin-pair:v7:x"),
            Err(BadInvite::Version("v7".into()))
        );
        assert_eq!(Invite::parse(&"x".repeat(5000)), Err(BadInvite::Damaged));
    }

    #[test]
    fn secrets_differ_and_are_not_printed() {
        let key = fingerprint();
        let (one, two) = (invite(key), invite(key));
        assert_ne!(one.secret, two.secret);
        assert_ne!(one.id, two.id);
        let secret = String::from(one.secret.clone());
        assert!(!format!("{one:?} {:?}", one.stored()).contains(&secret));
    }
}
