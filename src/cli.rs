//! The command line as a value: every verb, flag and word of help, and nothing that acts.
//!
//! Promise: docs/cli.md holds the help of every verb word for word (tests/tidy keeps it so). Words are those of the
//! glossary. A flag exists only for what one run wants; everything lasting stands in the configuration file.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::config;
use crate::logic::name::{DatasetName, NodeName, RoleName};

mod diff;
mod drift;
mod drill;
mod fork;
mod load;
mod mount;
mod moves;
mod seed;

pub use diff::Diff;
pub use drift::Drift;
pub use drill::Drill;
pub use fork::*;
pub use load::Load;
pub use mount::{Mount, Unmount};
pub use moves::{Failback, Handover, Pause, Promote, Resolve, Resume};
pub use seed::Seed;

/// Keeps a second server ready to take over: snapshot replication and failover for btrfs and ZFS.
#[derive(Debug, Parser)]
#[command(
    name = "standin",
    version,
    disable_help_subcommand = true,
    arg_required_else_help = true,
    after_help = "\
First steps, on each of two servers:
  standin init                    writes /etc/standin/standin.toml, to be edited
  systemctl start standin         starts the daemon (or: standin serve)
  standin pair invite             on the first server: prints one line
  standin pair accept             on the second one: asks for that line
  standin check                   on both: says what is still missing
  standin run                     on the active server: takes a point and sends it
Then, when the role is to move (docs/failover.md):
  standin handover ROLE --to NODE on the active server: moves it, losing nothing
  standin promote ROLE            on the other one, when the active server is dead

Exit codes are listed in docs/exit-codes.md: 0 done, 1 failed, 2 usage or configuration, 3 partly done, ..."
)]
pub struct Cli {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub verb: Verb,
}

#[derive(Debug, Clone, Args)]
pub struct Global {
    /// Configuration file
    #[arg(
        long,
        global = true,
        value_name = "PATH",
        env = "STANDIN_CONFIG",
        default_value = config::PATH_DEFAULT,
        hide_env_values = true
    )]
    pub config: PathBuf,
    /// Control socket of the daemon [default: what the configuration says]
    #[arg(long, global = true, value_name = "PATH")]
    pub socket: Option<PathBuf>,
    /// Print JSON instead of text (shapes: docs/json.md)
    #[arg(long, global = true)]
    pub json: bool,
    /// Log more to stderr; twice: everything
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub verbose: u8,
}

#[derive(Debug, Subcommand)]
pub enum Verb {
    Init(Init),
    Pair(Pair),
    Serve(Serve),
    Run(Run),
    Cancel(Cancel),
    Status(Status),
    Points(Points),
    Restore(Restore),
    Promote(Promote),
    Handover(Handover),
    Failback(Failback),
    Resume(Resume),
    Resolve(Resolve),
    Pause(Pause),
    Load(Load),
    Drill(Drill),
    Seed(Seed),
    Drift(Drift),
    Diff(Diff),
    Mount(Mount),
    Unmount(Unmount),
    Fork(Fork),
    Rescan(Rescan),
    Prune(Prune),
    Check(Check),
    IfActive(IfActive),
    Reload(Reload),
    Link(Link),
    LinkWorker(LinkWorker),
    Completions(Completions),
    ApplyWorker(ApplyWorker),
    SeedWorker(SeedWorker),
}

/// Write a first configuration and make this node's key
///
/// Looks for btrfs subvolumes and ZFS filesystems, offers what it finds as roles (commented out), and makes the key by
/// which peers know this node. An existing configuration is never overwritten.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  standin init
  standin init --name alder --config /etc/standin/standin.toml")]
pub struct Init {
    /// Where the key and the daemon's memory go
    #[arg(long, value_name = "DIR", default_value = config::STATE_DIR_DEFAULT)]
    pub state_dir: PathBuf,
    /// Name of this node [default: the first part of the host name]
    #[arg(long)]
    pub name: Option<NodeName>,
}

/// Make two nodes know and trust each other
#[derive(Debug, Args)]
#[command(
    arg_required_else_help = true,
    disable_help_subcommand = true,
    after_help = "\
Example, with the nodes alder and birch:
  alder# standin pair invite
  standin-pair:...                       (one line; send it to birch over a channel you trust)
  birch# standin pair accept             (paste the line, press Enter)"
)]
pub struct Pair {
    #[command(subcommand)]
    pub step: PairStep,
}

#[derive(Debug, Subcommand)]
pub enum PairStep {
    Invite(PairInvite),
    Accept(PairAccept),
    Remove(PairRemove),
}

/// Print a line with which another node can pair with this one
///
/// The line holds a secret and works once, until it expires.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  standin pair invite
  standin pair invite --expires 1h --address alder.example.org:7321")]
pub struct PairInvite {
    /// How long the invitation is good: 30s, 15m, 1h ...
    #[arg(long, value_name = "TIME", default_value = "15m")]
    pub expires: String,
    /// Where the other node reaches this one [default: advertise or listen of the configuration]
    #[arg(long, value_name = "HOST:PORT")]
    pub address: Option<String>,
}

/// Accept an invitation made on another node
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  standin pair accept                      asks for the line (it stays out of the shell's history)
  standin pair accept < invitation.txt
  standin pair accept standin-pair:...")]
pub struct PairAccept {
    /// The line `standin pair invite` printed [default: read from standard input]
    pub line: Option<String>,
}

/// Forget a peer: its key is no longer accepted
///
/// Points it sent stay where they are.
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  standin pair remove birch")]
pub struct PairRemove {
    pub peer: NodeName,
}

/// Be the daemon: keep links, start cycles, answer the other verbs
///
/// Usually started by systemd (scripts/standin.service). Logs to stderr.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  systemctl enable --now standin
  standin serve -v                         in the foreground, with more in the log")]
pub struct Serve {}

/// Run a cycle now: take a point, send it to the peers, prune
///
/// Shows the progress until the cycle is over. Ctrl-C stops the showing and leaves the work running.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  standin run                              all roles that are active here
  standin run web --dry-run                what would be done for the role web
  standin run --attach                     show a cycle the timer started")]
pub struct Run {
    /// Only this role [default: all]
    pub role: Option<RoleName>,
    /// Print the plan and change nothing
    #[arg(long, conflicts_with_all = ["attach", "cancel"])]
    pub dry_run: bool,
    /// Join a cycle that is already running instead of failing
    #[arg(long)]
    pub attach: bool,
    /// Let Ctrl-C stop the work too (transfers keep their last checkpoint)
    #[arg(long)]
    pub cancel: bool,
}

/// Stop running cycles and drills
///
/// Transfers take a checkpoint first; the next cycle goes on from it. A drill discards its copy.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  standin cancel
  standin cancel web")]
pub struct Cancel {
    /// Only this role [default: all]
    pub role: Option<RoleName>,
}

/// Show roles, peers, exposure and running transfers
///
/// Exposure is what would be lost if that peer took over now.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  standin status
  standin status web
  standin status --watch                   redrawn every second until Ctrl-C
  standin status --json | jq '.roles[].replicas[].exposure_s'")]
pub struct Status {
    /// Only this role, and its peers and transfers [default: all]
    pub role: Option<RoleName>,
    /// Keep showing, every second
    #[arg(long, short)]
    pub watch: bool,
}

/// List recovery points, newest first
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  standin points
  standin points web --json")]
pub struct Points {
    /// Only this role [default: all]
    pub role: Option<RoleName>,
}

/// Bring back a role, a dataset or one path from a point
///
/// Over the live data unless --to names another place; the live state is then first kept as a point of its own, so a
/// restore can itself be undone. Shows what will happen, and asks before it touches live data.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  standin restore web --dataset files --path www/index.html
  standin restore web --dataset files --path www --to /srv/old
  standin restore web --point 1.42 --dry-run
  standin restore web --point 20261120T123105Z --dataset db --yes")]
pub struct Restore {
    pub role: RoleName,
    /// Which point: latest, epoch.sequence (1.42), or the beginning of a name
    #[arg(long, default_value = "latest")]
    pub point: String,
    /// Only this dataset [default: all of the role]
    #[arg(long)]
    pub dataset: Option<DatasetName>,
    /// Only this path: inside the dataset, or an absolute path below where it lives
    #[arg(long)]
    pub path: Option<PathBuf>,
    /// Restore into this directory instead of over the live data; with --path, where nothing is there yet: under this name
    #[arg(long, value_name = "DIR")]
    pub to: Option<PathBuf>,
    /// Show what would happen and change nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Do not ask; needed over live data where there is no terminal to ask on
    #[arg(long, short)]
    pub yes: bool,
}

/// Look at every point anew, and fetch damaged ones again from a peer
///
/// A point that was changed after it was stored, or has lost a snapshot or a file of its own, is not used any more. A peer
/// that holds it sends it again, as the difference to the nearest point both hold; the damaged copy is set aside, never
/// removed, and stays listed. Ctrl-C stops the showing and leaves the work running.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  standin rescan                           all roles of this node
  standin rescan web --dry-run             what is damaged, and what would be done about it")]
pub struct Rescan {
    /// Only this role [default: all]
    pub role: Option<RoleName>,
    /// Print the plan and change nothing
    #[arg(long)]
    pub dry_run: bool,
}

/// Remove the points that no rule keeps
///
/// The daemon does this at the end of every cycle. The newest point, and the base shared with a peer, always stay.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  standin prune --dry-run                  each point, and why it stays or goes
  standin prune web")]
pub struct Prune {
    /// Only this role [default: all]
    pub role: Option<RoleName>,
    /// Show each point and why it stays or goes; remove nothing
    #[arg(long)]
    pub dry_run: bool,
}

/// Look for what is wrong or missing: configuration, kernel, filesystems, space, peers, clocks
///
/// Exit code 0: nothing is wrong (warnings are allowed). 2: the configuration is wrong. 14: all is well but the daemon
/// is not running. 1: any other problem.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  standin check
  standin check --config new.toml --show-config    is this file right, and what does it mean?")]
pub struct Check {
    /// Only read the configuration file, and print what it means with all defaults filled in
    #[arg(long)]
    pub show_config: bool,
}

/// Run a command only where this node is active in a role
///
/// For cron jobs and timers that are the same on every node of a role. The daemon is asked each time. The exit code is the
/// command's; 75 where this node is not active and the command was not run; 14 where no daemon answers, and then it is not
/// run either.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  standin if-active web -- /usr/local/bin/nightly-report
  0 3 * * * root standin if-active --quiet web -- certbot renew      (a line of /etc/crontab)")]
pub struct IfActive {
    pub role: RoleName,
    /// Say nothing where this node is not active
    #[arg(long, short)]
    pub quiet: bool,
    /// The command and its arguments
    #[arg(last = true, required = true, value_name = "COMMAND")]
    pub command: Vec<OsString>,
}

/// Have the daemon read its configuration again
///
/// A file with mistakes changes nothing: the daemon goes on with the old one, and the mistakes are listed.
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  standin reload                           (systemctl reload standin does the same)")]
pub struct Reload {}

/// Carry a link over standard input and output
///
/// For links through ssh: a peer configured with via = "ssh alder standin link --stdio" starts this on alder.
#[derive(Debug, Args)]
#[command(after_help = "\
Example, in the configuration of the node that dials:
  [peer.alder]
  via = \"ssh alder standin link --stdio\"")]
pub struct Link {
    /// Standard input and output carry the link
    #[arg(long, required = true)]
    pub stdio: bool,
}

/// Speak with one peer in the daemon's place, without rights
///
/// Only `standin serve` starts this; by hand it refuses.
#[derive(Debug, Args)]
#[command(
    hide = true,
    after_help = "\
Seen in a list of processes while standin serve has links:
  standin link-worker"
)]
pub struct LinkWorker {}

/// Print the completions for a shell
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  standin completions bash > /etc/bash_completion.d/standin")]
pub struct Completions {
    pub shell: clap_complete::Shell,
}

/// Apply a stream that the daemon receives, confined
///
/// Started by the daemon, never by hand.
#[derive(Debug, Args)]
#[command(hide = true, after_help = "Only standin serve starts this.")]
pub struct ApplyWorker {}

/// Follow a template that the daemon read, confined
///
/// Started by the daemon, never by hand.
#[derive(Debug, Args)]
#[command(hide = true, after_help = "Only standin serve starts this.")]
pub struct SeedWorker {}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    fn check(line: &str, ok: bool) {
        let parsed = Cli::try_parse_from(line.split(' '));
        assert_eq!(parsed.is_ok(), ok, "{line}: {parsed:?}");
    }

    #[test]
    fn the_definition_holds_together() {
        Cli::command().debug_assert();
    }

    #[test]
    fn lines_that_are_understood() {
        for line in [
            "standin status --watch --json",
            "standin --json points web",
            "standin run",
            "standin run web --dry-run",
            "standin run --attach --cancel",
            "standin restore web --dataset files --path a/b --to /tmp/x",
            "standin restore web --path /srv/web/a/b",
            "standin pair accept",
            "standin rescan web --dry-run",
            "standin fork list",
            "standin diff latest live",
            "standin diff web latest~1 fork:1.45 www/a --text --json",
            "standin mount",
            "standin mount /mnt --role web --allow :staff",
            "standin unmount /mnt",
            "standin fork diff web 1.45 --stat --json",
            "standin fork discard web 1.45 --yes",
            "standin if-active -q web -- ls -l --json",
            "standin link --stdio",
            "standin completions zsh",
        ] {
            check(line, true);
        }
    }

    #[test]
    fn lines_that_are_not() {
        for line in [
            "standin run ../etc",
            "standin run --dry-run --attach",
            "standin restore",
            "standin link",
            "standin fork show web",
            "standin diff latest",
            "standin diff web a b c d",
            "standin mount --role web",
            "standin unmount",
            "standin if-active web",
            "standin if-active web ls",
            "standin pair",
        ] {
            check(line, false);
        }
    }
}
