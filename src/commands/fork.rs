//! `standin fork`: what was kept of writes that are not of the line, and what becomes of it.
//!
//! Promise: nothing is given up without a yes, and what was shown is what is discarded: the preview resolves the words, and
//! the order that follows names the fork it found.

use std::path::Path;

use anyhow::Result;

use super::client::Control;
use super::output::{self, Output};
use super::render;
use crate::cli::{Fork, ForkDiscard, ForkStep, Global};
use crate::daemon::api::{ForkDiff, ForkReport, ForkRequest, ForkView, Forks, Request};
use crate::error::{Code, Failure};

pub fn run(global: &Global, args: &Fork) -> Result<Code> {
    let control = Control::of(global);
    let output = Output::of(global);
    match &args.step {
        ForkStep::List(args) => {
            let role = args.role.clone();
            let request = Request::Fork(ForkRequest::List { role });
            let (value, forks): (_, Forks) = control.ask(&request)?;
            output.answer(&value, || Ok(render::forks(&forks)))?;
        }
        ForkStep::Show(args) => {
            let (role, fork) = (args.role.clone(), args.fork.clone());
            let request = Request::Fork(ForkRequest::Show { role, fork });
            let (value, fork): (_, ForkView) = control.ask(&request)?;
            output.answer(&value, || Ok(render::fork(&fork)))?;
        }
        ForkStep::Diff(args) => {
            let request = Request::Fork(ForkRequest::Diff {
                role: args.role.clone(),
                fork: args.fork.clone(),
                stat: args.stat,
            });
            let (value, diff): (_, ForkDiff) = control.ask(&request)?;
            output.answer(&value, || Ok(render::fork_diff(&diff, args.stat)))?;
        }
        ForkStep::Mount(args) => {
            let request = ForkRequest::Mount {
                role: args.role.clone(),
                fork: args.fork.clone(),
                dir: absolute(&args.dir)?,
            };
            perform(&control, output, request)?;
        }
        ForkStep::Unmount(args) => {
            let dir = absolute(&args.dir)?;
            perform(&control, output, ForkRequest::Unmount { dir })?;
        }
        ForkStep::Export(args) => {
            let request = ForkRequest::Export {
                role: args.role.clone(),
                fork: args.fork.clone(),
                dir: absolute(&args.dir)?,
            };
            perform(&control, output, request)?;
        }
        ForkStep::Discard(args) => return discard(&control, output, args),
    }
    Ok(Code::Done)
}

fn absolute(dir: &Path) -> Result<std::path::PathBuf> {
    Ok(std::path::absolute(dir)?)
}

fn perform(control: &Control, output: Output, request: ForkRequest) -> Result<()> {
    let (value, report): (_, ForkReport) = control.ask(&Request::Fork(request))?;
    output.answer(&value, || Ok(render::fork_report(&report)))
}

fn discard(control: &Control, output: Output, args: &ForkDiscard) -> Result<Code> {
    let request = |fork: String, dry_run| ForkRequest::Discard {
        role: args.role.clone(),
        fork,
        dry_run,
    };
    let preview = Request::Fork(request(args.fork.clone(), true));
    let (value, preview): (_, ForkReport) = control.ask(&preview)?;
    if args.dry_run {
        output.answer(&value, || {
            Ok(render::fork_report(&preview) + "\nnothing was changed (dry run)")
        })?;
        return Ok(Code::Done);
    }
    if !output.is_json() {
        output.text(&render::fork_report(&preview))?;
    }
    if !args.yes && !agreed(output)? {
        output.text("nothing was changed")?;
        return Ok(Code::Interrupted);
    }
    let named = preview.fork.map(|fork| fork.name.to_string());
    let order = request(named.unwrap_or_else(|| args.fork.clone()), false);
    let (value, report): (_, ForkReport) = control.ask(&Request::Fork(order))?;
    output.answer(&value, || Ok(render::fork_steps(&report)))?;
    Ok(Code::Done)
}

/// Whether a person says yes to giving the fork up.
fn agreed(output: Output) -> Result<bool> {
    if output.is_json() || !output::can_ask() {
        return Err(Failure::new(
            Code::Refused,
            "discard a fork unasked: there is no terminal to ask on",
        )
        .hint("add --yes when it is what you want; standin fork export keeps a copy")
        .into());
    }
    output::confirm("Discard it for good? What only it holds is lost.")
}
