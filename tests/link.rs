//! Links between two ends in one process: what works, and what is refused in words. What a hostile, silent or slow other end
//! can do is in `tests/link_trouble.rs`, pairing in `tests/pairing.rs`.

#![allow(clippy::unwrap_used)]

mod stage;

use std::time::{Duration, Instant};

use stage::*;
use standin::error::{Code, Failure};
use standin::peer::accept::{Accepted, Acceptor, listen_unix};
use standin::peer::dial::{Expected, dial, dial_over};
use standin::peer::exchange::Item;
use standin::peer::frame::Frame;
use standin::peer::identity::Identity;
use standin::peer::link::INCOMING_MAX;
use standin::peer::message::{Answer, Request, SenderWord};
use standin::peer::timing::Timing;
use tokio::time::timeout;

#[tokio::test]
async fn both_ends_greet_and_both_ask() {
    let mut stage = stage(Timing::default()).await;
    let ((birch, birch_in), (alder, alder_in)) = stage.link().await;
    assert_eq!(
        (birch.peer(), alder.peer()),
        (&name("alder"), &name("birch"))
    );
    assert_eq!(birch.hello().node, name("alder"));
    assert_eq!(birch.protocol(), 1);
    answer_pings(birch_in);
    answer_pings(alder_in);
    for _ in 0..50 {
        let (there, back) = tokio::join!(ping(&birch), ping(&alder));
        assert!(matches!(there.unwrap(), Answer::Pong { .. }));
        assert!(matches!(back.unwrap(), Answer::Pong { .. }));
    }
}

#[tokio::test]
async fn many_exchanges_at_once_wait_their_turn() {
    let mut stage = stage(Timing::default()).await;
    let ((birch, _birch_in), (_alder, alder_in)) = stage.link().await;
    answer_pings(alder_in);
    let asking: Vec<_> = (0..100)
        .map(|_| {
            let link = birch.clone();
            tokio::spawn(async move { ping(&link).await })
        })
        .collect();
    for asked in asking {
        timeout(LONG, asked).await.unwrap().unwrap().unwrap();
    }
}

#[tokio::test]
async fn the_round_trip_is_measured_and_beats_keep_the_link_alive() {
    let timing = brisk();
    let mut stage = stage(timing).await;
    let ((birch, _birch_in), (alder, _alder_in)) = stage.link().await;
    let start = Instant::now();
    while birch.rtt_ms().is_none()
        || alder.rtt_ms().is_none()
        || start.elapsed() < timing.silence * 2
    {
        assert!(start.elapsed() < LONG);
        assert_eq!((birch.why_closed(), alder.why_closed()), (None, None));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(birch.rtt_ms().unwrap() < 1000.0);
    assert!(birch.traffic().received > 0 && birch.traffic().sent > 0);
}

#[tokio::test]
async fn a_goodbye_says_why() {
    let mut stage = stage(Timing::default()).await;
    let ((birch, _birch_in), (alder, mut alder_in)) = stage.link().await;
    let mut open = birch.open(&Request::Ping).await.unwrap();
    alder_in.next().await.unwrap();
    birch.close("the daemon restarts").await;
    let why = timeout(LONG, alder.closed()).await.unwrap();
    assert!(
        why.contains("birch closed the link: the daemon restarts"),
        "{why}"
    );
    let error = open.recv::<Answer>().await.unwrap_err();
    assert_eq!(Failure::code_of(&error), Code::Unreachable, "{error:#}");
    assert!(
        format!("{error:#}").contains("closed here: the daemon restarts"),
        "{error:#}"
    );
    let error = alder.open(&Request::Ping).await.unwrap_err();
    assert!(
        format!("{error:#}").contains("the daemon restarts"),
        "{error:#}"
    );
    assert!(timeout(LONG, alder_in.next()).await.unwrap().is_none());
}

#[tokio::test]
async fn whoever_waits_on_a_link_hears_of_its_end_on_both_sides() {
    let mut stage = stage(Timing::default()).await;
    let ((birch, mut birch_in), (alder, mut alder_in)) = stage.link().await;
    let mut ours = birch.open(&Request::Ping).await.unwrap();
    let mut theirs = alder.open(&Request::Ping).await.unwrap();
    // Nobody answers; both wait already when the end comes.
    let _unanswered = (alder_in.next().await, birch_in.next().await);
    let waiting = [
        tokio::spawn(async move { ours.recv::<Answer>().await }),
        tokio::spawn(async move { theirs.recv::<Answer>().await }),
    ];
    // One thread runs all: when this task goes on, the others have come to their waiting.
    tokio::task::yield_now().await;
    birch.close("a newer link took its place").await;
    for waiting in waiting {
        let ended = timeout(LONG, waiting).await.expect("nobody woke it");
        let error = ended.unwrap().unwrap_err();
        assert_eq!(Failure::code_of(&error), Code::Unreachable, "{error:#}");
    }
}

#[tokio::test]
async fn the_last_handle_closes_the_link() {
    let mut stage = stage(Timing::default()).await;
    let ((birch, birch_in), (alder, _alder_in)) = stage.link().await;
    drop((birch, birch_in));
    let why = timeout(LONG, alder.closed()).await.unwrap();
    assert!(why.contains("closed"), "{why}");
}

#[tokio::test]
async fn another_key_at_the_other_end() {
    let stage = stage(Timing::default()).await;
    let expected = Expected {
        name: name("alder"),
        fingerprint: Identity::ephemeral().unwrap().fingerprint(),
    };
    let dialled = dial(
        &stage.birch,
        &stage.target,
        &expected,
        &hello("birch"),
        stage.timing,
    )
    .await;
    let error = dialled.unwrap_err();
    assert_eq!(Failure::code_of(&error), Code::Refused);
    let text = format!("{error:#}");
    for key in [stage.alder.fingerprint(), expected.fingerprint] {
        assert!(text.contains(&key.to_string()), "{text}");
    }
}

#[tokio::test]
async fn a_key_that_is_not_pinned_is_refused_with_the_way_out() {
    let stage = stage(Timing::default()).await;
    let stranger = Identity::ephemeral().unwrap();
    let dialled = dial(
        &stranger,
        &stage.target,
        &stage.expected(),
        &hello("birch"),
        stage.timing,
    )
    .await;
    let error = dialled.unwrap_err();
    assert_eq!(Failure::code_of(&error), Code::Refused);
    let text = format!("{error:#}");
    assert!(text.contains(&stranger.fingerprint().to_string()), "{text}");
    assert!(
        Failure::of(&error)
            .unwrap()
            .hint
            .as_deref()
            .unwrap()
            .contains("standin pair invite")
    );
}

#[tokio::test]
async fn a_name_that_is_not_the_pinned_one() {
    let stage = stage(Timing::default()).await;
    let dialled = dial(
        &stage.birch,
        &stage.target,
        &stage.expected(),
        &hello("cedar"),
        stage.timing,
    )
    .await;
    let text = format!("{:#}", dialled.unwrap_err());
    assert!(text.contains("birch") && text.contains("cedar"), "{text}");
}

#[tokio::test]
async fn no_common_version() {
    let stage = stage(Timing::default()).await;
    let mut ours = hello("birch");
    ours.protocol = (7, 9);
    let error = dial(
        &stage.birch,
        &stage.target,
        &stage.expected(),
        &ours,
        stage.timing,
    )
    .await
    .unwrap_err();
    let text = format!("{error:#}");
    assert!(text.contains("7 to 9") && text.contains("1 to 1"), "{text}");
}

#[tokio::test]
async fn a_cut_exchange_is_not_a_finished_one() {
    let mut stage = stage(Timing::default()).await;
    let ((birch, _birch_in), (_alder, mut alder_in)) = stage.link().await;
    for finish in [true, false] {
        let mut sender = birch.open(&Request::Ping).await.unwrap();
        let (_, mut receiver) = alder_in.next().await.unwrap();
        sender.send_frame(&Frame::Raw(vec![1; 10])).await.unwrap();
        if finish {
            sender.finish().await.unwrap();
        } else {
            drop(sender);
        }
        let first = receiver.next::<SenderWord>().await.unwrap();
        assert_eq!(first, Item::Data(Frame::Raw(vec![1; 10])));
        let last = timeout(LONG, receiver.next::<SenderWord>()).await.unwrap();
        match finish {
            true => assert_eq!(last.unwrap(), Item::End),
            false => assert!(
                last.unwrap_err()
                    .to_string()
                    .contains("exchange with birch")
            ),
        }
    }
    assert_eq!(birch.why_closed(), None);
}

#[tokio::test]
async fn more_exchanges_than_admitted_are_reset_and_the_link_lives() {
    let mut stage = stage(Timing::default()).await;
    let ((birch, _birch_in), (_alder, mut alder_in)) = stage.link().await;
    let mut held = Vec::new();
    // Dropping our end at once lets us open more than a polite node would; the other end still holds them.
    for _ in 0..INCOMING_MAX {
        let exchange = birch.open(&Request::Ping).await.unwrap();
        held.push(timeout(LONG, alder_in.next()).await.unwrap().unwrap());
        drop(exchange);
    }
    let mut surplus = birch.open(&Request::Ping).await.unwrap();
    assert!(
        timeout(LONG, surplus.recv::<Answer>())
            .await
            .unwrap()
            .is_err()
    );
    held.clear();
    answer_pings(alder_in);
    let start = Instant::now();
    while ping(&birch).await.is_err() {
        assert!(start.elapsed() < LONG);
    }
}

#[tokio::test]
async fn a_request_of_another_version_is_refused_in_words() {
    let mut stage = stage(Timing::default()).await;
    let ((birch, _birch_in), (_alder, alder_in)) = stage.link().await;
    answer_pings(alder_in);
    let odd = serde_json::json!({"type": "dance", "steps": 3});
    let mut exchange = birch.open_with(&odd).await.unwrap();
    let Answer::Refused(refusal) = exchange.recv().await.unwrap() else {
        panic!("it should be refused")
    };
    assert!(
        refusal.why.contains("does not understand"),
        "{}",
        refusal.why
    );
    ping(&birch).await.unwrap();
}

/// What `standin link --stdio` leads to: a local socket, and behind it the same conversation.
#[tokio::test]
async fn over_a_unix_socket() {
    let (alder, birch) = (
        Identity::ephemeral().unwrap(),
        Identity::ephemeral().unwrap(),
    );
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("link.sock");
    let listener = tokio::net::UnixListener::bind(&path).unwrap();
    let acceptor = Acceptor::new(
        &alder,
        |_| Some(name("birch")),
        || hello("alder"),
        Timing::default(),
    );
    let (sender, mut accepted) = tokio::sync::mpsc::channel(1);
    tokio::spawn(listen_unix(listener, acceptor.unwrap(), sender));
    let expected = Expected {
        name: name("alder"),
        fingerprint: alder.fingerprint(),
    };
    let stream = tokio::net::UnixStream::connect(&path).await.unwrap();
    let ours = hello("birch");
    let dialled = dial_over(stream, &birch, &expected, &ours, Timing::default());
    let (link, _incoming) = dialled.await.unwrap();
    let Some(Accepted::Link(_link, incoming)) = accepted.recv().await else {
        panic!("it should be a link")
    };
    answer_pings(incoming);
    ping(&link).await.unwrap();
}
