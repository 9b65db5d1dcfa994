//! (to come)

mod apply;
mod freeze;
pub mod receive;
pub mod scan;
pub mod stream;
