//! Single files of points, from peer to peer.
//!
//! Promise (P7): a file is given only from points, never from the live data, to who may read the role, and a path cannot lead out of
//! its dataset. What arrives is compared with the hash of the whole before anybody uses it. A crash leaves a part in `fetched` of
//! the state directory: the same request goes on from there; parts that nobody asks for again are removed after some days.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, bail};
use tokio::sync::mpsc;

use super::api::Source;
use super::find::{root_of, serves};
use super::incoming::refuse;
use super::node::{Node, PeerRun, RoleRun, blocking, lock};
use super::outgoing::answer as heard;
use crate::error::{Code, Failure};
use crate::fs::btrfs::freeze::freeze;
use crate::host::peek::Tree;
use crate::logic::accept::{Treatment, refused};
use crate::logic::name::{DatasetName, NodeName};
use crate::logic::units;
use crate::logic::versions::{Facts, Kind};
use crate::peer::bulk::Packer;
use crate::peer::exchange::{Exchange, Item};
use crate::peer::frame::Frame;
use crate::peer::message::{Answer, ReadFile, Request, plain};

/// Bytes read at once.
const PIECE_BYTES: usize = 128 << 10;

/// Frames between the reading thread and the link.
const QUEUE_FRAMES: usize = 8;

/// As for transfers (produce).
const ZSTD_LEVEL: i32 = 3;

/// Longest wait for the next piece.
const PIECE_MAX: Duration = Duration::from_secs(60);

/// A part that was not touched for so long is removed.
const PART_LASTS: Duration = Duration::from_secs(7 * 24 * 3600);

/// What the state directory keeps free.
const RESERVE: u64 = 64 << 20;

const SETUID: u32 = 0o6000;

/// Answers `Read`.
pub async fn serve(
    node: &Arc<Node>,
    peer: &PeerRun,
    asked: ReadFile,
    mut exchange: Exchange,
) -> Result<()> {
    let (file, facts) = match open(node, &peer.peer.name, &asked).await {
        Ok(opened) => opened,
        Err(error) => return refuse(&mut exchange, error).await,
    };
    exchange.send(&Answer::File { facts }).await?;
    let (pieces, mut queue) = mpsc::channel(QUEUE_FRAMES);
    let reading = tokio::task::spawn_blocking(move || match file {
        Some(file) => read(file, asked.offset, &pieces),
        None => Ok((0, String::new())),
    });
    while let Some(frame) = queue.recv().await {
        peer.limiter.take(frame.wire_bytes() as u64).await;
        exchange.send_frame(&frame).await?;
    }
    match reading.await? {
        Ok((bytes, hash)) => {
            exchange.send(&Answer::Whole { bytes, hash }).await?;
            exchange.finish().await
        }
        Err(error) => refuse(&mut exchange, error).await,
    }
}

async fn open(node: &Node, peer: &NodeName, asked: &ReadFile) -> Result<(Option<File>, Facts)> {
    let role = (&asked.role, asked.role_id);
    let (run, at) = serves(node, peer, role, &asked.dataset, &asked.path)?;
    let source = Source {
        point: Some(asked.point),
        fork: asked.fork,
        peer: None,
    };
    blocking(move || {
        let root = root_of(&*run.fs, &at.dataset, &source)?;
        let shown = at.inner.display();
        let tree = Tree::open(&root).with_context(|| format!("look into {}", source.words()))?;
        let facts = tree.facts(&at.inner);
        match facts.with_context(|| format!("look at {shown}"))? {
            None => {
                let what = format!("{} does not show {shown}", source.words());
                Err(Failure::new(Code::NotFound, what).into())
            }
            Some(facts) if facts.kind == Kind::Symlink => Ok((None, facts)),
            Some(facts) if facts.kind == Kind::File => {
                let opened = tree.file(&at.inner);
                let (file, facts) = opened.with_context(|| format!("open {shown}"))?;
                Ok((Some(file), facts))
            }
            Some(facts) => {
                let what = format!("{shown} is a {}: only files are given", facts.kind.word());
                Err(Failure::new(Code::Refused, what).into())
            }
        }
    })
    .await
}

/// Reads all of it, and gives what lies beyond `offset`. The hash is of the whole.
fn read(mut file: File, offset: u64, pieces: &mpsc::Sender<Frame>) -> Result<(u64, String)> {
    let mut hasher = blake3::Hasher::new();
    let mut packer = Packer::new(ZSTD_LEVEL)?;
    let mut piece = vec![0; PIECE_BYTES];
    let mut at = 0_u64;
    loop {
        let got = match file.read(&mut piece) {
            Ok(0) => break,
            Ok(got) => got,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => return Err(error).context("read the file"),
        };
        let data = &piece[..got];
        hasher.update(data);
        let known = usize::try_from(offset.saturating_sub(at)).unwrap_or(usize::MAX);
        at += got as u64;
        if known < got && pieces.blocking_send(packer.pack(&data[known..])?).is_err() {
            bail!("nobody takes it any more");
        }
    }
    Ok((at, hasher.finalize().to_hex().to_string()))
}

/// A file of a peer's, on its way.
pub struct Reading {
    exchange: Exchange,
    pub facts: Facts,
    what: String,
    /// Bytes that may still come.
    left: u64,
}

pub enum Piece {
    Data(Vec<u8>),
    Whole { bytes: u64, hash: String },
}

impl Reading {
    /// Asks for the file beyond `offset`.
    pub async fn begin(
        node: &Node,
        run: &RoleRun,
        (dataset, path): (&DatasetName, &Path),
        source: &Source,
        offset: u64,
    ) -> Result<Reading> {
        let (Some(peer), Some(point)) = (&source.peer, source.point) else {
            bail!("ask a peer for {}: no peer has it", path.display());
        };
        let what = format!("read {} of {}", path.display(), source.words());
        let link = node.link(peer).with_context(|| what.clone())?;
        let record = node.record(run)?.context("find the record of the role")?;
        let asked = ReadFile {
            role: run.name.clone(),
            role_id: record.id,
            dataset: dataset.clone(),
            point,
            fork: source.fork,
            path: path
                .to_str()
                .context("ask for a path that is no text")?
                .to_owned(),
            offset,
        };
        let mut exchange = link.open(&Request::Read(Box::new(asked))).await?;
        let facts = match heard(&what, exchange.recv()).await? {
            Answer::File { facts } if matches!(facts.kind, Kind::File | Kind::Symlink) => facts,
            other => bail!("{what}: {peer} answered {:.40}", format!("{other:?}")),
        };
        Ok(Reading {
            left: facts.size.saturating_sub(offset),
            exchange,
            facts,
            what,
        })
    }

    pub async fn next(&mut self) -> Result<Piece> {
        let next = tokio::time::timeout(PIECE_MAX, self.exchange.next::<Answer>()).await;
        let Ok(next) = next else {
            let what = format!("{}: nothing came for {} s", self.what, PIECE_MAX.as_secs());
            return Err(Failure::new(Code::Unreachable, what)
                .hint("try again: what arrived is kept")
                .into());
        };
        match next.with_context(|| self.what.clone())? {
            Item::Data(frame) => {
                let data = frame.data().unwrap_or_default().to_vec();
                let left = self.left.checked_sub(data.len() as u64);
                self.left =
                    left.with_context(|| format!("{}: more came than it has", self.what))?;
                Ok(Piece::Data(data))
            }
            Item::Word(Answer::Whole { bytes, hash }) => Ok(Piece::Whole { bytes, hash }),
            Item::Word(Answer::Refused(refusal)) => Err(refusal.into_error(&self.what)),
            Item::Word(other) => bail!("{}: it said {:.40}", self.what, format!("{other:?}")),
            Item::End => bail!("{}: it ended too early", self.what),
        }
    }

    /// That it arrived as it is there.
    pub fn verify(&self, (bytes, hash): (u64, &str), ours: (u64, &str)) -> Result<()> {
        if (bytes, hash) == ours {
            return Ok(());
        }
        let what = format!("{}: what arrived is not what was sent", self.what);
        Err(Failure::new(Code::Failed, what)
            .hint("try again: it is fetched anew")
            .into())
    }
}

/// Fetches a file or a symlink with owner, mode and time into the state directory, and tells where it is. Attributes and ACLs do
/// not come along. The caller removes it.
pub async fn file(
    node: &Node,
    run: &RoleRun,
    (dataset, path): (&DatasetName, &Path),
    source: &Source,
) -> Result<PathBuf> {
    let dir = node.config().node.state_dir.join("fetched");
    let words = format!("{source:?}/{}/{dataset}/{}", run.name, path.display());
    let name = blake3::hash(words.as_bytes()).to_hex();
    let part = dir.join(&name.as_str()[..32]);
    let (at, held) = {
        let (dir, part) = (dir.clone(), part.clone());
        blocking(move || prepare(&dir, &part)).await?
    };
    let mut reading = Reading::begin(node, run, (dataset, path), source, held).await?;
    let accept = source.peer.as_ref().and_then(|peer| node.peer(peer));
    let accept = accept.map_or_else(Default::default, |peer| *lock(&peer.accept));
    let mut mode = reading.facts.mode;
    if mode & SETUID != 0 && accept.setuid != Treatment::Keep {
        if accept.setuid == Treatment::Refuse {
            let what = refused(&format!("mode {mode:o} of {}", path.display()), "setuid");
            return Err(Failure::new(Code::Refused, what).into());
        }
        mode &= !SETUID;
    }
    expect_room(&dir, reading.facts.size.saturating_sub(held))?;
    let mut file = at;
    let (bytes, hash) = loop {
        match reading.next().await? {
            Piece::Data(data) => {
                file = blocking(move || {
                    file.write_all(&data).context("write what is fetched")?;
                    Ok(file)
                })
                .await?;
                freeze("fetch-piece");
            }
            Piece::Whole { bytes, hash } => break (bytes, hash),
        }
    };
    let facts = reading.facts.clone();
    let kept = part.clone();
    let ours = blocking(move || settle(file, &kept, &facts, mode)).await?;
    if let Err(error) = reading.verify((bytes, &hash), (ours.0, &ours.1)) {
        // Not gone on with.
        let _ = std::fs::remove_file(&part);
        return Err(error);
    }
    freeze("fetch-whole");
    Ok(part)
}

/// Opens the part, at its end; removes what nobody asked for again.
fn prepare(dir: &Path, part: &Path) -> Result<(File, u64)> {
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true).mode(0o700);
    builder
        .create(dir)
        .with_context(|| format!("create {}", dir.display()))?;
    let old = |path: &Path| {
        let touched = path
            .symlink_metadata()
            .and_then(|facts| facts.modified())
            .ok();
        let age = touched.and_then(|at| SystemTime::now().duration_since(at).ok());
        age.is_some_and(|age| age > PART_LASTS)
    };
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.path() != part && old(&entry.path()) {
            // The next fetch tries again.
            let _ = std::fs::remove_file(entry.path());
        }
    }
    // One that was whole already bears the time of the file that it is a copy of, or is a symlink.
    if part.symlink_metadata().is_ok_and(|facts| !facts.is_file()) {
        std::fs::remove_file(part).with_context(|| format!("remove {}", part.display()))?;
    }
    let mut options = OpenOptions::new();
    options.create(true).append(true).read(true).mode(0o600);
    let file = options.open(part);
    let file = file.with_context(|| format!("open {}", part.display()))?;
    let held = file.metadata().context("look at what was fetched")?.len();
    Ok((file, held))
}

fn expect_room(dir: &Path, needed: u64) -> Result<()> {
    let found = rustix::fs::statvfs(dir).with_context(|| format!("look at {}", dir.display()))?;
    let free = found.f_bavail.saturating_mul(found.f_frsize);
    if needed.saturating_add(RESERVE) <= free {
        return Ok(());
    }
    let (needed, free) = (units::human_bytes(needed), units::human_bytes(free));
    let what = format!("fetch {needed} into {}: {free} are free", dir.display());
    Err(Failure::new(Code::NoSpace, what)
        .hint("make room there, or restore it on the peer and copy it over")
        .into())
}

/// Gives it its owner, mode and time, and gets it onto the disk. Length and hash of what is there.
fn settle(mut file: File, part: &Path, facts: &Facts, mode: u32) -> Result<(u64, String)> {
    use rustix::fs::{Gid, Mode, Timespec, Timestamps, Uid};
    if facts.kind == Kind::Symlink {
        let target = facts.target.as_deref().unwrap_or_default();
        std::fs::remove_file(part).with_context(|| format!("remove {}", part.display()))?;
        std::os::unix::fs::symlink(target, part)
            .with_context(|| format!("make a link to {}", plain(target)))?;
        return Ok((0, String::new()));
    }
    use std::io::Seek;
    file.rewind().context("read what was fetched")?;
    let mut hasher = blake3::Hasher::new();
    let bytes = std::io::copy(&mut file, &mut hasher).context("read what was fetched")?;
    let owner = (Uid::from_raw(facts.uid), Gid::from_raw(facts.gid));
    // A mode is set after the owner, which takes setuid away.
    rustix::fs::fchown(&file, Some(owner.0), Some(owner.1)).context("give it its owner")?;
    rustix::fs::fchmod(&file, Mode::from_raw_mode(mode & 0o7777)).context("give it its mode")?;
    let time = Timespec {
        tv_sec: facts.mtime.0,
        tv_nsec: i64::from(facts.mtime.1.min(999_999_999)),
    };
    let times = Timestamps {
        last_access: time,
        last_modification: time,
    };
    rustix::fs::futimens(&file, &times).context("give it its time")?;
    file.sync_all().context("write what was fetched to disk")?;
    Ok((bytes, hasher.finalize().to_hex().to_string()))
}
