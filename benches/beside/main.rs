//! standin beside its peers: the same work, turn about in one run, on this machine.
//!
//! `scripts/bench [--quick] [--only a,c] [--who pipe,standin] [--rounds N] [--disk DIR] [--json FILE] [--svg FILE]`, as root. What the workloads are, and what was measured
//! last, is in docs/benchmarks.md.
//!
//! Promise: contenders take turns within each round and the ratios are of pairs of one round; every contender begins with a
//! cold source and an empty destination; what arrived is compared with what was sent, by find and sha256sum. Everything is
//! made for the run (filesystems, keys, servers, daemons) and gone after it.
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::print_stderr)]

#[path = "../../tests/support/mod.rs"]
mod support;

mod contenders;
mod courses;
mod gauge;
mod ground;
mod line;
mod many;
mod nodes;
mod report;

use std::path::PathBuf;

use clap::Parser;
use contenders::Who;

#[derive(Debug, Parser)]
#[command(name = "bench")]
struct Args {
    /// Small sizes: a look, not a measurement
    #[arg(long)]
    quick: bool,
    /// Only these workloads, with commas between: a, b, c, d, e-packed, e-plain, f, g-none, g-all, h, i
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Only these contenders, with commas between: pipe, pipe2, zstd-ssh, btrbk, standin
    #[arg(long, value_delimiter = ',')]
    who: Vec<Who>,
    /// How often each is run [default: 5, or 1 with --quick]
    #[arg(long)]
    rounds: Option<usize>,
    /// Where images lie [default: in memory, /dev/shm]
    #[arg(long, value_name = "DIR", default_value = "/dev/shm")]
    disk: PathBuf,
    /// Write every run and the ratios here
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Draw the ratios here
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
    /// What `cargo bench` says to every benchmark
    #[arg(long = "bench", hide = true)]
    _bench: bool,
}

fn main() {
    // `cargo test` runs every benchmark once, as a test, with words of its own: this one is for a quiet machine, by itself.
    if !std::env::args().any(|word| word == "--bench") || !support::fixture::ready("bench") {
        return;
    }
    let args = Args::parse();
    let size = if args.quick {
        ground::QUICK
    } else {
        ground::FULL
    };
    let rounds = args.rounds.unwrap_or(if args.quick { 1 } else { 5 });
    let dir = tempfile::Builder::new()
        .prefix("standin-bench-")
        .tempdir_in(&args.disk)
        .unwrap();
    let room = ground::Room {
        dir: dir.path().to_owned(),
    };
    let chosen = args.only.clone();
    let wanted = |workload: &str| chosen.is_empty() || chosen.iter().any(|only| only == workload);
    let mut runs = Vec::new();
    for course in courses::COURSES.iter().filter(|course| course.has(&wanted)) {
        course.run(&room, &size, rounds, (&wanted, &args.who), &mut runs);
    }
    if wanted("g-none") || wanted("g-all") {
        many::run(&room, &size, rounds, &mut runs);
    }
    let slow = wanted("h").then(|| line::run(&room, &size));
    let ratios = report::ratios(&runs);
    println!("\n{}", report::table(&runs));
    if let Some(slow) = &slow {
        println!("{}", slow.sentence());
    }
    if let Some(file) = &args.json {
        let value = serde_json::json!({
            "machine": machine(),
            "quick": args.quick,
            "runs": runs,
            "ratios": ratios,
            "slow_line": slow,
        });
        std::fs::write(file, serde_json::to_string_pretty(&value).unwrap() + "\n").unwrap();
    }
    if let Some(file) = &args.svg {
        std::fs::write(file, report::picture(&ratios)).unwrap();
    }
}

/// What the figures were measured on.
fn machine() -> String {
    let read = |file: &str| std::fs::read_to_string(file).unwrap_or_default();
    let cpus = read("/proc/cpuinfo");
    let model = cpus
        .lines()
        .find_map(|line| line.strip_prefix("model name\t: "))
        .unwrap_or("unknown processor")
        .to_owned();
    let kernel = read("/proc/sys/kernel/osrelease");
    let memory = read("/proc/meminfo");
    let kib = memory
        .lines()
        .next()
        .and_then(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok());
    format!(
        "{} x {model}, {} GiB, Linux {}",
        cpus.matches("processor\t").count(),
        kib.unwrap_or(0) >> 20,
        kernel.trim()
    )
}
