//! The kind `cuts`.

use crate::case::{Case, Kind};

pub const KIND: Kind = Kind {
    name: "cuts",
    what: "The link is cut, blackholed, reset or half-open at random bytes; the transfer goes on from its checkpoint and ends equal",
    short: 0,
    run,
};

fn run(_case: &mut Case) -> Result<(), String> {
    Err("not written yet".to_owned())
}
