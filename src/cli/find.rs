//! The arguments of `find`, `cat` and `restore`.

use std::path::PathBuf;

use clap::Args;

use crate::logic::name::{DatasetName, RoleName};

/// List every version of a file: in points here and on peers, live, and in forks
///
/// Newest first, numbered: `standin restore PATH --version N` brings one back, `standin cat` shows it. What was deleted is found
/// too, behind deleted directories as well. Patterns (*, ?, [a-z], **) go in quotes. Contents are not read: versions differ where
/// size, time of change, mode or owner do. A peer tells what this node is granted to "read" there.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  standin find /srv/web/index.html
  standin find ./notes.txt                 as seen from the directory you are in
  standin find '/srv/web/**/*.conf' --deleted
  standin find --role web www/index.html   a path inside the datasets of a role")]
pub struct Find {
    /// Where it is or was live; with --role or --dataset also a path inside a dataset
    #[arg(required = true, value_name = "PATH")]
    pub paths: Vec<PathBuf>,
    /// Only in this role
    #[arg(long)]
    pub role: Option<RoleName>,
    /// Only in datasets of this name
    #[arg(long)]
    pub dataset: Option<DatasetName>,
    /// Only what is not there any more
    #[arg(long)]
    pub deleted: bool,
    /// Only versions that no point of this node shows
    #[arg(long, conflicts_with = "local")]
    pub peers: bool,
    /// Ask no peer
    #[arg(long)]
    pub local: bool,
}

/// Which version: one of three ways to say it.
#[derive(Debug, Clone, Default, Args)]
pub struct Which {
    /// The number that `standin find` gives it
    #[arg(long, value_name = "N", conflicts_with_all = ["point", "before"])]
    pub version: Option<u32>,
    /// As it was in this point: epoch.sequence (1.42), or the beginning of a name
    #[arg(long, value_name = "POINT", conflicts_with = "before")]
    pub point: Option<String>,
    /// As it was then, by the local clock: 3h, '2 days ago', yesterday (the day's beginning), 'monday 9:30', 2026-11-20T12:00
    #[arg(long, value_name = "TIME")]
    pub before: Option<String>,
}

/// Print one version of a file
///
/// The newest one where nothing else is said: what is live, or the last there was.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  standin cat /srv/web/index.html --version 2
  standin cat /etc/app.conf --before yesterday | diff - /etc/app.conf")]
pub struct Cat {
    /// Where it is or was live; with --role or --dataset also a path inside a dataset
    pub path: PathBuf,
    #[command(flatten)]
    pub which: Which,
    /// Only in this role
    #[arg(long)]
    pub role: Option<RoleName>,
    /// Only in datasets of this name
    #[arg(long)]
    pub dataset: Option<DatasetName>,
}

/// Bring back a file, a directory, a dataset or a whole role
///
/// A path (with a / in it) comes back in the version asked for; left out, the newest that is not what is live now. A role comes
/// back from a point. Either goes over the live data unless --to or --beside names another place; the live state is then first
/// kept as a point of its own, so a restore can itself be undone. Shows what will happen, and asks before it touches live data.
/// On a terminal, without arguments: asks for everything, step by step.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  standin restore                          asks what, from when and where to
  standin restore /srv/web/index.html --version 2
  standin restore /srv/web/www --before '2 days ago' --beside
  standin restore web --dataset files --path www --to /srv/old
  standin restore web --point 1.42 --dry-run
  standin restore web --before yesterday --dataset db --yes")]
pub struct Restore {
    /// A role, or a path as it is or was live (a name in the directory you are in: ./NAME)
    #[arg(value_name = "ROLE|PATH")]
    pub what: Option<PathBuf>,
    #[command(flatten)]
    pub which: Which,
    /// Of a role: only this dataset [default: all of the role]
    #[arg(long)]
    pub dataset: Option<DatasetName>,
    /// Of a role: only this path: inside the dataset, or an absolute path below where it lives
    #[arg(long)]
    pub path: Option<PathBuf>,
    /// Restore into this directory instead of over the live data; with a path, where nothing is there yet: under this name
    #[arg(long, value_name = "DIR")]
    pub to: Option<PathBuf>,
    /// Of a path: put it beside what is live, as NAME.standin-POINT
    #[arg(long, conflicts_with = "to")]
    pub beside: bool,
    /// Show what would happen and change nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Do not ask; needed over live data where there is no terminal to ask on
    #[arg(long, short)]
    pub yes: bool,
}
