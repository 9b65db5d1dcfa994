//! `standin restore`: shows what will happen, asks where live data are concerned, and has the daemon do exactly that.
//!
//! Promise: what was shown is what is done: `latest` is resolved once, by the preview, and the point it found is named in
//! the order that follows. Live data are never replaced without a yes.

use anyhow::Result;

use super::client::{self, Control};
use super::interrupt::Interrupts;
use super::output::{self, Output};
use super::progress::{OnInterrupt, Progress};
use super::render;
use crate::cli::{Global, Restore};
use crate::daemon::api::{Request, RestoreReport, RestoreRequest};
use crate::error::{Code, Failure};

pub fn run(global: &Global, args: &Restore) -> Result<Code> {
    let control = Control::of(global);
    let output = Output::of(global);
    let to = match &args.to {
        Some(to) => Some(std::path::absolute(to)?),
        None => None,
    };
    let mut request = RestoreRequest {
        role: args.role.clone(),
        point: args.point.clone(),
        dataset: args.dataset.clone(),
        path: args.path.clone(),
        to,
        dry_run: true,
    };
    let (value, preview): (_, RestoreReport) = control.ask(&Request::Restore(request.clone()))?;
    if args.dry_run {
        output.answer(&value, || {
            Ok(render::restore(&preview) + "\nnothing was changed (dry run)")
        })?;
        return Ok(Code::Done);
    }
    if !output.is_json() {
        output.text(&render::restore(&preview))?;
    }
    if request.to.is_none() && !args.yes && !agreed(output)? {
        output.text("nothing was changed")?;
        return Ok(Code::Interrupted);
    }
    request.dry_run = false;
    request.point = preview.point.name.to_string();
    perform(&control, output, request)
}

/// Whether a person says yes to replacing live data.
fn agreed(output: Output) -> Result<bool> {
    if output.is_json() || !output::can_ask() {
        return Err(Failure::new(
            Code::Refused,
            "replace live data unasked: there is no terminal to ask on",
        )
        .hint("add --yes when it is what you want, or --to DIR to restore beside the live data")
        .into());
    }
    output::confirm("Replace the live data as shown?")
}

fn perform(control: &Control, output: Output, request: RestoreRequest) -> Result<Code> {
    let role = Some(request.role.clone());
    let interrupts = Interrupts::listen()?;
    let mut progress = Progress::new(output, role, interrupts, OnInterrupt::Leave);
    let answer = control.call(&Request::Restore(request.clone()), &mut progress);
    let said = answer.as_ref().ok().and_then(Option::as_ref);
    let said = said.and_then(|value| client::meaning(value).ok());
    progress.finish(&said.as_ref().map(render::restore).unwrap_or_default())?;
    let Some(value) = answer? else {
        output::complain("the restore goes on in the daemon\nhint: standin status shows it");
        return Ok(Code::Interrupted);
    };
    let report: RestoreReport = client::meaning(&value)?;
    output.answer(&value, || {
        let undo = render::undo(&request, &report).map(|undo| format!("\n{undo}"));
        Ok(render::restore(&report) + &undo.unwrap_or_default())
    })?;
    let failed = report.steps.iter().any(|step| step.ok == Some(false));
    Ok(if failed { Code::Partial } else { Code::Done })
}
