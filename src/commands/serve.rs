//! `standin serve`: becomes the daemon. `standin reload`: has it read its configuration again.

use anyhow::Result;

use super::client::{Control, Unwatched};
use super::output::Output;
use crate::cli::Global;
use crate::daemon;
use crate::daemon::api::Request;
use crate::error::Code;

pub fn run(global: &Global) -> Result<Code> {
    daemon::serve(&global.config)?;
    Ok(Code::Done)
}

pub fn reload(global: &Global) -> Result<Code> {
    let value = Control::of(global).call(&Request::Reload, &mut Unwatched)?;
    Output::of(global).answer(&value.unwrap_or_default(), || {
        Ok(format!("{} is in force", global.config.display()))
    })?;
    Ok(Code::Done)
}
