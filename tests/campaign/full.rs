//! The kind `full`.

use crate::case::{Case, Kind};

pub const KIND: Kind = Kind {
    name: "full",
    what: "The receiver's disk fills, fails or turns read-only; live data is untouched and the transfer goes on when it can",
    short: 0,
    run,
};

fn run(_case: &mut Case) -> Result<(), String> {
    Err("not written yet".to_owned())
}
