//! A role moves between real nodes while a service writes: handed over, promoted after a crash, failed back; and nothing that
//! was on a disk is lost.
//!
//! Each node is a daemon of its own on a filesystem of its own (tests/support/cluster.rs); the service is a process that
//! appends numbered, fsynced records.

#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::print_stderr)]

mod crashes;
mod dry_run;
mod figures;
mod handover;
mod on_zfs;
#[allow(dead_code)]
mod ordeal;
mod promote;
mod refusals;
mod stage;
#[path = "../support/mod.rs"]
mod support;
mod verdict;
#[allow(dead_code)]
mod watch;
mod zfs_verbs;

/// Points are taken when a test asks, or a move does.
const MANUAL: &str = "every = \"manual\"\nkeep = { last = 100 }";

/// ... or every second.
const BUSY: &str = "every = \"1s\"\nkeep = { last = 100 }";
