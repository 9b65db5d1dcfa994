//! The plays, one in each file.

pub mod active_pauses;
pub mod active_reboots;
pub mod bad_line;
pub mod contract;
pub mod databases;
pub mod encrypted;
pub mod first_boot;
pub mod full_receiver;
pub mod handover_under_load;
pub mod link_cut;
pub mod old_image;
pub mod power_cut_active;
pub mod power_cut_receiver;
pub mod reversals;
pub mod three_nodes;
pub mod units;
pub mod upgrade;
