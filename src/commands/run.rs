//! `standin run` and `standin cancel`: a cycle now, watched; the work is the daemon's and does not need us.

use anyhow::Result;

use super::client::{self, Control};
use super::interrupt::Interrupts;
use super::output::{self, Output};
use super::progress::{OnInterrupt, Progress};
use super::render;
use crate::cli::{Cancel, Global, Run};
use crate::daemon::api::{CycleReport, Request};
use crate::error::Code;

pub fn run(global: &Global, args: &Run) -> Result<Code> {
    let control = Control::of(global);
    let output = Output::of(global);
    let request = Request::Run {
        role: args.role.clone(),
        dry_run: args.dry_run,
        attach: args.attach,
    };
    let on_interrupt = if args.cancel {
        let (control, role) = (control.clone(), args.role.clone());
        OnInterrupt::Stop(Some(Box::new(move || {
            output::complain("stopping; transfers keep their last checkpoint");
            control.call(&Request::Cancel { role }, &mut client::Unwatched)?;
            Ok(())
        })))
    } else {
        OnInterrupt::Leave
    };
    let interrupts = Interrupts::listen()?;
    let mut progress = Progress::new(output, args.role.clone(), interrupts, on_interrupt);
    let answer = control.call(&request, &mut progress);
    progress.finish();
    let Some(value) = answer? else {
        if !args.cancel {
            output::complain(&left_running(args));
        }
        return Ok(Code::Interrupted);
    };
    let report: CycleReport = client::meaning(&value)?;
    output.answer(&value, || Ok(render::cycle(&report)))?;
    Ok(if progress.interrupted() {
        Code::Interrupted
    } else {
        render::cycle_code(&report)
    })
}

pub fn cancel(global: &Global, args: &Cancel) -> Result<Code> {
    let control = Control::of(global);
    let role = args.role.clone();
    let value = control.call(&Request::Cancel { role }, &mut client::Unwatched)?;
    Output::of(global).answer(&value.unwrap_or_default(), || {
        Ok(
            "stopped; transfers keep their last checkpoint, and the next cycle goes on from it"
                .into(),
        )
    })?;
    Ok(Code::Done)
}

fn left_running(args: &Run) -> String {
    let role = args
        .role
        .as_ref()
        .map_or(String::new(), |role| format!(" {role}"));
    format!(
        "the work goes on in the daemon\n\
         hint: see it again with: standin run{role} --attach; stop it with: standin cancel{role}"
    )
}
