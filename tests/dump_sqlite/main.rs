//! SQLite in points: applications that are processes of another user write without end, and what points hold is opened.
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::print_stderr)]

mod copies;
mod freeze;
mod nodes;
mod stage;
#[path = "../support/mod.rs"]
mod support;
