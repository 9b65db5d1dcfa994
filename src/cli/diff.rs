//! The arguments of `diff`.

use clap::Args;

use crate::logic::name::DatasetName;

/// Show what differs between two points, a fork, or the live data
///
/// What was added, removed, changed, renamed, or differs in owner, mode, times or attributes only, with sizes before and after.
/// A directory that is wholly new or gone is one line. The time it takes follows the changes, not the size of the data.
///
/// A and B are each latest, epoch.sequence (1.42), the beginning of a name, one of these with ~2 for the second point before
/// it, live for the data as they are now, or fork:1.45. ROLE may be left out where this node has one, or where PATH is the
/// absolute path of something in it.
#[derive(Debug, Args)]
#[command(
    override_usage = "standin diff [OPTIONS] [ROLE] A B [PATH]",
    after_help = "\
Examples:
  standin diff web latest live             what was done since the newest point
  standin diff web latest~1 latest         what the newest point brought
  standin diff 1.42 live /srv/web/etc --text
  standin diff web 1.42 1.45 --stat        only how much, and where most of it is
  standin diff web 1.42 fork:1.45 --json"
)]
pub struct Diff {
    /// The role, the two that are compared, and a path: inside the dataset, or absolute
    #[arg(value_name = "ROLE|A|B|PATH", required = true, num_args = 2..=4)]
    pub words: Vec<String>,
    /// Only this dataset [default: all of the role]
    #[arg(long)]
    pub dataset: Option<DatasetName>,
    /// Only sums, for each dataset and the directories in which most differs
    #[arg(long)]
    pub stat: bool,
    /// Show what changed in text files, line by line (up to 1 MiB each)
    #[arg(long, conflicts_with = "stat")]
    pub text: bool,
    /// List all that is in directories that are wholly new or gone
    #[arg(long, conflicts_with = "stat")]
    pub unfold: bool,
}
