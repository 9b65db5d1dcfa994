//! `standin check`: what is wrong or missing. With a daemon it looks at everything; without one, at the file.

use std::path::Path;

use anyhow::Result;
use serde_json::Value;

use super::client::Control;
use super::output::Output;
use super::render;
use crate::cli::{Check, Global};
use crate::config::Config;
use crate::daemon::api::{CheckReport, Finding, Level, Request};
use crate::error::{Code, Failure};

pub fn run(global: &Global, args: &Check) -> Result<Code> {
    let output = Output::of(global);
    if args.show_config {
        let shown = Config::load(&global.config)?.show();
        let value = serde_json::json!({ "config": shown });
        output.answer(&value, || Ok(shown))?;
        return Ok(Code::Done);
    }
    let (value, report) = gather(global)?;
    output.answer(&value, || Ok(render::findings(&report)))?;
    Ok(render::findings_code(&report))
}

/// The daemon's findings; where it does not run, those that need no daemon.
fn gather(global: &Global) -> Result<(Value, CheckReport)> {
    let mut findings = config_findings(&global.config);
    let wrong = |finding: &Finding| finding.level == Level::Problem;
    if global.socket.is_none() && findings.iter().any(wrong) {
        // A file with mistakes does not even say which daemon to ask.
        let report = CheckReport { findings };
        return Ok((serde_json::to_value(&report)?, report));
    }
    let control = Control::of(global);
    let error = match control.ask(&Request::Check) {
        Ok(answer) => return Ok(answer),
        Err(error) => error,
    };
    let Some(failure) = Failure::of(&error).filter(|failure| failure.code == Code::NoDaemon) else {
        return Err(error);
    };
    let socket = control.socket().display();
    findings.push(Finding {
        level: Level::Problem,
        subject: "daemon".into(),
        text: format!("not running (nothing answers on {socket})"),
        hint: failure.hint.clone(),
    });
    let report = CheckReport { findings };
    Ok((serde_json::to_value(&report)?, report))
}

/// What can be said of the file alone: one finding for each complaint, or one that it is in order.
fn config_findings(path: &Path) -> Vec<Finding> {
    let finding = |level, text: String| Finding {
        level,
        subject: "config".into(),
        text,
        hint: None,
    };
    match Config::load(path) {
        Ok(config) => vec![finding(
            Level::Ok,
            format!("{} is valid", config.path.display()),
        )],
        Err(complaints) => {
            let file = complaints.path.display().to_string();
            let complaints = complaints.list.iter();
            complaints
                .map(|complaint| finding(Level::Problem, format!("{file}:{complaint}")))
                .collect()
        }
    }
}
