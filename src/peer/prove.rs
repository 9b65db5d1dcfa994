//! The proof that two daemons show each other before a link counts as one.
//!
//! TLS proves the other side's key to the process that speaks TLS, and that is a worker who reads what strangers send. So
//! each daemon asks again through the finished link: a fresh nonce, answered with an Ed25519 signature over it, both keys,
//! both names, the side of the signer and the protocol version.
//!
//! Promise: `Ok` means that the holder of the pinned key signed for this link; nothing a worker says can replace that. A
//! daemon signs once for each link, and only such a text.
//!
//! What it cannot do: keep a worker that was taken over from changing what is said on its own link afterwards.

use anyhow::{Context, Result, bail};
use ring::signature::{ED25519, UnparsedPublicKey};

use super::dial::Expected;
use super::identity::{Fingerprint, Identity, PUBLIC_BYTES};
use super::link::{Incoming, Link, Side};
use super::message::{Answer, Request};
use crate::error::{Code, Failure};
use crate::logic::name::NodeName;
use crate::logic::prefix::{hex, unhex};

/// Random bytes of a nonce.
const NONCE_BYTES: usize = 32;

/// Both ends of a link, seen from who signs.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ends<'a> {
    pub signer: &'a NodeName,
    pub signer_key: Fingerprint,
    pub asker: &'a NodeName,
    pub asker_key: Fingerprint,
}

impl<'a> Ends<'a> {
    fn turned(self) -> Ends<'a> {
        Ends {
            signer: self.asker,
            signer_key: self.asker_key,
            asker: self.signer,
            asker_key: self.signer_key,
        }
    }
}

/// The same on a link that was dialled inside this process (`dial::dial`), where no worker is in between: the other side's
/// daemon asks for it all the same.
pub async fn dialled(
    identity: &Identity,
    ours: &NodeName,
    (link, incoming): (&Link, &mut Incoming),
    with: &Expected,
) -> Result<()> {
    let ends = Ends {
        signer: ours,
        signer_key: identity.fingerprint(),
        asker: &with.name,
        asker_key: with.fingerprint,
    };
    prove(identity, link, incoming, Side::Dialled, ends).await
}

/// Proves this node's key and has the other side prove its own. `ends` as this node signs; `side` is ours.
pub(super) async fn prove(
    identity: &Identity,
    link: &Link,
    incoming: &mut Incoming,
    side: Side,
    ends: Ends<'_>,
) -> Result<()> {
    let nonce = draw()?;
    let asks = async {
        let request = Request::Prove { nonce: hex(&nonce) };
        let mut exchange = link.open(&request).await?;
        let (key, signature) = match exchange.recv::<Answer>().await? {
            Answer::Proof { key, signature } => (key, signature),
            Answer::Refused(refusal) => return Err(super::greet::refused(refusal)),
            _ => bail!("the other side answers something else than a proof"),
        };
        let text = text(link.protocol(), other(side), ends.turned(), &nonce);
        if !holds(&text, ends.asker_key, &key, &signature) {
            let what = format!("{} does not prove its key", ends.asker);
            let hint = "somebody is in between, or a process of that node was taken over: look at the logs of both nodes";
            return Err(Failure::new(Code::Refused, what).hint(hint).into());
        }
        Ok(())
    };
    let answers = async {
        let Some((request, mut exchange)) = incoming.next().await else {
            bail!("the link ended before the other side asked for a proof");
        };
        let Request::Prove { nonce } = request else {
            bail!("the other side asks for something else before a proof");
        };
        let nonce = unhex(&nonce).and_then(|nonce| nonce.try_into().ok());
        let nonce = nonce.context("the other side's nonce is not 32 bytes")?;
        let signature = identity.sign(&text(link.protocol(), side, ends, &nonce))?;
        let proof = Answer::Proof {
            key: hex(&identity.public()),
            signature: hex(&signature),
        };
        exchange.send(&proof).await?;
        exchange.finish().await
    };
    tokio::try_join!(asks, answers).map(|_| ())
}

fn draw() -> Result<[u8; NONCE_BYTES]> {
    use ring::rand::{SecureRandom, SystemRandom};
    let mut nonce = [0; NONCE_BYTES];
    let filled = SystemRandom::new().fill(&mut nonce);
    filled.map_err(|_| anyhow::anyhow!("the system gives no random numbers"))?;
    Ok(nonce)
}

fn other(side: Side) -> Side {
    match side {
        Side::Dialled => Side::Accepted,
        Side::Accepted => Side::Dialled,
    }
}

/// Every part with its length in front, so that no two texts share bytes. The label makes it no text of TLS, which begins
/// with 64 spaces (RFC 8446, 4.4.3).
pub(super) fn text(
    protocol: u32,
    side: Side,
    ends: Ends<'_>,
    nonce: &[u8; NONCE_BYTES],
) -> Vec<u8> {
    let label = match side {
        Side::Dialled => "standin link proof v1, dialling side",
        Side::Accepted => "standin link proof v1, accepting side",
    };
    let (signer_key, asker_key) = (ends.signer_key.to_string(), ends.asker_key.to_string());
    let parts: [&[u8]; 7] = [
        label.as_bytes(),
        &protocol.to_be_bytes(),
        nonce,
        signer_key.as_bytes(),
        asker_key.as_bytes(),
        ends.signer.as_str().as_bytes(),
        ends.asker.as_str().as_bytes(),
    ];
    let mut text = Vec::new();
    for part in parts {
        text.extend_from_slice(&(part.len() as u32).to_be_bytes());
        text.extend_from_slice(part);
    }
    text
}

/// Whether the key is the pinned one and signed the text.
fn holds(text: &[u8], pinned: Fingerprint, key: &str, signature: &str) -> bool {
    let key: Option<[u8; PUBLIC_BYTES]> = unhex(key).and_then(|key| key.try_into().ok());
    let (Some(key), Some(signature)) = (key, unhex(signature)) else {
        return false;
    };
    Fingerprint::of_public(&key) == Some(pinned)
        && UnparsedPublicKey::new(&ED25519, key)
            .verify(text, &signature)
            .is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Case {
        signer: Identity,
        asker: Identity,
        names: [NodeName; 2],
        nonce: [u8; NONCE_BYTES],
    }

    impl Case {
        fn ends(&self) -> Ends<'_> {
            Ends {
                signer: &self.names[0],
                signer_key: self.signer.fingerprint(),
                asker: &self.names[1],
                asker_key: self.asker.fingerprint(),
            }
        }
    }

    /// A good proof, then one with something of it changed.
    fn check(change: impl Fn(&mut Case, &mut Side, &mut u32), good: bool) {
        let name = |word| NodeName::parse(word).unwrap();
        let mut case = Case {
            signer: Identity::ephemeral().unwrap(),
            asker: Identity::ephemeral().unwrap(),
            names: [name("alder"), name("birch")],
            nonce: [7; NONCE_BYTES],
        };
        let (mut side, mut protocol) = (Side::Dialled, 1);
        let said = text(protocol, side, case.ends(), &case.nonce);
        let signature = hex(&case.signer.sign(&said).unwrap());
        let key = hex(&case.signer.public());
        change(&mut case, &mut side, &mut protocol);
        let wanted = text(protocol, side, case.ends(), &case.nonce);
        let pinned = case.signer.fingerprint();
        assert_eq!(holds(&wanted, pinned, &key, &signature), good);
    }

    #[test]
    fn a_proof_holds_for_one_link_only() {
        let other = || Identity::ephemeral().unwrap();
        check(|_, _, _| {}, true);
        check(|case, _, _| case.signer = other(), false);
        check(|case, _, _| case.asker = other(), false);
        check(|case, _, _| case.names.swap(0, 1), false);
        check(|case, _, _| case.nonce[31] ^= 1, false);
        check(|_, side, _| *side = Side::Accepted, false);
        check(|_, _, protocol| *protocol = 2, false);
        // Thrown back at who asked.
        check(
            |case, _, _| std::mem::swap(&mut case.signer, &mut case.asker),
            false,
        );
    }

    #[test]
    fn rubbish_proves_nothing() {
        let pinned = Identity::ephemeral().unwrap();
        let key = hex(&pinned.public());
        for (key, signature) in [("", ""), ("zz", "zz"), (&key, ""), (&key, "00")] {
            assert!(!holds(b"text", pinned.fingerprint(), key, signature));
        }
    }
}
