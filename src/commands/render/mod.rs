//! The daemon's answers as text for people: values in, strings out, nothing printed.
//!
//! Promise: calm - the state first, one line per thing, aligned; what needs attention stands out by its words and is
//! never only a colour. `now` is the daemon's clock, so that ages are right whatever clock the terminal has.

mod browse;
mod cycle;
mod diff;
pub(super) mod drift;
pub(super) mod drill;
mod findings;
mod fit;
mod forks;
mod init;
mod load;
mod logs;
mod moved;
mod points;
mod prune;
pub(super) mod seed;
mod standing;
mod status;
mod transfer;

pub use browse::browse;
pub use cycle::{cycle, cycle_code, rescan, restore, undo};
pub use diff::diff;
pub use drill::drill;
pub use findings::{findings, findings_code};
pub use fit::{fitted, shortened};
pub use forks::{fork, fork_diff, fork_report, fork_steps, forks};
pub use init::init;
pub use load::load;
#[cfg(test)]
pub(super) use load::sample as load_sample;
pub use moved::moved;
pub use points::points;
pub use prune::prune;
pub use seed::{seeded, seeded_code};
pub use status::{status, status_brief, status_small};
pub use transfer::{transfer, transfer_within};

use console::style;

use crate::logic::name::RoleName;

/// How a transfer that did not end well is told; the daemon says what it could not do, or in its own words why.
pub fn stopped(text: &str) -> String {
    if text.ends_with(": cancelled") {
        return "cancelled; what arrived is kept".into();
    }
    let told = text.starts_with("could not ") || text == "given up";
    format!("STOPPED: {}{text}", if told { "" } else { "could not " })
}

/// A sentence that says which role it is about.
pub fn of_role(role: Option<&RoleName>, text: &str) -> String {
    match role {
        Some(role) if !text.starts_with(&format!("{role}: ")) => format!("{role}: {text}"),
        _ => text.to_owned(),
    }
}

fn attention(text: &str) -> String {
    style(text).yellow().to_string()
}

fn trouble(text: &str) -> String {
    style(text).red().to_string()
}

fn heading(text: &str) -> String {
    style(text).bold().to_string()
}
