//! The rules of receiving once more, applied in the process of the test instead of a worker (`support::receiving::applying`
//! goes by this target's name).

// Both bring the same support: they are whole test targets elsewhere.
#![allow(clippy::duplicate_mod)]

#[path = "confinement/main.rs"]
mod confinement;
#[path = "receive.rs"]
mod receive;
