//! What the confined process costs: one prepared stream, received by it and in this process, turn about.
//!
//! `cargo bench --bench applier [-- PAIRS]`, as root; prints each run, and the ratio of the medians. Receiving here means all of it: the
//! subvolume made, the stream applied, read-only, identified and on disk.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

#[path = "../tests/support/mod.rs"]
mod support;

use std::path::Path;
use std::time::Instant;

use standin::fs::btrfs::receive::{self, Applying, Coming};
use standin::fs::{Limits, Opened};
use standin::logic::transfer::FileFlags;
use support::fixture::{Loop, ready, run};
use support::random::Random;
use support::receiving::{hash, identity, place, sent, snapshot, uuid_of};

/// What a link hands over at a time.
const FRAME_BYTES: usize = 256 << 10;

fn one_large_file(live: &Path) {
    let noise = Random::new(1).bytes(64 << 20);
    let whole: Vec<u8> = (0..16).flat_map(|_| noise.iter().copied()).collect();
    std::fs::write(live.join("large"), whole).unwrap();
}

fn many_small_files(live: &Path) {
    for number in 0..100_000u32 {
        let dir = live.join((number % 1000).to_string());
        std::fs::create_dir_all(&dir).unwrap();
        std::fs::write(dir.join(number.to_string()), number.to_string().repeat(100)).unwrap();
    }
}

/// Seconds.
fn received(to: &Path, applying: &Applying, stream: &[u8], hash: &str, limits: Limits) -> f64 {
    let place = place(to, "bench");
    let snapshot = support::receiving::snapshot_of(stream);
    let identity = identity(snapshot, None, 2);
    let flags = FileFlags::default();
    let coming = Coming {
        identity: &identity,
        base: None,
        clones: &[],
        flags: &flags,
        data_bytes: 0,
    };
    // What the run before left must not be cleared away during this one.
    run(
        "btrfs",
        ["subvolume".as_ref(), "sync".as_ref(), to.as_os_str()],
    );
    rustix::fs::sync();
    let begun = Instant::now();
    let Opened::Transfer(mut incoming) = receive::open(applying, &place, coming, limits).unwrap()
    else {
        panic!("complete before it began");
    };
    for frame in stream.chunks(FRAME_BYTES) {
        incoming.write(frame).unwrap();
    }
    incoming.finish(stream.len() as u64, hash).unwrap();
    let seconds = begun.elapsed().as_secs_f64();
    receive::discard(&place).unwrap();
    seconds
}

fn compare(name: &str, fill: fn(&Path), pairs: usize) {
    let (from, to) = (Loop::new(4 << 30), Loop::new(4 << 30));
    let (live, taken) = (from.join("live"), from.join("s"));
    libbtrfsutil::create_subvolume(&live).unwrap();
    fill(&live);
    snapshot(&live, &taken);
    let stream = sent(None, &taken, 2, &[]);
    let whole = hash(&stream);
    assert_eq!(support::receiving::snapshot_of(&stream), uuid_of(&taken));
    drop(from);
    let child = Applying::Child(env!("CARGO_BIN_EXE_standin").into());
    let limits = Limits::default();
    let mut runs: [Vec<f64>; 2] = Default::default();
    // The first pair warms up.
    for pair in 0..=pairs {
        for (way, applying) in [&Applying::Here, &child].into_iter().enumerate() {
            let seconds = received(to.path(), applying, &stream, &whole, limits);
            if pair > 0 {
                runs[way].push(seconds);
            }
        }
    }
    for runs in &mut runs {
        runs.sort_by(f64::total_cmp);
    }
    let median = |runs: &[f64]| runs[runs.len() / 2];
    let (here, child) = (median(&runs[0]), median(&runs[1]));
    println!("{name}: stream of {} bytes", stream.len());
    println!("  here:  {:.2?} s", runs[0]);
    println!("  child: {:.2?} s", runs[1]);
    println!(
        "  medians {here:.2} and {child:.2} s, ratio {:.3}",
        child / here
    );
}

fn main() {
    // `cargo test --all-targets` builds and starts benchmarks too, without this word.
    if !std::env::args().any(|word| word == "--bench") || !ready("applier") {
        return;
    }
    let pairs = std::env::args().find_map(|word| word.parse().ok());
    let pairs = pairs.unwrap_or(5);
    compare("one file of 1 GiB", one_large_file, pairs);
    compare("100,000 small files", many_small_files, pairs);
}
