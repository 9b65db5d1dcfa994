//! What several test targets share: a btrfs filesystem to work on, random trees, and a comparison that is not our code.
//!
//! Promise: a test that cannot run here says `SKIPPED <name>: <why>`, and fails where CI is set; mounts and loop devices are
//! given back when a test panics. Everything random comes from a seed that the failure message names.
#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::print_stderr
)]

pub mod address;
pub mod audit;
pub mod clock;
pub mod cluster;
pub mod commands;
pub mod fixture;
pub mod forks;
pub mod pool;
pub mod proxy;
pub mod random;
pub mod receiving;
pub mod reliability;
pub mod same;
pub mod screen;
pub mod servers;
pub mod tree;
pub mod wire;
