//! `standin promote`, `handover`, `failback`, `resume`, `resolve`, `pause`: a role that moves, watched; the work is the
//! daemon's and does not need us.

use anyhow::Result;

use super::client::{self, Control};
use super::interrupt::Interrupts;
use super::output::{self, Output};
use super::progress::{OnInterrupt, Progress};
use super::render;
use crate::cli::{Failback, Global, Handover, Pause, Promote, Resolve, Resume};
use crate::daemon::api::{MoveReport, PromoteRequest, Request};
use crate::error::Code;
use crate::logic::name::RoleName;

pub fn promote(global: &Global, args: &Promote) -> Result<Code> {
    let request = Request::Promote(PromoteRequest {
        role: args.role.clone(),
        point: args.point.clone(),
        stopped: args.assert_stopped.clone(),
        accept_loss_after: args.accept_loss_after.clone(),
        dry_run: args.dry_run,
    });
    follow(global, &args.role, &request)
}

pub fn handover(global: &Global, args: &Handover) -> Result<Code> {
    let role = args.role.clone();
    let request = match args.cancel {
        true => Request::HandOverCancel { role },
        false => Request::HandOver {
            role,
            to: args.to.clone(),
            dry_run: args.dry_run,
        },
    };
    follow(global, &args.role, &request)
}

pub fn failback(global: &Global, args: &Failback) -> Result<Code> {
    let request = Request::HandOver {
        role: args.role.clone(),
        to: None,
        dry_run: args.dry_run,
    };
    follow(global, &args.role, &request)
}

pub fn resume(global: &Global, args: &Resume) -> Result<Code> {
    let request = Request::Resume {
        role: args.role.clone(),
        dry_run: args.dry_run,
    };
    follow(global, &args.role, &request)
}

pub fn resolve(global: &Global, args: &Resolve) -> Result<Code> {
    let request = Request::Resolve {
        role: args.role.clone(),
        keep: args.keep.clone(),
        dry_run: args.dry_run,
    };
    follow(global, &args.role, &request)
}

pub fn pause(global: &Global, args: &Pause) -> Result<Code> {
    let request = Request::Pause {
        role: args.role.clone(),
        off: args.off,
    };
    follow(global, &args.role, &request)
}

/// Has it done, and shows what happens until it is over.
fn follow(global: &Global, role: &RoleName, request: &Request) -> Result<Code> {
    let control = Control::of(global);
    let output = Output::of(global);
    let interrupts = Interrupts::listen()?;
    let shown = Some(role.clone());
    let mut progress = Progress::new(output, shown, interrupts, OnInterrupt::Leave);
    let answer = control.call(request, &mut progress);
    let report: Option<MoveReport> = match &answer {
        Ok(Some(value)) => Some(client::meaning(value)?),
        _ => None,
    };
    let text = report.as_ref().map(render::moved).unwrap_or_default();
    progress.finish(&text)?;
    let Some(value) = answer? else {
        output::complain("the work goes on in the daemon\nhint: standin status shows it");
        return Ok(Code::Interrupted);
    };
    output.answer(&value, || Ok(text))?;
    Ok(Code::Done)
}
