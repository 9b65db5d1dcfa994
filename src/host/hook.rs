//! Hooks: programs of the admin that are called before and after a role's services are started or stopped.
//!
//! Promise: as `command`: the limit holds, and what the hook says is kept. It deliberately does not know what a failed hook
//! means: `daemon::play` stops the step or warns.

use std::time::Duration;

use super::command::{self, Failed, Order, Surroundings};
use crate::logic::play::{Hook, Moment};

/// Runs a hook to its end, within its limit or `most`, whichever is less; what it said.
pub async fn run(
    hook: &Hook,
    moment: Moment,
    around: &Surroundings,
    most: Option<Duration>,
) -> Result<String, Failed> {
    let order = Order {
        argv: &hook.run,
        moment: moment.word(),
        limit: most.map_or(hook.timeout, |most| hook.timeout.min(most)),
        words: Vec::new(),
        output: None,
    };
    command::run(&order, around).await
}
