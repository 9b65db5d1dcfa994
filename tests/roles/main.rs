//! The state machine of a role: its table in docs/roles.md, and what must hold whatever happens.
#![allow(clippy::unwrap_used)]

mod grid;
