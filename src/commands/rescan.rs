//! `standin rescan`: damaged points and what becomes of them, watched; the work is the daemon's and does not need us.

use anyhow::Result;

use super::client::{self, Control};
use super::interrupt::Interrupts;
use super::output::{self, Output};
use super::progress::{OnInterrupt, Progress};
use super::render;
use crate::cli::{Global, Rescan};
use crate::daemon::api::{CycleReport, Request};
use crate::error::Code;

pub fn run(global: &Global, args: &Rescan) -> Result<Code> {
    let control = Control::of(global);
    let output = Output::of(global);
    let request = Request::Rescan {
        role: args.role.clone(),
        dry_run: args.dry_run,
    };
    let interrupts = Interrupts::listen()?;
    let mut progress = Progress::new(output, args.role.clone(), interrupts, OnInterrupt::Leave);
    let answer = control.call(&request, &mut progress);
    let report: Option<CycleReport> = match &answer {
        Ok(Some(value)) => Some(client::meaning(value)?),
        _ => None,
    };
    let text = report.as_ref().map(render::rescan).unwrap_or_default();
    progress.finish(&text)?;
    let (Some(value), Some(report)) = (answer?, report) else {
        output::complain("the work goes on in the daemon\nhint: standin status shows it");
        return Ok(Code::Interrupted);
    };
    output.answer(&value, || Ok(text))?;
    Ok(render::cycle_code(&report))
}
