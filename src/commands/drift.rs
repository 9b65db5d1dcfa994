//! `standin drift`: where this node and its peers differ in what is watched.

use anyhow::Result;

use super::client::Control;
use super::output::Output;
use super::render;
use crate::cli::{Drift, Global};
use crate::daemon::api::{DriftReport, DriftRequest, Request};
use crate::error::Code;

pub fn run(global: &Global, args: &Drift) -> Result<Code> {
    let names = args.names.clone();
    let request = Request::Drift(DriftRequest { names });
    let (value, report): (_, DriftReport) = Control::of(global).ask(&request)?;
    let shown = match args.all {
        true => render::drift::Shown::All,
        false => render::drift::Shown::Differing,
    };
    Output::of(global).answer(&value, || Ok(render::drift::drift(&report, shown)))?;
    Ok(render::drift::code(&report))
}
