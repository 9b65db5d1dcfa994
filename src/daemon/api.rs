//! What the CLI and the daemon say to each other over the control socket, and the documented shape of `--json`.
//!
//! JSON lines: one [`Request`], then any number of [`Reply::Event`]s, then exactly one [`Reply::Done`] or
//! [`Reply::Failed`]. `--json` prints the value inside `Done` as it stands here (docs/json.md), so a field may be added,
//! never renamed or removed.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

mod browse;
mod diff;
mod drift;
mod drill;
mod dumps;
mod forks;
mod load;
mod seed;
mod standing;

pub use browse::*;
pub use diff::*;
pub use drift::*;
pub use drill::*;
pub use dumps::*;
pub use forks::*;
pub use load::*;
pub use seed::*;
pub use standing::*;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::error::Code;
use crate::host::part::RoleRecord;
use crate::logic::name::{DatasetName, NodeName, RoleName};
use crate::logic::outlook::Outlook;
use crate::logic::point::{PointName, RoleId, Term};
use crate::logic::predict::Prediction;
use crate::logic::progress::TransferView;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "verb", rename_all = "kebab-case")]
pub enum Request {
    /// Done: [`Status`].
    Status,
    /// Events until the client goes away: a `Status` event every second and all others as they happen.
    Watch,
    /// Done: [`Points`].
    Points { role: Option<RoleName> },
    /// A cycle now. Done: [`CycleReport`]. With `attach`, joins a cycle that is already running instead of failing with
    /// `locked`. Closing the connection leaves the work running; `Cancel` stops it.
    Run {
        role: Option<RoleName>,
        dry_run: bool,
        attach: bool,
    },
    /// Stops running cycles (transfers checkpoint first) and drills. Done: [`Cancelled`].
    Cancel { role: Option<RoleName> },
    /// Done: [`PruneReport`].
    Prune {
        role: Option<RoleName>,
        dry_run: bool,
    },
    /// Done: [`RestoreReport`].
    Restore(RestoreRequest),
    /// Reads dumps into servers. Events as with `Run`. Done: [`LoadReport`].
    Load(LoadRequest),
    /// Rehearses a role. Events as with `Run`. Done: [`DrillReport`].
    Drill(DrillRequest),
    /// Makes seeded files now. Events as with `Run`. Done: [`SeedReport`].
    Seed(SeedRequest),
    /// Compares what is watched with peers. Done: [`DriftReport`].
    Drift(DriftRequest),
    /// See [`ForkRequest`] for what is done.
    Fork(ForkRequest),
    /// Compares two states of a role. Done: [`DiffReport`].
    Diff(DiffRequest),
    /// Trees in which people browse points. Done: [`BrowseReport`].
    Browse(BrowseRequest),
    /// Looks at every point anew and mends damaged ones from peers. Events as with `Run`. Done: [`CycleReport`].
    Rescan {
        role: Option<RoleName>,
        dry_run: bool,
    },
    /// Makes this node active. Events as with `Run`. Done: [`MoveReport`].
    Promote(PromoteRequest),
    /// Moves a role from this node to a peer; `to` none: to its home. Events as with `Run`. Done: [`MoveReport`].
    HandOver {
        role: RoleName,
        to: Option<NodeName>,
        dry_run: bool,
    },
    /// Calls a hand-over off, as long as it can be. Done: [`MoveReport`].
    HandOverCancel { role: RoleName },
    /// Goes on as the active node after a restart without hearing every peer. Done: [`MoveReport`].
    Resume { role: RoleName, dry_run: bool },
    /// Ends a conflict of two claims. Done: [`MoveReport`].
    Resolve {
        role: RoleName,
        keep: NodeName,
        dry_run: bool,
    },
    /// Nothing starts by itself, or with `off` does again. Done: [`MoveReport`].
    Pause { role: RoleName, off: bool },
    /// Done: [`CheckReport`].
    Check,
    /// Done: [`Invitation`].
    PairInvite {
        expires_s: u64,
        address: Option<String>,
    },
    /// Done: [`Paired`].
    PairAccept { line: String },
    /// Done: [`Paired`].
    PairRemove { peer: NodeName },
    /// Reads the config file again. Done: null.
    Reload,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "reply", rename_all = "kebab-case")]
pub enum Reply {
    Event {
        event: Event,
    },
    Done {
        value: serde_json::Value,
    },
    Failed {
        code: Code,
        what: String,
        hint: Option<String>,
    },
}

/// What happens while work goes on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum Event {
    /// A sentence for people: a step begun or done.
    Note {
        at: Timestamp,
        role: Option<RoleName>,
        text: String,
    },
    /// The same, for what somebody should look at.
    Warning {
        at: Timestamp,
        role: Option<RoleName>,
        text: String,
    },
    /// Figures of a running transfer, a few times a second.
    Transfer {
        transfer: TransferView,
    },
    /// A transfer is over.
    TransferEnd {
        id: u64,
        ok: bool,
        text: String,
    },
    Status {
        status: Box<Status>,
    },
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Status {
    pub node: NodeName,
    pub version: String,
    pub now: Timestamp,
    pub started: Timestamp,
    pub peers: Vec<PeerStatus>,
    pub roles: Vec<RoleStatus>,
    pub transfers: Vec<TransferView>,
    pub warnings: Vec<String>,
    /// Where points are mounted for browsing.
    #[serde(default)]
    pub mounts: Vec<MountView>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PeerStatus {
    pub name: NodeName,
    /// host:port or command, as configured; none where the peer dials.
    pub address: Option<String>,
    pub paired: bool,
    pub linked: bool,
    /// When the present state of the link began.
    pub since: Option<Timestamp>,
    /// Why the last attempt failed.
    pub last_error: Option<String>,
    pub version: Option<String>,
    /// Their clock minus ours, in seconds, at the last hello.
    pub clock_difference_s: Option<f64>,
    /// Round trip in milliseconds, from the last heartbeat.
    pub rtt_ms: Option<f64>,
    /// The most this node sends to it now, in bytes per second; none: no limit.
    #[serde(default)]
    pub limit: Option<u64>,
    /// When that limit, or its absence, gives way to another one; none: never.
    #[serde(default)]
    pub limit_until: Option<Timestamp>,
    /// How what is watched compared with it the last time; none: not yet, or nothing is watched with it.
    #[serde(default)]
    pub drift: Option<DriftView>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RoleStatus {
    pub name: RoleName,
    /// Of kind = "logs": the name of its section in the config, which stands for one such role a node. None: of the usual kind.
    #[serde(default)]
    pub logs: Option<RoleName>,
    pub id: Option<RoleId>,
    /// `active`, `standby`, or what it is on the way between them (docs/roles.md).
    pub state: String,
    /// Nothing starts by itself: `standin pause`.
    #[serde(default)]
    pub paused: bool,
    /// What is in the way of the state it is in.
    #[serde(default)]
    pub trouble: Option<String>,
    pub term: Option<Term>,
    /// The node that is active, as far as this node knows.
    pub active: Option<NodeName>,
    /// Since when this node is what it is in the role; where it is active, under this term.
    #[serde(default)]
    pub since: Option<Timestamp>,
    /// What the state means and what can be done about it; none for `active` and `standby`.
    #[serde(default)]
    pub outlook: Option<Outlook>,
    /// The node at which the role is at home, as configured here.
    #[serde(default)]
    pub home: Option<NodeName>,
    /// The schedule as configured.
    pub every: String,
    pub next_run: Option<Timestamp>,
    /// End of the last cycle that went well.
    pub last_good: Option<Timestamp>,
    pub last_error: Option<String>,
    /// Running now: `snapshot`, `transfer`, `prune` ...; none when idle.
    pub phase: Option<String>,
    pub points: usize,
    /// Points that lie here and are not used any more.
    #[serde(default)]
    pub damaged: usize,
    pub newest: Option<PointSummary>,
    /// The last drill on this node that came to its end; none: there was none yet.
    #[serde(default)]
    pub drill: Option<DrillView>,
    /// A drill is running.
    #[serde(default)]
    pub drilling: bool,
    /// One per peer of the role, on the active node.
    pub replicas: Vec<ReplicaStatus>,
    /// What would be lost if this node were promoted now; only where it stands in.
    #[serde(default)]
    pub loss: Option<LossStatus>,
    /// What each peer said last.
    #[serde(default)]
    pub words: Vec<WordStatus>,
    /// Forks that lie here; none where there are none.
    #[serde(default)]
    pub forks: Option<ForksStatus>,
    #[serde(default)]
    pub views: Vec<ViewStatus>,
    /// Files made here from templates of the role, as they were at the last look.
    #[serde(default)]
    pub seeds: Vec<SeedView>,
    pub datasets: Vec<DatasetStatus>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DatasetStatus {
    pub name: DatasetName,
    pub path: PathBuf,
    pub free_bytes: Option<u64>,
    pub total_bytes: Option<u64>,
}

/// Exposure towards one peer: what would be lost if it took over now.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ReplicaStatus {
    pub peer: NodeName,
    /// Newest point complete on the peer, as far as this node knows.
    pub newest: Option<PointSummary>,
    /// Seconds since that point was taken: all younger writes would be lost. 0 when nothing changed since.
    pub exposure_s: Option<f64>,
    /// The same in bytes of files, about; none where it is not known.
    #[serde(default)]
    pub exposure_bytes: Option<u64>,
    /// How long nobody would be served in a hand-over to it; none where nothing was ever measured.
    #[serde(default)]
    pub handover: Option<Prediction>,
    /// Points taken here that the peer does not hold.
    pub behind: usize,
    pub last_error: Option<String>,
    /// What it waits for, where that is known: `waiting for space on birch: 3.1 GiB needed, ...`.
    #[serde(default)]
    pub waiting: Option<String>,
    /// When it is tried again by itself.
    #[serde(default)]
    pub retry_at: Option<Timestamp>,
    /// What an absent peer's base costs, and when it is let go.
    #[serde(default)]
    pub absent: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PointSummary {
    pub name: PointName,
    /// `epoch.sequence`.
    pub short: String,
    pub taken: Timestamp,
    /// Whether its databases are consistent; none where it has none, or that is not known.
    #[serde(default)]
    pub consistent: Option<bool>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Points {
    pub roles: Vec<RolePoints>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RolePoints {
    pub role: RoleName,
    /// This node in the role; none: nobody has named the role to it yet.
    #[serde(default)]
    pub state: Option<String>,
    /// The node that is active, as far as this node knows.
    #[serde(default)]
    pub active: Option<NodeName>,
    /// Oldest first.
    pub points: Vec<PointView>,
    /// Points that lie here and are not used: `standin rescan` fetches them again from a peer.
    #[serde(default)]
    pub damaged: Vec<DamagedView>,
    /// Damaged points that were set aside: nobody but a person removes them.
    #[serde(default)]
    pub aside: Vec<AsideView>,
    /// How many forks lie beside these points: `standin fork list` shows them.
    #[serde(default)]
    pub forks: usize,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DamagedView {
    pub name: PointName,
    pub short: String,
    /// The whole sentence: "birch's copy of 1.42 was changed after it was stored (files); it is not used".
    pub text: String,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AsideView {
    pub name: PointName,
    pub short: String,
    /// Reads after "1.42".
    pub why: String,
    /// When it was set aside.
    pub at: Timestamp,
    pub path: PathBuf,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PointView {
    pub name: PointName,
    pub short: String,
    pub taken: Timestamp,
    /// The node that took it.
    pub node: NodeName,
    /// `schedule`, `asked`, `before-restore`.
    pub reason: String,
    /// The node it was received from; none where it was taken here.
    pub from: Option<NodeName>,
    pub datasets: BTreeMap<DatasetName, PathBuf>,
    /// File data received for it, in bytes, over all datasets; none where it was taken here.
    pub data_bytes: Option<u64>,
    /// Peers that are known to hold it.
    pub on_peers: Vec<NodeName>,
    /// Why pruning must not touch it now: `base of birch`, `newest` ...
    pub pinned: Vec<String>,
    pub not_replicated: BTreeMap<DatasetName, Vec<String>>,
    /// What this node's policy (`accept`) left out when it received the point.
    #[serde(default)]
    pub dropped: BTreeMap<DatasetName, Vec<String>>,
    /// What of the sender's files is not as it was there.
    #[serde(default)]
    pub not_carried: BTreeMap<DatasetName, Vec<String>>,
    /// How its databases were made consistent; empty where the role has none, or nobody asked.
    #[serde(default)]
    pub dumps: Vec<DumpView>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CycleReport {
    pub dry_run: bool,
    pub roles: Vec<RoleCycle>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RoleCycle {
    pub role: RoleName,
    /// The plan and, unless it was a dry run, what came of it; one line per step, in order.
    pub steps: Vec<Step>,
    pub code: Code,
    pub seconds: f64,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Step {
    /// `snapshot`, `send`, `prune`, `nothing` ...
    pub what: String,
    /// The sentence: "send 1.42 on top of 1.41 to birch".
    pub text: String,
    /// None in a dry run, and for what is only told.
    pub ok: Option<bool>,
    /// What went wrong and what to do.
    pub error: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PruneReport {
    pub dry_run: bool,
    pub roles: Vec<RolePrune>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RolePrune {
    pub role: RoleName,
    /// Newest first.
    pub verdicts: Vec<VerdictView>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct VerdictView {
    pub name: PointName,
    pub short: String,
    pub taken: Timestamp,
    pub keep: bool,
    /// Why it stays (`last 3`, `daily 2026-11-20`, `base of birch`) or goes (`no rule keeps it`).
    pub reasons: Vec<String>,
    /// Set when it should have gone but could not: `a send is using it`.
    pub error: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RestoreRequest {
    pub role: RoleName,
    /// `latest`, a point name, `epoch.sequence`, or an unambiguous beginning of a name.
    pub point: String,
    pub dataset: Option<DatasetName>,
    /// A path inside the dataset (relative, or absolute below its live path); needs one dataset.
    pub path: Option<PathBuf>,
    /// Where to; none: over the live data.
    pub to: Option<PathBuf>,
    pub dry_run: bool,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RestoreReport {
    pub dry_run: bool,
    pub role: RoleName,
    pub point: PointSummary,
    /// The point that holds what was live before; none when nothing live was replaced.
    pub kept: Option<PointSummary>,
    pub steps: Vec<Step>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PromoteRequest {
    pub role: RoleName,
    /// From this point and not from the newest; as in [`RestoreRequest`].
    pub point: Option<String>,
    /// Peers of which the operator states that they serve nobody.
    pub stopped: Vec<NodeName>,
    /// The point after which the operator accepts loss.
    pub accept_loss_after: Option<String>,
    pub dry_run: bool,
}

/// A role that moves, or is told how to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MoveReport {
    pub dry_run: bool,
    pub role: RoleName,
    /// The plan and, unless it was a dry run, what came of it.
    pub steps: Vec<Step>,
    /// This node in the role, afterwards; none after a dry run.
    pub state: Option<String>,
    pub term: Option<Term>,
    pub seconds: f64,
    /// From the first service that stopped until the role was up on the other node, in seconds.
    pub down_s: Option<f64>,
    /// The same from the moment at which the last service had stopped: what the move itself took.
    pub moved_s: Option<f64>,
}

impl MoveReport {
    pub fn new(role: &RoleName, dry_run: bool) -> MoveReport {
        MoveReport {
            dry_run,
            role: role.clone(),
            steps: Vec::new(),
            state: None,
            term: None,
            seconds: 0.0,
            down_s: None,
            moved_s: None,
        }
    }

    /// Over: what this node is now.
    pub fn settle(&mut self, record: &RoleRecord, took: Duration) {
        self.state = Some(record.part.state.to_string());
        self.term = Some(record.term().clone());
        self.seconds = took.as_secs_f64();
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Cancelled {
    /// How many cycles were told to stop.
    pub cancelled: u32,
    /// Peers from which this node receives at this moment: only they can stop that.
    #[serde(default)]
    pub senders: BTreeSet<NodeName>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CheckReport {
    pub findings: Vec<Finding>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Finding {
    pub level: Level,
    /// `config`, `kernel`, `filesystem web/files`, `peer birch` ...
    pub subject: String,
    pub text: String,
    pub hint: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Level {
    Ok,
    Warning,
    Problem,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Invitation {
    /// The line to give to `standin pair accept` on the other node.
    pub line: String,
    pub expires: Timestamp,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Paired {
    pub peer: NodeName,
    pub key: String,
    /// What was changed and what to do next, for people.
    pub text: String,
}
