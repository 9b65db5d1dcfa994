//! The pairing conversation: one request, one answer, over TLS between keys that do not know each other yet.
//!
//! Promise: within the limits of `Timing`, both ways. The accepting node returns `Paired` only after it saw the very key the
//! invitation names and a proof that its owner holds the secret. A crash of either side between pinning and answering
//! is healed by asking again with the same invitation (see `pair::judge`).
//!
//! It deliberately does not pin anything: the caller does.

use std::fmt;

use anyhow::{Context, Result, bail};
use tokio_rustls::TlsStream;

use super::dial::{Target, connect};
use super::greet::{coded, hear, part, refused, say, within};
use super::identity::{Fingerprint, Identity};
use super::invite::Invite;
use super::message::{Greeting, PairAnswer, PairRequest};
use super::pair::{Parties, Prover, proof, proves};
use super::timing::Timing;
use super::transport::Transport;
use super::worker::{Asked, Workers};
use crate::error::{Code, Failure};
use crate::logic::name::NodeName;

/// A node that proved itself: pin its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Paired {
    pub node: NodeName,
    pub fingerprint: Fingerprint,
    /// Where it can be dialled: host:port.
    pub address: Option<String>,
}

/// The inviting side's end of the conversation: look at the request, judge it, answer.
pub struct PairConversation {
    line: Line,
    own: Fingerprint,
    key: Fingerprint,
    request: PairRequest,
}

/// Where the answer goes.
enum Line {
    Here(Box<TlsStream<Box<dyn Transport>>>, Timing),
    Worker(Box<Asked>),
}

impl fmt::Debug for PairConversation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PairConversation({}, {})", self.request.node, self.key)
    }
}

impl PairConversation {
    pub(super) fn new(
        stream: TlsStream<Box<dyn Transport>>,
        own: Fingerprint,
        key: Fingerprint,
        request: PairRequest,
        timing: Timing,
    ) -> PairConversation {
        PairConversation {
            line: Line::Here(Box::new(stream), timing),
            own,
            key,
            request,
        }
    }

    /// The key is what a worker says: only the proof in the request shows whose it is.
    pub(super) fn asked(
        asked: Box<Asked>,
        own: Fingerprint,
        key: Fingerprint,
        request: PairRequest,
    ) -> PairConversation {
        PairConversation {
            line: Line::Worker(asked),
            own,
            key,
            request,
        }
    }

    pub fn request(&self) -> &PairRequest {
        &self.request
    }

    /// The key the other side has proved.
    pub fn fingerprint(&self) -> Fingerprint {
        self.key
    }

    /// Our own key, as the other side sees it.
    pub fn own_fingerprint(&self) -> Fingerprint {
        self.own
    }

    /// Answers and hangs up. Pin the key before a good answer.
    pub async fn answer(self, answer: &PairAnswer) -> Result<()> {
        match self.line {
            Line::Worker(asked) => asked.answer(answer).await,
            Line::Here(mut stream, timing) => {
                within(timing.hello, "answer", say(&mut stream, answer)).await?;
                part(&mut stream, timing).await;
                Ok(())
            }
        }
    }
}

/// Accepts an invitation: dials the inviting node, proves the secret, checks its proof. `via`: reach it through this target
/// instead of the address in the line (a node without an open port, over ssh).
pub async fn accept_invite(
    line: &str,
    identity: &Identity,
    ours: &NodeName,
    our_address: Option<String>,
    via: Option<Target>,
    timing: Timing,
) -> Result<Paired> {
    let plan = Plan::new(line, identity, ours, our_address, via)?;
    plan.judged(ask(&plan, identity, timing).await)
}

impl Workers {
    /// As [`accept_invite`], with the conversation in a worker: it gets the proof to carry, never the secret.
    pub async fn accept_invite(
        &self,
        line: &str,
        ours: &NodeName,
        our_address: Option<String>,
    ) -> Result<Paired> {
        let plan = Plan::new(line, self.identity(), ours, our_address, None)?;
        let key = plan.invite.fingerprint;
        plan.judged(self.pair(&plan.target, key, plan.request.clone()).await)
    }
}

/// What will be asked, and of whom.
struct Plan {
    invite: Invite,
    target: Target,
    request: PairRequest,
    own: Fingerprint,
}

impl Plan {
    fn new(
        line: &str,
        identity: &Identity,
        ours: &NodeName,
        our_address: Option<String>,
        via: Option<Target>,
    ) -> Result<Plan> {
        let invite = Invite::parse(line).map_err(|bad| {
            let hint = "the line is what `standin pair invite` printed on the other node";
            Failure::new(Code::Usage, format!("read the invitation: {bad}")).hint(hint)
        })?;
        let target = match via {
            Some(target) => target,
            None => invite.address.parse().context("read the invitation")?,
        };
        let own = identity.fingerprint();
        let parties = parties(&invite, ours, own);
        let request = PairRequest {
            node: ours.clone(),
            invite: invite.id.clone(),
            proof: proof(&invite.secret, Prover::Accepter, &parties),
            address: our_address,
        };
        Ok(Plan {
            invite,
            target,
            request,
            own,
        })
    }

    /// Whether the answer comes from who made the invitation.
    fn judged(&self, answer: Result<PairAnswer>) -> Result<Paired> {
        let invite = &self.invite;
        let judged = answer.and_then(|answer| match answer {
            PairAnswer::Refused(refusal) => Err(refused(refusal)),
            PairAnswer::Paired { node, proof } => {
                let parties = parties(invite, &self.request.node, self.own);
                if node != invite.node || !proves(&proof, &invite.secret, Prover::Inviter, &parties)
                {
                    bail!(Failure::new(
                        Code::Refused,
                        "the inviting node does not prove that it made the invitation"
                    ));
                }
                Ok(Paired {
                    node,
                    fingerprint: invite.fingerprint,
                    address: Some(invite.address.clone()),
                })
            }
        });
        judged.map_err(|error| {
            let what = format!("pair with {} at {}", invite.node, self.target);
            coded(error, Code::Unreachable, what)
        })
    }
}

fn parties<'a>(invite: &'a Invite, ours: &'a NodeName, own: Fingerprint) -> Parties<'a> {
    Parties {
        inviter: &invite.node,
        inviter_key: invite.fingerprint,
        accepter: ours,
        accepter_key: own,
    }
}

async fn ask(plan: &Plan, identity: &Identity, timing: Timing) -> Result<PairAnswer> {
    let key = plan.invite.fingerprint;
    let (mut stream, _complaints) = connect(identity, &plan.target, key, timing).await?;
    let asking = async {
        say(&mut stream, &Greeting::Pair(plan.request.clone())).await?;
        hear(&mut stream).await
    };
    let answer = within(timing.hello, "pair", asking).await?;
    // The answer is here: how the connection ends does not matter.
    let parting = tokio::io::AsyncWriteExt::shutdown(&mut stream);
    let _ = tokio::time::timeout(timing.close, parting).await;
    Ok(answer)
}
