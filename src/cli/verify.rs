//! The arguments of `verify`.

use clap::Args;

use crate::logic::name::{DatasetName, NodeName, RoleName};

/// Compare this node's copy of a point with its peers' copies, without sending it
///
/// Both nodes read their copies at the same time, and tell each other hashes. What was read before and has not changed is not
/// read again, unless --full: that is how a disk is found that gives back something else than was written. Where copies
/// differ, the files are named, and what can be known of the cause. Exit code 0: all are equal; 19: a copy differs or
/// cannot be read; 3: some peers could not be asked.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  standin verify web                               the newest point that both hold, with every peer
  standin verify web --full --rate 50MB/s
  standin verify web --point 1.42 --peer birch --repair    fetch this node's copy again where it differs")]
pub struct Verify {
    pub role: RoleName,
    /// Which point: latest, epoch.sequence (1.42), or the beginning of a name
    #[arg(long, default_value = "latest")]
    pub point: String,
    /// Only with this peer [default: all of the role]
    #[arg(long)]
    pub peer: Option<NodeName>,
    /// Only this dataset [default: all of the role]
    #[arg(long)]
    pub dataset: Option<DatasetName>,
    /// Read every file, also what was read before
    #[arg(long)]
    pub full: bool,
    /// The most that this node reads, such as 50MB/s [default: no limit; the peer has its own, verify-rate]
    #[arg(long, value_name = "RATE")]
    pub rate: Option<String>,
    /// Where it differs, set this node's copy aside, and fetch it again from that peer
    #[arg(long, requires = "peer")]
    pub repair: bool,
    /// Do not ask before a repair; needed where there is no terminal to ask on
    #[arg(long, short)]
    pub yes: bool,
}
