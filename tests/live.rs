//! What moves at a live path when a role moves: crashes at every step, paths that are mounts of their own, views.

#![allow(clippy::unwrap_used, clippy::print_stderr)]

#[path = "live/killed.rs"]
mod killed;
#[path = "live/mounts.rs"]
mod mounts;
#[path = "contract/stage.rs"]
mod stage;
mod support;
#[path = "live/views.rs"]
mod views;
