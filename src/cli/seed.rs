//! The arguments of `seed`.

use clap::Args;

use crate::logic::name::RoleName;

/// Make this node's files from the templates of a role now
///
/// The daemon does this by itself when a template changes or the role moves. A file that somebody edited since it was made is
/// left alone; --replace makes it anew and keeps what was there as NAME.standin-was-DATE. Exit code 1: a file could not be
/// made; 3: only some could; 15: a file was left alone because somebody else wrote it.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  standin seed --dry-run                   what would change, as a diff
  standin seed web
  standin seed web --replace               also files that were edited here")]
pub struct Seed {
    /// Only this role [default: all]
    pub role: Option<RoleName>,
    /// Show what would change and write nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Also over files that somebody else wrote, which are kept beside
    #[arg(long)]
    pub replace: bool,
}
