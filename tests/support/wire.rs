//! A line of the tests' own between two network namespaces: a rate, a delay, jitter, loss, cuts, each way by itself.
//!
//!     namespace 0                 this process                  namespace 1
//!     10.77.0.1 ── TUN ── queue ─ rate ─ delay ─ jitter ── TUN ── 10.77.0.2
//!              └───────── jitter ─ delay ─ rate ─ queue ──────┘
//!
//! Every IP packet of one side is read from its TUN device and written into the other one when a line with the given
//! [`Quality`] would have brought it: it waits its turn in a bounded queue (beyond which the newest is dropped, as a router
//! does), takes its bytes' time at the rate, then the delay. Order is kept. Rules may be changed while packets run; those
//! on their way keep the time they were given, but a cut loses them.
//!
//! Promise: needs neither netem nor any kernel module but `tun`; the namespaces and devices have names of this process and
//! are gone when the value is dropped, also in a panic (after a SIGKILL `ip netns del` is left to people). Offloads do not
//! exist on such a device: a packet is at most the MTU, and the counts are those of real packets, IP headers included.
//!
//! How to use it: [`Wire::new`], start programs with [`Wire::inside`], [`Wire::set`] and [`Wire::cut`] while they run,
//! [`Wire::seen`] to judge what they claim. One direction takes one thread; a debug build passes some 300 Mbit/s.

use std::collections::VecDeque;
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::fixture::run;
use super::random::Random;

/// The address of each end, in its namespace.
pub const ADDRESSES: [&str; 2] = ["10.77.0.1", "10.77.0.2"];

/// Which way: what end 0 sends, or what end 1 sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    There,
    Back,
}

pub const WAYS: [Way; 2] = [Way::There, Way::Back];

/// What the device is called in its namespace.
const DEVICE: &str = "wire";

/// Longest packet; also what the devices announce.
const MTU: usize = 1500;

/// A change of the rules is noticed by an idle line within this time.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// What one direction of the line is like.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Quality {
    /// Bits per second, IP headers included; 0: as fast as it goes.
    pub rate: u64,
    /// One way.
    pub delay: Duration,
    /// Up to so much is added to the delay of each packet.
    pub jitter: Duration,
    /// Of 1000 packets, so many are lost.
    pub loss: u64,
    /// Bytes that wait for their turn at most; the newest is dropped beyond.
    pub queue: usize,
}

impl Default for Quality {
    fn default() -> Quality {
        Quality {
            rate: 0,
            delay: Duration::ZERO,
            jitter: Duration::ZERO,
            loss: 0,
            queue: 256 * 1024,
        }
    }
}

/// What one direction did so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Seen {
    /// Bytes that one end sent, lost ones included.
    pub sent: u64,
    /// Bytes that the other end got.
    pub arrived: u64,
    pub packets: u64,
    /// Packets lost by chance or by a cut.
    pub lost: u64,
    /// Packets for which the queue had no room.
    pub overflowed: u64,
}

#[derive(Default)]
struct Counts {
    sent: AtomicU64,
    arrived: AtomicU64,
    packets: AtomicU64,
    lost: AtomicU64,
    overflowed: AtomicU64,
}

struct Line {
    quality: Mutex<Quality>,
    cut: AtomicBool,
    over: AtomicBool,
    counts: Counts,
}

pub struct Wire {
    namespaces: [String; 2],
    lines: [Arc<Line>; 2],
    relays: Vec<JoinHandle<()>>,
}

static NUMBER: AtomicU64 = AtomicU64::new(0);

/// Whether the kernel has this congestion control loaded.
pub fn has_congestion(algorithm: &str) -> bool {
    let available = "/proc/sys/net/ipv4/tcp_available_congestion_control";
    let available = std::fs::read_to_string(available).unwrap_or_default();
    available.split_whitespace().any(|word| word == algorithm)
}

/// Whether namespaces and TUN devices can be made here; why not.
pub fn missing() -> Option<&'static str> {
    if !std::path::Path::new("/dev/net/tun").exists() {
        return Some("the kernel has no TUN devices");
    }
    let programs = [("ip", "-V"), ("nsenter", "-V")];
    let lacks = |(program, arg): &(&str, &str)| Command::new(program).arg(arg).output().is_err();
    programs
        .iter()
        .any(lacks)
        .then_some("no iproute2 or nsenter")
}

impl Wire {
    /// A line that is the same both ways, with losses drawn from `seed`.
    pub fn new(quality: Quality, seed: u64) -> Wire {
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = |end: usize| format!("standin-{}-{number}-{end}", std::process::id());
        let line = || {
            Arc::new(Line {
                quality: Mutex::new(quality),
                cut: AtomicBool::new(false),
                over: AtomicBool::new(false),
                counts: Counts::default(),
            })
        };
        // From here on `wire` owns what was made: a panic below removes it.
        let mut wire = Wire {
            namespaces: [name(0), name(1)],
            lines: [line(), line()],
            relays: Vec::new(),
        };
        let ends = [0, 1].map(|end| Arc::new(wire.end(end, number)));
        for (way, line) in wire.lines.iter().enumerate() {
            let (from, to) = (ends[way].clone(), ends[1 - way].clone());
            let (line, random) = (line.clone(), Random::new(seed.wrapping_mul(2) + way as u64));
            wire.relays
                .push(std::thread::spawn(move || relay(&from, &to, &line, random)));
        }
        wire
    }

    /// Makes one end: its namespace, and in it a TUN device whose packets come to the file.
    fn end(&self, end: usize, number: u64) -> File {
        let namespace = self.namespaces[end].as_str();
        run("ip", ["netns", "add", namespace]);
        // Its own chatter (router solicitations) would be counted with the programs' packets.
        self.sysctl(end, "net.ipv6.conf.all.disable_ipv6=1");
        // Device names have 15 bytes; it has this one only until it is in its namespace.
        let device = format!("st{}n{number}e{end}", std::process::id() % 100_000);
        let tun = tun(&device);
        run("ip", ["link", "set", &device, "netns", namespace]);
        let inside = |args: &str| {
            let words = args.split(' ');
            run("ip", ["-n", namespace].into_iter().chain(words));
        };
        inside("link set lo up");
        let (ours, theirs) = (ADDRESSES[end], ADDRESSES[1 - end]);
        inside(&format!("link set {device} name {DEVICE}"));
        inside(&format!("addr add {ours} peer {theirs} dev {DEVICE}"));
        inside(&format!("link set {DEVICE} mtu {MTU} up"));
        tun
    }

    /// The words that start a program on one end, in its network and this mount namespace.
    pub fn inside(&self, end: usize) -> Vec<String> {
        let net = format!("--net=/run/netns/{}", self.namespaces[end]);
        vec!["nsenter".to_owned(), net, "--".to_owned()]
    }

    /// Sets a kernel parameter of one end's network: `net.ipv4.tcp_congestion_control=cubic`.
    pub fn sysctl(&self, end: usize, setting: &str) {
        let mut words = self.inside(end);
        words.extend(["sysctl", "-q", "-w", setting].map(str::to_owned));
        run(&words[0], &words[1..]);
    }

    /// The congestion control of TCP connections over the line, from now on. By the route, because a namespace may set by
    /// sysctl only what the machine allows everybody.
    pub fn congestion(&self, algorithm: &str) {
        for (end, namespace) in self.namespaces.iter().enumerate() {
            let route = ["-n", namespace, "route", "replace", ADDRESSES[1 - end]];
            let way = ["dev", DEVICE, "congctl", algorithm];
            run("ip", route.into_iter().chain(way));
        }
    }

    pub fn set(&self, way: Way, quality: Quality) {
        *self.line(way).quality.lock().unwrap() = quality;
    }

    /// Silently loses everything of one direction, what is on its way included, until it is mended.
    pub fn cut(&self, way: Way) {
        self.line(way).cut.store(true, Ordering::SeqCst);
    }

    pub fn mend(&self, way: Way) {
        self.line(way).cut.store(false, Ordering::SeqCst);
    }

    pub fn seen(&self, way: Way) -> Seen {
        let counts = &self.line(way).counts;
        let get = |count: &AtomicU64| count.load(Ordering::Relaxed);
        Seen {
            sent: get(&counts.sent),
            arrived: get(&counts.arrived),
            packets: get(&counts.packets),
            lost: get(&counts.lost),
            overflowed: get(&counts.overflowed),
        }
    }

    fn line(&self, way: Way) -> &Line {
        &self.lines[way as usize]
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        for line in &self.lines {
            line.over.store(true, Ordering::SeqCst);
        }
        for relay in self.relays.drain(..) {
            // A relay that panicked has printed why.
            let _ = relay.join();
        }
        // The devices went with their files; a namespace goes when its last program has ended.
        for namespace in &self.namespaces {
            let _ = Command::new("ip")
                .args(["netns", "del", namespace])
                .output();
        }
    }
}

/// A new TUN device of that name: packets without a header in front (linux/if_tun.h).
#[allow(unsafe_code)]
fn tun(name: &str) -> File {
    use rustix::ioctl::{Setter, ioctl};
    const TUNSETIFF: rustix::ioctl::Opcode = rustix::ioctl::opcode::write::<i32>(b'T', 202);
    const IFF_TUN: u16 = 0x0001;
    const IFF_NO_PI: u16 = 0x1000;
    /// `struct ifreq`: the name, and the union of which the flags come first.
    #[repr(C)]
    struct Request {
        name: [u8; 16],
        flags: u16,
        rest: [u8; 22],
    }
    let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = File::from(rustix::fs::open("/dev/net/tun", flags, Mode::empty()).unwrap());
    let mut request = Request {
        name: [0; 16],
        flags: IFF_TUN | IFF_NO_PI,
        rest: [0; 22],
    };
    request.name[..name.len()].copy_from_slice(name.as_bytes());
    assert!(name.len() < 16);
    // SAFETY: the kernel reads one `struct ifreq`, 40 bytes, which `Request` is laid out as; the opcode is declared with the
    // size of an int, but takes that structure (drivers/net/tun.c, __tun_chr_ioctl).
    unsafe { ioctl(&file, Setter::<TUNSETIFF, Request>::new(request)) }
        .unwrap_or_else(|error| panic!("could not make the device {name}: {error}"));
    file
}

/// Packets between two moments of one direction.
#[derive(Default)]
struct Road {
    /// Waiting for their turn, with the moment they came.
    queue: VecDeque<(Instant, Vec<u8>)>,
    queued: usize,
    /// On their way, with the moment they arrive.
    flying: VecDeque<(Instant, Vec<u8>)>,
    /// When the sender's end of the line is free.
    free: Option<Instant>,
}

impl Road {
    /// False where the queue has no room.
    fn enter(&mut self, now: Instant, packet: &[u8], quality: &Quality) -> bool {
        if self.queued + packet.len() > quality.queue {
            return false;
        }
        self.queued += packet.len();
        self.queue.push_back((now, packet.to_vec()));
        true
    }

    /// Lets packets take their turn.
    fn advance(&mut self, now: Instant, quality: &Quality, random: &mut Random) {
        while self.free.is_none_or(|free| free <= now) {
            let Some((came, packet)) = self.queue.pop_front() else {
                return;
            };
            self.queued -= packet.len();
            let begins = self.free.map_or(came, |free| free.max(came));
            let nanos = (packet.len() as u64 * 8 * 1_000_000_000).checked_div(quality.rate);
            let left = begins + Duration::from_nanos(nanos.unwrap_or(0));
            self.free = Some(left);
            let jitter = Duration::from_nanos(random.below(quality.jitter.as_nanos() as u64));
            let arrives = left + quality.delay + jitter;
            let last = self.flying.back().map_or(arrives, |(at, _)| *at);
            self.flying.push_back((arrives.max(last), packet));
        }
    }

    /// The next packet whose time has come.
    fn arrived(&mut self, now: Instant) -> Option<Vec<u8>> {
        let due = self.flying.front().is_some_and(|(at, _)| *at <= now);
        due.then(|| self.flying.pop_front())
            .flatten()
            .map(|(_, packet)| packet)
    }

    fn next(&self) -> Option<Instant> {
        let turn = self.free.filter(|_| !self.queue.is_empty());
        let flying = self.flying.front().map(|(at, _)| *at);
        turn.into_iter().chain(flying).min()
    }

    /// Empties it; how many packets there were.
    fn lose(&mut self) -> u64 {
        let lost = self.queue.len() + self.flying.len();
        self.queue.clear();
        self.flying.clear();
        self.queued = 0;
        lost as u64
    }
}

fn relay(from: &File, to: &File, line: &Line, mut random: Random) {
    let mut road = Road::default();
    let mut packet = [0; MTU + 100];
    let add = |count: &AtomicU64, by: u64| {
        count.fetch_add(by, Ordering::Relaxed);
    };
    while !line.over.load(Ordering::SeqCst) {
        let quality = *line.quality.lock().unwrap();
        let cut = line.cut.load(Ordering::SeqCst);
        if cut {
            add(&line.counts.lost, road.lose());
        }
        loop {
            let got = match rustix::io::read(from.as_fd(), &mut packet) {
                Ok(0) | Err(Errno::AGAIN) => break,
                Ok(got) => got,
                Err(error) => panic!("could not read from {}: {error}", from.as_raw_fd()),
            };
            add(&line.counts.sent, got as u64);
            add(&line.counts.packets, 1);
            if cut || random.below(1000) < quality.loss {
                add(&line.counts.lost, 1);
            } else if !road.enter(Instant::now(), &packet[..got], &quality) {
                add(&line.counts.overflowed, 1);
            }
        }
        let now = Instant::now();
        road.advance(now, &quality, &mut random);
        while let Some(packet) = road.arrived(now) {
            // A device that is not up any more, or has no room, loses the packet: so does a line.
            match rustix::io::write(to.as_fd(), &packet) {
                Ok(_) => add(&line.counts.arrived, packet.len() as u64),
                Err(_) => add(&line.counts.lost, 1),
            }
        }
        let wait = road.next().map_or(LOOK_EVERY, |at| {
            at.saturating_duration_since(now).min(LOOK_EVERY)
        });
        let wait = Timespec {
            tv_sec: 0,
            tv_nsec: wait.as_nanos() as i64,
        };
        // An interrupted wait is a short one.
        let _ = poll(&mut [PollFd::new(from, PollFlags::IN)], Some(&wait));
    }
}
