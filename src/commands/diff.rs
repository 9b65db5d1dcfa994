//! `standin diff`: what differs between two states of a role.

use anyhow::Result;

use super::client::Control;
use super::output::Output;
use super::render;
use crate::cli::{Diff, Global};
use crate::daemon::api::{DiffReport, DiffRequest, Request};
use crate::error::Code;

pub fn run(global: &Global, args: &Diff) -> Result<Code> {
    let request = Request::Diff(DiffRequest {
        words: args.words.clone(),
        dataset: args.dataset.clone(),
        stat: args.stat,
        text: args.text,
        unfold: args.unfold,
    });
    let (value, report): (_, DiffReport) = Control::of(global).ask(&request)?;
    Output::of(global).answer(&value, || Ok(render::diff(&report)))?;
    Ok(Code::Done)
}
