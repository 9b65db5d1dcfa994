//! The network between machines: a switch in this process, to which each machine is plugged by a unix socket (QEMU's
//! `-netdev stream`: frames with their length in front, 32 bits, big endian).
//!
//! Promise: a frame goes to every other machine, unless the wire is cut in that direction; a machine that does not take its
//! frames (a paused one) holds up nobody, what does not fit is lost, as in any switch. Nothing of the host's network is
//! touched. Cuts leave the machines' own link up: a black hole, not an unplugged cable.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufReader, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::random::Random;

/// Frames that wait for one machine at most.
const QUEUE: usize = 1024;

/// The longest frame QEMU sends (virtio-net with offloads), and some room.
const FRAME_BYTES_MAX: usize = 128 * 1024;

/// A frame, and when it arrives.
type Frame = (Instant, Vec<u8>);

#[derive(Clone)]
pub struct Wire {
    dir: PathBuf,
    shared: Arc<Mutex<Shared>>,
}

struct Shared {
    ports: BTreeMap<String, SyncSender<Frame>>,
    /// From whom to whom nothing goes.
    cut: BTreeSet<(String, String)>,
    delay: Duration,
    /// Of a thousand frames.
    lost: u64,
    /// Bytes a second to each machine.
    rate: Option<u64>,
    dice: Random,
    passed: BTreeMap<String, u64>,
}

impl Wire {
    pub fn new(dir: &Path) -> Wire {
        Wire {
            dir: dir.to_owned(),
            shared: Arc::new(Mutex::new(Shared {
                ports: BTreeMap::new(),
                cut: BTreeSet::new(),
                delay: Duration::ZERO,
                lost: 0,
                rate: None,
                dice: Random::new(7),
                passed: BTreeMap::new(),
            })),
        }
    }

    /// The socket at which a machine of this name is plugged in, as often as it starts.
    pub fn socket(&self, name: &str) -> PathBuf {
        let path = self.dir.join(format!("{name}.wire"));
        if !path.exists() {
            let listener = UnixListener::bind(&path).unwrap();
            let (shared, name) = (Arc::clone(&self.shared), name.to_owned());
            std::thread::spawn(move || {
                for stream in listener.incoming().flatten() {
                    plug(&shared, &name, stream);
                }
            });
        }
        path
    }

    /// Nothing goes either way between these two.
    pub fn cut(&self, one: &str, other: &str) {
        self.cut_one_way(one, other);
        self.cut_one_way(other, one);
    }

    pub fn cut_one_way(&self, from: &str, to: &str) {
        let cut = (from.to_owned(), to.to_owned());
        self.shared.lock().unwrap().cut.insert(cut);
    }

    /// All is well again: no cuts, no delay, no loss, no limit.
    pub fn mend(&self) {
        let mut shared = self.shared.lock().unwrap();
        shared.cut.clear();
        shared.delay = Duration::ZERO;
        shared.lost = 0;
        shared.rate = None;
    }

    /// `lost` of a thousand frames, each way.
    pub fn degrade(&self, delay: Duration, lost: u64) {
        let mut shared = self.shared.lock().unwrap();
        shared.delay = delay;
        shared.lost = lost;
    }

    /// Bytes a second to each machine.
    pub fn limit(&self, rate: u64) {
        self.shared.lock().unwrap().rate = Some(rate);
    }

    /// Bytes that went to a machine so far.
    pub fn passed_to(&self, name: &str) -> u64 {
        let shared = self.shared.lock().unwrap();
        shared.passed.get(name).copied().unwrap_or(0)
    }
}

fn plug(shared: &Arc<Mutex<Shared>>, name: &str, stream: UnixStream) {
    let (queue, frames) = sync_channel(QUEUE);
    let mut all = shared.lock().unwrap();
    all.ports.insert(name.to_owned(), queue);
    drop(all);
    let outgoing = stream.try_clone().unwrap();
    let (for_writer, for_reader) = (Arc::clone(shared), Arc::clone(shared));
    let (writer, reader) = (name.to_owned(), name.to_owned());
    std::thread::spawn(move || deliver(&for_writer, &writer, outgoing, &frames));
    std::thread::spawn(move || forward(&for_reader, &reader, stream));
}

/// Frames from one machine, until its power goes.
fn forward(shared: &Mutex<Shared>, from: &str, stream: UnixStream) {
    let mut stream = BufReader::with_capacity(FRAME_BYTES_MAX, stream);
    let mut head = [0; 4];
    while stream.read_exact(&mut head).is_ok() {
        let length = u32::from_be_bytes(head) as usize;
        assert!(length <= FRAME_BYTES_MAX, "{from} sent a frame of {length}");
        let mut frame = head.to_vec();
        frame.resize(4 + length, 0);
        if stream.read_exact(&mut frame[4..]).is_err() {
            return;
        }
        spread(&mut shared.lock().unwrap(), from, &frame);
    }
}

fn spread(shared: &mut Shared, from: &str, frame: &[u8]) {
    let due = Instant::now() + shared.delay;
    let lost = shared.lost;
    let others: Vec<String> = shared.ports.keys().cloned().collect();
    for to in others.into_iter().filter(|to| to != from) {
        let is_cut = shared.cut.contains(&(from.to_owned(), to.clone()));
        if is_cut || lost > 0 && shared.dice.below(1000) < lost {
            continue;
        }
        // A full queue loses it, and so does a machine that is off.
        if shared.ports[&to].try_send((due, frame.to_vec())).is_ok() {
            *shared.passed.entry(to).or_default() += frame.len() as u64;
        }
    }
}

fn deliver(shared: &Mutex<Shared>, to: &str, mut stream: UnixStream, frames: &Receiver<Frame>) {
    let mut free = Instant::now();
    while let Ok((due, frame)) = frames.recv() {
        let rate = shared.lock().unwrap().rate;
        let takes = rate.map_or(Duration::ZERO, |rate| {
            Duration::from_secs_f64(frame.len() as f64 / rate as f64)
        });
        free = free.max(Instant::now()) + takes;
        let due = due.max(free);
        while Instant::now() < due {
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
        }
        // What was under way when the wire was cut does not arrive either, as far as it is known here who sent it: with two
        // machines there is one other.
        let shared = shared.lock().unwrap();
        let others = shared.ports.keys().filter(|from| *from != to);
        let all_cut = others
            .clone()
            .all(|from| shared.cut.contains(&(from.clone(), to.to_owned())));
        drop(shared);
        if !all_cut && stream.write_all(&frame).is_err() {
            return;
        }
    }
}
