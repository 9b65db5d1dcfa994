//! `standin points`: what there is to go back to.

use anyhow::Result;

use super::client::Control;
use super::output::Output;
use super::render;
use crate::cli::{self, Global};
use crate::daemon::api::{Points, Request};
use crate::error::Code;

pub fn run(global: &Global, args: &cli::Points) -> Result<Code> {
    let control = Control::of(global);
    let role = args.role.clone();
    let (value, points): (_, Points) = control.ask(&Request::Points { role })?;
    Output::of(global).answer(&value, || Ok(render::points(&points)))?;
    Ok(Code::Done)
}
