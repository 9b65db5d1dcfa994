//! The kind `link`.

use crate::case::{Case, Kind};

pub const KIND: Kind = Kind {
    name: "link",
    what: "A slow, lossy, cut line between two network namespaces; transfers finish and status tells the truth",
    short: 0,
    run,
};

fn run(_case: &mut Case) -> Result<(), String> {
    Err("not written yet".to_owned())
}
