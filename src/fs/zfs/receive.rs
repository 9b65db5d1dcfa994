//! Receives one dataset of a point: a child process that eats the stream, and a file that says what for.
//!
//! A stream that is cut leaves what was received with ZFS itself, and a token of it; the next offer of the same identity goes on
//! from there, by a stream that the sender makes of the token. Another identity's remains are given up first.
//!
//! Promise: `receive -s -u`, never `-F`: nothing is mounted, nothing that was there is rolled back but the head of a holder,
//! which nobody wrote to. Only a plain stream of the offered guids reaches the program (`header`). A crash leaves the transfer's
//! file and, perhaps, a token; or a snapshot that the file does not know as complete yet: found by its guid, it is.
//!
//! It deliberately does not know links, nor points (`publish` does).

use std::io::Write;
use std::path::PathBuf;
use std::process::{ChildStdin, Stdio};
use std::sync::Arc;

use anyhow::{Context, anyhow};
use serde::{Deserialize, Serialize};

use super::command::{self, Refused, trouble_of, zfs, zfs_told};
use super::core::{Core, Scene};
use super::family::{self, Family};
use super::header::{self, Header};
use super::send::Running;
use super::store::{self, snapshot_name};
use super::text::{self, Trouble};
use super::{publish, take};
use crate::error::{Code, Failure};
use crate::fs::btrfs::uses::{Use, Used};
use crate::fs::{FsError, Incoming, Opened, Receipt, Result, Standing};
use crate::logic::manifest::{LocalDataset, Manifest};
use crate::logic::name::DatasetName;
use crate::logic::prefix::PrefixHash;
use crate::logic::shortage::Shortage;
use crate::logic::transfer::StreamIdentity;

/// A transfer, in its file.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Transfer {
    pub manifest: Manifest,
    pub dataset: DatasetName,
    pub identity: StreamIdentity,
    /// The dataset it goes into; none before the first byte.
    pub into: Option<String>,
    /// It is complete.
    pub done: Option<LocalDataset>,
}

impl Transfer {
    pub fn file(scene: &Scene<'_>, manifest: &Manifest, dataset: &DatasetName) -> Result<PathBuf> {
        let staging = scene
            .part(dataset)?
            .store
            .hidden(".staging", &scene.core.role);
        Ok(staging
            .join(manifest.name().to_string())
            .join(format!("{dataset}.json")))
    }

    /// What of it ZFS keeps.
    pub fn token<'a>(&self, family: &'a Family) -> Option<&'a str> {
        family.tree(self.into.as_deref()?)?.token.as_deref()
    }
}

/// See `Filesystem::receive`.
pub fn receive(core: &Arc<Core>, receipt: &Receipt) -> Result<Opened> {
    publish::check_receipt(core, receipt)?;
    let _turn = core.turn();
    let (dataset, manifest) = (&receipt.dataset, &receipt.manifest);
    let scene = core.look()?;
    if let Some(local) = publish::complete(&scene, receipt)? {
        return Ok(Opened::Complete(local));
    }
    let used = Used::Transfer(
        core.role.clone(),
        manifest.name().to_string(),
        dataset.clone(),
    );
    let busy = || FsError::Busy(format!("the transfer of {dataset} of {}", manifest.point));
    let mut held = vec![core.uses.alone(used).ok_or_else(busy)?];
    let family = scene.family(dataset)?;
    let base = base(&scene, receipt, &mut held)?;
    let file = Transfer::file(&scene, manifest, dataset)?;
    let known: Option<Transfer> = store::read_file(&file)?;
    let same =
        known.filter(|known| known.identity == receipt.identity && known.manifest == *manifest);
    let token = same
        .as_ref()
        .and_then(|known| known.token(family))
        .map(str::to_owned);
    if token.is_none() {
        expect_room(core, receipt)?;
    }
    let transfer = same.unwrap_or_else(|| Transfer {
        manifest: manifest.clone(),
        dataset: dataset.clone(),
        identity: receipt.identity.clone(),
        into: None,
        done: None,
    });
    store::write_file(&file, &transfer)?;
    let data_bytes = token.as_deref().map_or(0, |token| {
        let told = zfs_told(&["send", "-nvP", "-t", token]).unwrap_or_default();
        text::token(&told).map_or(0, |told| told.bytes)
    });
    Ok(Opened::Transfer(Box::new(Receiving {
        core: core.clone(),
        transfer,
        file,
        base,
        begun_at: data_bytes,
        token,
        first: Vec::new(),
        hash: PrefixHash::default(),
        running: None,
        held,
        into_held: None,
    })))
}

/// The guid of the base; it stays in use while the transfer is open.
fn base(scene: &Scene<'_>, receipt: &Receipt, held: &mut Vec<Use>) -> Result<u64> {
    let (Some(base), Some(identity)) = (&receipt.base, receipt.identity.base) else {
        return Ok(0);
    };
    let dataset = &receipt.dataset;
    let bad = |why: String| FsError::BadBase {
        dataset: dataset.clone(),
        why,
    };
    let found = scene.find_if_any(base)?;
    let found = found.ok_or_else(|| bad(format!("point {base} is not here")))?;
    let ours = found
        .manifest
        .datasets
        .get(dataset)
        .map(|facts| facts.identity);
    if ours != Some(identity) {
        return Err(bad(format!(
            "point {base} holds another snapshot than {identity}"
        ))
        .into());
    }
    held.push(scene.core.share(&found.manifest.name().to_string())?);
    Ok(family::guid(identity).ok_or_else(|| bad(format!("{identity} is no snapshot of ZFS")))?)
}

/// A stream being received.
struct Receiving {
    core: Arc<Core>,
    transfer: Transfer,
    file: PathBuf,
    /// 0: none.
    base: u64,
    /// Bytes that an earlier stream brought.
    begun_at: u64,
    /// What the next stream goes on from.
    token: Option<String>,
    /// The beginning of the stream, until there is enough of it to judge.
    first: Vec<u8>,
    hash: PrefixHash,
    running: Option<Program>,
    held: Vec<Use>,
    /// Keeps what it goes into from being tidied away.
    into_held: Option<Use>,
}

/// `zfs receive` at work. Its input is closed first: then it keeps what it has.
struct Program {
    input: Option<ChildStdin>,
    child: Running,
}

impl Receiving {
    fn bad(&self, why: String) -> anyhow::Error {
        FsError::BadStream {
            offset: self.hash.bytes(),
            command: "begin".to_owned(),
            why,
        }
        .into()
    }

    /// Judges the beginning and starts the program.
    fn begin(&mut self) -> Result<()> {
        let record: &[u8; header::BYTES] = self.first[..header::BYTES]
            .try_into()
            .context("take the beginning of the stream")?;
        let header = header::read(record).map_err(|why| self.bad(format!("it {why}")))?;
        let to = family::guid(self.transfer.identity.snapshot);
        if Some(header.to) != to || header.from != self.base {
            return Err(self.bad("it is of other snapshots than was offered".to_owned()));
        }
        if header.resuming != self.token.is_some() {
            return Err(self.bad("it does not go on from what is held here".to_owned()));
        }
        let core = self.core.clone();
        let _turn = core.turn();
        let scene = core.look()?;
        let arguments = self.arguments(&scene, header)?;
        let mut child = command::start(&arguments, Stdio::piped(), Stdio::null())?;
        let input = child.stdin.take();
        self.running = Some(Program {
            input,
            child: Running(child),
        });
        Ok(())
    }

    fn arguments(&mut self, scene: &Scene<'_>, header: Header) -> Result<Vec<String>> {
        let dataset = self.transfer.dataset.clone();
        let family = scene.family(&dataset)?;
        let short = snapshot_name(&self.transfer.manifest.name());
        let mut arguments: Vec<String> = ["receive", "-s", "-u"].map(str::to_owned).into();
        let resumed = self.token.as_ref().and(self.transfer.into.clone());
        let into = match resumed {
            Some(into) => into,
            None => {
                self.give_up_old(family)?;
                match continued(scene, &dataset, self.base, header)? {
                    Some(into) => into,
                    None => {
                        for property in ["canmount=noauto", "mountpoint=none", "readonly=on"] {
                            arguments.extend(["-o".to_owned(), property.to_owned()]);
                        }
                        if let Some(base) = family.by_guid(self.base) {
                            arguments.extend(["-o".to_owned(), format!("origin={}", base.name())]);
                        }
                        let store = &scene.part(&dataset)?.store;
                        store.new_holder(&self.core.role, &dataset, "in")?
                    }
                }
            }
        };
        let used = Used::Staging(self.core.role.clone(), into.clone());
        let busy = || FsError::Busy(format!("the dataset {into}"));
        self.into_held = Some(self.core.uses.alone(used).ok_or_else(busy)?);
        arguments.push(format!("{into}@{short}"));
        self.transfer.into = Some(into);
        store::write_file(&self.file, &self.transfer)?;
        Ok(arguments)
    }

    /// Gives up what an earlier, other stream left where this one would go.
    fn give_up_old(&mut self, family: &Family) -> Result<()> {
        if let Some(into) = self.transfer.into.take() {
            if family.tree(&into).is_some_and(|tree| tree.token.is_some()) {
                give_up(&into)?;
            }
        }
        Ok(())
    }

    /// Ends the program and says how it ended.
    fn end(&mut self) -> Result<Option<(bool, String)>> {
        let Some(mut program) = self.running.take() else {
            return Ok(None);
        };
        drop(program.input.take());
        program.child.end().map(Some)
    }

    /// The error for a program that ended too soon.
    fn failed(&mut self, said: &str) -> anyhow::Error {
        let refused = command::refused("zfs", &["receive"], said);
        let dataset = self.transfer.dataset.clone();
        let path = self.transfer.into.clone().unwrap_or_default();
        let error = explained(refused, dataset, path.clone(), self.core.limits.reserve);
        match error.downcast_ref() {
            Some(FsError::NoSpace { shortage, .. }) => {
                let (transfer, shortage) = (&self.transfer, *shortage);
                short_of_space(
                    error,
                    &transfer.dataset,
                    &transfer.manifest,
                    &path,
                    shortage,
                )
            }
            _ => error,
        }
    }
}

/// The holder that the stream goes on in: its newest snapshot is the base, and nothing else lays hands on it.
fn continued(
    scene: &Scene<'_>,
    dataset: &DatasetName,
    base: u64,
    header: Header,
) -> Result<Option<String>> {
    let family = scene.family(dataset)?;
    let Some(found) = family.by_guid(base) else {
        return Ok(None);
    };
    let Some(tree) = family.tree(&found.dataset) else {
        return Ok(None);
    };
    let is_live = tree.name == scene.core.place(dataset)?.zfs;
    let is_newest = family.newest(&tree.name) == Some(found);
    // Of a stream whose base lay elsewhere, the program makes a new dataset only.
    let wanted = !is_live && is_newest && !header.clone && !tree.mounted && tree.token.is_none();
    let inert = tree.settled
        || tree
            .name
            .rsplit('/')
            .next()
            .is_some_and(|name| name.starts_with("in-"));
    if !wanted || !inert {
        return Ok(None);
    }
    if take::written(&tree.name, &found.name())? != Some(0) {
        // Nobody writes here but the kernel (access times of the time when it was live, files that were deleted while open).
        // Where that is refused, as over a bookmark of a newer one that was lost, a new dataset does.
        if let Err(error) = zfs(&["rollback", &found.name()]) {
            tracing::debug!("{} is not gone on with: {error:#}", tree.name);
            return Ok(None);
        }
    }
    Ok(Some(tree.name.clone()))
}

/// Throws away what was received of a stream that does not come again.
pub fn give_up(into: &str) -> Result<()> {
    let given_up = zfs(&["receive", "-A", into]);
    match given_up.as_ref().err().and_then(trouble_of) {
        None | Some(Trouble::NoToken | Trouble::Missing) => Ok(()),
        Some(_) => given_up.map(|_| ()).map_err(|error| {
            let what = format!("give up what was received into {into}: {error}");
            Failure::new(Code::Failed, what)
                .hint(format!(
                    "zfs receive -A {into}; when that fails too: zfs destroy {into}/%recv"
                ))
                .into()
        }),
    }
}

/// Refuses what cannot fit.
fn expect_room(core: &Arc<Core>, receipt: &Receipt) -> Result<()> {
    let (dataset, needed) = (&receipt.dataset, receipt.data_bytes);
    let free = take::space(core, dataset)?.room;
    if free >= needed {
        return Ok(());
    }
    let shortage = Shortage {
        needed,
        free,
        reserve: core.limits.reserve,
    };
    let zfs = core.place(dataset)?.zfs.clone();
    let path = zfs.clone().into();
    let error = FsError::NoSpace { path, shortage };
    Err(short_of_space(
        error.into(),
        dataset,
        &receipt.manifest,
        &zfs,
        shortage,
    ))
}

/// What a person reads where a pool has too little room.
fn short_of_space(
    error: anyhow::Error,
    dataset: &DatasetName,
    manifest: &Manifest,
    zfs: &str,
    shortage: Shortage,
) -> anyhow::Error {
    let state = match shortage.free {
        0 => "is full",
        _ => "has too little space",
    };
    let what = format!(
        "store {dataset} of {}: {zfs} {state} ({shortage})",
        manifest.point
    );
    error.context(Failure::new(Code::NoSpace, what).hint(
        "free some space in its pool, remove old points (standin prune), or lower `reserve`; what was stored so far is kept, \
         and the transfer goes on by itself when there is room",
    ))
}

fn explained(refused: Refused, dataset: DatasetName, path: String, reserve: u64) -> anyhow::Error {
    let (trouble, why) = (refused.trouble, refused.said.clone());
    let error = anyhow::Error::new(refused);
    match trouble {
        Trouble::NoSpace => {
            let shortage = Shortage {
                reserve,
                ..Shortage::default()
            };
            let path = path.into();
            error.context(FsError::NoSpace { path, shortage })
        }
        Trouble::Modified | Trouble::Base => error.context(FsError::BadBase { dataset, why }),
        Trouble::Partial => error.context(FsError::ApplierEnded(why)),
        _ => error,
    }
}

impl Incoming for Receiving {
    fn standing(&self) -> Standing {
        let offset = self.hash.bytes();
        Standing {
            offset,
            data_bytes: self.begun_at + offset,
            checkpoint: 0,
            prefix: self.hash.value(),
            file: String::new(),
            token: self.token.clone().filter(|_| offset == 0),
        }
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        let mut rest = bytes;
        if self.running.is_none() {
            let missing = header::BYTES.saturating_sub(self.first.len());
            let (head, tail) = rest.split_at(missing.min(rest.len()));
            self.first.extend_from_slice(head);
            rest = tail;
            if self.first.len() < header::BYTES {
                self.hash.update(bytes);
                return Ok(());
            }
            self.begin()?;
        }
        let first = std::mem::take(&mut self.first);
        let input = self
            .running
            .as_mut()
            .and_then(|program| program.input.as_mut());
        let input = input.context("write to zfs receive, which was ended")?;
        let written = input.write_all(&first).and_then(|()| input.write_all(rest));
        if let Err(cause) = written {
            let said = self.end()?.map(|(_, said)| said).unwrap_or_default();
            return Err(match said.is_empty() {
                true => anyhow!(cause).context("write to zfs receive"),
                false => self.failed(&said),
            });
        }
        self.hash.update(bytes);
        Ok(())
    }

    /// Ends the program: what it has is kept by ZFS.
    fn checkpoint(&mut self) -> Result<()> {
        match self.end()? {
            Some((false, said)) if text::trouble(&said) != Trouble::Partial => {
                Err(self.failed(&said))
            }
            _ => Ok(()),
        }
    }

    fn restart(&mut self) -> Result<()> {
        self.end()?;
        if let Some(into) = &self.transfer.into {
            give_up(into)?;
        }
        self.into_held = None;
        self.transfer.into = None;
        store::write_file(&self.file, &self.transfer)?;
        (self.token, self.begun_at) = (None, 0);
        self.first.clear();
        self.hash = PrefixHash::default();
        Ok(())
    }

    fn finish(mut self: Box<Self>, bytes: u64, hash: &str) -> Result<LocalDataset> {
        if (bytes, hash) != (self.hash.bytes(), &*self.hash.value()) {
            self.end()?;
            return Err(self.bad("its length or hash is not what the sender says".to_owned()));
        }
        match self.end()? {
            Some((true, _)) => {}
            Some((false, said)) => return Err(self.failed(&said)),
            None => return Err(self.bad("it ended before it began".to_owned())),
        }
        let (core, transfer) = (self.core.clone(), &mut self.transfer);
        let scene = core.look()?;
        let (dataset, snapshot) = (transfer.dataset.clone(), transfer.identity.snapshot);
        let found = scene.snapshot(&dataset, snapshot)?;
        let into = transfer.into.as_deref().unwrap_or_default();
        if found.dataset != into {
            let why = format!("what was received into {into} is not what was offered");
            return Err(FsError::BadStream {
                offset: bytes,
                command: "end".to_owned(),
                why,
            }
            .into());
        }
        let local = LocalDataset {
            uuid: snapshot,
            ctransid: found.txg,
            stream_bytes: Some(bytes),
            data_bytes: Some(self.begun_at + bytes),
            stream_hash: Some(hash.to_owned()),
            ..LocalDataset::default()
        };
        transfer.done = Some(local.clone());
        // ZFS has it on disk when the program ends well.
        store::write_file(&self.file, &self.transfer)?;
        self.held.clear();
        Ok(local)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_told_apart() {
        let dataset = || DatasetName::parse("www").unwrap();
        let told = |said: &str| {
            let refused = command::refused("zfs", &["receive"], said);
            let error = explained(refused, dataset(), "t/in-1".to_owned(), 7);
            error.downcast_ref::<FsError>().cloned()
        };
        let space = told("cannot receive new filesystem stream: out of space\n");
        assert!(matches!(space, Some(FsError::NoSpace { .. })));
        let base = told(
            "cannot receive incremental stream: destination p2/H has been modified\nsince most recent snapshot\n",
        );
        assert!(matches!(base, Some(FsError::BadBase { .. })));
        let cut = told(
            "cannot receive new filesystem stream: checksum mismatch or incomplete stream.\nPartially received snapshot is saved.\n",
        );
        assert!(matches!(cut, Some(FsError::ApplierEnded(_))));
        assert_eq!(told("cannot receive: something new"), None);
    }
}
