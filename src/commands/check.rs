//! `standin check`: what is wrong or missing. With a daemon it looks at everything; without one, at the file.

use std::path::Path;

use anyhow::Result;
use serde_json::Value;

use super::client::{Control, START_IT};
use super::output::Output;
use super::render;
use crate::cli::{Check, Global};
use crate::config::{Config, PATH_DEFAULT};
use crate::daemon::api::{CheckReport, Finding, Level, Request};
use crate::error::{Code, Failure};

/// The subject of findings about the file.
const CONFIG: &str = "config";

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
        // Only a socket was named: the daemon's file is the one that counts.
        Ok(answer) if global.socket.is_some() && global.config == Path::new(PATH_DEFAULT) => {
            return Ok(answer);
        }
        Ok((_, report)) => {
            let report = CheckReport {
                findings: merged(findings, report.findings),
            };
            return Ok((serde_json::to_value(&report)?, report));
        }
        Err(error) => error,
    };
    let Some(failure) = Failure::of(&error).filter(|failure| failure.code == Code::NoDaemon) else {
        return Err(error);
    };
    let what = failure.what.strip_prefix("reach the daemon: ");
    findings.push(Finding {
        level: Level::Problem,
        subject: "daemon".into(),
        text: what.unwrap_or(&failure.what).to_owned(),
        hint: Some(START_IT.to_owned()),
    });
    let report = CheckReport { findings };
    Ok((serde_json::to_value(&report)?, report))
}

/// What the daemon found, but of the file what was just read in it: the daemon knows it as it was at the last reload.
fn merged(file: Vec<Finding>, daemon: Vec<Finding>) -> Vec<Finding> {
    let others = daemon
        .into_iter()
        .filter(|finding| finding.subject != CONFIG);
    file.into_iter().chain(others).collect()
}

/// What can be said of the file alone: one finding for each complaint, or one that it is in order.
fn config_findings(path: &Path) -> Vec<Finding> {
    let finding = |level, text: String| Finding {
        level,
        subject: CONFIG.into(),
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
                .map(|complaint| {
                    let blank = if complaint.line == 0 { " " } else { "" };
                    let text = format!("{file}:{blank}{complaint}");
                    Finding {
                        hint: super::config_hint(path),
                        ..finding(Level::Problem, text)
                    }
                })
                .collect()
        }
    }
}
