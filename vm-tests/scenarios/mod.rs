//! The plays, one in each file.

pub mod active_pauses;
pub mod active_reboots;
pub mod contract;
pub mod first_boot;
pub mod full_receiver;
pub mod link_cut;
pub mod power_cut_active;
pub mod power_cut_receiver;
pub mod units;
