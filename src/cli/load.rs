//! The arguments of `load`.

use clap::Args;

use crate::logic::name::RoleName;

/// Read the database dumps of a role into their servers
///
/// The dumps are files in the role's live data, written when a point was taken ([[role.ROLE.dump]]). After a promotion this
/// happens by itself (load-on-promotion); after `standin restore` it is yours to ask for. A server that holds any of a
/// dump's databases is left alone, unless --replace. Exit code 1: a load failed; 15: a server was left alone.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  standin load web --dry-run
  standin load web orders
  standin load web orders --replace        what the server holds of it is dropped first
  standin load web --skip                  a promotion that waits for a load goes on without it")]
pub struct Load {
    pub role: RoleName,
    /// Which dump, by its name; all of them, where it is left out
    pub dump: Option<RoleName>,
    /// Drop what the server holds of the dump's databases first
    #[arg(long)]
    pub replace: bool,
    /// Load nothing: the role that waits for it goes on
    #[arg(long, conflicts_with_all = ["replace", "dry_run", "dump"])]
    pub skip: bool,
    /// Print the plan and change nothing
    #[arg(long)]
    pub dry_run: bool,
}
