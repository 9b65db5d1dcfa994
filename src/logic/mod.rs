//! Decides. Pure: no clock, disk, network, process or log in here; facts come in as arguments, plans go out as values.

pub mod absent;
pub mod accept;
pub mod again;
pub mod bandwidth;
pub mod choose;
pub mod claim;
pub mod clock;
pub mod cycle;
pub mod damage;
pub mod lineage;
pub mod manifest;
pub mod name;
pub mod plan;
pub mod play;
pub mod point;
pub mod prefix;
pub mod progress;
pub mod promotion;
pub mod repair;
pub mod retention;
pub mod retry;
pub mod role;
pub mod schedule;
pub mod shortage;
pub mod transfer;
pub mod units;
