//! The rules of receiving once more, applied in the process of the test instead of a worker (`support::receiving::applying`
//! goes by this target's name).

#[path = "confinement/main.rs"]
mod confinement;
#[path = "receive.rs"]
mod receive;
