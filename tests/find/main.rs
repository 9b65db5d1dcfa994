//! Versions of files: found, shown and brought back, by real daemons on real filesystems.
//!
//! What a person relies on: what was deleted is found, also behind deleted directories, in forks and on peers; what was live is kept
//! when something takes its place; and nothing is ever half there.
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::print_stderr)]

#[path = "../support/mod.rs"]
mod support;

mod here;
mod peers;
mod person;
mod quick;
mod stage;
