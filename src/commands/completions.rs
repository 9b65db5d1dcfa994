//! `standin completions`: what a shell needs to complete our words.

use anyhow::Result;
use clap::CommandFactory;

use super::output;
use crate::cli::{Cli, Completions};
use crate::error::Code;

pub fn run(args: &Completions) -> Result<Code> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "standin", &mut script);
    output::write(&script)?;
    Ok(Code::Done)
}
