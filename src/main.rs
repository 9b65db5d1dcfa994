//! The program: reads the command line, runs one verb, and ends with a published exit code. Nothing else.

use std::process::ExitCode;

use clap::Parser;
use standin::cli::Cli;
use standin::commands;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return ExitCode::from(commands::misused(error) as u8),
    };
    let global = cli.global.clone();
    let code = commands::run(cli).unwrap_or_else(|error| commands::failed(&global, &error));
    ExitCode::from(code as u8)
}
