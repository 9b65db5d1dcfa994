//! Sends a point: a child process whose output is the stream.
//!
//! Promise: the flags are a function of the dataset alone, so a lineage is sent one way for all its life: `-w` where it is
//! encrypted (its key is not needed, and never leaves), else `-L -c -e`. Never `-R` nor `-p`. While a stream is open its points
//! are neither destroyed nor moved by this process; the kernel keeps others from it.
//!
//! It deliberately does not know who reads.

use std::io::{self, Read};
use std::process::{Child, ChildStdout, Stdio};

use anyhow::Context;

use super::command::{self, trouble_of, zfs, zfs_told};
use super::core::{Core, Scene};
use super::family::{Bookmark, Snapshot};
use super::guard;
use super::text::{self, Trouble};
use crate::fs::btrfs::uses::Use;
use crate::fs::{FsError, Measured, Outgoing, Remembered, Result};
use crate::logic::name::DatasetName;
use crate::logic::point::PointId;
use crate::logic::transfer::{FileFlags, StreamIdentity};

/// The stream of this engine. Peers of one role have one kind of filesystem; within it the number says what a stream may use.
pub const VERSION_MAX: u32 = 2;

/// What it is sent on top of.
enum Base {
    Held(Snapshot),
    /// What is left of a point.
    Left(Bookmark),
}

impl Base {
    fn guid(&self) -> u64 {
        match self {
            Base::Held(snapshot) => snapshot.guid,
            Base::Left(bookmark) => bookmark.guid,
        }
    }
}

/// What is sent.
struct Sides {
    point: Snapshot,
    base: Option<Base>,
    /// Of the manifests.
    identity: StreamIdentity,
    encrypted: bool,
    /// The dataset in which the point lies is a clone of this.
    origin: Option<String>,
    held: Vec<Use>,
}

fn sides(
    scene: &Scene<'_>,
    dataset: &DatasetName,
    base: Option<&PointId>,
    point: &PointId,
) -> Result<Sides> {
    let mut held = Vec::new();
    let mut side = |id: &PointId| -> Result<Option<(Snapshot, uuid::Uuid)>> {
        let Some(found) = scene.find_if_any(id)? else {
            return Ok(None);
        };
        held.push(scene.core.share(&found.manifest.name().to_string())?);
        let local = found.local.datasets.get(dataset);
        let facts = found.manifest.datasets.get(dataset);
        let (Some(local), Some(facts)) = (local, facts) else {
            return Ok(None);
        };
        let snapshot = scene.snapshot(dataset, local.uuid)?.clone();
        Ok(Some((snapshot, facts.identity)))
    };
    let Some((to, snapshot)) = side(point)? else {
        // Says why, where it is damaged.
        scene.find(point)?;
        return Err(FsError::Missing(format!("dataset {dataset} in point {point}")).into());
    };
    let from = match base {
        None => None,
        Some(base) => {
            let bad = |why: String| FsError::BadBase {
                dataset: dataset.clone(),
                why,
            };
            let held = side(base)?.map(|(snapshot, identity)| (Base::Held(snapshot), identity));
            let left = match held {
                Some(_) => None,
                None => guard::remnant(scene, dataset, base)?,
            };
            let left = left.map(|(bookmark, identity)| (Base::Left(bookmark), identity));
            let found = held.or(left);
            Some(found.ok_or_else(|| bad(format!("point {base} is not here")))?)
        }
    };
    let tree = scene.family(dataset)?.tree(&to.dataset);
    Ok(Sides {
        identity: StreamIdentity {
            snapshot,
            base: from.as_ref().map(|(_, identity)| *identity),
            version: VERSION_MAX,
        },
        point: to,
        base: from.map(|(base, _)| base),
        encrypted: tree.is_some_and(|tree| tree.encrypted),
        origin: tree.and_then(|tree| tree.origin.clone()),
        held,
    })
}

impl Sides {
    fn arguments(&self, dry: bool) -> Result<Vec<String>> {
        let mut arguments: Vec<String> = vec!["send".into()];
        if dry {
            arguments.push("-nvP".into());
        }
        let flags: &[&str] = match self.encrypted {
            true => &["-w"],
            false => &["-L", "-c", "-e"],
        };
        arguments.extend(flags.iter().map(|flag| (*flag).to_owned()));
        if let Some(base) = &self.base {
            arguments.push("-i".into());
            arguments.push(self.base_word(base)?);
        }
        arguments.push(self.point.name());
        Ok(arguments)
    }

    /// The programs take a snapshot of another dataset as a base only where it is the origin; a bookmark may lie anywhere.
    fn base_word(&self, base: &Base) -> Result<String> {
        let base = match base {
            Base::Held(snapshot) => snapshot,
            Base::Left(bookmark) => return Ok(bookmark.name.clone()),
        };
        if base.dataset == self.point.dataset {
            return Ok(format!("@{}", base.short));
        }
        if self.origin.as_deref() == Some(&base.name()) {
            return Ok(base.name());
        }
        let bookmark = base.bookmark_name();
        guard::make(&base.name(), &bookmark)?;
        Ok(bookmark)
    }
}

/// See `Filesystem::measure`. The size is the program's estimate; 0 where it has none.
pub fn measure(
    core: &Core,
    dataset: &DatasetName,
    base: Option<&PointId>,
    point: &PointId,
    version_max: u32,
) -> Result<Measured> {
    let scene = core.look()?;
    let sides = sides(&scene, dataset, base, point)?;
    let said = zfs(&sides.arguments(true)?).map_err(|error| explained(dataset, error))?;
    let version = version_max.clamp(1, VERSION_MAX);
    Ok(Measured {
        identity: StreamIdentity {
            version,
            ..sides.identity
        },
        data_bytes: text::size(&said).unwrap_or(0),
        flags: FileFlags::default(),
        kept: Remembered::default(),
    })
}

/// See `Filesystem::send`.
pub fn send(
    core: &Core,
    dataset: &DatasetName,
    base: Option<&PointId>,
    point: &PointId,
) -> Result<Box<dyn Outgoing>> {
    let scene = core.look()?;
    let sides = sides(&scene, dataset, base, point)?;
    open(dataset, &sides.arguments(false)?, sides.held)
}

/// See `Filesystem::resume`.
pub fn resume(
    core: &Core,
    dataset: &DatasetName,
    base: Option<&PointId>,
    point: &PointId,
    token: &str,
) -> Result<Option<Box<dyn Outgoing>>> {
    if !text::is_token(token) {
        return Ok(None);
    }
    let scene = core.look()?;
    let sides = sides(&scene, dataset, base, point)?;
    let told = text::token(&zfs_told(&["send", "-nvP", "-t", token])?);
    let meant = told.is_some_and(|told| {
        let from = sides.base.as_ref().map_or(0, Base::guid);
        told.to == sides.point.guid && told.from == from
    });
    if !meant {
        return Ok(None);
    }
    let arguments = ["send", "-t", token].map(str::to_owned);
    open(dataset, &arguments, sides.held).map(Some)
}

fn open(dataset: &DatasetName, arguments: &[String], held: Vec<Use>) -> Result<Box<dyn Outgoing>> {
    let mut child = command::start(arguments, Stdio::null(), Stdio::piped())?;
    let stream = child.stdout.take().context("open the stream of zfs send")?;
    Ok(Box::new(Stream {
        dataset: dataset.clone(),
        stream,
        child: Running(child),
        _held: held,
    }))
}

/// A stream being produced.
struct Stream {
    dataset: DatasetName,
    // Closed first: the child must not wait for a reader.
    stream: ChildStdout,
    child: Running,
    _held: Vec<Use>,
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.stream.read(buffer)
    }
}

impl Outgoing for Stream {
    fn finish(mut self: Box<Self>) -> Result<()> {
        let (ok, said) = self.child.end()?;
        match ok {
            true => Ok(()),
            false => Err(explained(
                &self.dataset,
                command::refused("zfs", &["send"], &said).into(),
            )),
        }
    }
}

/// An error in the words of the trait.
fn explained(dataset: &DatasetName, error: anyhow::Error) -> anyhow::Error {
    let dataset = dataset.clone();
    match trouble_of(&error) {
        Some(Trouble::Io) => error.context(FsError::Unreadable {
            dataset,
            file: None,
        }),
        Some(Trouble::Base) => {
            let why = error.to_string();
            error.context(FsError::BadBase { dataset, why })
        }
        _ => error,
    }
}

/// A child that does not outlive its owner.
pub struct Running(pub Child);

impl Running {
    /// Waits for its end; whether it ended well, and what it said.
    pub fn end(&mut self) -> Result<(bool, String)> {
        let mut said = Vec::new();
        if let Some(stderr) = self.0.stderr.take() {
            // More than any message of theirs.
            stderr
                .take(1 << 16)
                .read_to_end(&mut said)
                .context("hear what zfs says")?;
        }
        let status = self.0.wait().context("wait for zfs")?;
        command::changing();
        Ok((
            status.success(),
            String::from_utf8_lossy(&said).into_owned(),
        ))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended; then there is nothing to end.
        let _ = self.0.kill();
        let _ = self.0.wait();
        command::changing();
    }
}
