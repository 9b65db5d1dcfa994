//! `standin serve`: becomes the daemon. `standin reload`: has it read its configuration again.

use anyhow::Result;

use super::client::{Control, Unwatched};
use super::output::Output;
use crate::cli::Global;
use crate::daemon;
use crate::daemon::api::Request;
use crate::error::{Code, Failure};

pub fn run(global: &Global) -> Result<Code> {
    daemon::serve(&global.config).map_err(|error| with_hint(global, error))?;
    Ok(Code::Done)
}

/// A configuration that cannot be opened comes with the next step.
fn with_hint(global: &Global, error: anyhow::Error) -> anyhow::Error {
    match (Failure::of(&error), super::config_hint(&global.config)) {
        (Some(failure), Some(hint)) if failure.code == Code::Usage && failure.hint.is_none() => {
            failure.clone().hint(hint).into()
        }
        _ => error,
    }
}

pub fn reload(global: &Global) -> Result<Code> {
    let value = Control::of(global).call(&Request::Reload, &mut Unwatched)?;
    // An older daemon answers null; in JSON every answer is an object.
    let value = value.filter(|value| !value.is_null());
    let value = value.unwrap_or_else(|| serde_json::json!({}));
    Output::of(global).answer(&value, || {
        Ok(format!("{} is in force", global.config.display()))
    })?;
    Ok(Code::Done)
}
