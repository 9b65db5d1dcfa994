//! `standin restore`: shows what will happen, asks where live data are concerned, and has the daemon do exactly that.
//!
//! Promise: what was shown is what is done: `latest` is resolved once, by the preview, and the point it found is named in
//! the order that follows. Live data are never replaced without a yes. What has a `/` in it, or begins with a dot, is a path; any
//! other word is a role.

use std::path::Path;

use anyhow::Result;

mod ask;
mod path;

use super::client::{self, Control};
use super::interrupt::Interrupts;
use super::output::{self, Output};
use super::progress::{OnInterrupt, Progress};
use super::render;
use crate::cli::{Global, Restore};
use crate::daemon::api::{Request, RestoreReport, RestoreRequest};
use crate::error::{Code, Failure};
use crate::logic::name::RoleName;

pub fn run(global: &Global, args: &Restore) -> Result<Code> {
    let Some(what) = &args.what else {
        return ask::run(global, args);
    };
    match what.to_str().and_then(|word| RoleName::parse(word).ok()) {
        Some(role) => of_role(global, args, role).map_err(|error| perhaps_a_file(what, error)),
        None => path::run(global, args, what),
    }
}

fn usage(what: &str, hint: &str) -> anyhow::Error {
    Failure::new(Code::Usage, what).hint(hint).into()
}

/// A role that is not there, and a file of that name in this directory.
fn perhaps_a_file(what: &Path, error: anyhow::Error) -> anyhow::Error {
    let unknown = Failure::of(&error).filter(|f| f.code == Code::NotFound);
    let Some(failure) = unknown.filter(|_| what.symlink_metadata().is_ok()) else {
        return error;
    };
    let word = what.display();
    let failure = failure.clone();
    failure
        .hint(format!("a role was looked for; the file here is ./{word}"))
        .into()
}

fn of_role(global: &Global, args: &Restore, role: RoleName) -> Result<Code> {
    if args.which.version.is_some() || args.beside {
        return Err(usage(
            &format!("restore role {role} that way: --version and --beside are for a path"),
            "name a path (./NAME in this directory), or say which point: --point or --before",
        ));
    }
    let control = Control::of(global);
    let output = Output::of(global);
    let to = match &args.to {
        Some(to) => Some(std::path::absolute(to)?),
        None => None,
    };
    let before = args.which.before.as_deref().map(super::find::before);
    let mut request = RestoreRequest {
        role,
        point: args.which.point.clone().unwrap_or("latest".to_owned()),
        before: before.transpose()?,
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
    request.before = None;
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
