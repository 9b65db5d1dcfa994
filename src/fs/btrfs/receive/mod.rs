//! Receives one dataset of a point into staging: resumable, confined, complete or not there.
//!
//! Promise (P1, P6, P7): whatever happens at whatever moment - a cut link, a killed process, a power loss, a full disk -
//! staging holds either a complete, read-only, identified snapshot on disk (`local.json` says so), or work that goes on from
//! its newest checkpoint. Nothing outside the work directory and the dataset's own name in the point directory is touched.
//!
//! Layout, below the point's staging directory:
//!
//! ```text
//!   <dataset>                       the finished subvolume
//!   .work/<dataset>/identity.json   which stream this is
//!                   tree            the writable subvolume being received
//!                   ckpt.<offset>   checkpoints, each with ckpt.<offset>.json
//!                   local.json      written last: complete
//! ```
//!
//! It deliberately does not know points, peers or the catalogue: what the base is and which snapshots may be cloned from is
//! the caller's word, checked here against the filesystem.

mod checkpoint;
mod child;
mod engine;
mod finish;
mod receiver;
mod remote;
mod stubs;
mod wire;
mod work;
pub mod worker;

use std::path::{Path, PathBuf};

use anyhow::Context;
use uuid::Uuid;

use super::top::plain;
use crate::fs::{FsError, Limits, Opened, Result};
use crate::logic::manifest::LocalDataset;
use crate::logic::name::DatasetName;
use crate::logic::transfer::{FileFlags, StreamIdentity};
pub use child::VERB;
use receiver::{Receiver, Setting};
use work::Work;

/// The directory inside a point's staging directory that is not part of the point.
pub const WORK: &str = ".work";

/// Where a dataset is received.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The point's directory in staging. Exists.
    pub point_dir: PathBuf,
    pub dataset: DatasetName,
}

/// A snapshot held here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// As streams name it.
    pub identity: Uuid,
    pub path: PathBuf,
    /// What it was when it was recorded; none: not known.
    pub ctransid: Option<u64>,
    /// Where it may have the empty directories of nested subvolumes.
    pub nested: Vec<String>,
}

/// Which process reads the stream.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Applying {
    /// This one, with all its rights: for tests and measurements.
    #[default]
    Here,
    /// A confined child (`worker`) that runs this program.
    Child(PathBuf),
}

/// The stream to come.
#[derive(Debug, Clone, Copy)]
pub struct Coming<'a> {
    pub identity: &'a StreamIdentity,
    /// Needed when the identity names one.
    pub base: Option<&'a Source>,
    /// It and these are the only snapshots the stream may read.
    pub clones: &'a [Source],
    /// Those of the new files, the same at every opening.
    pub flags: &'a FileFlags,
    /// File data of the whole stream.
    pub data_bytes: u64,
}

/// Opens a transfer: goes on from the newest checkpoint of the same identity, else starts anew; what another identity left
/// is removed.
///
/// Errors a caller branches on: `Busy` (another receiver works here), `BadBase`, `NoSpace` (what is still to come has no
/// room), `ApplierEnded`.
pub fn open(
    applying: &Applying,
    place: &Place,
    coming: Coming<'_>,
    limits: Limits,
) -> Result<Opened> {
    let Coming {
        identity,
        base,
        clones,
        flags,
        data_bytes,
    } = coming;
    let work = Work::open(place)?;
    let same = work.read::<StreamIdentity>(work::IDENTITY).as_ref() == Some(identity);
    if same {
        if let Some(local) = work.read::<LocalDataset>(work::LOCAL) {
            if is_intact(work.finished(), &local) {
                return Ok(Opened::Complete(local));
            }
            tracing::warn!(dataset = %place.dataset, "what was received whole was changed since; it is received again");
        }
        // Without `local.json` a subvolume in the finished place is a finish that was interrupted.
        work::remove_file(&work.dir().join(work::LOCAL))?;
        work::delete_subvolume(work.finished())?;
    } else {
        work.clear()?;
        work.write(work::IDENTITY, identity)?;
    }
    let base = match identity.base {
        Some(wanted) => Some(verified_base(place, wanted, base)?),
        None => None,
    };
    let clones = clones
        .iter()
        .filter(|source| match refusal(source, source.identity) {
            None => true,
            Some(why) => {
                tracing::warn!("not used as a clone source: {}", plain(&why));
                false
            }
        })
        .cloned()
        .collect();
    let setting = Setting {
        work,
        dataset: place.dataset.clone(),
        applying: applying.clone(),
        identity: identity.clone(),
        base,
        clones,
        flags: flags.clone(),
        limits,
    };
    let mut receiver = Receiver::open(setting)?;
    receiver.expect_room(data_bytes)?;
    Ok(Opened::Transfer(Box::new(receiver)))
}

/// What lies in a place: none - nothing; `Some(None)` - a complete dataset; `Some(Some(offset))` - a part, with a checkpoint
/// at that offset (0: at its beginning).
pub fn partial(place: &Place) -> Result<Option<Option<u64>>> {
    let dir = work::dir_of(place);
    if !dir.join(work::IDENTITY).is_file() {
        return Ok(None);
    }
    let recorded = work::read::<LocalDataset>(&dir.join(work::LOCAL));
    if recorded.is_some_and(|local| is_intact(&work::finished_of(place), &local)) {
        return Ok(Some(None));
    }
    let newest = checkpoint::newest(&dir)?;
    Ok(Some(Some(newest.map_or(0, |(state, _)| state.offset))))
}

/// The facts of a complete dataset; none when it is not complete.
pub fn complete(place: &Place) -> Option<LocalDataset> {
    let local = work::read(&work::dir_of(place).join(work::LOCAL))?;
    is_intact(&work::finished_of(place), &local).then_some(local)
}

/// Whether a finished subvolume is there and still what was recorded of it.
pub fn is_intact(finished: &Path, local: &LocalDataset) -> bool {
    let plain = finished
        .symlink_metadata()
        .is_ok_and(|found| found.is_dir());
    let same = |info: super::ioctl::Subvolume| {
        info.read_only && info.uuid == local.uuid && info.ctransid == local.ctransid
    };
    plain && super::subvolume::info(finished).is_ok_and(same)
}

/// Removes what lies in a place, finished or not. Idempotent. `Busy` while a receiver works there.
pub fn discard(place: &Place) -> Result<()> {
    match Work::find(place)? {
        Some(work) => {
            work.clear()?;
            std::fs::remove_dir(work.dir())
                .with_context(|| format!("remove {}", work.dir().display()))
        }
        None => work::delete_subvolume(&work::finished_of(place)),
    }
}

fn verified_base(place: &Place, wanted: Uuid, base: Option<&Source>) -> Result<Source> {
    let bad = |why: String| FsError::BadBase {
        dataset: place.dataset.clone(),
        why,
    };
    let base = base.ok_or_else(|| bad(format!("{wanted} is not held here")))?;
    match refusal(base, wanted) {
        None => Ok(base.clone()),
        Some(why) => Err(bad(why).into()),
    }
}

/// Why a snapshot is not what it should be; none when it is.
fn refusal(source: &Source, wanted: Uuid) -> Option<String> {
    let path = source.path.display();
    let facts = libbtrfsutil::subvolume_info(&source.path)
        .and_then(|info| Ok((info, libbtrfsutil::subvolume_read_only(&source.path)?)));
    let (info, read_only) = match facts {
        Ok(facts) => facts,
        Err(error) => return Some(format!("{path} cannot be read: {error}")),
    };
    let identity = info.received_uuid().unwrap_or(info.uuid());
    if !read_only {
        return Some(format!("{path} is writable"));
    }
    if identity != wanted || source.identity != wanted {
        return Some(format!("{path} is {identity}, not {wanted}"));
    }
    match source.ctransid {
        Some(recorded) if recorded != info.ctransid() => Some(format!(
            "{path} was changed: ctransid is {}, not {recorded}",
            info.ctransid()
        )),
        _ => None,
    }
}
