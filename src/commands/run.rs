//! `standin run` and `standin cancel`: a cycle now, watched; the work is the daemon's and does not need us.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::Result;

use super::client::{self, Control};
use super::interrupt::Interrupts;
use super::output::{self, Output};
use super::progress::{OnInterrupt, Progress};
use super::render;
use crate::cli::{Cancel, Global, Run};
use crate::daemon::api::{CycleReport, Request};
use crate::error::Code;
use crate::logic::name::{NodeName, RoleName};

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
    let mut progress = Progress::new(output, args.role.clone(), interrupts, on_interrupt)
        .alone(roles(&global.config) == Some(1));
    let answer = control.call(&request, &mut progress);
    let report: Option<CycleReport> = match &answer {
        Ok(Some(value)) => Some(client::meaning(value)?),
        _ => None,
    };
    let text = report.as_ref().map(render::cycle).unwrap_or_default();
    progress.finish(&text)?;
    let (Some(value), Some(report)) = (answer?, report) else {
        if !args.cancel {
            output::complain(&left_running(args));
        }
        return Ok(Code::Interrupted);
    };
    output.answer(&value, || Ok(text))?;
    Ok(if progress.interrupted() {
        Code::Interrupted
    } else {
        render::cycle_code(&report)
    })
}

/// How many roles a configuration has; none when it cannot be read.
fn roles(config: &Path) -> Option<usize> {
    let text = std::fs::read_to_string(config).ok()?;
    let table: toml::Table = text.parse().ok()?;
    Some(table.get("role")?.as_table()?.len())
}

pub fn cancel(global: &Global, args: &Cancel) -> Result<Code> {
    let control = Control::of(global);
    let role = args.role.clone();
    let value = control.call(&Request::Cancel { role }, &mut client::Unwatched)?;
    let cycles = value.as_ref().and_then(|value| value["cancelled"].as_u64());
    let senders: BTreeSet<NodeName> = match value.as_ref().map(|value| &value["senders"]) {
        Some(senders) if !senders.is_null() => client::meaning(senders)?,
        _ => BTreeSet::new(),
    };
    let answer = serde_json::json!({ "cancelled": cycles, "senders": senders });
    let text = stopped(cycles, args.role.as_ref(), &senders);
    Output::of(global).answer(&answer, || Ok(text))?;
    Ok(Code::Done)
}

/// An older daemon does not say how many cycles it stopped.
fn stopped(cycles: Option<u64>, role: Option<&RoleName>, senders: &BTreeSet<NodeName>) -> String {
    let kept = "transfers keep their last checkpoint, and the next cycle goes on from it";
    let mut text = match cycles {
        Some(0) if senders.is_empty() => "nothing was running".into(),
        Some(0) => "no cycle of this node was running".into(),
        _ => format!("stopped; {kept}"),
    };
    let of_role = role.map_or(String::new(), |role| format!(" {role}"));
    for sender in senders {
        text += &format!(
            "\nwhat {sender} sends to this node goes on; to stop it, on {sender}: standin cancel{of_role}"
        );
    }
    text
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_cancel_tells() {
        let (web, alder) = (
            RoleName::parse("web").unwrap(),
            NodeName::parse("alder").unwrap(),
        );
        let check = |cycles, senders: &[&NodeName], words: &str| {
            let senders = senders.iter().map(|&name| name.clone()).collect();
            let said = stopped(cycles, Some(&web), &senders);
            assert!(said.contains(words), "{said}");
        };
        check(Some(0), &[], "nothing was running");
        check(Some(2), &[], "keep their last checkpoint");
        check(None, &[], "stopped");
        check(
            Some(0),
            &[&alder],
            "no cycle of this node was running\nwhat alder sends",
        );
        check(Some(1), &[&alder], "on alder: standin cancel web");
    }
}
