//! Proofs and judgement: how two nodes that never met pin each other's keys. Pure: no clock, no socket, no database.
//!
//!     inviting node: Invite::new -> one line -> carried by a person -> accepting node: Invite::parse
//!     accepting node: dials, checks that the key there is the line's, shows a proof -> judge -> proof back
//!
//! Promise: neither side pins a key unless the other has proved that it holds the secret, bound to both keys and both
//! names; so a line overheard too late (used, expired) is worth nothing, and somebody in between can relay but not take
//! part. Who lacks the secret learns only "not valid here".
//!
//! It deliberately does not know where invitations are kept, nor which names are taken: the caller does.

use jiff::{SignedDuration, Timestamp};
use ring::hmac;
use serde::{Deserialize, Serialize};

use super::identity::Fingerprint;
use super::invite::Secret;
use super::message::{PairRequest, Refusal};
use crate::error::Code;
use crate::logic::name::NodeName;
use crate::logic::prefix::{hex, unhex};

/// Attempts with a wrong proof before an invitation is dead.
pub const ATTEMPTS_MAX: u32 = 5;

/// Both nodes of a pairing, as each proof binds them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Parties<'a> {
    pub inviter: &'a NodeName,
    pub inviter_key: Fingerprint,
    pub accepter: &'a NodeName,
    pub accepter_key: Fingerprint,
}

/// Whose proof it is: a proof of one direction is none in the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Prover {
    Inviter,
    Accepter,
}

/// HMAC-SHA256 under the secret, hex.
pub fn proof(secret: &Secret, prover: Prover, parties: &Parties<'_>) -> String {
    let tag = hmac::sign(&key(secret), &claim(prover, parties));
    hex(tag.as_ref())
}

/// In constant time.
pub fn proves(word: &str, secret: &Secret, prover: Prover, parties: &Parties<'_>) -> bool {
    unhex(word).is_some_and(|tag| hmac::verify(&key(secret), &claim(prover, parties), &tag).is_ok())
}

fn key(secret: &Secret) -> hmac::Key {
    hmac::Key::new(hmac::HMAC_SHA256, secret.bytes())
}

/// Every part with its length in front, so that no two claims share bytes.
fn claim(prover: Prover, parties: &Parties<'_>) -> Vec<u8> {
    let label = match prover {
        Prover::Inviter => "standin pair v1, inviting side",
        Prover::Accepter => "standin pair v1, accepting side",
    };
    let parts = [
        label,
        &parties.inviter_key.to_string(),
        &parties.accepter_key.to_string(),
        parties.inviter.as_str(),
        parties.accepter.as_str(),
    ];
    let mut claim = Vec::new();
    for part in parts {
        claim.extend_from_slice(&(part.len() as u32).to_be_bytes());
        claim.extend_from_slice(part.as_bytes());
    }
    claim
}

/// A time service may set the clock back so far without killing fresh invitations.
const CLOCK_SLACK: SignedDuration = SignedDuration::from_secs(60);

/// An invitation as the inviting node keeps it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredInvite {
    pub id: String,
    pub secret: Secret,
    pub expires: Timestamp,
    /// None in those of an older program.
    #[serde(default)]
    pub made: Option<Timestamp>,
    /// Wrong proofs so far.
    pub attempts: u32,
    /// The key that was paired with it.
    pub used_by: Option<Fingerprint>,
    /// The node whose pinned key may give way to that of who comes with this invitation: it was set up anew.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replaces: Option<NodeName>,
}

/// Exactly what was wrong, for our own log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    #[error("no such invitation")]
    Unknown,
    #[error("the proof is wrong: another secret, name or key")]
    WrongProof,
    #[error("too many wrong proofs: the invitation is dead")]
    Exhausted,
    #[error("the invitation has expired")]
    Expired,
    #[error("the invitation was used by another key")]
    Used,
    #[error("the other node has our own name")]
    SameName,
    #[error("the other node shows our own key")]
    SameKey,
}

/// What to answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Pin the key, mark the invitation used by it, then answer with this proof.
    Accept { proof: String },
    Refuse {
        /// For the other side: no more than it may know.
        refusal: Refusal,
        fault: Fault,
        /// Add one to the invitation's attempts.
        count: bool,
    },
}

/// Judges a request against the invitation it names. The same key may ask again with the same invitation, so that an answer
/// lost on the way can be repeated.
pub fn judge(
    invite: Option<&StoredInvite>,
    request: &PairRequest,
    ours: &NodeName,
    our_key: Fingerprint,
    their_key: Fingerprint,
    now: Timestamp,
) -> Verdict {
    let parties = Parties {
        inviter: ours,
        inviter_key: our_key,
        accepter: &request.node,
        accepter_key: their_key,
    };
    let Some(invite) = invite.filter(|invite| invite.id == request.invite) else {
        return refuse(Fault::Unknown);
    };
    if invite.attempts >= ATTEMPTS_MAX {
        return refuse(Fault::Exhausted);
    }
    if !proves(&request.proof, &invite.secret, Prover::Accepter, &parties) {
        return refuse(Fault::WrongProof);
    }
    if their_key == our_key {
        return refuse(Fault::SameKey);
    }
    if request.node == *ours {
        return refuse(Fault::SameName);
    }
    match invite.used_by {
        Some(key) if key != their_key => return refuse(Fault::Used),
        Some(_) => {}
        None if now > invite.expires || made_later(invite, now) => {
            return refuse(Fault::Expired);
        }
        None => {}
    }
    Verdict::Accept {
        proof: proof(&invite.secret, Prover::Inviter, &parties),
    }
}

/// A clock that was set back must not give an invitation a longer life.
fn made_later(invite: &StoredInvite, now: Timestamp) -> bool {
    invite
        .made
        .is_some_and(|made| made.duration_since(now) > CLOCK_SLACK)
}

/// Only who has proved the secret learns what else is wrong.
fn refuse(fault: Fault) -> Verdict {
    let refusal = match fault {
        Fault::Unknown | Fault::WrongProof | Fault::Exhausted => {
            Refusal::new(Code::Refused, "the invitation is not valid here")
                .hint("make a new one with `standin pair invite` on the inviting node")
        }
        Fault::Expired | Fault::Used => Refusal::new(Code::Refused, fault.to_string())
            .hint("make a new one with `standin pair invite` on the inviting node"),
        Fault::SameName => Refusal::new(Code::Refused, "both nodes have the same name")
            .hint("give one of them another name in its configuration"),
        Fault::SameKey => Refusal::new(Code::Refused, "both nodes have the same key").hint(
            "one is a copy of the other: remove the key file of the copy, so that it draws its own",
        ),
    };
    Verdict::Refuse {
        refusal,
        fault,
        count: fault == Fault::WrongProof,
    }
}

#[cfg(test)]
mod tests {
    use super::super::identity::Identity;
    use super::super::invite::Invite;
    use super::*;

    fn name(word: &str) -> NodeName {
        NodeName::parse(word).unwrap()
    }

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(seconds).unwrap()
    }

    fn fingerprint() -> Fingerprint {
        Identity::ephemeral().unwrap().fingerprint()
    }

    fn invite(key: Fingerprint) -> Invite {
        Invite::new(
            name("alder"),
            "alder.example.org:7170".into(),
            key,
            at(1000),
        )
        .unwrap()
    }

    /// Everything fits, unless a case changes it.
    struct Case {
        stored: StoredInvite,
        known: bool,
        request: PairRequest,
        ours: NodeName,
        our_key: Fingerprint,
        their_key: Fingerprint,
        now: i64,
    }

    fn case() -> Case {
        let (our_key, their_key) = (fingerprint(), fingerprint());
        let invite = invite(our_key);
        let mut case = Case {
            stored: invite.stored(),
            known: true,
            request: PairRequest {
                node: name("birch"),
                invite: invite.id.clone(),
                proof: String::new(),
                address: None,
            },
            ours: name("alder"),
            our_key,
            their_key,
            now: 999,
        };
        case.prove(Prover::Accepter);
        case
    }

    impl Case {
        fn parties(&self) -> Parties<'_> {
            Parties {
                inviter: &self.ours,
                inviter_key: self.our_key,
                accepter: &self.request.node,
                accepter_key: self.their_key,
            }
        }

        fn prove(&mut self, prover: Prover) {
            self.request.proof = proof(&self.stored.secret, prover, &self.parties());
        }

        fn verdict(&self) -> Verdict {
            let stored = self.known.then_some(&self.stored);
            judge(
                stored,
                &self.request,
                &self.ours,
                self.our_key,
                self.their_key,
                at(self.now),
            )
        }
    }

    fn check(change: impl FnOnce(&mut Case), expected: Option<Fault>) {
        let mut case = case();
        change(&mut case);
        match case.verdict() {
            Verdict::Accept { proof } => {
                assert_eq!(expected, None);
                assert!(proves(
                    &proof,
                    &case.stored.secret,
                    Prover::Inviter,
                    &case.parties()
                ));
            }
            Verdict::Refuse {
                refusal,
                fault,
                count,
            } => {
                assert_eq!(Some(fault), expected);
                assert_eq!(count, fault == Fault::WrongProof);
                let silent = matches!(fault, Fault::Unknown | Fault::WrongProof | Fault::Exhausted);
                assert_eq!(
                    refusal.why == "the invitation is not valid here",
                    silent,
                    "{}",
                    refusal.why
                );
            }
        }
    }

    #[test]
    fn every_verdict_has_its_own_reason() {
        check(|_| (), None);
        check(|case| case.known = false, Some(Fault::Unknown));
        check(
            |case| case.request.invite = "other".into(),
            Some(Fault::Unknown),
        );
        check(
            |case| {
                case.stored.secret = Invite::new(name("alder"), String::new(), fingerprint(), at(0))
                    .unwrap()
                    .secret
            },
            Some(Fault::WrongProof),
        );
        check(
            |case| case.their_key = fingerprint(),
            Some(Fault::WrongProof),
        );
        check(
            |case| case.request.node = name("cedar"),
            Some(Fault::WrongProof),
        );
        check(|case| case.prove(Prover::Inviter), Some(Fault::WrongProof));
        check(
            |case| case.request.proof = "not hex".into(),
            Some(Fault::WrongProof),
        );
        check(
            |case| case.stored.attempts = ATTEMPTS_MAX,
            Some(Fault::Exhausted),
        );
        check(|case| case.now = 1001, Some(Fault::Expired));
        check(
            |case| case.stored.used_by = Some(fingerprint()),
            Some(Fault::Used),
        );
    }

    #[test]
    fn a_clock_that_went_back_does_not_prolong_it() {
        let made = |second| Some(Timestamp::from_second(second).unwrap());
        check(|case| case.stored.made = made(900), None);
        check(|case| case.stored.made = made(999 + 60), None);
        check(
            |case| case.stored.made = made(999 + 61),
            Some(Fault::Expired),
        );
    }

    #[test]
    fn an_answer_that_was_lost_is_given_again_to_the_same_key() {
        check(|case| case.stored.used_by = Some(case.their_key), None);
        check(
            |case| {
                case.stored.used_by = Some(case.their_key);
                case.now = 5000;
            },
            None,
        );
    }

    #[test]
    fn a_copy_of_ourselves() {
        check(
            |case| {
                case.request.node = name("alder");
                case.prove(Prover::Accepter);
            },
            Some(Fault::SameName),
        );
        check(
            |case| {
                case.their_key = case.our_key;
                case.prove(Prover::Accepter);
            },
            Some(Fault::SameKey),
        );
    }

    #[test]
    fn what_is_kept_survives_the_database() {
        let stored = case().stored;
        let text = serde_json::to_string(&stored).unwrap();
        assert_eq!(serde_json::from_str::<StoredInvite>(&text).unwrap(), stored);
    }
}
