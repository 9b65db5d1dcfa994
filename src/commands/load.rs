//! `standin load`: dumps back into servers, watched; the work is the daemon's and does not need us.

use anyhow::Result;

use super::client::{self, Control};
use super::interrupt::Interrupts;
use super::output::{self, Output};
use super::progress::{OnInterrupt, Progress};
use super::render;
use crate::cli::{Global, Load};
use crate::daemon::api::{LoadReport, LoadRequest, Request};
use crate::error::Code;

pub fn run(global: &Global, args: &Load) -> Result<Code> {
    let control = Control::of(global);
    let output = Output::of(global);
    let request = Request::Load(LoadRequest {
        role: args.role.clone(),
        dump: args.dump.clone(),
        replace: args.replace,
        skip: args.skip,
        dry_run: args.dry_run,
    });
    let interrupts = Interrupts::listen()?;
    let shown = Some(args.role.clone());
    let mut progress = Progress::new(output, shown, interrupts, OnInterrupt::Leave);
    let answer = control.call(&request, &mut progress);
    let report: Option<LoadReport> = match &answer {
        Ok(Some(value)) => Some(client::meaning(value)?),
        _ => None,
    };
    let text = report.as_ref().map(render::load).unwrap_or_default();
    progress.finish(&text)?;
    let (Some(value), Some(report)) = (answer?, report) else {
        output::complain("the load goes on in the daemon\nhint: standin status shows the events");
        return Ok(Code::Interrupted);
    };
    output.answer(&value, || Ok(text))?;
    let any = |result: &str| report.dumps.iter().any(|dump| dump.result == result);
    Ok(match (any("failed"), any("left")) {
        (true, _) => Code::Failed,
        (false, true) => Code::Refused,
        (false, false) => Code::Done,
    })
}
