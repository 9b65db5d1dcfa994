//! The words of `standin fork`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use crate::logic::name::RoleName;

/// Look after forks: data written on this node that are not of the surviving line
///
/// When a role moved away from a node that wrote on, what only that node has is kept there as a fork until somebody
/// discards it. A fork is no backup: it lies on this node alone.
#[derive(Debug, Args)]
#[command(
    arg_required_else_help = true,
    disable_help_subcommand = true,
    after_help = "\
Example, from finding a fork to letting it go:
  standin fork list
  standin fork diff web 1.45
  standin fork mount web 1.45 /mnt         look around, copy what is needed
  standin fork unmount /mnt
  standin fork discard web 1.45"
)]
pub struct Fork {
    #[command(subcommand)]
    pub step: ForkStep,
}

#[derive(Debug, Subcommand)]
pub enum ForkStep {
    List(ForkList),
    Show(ForkShow),
    Diff(ForkDiff),
    Mount(ForkMount),
    Unmount(ForkUnmount),
    Export(ForkExport),
    Discard(ForkDiscard),
}

/// List the forks on this node
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  standin fork list
  standin fork list web --json")]
pub struct ForkList {
    /// Only this role [default: all]
    pub role: Option<RoleName>,
}

/// Show one fork: its points, when it was written, what differs
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  standin fork show web 1.45")]
pub struct ForkShow {
    pub role: RoleName,
    /// Which fork: epoch.sequence (1.45), or the beginning of its name
    pub fork: String,
}

/// List the files that differ between a fork and the line it left
///
/// Compared are the fork's newest point and the point that it grew from; where that is gone, the fork's oldest point.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  standin fork diff web 1.45
  standin fork diff web 1.45 --stat        only the sums
  standin fork diff web 1.45 --json | jq '.datasets[].changes[].path'")]
pub struct ForkDiff {
    pub role: RoleName,
    /// Which fork: epoch.sequence (1.45), or the beginning of its name
    pub fork: String,
    /// Only how many files and bytes
    #[arg(long)]
    pub stat: bool,
}

/// Show the newest state of a fork in a directory, read-only
///
/// Each dataset is a directory in it. It lasts until unmount or the next boot.
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  standin fork mount web 1.45 /mnt")]
pub struct ForkMount {
    pub role: RoleName,
    /// Which fork: epoch.sequence (1.45), or the beginning of its name
    pub fork: String,
    /// An empty directory
    pub dir: PathBuf,
}

/// Take down what `fork mount` put up
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  standin fork unmount /mnt")]
pub struct ForkUnmount {
    /// The directory that was given to `fork mount`
    pub dir: PathBuf,
}

/// Copy the newest state of a fork into a new directory
///
/// Each dataset is a directory in it: a writable snapshot on the same filesystem, a copy elsewhere.
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  standin fork export web 1.45 /srv/rescued")]
pub struct ForkExport {
    pub role: RoleName,
    /// Which fork: epoch.sequence (1.45), or the beginning of its name
    pub fork: String,
    /// A directory that does not exist yet
    pub dir: PathBuf,
}

/// Destroy a fork for good
///
/// Shows what is given up, and asks.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  standin fork discard web 1.45 --dry-run
  standin fork discard web 1.45 --yes")]
pub struct ForkDiscard {
    pub role: RoleName,
    /// Which fork: epoch.sequence (1.45), or the beginning of its name
    pub fork: String,
    /// Show what would be given up and change nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Do not ask; needed where there is no terminal to ask on
    #[arg(long, short)]
    pub yes: bool,
}
