//! What happened lately, as the control socket tells it.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::logic::name::RoleName;

/// The answer to `Request::Events`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Events {
    /// Oldest first; no more than were asked for, nor than the daemon gives at once.
    pub events: Vec<EventView>,
}

/// A note or a warning that was told once.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EventView {
    /// To the millisecond: finer is not kept.
    pub at: Timestamp,
    /// None: it concerns the whole node.
    pub role: Option<RoleName>,
    /// Somebody should look at it.
    pub warning: bool,
    /// A sentence, without the role's name.
    pub text: String,
}
