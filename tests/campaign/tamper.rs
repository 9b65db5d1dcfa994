//! The kind `tamper`.

use crate::case::{Case, Kind};

pub const KIND: Kind = Kind {
    name: "tamper",
    what: "Sources and replicas are changed behind the daemon's back; it is noticed before they are used, and repaired",
    short: 0,
    run,
};

fn run(_case: &mut Case) -> Result<(), String> {
    Err("not written yet".to_owned())
}
