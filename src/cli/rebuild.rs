//! The arguments of `rebuild`.

use std::path::PathBuf;

use clap::Args;

use crate::logic::name::{NodeName, RoleName};

/// Bring this new or wiped node back from a peer
///
/// Asks the peer for the roles that it shares with this node, by this node's name; writes those that are missing into the
/// configuration, once you have seen them; and fetches their points: the newest of every role first, then the history. It
/// goes on where it stopped: after a cut, a crash or Ctrl-C, run it again. This node stands in afterwards; nothing is
/// served until `standin promote`. Sections that are in the configuration already are never changed.
#[derive(Debug, Args)]
#[command(after_help = "\
The whole way, for alder that was lost and has a new disk:
  birch# standin pair invite --replace alder       prints one line
  alder# standin init --name alder
  alder# systemctl start standin
  alder# standin rebuild --from birch              asks for that line, then shows what it will do
  alder# standin promote web                       if nobody serves the role meanwhile

Further examples:
  standin rebuild --from birch --dry-run
  standin rebuild --from birch --path web/files=/mnt/pool/web")]
pub struct Rebuild {
    /// Only these roles [default: all that the peer shares with this node]
    pub roles: Vec<RoleName>,
    /// The peer that still has everything
    #[arg(long, value_name = "PEER")]
    pub from: NodeName,
    /// The line that `standin pair invite --replace` printed there, where this node is not paired yet [default: asked for]
    #[arg(long, value_name = "LINE")]
    pub invite: Option<String>,
    /// Where a dataset is to live here, when not at the path it has on the peer; may be repeated
    #[arg(long = "path", value_name = "ROLE/DATASET=PATH", value_parser = placed)]
    pub paths: Vec<(String, PathBuf)>,
    /// Show what would be written and fetched, and change nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Do not ask; needed where there is no terminal to ask on
    #[arg(long, short)]
    pub yes: bool,
}

fn placed(word: &str) -> Result<(String, PathBuf), String> {
    let (dataset, path) = word
        .split_once('=')
        .filter(|(dataset, _)| dataset.contains('/'))
        .ok_or("write it as ROLE/DATASET=PATH, such as web/files=/srv/web")?;
    let path = PathBuf::from(path);
    if !path.is_absolute() {
        return Err("the path must begin with /".to_owned());
    }
    Ok((dataset.to_owned(), path))
}
