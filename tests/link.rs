//! Links between two ends in one process: what works, what is refused, and what a hostile or silent other end can do.
//! Pairing over the wire is in `tests/pairing.rs`.

use std::sync::Arc;
use std::time::{Duration, Instant};

use standin::error::{Code, Failure};
use standin::logic::name::NodeName;
use standin::peer::accept::{Accepted, Acceptor, PENDING_MAX, listen_tcp};
use standin::peer::dial::{Expected, Target, dial};
use standin::peer::exchange::{Exchange, Item};
use standin::peer::frame::Frame;
use standin::peer::identity::Identity;
use standin::peer::link::{INCOMING_MAX, Incoming, Link};
use standin::peer::message::{Answer, Hello, PROTOCOL, Request, SenderWord};
use standin::peer::timing::Timing;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::timeout;

const LONG: Duration = Duration::from_secs(30);

fn name(word: &str) -> NodeName {
    NodeName::parse(word).unwrap()
}

fn hello(node: &str) -> Hello {
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
fn brisk() -> Timing {
    Timing {
        beat: Duration::from_millis(50),
        silence: Duration::from_millis(600),
        hello: Duration::from_millis(500),
        handshake: Duration::from_millis(500),
        request: Duration::from_millis(300),
        close: Duration::from_millis(300),
        ..Timing::default()
    }
}

/// `alder` listens and knows one key by the name of `birch`.
struct Stage {
    alder: Identity,
    birch: Identity,
    target: Target,
    accepted: mpsc::Receiver<Accepted>,
    timing: Timing,
}

async fn stage(timing: Timing) -> Stage {
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
    fn expected(&self) -> Expected {
        Expected {
            name: name("alder"),
            fingerprint: self.alder.fingerprint(),
        }
    }

    async fn dial(&self) -> anyhow::Result<(Link, Incoming)> {
        dial(
            &self.birch,
            &self.target,
            &self.expected(),
            &hello("birch"),
            self.timing,
        )
        .await
    }

    async fn accepted(&mut self) -> (Link, Incoming) {
        match timeout(LONG, self.accepted.recv()).await.unwrap().unwrap() {
            Accepted::Link(link, incoming) => (link, incoming),
            Accepted::Pairing(conversation) => panic!("{conversation:?}"),
        }
    }

    /// Both ends of one link: birch's (dialled), alder's (accepted).
    async fn link(&mut self) -> ((Link, Incoming), (Link, Incoming)) {
        let dialled = self.dial().await.unwrap();
        (dialled, self.accepted().await)
    }

    fn address(&self) -> String {
        self.target.to_string()
    }
}

/// Answers pings until the link is down.
fn answer_pings(mut incoming: Incoming) {
    tokio::spawn(async move {
        while let Some((request, mut exchange)) = incoming.next().await {
            assert_eq!(request, Request::Ping);
            let now = jiff::Timestamp::now();
            exchange.send(&Answer::Pong { now }).await.unwrap();
            exchange.finish().await.unwrap();
        }
    });
}

async fn ping(link: &Link) -> anyhow::Result<Answer> {
    let mut exchange = link.open(&Request::Ping).await?;
    exchange.recv().await
}

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

/// Clients that send rubbish, or one byte, or nothing, and stay: a good one still gets its link at once.
#[tokio::test]
async fn bad_clients_disturb_nobody() {
    let mut stage = stage(Timing::default()).await;
    let mut bad = Vec::new();
    for index in 0..PENDING_MAX * 3 {
        let mut stream = TcpStream::connect(stage.address()).await.unwrap();
        match index % 3 {
            0 => stream.write_all(&[0x16]).await.unwrap(),
            1 => stream.write_all(&[index as u8; 4096]).await.unwrap(),
            _ => {}
        }
        bad.push(stream);
    }
    let start = Instant::now();
    let ((birch, _birch_in), (_alder, alder_in)) = stage.link().await;
    assert!(
        start.elapsed() < Duration::from_secs(5),
        "{:?}",
        start.elapsed()
    );
    answer_pings(alder_in);
    ping(&birch).await.unwrap();
}

#[tokio::test]
async fn a_slow_handshake_ends_in_time() {
    let stage = stage(brisk()).await;
    let mut stream = TcpStream::connect(stage.address()).await.unwrap();
    stream.write_all(&[0x16]).await.unwrap();
    let mut rest = Vec::new();
    let start = Instant::now();
    let _ = timeout(LONG, stream.read_to_end(&mut rest)).await.unwrap();
    assert!(start.elapsed() >= stage.timing.handshake / 2);
}

/// What a relay does with bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Line {
    Open,
    /// Nothing passes, nothing is closed.
    Frozen,
    /// Both connections are closed at the next byte.
    Cut,
}

/// A relay between the two ends, with a switch.
async fn relay(to: String) -> (Target, tokio::sync::watch::Sender<Line>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let target = listener.local_addr().unwrap().to_string().parse().unwrap();
    let (switch, line) = tokio::sync::watch::channel(Line::Open);
    tokio::spawn(async move {
        let (near, _) = listener.accept().await.unwrap();
        let far = TcpStream::connect(to).await.unwrap();
        let (near_read, near_write) = near.into_split();
        let (far_read, far_write) = far.into_split();
        tokio::spawn(carry(near_read, far_write, line.clone()));
        tokio::spawn(carry(far_read, near_write, line));
    });
    (target, switch)
}

async fn carry(
    mut from: tokio::net::tcp::OwnedReadHalf,
    mut to: tokio::net::tcp::OwnedWriteHalf,
    mut line: tokio::sync::watch::Receiver<Line>,
) {
    let mut buffer = vec![0; 16 * 1024];
    while let Ok(bytes @ 1..) = from.read(&mut buffer).await {
        let state = line
            .wait_for(|state| *state != Line::Frozen)
            .await
            .map(|state| *state);
        if !matches!(state, Ok(Line::Open)) || to.write_all(&buffer[..bytes]).await.is_err() {
            return;
        }
    }
}

#[tokio::test]
async fn a_silent_link_is_dead_on_both_sides() {
    let mut stage = stage(brisk()).await;
    let (target, switch) = relay(stage.address()).await;
    stage.target = target;
    let ((birch, _birch_in), (alder, _alder_in)) = stage.link().await;
    let mut open = birch.open(&Request::Ping).await.unwrap();
    let start = Instant::now();
    switch.send(Line::Frozen).unwrap();
    for link in [&birch, &alder] {
        let why = timeout(LONG, link.closed()).await.unwrap();
        assert!(why.contains("nothing was heard for 0.6 s"), "{why}");
    }
    assert!(
        start.elapsed() < Duration::from_secs(5),
        "{:?}",
        start.elapsed()
    );
    let error = open.recv::<Answer>().await.unwrap_err();
    assert_eq!(Failure::code_of(&error), Code::Unreachable, "{error:#}");
}

/// The other end vanishes without a word: the connection is there, nobody answers.
#[tokio::test]
async fn a_half_open_link_is_noticed_while_sending() {
    let mut stage = stage(brisk()).await;
    let (target, switch) = relay(stage.address()).await;
    stage.target = target;
    let ((birch, _birch_in), (_alder, mut alder_in)) = stage.link().await;
    let mut sender = birch.open(&Request::Ping).await.unwrap();
    let (_, _unread) = alder_in.next().await.unwrap();
    switch.send(Line::Frozen).unwrap();
    let sending = async {
        loop {
            if let Err(error) = sender.send_frame(&Frame::Raw(vec![0; 100_000])).await {
                return error;
            }
        }
    };
    let error = timeout(LONG, sending).await.unwrap();
    assert_eq!(Failure::code_of(&error), Code::Unreachable, "{error:#}");
}

#[tokio::test]
async fn a_link_cut_by_the_network_says_so() {
    let mut stage = stage(Timing::default()).await;
    let (target, switch) = relay(stage.address()).await;
    stage.target = target;
    let ((birch, _birch_in), (alder, _alder_in)) = stage.link().await;
    switch.send(Line::Cut).unwrap();
    let _ = birch.open(&Request::Ping).await;
    let _ = alder.open(&Request::Ping).await;
    for link in [birch, alder] {
        timeout(LONG, link.closed()).await.unwrap();
    }
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
    // An exchange that begins with something that is no request of ours: said over the raw sending half.
    let exchange = odd_request(&birch).await;
    let (_sending, mut receiving) = exchange.into_split();
    let Answer::Refused(refusal) = receiving.recv().await.unwrap() else {
        panic!("it should be refused")
    };
    assert!(
        refusal.why.contains("does not understand"),
        "{}",
        refusal.why
    );
    ping(&birch).await.unwrap();
}

async fn odd_request(link: &Link) -> Exchange {
    link.open_with(&serde_json::json!({"type": "dance", "steps": 3}))
        .await
        .unwrap()
}

fn resident_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: u64 = status.split(' ').nth(1).unwrap().parse().unwrap();
    pages * 4096
}

/// 200 MB to a receiver that stops for a while: nothing is lost, and what waits is bounded.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bulk_arrives_whole_in_bounded_memory() {
    const FRAME: usize = 128 * 1024;
    const FRAMES: usize = 200_000_000 / FRAME;
    let mut stage = stage(Timing::default()).await;
    let ((birch, _birch_in), (_alder, mut alder_in)) = stage.link().await;
    let sender = birch.open(&Request::Ping).await.unwrap();
    let (_, receiver) = alder_in.next().await.unwrap();
    let before = resident_bytes();
    let sent = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let sending = tokio::spawn({
        let sent = sent.clone();
        async move {
            let (mut sending, mut marks) = sender.into_split();
            for index in 0..FRAMES {
                sending
                    .send_frame(&Frame::Raw(vec![index as u8; FRAME]))
                    .await
                    .unwrap();
                sent.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            }
            sending.finish().await.unwrap();
            assert_eq!(marks.recv::<Answer>().await.unwrap(), Answer::Stored);
        }
    });
    // Not reading: the sender comes to a halt.
    let mut seen = usize::MAX;
    while seen != sent.load(std::sync::atomic::Ordering::Relaxed) {
        seen = sent.load(std::sync::atomic::Ordering::Relaxed);
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    assert!(
        seen * FRAME < 32 << 20,
        "{seen} frames went out before anybody read"
    );
    let (mut answers, mut receiving) = receiver.into_split();
    let mut received = 0;
    let mut peak = 0;
    while let Item::Data(frame) = receiving.next::<SenderWord>().await.unwrap() {
        assert_eq!(frame, Frame::Raw(vec![received as u8; FRAME]));
        received += 1;
        peak = peak.max(resident_bytes());
    }
    assert_eq!(received, FRAMES);
    answers.send(&Answer::Stored).await.unwrap();
    sending.await.unwrap();
    let grown = peak.saturating_sub(before);
    assert!(grown < 64 << 20, "grew by {grown} bytes");
}
