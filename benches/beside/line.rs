//! Workload h: text over a line of 2 Mbit/s with a round trip of 100 ms, between two network namespaces.
//!
//! No contender but the line itself: what part of it the transfer used, what it cost compared with `zstd -3`, and how long
//! control messages waited meanwhile.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::gauge::Group;
use crate::ground::{self, Room, Size};
use crate::nodes::{Node, Role};
use crate::support::fixture::run as output_of;
use crate::support::wire::{ADDRESSES, Quality, WAYS, Way, Wire};

/// Bits per second.
const RATE: u64 = 2_000_000;

/// Between two looks at the round trip.
const LOOK_EVERY: Duration = Duration::from_millis(250);

#[derive(Debug, Clone, serde::Serialize)]
pub struct Slow {
    pub file_bytes: u64,
    pub wire_bytes: u64,
    /// What `btrfs send | zstd -3` makes of the same.
    pub zstd_bytes: u64,
    pub seconds: f64,
    /// Of what the line could carry in that time.
    pub used: f64,
    /// Round trips that the nodes measured meanwhile, in milliseconds.
    pub rtt_median_ms: f64,
    pub rtt_most_ms: f64,
}

impl Slow {
    pub fn sentence(&self) -> String {
        format!(
            "h: {} bytes of text over 2 Mbit/s with 100 ms: {:.1} s, {:.0} % of the line used (goal 90 %); {} bytes on the wire, {:.3} of \
             zstd -3 (goal 1.05 at most); round trips {:.0} ms, {:.0} ms at most (goal 300)",
            self.file_bytes,
            self.seconds,
            self.used * 100.0,
            self.wire_bytes,
            self.wire_bytes as f64 / self.zstd_bytes as f64,
            self.rtt_median_ms,
            self.rtt_most_ms
        )
    }
}

pub fn run(room: &Room, size: &Size) -> Slow {
    let most = size.slow_bytes * 3 + (1 << 30);
    let disks = [0, 1].map(|n| room.filesystem(&format!("slow{n}"), most, "noatime"));
    let group = Group::new("line");
    let wire = Wire::new(Quality::default(), 1);
    let start = |end: usize, name: &str, peer: &str| {
        let top = disks[end].path();
        std::fs::create_dir(top.join("srv")).unwrap();
        let live = top.join("srv/data");
        if end == 0 {
            ground::subvolume(&live);
            ground::touch(&live, 1);
        }
        let roles = [Role {
            name: "web".to_owned(),
            live,
        }];
        let listen = Some(format!("{}:7321", ADDRESSES[end]));
        Node::start(&group, name, listen, &[peer], &roles, &wire.inside(end))
    };
    let (alder, birch) = (start(0, "alder", "birch"), start(1, "birch", "alder"));
    alder.pair_with(&birch);
    alder.wait_linked();
    alder.cycle(&group);
    let live = disks[0].join("srv/data");
    ground::much_text(&live, size.slow_bytes);
    rustix::fs::sync();
    for way in WAYS {
        let quality = Quality {
            rate: RATE,
            delay: Duration::from_millis(50),
            queue: 64 << 10,
            ..Quality::default()
        };
        wire.set(way, quality);
    }
    let before = wire.seen(Way::There);
    let (over, trips) = (AtomicBool::new(false), Mutex::new(Vec::new()));
    let began = Instant::now();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                let status = alder.ask(&["status"]).unwrap_or_default();
                let trip = status["peers"][0]["rtt_ms"].as_f64();
                trips.lock().unwrap().extend(trip);
                std::thread::park_timeout(LOOK_EVERY);
            }
        });
        alder.cycle(&group);
        over.store(true, Ordering::Relaxed);
    });
    let seconds = began.elapsed().as_secs_f64();
    let wire_bytes = wire.seen(Way::There).arrived - before.arrived;
    let script = "p=$(ls -d \"$1\"/.standin/web/*Z.*/data | sort | tail -n 2 | head -n 1) n=$(ls -d \"$1\"/.standin/web/*Z.*/data | sort | tail -n 1); \
                  btrfs -q send -p \"$p\" \"$n\" | zstd -q -3 | wc -c";
    let counted = output_of(
        "bash",
        [
            "-c".as_ref(),
            script.as_ref(),
            "bash".as_ref(),
            disks[0].path().as_os_str(),
        ],
    );
    let zstd_bytes = String::from_utf8(counted).unwrap().trim().parse().unwrap();
    let mut trips = trips.into_inner().unwrap();
    trips.sort_by(f64::total_cmp);
    drop((alder, birch));
    Slow {
        file_bytes: size.slow_bytes,
        wire_bytes,
        zstd_bytes,
        seconds,
        used: wire_bytes as f64 * 8.0 / RATE as f64 / seconds,
        rtt_median_ms: trips.get(trips.len() / 2).copied().unwrap_or_default(),
        rtt_most_ms: trips.last().copied().unwrap_or_default(),
    }
}
