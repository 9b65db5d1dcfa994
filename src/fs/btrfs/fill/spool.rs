//! The kernel's commands of a stream, kept from the pass that measured it until they are filled: that pass is as long as a
//! good part of the transfer, and is made once for all peers that get the same point on top of the same base.
//!
//! Promise: what is kept is the whole pass of these very snapshots, of this stream version, or nothing. It takes
//! [`MEMORY_BYTES`] of memory at most, and beyond that a nameless file of [`FILE_BYTES_MAX`] at most; what is larger, or cannot be
//! written, is not kept, and the pass is made once more. It is gone when the last that was measured with it is.
//!
//! A crash leaves nothing: the file never had a name.
//!
//! It deliberately does not know what the commands say.

use std::any::Any;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use rustix::fs::{Mode, OFlags};
use uuid::Uuid;

/// What is kept in memory of one stream, in bytes.
const MEMORY_BYTES: usize = 4 << 20;

/// Longest file, in bytes: the commands of about half a million new files.
const FILE_BYTES_MAX: u64 = 256 << 20;

/// Which commands: snapshot and base, each with its last change, and the version of the stream.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    pub snapshot: (Uuid, u64),
    pub base: Option<(Uuid, u64)>,
    pub version: u32,
}

/// What is kept by the streams of a role.
#[derive(Debug, Default)]
pub struct Spools {
    /// Where files go; none: nothing beyond memory is kept.
    dir: Option<PathBuf>,
    spools: Mutex<BTreeMap<Key, Weak<Spool>>>,
}

/// The commands of one stream, once there was a pass.
#[derive(Debug, Default)]
pub struct Spool(Mutex<Option<Pass>>);

/// What a pass said.
#[derive(Debug, Clone)]
pub struct Pass {
    /// File data of the stream, in bytes.
    pub data_bytes: u64,
    /// None where they were too many.
    pub commands: Option<Commands>,
}

/// Whole commands, to be read any number of times.
#[derive(Debug, Clone)]
pub struct Commands(Arc<Kept>);

#[derive(Debug)]
struct Kept {
    memory: Vec<u8>,
    /// What did not fit.
    file: Option<File>,
}

impl Spools {
    pub fn new(dir: PathBuf) -> Spools {
        Spools {
            dir: Some(dir),
            ..Spools::default()
        }
    }

    /// The one of these commands, which is gone when nobody holds it any more.
    pub fn of(&self, key: Key) -> Arc<Spool> {
        let mut spools = self.lock();
        spools.retain(|_, spool| spool.strong_count() > 0);
        if let Some(spool) = spools.get(&key).and_then(Weak::upgrade) {
            return spool;
        }
        let spool = Arc::new(Spool::default());
        spools.insert(key, Arc::downgrade(&spool));
        spool
    }

    /// The commands, if they are kept.
    pub fn find(&self, key: &Key) -> Option<Commands> {
        let spool = self.lock().get(key)?.upgrade()?;
        let pass = spool.lock().clone();
        pass?.commands
    }

    /// For a pass that begins.
    pub fn begin(&self) -> Keeping<'_> {
        Keeping {
            dir: self.dir.as_deref(),
            memory: Some(Vec::new()),
            file: None,
            of_file: 0,
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Key, Weak<Spool>>> {
        self.spools.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Spool {
    /// What the pass said: one that is going on is waited for, where there was none yet it is made now. Gives the length of the
    /// file data.
    pub fn passed<E>(&self, make: impl FnOnce() -> Result<Pass, E>) -> Result<u64, E> {
        let mut pass = self.lock();
        let pass = match &mut *pass {
            Some(pass) => pass,
            none => none.insert(make()?),
        };
        Ok(pass.data_bytes)
    }

    fn lock(&self) -> MutexGuard<'_, Option<Pass>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Holds what a pass says, for whoever was told how long the stream will be.
pub fn held(spool: Arc<Spool>) -> Arc<dyn Any + Send + Sync> {
    spool
}

/// Takes the commands of a pass as they come.
#[derive(Debug)]
pub struct Keeping<'a> {
    dir: Option<&'a Path>,
    /// None: too much, or not to be kept.
    memory: Option<Vec<u8>>,
    file: Option<File>,
    of_file: u64,
}

impl Keeping<'_> {
    pub fn push(&mut self, bytes: &[u8]) {
        let Some(memory) = &mut self.memory else {
            return;
        };
        let into_memory = match self.file {
            None => bytes.len().min(MEMORY_BYTES - memory.len()),
            Some(_) => 0,
        };
        memory.extend_from_slice(&bytes[..into_memory]);
        let rest = &bytes[into_memory..];
        if rest.is_empty() {
            return;
        }
        if let Err(error) = self.write(rest) {
            tracing::debug!("the commands of a stream are not kept: {error}");
            (self.memory, self.file) = (None, None);
        }
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.of_file += bytes.len() as u64;
        if self.of_file > FILE_BYTES_MAX {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        let file = match &mut self.file {
            Some(file) => file,
            none => {
                let dir = self.dir.ok_or(io::ErrorKind::NotFound)?;
                let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
                let mode = Mode::RUSR | Mode::WUSR;
                none.insert(File::from(rustix::fs::open(dir, flags, mode)?))
            }
        };
        file.write_all(bytes)
    }

    /// All of it, after the end of the pass.
    pub fn end(self) -> Option<Commands> {
        let file = self.file;
        self.memory
            .map(|memory| Commands(Arc::new(Kept { memory, file })))
    }
}

impl Commands {
    pub fn reader(&self) -> impl Read + Send + use<> {
        Reader {
            kept: self.0.clone(),
            at: 0,
        }
    }
}

#[derive(Debug)]
struct Reader {
    kept: Arc<Kept>,
    at: u64,
}

impl Read for Reader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let memory = &self.kept.memory;
        let in_memory = usize::try_from(self.at)
            .ok()
            .and_then(|at| memory.get(at..))
            .unwrap_or_default();
        let got = match (&self.kept.file, in_memory.len()) {
            (Some(file), 0) => file.read_at(buffer, self.at - memory.len() as u64)?,
            (_, left) => {
                let got = left.min(buffer.len());
                buffer[..got].copy_from_slice(&in_memory[..got]);
                got
            }
        };
        self.at += got as u64;
        Ok(got)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Pushes so many bytes in pieces; what is read again, twice.
    fn check(spools: &Spools, bytes: usize, piece: usize, kept: bool) {
        let whole: Vec<u8> = (0..bytes).map(|at| (at / 7 % 251) as u8).collect();
        let mut keeping = spools.begin();
        for part in whole.chunks(piece) {
            keeping.push(part);
        }
        let commands = keeping.end();
        assert_eq!(commands.is_some(), kept, "{bytes} in pieces of {piece}");
        for _ in 0..2 {
            let Some(commands) = &commands else { return };
            let mut read = Vec::new();
            commands.reader().read_to_end(&mut read).unwrap();
            assert!(read == whole, "{bytes} in pieces of {piece}");
        }
    }

    #[test]
    fn what_is_kept_is_read_again() {
        let dir = tempfile::tempdir().unwrap();
        let (with, without) = (Spools::new(dir.path().to_owned()), Spools::default());
        for spools in [&with, &without] {
            check(spools, 0, 1, true);
            check(spools, 1000, 7, true);
            check(spools, MEMORY_BYTES, 256 << 10, true);
        }
        check(&without, MEMORY_BYTES + 1, 256 << 10, false);
        check(&with, MEMORY_BYTES + 1, 256 << 10, true);
        check(&with, 3 * MEMORY_BYTES, 100_001, true);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
        let gone = Spools::new(dir.path().join("gone"));
        check(&gone, MEMORY_BYTES + 1, 256 << 10, false);
    }

    #[test]
    fn too_much_is_not_kept() {
        let dir = tempfile::tempdir().unwrap();
        let spools = Spools::new(dir.path().to_owned());
        let mut keeping = spools.begin();
        let piece = vec![0; 16 << 20];
        for _ in 0..=FILE_BYTES_MAX / piece.len() as u64 {
            keeping.push(&piece);
        }
        assert!(keeping.end().is_none());
    }

    #[test]
    fn one_pass_for_all_who_hold_it() {
        let spools = Spools::default();
        let key = |change| Key {
            snapshot: (Uuid::from_u128(1), change),
            base: None,
            version: 2,
        };
        let pass = |data_bytes: u64| {
            let mut keeping = spools.begin();
            keeping.push(b"commands");
            Ok::<_, io::Error>(Pass {
                data_bytes,
                commands: keeping.end(),
            })
        };
        let one = spools.of(key(1));
        assert!(spools.find(&key(1)).is_none(), "there was no pass");
        let failed = one.passed(|| Err::<Pass, _>(io::Error::other("no")));
        assert!(failed.is_err());
        assert_eq!(one.passed(|| pass(5)).unwrap(), 5);
        let other = spools.of(key(1));
        assert_eq!(other.passed(|| pass(6)).unwrap(), 5, "it is made once");
        assert!(spools.find(&key(1)).is_some());
        assert!(spools.find(&key(2)).is_none(), "it was changed since");
        drop((one, held(other)));
        assert!(spools.find(&key(1)).is_none(), "nobody holds it");
    }
}
