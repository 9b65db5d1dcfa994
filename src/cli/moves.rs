//! The arguments of the verbs that move a role, or say what becomes of it.

use clap::Args;

use crate::logic::name::{NodeName, RoleName};

/// Make this node active in a role whose active node is lost
///
/// Asks every peer first. Refuses when the active node answers, when a higher term is known, and when a peer is silent of
/// which you have not stated that it serves nobody. A newer point that a peer holds is fetched first. What lies at the live
/// paths, and points that come after the one promoted, become a fork: nothing is destroyed.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  standin promote web --dry-run                       what would be done, and what would be lost
  standin promote web --assert-stopped alder --accept-loss-after 1.42
  standin promote web --point 1.40 --accept-loss-after 1.40")]
pub struct Promote {
    pub role: RoleName,
    /// Go on from this point [default: the newest]
    #[arg(long, value_name = "POINT")]
    pub point: Option<String>,
    /// \"I made sure that NODE serves nobody\"; once for each silent node
    #[arg(long, value_name = "NODE")]
    pub assert_stopped: Vec<NodeName>,
    /// \"What was written after POINT may become a fork\"; must be the point the preview names
    #[arg(long, value_name = "POINT")]
    pub accept_loss_after: Option<String>,
    /// Print the plan and change nothing
    #[arg(long)]
    pub dry_run: bool,
}

/// Move a role from this node to another one, losing nothing
///
/// Copies ahead while the services run, stops them, proves that nobody writes, sends the last point and releases the role.
/// Until the release any failure leaves the role here, running. Ctrl-C stops the showing, not the move.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  standin handover web --to birch --dry-run
  standin handover web --to birch
  standin handover web --cancel            call it off, as long as it is not released")]
pub struct Handover {
    pub role: RoleName,
    /// The node that is to play the role
    #[arg(long, value_name = "NODE", required_unless_present = "cancel")]
    pub to: Option<NodeName>,
    /// Call off the hand-over that is under way
    #[arg(long, conflicts_with_all = ["to", "dry_run"])]
    pub cancel: bool,
    /// Print the plan and change nothing
    #[arg(long)]
    pub dry_run: bool,
}

/// Move a role from this node back to its home, losing nothing
///
/// The same as `handover --to HOME`, where HOME is the node that the configuration names as the role's `home`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  standin failback web --dry-run
  standin failback web")]
pub struct Failback {
    pub role: RoleName,
    /// Print the plan and change nothing
    #[arg(long)]
    pub dry_run: bool,
}

/// Go on as the active node after a restart, without waiting for silent peers
///
/// A node that was active when it ended asks every peer before it goes on: another one may have been promoted meanwhile.
/// Where a peer cannot be reached, this states that no other node plays the role.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  standin resume web")]
pub struct Resume {
    pub role: RoleName,
    /// Print the plan and change nothing
    #[arg(long)]
    pub dry_run: bool,
}

/// End a conflict of two nodes that were both promoted
///
/// Run it on the node that is to give way first: it stops, and keeps what it wrote as a fork. Then on the one that stays.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  standin resolve web --keep birch         on alder, which gives way; then the same on birch")]
pub struct Resolve {
    pub role: RoleName,
    /// The node that goes on playing the role
    #[arg(long, value_name = "NODE")]
    pub keep: NodeName,
    /// Print the plan and change nothing
    #[arg(long)]
    pub dry_run: bool,
}

/// Let nothing of a role start by itself on this node
///
/// No cycle, drill or retry starts until `pause --off`. What is asked for by hand is done, and a higher term still stops
/// this node.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  standin pause web
  standin pause web --off")]
pub struct Pause {
    pub role: RoleName,
    /// Let things start by themselves again
    #[arg(long)]
    pub off: bool,
}
