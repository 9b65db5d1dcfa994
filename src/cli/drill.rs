//! The arguments of `drill`.

use clap::Args;

use crate::logic::name::RoleName;

/// Rehearse a role from a throw-away copy of its newest point
///
/// Makes a writable copy of every dataset, starts services from it where the configuration says how, runs the checks of
/// [role.ROLE.drill], and discards the copy; without checks it reads every file. Live data, services and replication go on
/// untouched. Exit code 1: a check, or another step, failed; 17: there is no point to drill. To look at the data of a
/// point yourself: standin restore ROLE --to DIR.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  standin drill web --dry-run
  standin drill web
  standin drill web --point 1.42 --json
  standin cancel web                       ends a drill early")]
pub struct Drill {
    pub role: RoleName,
    /// Which point: latest, epoch.sequence (1.42), or the beginning of a name
    #[arg(long, default_value = "latest")]
    pub point: String,
    /// Print the plan and change nothing
    #[arg(long)]
    pub dry_run: bool,
}
