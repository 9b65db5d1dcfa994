//! Links whose connections are served by worker processes: what works as without them, what such a process may do, and what
//! it cannot pretend. Workers that lie are played in `src/peer/worker/liars.rs`.

#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::print_stderr)]

mod stage;

use std::fs;
use std::io::{Read, Seek, SeekFrom};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use stage::*;
use standin::error::{Code, Failure};
use standin::peer::accept::{Accepted, Acceptor, listen_tcp};
use standin::peer::bulk::Packer;
use standin::peer::exchange::Item;
use standin::peer::frame::Frame;
use standin::peer::identity::Identity;
use standin::peer::link::{Incoming, Link};
use standin::peer::message::{Answer, Request, SenderWord};
use standin::peer::timing::Timing;
use standin::peer::worker::{User, Workers};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::time::timeout;

/// As the daemon starts them: as nobody where this test is root.
fn workers(identity: &Identity, timing: Timing) -> Workers {
    let (uid, gid) = (65534, 65534);
    let user = rustix::process::geteuid()
        .is_root()
        .then_some(User { uid, gid });
    Workers::new(identity.clone(), user, timing).program(env!("CARGO_BIN_EXE_standin"))
}

/// As [`stage`], with workers at both ends.
async fn worked(timing: Timing) -> (Stage, Workers) {
    let mut stage = stage(timing).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    stage.target = listener.local_addr().unwrap().to_string().parse().unwrap();
    let key = stage.birch.fingerprint();
    let known = move |seen: &_| (*seen == key).then(|| name("birch"));
    let acceptor = Acceptor::new(&stage.alder, known, || hello("alder"), timing).unwrap();
    let (sender, accepted) = mpsc::channel(4);
    let acceptor = acceptor.by(workers(&stage.alder, timing));
    tokio::spawn(listen_tcp(listener, acceptor, sender));
    stage.accepted = accepted;
    let dialling = workers(&stage.birch, timing);
    (stage, dialling)
}

async fn link(stage: &mut Stage, dialling: &Workers) -> ((Link, Incoming), (Link, Incoming)) {
    let expected = stage.expected();
    let (target, ours) = (stage.target.clone(), hello("birch"));
    let dialled = dialling.dial(&target, &expected, &ours);
    let (dialled, accepted) = tokio::join!(dialled, stage.accepted());
    (dialled.unwrap(), accepted)
}

/// The workers of this test process. Tests of this file run beside each other, so those of one pair are found by the port.
fn workers_of(stage: &Stage) -> Vec<u32> {
    let port: u16 = stage.address().rsplit_once(':').unwrap().1.parse().unwrap();
    let inodes: Vec<String> = fs::read_to_string("/proc/net/tcp")
        .unwrap()
        .lines()
        .filter(|line| line.contains(&format!(":{port:04X} ")))
        .map(|line| format!("socket:[{}]", line.split_whitespace().nth(9).unwrap()))
        .collect();
    let pids = fs::read_dir("/proc").unwrap().flatten();
    let pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let holds = |pid: &u32| {
        *pid != std::process::id() && descriptors(*pid).iter().any(|at| inodes.contains(at))
    };
    pids.filter(holds).collect()
}

fn descriptors(pid: u32) -> Vec<String> {
    let entries = fs::read_dir(format!("/proc/{pid}/fd"));
    let links = entries.into_iter().flatten().flatten();
    let targets = links.filter_map(|link| fs::read_link(link.path()).ok());
    targets
        .map(|to: PathBuf| to.display().to_string())
        .collect()
}

fn status(pid: u32, field: &str) -> String {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with(&format!("{field}:")));
    line.unwrap().split_once(':').unwrap().1.trim().to_owned()
}

#[tokio::test]
async fn both_ends_ask_and_a_goodbye_says_why() {
    let (mut stage, dialling) = worked(Timing::default()).await;
    let ((birch, birch_in), (alder, alder_in)) = link(&mut stage, &dialling).await;
    assert_eq!(
        (birch.peer(), alder.peer()),
        (&name("alder"), &name("birch"))
    );
    answer_pings(birch_in);
    answer_pings(alder_in);
    let asking: Vec<_> = (0..60)
        .map(|index| {
            let link = if index % 2 == 0 { &birch } else { &alder }.clone();
            tokio::spawn(async move { ping(&link).await })
        })
        .collect();
    for asked in asking {
        timeout(LONG, asked).await.unwrap().unwrap().unwrap();
    }
    let begun = Instant::now();
    while birch.rtt_ms().is_none() || alder.traffic().received == 0 {
        assert!(begun.elapsed() < LONG, "the workers report nothing");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let odd = serde_json::json!({"type": "dance", "steps": 3});
    let mut exchange = birch.open_with(&odd).await.unwrap();
    let Answer::Refused(refusal) = exchange.recv().await.unwrap() else {
        panic!("it should be refused")
    };
    assert!(refusal.why.contains("does not understand"), "{refusal:?}");
    birch.close("the daemon restarts").await;
    let why = timeout(LONG, alder.closed()).await.unwrap();
    assert!(
        why.contains("birch closed the link: the daemon restarts"),
        "{why}"
    );
    let error = alder.open(&Request::Ping).await.unwrap_err();
    assert_eq!(Failure::code_of(&error), Code::Unreachable, "{error:#}");
}

#[tokio::test]
async fn ends_are_told_from_cuts() {
    let (mut stage, dialling) = worked(Timing::default()).await;
    let ((birch, _birch_in), (_alder, mut alder_in)) = link(&mut stage, &dialling).await;
    for finish in [true, false] {
        let mut sender = birch.open(&Request::Ping).await.unwrap();
        let (_, mut receiver) = alder_in.next().await.unwrap();
        sender.send_frame(&Frame::Raw(vec![1; 10])).await.unwrap();
        let first = receiver.next::<SenderWord>().await.unwrap();
        assert_eq!(first, Item::Data(Frame::Raw(vec![1; 10])));
        if finish {
            sender.finish().await.unwrap();
        } else {
            drop(sender);
        }
        let last = timeout(LONG, receiver.next::<SenderWord>()).await.unwrap();
        match finish {
            true => assert_eq!(last.unwrap(), Item::End),
            false => assert!(last.is_err(), "{last:?}"),
        }
        // A receiver that goes away is noticed by who sends.
        drop(receiver);
    }
    let mut sender = birch.open(&Request::Ping).await.unwrap();
    drop(alder_in.next().await.unwrap());
    let sending = async { while sender.send_frame(&Frame::Raw(vec![0; 9999])).await.is_ok() {} };
    timeout(LONG, sending).await.unwrap();
    assert_eq!(birch.why_closed(), None);
}

/// Places given back: many more exchanges than may be open, one after the other, each left half-way.
#[tokio::test]
async fn an_exchange_that_is_let_go_leaves_nothing_behind() {
    let (mut stage, dialling) = worked(Timing::default()).await;
    let ((birch, _birch_in), (alder, mut alder_in)) = link(&mut stage, &dialling).await;
    for round in 0..60 {
        let mut exchange = birch.open(&Request::Ping).await.unwrap();
        let next = timeout(LONG, alder_in.next()).await;
        let (_, mut far) = next.expect("a place is given back").unwrap();
        if round % 3 > 0 {
            far.send(&Answer::Stored).await.unwrap();
            far.finish().await.unwrap();
            exchange.recv::<Answer>().await.unwrap();
        }
        if round % 3 == 2 {
            exchange.finish().await.unwrap();
        }
    }
    let workers = workers_of(&stage);
    let begun = Instant::now();
    while workers.iter().any(|pid| descriptors(*pid).len() > 16) {
        assert!(begun.elapsed() < LONG, "sockets stay open");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!((birch.why_closed(), alder.why_closed()), (None, None));
}

/// What /proc says of both workers of a link.
#[tokio::test]
async fn a_worker_has_no_rights() {
    let (mut stage, dialling) = worked(Timing::default()).await;
    let _links = link(&mut stage, &dialling).await;
    let workers = workers_of(&stage);
    assert_eq!(workers.len(), 2);
    for pid in workers {
        for set in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
            let set = status(pid, set);
            let root = rustix::process::geteuid().is_root();
            assert!(!root || set.chars().all(|c| c == '0'), "{set}");
        }
        if rustix::process::geteuid().is_root() {
            assert_eq!(status(pid, "Uid"), "65534\t65534\t65534\t65534");
            assert_eq!(status(pid, "Gid"), "65534\t65534\t65534\t65534");
            assert_eq!(status(pid, "Groups"), "");
        }
        assert_eq!(status(pid, "NoNewPrivs"), "1");
        assert_eq!(status(pid, "Seccomp"), "2");
        assert_eq!(status(pid, "Threads"), "1");
        let limits = fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
        for limit in ["Max processes", "Max core file size", "Max file size"] {
            let line = limits.lines().find(|line| line.starts_with(limit)).unwrap();
            let soft = line[limit.len()..].split_whitespace().next();
            assert_eq!(soft, Some("0"), "{line}");
        }
        for descriptor in descriptors(pid) {
            // /dev/null: some shells hand a descriptor down to all they start.
            let harmless = ["socket:", "pipe:", "anon_inode:[event", "/dev/null"];
            assert!(
                harmless.iter().any(|kind| descriptor.starts_with(kind)),
                "{descriptor}"
            );
        }
        let environment = fs::read(format!("/proc/{pid}/environ")).unwrap();
        assert!(environment.starts_with(b"RUST_LOG="), "{environment:?}");
    }
}

/// Whether the bytes stand anywhere in what the process has mapped.
fn in_memory(pid: u32, bytes: &[u8]) -> bool {
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
    let mut memory = fs::File::open(format!("/proc/{pid}/mem")).unwrap();
    maps.lines().any(|line| {
        let (from, to) = line.split(' ').next().unwrap().split_once('-').unwrap();
        let [from, to] = [from, to].map(|at| u64::from_str_radix(at, 16).unwrap());
        if !line.contains(" rw") {
            return false;
        }
        let mut held = Vec::new();
        memory.seek(SeekFrom::Start(from)).unwrap();
        // A part that cannot be read ends the reading of this mapping.
        let _ = (&mut memory).take(to - from).read_to_end(&mut held);
        held.windows(bytes.len()).any(|window| window == bytes)
    })
}

/// The memory of a worker holds what it was told of the key, and not the key.
#[tokio::test]
async fn a_worker_never_has_the_key() {
    if !rustix::process::geteuid().is_root() {
        println!("SKIPPED a_worker_never_has_the_key: only root reads another process's memory");
        return;
    }
    use base64::Engine;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("node.key");
    let (mut stage, _) = worked(Timing::default()).await;
    // birch dials with a key whose bytes this test knows: both must be the one alder has pinned.
    let identity = Identity::create(&path).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    stage.target = listener.local_addr().unwrap().to_string().parse().unwrap();
    let acceptor = Acceptor::new(
        &stage.alder,
        |_| Some(name("birch")),
        || hello("alder"),
        stage.timing,
    );
    let (sender, accepted) = mpsc::channel(4);
    let acceptor = acceptor.unwrap().by(workers(&stage.alder, stage.timing));
    tokio::spawn(listen_tcp(listener, acceptor, sender));
    stage.accepted = accepted;
    let dialling = workers(&identity, stage.timing);
    let _links = link(&mut stage, &dialling).await;

    let pem = fs::read_to_string(&path).unwrap();
    let body: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
    let der = base64::engine::general_purpose::STANDARD
        .decode(body)
        .unwrap();
    // PKCS#8 of an Ed25519 key (RFC 8410, section 7): the seed follows 04 22 04 20.
    let at = der
        .windows(4)
        .position(|head| head == [4, 0x22, 4, 0x20])
        .unwrap();
    let seed = &der[at + 4..at + 36];
    let certificate_name = b"standin/1";
    let pids = workers_of(&stage);
    assert_eq!(pids.len(), 2);
    for pid in pids {
        assert!(
            in_memory(pid, certificate_name),
            "the search finds what is there"
        );
        assert!(!in_memory(pid, seed), "worker {pid} holds the key");
    }
}

/// The other end holds the pinned key in its TLS, yet its daemon proves nothing.
#[tokio::test]
async fn a_peer_that_proves_nothing_is_refused() {
    let stage = stage(Timing::default()).await;
    let mut accepted = stage.accepted;
    tokio::spawn(async move {
        while let Some(Accepted::Link(link, mut incoming)) = accepted.recv().await {
            tokio::spawn(async move {
                // Asks for nothing, and answers with rubbish.
                let (_, mut exchange) = incoming.next().await.unwrap();
                let rubbish = Answer::Proof {
                    key: "00".repeat(32),
                    signature: "00".repeat(64),
                };
                exchange.send(&rubbish).await.unwrap();
                link.closed().await;
            });
        }
    });
    let expected = standin::peer::dial::Expected {
        name: name("alder"),
        fingerprint: stage.alder.fingerprint(),
    };
    let dialling = workers(&stage.birch, stage.timing);
    let ours = hello("birch");
    let dialled = dialling.dial(&stage.target, &expected, &ours);
    let error = timeout(LONG, dialled).await.unwrap().unwrap_err();
    assert_eq!(Failure::code_of(&error), Code::Refused);
    let text = format!("{error:#}");
    assert!(text.contains("alder does not prove its key"), "{text}");
}

#[tokio::test]
async fn the_wrong_key_and_nobody_there_are_told_as_without_workers() {
    let stage = stage(Timing::default()).await;
    let mut expected = stage.expected();
    expected.fingerprint = Identity::ephemeral().unwrap().fingerprint();
    let dialling = workers(&stage.birch, stage.timing);
    let ours = hello("birch");
    let error = dialling.dial(&stage.target, &expected, &ours).await;
    let error = error.unwrap_err();
    assert_eq!(Failure::code_of(&error), Code::Refused);
    for key in [stage.alder.fingerprint(), expected.fingerprint] {
        assert!(format!("{error:#}").contains(&key.to_string()), "{error:#}");
    }
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let nobody = listener.local_addr().unwrap().to_string().parse().unwrap();
    drop(listener);
    let error = dialling.dial(&nobody, &expected, &ours).await.unwrap_err();
    assert_eq!(Failure::code_of(&error), Code::Unreachable);
    assert!(format!("{error:#}").contains("at 127.0.0.1"), "{error:#}");
    let command = ["sh", "-c", "echo 'Permission denied' >&2; exit 255"].map(str::to_owned);
    let command = standin::peer::dial::Target::Command(command.to_vec());
    let error = dialling.dial(&command, &expected, &ours).await.unwrap_err();
    let text = format!("{error:#}");
    assert!(
        text.contains("Permission denied") && text.contains("255"),
        "{text}"
    );
    let named = "localhost:1".parse().unwrap();
    let error = dialling.dial(&named, &expected, &ours).await.unwrap_err();
    assert!(format!("{error:#}").contains("connect to"), "{error:#}");
}

#[tokio::test]
async fn a_worker_that_is_killed_ends_its_link_only() {
    let (mut stage, dialling) = worked(Timing::default()).await;
    let first = link(&mut stage, &dialling).await;
    let before = workers_of(&stage);
    let second = link(&mut stage, &dialling).await;
    for pid in before {
        let pid = rustix::process::Pid::from_raw(pid.try_into().unwrap()).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    }
    for link in [&first.0.0, &first.1.0] {
        let why = timeout(LONG, link.closed()).await.unwrap();
        assert!(
            why.contains("signal: 9") || why.contains("without a goodbye") || why.contains("reset"),
            "{why}"
        );
    }
    answer_pings(second.1.1);
    ping(&second.0.0).await.unwrap();
}

/// Packed and raw data to a receiver that stops for a while: nothing is lost, little waits, beats go on, memory is bounded.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bulk_arrives_whole_unpacked_and_in_bounded_memory() {
    const FRAME: usize = 128 * 1024;
    const FRAMES: usize = 1000;
    let (mut stage, dialling) = worked(Timing::default()).await;
    let ((birch, _birch_in), (alder, mut alder_in)) = link(&mut stage, &dialling).await;
    let sender = birch.open(&Request::Ping).await.unwrap();
    let (_, receiver) = alder_in.next().await.unwrap();
    let piece = |index: usize| {
        let byte = |at: usize| if at % 64 == 0 { index as u8 } else { at as u8 };
        (0..FRAME).map(byte).collect::<Vec<u8>>()
    };
    let sent = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let sending = tokio::spawn({
        let sent = sent.clone();
        async move {
            let (mut sending, mut marks) = sender.into_split();
            let mut packer = Packer::new(3).unwrap();
            for index in 0..FRAMES {
                let frame = match index % 3 {
                    0 => packer.pack(&piece(index)).unwrap(),
                    _ => Frame::Raw(piece(index)),
                };
                sending.send_frame(&frame).await.unwrap();
                sent.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            }
            sending.finish().await.unwrap();
            assert_eq!(marks.recv::<Answer>().await.unwrap(), Answer::Stored);
        }
    });
    // Not reading: the sender comes to a halt, and the link lives.
    let mut seen = usize::MAX;
    while seen != sent.load(std::sync::atomic::Ordering::Relaxed) {
        seen = sent.load(std::sync::atomic::Ordering::Relaxed);
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    assert!(seen * FRAME < 48 << 20, "{seen} frames went out unread");
    assert_eq!((birch.why_closed(), alder.why_closed()), (None, None));
    let (mut answers, mut receiving) = receiver.into_split();
    let mut received = 0;
    let mut wire = 0;
    while let Item::Data(frame) = receiving.next::<SenderWord>().await.unwrap() {
        assert!(!matches!(frame, Frame::Zstd { .. }), "it came packed");
        assert_eq!(frame.data(), Some(&piece(received)[..]));
        received += 1;
        wire += frame.wire_bytes();
    }
    assert_eq!(received, FRAMES);
    assert!(wire < FRAMES * FRAME * 3 / 4, "{wire} bytes on the wire");
    answers.send(&Answer::Stored).await.unwrap();
    sending.await.unwrap();
    for pid in workers_of(&stage) {
        let peak = status(pid, "VmHWM");
        let kib: u64 = peak.split(' ').next().unwrap().parse().unwrap();
        assert!(kib <= 64 * 1024, "a worker used {peak}");
    }
}

#[tokio::test]
async fn by_hand_it_refuses() {
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_standin"));
    let said = command
        .arg("link-worker")
        .stdin(std::process::Stdio::null())
        .output()
        .await
        .unwrap();
    assert_eq!(said.status.code(), Some(2), "{said:?}");
    let text = String::from_utf8_lossy(&said.stderr).into_owned();
    assert!(text.contains("only the daemon starts one"), "{text}");
}
