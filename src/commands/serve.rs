//! `standin serve`: becomes the daemon.

use anyhow::Result;

use crate::cli::Global;
use crate::daemon;
use crate::error::Code;

pub fn run(global: &Global) -> Result<Code> {
    daemon::serve(&global.config)?;
    Ok(Code::Done)
}
