//! Links in trouble: other ends that are hostile, silent, slow or cut off, and data faster than they are read.

#![allow(clippy::unwrap_used)]

mod stage;

use std::sync::Arc;
use std::time::{Duration, Instant};

use stage::*;
use standin::error::{Code, Failure};
use standin::peer::accept::PENDING_MAX;
use standin::peer::dial::Target;
use standin::peer::exchange::Item;
use standin::peer::frame::Frame;
use standin::peer::message::{Answer, Request, SenderWord};
use standin::peer::timing::Timing;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

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
    let hasty = Timing {
        handshake: Duration::from_millis(300),
        ..Timing::default()
    };
    let stage = stage(hasty).await;
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
        assert!(why.contains("nothing was heard for 1.5 s"), "{why}");
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
