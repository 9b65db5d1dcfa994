//! Pairing over the wire: an inviting node that listens, and nodes that come with good and bad lines.

#![allow(clippy::unwrap_used)]

use std::sync::{Arc, Mutex};
use std::time::Duration;

use jiff::Timestamp;
use standin::error::{Code, Failure};
use standin::logic::name::NodeName;
use standin::peer::accept::{Accepted, Acceptor, listen_tcp};
use standin::peer::dial::Target;
use standin::peer::identity::Identity;
use standin::peer::invite::Invite;
use standin::peer::message::{Hello, PROTOCOL, PairAnswer};
use standin::peer::pair::{ATTEMPTS_MAX, Fault, StoredInvite, Verdict, judge};
use standin::peer::pairing::{PairConversation, Paired, accept_invite};
use standin::peer::timing::Timing;
use tokio::net::TcpListener;
use tokio::sync::mpsc;

fn name(word: &str) -> NodeName {
    NodeName::parse(word).unwrap()
}

/// An inviting node: answers as a daemon would, and remembers what it pinned and why it refused.
struct Alder {
    identity: Identity,
    address: String,
    stored: Arc<Mutex<Option<StoredInvite>>>,
    pinned: Arc<Mutex<Vec<Paired>>>,
    faults: Arc<Mutex<Vec<Fault>>>,
}

async fn alder() -> Alder {
    let identity = Identity::ephemeral().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let alder = Alder {
        address: listener.local_addr().unwrap().to_string(),
        stored: Arc::default(),
        pinned: Arc::default(),
        faults: Arc::default(),
        identity,
    };
    let hello = || Hello {
        node: name("alder"),
        version: String::new(),
        protocol: PROTOCOL,
        capabilities: vec![],
        now: Timestamp::now(),
        stream_version_max: 0,
    };
    let acceptor = Acceptor::new(&alder.identity, |_| None, hello, Timing::default()).unwrap();
    let (sender, mut accepted) = mpsc::channel(4);
    tokio::spawn(listen_tcp(listener, acceptor, sender));
    let (stored, pinned, faults) = (
        alder.stored.clone(),
        alder.pinned.clone(),
        alder.faults.clone(),
    );
    tokio::spawn(async move {
        while let Some(Accepted::Pairing(conversation)) = accepted.recv().await {
            let answer = decide(&conversation, &stored, &pinned, &faults);
            conversation.answer(&answer).await.unwrap();
        }
    });
    alder
}

fn decide(
    conversation: &PairConversation,
    stored: &Mutex<Option<StoredInvite>>,
    pinned: &Mutex<Vec<Paired>>,
    faults: &Mutex<Vec<Fault>>,
) -> PairAnswer {
    let mut stored = stored.lock().unwrap();
    let (request, key) = (conversation.request(), conversation.fingerprint());
    let ours = name("alder");
    let own = conversation.own_fingerprint();
    match judge(stored.as_ref(), request, &ours, own, key, Timestamp::now()) {
        Verdict::Accept { proof } => {
            stored.as_mut().unwrap().used_by = Some(key);
            pinned.lock().unwrap().push(Paired {
                node: request.node.clone(),
                fingerprint: key,
                address: request.address.clone(),
            });
            PairAnswer::Paired { node: ours, proof }
        }
        Verdict::Refuse {
            refusal,
            fault,
            count,
        } => {
            faults.lock().unwrap().push(fault);
            if let Some(stored) = stored.as_mut().filter(|_| count) {
                stored.attempts += 1;
            }
            PairAnswer::Refused(refusal)
        }
    }
}

impl Alder {
    fn invite(&self, lifetime: Duration) -> Invite {
        let expires = Timestamp::now() + jiff::SignedDuration::try_from(lifetime).unwrap();
        let key = self.identity.fingerprint();
        let invite = Invite::new(name("alder"), self.address.clone(), key, expires).unwrap();
        *self.stored.lock().unwrap() = Some(invite.stored());
        invite
    }

    fn faults(&self) -> Vec<Fault> {
        self.faults.lock().unwrap().clone()
    }
}

const HOUR: Duration = Duration::from_secs(3600);

async fn accept(line: &str, identity: &Identity) -> anyhow::Result<Paired> {
    let address = Some("birch:7170".to_owned());
    accept_invite(
        line,
        identity,
        &name("birch"),
        address,
        None,
        Timing::default(),
    )
    .await
}

#[tokio::test]
async fn both_pin_each_other() {
    let alder = alder().await;
    let birch = Identity::ephemeral().unwrap();
    let paired = accept(&alder.invite(HOUR).to_line(), &birch).await.unwrap();
    assert_eq!(paired.node, name("alder"));
    assert_eq!(paired.fingerprint, alder.identity.fingerprint());
    assert_eq!(paired.address.as_deref(), Some(alder.address.as_str()));
    let pinned = alder.pinned.lock().unwrap().clone();
    assert_eq!(pinned.len(), 1);
    assert_eq!(pinned[0].node, name("birch"));
    assert_eq!(pinned[0].fingerprint, birch.fingerprint());
    assert_eq!(pinned[0].address.as_deref(), Some("birch:7170"));
}

#[tokio::test]
async fn the_same_key_may_repeat_and_another_may_not() {
    let alder = alder().await;
    let birch = Identity::ephemeral().unwrap();
    let line = alder.invite(HOUR).to_line();
    accept(&line, &birch).await.unwrap();
    accept(&line, &birch).await.unwrap();
    let error = accept(&line, &Identity::ephemeral().unwrap())
        .await
        .unwrap_err();
    assert_eq!(Failure::code_of(&error), Code::Refused);
    assert!(
        format!("{error:#}").contains("used by another key"),
        "{error:#}"
    );
    assert_eq!(alder.faults(), [Fault::Used]);
}

#[tokio::test]
async fn an_expired_invitation_says_so() {
    let alder = alder().await;
    let line = alder.invite(Duration::ZERO).to_line();
    let error = accept(&line, &Identity::ephemeral().unwrap())
        .await
        .unwrap_err();
    assert!(format!("{error:#}").contains("expired"), "{error:#}");
    assert_eq!(alder.faults(), [Fault::Expired]);
}

#[tokio::test]
async fn a_wrong_secret_learns_nothing_and_wears_the_invitation_out() {
    let alder = alder().await;
    let good = alder.invite(HOUR);
    let key = alder.identity.fingerprint();
    let mut wrong = Invite::new(name("alder"), alder.address.clone(), key, good.expires).unwrap();
    wrong.id = good.id.clone();
    let birch = Identity::ephemeral().unwrap();
    for _ in 0..ATTEMPTS_MAX {
        let error = accept(&wrong.to_line(), &birch).await.unwrap_err();
        assert!(format!("{error:#}").contains("not valid here"), "{error:#}");
    }
    let error = accept(&good.to_line(), &birch).await.unwrap_err();
    assert!(format!("{error:#}").contains("not valid here"), "{error:#}");
    let mut faults = vec![Fault::WrongProof; ATTEMPTS_MAX as usize];
    faults.push(Fault::Exhausted);
    assert_eq!(alder.faults(), faults);
    assert!(alder.pinned.lock().unwrap().is_empty());
}

#[tokio::test]
async fn another_node_at_the_address_gets_no_proof() {
    let (alder, mallory) = (alder().await, alder().await);
    let invite = Invite {
        address: mallory.address.clone(),
        ..alder.invite(HOUR)
    };
    let error = accept(&invite.to_line(), &Identity::ephemeral().unwrap())
        .await
        .unwrap_err();
    assert_eq!(Failure::code_of(&error), Code::Refused);
    assert!(
        format!("{error:#}").contains(&alder.identity.fingerprint().to_string()),
        "{error:#}"
    );
    assert!(mallory.faults().is_empty(), "nothing was said to it");
}

#[tokio::test]
async fn a_damaged_line_is_a_damaged_line() {
    let alder = alder().await;
    let line = alder.invite(HOUR).to_line();
    let error = accept(&line[..line.len() - 2], &Identity::ephemeral().unwrap())
        .await
        .unwrap_err();
    assert_eq!(Failure::code_of(&error), Code::Usage);
    assert!(format!("{error:#}").contains("damaged"), "{error:#}");
    assert!(alder.faults().is_empty());
}

/// The address in the line is of no use; a command leads there all the same.
#[tokio::test]
async fn through_a_command() {
    let alder = alder().await;
    let listener_address = alder.address.clone();
    let invite = Invite {
        address: "unreachable.invalid:1".into(),
        ..alder.invite(HOUR)
    };
    let Some((host, port)) = listener_address.rsplit_once(':') else {
        panic!("{listener_address}")
    };
    let script = format!("exec 3<>/dev/tcp/{host}/{port}; cat <&3 & cat >&3");
    let via = Target::Command(vec!["bash".into(), "-c".into(), script]);
    let birch = Identity::ephemeral().unwrap();
    let (line, ours) = (invite.to_line(), name("birch"));
    let pairing = accept_invite(&line, &birch, &ours, None, Some(via), Timing::default());
    assert_eq!(pairing.await.unwrap().node, name("alder"));
}
