//! The scripted peers, the node they talk to, and the small honest things they need.

use std::fs;
use std::time::Duration;

use serde_json::{Value, json};
use standin::fs::btrfs::stream::{Command, Encoder};
use standin::logic::name::NodeName;
use standin::peer::dial::{Expected, Target, dial};
use standin::peer::exchange::{Exchange, Item};
use standin::peer::frame::{DATA_BYTES_MAX, Frame};
use standin::peer::identity::{Fingerprint, Identity};
use standin::peer::link::{Incoming, Link};
use standin::peer::message::{Answer, Hello, PROTOCOL};
use standin::peer::prove;
use standin::peer::timing::Timing;
use tokio::time::timeout;
use uuid::Uuid;

use crate::support::cluster::{MANUAL, MIB, TestNode};

/// Longest wait for an answer.
const LONG: Duration = Duration::from_secs(20);

/// Identity of the snapshot of dataset `files` in every point.
pub const FILES: &str = "00000000-0000-0000-0000-000000000bad";

pub const ROLE: &str = "00000000-0000-0000-0000-000000000005";

/// One thing the peer does inside an exchange.
#[derive(Debug, Clone)]
pub enum Step {
    Say(Value),
    /// Data, in frames of the largest size.
    Raw(Vec<u8>),
    Frame(Frame),
    Finish,
}

/// A peer with a key that birch knows.
pub struct Scripted {
    name: &'static str,
    identity: Identity,
    target: Target,
    expected: Expected,
    link: Option<(Link, Incoming)>,
}

impl Scripted {
    /// Over the link, which is dialled when there is none: what a broken conversation costs is its own matter.
    async fn link(&mut self) -> Link {
        if let Some((link, _)) = &self.link {
            if link.why_closed().is_none() {
                return link.clone();
            }
        }
        let hello = Hello {
            node: NodeName::parse(self.name).unwrap(),
            version: "0.1.0".into(),
            protocol: PROTOCOL,
            capabilities: vec![],
            now: jiff::Timestamp::now(),
            stream_version_max: 2,
        };
        let (link, incoming) = self.dialled(&hello).await;
        self.link = Some((link.clone(), incoming));
        link
    }

    /// While birch still lets go of an older link of ours, a new one may be closed again: then it is dialled once more.
    async fn dialled(&self, hello: &Hello) -> (Link, Incoming) {
        let begun = std::time::Instant::now();
        loop {
            let attempt = async {
                let (identity, with) = (&self.identity, &self.expected);
                let dialled = dial(identity, &self.target, with, hello, Timing::default());
                let (link, mut incoming) = dialled.await?;
                prove::dialled(identity, &hello.node, (&link, &mut incoming), with).await?;
                anyhow::Ok((link, incoming))
            };
            match attempt.await {
                Ok(link) => return link,
                Err(error) => assert!(begun.elapsed() < LONG, "{error:#}"),
            }
        }
    }

    /// Says the request; gives the exchange after the first answer came.
    pub async fn begin(&mut self, request: &Value) -> Exchange {
        let link = self.link().await;
        let mut exchange = link.open_with(request).await.unwrap();
        let first: Answer = timeout(LONG, exchange.recv()).await.unwrap().unwrap();
        assert!(matches!(first, Answer::Have { .. }), "{first:?}");
        exchange
    }

    /// Says the request and does the steps; everything heard, as text: the end of it is what the daemon last said.
    pub async fn converse(&mut self, request: &Value, steps: &[Step]) -> String {
        let link = self.link().await;
        let mut exchange = match link.open_with(request).await {
            Ok(exchange) => exchange,
            Err(error) => return format!("{error:#}"),
        };
        if !steps.is_empty() {
            match timeout(LONG, exchange.recv::<Answer>()).await.unwrap() {
                Ok(Answer::Have { .. }) => {}
                Ok(other) => return format!("{other:?}"),
                Err(error) => return format!("{error:#}"),
            }
        }
        let mut finish = false;
        for step in steps {
            // The other side may have had enough: what it said of it is read below.
            let sent = match step {
                Step::Say(word) => exchange.send(word).await,
                Step::Frame(frame) => exchange.send_frame(frame).await,
                Step::Raw(data) => send_all(&mut exchange, data).await,
                Step::Finish => {
                    finish = true;
                    break;
                }
            };
            if sent.is_err() {
                break;
            }
        }
        let (mut sending, receiving) = exchange.into_split();
        if finish {
            let _ = sending.finish().await;
        }
        listen(receiving).await
    }
}

async fn send_all(exchange: &mut Exchange, data: &[u8]) -> anyhow::Result<()> {
    for piece in data.chunks(DATA_BYTES_MAX) {
        exchange.send_frame(&Frame::Raw(piece.to_vec())).await?;
    }
    Ok(())
}

/// What else is said in an exchange.
pub async fn rest(exchange: Exchange) -> String {
    let (_sending, receiving) = exchange.into_split();
    listen(receiving).await
}

/// Up to the last word: one that ends the exchange.
async fn listen(mut receiving: standin::peer::exchange::Receiving) -> String {
    loop {
        match timeout(LONG, receiving.next::<Answer>()).await {
            Ok(Ok(Item::Word(Answer::Mark { .. }))) => {}
            Ok(Ok(Item::Word(answer))) => return format!("{answer:?}"),
            Ok(Ok(other)) => return format!("{other:?}"),
            Ok(Err(error)) => return format!("{error:#}"),
            Err(_) => return "nothing".to_owned(),
        }
    }
}

/// birch, not started: it stands in for alder, with one dataset.
pub fn node() -> TestNode {
    let birch = TestNode::new("birch", 512 * MIB);
    fs::create_dir_all(birch.disk.path().join("srv")).unwrap();
    birch.configure("alder", &["files"], "", MANUAL);
    Identity::create(&birch.dir.join("state/node.key")).unwrap();
    birch
}

/// alder and cedar with keys that birch knows; starts birch.
pub fn strangers(birch: &mut TestNode, peer: &str) -> (Scripted, Scripted) {
    let fingerprint = Identity::load(&birch.dir.join("state/node.key"))
        .unwrap()
        .fingerprint();
    let scripted = |name| Scripted {
        name,
        identity: Identity::ephemeral().unwrap(),
        target: birch.address.to_string().parse().unwrap(),
        expected: expected(fingerprint),
        link: None,
    };
    let (alder, cedar) = (scripted("alder"), scripted("cedar"));
    let key = |peer: &Scripted| format!("key = \"{}\"\n", peer.identity.fingerprint());
    let sections = format!(
        "[peer.alder]\n{}{peer}[peer.cedar]\n{}",
        key(&alder),
        key(&cedar)
    );
    birch.edit("[peer.alder]\n", &sections);
    birch.start();
    (alder, cedar)
}

fn expected(fingerprint: Fingerprint) -> Expected {
    Expected {
        name: NodeName::parse("birch").unwrap(),
        fingerprint,
    }
}

pub fn term() -> Value {
    json!({"epoch": 1, "holder": "alder", "nonce": 7})
}

/// A manifest.
pub fn point(sequence: u64) -> Value {
    json!({
        "version": 1,
        "role": ROLE,
        "role_name": "web",
        "point": {"term": term(), "sequence": sequence},
        "taken": "2026-11-20T12:00:00Z",
        "node": "alder",
        "reason": "schedule",
        "datasets": {"files": {"identity": identity(sequence)}},
    })
}

/// Of the point's snapshot.
fn identity(sequence: u64) -> Value {
    json!(uuid(sequence))
}

fn uuid(sequence: u64) -> Uuid {
    Uuid::from_u128(Uuid::parse_str(FILES).unwrap().as_u128() + u128::from(sequence) - 1)
}

pub fn offer(sequence: u64) -> Value {
    json!({
        "type": "offer",
        "manifest": point(sequence),
        "dataset": "files",
        "base": null,
        "identity": {"snapshot": identity(sequence), "base": null, "version": 2},
        "data_bytes": 0,
        "flags": {},
    })
}

pub fn lineage() -> Value {
    json!({"type": "lineage", "role": "web", "role_id": ROLE, "term": term(), "datasets": ["files"]})
}

/// A whole stream of the point's snapshot.
fn stream(sequence: u64, commands: &[Command<'_>]) -> Vec<u8> {
    let mut stream = Encoder::new(2);
    stream.put(&Command::Subvol {
        path: b"files",
        uuid: uuid(sequence),
        ctransid: 1,
    });
    let path = b"file";
    stream.put(&Command::Mkfile { path, inode: None });
    for offset in 0..20 {
        stream.put(&Command::Write {
            path,
            offset: offset * 10_000,
            data: &[9; 10_000],
        });
    }
    for command in commands {
        stream.put(command);
    }
    stream.put(&Command::End);
    stream.into_bytes()
}

pub fn small_stream(sequence: u64) -> Vec<u8> {
    stream(sequence, &[])
}

/// With a device and a setuid bit.
pub fn powerful_stream(sequence: u64) -> Vec<u8> {
    let device = Command::Mknod {
        path: b"null",
        mode: 0o20666,
        device: 259,
    };
    let setuid = Command::Chmod {
        path: b"file",
        mode: 0o4755,
    };
    stream(sequence, &[device, setuid])
}
