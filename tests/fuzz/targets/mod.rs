//! What is fuzzed: each target takes any bytes and panics when a promise is broken.
//!
//! Used twice: by the test beside this (`main.rs`, seeded mutations) and under libFuzzer (`fuzz/`). A target's seeds come
//! from real values and streams, made when asked for; inputs that once broke a promise are in [`found`].
#![allow(dead_code, clippy::unwrap_used)]

pub mod bounds;

mod apply;
mod config;
mod draw;
mod frames;
mod messages;
mod pairing;
mod stream;
mod unpack;

/// One thing that takes bytes from strangers.
pub struct Target {
    /// As typed.
    pub name: &'static str,
    /// What must hold, for the table; one sentence.
    pub what: &'static str,
    /// Whether it needs root, loop devices and btrfs.
    pub needs_disk: bool,
    /// Longest input worth trying, in bytes.
    pub bytes_max: usize,
    pub seeds: fn() -> Vec<Vec<u8>>,
    pub start: fn() -> Box<dyn State>,
}

/// A target at work.
pub trait State {
    fn run(&mut self, input: &[u8]);
}

impl<F: FnMut(&[u8])> State for F {
    fn run(&mut self, input: &[u8]) {
        self(input);
    }
}

/// Every target, in the order of the table.
pub const ALL: [Target; 7] = [
    apply::TARGET,
    config::TARGET,
    frames::TARGET,
    messages::TARGET,
    pairing::TARGET,
    stream::TARGET,
    unpack::TARGET,
];

/// Inputs that broke a promise before what they found was mended.
pub fn found(name: &str) -> Vec<Vec<u8>> {
    const FOUND: [(&str, &[u8]); 1] = [
        // The parser's own error repeats it: an escape sequence reached the log.
        ("messages", br#"{"type":"a\u001b[2Jb"}"#),
    ];
    let of = FOUND.iter().filter(|(target, _)| *target == name);
    of.map(|(_, input)| input.to_vec()).collect()
}
