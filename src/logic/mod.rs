//! Decides. Pure: no clock, disk, network, process or log in here; facts come in as arguments, plans go out as values.

pub mod choose;
pub mod claim;
pub mod cycle;
pub mod lineage;
pub mod manifest;
pub mod name;
pub mod plan;
pub mod point;
pub mod prefix;
pub mod progress;
pub mod promotion;
pub mod retention;
pub mod role;
pub mod schedule;
pub mod transfer;
pub mod units;
