//! `standin rebuild`: shows what a peer would make of this node, asks, and has the daemon do exactly that.
//!
//! Promise: nothing is written into the configuration that was not shown. Leaving, by Ctrl-C or otherwise, never stops the
//! daemon's work, and running it again goes on.

use anyhow::Result;

use super::client::{self, Control};
use super::interrupt::Interrupts;
use super::output::{self, Output};
use super::progress::{OnInterrupt, Progress};
use super::{pair, render};
use crate::cli::{Global, Rebuild};
use crate::daemon::api::{Paired, RebuildReport, RebuildRequest, Request, Status};
use crate::error::{Code, Failure};
use crate::logic::name::NodeName;

pub fn run(global: &Global, args: &Rebuild) -> Result<Code> {
    let control = Control::of(global);
    let output = Output::of(global);
    pair_first(&control, output, args)?;
    let mut request = RebuildRequest {
        from: args.from.clone(),
        roles: args.roles.clone(),
        paths: args.paths.iter().cloned().collect(),
        dry_run: true,
    };
    let (value, preview): (_, RebuildReport) = control.ask(&Request::Rebuild(request.clone()))?;
    if args.dry_run {
        output.answer(&value, || Ok(render::rebuild(&preview)))?;
        return Ok(render::rebuild_code(&preview));
    }
    if !output.is_json() {
        output.text(&render::rebuild(&preview))?;
    }
    if preview.problems.is_empty() && !args.yes && !agreed(output, &preview)? {
        output.text("nothing was changed")?;
        return Ok(Code::Interrupted);
    }
    request.dry_run = false;
    perform(&control, output, request)
}

/// Pairs with the peer, where this node has not: with the line that was given, or that a person pastes.
fn pair_first(control: &Control, output: Output, args: &Rebuild) -> Result<()> {
    let line = match &args.invite {
        Some(line) => line.clone(),
        None => {
            let (_, status): (_, Status) = control.ask(&Request::Status)?;
            let paired = |name: &NodeName| {
                status
                    .peers
                    .iter()
                    .any(|peer| peer.name == *name && peer.paired)
            };
            if paired(&args.from) || output.is_json() || !output::can_ask() {
                return Ok(());
            }
            output::complain(&format!(
                "This node is not paired with {0} yet. On {0}, run: standin pair invite --replace {1}",
                args.from, status.node
            ));
            pair::pasted()?
        }
    };
    let (_, paired): (_, Paired) = control.ask(&Request::PairAccept { line })?;
    if paired.peer != args.from {
        let what = format!(
            "rebuild from {}: the invitation is of {}",
            args.from, paired.peer
        );
        let hint = format!(
            "to rebuild from that one: standin rebuild --from {}",
            paired.peer
        );
        return Err(Failure::new(Code::Usage, what).hint(hint).into());
    }
    if !output.is_json() {
        output.text(&format!("paired with {}", paired.peer))?;
    }
    Ok(())
}

/// Whether a person says yes.
fn agreed(output: Output, preview: &RebuildReport) -> Result<bool> {
    if output.is_json() || !output::can_ask() {
        return Err(Failure::new(
            Code::Refused,
            "rebuild this node unasked: there is no terminal to ask on",
        )
        .hint("look at it with --dry-run, then add --yes")
        .into());
    }
    output::confirm(match preview.sections.is_empty() {
        true => "Fetch the points as shown?",
        false => "Write the sections as shown, and fetch the points?",
    })
}

fn perform(control: &Control, output: Output, request: RebuildRequest) -> Result<Code> {
    let again = format!("standin rebuild --from {}", request.from);
    let interrupts = Interrupts::listen()?;
    let mut progress = Progress::new(output, None, interrupts, OnInterrupt::Leave);
    let answer = control.call(&Request::Rebuild(request), &mut progress);
    let report: Option<RebuildReport> = match &answer {
        Ok(Some(value)) => Some(client::meaning(value)?),
        _ => None,
    };
    let text = report.as_ref().map(render::rebuild).unwrap_or_default();
    progress.finish(&text)?;
    let (Some(value), Some(report)) = (answer?, report) else {
        output::complain(&format!(
            "the work goes on in the daemon\nhint: standin status shows it; if the daemon ends: {again}"
        ));
        return Ok(Code::Interrupted);
    };
    output.answer(&value, || Ok(text))?;
    Ok(render::rebuild_code(&report))
}
