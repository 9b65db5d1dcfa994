//! `standin prune`: removes the points no rule keeps, or says which it would remove and why.

use anyhow::Result;

use super::client::Control;
use super::output::Output;
use super::render;
use crate::cli::{self, Global};
use crate::daemon::api::{PruneReport, Request};
use crate::error::Code;

pub fn run(global: &Global, args: &cli::Prune) -> Result<Code> {
    let control = Control::of(global);
    let request = Request::Prune {
        role: args.role.clone(),
        dry_run: args.dry_run,
    };
    let (value, report): (_, PruneReport) = control.ask(&request)?;
    Output::of(global).answer(&value, || Ok(render::prune(&report)))?;
    let mut verdicts = report.roles.iter().flat_map(|role| &role.verdicts);
    Ok(if verdicts.any(|verdict| verdict.error.is_some()) {
        Code::Partial
    } else {
        Code::Done
    })
}
