//! `standin drill`: a rehearsal, watched; the work is the daemon's and does not need us.

use anyhow::Result;

use super::client::{self, Control};
use super::interrupt::Interrupts;
use super::output::{self, Output};
use super::progress::{OnInterrupt, Progress};
use super::render;
use crate::cli::{Drill, Global};
use crate::daemon::api::{DrillReport, DrillRequest, Request};
use crate::error::Code;

pub fn run(global: &Global, args: &Drill) -> Result<Code> {
    let control = Control::of(global);
    let output = Output::of(global);
    let request = Request::Drill(DrillRequest {
        role: args.role.clone(),
        point: args.point.clone(),
        dry_run: args.dry_run,
    });
    let interrupts = Interrupts::listen()?;
    let shown = Some(args.role.clone());
    let mut progress = Progress::new(output, shown, interrupts, OnInterrupt::Leave);
    let answer = control.call(&request, &mut progress);
    let report: Option<DrillReport> = match &answer {
        Ok(Some(value)) => Some(client::meaning(value)?),
        _ => None,
    };
    let text = report.as_ref().map(render::drill).unwrap_or_default();
    progress.finish(&text)?;
    let (Some(value), Some(report)) = (answer?, report) else {
        output::complain(&format!(
            "the drill goes on in the daemon\nhint: standin status shows it; end it with: standin cancel {}",
            args.role
        ));
        return Ok(Code::Interrupted);
    };
    output.answer(&value, || Ok(text))?;
    Ok(match report.passed {
        Some(false) => Code::Failed,
        Some(true) | None => Code::Done,
    })
}
