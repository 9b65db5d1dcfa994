//! The emulated line keeps what it claims: rate, delay, loss, cuts, each way by itself, and leaves nothing behind.
//!
//! Whoever judges the program by the line (campaigns, benchmarks) relies on this.
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::print_stderr)]

mod support;

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use support::fixture;
use support::wire::{ADDRESSES, Quality, Seen, WAYS, Way, Wire};

fn ready(test: &str) -> bool {
    if !fixture::ready(test) {
        return false;
    }
    let why = support::wire::missing();
    if let Some(why) = why {
        println!("SKIPPED {test}: {why}");
        assert!(std::env::var_os("CI").is_none(), "{test} skipped in CI");
    }
    why.is_none()
}

/// Runs python on one end to its end and gives what it printed.
fn python(wire: &Wire, end: usize, program: &str) -> std::process::Child {
    let words = wire.inside(end);
    Command::new(&words[0])
        .args(&words[1..])
        .args(["python3", "-c", program])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

/// Sends datagrams of `bytes` (IP and UDP heads included) from one end at `pace` seconds, `count` of them.
fn datagrams(wire: &Wire, end: usize, bytes: usize, count: u64, pace: f64) {
    let (theirs, payload) = (ADDRESSES[1 - end], bytes - 28);
    let program = format!(
        "import socket,time\ns=socket.socket(socket.AF_INET,socket.SOCK_DGRAM)\nb=time.monotonic()\n\
         for i in range({count}):\n s.sendto(b'x'*{payload},('{theirs}',9))\n \
         time.sleep(max(0,b+(i+1)*{pace}-time.monotonic()))"
    );
    assert!(python(wire, end, &program).wait().unwrap().success());
}

/// Waits until nothing is on its way any more.
fn settled(wire: &Wire, way: Way) -> Seen {
    let begun = Instant::now();
    let mut last = (wire.seen(way), Instant::now());
    while last.1.elapsed() < Duration::from_millis(500) {
        assert!(begun.elapsed() < Duration::from_secs(30), "it never ends");
        std::thread::sleep(Duration::from_millis(20));
        let seen = wire.seen(way);
        if seen != last.0 {
            last = (seen, Instant::now());
        }
    }
    last.0
}

fn near(what: &str, got: f64, wanted: f64, share: f64) {
    assert!(
        (got - wanted).abs() <= wanted * share,
        "{what}: {got} instead of {wanted}"
    );
}

/// Twice as much as the line takes is sent for `seconds`; what arrives is the rate.
fn check_rate(rate: u64, seconds: u64) {
    let quality = Quality {
        rate,
        // No less than 50 ms of it: on a busy machine the wire is not looked after for longer than 10.
        queue: (rate as usize / 8 / 20).max(32 * 1024),
        ..Quality::default()
    };
    let wire = Wire::new(quality, 1);
    let bytes = 1000;
    let count = 2 * rate * seconds / 8 / bytes;
    let begun = Instant::now();
    datagrams(
        &wire,
        0,
        bytes as usize,
        count,
        seconds as f64 / count as f64,
    );
    let took = begun.elapsed();
    let seen = wire.seen(Way::There);
    assert!(seen.overflowed > count / 4, "{seen:?}");
    // The start of python is not sending: the queue is what it was at the end, so count from the packets themselves.
    let most = rate as f64 * took.as_secs_f64() / 8.0;
    assert!((seen.arrived as f64) < most * 1.02, "{seen:?} in {took:?}");
    let least = rate as f64 * seconds as f64 / 8.0;
    assert!((seen.arrived as f64) > least * 0.97, "{seen:?} in {took:?}");
}

#[test]
fn the_rate_is_kept() {
    if !ready("the_rate_is_kept") {
        return;
    }
    check_rate(2_000_000, 4);
    check_rate(20_000_000, 3);
}

#[test]
fn losses_are_as_many_as_asked_for_and_one_way_only() {
    if !ready("losses_are_as_many_as_asked_for_and_one_way_only") {
        return;
    }
    let wire = Wire::new(Quality::default(), 7);
    let lossy = Quality {
        loss: 50,
        ..Quality::default()
    };
    wire.set(Way::There, lossy);
    datagrams(&wire, 0, 200, 10_000, 0.0001);
    datagrams(&wire, 1, 200, 1000, 0.0001);
    let (there, back) = (settled(&wire, Way::There), settled(&wire, Way::Back));
    // 10000 draws with 5 %: three standard deviations are 65.
    near("lost", there.lost as f64, 500.0, 0.15);
    // Nobody listens: there are a few "unreachable" in return, by the kernel's own limit.
    assert!(there.packets >= 10_000, "{there:?}");
    assert_eq!((back.lost, back.overflowed), (0, 0), "{back:?}");
    assert_eq!(back.sent, back.arrived);
}

/// The least, the median and the longest of 20 round trips, in seconds.
fn round_trips(wire: &Wire) -> [f64; 3] {
    let theirs = ADDRESSES[1];
    let mut echo = python(
        wire,
        1,
        "import socket\ns=socket.socket(socket.AF_INET,socket.SOCK_DGRAM)\ns.bind(('0.0.0.0',7))\n\
         print('up',flush=True)\nwhile True:\n d,a=s.recvfrom(99)\n s.sendto(d,a)",
    );
    // Its first word says that it listens.
    let mut word = [0; 2];
    std::io::Read::read_exact(echo.stdout.as_mut().unwrap(), &mut word).unwrap();
    let asked = python(
        wire,
        0,
        &format!(
            "import socket,time\ns=socket.socket(socket.AF_INET,socket.SOCK_DGRAM)\ns.settimeout(5)\n\
             for i in range(20):\n b=time.monotonic()\n s.sendto(b'x',('{theirs}',7))\n s.recv(9)\n \
             print(time.monotonic()-b)"
        ),
    );
    let said = asked.wait_with_output().unwrap();
    echo.kill().unwrap();
    echo.wait().unwrap();
    let said = String::from_utf8(said.stdout).unwrap();
    let mut trips: Vec<f64> = said.lines().map(|line| line.parse().unwrap()).collect();
    assert_eq!(trips.len(), 20, "{said}");
    trips.sort_by(f64::total_cmp);
    [trips[0], trips[10], trips[19]]
}

#[test]
fn delays_and_jitter_are_those_asked_for() {
    if !ready("delays_and_jitter_are_those_asked_for") {
        return;
    }
    let slow = Quality {
        delay: Duration::from_millis(75),
        ..Quality::default()
    };
    let wire = Wire::new(slow, 3);
    let [least, median, _] = round_trips(&wire);
    assert!(least >= 0.150, "{least}");
    near("the median round trip", median, 0.150, 0.05);
    let jittery = Quality {
        jitter: Duration::from_millis(50),
        ..slow
    };
    WAYS.into_iter().for_each(|way| wire.set(way, jittery));
    let [least, median, longest] = round_trips(&wire);
    assert!(least >= 0.150 && longest > 0.180, "{least} to {longest}");
    near("the median round trip with jitter", median, 0.200, 0.15);
}

#[test]
fn a_cut_loses_everything_one_way_and_is_mended() {
    if !ready("a_cut_loses_everything_one_way_and_is_mended") {
        return;
    }
    let wire = Wire::new(Quality::default(), 3);
    wire.cut(Way::There);
    datagrams(&wire, 0, 100, 50, 0.0);
    let seen = settled(&wire, Way::There);
    assert_eq!((seen.packets, seen.arrived, seen.lost), (50, 0, 50));
    wire.mend(Way::There);
    datagrams(&wire, 0, 100, 50, 0.0);
    let seen = settled(&wire, Way::There);
    assert_eq!((seen.packets, seen.arrived, seen.lost), (100, 5000, 50));
}

#[test]
fn nothing_is_left_also_after_a_panic() {
    if !ready("nothing_is_left_also_after_a_panic") {
        return;
    }
    let name = std::sync::Mutex::new(String::new());
    let ended = std::panic::catch_unwind(|| {
        let wire = Wire::new(Quality::default(), 3);
        *name.lock().unwrap() = wire.inside(0)[1].replace("--net=", "");
        assert!(std::path::Path::new(&*name.lock().unwrap()).exists());
        std::panic::resume_unwind(Box::new("on purpose"));
    });
    assert!(ended.is_err());
    let left = name.into_inner().unwrap();
    assert!(!std::path::Path::new(&left).exists(), "{left} is left");
}
