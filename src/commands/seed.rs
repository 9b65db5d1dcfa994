//! `standin seed`: files made from templates, now; and the worker that follows a template.

use anyhow::Result;

use super::client::Control;
use super::output::Output;
use super::render;
use crate::cli::{Global, Seed};
use crate::daemon::api::{Request, SeedReport, SeedRequest};
use crate::error::Code;
use crate::host::seed::worker;

pub fn run(global: &Global, args: &Seed) -> Result<Code> {
    let request = Request::Seed(SeedRequest {
        role: args.role.clone(),
        dry_run: args.dry_run,
        replace: args.replace,
    });
    let (value, report): (_, SeedReport) = Control::of(global).ask(&request)?;
    Output::of(global).answer(&value, || Ok(render::seeded(&report)))?;
    Ok(render::seeded_code(&report))
}

pub fn work() -> Result<Code> {
    worker::work().map(|()| Code::Done)
}
