//! `standin restore PATH`: one version of a file or a directory.
//!
//! Promise: as for a role: the version is picked once, by the preview, and the order that follows names where it was found.

use std::path::Path;

use anyhow::Result;

use super::super::client::{self, Control};
use super::super::find::{meant, picked};
use super::super::interrupt::Interrupts;
use super::super::output::{self, Output};
use super::super::progress::{OnInterrupt, Progress};
use super::super::render;
use super::{agreed, usage};
use crate::cli::{Global, Restore};
use crate::daemon::api::{BringReport, BringRequest, Request, To, Wanted};
use crate::error::Code;
use crate::logic::versions::Pick;

pub fn run(global: &Global, args: &Restore, what: &Path) -> Result<Code> {
    if args.path.is_some() {
        return Err(usage(
            &format!("restore {} and --path: one path is enough", what.display()),
            "name a role with --path, or the path alone",
        ));
    }
    let to = match &args.to {
        Some(to) => To::Path(std::path::absolute(to)?),
        None if args.beside => To::Beside,
        None => To::Live,
    };
    let mut request = BringRequest {
        wanted: Wanted {
            path: meant(what, false)?,
            role: None,
            dataset: args.dataset.clone(),
            pick: picked(&args.which)?.unwrap_or(Pick::Last),
            source: None,
        },
        to,
        dry_run: true,
    };
    let control = Control::of(global);
    let output = Output::of(global);
    let (value, preview): (_, BringReport) = control.ask(&Request::Bring(request.clone()))?;
    if args.dry_run {
        output.answer(&value, || {
            Ok(render::bring(&preview) + "\nnothing was changed (dry run)")
        })?;
        return Ok(Code::Done);
    }
    if !output.is_json() {
        output.text(&render::bring(&preview))?;
    }
    if request.to == To::Live && !args.yes && !agreed(output)? {
        output.text("nothing was changed")?;
        return Ok(Code::Interrupted);
    }
    request.dry_run = false;
    request.wanted.path = preview.live_path.clone();
    request.wanted.role = Some(preview.restore.role.clone());
    request.wanted.dataset = Some(preview.dataset.clone());
    request.wanted.source = Some(preview.source.clone());
    perform(&control, output, request, &preview)
}

fn perform(
    control: &Control,
    output: Output,
    request: BringRequest,
    preview: &BringReport,
) -> Result<Code> {
    let role = Some(preview.restore.role.clone());
    let interrupts = Interrupts::listen()?;
    let mut progress = Progress::new(output, role, interrupts, OnInterrupt::Leave);
    let answer = control.call(&Request::Bring(request), &mut progress);
    let said = answer.as_ref().ok().and_then(Option::as_ref);
    let said: Option<BringReport> = said.and_then(|value| client::meaning(value).ok());
    progress.finish(&said.as_ref().map(render::bring).unwrap_or_default())?;
    let Some(value) = answer? else {
        output::complain("the restore goes on in the daemon\nhint: standin status shows it");
        return Ok(Code::Interrupted);
    };
    let mut report: BringReport = client::meaning(&value)?;
    // What was live before is known from then.
    report.live.clone_from(&preview.live);
    output.answer(&value, || {
        let undo = render::bring_undo(&report).map(|undo| format!("\n{undo}"));
        Ok(render::bring(&report) + &undo.unwrap_or_default())
    })?;
    Ok(Code::Done)
}
