//! `standin check`: what is wrong or missing. With a daemon it looks at everything; without one, at the file.

use std::path::Path;

use anyhow::Result;
use serde_json::Value;

use super::client::Control;
use super::output::Output;
use super::render;
use crate::cli::{Check, Global};
use crate::daemon::api::{CheckReport, Finding, Level, Request};
use crate::error::{Code, Failure};

pub fn run(global: &Global, args: &Check) -> Result<Code> {
    let output = Output::of(global);
    let config = Path::new(&global.config);
    if args.show_config {
        let text = std::fs::read_to_string(config)?;
        output.text(&text)?;
        return Ok(Code::Done);
    }
    let (value, report) = gather(global)?;
    output.answer(&value, || Ok(render::findings(&report)))?;
    Ok(render::findings_code(&report))
}

/// The daemon's findings; where it does not run, those that need no daemon.
fn gather(global: &Global) -> Result<(Value, CheckReport)> {
    let error = match Control::of(global).ask(&Request::Check) {
        Ok(answer) => return Ok(answer),
        Err(error) => error,
    };
    let Some(failure) = Failure::of(&error).filter(|failure| failure.code == Code::NoDaemon) else {
        return Err(error);
    };
    let mut findings = config_findings(&global.config);
    findings.push(Finding {
        level: Level::Problem,
        subject: "daemon".into(),
        text: failure.what.clone(),
        hint: failure.hint.clone(),
    });
    let report = CheckReport { findings };
    Ok((serde_json::to_value(&report)?, report))
}

fn config_findings(path: &Path) -> Vec<Finding> {
    let _ = path;
    vec![]
}
