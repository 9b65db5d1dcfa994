//! `standin verify`: copies of a point compared, and on request this node's copy fetched again.
//!
//! Promise: a comparison changes nothing; a copy is set aside only after a yes. The work is the daemon's, and does not need us.

use anyhow::Result;
use serde_json::Value;

use super::client::{self, Control};
use super::interrupt::Interrupts;
use super::output::{self, Output};
use super::progress::{OnInterrupt, Progress};
use super::render;
use crate::cli::{Global, Verify};
use crate::daemon::api::{CycleReport, MendRequest, Request, VerifyReport, VerifyRequest};
use crate::error::{Code, Failure};
use crate::logic::units;

pub fn run(global: &Global, args: &Verify) -> Result<Code> {
    let control = Control::of(global);
    let output = Output::of(global);
    let rate = args.rate.as_deref().map(rate).transpose()?;
    let request = Request::Verify(VerifyRequest {
        role: args.role.clone(),
        point: args.point.clone(),
        peer: args.peer.clone(),
        dataset: args.dataset.clone(),
        full: args.full,
        rate,
    });
    let Some((value, report)) = watched::<VerifyReport>(&control, output, &request, args)? else {
        return Ok(Code::Interrupted);
    };
    let code = render::verify_code(&report);
    let differs = report.peers.iter().find(|peer| peer.equal == Some(false));
    let Some((point, peer)) = differs
        .filter(|_| args.repair)
        .and_then(|peer| Some((peer.point.as_ref()?, &peer.peer)))
    else {
        output.answer(&value, || Ok(render::verify(&report)))?;
        return Ok(code);
    };
    if !output.is_json() {
        output.text(&render::verify(&report))?;
    }
    if !args.yes && !agreed(output, &report, &point.short)? {
        output.text("nothing was changed")?;
        return Ok(code);
    }
    let request = Request::Mend(MendRequest {
        role: args.role.clone(),
        point: point.name.to_string(),
        peer: peer.clone(),
    });
    let Some((value, report)) = watched::<CycleReport>(&control, output, &request, args)? else {
        return Ok(Code::Interrupted);
    };
    output.answer(&value, || Ok(render::rescan(&report)))?;
    Ok(render::cycle_code(&report))
}

fn rate(word: &str) -> Result<u64> {
    let rate = units::parse_rate(word);
    rate.map_err(|why| {
        Failure::new(Code::Usage, format!("understand --rate {word}: {why}"))
            .hint("write it as 50MB/s, 500KiB/s or 16Mbit/s")
            .into()
    })
}

/// Asks the daemon and shows what happens meanwhile; none where the person left.
fn watched<T: serde::de::DeserializeOwned>(
    control: &Control,
    output: Output,
    request: &Request,
    args: &Verify,
) -> Result<Option<(Value, T)>> {
    let interrupts = Interrupts::listen()?;
    let role = Some(args.role.clone());
    let mut progress = Progress::new(output, role, interrupts, OnInterrupt::Leave);
    let answer = control.call(request, &mut progress);
    progress.finish("")?;
    let Some(value) = answer? else {
        output::complain(
            "the work goes on in the daemon\nhint: standin status shows what came of it",
        );
        return Ok(None);
    };
    let meaning = client::meaning(&value)?;
    Ok(Some((value, meaning)))
}

fn agreed(output: Output, report: &VerifyReport, short: &str) -> Result<bool> {
    if output.is_json() || !output::can_ask() {
        return Err(Failure::new(
            Code::Refused,
            "repair a copy unasked: there is no terminal to ask on",
        )
        .hint("add --yes when this node's copy is the wrong one")
        .into());
    }
    output::confirm(&format!(
        "Set {}'s copy of {short} aside, and fetch it again?",
        report.node
    ))
}
