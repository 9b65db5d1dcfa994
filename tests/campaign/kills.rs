//! The kind `kills`.

use crate::case::{Case, Kind};

pub const KIND: Kind = Kind {
    name: "kills",
    what: "Daemons are killed at random bytes and at named places; what was finished stays, the transfer ends equal",
    short: 0,
    run,
};

fn run(_case: &mut Case) -> Result<(), String> {
    Err("not written yet".to_owned())
}
