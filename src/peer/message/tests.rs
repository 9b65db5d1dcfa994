//! Every message is said and heard again, also with words of a newer version in it.

use serde::de::DeserializeOwned;
use serde_json::{Value as Json, json};
use uuid::Uuid;

use super::*;
use crate::logic::drift::Value;
use crate::logic::manifest::Reason;
use crate::logic::point::PointName;
use crate::logic::skeleton::{Known, Skeleton};

/// Says it, hears it, and hears it again with words of a newer version added to every object.
fn check<T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug>(said: T) {
    let text = serde_json::to_string(&said).unwrap();
    assert_eq!(serde_json::from_str::<T>(&text).unwrap(), said, "{text}");
    let mut value: Json = serde_json::from_str(&text).unwrap();
    if let Json::Object(fields) = &mut value {
        fields.insert("from-the-future".into(), json!({"deep": [1, 2, 3]}));
    }
    assert_eq!(
        serde_json::from_value::<T>(value).unwrap(),
        said,
        "unknown fields are ignored: {text}"
    );
}

fn node() -> NodeName {
    NodeName::parse("alder").unwrap()
}

fn term() -> Term {
    Term {
        epoch: 3,
        holder: node(),
        nonce: 77,
    }
}

fn manifest() -> Manifest {
    Manifest {
        version: 1,
        role: RoleId(Uuid::from_u128(5)),
        role_name: RoleName::parse("web").unwrap(),
        point: PointId {
            term: term(),
            sequence: 42,
        },
        taken: Timestamp::UNIX_EPOCH,
        node: node(),
        reason: Reason::Schedule,
        datasets: BTreeMap::new(),
        dumps: Vec::new(),
    }
}

fn word() -> RoleWord {
    RoleWord {
        seen: term(),
        plays: true,
        held: None,
        spent: None,
        newest: Some(manifest().point),
        line: Line::first(term()),
        state: "active".into(),
        figures: RoleFigures {
            since: Some(Timestamp::UNIX_EPOCH),
            taken: None,
            quiet_ms: Some(7),
            rise_ms: None,
        },
    }
}

fn found() -> Found {
    let hash = || "ab".to_owned();
    let values = [
        Value::Text("a\n".into()),
        Value::Secret { hash: hash() },
        Value::Hash {
            hash: hash(),
            bytes: 7,
        },
        Value::Unreadable("read it: no".into()),
    ];
    let items = values.into_iter().enumerate();
    Found {
        kind: "file".into(),
        items: items.map(|(at, value)| (format!("/{at}"), value)).collect(),
        more: 3,
        problem: Some("list it".into()),
    }
}

fn hello() -> Hello {
    Hello {
        node: node(),
        version: "0.1.0".into(),
        protocol: PROTOCOL,
        capabilities: vec!["zstd".into()],
        now: Timestamp::UNIX_EPOCH,
        stream_version_max: 2,
    }
}

#[test]
fn greetings_and_control() {
    check(Greeting::Hello(hello()));
    check(Greeting::Refused(
        Refusal::new(Code::Refused, "no").hint("pair first"),
    ));
    check(Greeting::Pair(PairRequest {
        node: node(),
        invite: "7".into(),
        proof: "00".into(),
        address: Some("alder:7170".into()),
    }));
    check(Control::Beat {
        number: u64::MAX,
        now: Some(Timestamp::UNIX_EPOCH),
    });
    let old: Control = serde_json::from_str(r#"{"type":"beat","number":3}"#).unwrap();
    check(old);
    check(Control::Echo { number: 0 });
    check(Control::Bye {
        why: "restart".into(),
    });
}

#[test]
fn requests() {
    check(Request::Ping);
    check(Request::Prove { nonce: "ab".into() });
    check(Request::Lineage {
        role: RoleName::parse("web").unwrap(),
        role_id: RoleId(Uuid::from_u128(5)),
        term: term(),
        datasets: vec![DatasetName::parse("files").unwrap()],
        line: Line::first(term()),
        bases: BTreeMap::from([(node(), manifest().point)]),
        kind: Kind::Zfs,
    });
    check(Request::Commit {
        manifest: manifest(),
        term: Some(term()),
    });
    check(Request::Word {
        role: RoleName::parse("web").unwrap(),
        role_id: RoleId(Uuid::from_u128(5)),
        word: Box::new(word()),
    });
    check(Request::Grant {
        role: RoleName::parse("web").unwrap(),
        role_id: RoleId(Uuid::from_u128(5)),
        term: term(),
        line: Line::first(term()),
    });
    check(Request::Ready {
        role: RoleName::parse("web").unwrap(),
        role_id: RoleId(Uuid::from_u128(5)),
    });
    check(Request::Drift {
        names: vec!["nginx".into(), String::new()],
    });
    check(Request::Verify {
        role: RoleName::parse("web").unwrap(),
        role_id: RoleId(Uuid::from_u128(5)),
        term: term(),
        point: manifest().point,
        dataset: DatasetName::parse("db").unwrap(),
        full: true,
        leave: Leave {
            devices: true,
            ..Leave::default()
        },
    });
    check(Request::Describe { role: None });
    check(Request::Describe {
        role: Some(RoleName::parse("web").unwrap()),
    });
    check(Request::Holds {
        role: RoleName::parse("web").unwrap(),
        role_id: RoleId(Uuid::from_u128(5)),
        term: term(),
    });
    check(Request::Fetch {
        role: RoleName::parse("web").unwrap(),
        role_id: RoleId(Uuid::from_u128(5)),
        term: term(),
        point: manifest().point,
        bases: BTreeMap::from([(DatasetName::parse("db").unwrap(), None)]),
    });
    check(Request::Offer(Box::new(Offer {
        manifest: manifest(),
        dataset: DatasetName::parse("db").unwrap(),
        base: Some(manifest().point),
        identity: StreamIdentity {
            snapshot: Uuid::from_u128(1),
            base: None,
            version: 2,
        },
        data_bytes: 1 << 40,
        term: None,
        flags: serde_json::from_str(r#"{"nocow":[257,3],"append":[300,0]}"#).unwrap(),
    })));
}

#[test]
fn answers() {
    check(Answer::Lineage {
        lineage: Lineage::default(),
        partials: vec![],
        term: Some(term()),
        room: BTreeMap::from([(DatasetName::parse("files").unwrap(), 7)]),
        damaged: vec![Damaged {
            name: PointName::of(&manifest().point, Timestamp::UNIX_EPOCH),
            entry: None,
            why: "was changed".into(),
        }],
    });
    check(Answer::Have {
        offset: 7,
        prefix: "ab".into(),
        token: Some("1-ab".into()),
    });
    check(Answer::Mark {
        offset: 1,
        data_bytes: 2,
        checkpoint: 3,
        file: "a/b".into(),
        waiting: 0.5,
    });
    check(Answer::Stored);
    check(Answer::Committed);
    check(Answer::Pong {
        now: Timestamp::UNIX_EPOCH,
    });
    check(Answer::Word {
        word: Some(Box::new(word())),
    });
    check(Answer::Ready {
        problems: vec!["no room".into()],
    });
    check(Answer::Drift {
        found: BTreeMap::from([("nginx".to_owned(), found())]),
    });
    check(Answer::Described {
        roles: vec![Described {
            role: RoleName::parse("web").unwrap(),
            skeleton: Some(Skeleton::default()),
            known: Some(Known {
                id: RoleId(Uuid::from_u128(5)),
                term: term(),
                line: Line::first(term()),
                plays: true,
                newest: Some(manifest().point),
                points: 3,
            }),
        }],
    });
    check(Answer::Reading {
        leave: Leave::default(),
        files: 1,
        bytes: 2,
    });
    check(Answer::Read {
        root: "ab".into(),
        files: 1,
        bytes: 2,
        unreadable: vec!["61".into()],
    });
    check(Answer::Entries {
        entries: vec![verify::Entry {
            name: "61".into(),
            kind: verify::Kind::File,
            meta: "ab".into(),
            data: String::new(),
        }],
        more: true,
    });
    check(Answer::Proof {
        key: "ab".into(),
        signature: "cd".into(),
    });
    check(Answer::Refused(Refusal::new(Code::Fenced, "a higher term")));
    check(SenderWord::Restart {
        why: "prefix differs".into(),
    });
    check(SenderWord::End {
        bytes: 9,
        hash: "cd".into(),
    });
    check(SenderWord::Look {
        dir: "61".into(),
        after: Some("62".into()),
    });
    check(SenderWord::Failed {
        why: "send ioctl".into(),
    });
    check(PairAnswer::Paired {
        node: node(),
        proof: "ef".into(),
    });
    check(PairAnswer::Refused(Refusal::new(Code::Refused, "no")));
}

#[test]
fn words_of_a_newer_version() {
    let word: Control = serde_json::from_str(r#"{"type":"dance","steps":[1]}"#).unwrap();
    assert_eq!(word, Control::Unknown);
    for (code, heard) in [
        ("fenced", Code::Fenced),
        ("eclipsed", Code::Failed),
        ("done", Code::Failed),
    ] {
        let text = format!(r#"{{"type":"refused","code":"{code}","why":"x"}}"#);
        let Ok(Answer::Refused(refusal)) = serde_json::from_str(&text) else {
            panic!("{text}")
        };
        assert_eq!(refusal.code, heard);
    }
}

#[test]
fn a_name_that_is_none_is_refused_while_reading() {
    let text = serde_json::to_string(&hello())
        .unwrap()
        .replace("alder", "../../etc");
    assert!(serde_json::from_str::<Hello>(&text).is_err());
}

#[test]
fn a_peers_words_are_harmless() {
    assert_eq!(plain("a\u{1b}[2Jb\nc"), "a [2Jb c");
    assert_eq!(plain(&"x".repeat(9999)).len(), 504);
}
