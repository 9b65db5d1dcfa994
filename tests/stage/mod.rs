//! Two nodes in one process, for the tests of links: `alder` listens, `birch` dials.

#![allow(dead_code)]

use std::time::Duration;

use standin::logic::name::NodeName;
use standin::peer::accept::{Accepted, Acceptor, listen_tcp};
use standin::peer::dial::{Expected, Target, dial};
use standin::peer::identity::Identity;
use standin::peer::link::{Incoming, Link};
use standin::peer::message::{Answer, Hello, PROTOCOL, Request};
use standin::peer::timing::Timing;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::time::timeout;

pub const LONG: Duration = Duration::from_secs(30);

pub fn name(word: &str) -> NodeName {
    NodeName::parse(word).unwrap()
}

pub fn hello(node: &str) -> Hello {
    Hello {
        node: name(node),
        version: "0.1.0".into(),
        protocol: PROTOCOL,
        capabilities: vec![],
        now: jiff::Timestamp::now(),
        stream_version_max: 2,
    }
}

/// Beats fast, dies fast.
pub fn brisk() -> Timing {
    Timing {
        beat: Duration::from_millis(50),
        silence: Duration::from_millis(1500),
        close: Duration::from_millis(300),
        ..Timing::default()
    }
}

/// `alder` listens and knows one key by the name of `birch`.
pub struct Stage {
    pub alder: Identity,
    pub birch: Identity,
    pub target: Target,
    pub accepted: mpsc::Receiver<Accepted>,
    pub timing: Timing,
}

pub async fn stage(timing: Timing) -> Stage {
    let (alder, birch) = (
        Identity::ephemeral().unwrap(),
        Identity::ephemeral().unwrap(),
    );
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let target = listener.local_addr().unwrap().to_string().parse().unwrap();
    let key = birch.fingerprint();
    let known = move |seen: &_| (*seen == key).then(|| name("birch"));
    let acceptor = Acceptor::new(&alder, known, || hello("alder"), timing).unwrap();
    let (sender, accepted) = mpsc::channel(4);
    tokio::spawn(listen_tcp(listener, acceptor, sender));
    Stage {
        alder,
        birch,
        target,
        accepted,
        timing,
    }
}

impl Stage {
    pub fn expected(&self) -> Expected {
        Expected {
            name: name("alder"),
            fingerprint: self.alder.fingerprint(),
        }
    }

    pub async fn dial(&self) -> anyhow::Result<(Link, Incoming)> {
        dial(
            &self.birch,
            &self.target,
            &self.expected(),
            &hello("birch"),
            self.timing,
        )
        .await
    }

    pub async fn accepted(&mut self) -> (Link, Incoming) {
        match timeout(LONG, self.accepted.recv()).await.unwrap().unwrap() {
            Accepted::Link(link, incoming) => (link, incoming),
            Accepted::Pairing(conversation) => panic!("{conversation:?}"),
        }
    }

    /// Both ends of one link: birch's (dialled), alder's (accepted).
    pub async fn link(&mut self) -> ((Link, Incoming), (Link, Incoming)) {
        let dialled = self.dial().await.unwrap();
        (dialled, self.accepted().await)
    }

    pub fn address(&self) -> String {
        self.target.to_string()
    }
}

/// Answers pings until the link is down.
pub fn answer_pings(mut incoming: Incoming) {
    tokio::spawn(async move {
        while let Some((request, mut exchange)) = incoming.next().await {
            assert_eq!(request, Request::Ping);
            let now = jiff::Timestamp::now();
            exchange.send(&Answer::Pong { now }).await.unwrap();
            exchange.finish().await.unwrap();
        }
    });
}

pub async fn ping(link: &Link) -> anyhow::Result<Answer> {
    let mut exchange = link.open(&Request::Ping).await?;
    exchange.recv().await
}
