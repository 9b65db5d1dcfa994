//! The fuzz targets on a stable toolchain without instrumentation: a short seeded run of each, so that `scripts/test`
//! guards what long runs under libFuzzer (`scripts/fuzz`, the same targets) once found.
//!
//! Promise: the same inputs on every machine. Where an input makes a target panic, the message holds it in hex.
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::print_stderr)]

#[path = "../support/mod.rs"]
mod support;

mod mutate;
mod targets;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use mutate::Mutator;
use targets::{Target, bounds::Watched};

#[global_allocator]
static ALLOCATOR: Watched = Watched;

/// A run ends after so many inputs or so long, whichever is first.
const INPUTS: u64 = 20_000;
const LONGEST: Duration = Duration::from_secs(6);

fn check(name: &str) {
    let target = targets::ALL.iter().find(|target| target.name == name);
    let target = target.expect("a known target");
    if target.needs_disk && !support::fixture::ready(&format!("fuzz {name}")) {
        return;
    }
    let mut seeds = (target.seeds)();
    assert!(!seeds.is_empty());
    seeds.extend(targets::found(name));
    let mut state = (target.start)();
    let begun = Instant::now();
    let mut mutator = Mutator::new(1, seeds.clone());
    let mut inputs = 0;
    for seed in &seeds {
        one(target, &mut *state, seed);
    }
    while inputs < INPUTS && begun.elapsed() < LONGEST {
        one(target, &mut *state, &mutator.input());
        inputs += 1;
    }
    println!("{name}: {inputs} inputs in {:?}", begun.elapsed());
    assert!(inputs > 100, "{name}: only {inputs} inputs");
}

fn one(target: &Target, state: &mut dyn targets::State, input: &[u8]) {
    let outcome = catch_unwind(AssertUnwindSafe(|| state.run(input)));
    if let Err(panic) = outcome {
        let hex: String = input.iter().map(|byte| format!("{byte:02x}")).collect();
        println!("input of {}: {hex}", target.name);
        std::panic::resume_unwind(panic);
    }
}

#[test]
fn fuzz_stream() {
    check("stream");
}

#[test]
fn fuzz_apply() {
    check("apply");
}

#[test]
fn fuzz_frames() {
    check("frames");
}

#[test]
fn fuzz_messages() {
    check("messages");
}

#[test]
fn fuzz_config() {
    check("config");
}

#[test]
fn fuzz_pairing() {
    check("pairing");
}

#[test]
fn fuzz_unpack() {
    check("unpack");
}
