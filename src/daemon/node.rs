//! The node: everything the daemon's parts share, and who owns what.
//!
//! One [`Node`] per process. Each role has one [`RoleRun`] with its filesystem and its locks, each peer one [`PeerRun`]
//! with its link. Locks are short and never held across an await, but for the async ones that say so.
//!
//! A reload replaces config and runs; work in flight keeps the values it started with and ends in its own time.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use anyhow::{Context, Result};
use jiff::Timestamp;
use tokio::sync::{Notify, Semaphore, watch};
use tokio_util::sync::CancellationToken;

use super::absent::Watched;
use super::api::RoleCycle;
use super::drill::RunningDrill;
use super::hub::Hub;
use super::retry::{Lacking, Waiting};
use super::supervisor::Supervisor;
use crate::config::{Config, Dataset, Grant, Peer, Role};
use crate::error::{Code, Failure};
use crate::fs::btrfs::{Btrfs, receive::Applying};
use crate::fs::zfs::{Place, Zfs};
use crate::fs::{Filesystem, Limits};
use crate::host::state::State;
use crate::host::user;
use crate::logic::accept::Accept;
use crate::logic::bandwidth::Bandwidth;
use crate::logic::clock::Doubt;
use crate::logic::damage::Damaged;
use crate::logic::lineage::Lineage;
use crate::logic::name::{DatasetName, NodeName, RoleName, nearest};
use crate::logic::point::PointId;
use crate::peer::identity::Identity;
use crate::peer::limit::Limiter;
use crate::peer::link::Link;
use crate::peer::timing::Timing;
use crate::peer::worker::{User, Workers};

/// Datasets sent at the same time, over all roles and peers: two keep a slow line and a disk busy without starving memory.
const SENDS_MAX: usize = 4;

pub struct Node {
    pub identity: Arc<Identity>,
    /// Who speaks with the network in this process's place.
    pub workers: Workers,
    pub state: Arc<State>,
    pub hub: Arc<Hub>,
    pub started: Timestamp,
    /// The same, since the boot.
    pub born: Duration,
    /// Held for one look at the clock.
    pub clock: tokio::sync::Mutex<super::clock::Remembered>,
    /// Why the wall clock was not believed at the last look.
    pub doubt: Mutex<Option<Doubt>>,
    /// Cancelled when the daemon is to stop: transfers checkpoint, then everything ends.
    pub stop: CancellationToken,
    pub sends: Arc<Semaphore>,
    /// Held while a drill runs: one at a time on a node.
    pub drilling: Arc<tokio::sync::Mutex<()>>,
    /// Held by whoever changes the trees in which points are browsed.
    pub browsing: tokio::sync::Mutex<()>,
    /// Held while this node compares copies with peers.
    pub verifying: Arc<tokio::sync::Mutex<()>>,
    /// Held while a copy is read because a peer compares.
    pub answering: Arc<tokio::sync::Mutex<()>>,
    /// Held while this node is being rebuilt from a peer.
    pub rebuilding: Arc<tokio::sync::Mutex<()>>,
    /// What is compared with other nodes, and how that went.
    pub drift: super::drift::Drift,
    config: RwLock<Arc<Config>>,
    roles: RwLock<BTreeMap<RoleName, Arc<RoleRun>>>,
    peers: RwLock<BTreeMap<NodeName, Arc<PeerRun>>>,
    /// Rung after each reload: dialers and schedules look at the config anew.
    pub reloaded: Notify,
}

/// One role on this node.
pub struct RoleRun {
    pub name: RoleName,
    pub role: Arc<Role>,
    pub fs: Arc<dyn Filesystem>,
    /// Held across snapshot, prune and restore of this role: one change of the catalogue at a time.
    pub catalogue: tokio::sync::Mutex<()>,
    /// Held from the look whether a point is worth dumping for until everybody who was held for it is let go: nobody's writers are
    /// held twice at once, nor let go by another's end.
    pub dumping: Arc<tokio::sync::Mutex<()>>,
    pub cycle: Mutex<Option<RunningCycle>>,
    pub drill: Arc<Mutex<Option<RunningDrill>>>,
    pub replicas: Mutex<BTreeMap<NodeName, Replica>>,
    /// One receiver per dataset: a new offer ends the old one first.
    pub receiving: Mutex<BTreeMap<DatasetName, Receiving>>,
    /// Stops what is sent beside cycles: what a peer missed, points it asks for again. Renewed whenever it is used.
    pub beside: Arc<Mutex<CancellationToken>>,
    /// Points asked back from a peer: taken from it whatever their term, also where this node is active.
    pub wanted: Mutex<Vec<(NodeName, PointId)>>,
    /// Points that are being compared with peers' copies: not pruned meanwhile.
    pub read: Arc<Mutex<Vec<PointId>>>,
    /// Rung to look at the schedule now.
    pub wake: Notify,
    /// Start of the last cycle in this process: the schedule goes on where the state database cannot be written.
    pub last_start: Mutex<Option<Timestamp>>,
    /// Points that could not be read: not gone on with once there is a newer one.
    pub unreadable: Mutex<HashSet<PointId>>,
    /// Dumps that fail while points are taken without them, and why.
    pub failing: Mutex<BTreeMap<RoleName, String>>,
    /// What is kept for peers that are away.
    pub watched: Mutex<BTreeMap<NodeName, Watched>>,
    pub looked: Arc<super::status::Looked>,
    /// What was written since the points that peers hold.
    pub unsaved: Arc<super::unsaved::Unsaved>,
    /// What peers said last of the role.
    pub heard: Arc<super::heard::Words>,
    /// What can be seen of datasets that are shown.
    pub shown: Mutex<BTreeMap<DatasetName, String>>,
    /// When points were taken, since the boot: ages that no step of the wall clock changes.
    pub ages: Arc<Mutex<VecDeque<(PointId, Duration)>>>,
    /// Who alone changes this node's part in the role.
    pub supervisor: Arc<Supervisor>,
    /// What was told of views that could not be shown; held by whoever brings them up to date.
    pub viewed: tokio::sync::Mutex<BTreeMap<DatasetName, String>>,
    pub seeds: Arc<super::seed::Seeds>,
    /// What peers said while nothing of the role is here.
    pub blank: Arc<super::blank::Blank>,
}

/// A cycle in progress.
#[derive(Clone)]
pub struct RunningCycle {
    pub cancel: CancellationToken,
    pub phase: Arc<Mutex<String>>,
    /// Some when it is over.
    pub done: watch::Receiver<Option<RoleCycle>>,
}

/// What this node knows of a peer's copy of a role.
#[derive(Debug, Clone, Default)]
pub struct Replica {
    pub lineage: Option<Lineage>,
    /// Points it holds and does not use any more.
    pub damaged: Vec<Damaged>,
    pub last_error: Option<String>,
    /// When it is tried again, after a failure that may pass.
    pub waiting: Option<Waiting>,
    /// What it lacked at the last attempt.
    pub lacking: Option<Lacking>,
    /// Bytes on the wire that points took to it since this daemon began.
    pub sent: u64,
    /// Held by whoever brings the peer up to date: one conversation at a time.
    pub turn: Arc<tokio::sync::Mutex<()>>,
}

/// The receiver of one dataset.
#[derive(Clone, Default)]
pub struct Receiving {
    pub cancel: CancellationToken,
    /// Held by whoever receives.
    pub turn: Arc<tokio::sync::Mutex<()>>,
}

/// One peer of this node.
pub struct PeerRun {
    /// As the config names it. Grants, `accept` and bandwidth may have changed since: the fields below are in force.
    pub peer: Peer,
    /// The limits by time; `limiter` has the one that holds now.
    pub bandwidth: Mutex<Bandwidth>,
    pub grants: Mutex<Vec<Grant>>,
    pub accept: Mutex<Accept>,
    pub limiter: Arc<Limiter>,
    pub contact: Mutex<Contact>,
    /// Rung when the link comes or goes.
    pub changed: Notify,
    /// Cancelled when the peer is removed or its key or address changed.
    pub gone: CancellationToken,
}

#[derive(Default)]
pub struct Contact {
    pub link: Option<Linked>,
    pub since: Option<Timestamp>,
    pub last_error: Option<String>,
    /// What to do about the last error.
    pub last_hint: Option<String>,
}

#[derive(Clone)]
pub struct Linked {
    pub link: Link,
    pub since: std::time::Instant,
    /// This node dialled.
    pub dialled: bool,
}

/// A lock whose holder panicked is taken over: the values behind these locks are replaced whole.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Node {
    pub fn new(config: Config, identity: Identity, state: State) -> Result<Arc<Node>> {
        let state = Arc::new(state);
        let nobody = user::unprivileged().map(|user| User {
            uid: user.uid,
            gid: user.gid,
        });
        let node = Node {
            workers: Workers::new(identity.clone(), nobody, Timing::in_force()),
            identity: Arc::new(identity),
            hub: Arc::new(Hub::new(state.clone())),
            state,
            started: Timestamp::now(),
            born: crate::host::clock::since_boot(),
            clock: tokio::sync::Mutex::default(),
            doubt: Mutex::default(),
            stop: CancellationToken::new(),
            sends: Arc::new(Semaphore::new(SENDS_MAX)),
            drilling: Arc::default(),
            browsing: tokio::sync::Mutex::default(),
            rebuilding: Arc::default(),
            verifying: Arc::default(),
            answering: Arc::default(),
            drift: super::drift::Drift::default(),
            config: RwLock::new(Arc::new(config.clone())),
            roles: RwLock::default(),
            peers: RwLock::default(),
            reloaded: Notify::new(),
        };
        node.apply(config)?;
        Ok(Arc::new(node))
    }

    pub fn config(&self) -> Arc<Config> {
        self.config
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    pub fn name(&self) -> NodeName {
        self.config().node.name.clone()
    }

    pub fn roles(&self) -> Vec<Arc<RoleRun>> {
        self.roles
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .values()
            .cloned()
            .collect()
    }

    pub fn peers(&self) -> Vec<Arc<PeerRun>> {
        self.peers
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .values()
            .cloned()
            .collect()
    }

    pub fn peer(&self, name: &NodeName) -> Option<Arc<PeerRun>> {
        self.peers
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .get(name)
            .cloned()
    }

    /// The named role, or a failure that lists the roles there are.
    pub fn role(&self, name: &RoleName) -> Result<Arc<RoleRun>> {
        let roles = self.roles.read().unwrap_or_else(PoisonError::into_inner);
        roles.get(name).cloned().ok_or_else(|| {
            let known: Vec<&str> = roles.keys().map(RoleName::as_str).collect();
            let logs = roles.values().filter_map(|run| run.role.logs.as_ref());
            let short = logs.map(|logs| logs.of.as_str());
            let hint = match known.as_slice() {
                [] => {
                    "this node has no roles: add [role.NAME] to the config, then `standin reload`"
                        .to_owned()
                }
                known => match nearest(name.as_str(), known.iter().copied().chain(short)) {
                    Some(near) => format!(
                        "did you mean {near}? Roles of this node: {}",
                        known.join(", ")
                    ),
                    None => format!("roles of this node: {}", known.join(", ")),
                },
            };
            Failure::new(Code::NotFound, format!("find role {name}"))
                .hint(hint)
                .into()
        })
    }

    /// The named role or all of them.
    pub fn chosen(&self, role: Option<&RoleName>) -> Result<Vec<Arc<RoleRun>>> {
        match role {
            Some(name) => Ok(vec![self.role(name)?]),
            None => Ok(self.roles()),
        }
    }

    /// The live link to a peer.
    pub fn link(&self, peer: &NodeName) -> Result<Link> {
        let unreachable = |why: String| Failure::new(Code::Unreachable, why);
        let run = self.peer(peer).ok_or_else(|| {
            unreachable(format!("reach {peer}: it is not in this node's config")).hint(format!(
                "pair with it: `standin pair invite` here, `standin pair accept` on {peer}"
            ))
        })?;
        if run.peer.key.is_none() {
            let failure = Failure::new(Code::Refused, format!("reach {peer}: not paired yet"));
            let hint = format!(
                "run `standin pair invite` on one node and `standin pair accept LINE` on the other ({peer})"
            );
            return Err(failure.hint(hint).into());
        }
        let contact = lock(&run.contact);
        if let Some(linked) = &contact.link {
            return Ok(linked.link.clone());
        }
        let why = contact
            .last_error
            .clone()
            .unwrap_or_else(|| "no link yet".to_owned());
        let again = "the next cycle tries again; `standin status` shows the links".to_owned();
        let hint = contact.last_hint.clone().unwrap_or(again);
        Err(unreachable(format!("reach {peer}: {why}"))
            .hint(hint)
            .into())
    }

    /// Takes a new config over: runs that did not change stay as they are.
    pub fn apply(&self, config: Config) -> Result<()> {
        let limits = |role: &Role| Limits {
            checkpoint_bytes: config.node.checkpoint_bytes,
            checkpoint_every: config.node.checkpoint_every,
            reserve: role.reserve,
            accept: Accept::default(),
        };
        let mut roles = BTreeMap::new();
        for role in config.roles.values() {
            let old = self.role(&role.name).ok();
            let run = match old {
                Some(old) if *old.role == *role && self.config().node == config.node => old,
                old => {
                    let new = RoleRun::new(role.clone(), limits(role), &config.node.state_dir)?;
                    Arc::new(new.after(old.as_deref()))
                }
            };
            roles.insert(role.name.clone(), run);
        }
        let mut peers = BTreeMap::new();
        for peer in config.peers.values() {
            let run = match self.peer(&peer.name) {
                Some(old) if old.reaches_the_same(peer) => {
                    *lock(&old.bandwidth) = peer.bandwidth.clone();
                    super::pacing::apply(&old);
                    lock(&old.grants).clone_from(&peer.grants);
                    *lock(&old.accept) = peer.accept;
                    old
                }
                _ => Arc::new(PeerRun::new(peer.clone())),
            };
            peers.insert(peer.name.clone(), run);
        }
        for old in self.peers() {
            if !peers
                .get(&old.peer.name)
                .is_some_and(|new| Arc::ptr_eq(new, &old))
            {
                old.end("the peer's configuration changed");
            }
        }
        *self.roles.write().unwrap_or_else(PoisonError::into_inner) = roles;
        *self.peers.write().unwrap_or_else(PoisonError::into_inner) = peers;
        *self.config.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(config);
        self.reloaded.notify_waiters();
        Ok(())
    }
}

/// The filesystem of the role's kind; the config has no role of both.
fn engine(role: &Role, limits: Limits, state_dir: &Path) -> Result<Arc<dyn Filesystem>> {
    let (mut paths, mut places) = (BTreeMap::new(), BTreeMap::new());
    for (name, dataset) in &role.datasets {
        match dataset.clone() {
            Dataset::Btrfs(path) => drop(paths.insert(name.clone(), path)),
            Dataset::Zfs {
                name: zfs,
                path,
                key,
            } => {
                drop(places.insert(name.clone(), Place { zfs, path, key }));
            }
        }
    }
    if !places.is_empty() {
        return Ok(Arc::new(Zfs::new(role.name.clone(), places, limits)?));
    }
    let fs = Btrfs::new(role.name.clone(), paths, limits)?.spooling(state_dir.to_owned());
    // This very program, even when its file has been replaced since.
    Ok(Arc::new(
        fs.applying(Applying::Child("/proc/self/exe".into())),
    ))
}

impl RoleRun {
    /// `state_dir`: where nameless files may lie.
    pub fn new(role: Role, limits: Limits, state_dir: &Path) -> Result<RoleRun> {
        let fs = engine(&role, limits, state_dir)
            .with_context(|| format!("open the datasets of role {}", role.name))?;
        Ok(RoleRun {
            name: role.name.clone(),
            role: Arc::new(role),
            fs,
            catalogue: tokio::sync::Mutex::default(),
            dumping: Arc::default(),
            cycle: Mutex::default(),
            drill: Arc::default(),
            replicas: Mutex::default(),
            receiving: Mutex::default(),
            beside: Arc::default(),
            wanted: Mutex::default(),
            read: Arc::default(),
            wake: Notify::new(),
            last_start: Mutex::default(),
            unreadable: Mutex::default(),
            failing: Mutex::default(),
            watched: Mutex::default(),
            looked: Arc::default(),
            unsaved: Arc::default(),
            heard: Arc::default(),
            shown: Mutex::default(),
            ages: Arc::default(),
            supervisor: Arc::default(),
            viewed: tokio::sync::Mutex::default(),
            seeds: Arc::default(),
            blank: Arc::default(),
        })
    }

    /// What is known of peers and of points does not change with the config.
    fn after(mut self, old: Option<&RoleRun>) -> RoleRun {
        if let Some(old) = old {
            lock(&self.replicas).clone_from(&lock(&old.replicas));
            lock(&self.unreadable).clone_from(&lock(&old.unreadable));
            *lock(&self.last_start) = *lock(&old.last_start);
            self.ages = old.ages.clone();
            self.supervisor = old.supervisor.clone();
            self.beside = old.beside.clone();
            self.dumping = old.dumping.clone();
            self.read = old.read.clone();
            self.drill = old.drill.clone();
            self.heard = old.heard.clone();
            self.seeds = old.seeds.clone();
            self.blank = old.blank.clone();
            lock(&self.shown).clone_from(&lock(&old.shown));
        }
        self
    }

    /// Whether this node asked the peer to send the point again.
    pub fn wants(&self, peer: &NodeName, point: &PointId) -> bool {
        let wanted = lock(&self.wanted);
        wanted.iter().any(|(from, id)| from == peer && id == point)
    }

    /// Whether the point is being compared with a peer's copy.
    pub fn is_read(&self, point: &PointId) -> bool {
        lock(&self.read).contains(point)
    }

    pub fn phase(&self) -> Option<String> {
        lock(&self.cycle)
            .as_ref()
            .map(|cycle| lock(&cycle.phase).clone())
    }
}

impl PeerRun {
    fn new(peer: Peer) -> PeerRun {
        let run = PeerRun {
            grants: Mutex::new(peer.grants.clone()),
            accept: Mutex::new(peer.accept),
            bandwidth: Mutex::new(peer.bandwidth.clone()),
            peer,
            limiter: Arc::new(Limiter::new(None)),
            contact: Mutex::default(),
            changed: Notify::new(),
            gone: CancellationToken::new(),
        };
        super::pacing::apply(&run);
        run
    }

    /// Whether a link to `peer` is a link to this one: what a reload may change without dropping it is not compared.
    fn reaches_the_same(&self, peer: &Peer) -> bool {
        let ours = &self.peer;
        (&ours.name, &ours.address, &ours.via, &ours.key)
            == (&peer.name, &peer.address, &peer.via, &peer.key)
    }

    /// Closes the link and stops dialling.
    pub fn end(&self, why: &str) {
        self.gone.cancel();
        if let Some(linked) = lock(&self.contact).link.take() {
            let why = why.to_owned();
            tokio::spawn(async move { linked.link.close(&why).await });
        }
    }
}

/// Runs blocking work (filesystem calls) on a thread of its own.
pub async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(anyhow::anyhow!(
            "a worker thread ended without an answer: {error}"
        )),
    }
}
