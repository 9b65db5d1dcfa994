//! When a role's cycle is due.

/// A role's schedule.
#[derive(Debug, Clone, PartialEq)]
pub enum Every {
    Manual,
}
