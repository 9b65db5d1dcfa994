//! What peers say: every type is parsed or refused, what is parsed is said the same again, and words for people are harmless.

use std::collections::BTreeMap;
use std::fmt::Debug;

use jiff::Timestamp;
use serde::Serialize;
use serde::de::DeserializeOwned;
use standin::error::Code;
use standin::logic::drift::{Found, Value};
use standin::logic::line::Line;
use standin::logic::lineage::{Entry, Lineage};
use standin::logic::manifest::{DatasetFacts, Manifest, Reason};
use standin::logic::name::{DatasetName, NodeName, RoleName};
use standin::logic::point::{PointId, RoleId, Term};
use standin::logic::transfer::{Kind as Filesystems, Partial, StreamIdentity};
use standin::logic::versions::told::{Sighting, Trail};
use standin::logic::versions::{Facts, Kind};
use standin::peer::codec;
use standin::peer::message::{
    Answer, Control, Greeting, Hello, Offer, PROTOCOL, PairAnswer, PairRequest, ReadFile, Refusal,
    Request, RoleFigures, RoleWord, SenderWord, plain,
};
use uuid::Uuid;

use super::Target;
use super::bounds::peak;

pub const TARGET: Target = Target {
    name: "messages",
    what: "Every message is parsed or refused, parsed ones are said the same again, words for people are harmless",
    needs_disk: false,
    bytes_max: 16 << 10,
    seeds,
    start: || Box::new(run),
};

fn run(input: &[u8]) {
    let ((), held) = peak(|| {
        one::<Request>(input);
        one::<Greeting>(input);
        one::<Control>(input);
        one::<SenderWord>(input);
        for refusal in [
            one::<PairAnswer>(input).and_then(|answer| match answer {
                PairAnswer::Refused(refusal) => Some(refusal),
                PairAnswer::Paired { .. } => None,
            }),
            one::<Answer>(input).and_then(|answer| match answer {
                Answer::Refused(refusal) => Some(refusal),
                _ => None,
            }),
        ] {
            let Some(failure) = refusal.map(Refusal::into_failure) else {
                continue;
            };
            harmless(&failure.what);
            failure.hint.iter().for_each(|hint| harmless(hint));
        }
        harmless(&plain(&String::from_utf8_lossy(input)));
    });
    // Values hold more than their JSON, but in proportion to it: a name of one letter is an allocation of its own.
    let most = 64 * input.len() + 65_536;
    assert!(held <= most, "{held} bytes held for {}", input.len());
}

fn harmless(words: &str) {
    assert!(!words.chars().any(char::is_control), "{words:?}");
    assert!(words.chars().count() <= 504);
}

fn one<T: Serialize + DeserializeOwned + PartialEq + Debug>(input: &[u8]) -> Option<T> {
    match codec::parse::<T>(input) {
        Ok(said) => {
            let again = serde_json::to_vec(&said).expect("what is parsed can be said");
            let heard: T = serde_json::from_slice(&again).expect("what is said can be parsed");
            assert_eq!(said, heard);
            Some(said)
        }
        Err(error) => {
            harmless_line(&format!("{error:#}"));
            None
        }
    }
}

fn harmless_line(words: &str) {
    assert!(!words.chars().any(char::is_control), "{words:?}");
}

fn name(word: &str) -> NodeName {
    NodeName::parse(word).unwrap()
}

fn manifest() -> Manifest {
    let facts = DatasetFacts {
        nested: Vec::new(),
        identity: Uuid::from_u128(9),
        not_replicated: vec!["nested subvolume a/b".into()],
    };
    Manifest {
        version: 1,
        role: RoleId(Uuid::from_u128(5)),
        role_name: RoleName::parse("web").unwrap(),
        point: point(),
        taken: Timestamp::UNIX_EPOCH,
        node: name("alder"),
        reason: Reason::Schedule,
        datasets: BTreeMap::from([(DatasetName::parse("db").unwrap(), facts)]),
        dumps: Vec::new(),
    }
}

fn point() -> PointId {
    PointId {
        term: term(),
        sequence: 42,
    }
}

fn term() -> Term {
    Term {
        epoch: 3,
        holder: name("alder"),
        nonce: 77,
    }
}

fn requests() -> Vec<Request> {
    let offer = Offer {
        manifest: manifest(),
        dataset: DatasetName::parse("db").unwrap(),
        base: Some(point()),
        identity: StreamIdentity {
            snapshot: Uuid::from_u128(9),
            base: Some(Uuid::from_u128(2)),
            version: 2,
        },
        data_bytes: 1 << 40,
        term: Some(term()),
        flags: serde_json::from_str(r#"{"nocow":[257,3],"append":[300,0]}"#).unwrap(),
    };
    vec![
        Request::Ping,
        Request::Offer(Box::new(offer)),
        Request::Commit {
            manifest: manifest(),
            term: None,
        },
        Request::Word {
            role: RoleName::parse("web").unwrap(),
            role_id: RoleId(Uuid::from_u128(5)),
            word: Box::new(word()),
        },
        Request::Grant {
            role: RoleName::parse("web").unwrap(),
            role_id: RoleId(Uuid::from_u128(5)),
            term: term(),
            line: Line::first(term()),
        },
        Request::Drift {
            names: vec!["nginx".into()],
        },
        Request::Find {
            role: RoleName::parse("web").unwrap(),
            role_id: RoleId(Uuid::from_u128(5)),
            dataset: DatasetName::parse("db").unwrap(),
            path: "a/*.txt".into(),
        },
        Request::Read(Box::new(ReadFile {
            role: RoleName::parse("web").unwrap(),
            role_id: RoleId(Uuid::from_u128(5)),
            dataset: DatasetName::parse("db").unwrap(),
            point: manifest().name(),
            fork: None,
            path: "a/b".into(),
            offset: 7,
        })),
        Request::Lineage {
            role: RoleName::parse("web").unwrap(),
            role_id: RoleId(Uuid::from_u128(5)),
            term: term(),
            datasets: vec![DatasetName::parse("db").unwrap()],
            line: Line::first(term()),
            bases: [(name("birch"), point())].into(),
            kind: Filesystems::Zfs,
        },
    ]
}

fn word() -> RoleWord {
    RoleWord {
        seen: term(),
        plays: true,
        held: Some(term()),
        spent: Some(term()),
        newest: Some(point()),
        line: Line::first(term()),
        state: "active".into(),
        figures: RoleFigures {
            quiet_ms: Some(7),
            ..RoleFigures::default()
        },
    }
}

fn found() -> Found {
    let text = Value::Text("a\u{1b}[2J\n".into());
    let secret = Value::Secret { hash: "ab".into() };
    Found {
        kind: "file".into(),
        items: BTreeMap::from([("/a".into(), text), ("/b".into(), secret)]),
        more: 3,
        problem: Some("list it".into()),
    }
}

fn facts() -> Facts {
    Facts {
        kind: Kind::Symlink,
        size: 0,
        mtime: (1_700_000_000, 5),
        ctime: (-1, 0),
        inode: 257,
        mode: 0o777,
        uid: 0,
        gid: 0,
        target: Some("../\u{1b}[2J".into()),
    }
}

fn trail() -> Trail {
    let sighting = Sighting {
        points: vec![manifest().name()],
        by: Some(name("alder")),
        facts: Some(facts()),
    };
    Trail {
        path: "a/b".into(),
        line: vec![sighting],
        forks: Vec::new(),
    }
}

#[rustfmt::skip]
fn answers() -> Vec<Answer> {
    let partial = Partial { point: point(), dataset: DatasetName::parse("db").unwrap(), offset: Some(7) };
    vec![
        Answer::Lineage {
            lineage: Lineage::new(vec![Entry::of(&manifest())]),
            partials: vec![partial],
            term: Some(term()),
            room: Default::default(),
            damaged: Vec::new(),
        },
        Answer::Have { offset: 7, prefix: "ab".into(), token: Some("1-ab".into()) },
        Answer::Mark { offset: 1, data_bytes: 2, checkpoint: 3, file: "a/b".into(), waiting: 0.5 },
        Answer::Stored,
        Answer::Committed,
        Answer::Word { word: Some(Box::new(word())) },
        Answer::Ready { problems: vec!["no\u{1b}[2J room".into()] },
        Answer::Drift { found: BTreeMap::from([("nginx".to_owned(), found())]) },
        Answer::Pong { now: Timestamp::UNIX_EPOCH },
        Answer::Versions { trails: vec![trail()], cut: true },
        Answer::File { facts: facts() },
        Answer::Whole { bytes: 9, hash: "ab".into() },
        Answer::Refused(Refusal::new(Code::Fenced, "a higher\u{1b}[2J term\n").hint("wait")),
    ]
}

#[rustfmt::skip]
fn greetings() -> Vec<Greeting> {
    vec![
        Greeting::Hello(Hello {
            node: name("alder"),
            version: "0.1.0".into(),
            protocol: PROTOCOL,
            capabilities: vec!["zstd".into()],
            now: Timestamp::UNIX_EPOCH,
            stream_version_max: 2,
        }),
        Greeting::Pair(PairRequest {
            node: name("birch"),
            invite: "7".into(),
            proof: "00".into(),
            address: Some("alder:7170".into()),
        }),
        Greeting::Refused(Refusal::new(Code::Refused, "no")),
    ]
}

fn said<T: Serialize>(values: &[T]) -> Vec<Vec<u8>> {
    let said = values
        .iter()
        .map(|value| serde_json::to_vec(value).unwrap());
    said.collect()
}

#[rustfmt::skip]
fn seeds() -> Vec<Vec<u8>> {
    let words = [
        SenderWord::Restart { why: "prefix differs".into() },
        SenderWord::End { bytes: 9, hash: "cd".into() },
        SenderWord::Failed { why: "send ioctl".into() },
    ];
    let control = [
        Control::Beat { number: u64::MAX, now: None },
        Control::Echo { number: 0 },
        Control::Bye { why: "restart".into() },
    ];
    let paired = [PairAnswer::Paired { node: name("birch"), proof: "ef".into() }];
    [
        said(&requests()), said(&answers()), said(&greetings()),
        said(&words), said(&control), said(&paired),
    ]
    .concat()
}
