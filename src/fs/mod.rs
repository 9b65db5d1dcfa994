//! Touches the filesystem: one trait, [`Filesystem`], for what a role needs of the disk; `btrfs` and `zfs` implement it.
//!
//! Contracts live on the trait's methods and are asserted by `contract` (tests/contract.rs) on every implementation.
//! Everything here blocks; callers run it on threads of their own. Nothing in here knows peers, config or the network.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::logic::accept::Accept;
use crate::logic::changes::Change;
use crate::logic::damage::Damaged;
use crate::logic::fork::Fork;
use crate::logic::lineage::Entry;
use crate::logic::manifest::{LocalDataset, LocalFacts, Manifest, Stored};
use crate::logic::name::{DatasetName, NodeName, RoleName};
use crate::logic::point::{PointId, PointName};
use crate::logic::transfer::{FileFlags, Kind, Partial, StreamIdentity};

pub mod apart;
pub mod browse;
pub mod btrfs;
mod fault;
mod kept;
mod outgoing;
pub mod tree;
pub mod zfs;

pub use browse::Browsed;
pub use fault::FsError;
pub use kept::{Kept, Opening, Readable};
pub use outgoing::{Measured, Outgoing, Remembered};

/// Result of an edge: context chains, with [`FsError`] inside where a caller branches.
pub type Result<T> = anyhow::Result<T>;

/// What is done around the snapshots of a point.
pub trait Bracket: Send {
    /// Datasets whose snapshots are made after `release`, on their own.
    fn late(&self) -> BTreeSet<DatasetName>;
    /// All that takes long is done: the next thing is the snapshots.
    fn hold(&mut self) -> Result<()>;
    /// The snapshots of all but the late datasets are made. What is written into the manifest is in the point. Not called
    /// where `hold` failed or a snapshot could not be made.
    fn release(&mut self, manifest: &mut Manifest) -> Result<()>;
}

/// Nothing is done around them.
pub struct NoBracket;

impl Bracket for NoBracket {
    fn late(&self) -> BTreeSet<DatasetName> {
        BTreeSet::new()
    }

    fn hold(&mut self) -> Result<()> {
        Ok(())
    }

    fn release(&mut self, _: &mut Manifest) -> Result<()> {
        Ok(())
    }
}

/// Where an incoming transfer stands.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Standing {
    /// Stream bytes known to be applied (or, after `receive`, found in the newest checkpoint).
    pub offset: u64,
    /// File data applied, in bytes.
    pub data_bytes: u64,
    /// Stream bytes safe in the newest checkpoint.
    pub checkpoint: u64,
    /// Prefix hash at `offset`, hex.
    pub prefix: String,
    /// The file being written, lossy, for people.
    pub file: String,
    /// What the sender's filesystem needs to go on, where an offset into the stream does not tell (see `Filesystem::resume`).
    pub token: Option<String>,
}

/// A stream being received into staging. Dropping it leaves the last checkpoint, nothing else is promised.
pub trait Incoming: Send {
    fn standing(&self) -> Standing;
    /// The same, perhaps without the prefix hash, which takes a while: for showing it.
    fn progress(&self) -> Standing {
        self.standing()
    }
    /// Takes the next bytes of the stream, cut anywhere. May take a checkpoint. Not all of it need be applied when this returns:
    /// what is wrong with it may be told by a later call.
    fn write(&mut self, bytes: &[u8]) -> Result<()>;
    /// The same of bytes that the caller does not need any more.
    fn take(&mut self, bytes: Vec<u8>) -> Result<()> {
        self.write(&bytes)
    }
    /// Waits until all that was taken is applied, and tells what was wrong with it.
    fn settle(&mut self) -> Result<()> {
        Ok(())
    }
    /// Makes everything applied so far durable and resumable (at the last whole command).
    fn checkpoint(&mut self) -> Result<()>;
    /// Throws away everything received and starts at offset 0 (the sender's prefix differs).
    fn restart(&mut self) -> Result<()>;
    /// The stream is complete: `bytes` and `hash` are the sender's count and prefix hash of the whole. On success the
    /// snapshot is read-only, has its identity, is on disk, and waits in staging for `publish`.
    fn finish(self: Box<Self>, bytes: u64, hash: &str) -> Result<LocalDataset>;
}

/// What `receive` is told of the stream to come. All of it was checked for shape by the caller; none of it is trusted.
#[derive(Debug, Clone)]
pub struct Receipt {
    /// The whole point, as the sender describes it. Names the staging directory; written beside the data.
    pub manifest: Manifest,
    pub dataset: DatasetName,
    pub identity: StreamIdentity,
    /// The base, when incremental: a point held here.
    pub base: Option<PointId>,
    /// File data to come, in bytes, as the sender measured it: refused early when there is no room.
    pub data_bytes: u64,
    /// Flags that new files get.
    pub flags: FileFlags,
    /// What of its files is taken over.
    pub accept: Accept,
}

/// Facts about one live dataset, for `check` and for the cycle.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Live {
    pub path: PathBuf,
    pub uuid: Uuid,
    /// What a snapshot of it would not hold, one sentence each.
    pub not_replicated: Vec<String>,
    /// Subvolumes nested in it that are no dataset of the role, by their paths inside.
    pub nested: Vec<PathBuf>,
    /// What keeps snapshots from being taken, one sentence each.
    pub prevents: Vec<String>,
}

/// What is said of a nested subvolume that is no dataset of the role.
pub fn nested_sentence(path: &Path) -> String {
    format!(
        "{} is a nested subvolume: make it a dataset of the role to have it replicated",
        path.display()
    )
}

/// Every point of a role, as it is found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Inspection {
    /// Complete and unchanged, oldest first by rank.
    pub points: Vec<Stored>,
    /// What is not used any more, and why.
    pub damaged: Vec<Damaged>,
    /// Of points that are not held whole any more, what can still be the base of a send (see `Filesystem::guard`).
    pub remnants: Vec<Entry>,
}

/// The points on which peers go on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Bases {
    /// A peer may have several.
    pub held: Vec<(NodeName, PointId)>,
    /// Those that need not be held any more, but would serve as bases.
    pub let_go: Vec<PointId>,
}

/// A damaged point that was moved out of the way. Nothing removes it but a person.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptAside {
    pub damaged: Damaged,
    /// When.
    pub at: jiff::Timestamp,
    /// Where, for people.
    pub path: String,
}

/// Space of the filesystem that holds a dataset, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Space {
    pub total: u64,
    pub free: u64,
    /// What receiving may still use: free above the reserve, with what is promised and not yet written taken off.
    pub room: u64,
}

/// How a restore of a whole dataset ends, or a retirement of its live copy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Restored {
    pub dataset: DatasetName,
    /// The live path.
    pub path: PathBuf,
    /// The new live subvolume; nil where nothing is live now.
    pub uuid: Uuid,
    /// The old live copy held something that no point held (written after the point kept before, mostly); it was made the
    /// point `keep`.
    pub late_writes: bool,
    /// Nested subvolumes, which no point holds, that were moved from the old live copy to the same path (inside the
    /// dataset) in the new one.
    pub nested_moved: Vec<PathBuf>,
    /// Those that could not be moved; they are in `aside`.
    pub nested_aside: Vec<PathBuf>,
    /// Where the old live copy is kept, when it could not be removed.
    pub aside: Option<Aside>,
}

impl Restored {
    /// Nothing was there that had to be dealt with.
    pub(crate) fn at(dataset: &DatasetName, path: &Path, uuid: Uuid) -> Restored {
        Restored {
            dataset: dataset.clone(),
            path: path.to_owned(),
            uuid,
            late_writes: false,
            nested_moved: Vec::new(),
            nested_aside: Vec::new(),
            aside: None,
        }
    }
}

/// An old live copy that nothing else may hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Aside {
    /// For people: a path they can go to, or the device and the path in its top level.
    pub path: String,
    pub why: String,
}

/// What of a dataset is to be shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum View<'a> {
    Nothing,
    Live,
    Point(&'a PointId),
}

/// What a reboot will show at a live path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AfterReboot {
    /// One sentence.
    pub sentence: String,
    /// What to do about it, where it is not as it should be.
    pub hint: Option<String>,
    /// The live copy will not be there, or the machine may not come up.
    pub is_problem: bool,
}

/// Something that `check` says of what lies below a role: programs, kernel modules, pools.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ground {
    /// One sentence.
    pub sentence: String,
    /// What to do about it, where it is not as it should be.
    pub hint: Option<String>,
    /// Points cannot be taken, stored or made live.
    pub is_problem: bool,
}

/// What a look that costs nothing tells of live datasets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Touch {
    /// Nothing was written since the point.
    Quiet,
    /// Something that is not on disk yet was written on the filesystem, to the datasets or beside them: `changed` tells.
    Dirty,
    /// A dataset changed.
    Changed,
}

/// Looks at live datasets, several times a second.
pub trait Watch: Send {
    /// Writes nothing and waits for no disk. In doubt, something changed.
    fn look(&mut self) -> Touch;
}

/// A point, and where it is to be looked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Held {
    /// In the catalogue.
    Point(PointId),
    /// In the fork of this name.
    Forked(PointName, PointId),
    /// A throw-away copy of live data, which `Filesystem::hold_live` named so.
    Copy(String),
}

/// What a role needs of the disk. One value serves one role on this node; all methods may be called from several threads.
pub trait Filesystem: Send + Sync {
    fn role(&self) -> &RoleName;

    fn kind(&self) -> Kind;

    /// The configured datasets and their live paths.
    fn datasets(&self) -> &BTreeMap<DatasetName, PathBuf>;

    /// Makes `.standin` and the role's directories where they are missing. Idempotent. The live paths need not exist
    /// (they do not on a standby), but the filesystem must be there and be of the right kind.
    fn prepare(&self) -> Result<()>;

    /// Every complete point of the role, oldest first by rank. Half-made and half-deleted ones are not in it; one that was
    /// changed after it was stored, or whose files cannot be read, is logged and left out.
    fn list(&self) -> Result<Vec<Stored>>;

    /// The same, and what is wrong with those that were left out.
    fn inspect(&self) -> Result<Inspection>;

    /// Makes a point that is held one that is damaged, durably: `why` reads after "birch's copy of 1.42". Nothing of it is touched.
    /// Repeating it is safe.
    fn condemn(&self, point: &PointId, why: &str) -> Result<()> {
        anyhow::bail!("call {point} damaged ({why}): this filesystem's points cannot be marked")
    }

    /// Keeps people and other programs from destroying the bases, as far as the filesystem can, and leaves what a send needs of
    /// them when they are gone nevertheless. What was guarded before and is not named is not guarded any more. Cheap where
    /// nothing is to do.
    fn guard(&self, bases: &Bases) -> Result<()> {
        let _ = bases;
        Ok(())
    }

    /// Whether a base that was let go can still be sent from.
    fn leaves_remnants(&self) -> bool {
        false
    }

    /// Moves a damaged point out of the way, whole, and remembers why. One that is whole is refused, one that is not there
    /// is success.
    fn set_aside(&self, damaged: &Damaged) -> Result<()>;

    /// Damaged points that were set aside, in no order.
    fn kept_aside(&self) -> Result<Vec<KeptAside>>;

    /// Facts about a live dataset; `Missing` when there is none. With `scan`, looks for what is not replicated.
    fn live(&self, dataset: &DatasetName, scan: Scan) -> Result<Live>;

    /// Whether any live dataset has changed since the snapshots of `point` were taken from it. Syncs first: dirty pages
    /// do not move a generation. True when in doubt (another subvolume is live now, the point was received).
    fn changed(&self, point: &Stored) -> Result<bool>;

    /// For looking whether anything was written since the snapshots of `point`, newest of the points, were taken.
    fn watch(&self, point: &Stored) -> Result<Box<dyn Watch>>;

    /// Bytes of file data that the live datasets hold and `point` does not, about; none where that cannot be told: the point
    /// was neither taken from what is live nor is it what that was made from. Syncs first, reads no data, and takes as long as
    /// the changes are large.
    fn written_since(&self, point: &PointId) -> Result<Option<u64>>;

    /// Takes a point: read-only snapshots of all datasets, as close together as the filesystem allows. `manifest` comes
    /// with empty `datasets`; identities are filled in. Visible in `list` when this returns, never before it is whole.
    fn snapshot(&self, manifest: Manifest) -> Result<Stored> {
        self.snapshot_within(manifest, &mut NoBracket)
    }

    /// The same, with something to be done around the snapshots. An error of the bracket's: no point, and the error is the
    /// chain's outermost one.
    fn snapshot_within(&self, manifest: Manifest, bracket: &mut dyn Bracket) -> Result<Stored>;

    /// What sending `point` on top of `base` would carry. `version_max` is the newest stream version the peer reads.
    fn measure(
        &self,
        dataset: &DatasetName,
        base: Option<&PointId>,
        point: &PointId,
        version_max: u32,
    ) -> Result<Measured>;

    /// Starts the stream that was measured.
    fn send(
        &self,
        dataset: &DatasetName,
        base: Option<&PointId>,
        point: &PointId,
        version: u32,
    ) -> Result<Box<dyn Outgoing>>;

    /// Starts a stream that goes on where the receiver's token says, of the same point and base: a stream of its own, counted
    /// and hashed from its first byte. None where the token is of another stream, or of no use: then it starts anew.
    fn resume(
        &self,
        dataset: &DatasetName,
        base: Option<&PointId>,
        point: &PointId,
        token: &str,
    ) -> Result<Option<Box<dyn Outgoing>>> {
        let _ = (dataset, base, point, token);
        Ok(None)
    }

    /// Opens a transfer: resumes the newest checkpoint of the same identity, else starts anew (another identity's remains
    /// are removed). A dataset that is already complete in staging is answered with `Opened::Complete`.
    fn receive(&self, receipt: &Receipt) -> Result<Opened>;

    /// What lies half-received in staging.
    fn partials(&self) -> Result<Vec<Partial>>;

    /// Makes a wholly received point visible: every dataset of `manifest` must be complete in staging. Atomic and durable.
    /// Idempotent: a point already visible is success.
    fn publish(&self, manifest: &Manifest, from: &NodeName) -> Result<Stored>;

    /// Removes a point: hidden at once, then its snapshots are destroyed. Idempotent. `FsError::Busy` while a send uses it.
    fn destroy(&self, point: &PointId) -> Result<()>;

    /// Removes from staging and trash what no transfer can use any more: everything older than or equal to the newest
    /// complete point, and the remains of interrupted deletions. Never touches what an open transfer works on.
    fn sweep(&self) -> Result<()>;

    /// Puts a writable copy of the point's dataset in place of the live one, atomically. A dataset that is nested in another
    /// one comes after it, where neither is live. `kept` is the point that was taken from what is live, where there is one.
    /// What was live and is in no point becomes the point `keep` (P5); it is in one when that was taken from it and it was
    /// not changed since, and when it is itself a copy of one that nobody touched. Then it is removed.
    /// Subvolumes nested in the old copy are moved over where that can be done; what is not moved is kept and named.
    /// Repeating it is safe: where an untouched copy of `point` is live already, that is the answer. A live path that
    /// fstab names and that is not mounted is mounted.
    fn restore_live(
        &self,
        dataset: &DatasetName,
        point: &PointId,
        kept: Option<&Stored>,
        keep: Manifest,
    ) -> Result<Restored>;

    /// Takes the live copy from its path, and nothing takes its place. What becomes of it is as in `restore_live`, but
    /// that nested subvolumes stay in it: it is kept aside with them, and named. So of datasets that lie in one another the
    /// innermost comes first; those that are still live in it go aside with it otherwise. A live path that is a mount of its own is
    /// unmounted: refused, with the processes that use it, while it is busy, and where nothing but the mount says which
    /// subvolume belongs there. Nothing live is success.
    fn retire_live(
        &self,
        dataset: &DatasetName,
        kept: Option<&Stored>,
        keep: Manifest,
    ) -> Result<Restored>;

    /// The live subvolume; none where there is none (nothing, or an empty directory).
    fn live_identity(&self, dataset: &DatasetName) -> Result<Option<Uuid>>;

    /// What a reboot will show at the live path, as far as fstab tells.
    fn after_reboot(&self, dataset: &DatasetName) -> Result<AfterReboot>;

    /// A writable copy of the point's dataset at `target`, which must not exist and lies in no live dataset of the role.
    /// Missing parents are made.
    fn restore_to(&self, dataset: &DatasetName, point: &PointId, target: &Path) -> Result<()>;

    /// A path by which this process and its children can read the point's dataset, for as long as they keep it.
    fn snapshot_path(&self, dataset: &DatasetName, point: &PointId) -> Result<Readable>;

    /// Such paths for every point that holds the dataset, in no order, each opened when it is asked for. To look at a thousand
    /// points: an implementation that can tells them by names alone, so that damaged ones, and some on their way out, may be among.
    fn snapshot_paths(&self, dataset: &DatasetName) -> Result<Vec<(PointName, Opening<'_>)>>;

    /// Where people find the datasets of these points, one answer for each: a path, or what the filesystem calls the snapshot
    /// (`tank/www@standin_...`). Opens none of them.
    fn known_as(&self, points: &[Stored]) -> Result<Vec<BTreeMap<DatasetName, PathBuf>>>;

    /// Moves points out of the catalogue into the fork that `fork` describes, or extends it where it is there: after this
    /// they are neither listed nor sent nor pruned. Idempotent, and begun it is finished by `prepare`: at every moment a
    /// point is in the catalogue or in the fork. `FsError::Busy` while a send uses one of them (nothing is moved then),
    /// `FsError::Missing` for one that is nowhere.
    fn fork(&self, points: &[PointId], fork: Fork) -> Result<()>;

    /// Every fork, oldest first.
    fn forks(&self) -> Result<Vec<Fork>>;

    /// The datasets of a fork's newest point.
    fn fork_datasets(&self, fork: &PointName) -> Result<Vec<DatasetName>>;

    /// The same of a dataset of a fork, at `point` or at its newest one.
    fn fork_path(
        &self,
        fork: &PointName,
        dataset: &DatasetName,
        point: Option<&PointId>,
    ) -> Result<Readable>;

    /// Destroys a fork with all its points: hidden at once, then removed. One that is not there is success.
    /// `FsError::Busy` while somebody reads it, a refusal while it is mounted.
    fn discard_fork(&self, fork: &PointName) -> Result<()>;

    /// A writable copy of a dataset of the fork's newest point at `target`, as `restore_to` makes one of a point.
    fn export_fork(&self, fork: &PointName, dataset: &DatasetName, target: &Path) -> Result<()>;

    /// Shows the datasets of the fork's newest point, read-only, as directories in `dir`, which must be empty. Gone with
    /// `unmount_fork` or the next boot.
    fn mount_fork(&self, fork: &PointName, dir: &Path) -> Result<()>;

    /// Where `mount_fork` shows it.
    fn fork_mounts(&self, fork: &PointName) -> Result<Vec<PathBuf>>;

    /// What differs in a dataset between two points of it, by path. Needs memory for what differs, not for the trees.
    fn changes(&self, dataset: &DatasetName, base: &Held, newer: &Held) -> Result<Vec<Change>>;

    /// Keeps a dataset of a point from being destroyed while somebody reads it. `FsError::Missing` where there is none.
    fn hold(&self, dataset: &DatasetName, held: &Held) -> Result<Kept>;

    /// A throw-away read-only copy of the live dataset as it is now, gone when this is dropped; what a crash leaves of it, the
    /// next `sweep` takes away. `FsError::Missing` where nothing is live.
    fn hold_live(&self, dataset: &DatasetName) -> Result<Kept>;

    /// Shows every point and fork read-only: datasets at `tree/ROLE/POINT/DATASET` and `tree/ROLE/forks/FORK/DATASET`, in a
    /// tree that `browse::plant` made. Brings up to date what is shown there: idempotent, and finds its own mounts again
    /// after a restart. What is shown so holds nothing up: who destroys it takes it away first.
    fn browse(&self, tree: &Path) -> Result<Browsed>;

    /// Shows what `view` says read-only at `at`, an empty directory (made where it is missing) outside of all datasets, in
    /// place of what was shown there, at once. Idempotent, and finds its own mounts again after a restart. A point that is
    /// shown is not destroyed (`FsError::Busy`): what takes its place is shown first.
    fn view(&self, dataset: &DatasetName, view: View<'_>, at: &Path) -> Result<()>;

    /// Makes a throw-away writable copy of every dataset of the point, and shows them by their names as directories in
    /// `at` (made where it is missing). The point is held only until the copies are made. What an earlier drill left goes
    /// first. An error may leave some of them: `end_drill`.
    fn drill(&self, point: &PointId, at: &Path) -> Result<()>;

    /// Where copies for a drill are shown now, whoever made them.
    fn drill_mounts(&self) -> Result<Vec<PathBuf>>;

    /// Takes away what `drill` made, whoever still uses it; whether there was anything. Idempotent.
    fn end_drill(&self) -> Result<bool>;

    fn space(&self, dataset: &DatasetName) -> Result<Space>;

    /// What is to be said of the ground the role stands on, beside its datasets. Nothing where nothing can be missing.
    fn ground(&self) -> Vec<Ground> {
        Vec::new()
    }

    /// Refuses where the data of a point that is here could not be made live, whatever else there is: nobody here can open them.
    /// Touches nothing. Fine where the point is not here.
    fn expect_openable(&self, _point: &PointId) -> Result<()> {
        Ok(())
    }

    /// How a person makes the live copy of a dataset that is not there.
    fn how_to_create(&self, dataset: &DatasetName) -> String;

    /// How a person removes a live copy that nobody needs.
    fn how_to_remove(&self, dataset: &DatasetName) -> String;

    /// Lets go of filesystems that cannot be written now: after an error only a fresh mount mends one, and there is none
    /// while anybody holds the old. Cheap, and called often.
    fn let_go(&self);
}

/// Whether `live` looks through the dataset for what is not replicated (slow on large trees) or only at its root.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scan {
    Root,
    Whole,
}

/// The answer to `receive`.
pub enum Opened {
    Transfer(Box<dyn Incoming>),
    Complete(LocalDataset),
}

/// Limits of a receiver.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// A checkpoint at least after this many stream bytes ...
    pub checkpoint_bytes: u64,
    /// ... or this long after the last one, whichever is first.
    pub checkpoint_every: std::time::Duration,
    /// Free space that a receive never uses, in bytes.
    pub reserve: u64,
    /// What of the sender's files is taken over; of a transfer, what its receipt says.
    pub accept: Accept,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            checkpoint_bytes: 256 << 20,
            checkpoint_every: std::time::Duration::from_secs(30),
            reserve: 1 << 30,
            accept: Accept::default(),
        }
    }
}

/// Local facts of a freshly taken point, before anything was received.
pub(crate) fn local_facts(
    stored: jiff::Timestamp,
    from: Option<NodeName>,
    datasets: BTreeMap<DatasetName, LocalDataset>,
) -> LocalFacts {
    LocalFacts {
        stored: Some(stored),
        from,
        datasets,
    }
}
