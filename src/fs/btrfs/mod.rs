//! (to come)

mod apply;
pub mod scan;
pub mod stream;
