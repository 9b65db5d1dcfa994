//! The daemon's answers as text for people: values in, strings out, nothing printed.
//!
//! Promise: calm - the state first, one line per thing, aligned; what needs attention stands out by its words and is
//! never only a colour. `now` is the daemon's clock, so that ages are right whatever clock the terminal has.

mod cycle;
mod findings;
mod init;
mod points;
mod prune;
mod status;

pub use cycle::{cycle, cycle_code, restore, undo};
pub use findings::{findings, findings_code};
pub use init::init;
pub use points::points;
pub use prune::prune;
pub use status::{status, status_brief, transfer};

use console::style;

fn attention(text: &str) -> String {
    style(text).yellow().to_string()
}

fn trouble(text: &str) -> String {
    style(text).red().to_string()
}

fn heading(text: &str) -> String {
    style(text).bold().to_string()
}
