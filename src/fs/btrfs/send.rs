//! The sending side: the stream itself. What it will carry is told by `measure`.
//!
//! The kernel writes a send stream into a descriptor for as long as one ioctl lasts, so a thread sits in that ioctl and the
//! stream is read from a pipe. Equal snapshots, base and version give equal bytes (as long as nobody deduplicates them):
//! for that reason the base is the only clone source, and both snapshots are checked against tampering first. Streams with file
//! data are filled (`fill`): the same bytes, sooner; where that gives up, the kernel's own stream goes on at the same byte.
//!
//! Promise: the points used stay in use, and so undestroyed, until the thread has ended; dropping the stream early ends the
//! thread first. Leaves nothing on disk.
//!
//! It deliberately does not know who reads.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;

use anyhow::{Context, anyhow};
use jiff::Timestamp;
use rustix::pipe::PipeFlags;

use super::catalogue::{Catalogue, Found};
use super::fill::{self, Doubts, Filling};
use super::place::SUBVOLUME_INODE;
use super::scan::Scanner;
use super::uses::{Use, Used};
use super::{flags, ioctl, unreadable};
use crate::error::{Code, Failure};
use crate::fs::{FsError, Outgoing, Result, outgoing};
use crate::logic::name::DatasetName;
use crate::logic::point::PointId;
use crate::logic::transfer::{FileFlags, StreamIdentity};

/// Newest stream version this program reads and asks for.
pub const VERSION_MAX: u32 = 2;

/// Size of the pipe, in bytes: the largest an unprivileged process may ask for by default (/proc/sys/fs/pipe-max-size).
const PIPE_BYTES: usize = 1 << 20;

/// Read size where the kernel's stream is only read over, in bytes.
const SKIP_BYTES: usize = 256 << 10;

/// Newest stream version the running kernel sends; 1 where it does not say (before Linux 6.0).
pub fn kernel_version() -> u32 {
    std::fs::read_to_string("/sys/fs/btrfs/features/send_stream_version")
        .ok()
        .and_then(|text| text.trim().parse().ok())
        .unwrap_or(1)
}

/// How a stream is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// Without file data.
    Bare,
    /// By the kernel alone.
    Kernel,
    /// The kernel's commands, and data that are read here: the same bytes as the kernel's.
    Filled,
}

/// Starts the stream of `point` on top of `base`.
pub fn send(
    catalogue: &Catalogue<'_>,
    dataset: &DatasetName,
    base: Option<&PointId>,
    point: &PointId,
    version: u32,
) -> Result<Box<dyn Outgoing>> {
    if !(1..=VERSION_MAX.min(kernel_version())).contains(&version) {
        let what = format!("this kernel does not send streams of version {version}");
        return Err(Failure::new(Code::Refused, what).into());
    }
    let job = Job::prepare(catalogue, dataset, base, point)?;
    let way = match catalogue.doubts.has(&job.label) {
        true => Way::Kernel,
        false => Way::Filled,
    };
    let kept = catalogue.spools.find(&job.key(version));
    Ok(Box::new(Stream::start(Arc::new(job), version, way, kept)?))
}

/// What makes `newer` out of `base`, without file data. `label` names it in errors.
pub fn difference(
    dataset: &DatasetName,
    label: String,
    base: Side,
    newer: Side,
) -> Result<Box<dyn Outgoing>> {
    let job = Job {
        dataset: dataset.clone(),
        label,
        doubts: Doubts::default(),
        point: newer,
        base: Some(base),
        since: None,
    };
    let version = kernel_version().clamp(1, VERSION_MAX);
    let stream = Stream::start(Arc::new(job), version, Way::Bare, None)?;
    Ok(Box::new(stream))
}

/// A snapshot that a stream is made from.
pub struct Side {
    dir: File,
    info: ioctl::Subvolume,
    _uses: Vec<Use>,
}

/// Everything a send needs, checked.
pub(super) struct Job {
    dataset: DatasetName,
    /// Names the stream in errors.
    pub label: String,
    doubts: Doubts,
    point: Side,
    base: Option<Side>,
    /// When the base was taken, in seconds since 1970.
    since: Option<i64>,
}

impl Job {
    pub fn prepare(
        catalogue: &Catalogue<'_>,
        dataset: &DatasetName,
        base: Option<&PointId>,
        point: &PointId,
    ) -> Result<Job> {
        let found = catalogue.find(point)?;
        let side = Side::open(catalogue, &found, dataset)?;
        if let Some(why) = tampered(&found, dataset, &side.info) {
            let what = format!("the snapshot of {dataset} in point {point} cannot be sent: {why}");
            return Err(Failure::new(Code::Refused, what)
                .hint("take a new point and send that; destroy this one")
                .into());
        }
        let (base, since) = match base {
            None => (None, None),
            Some(id) => {
                let (base, taken) = open_base(catalogue, dataset, id)?;
                (Some(base), Some(taken.as_second()))
            }
        };
        Ok(Job {
            doubts: catalogue.doubts.clone(),
            dataset: dataset.clone(),
            label: format!("{dataset} of {point}"),
            point: side,
            base,
            since,
        })
    }

    /// Which of the kernel's commands these are.
    pub fn key(&self, version: u32) -> fill::Key {
        let side = |side: &Side| (side.info.uuid, side.info.ctransid);
        fill::Key {
            snapshot: side(&self.point),
            base: self.base.as_ref().map(side),
            version,
        }
    }

    pub fn identity(&self, version: u32) -> StreamIdentity {
        let identity = |side: &Side| side.info.received_uuid.unwrap_or(side.info.uuid);
        StreamIdentity {
            snapshot: identity(&self.point),
            base: self.base.as_ref().map(identity),
            version,
        }
    }

    /// Those that the stream does not carry.
    pub fn flags(&self) -> Result<FileFlags> {
        let base = self.base.as_ref().map(|base| &base.dir);
        let found = flags::read(&self.point.dir, base)
            .with_context(|| format!("read the flags of files in {}", self.label))?;
        if found.left_out > 0 {
            let (label, files) = (&self.label, found.left_out);
            tracing::warn!(%label, files, "{}", flags::LEFT_OUT);
        }
        Ok(found.flags)
    }
}

fn open_base(
    catalogue: &Catalogue<'_>,
    dataset: &DatasetName,
    id: &PointId,
) -> Result<(Side, Timestamp)> {
    let bad = |why: String| FsError::BadBase {
        dataset: dataset.clone(),
        why,
    };
    let found = catalogue
        .find_if_any(id)?
        .filter(|found| found.stored.manifest.datasets.contains_key(dataset))
        .ok_or_else(|| bad(format!("point {id} is not here")))?;
    let side = Side::open(catalogue, &found, dataset)?;
    match tampered(&found, dataset, &side.info) {
        Some(why) => Err(bad(why).into()),
        None => Ok((side, found.stored.manifest.taken)),
    }
}

impl Side {
    pub fn open(catalogue: &Catalogue<'_>, found: &Found, dataset: &DatasetName) -> Result<Side> {
        let held = hold(catalogue, found, dataset)?;
        Side::at(&catalogue.snapshot_path(found, dataset)?, vec![held])
    }

    /// The snapshot at `path`, which `uses` keep there.
    pub fn at(path: &Path, uses: Vec<Use>) -> Result<Side> {
        let dir = File::open(path).with_context(|| format!("open {}", path.display()))?;
        debug_assert_eq!(
            std::os::unix::fs::MetadataExt::ino(&dir.metadata()?),
            SUBVOLUME_INODE
        );
        let info = ioctl::subvolume(&dir).with_context(|| format!("look at {}", path.display()))?;
        Ok(Side {
            dir,
            info,
            _uses: uses,
        })
    }
}

/// Keeps a point from being destroyed by this process.
pub fn hold(catalogue: &Catalogue<'_>, found: &Found, dataset: &DatasetName) -> Result<Use> {
    let (part, _) = catalogue.place(dataset)?;
    let used = Used::Point(catalogue.role.clone(), found.name.clone());
    part.top.uses.share(used).ok_or_else(|| {
        FsError::Busy(format!("point {}, which is being destroyed,", found.name)).into()
    })
}

/// Any change of a snapshot after it was stored raises its ctransid (a flip to writable and back does not hide it).
fn tampered(found: &Found, dataset: &DatasetName, info: &ioctl::Subvolume) -> Option<String> {
    let recorded = found.stored.local.datasets.get(dataset)?.ctransid;
    (info.ctransid != recorded).then(|| {
        format!(
            "it was changed after it was stored (transaction {recorded}, now {})",
            info.ctransid
        )
    })
}

/// A running send.
pub(super) struct Stream {
    job: Arc<Job>,
    version: u32,
    /// Closed before the thread is joined: that is what ends a send whose reader has had enough.
    coming: Coming,
    thread: Option<JoinHandle<io::Result<()>>>,
    /// Whether the kernel has written all.
    ended: Arc<fill::Ended>,
    /// Its commands, where an earlier pass was kept.
    kept: Option<fill::Commands>,
    scanner: Scanner,
    /// What was filled so far, in bytes, and its CRC32C: a kernel's stream that goes on must have begun with the same.
    filled: (u64, u32),
    /// A file that could not be read.
    unreadable: Option<io::Error>,
}

/// Where the bytes come from.
enum Coming {
    Nowhere,
    Pipe(File),
    Filling(Filling),
}

impl Stream {
    pub fn start(
        job: Arc<Job>,
        version: u32,
        way: Way,
        kept: Option<fill::Commands>,
    ) -> Result<Stream> {
        let mut stream = Stream {
            job,
            version,
            kept,
            ended: Arc::default(),
            coming: Coming::Nowhere,
            thread: None,
            scanner: Scanner::new(),
            filled: (0, 0),
            unreadable: None,
        };
        stream.begin(way)?;
        Ok(stream)
    }

    fn begin(&mut self, way: Way) -> io::Result<()> {
        self.ended = Arc::default();
        if let (Way::Filled, Some(kept)) = (way, &self.kept) {
            let commands = kept.reader();
            self.ended.ring();
            return self.fill(commands);
        }
        let (reader, writer) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
        // A smaller pipe is slower, nothing else.
        let _ = rustix::pipe::fcntl_setpipe_size(&writer, PIPE_BYTES);
        let flags = match way {
            Way::Kernel => 0,
            Way::Bare | Way::Filled => ioctl::SEND_NO_FILE_DATA,
        };
        let (job, version, rings) = (self.job.clone(), self.version, self.ended.clone());
        let thread = std::thread::Builder::new().name("btrfs-send".to_owned());
        self.thread = Some(thread.spawn(move || {
            let result = run(&job, &writer, version, flags);
            drop(writer);
            rings.ring();
            result
        })?);
        let pipe = File::from(reader);
        match way {
            Way::Bare | Way::Kernel => self.coming = Coming::Pipe(pipe),
            Way::Filled => self.fill(pipe)?,
        }
        Ok(())
    }

    fn fill(&mut self, commands: impl Read + Send + 'static) -> io::Result<()> {
        let base = self.job.base.as_ref().map(|base| base.dir.try_clone());
        let source = fill::Source {
            snapshot: self.job.point.dir.try_clone()?,
            root: self.job.point.info.id,
            base: base.transpose()?,
            version: self.version,
        };
        self.coming = Coming::Filling(Filling::start(commands, source, self.ended.clone())?);
        Ok(())
    }

    /// Waits for the end of the kernel's part, but no longer than its pipe may fill.
    pub fn pause(&self) {
        self.ended.pause(fill::PIPE_FILLS_LONG);
    }

    /// File data so far, in bytes.
    pub fn data_bytes(&self) -> u64 {
        self.scanner.data_bytes()
    }

    fn join(&mut self) -> io::Result<()> {
        self.coming = Coming::Nowhere;
        match self.thread.take().map(JoinHandle::join) {
            None => Ok(()),
            Some(Ok(result)) => result,
            Some(Err(_)) => Err(io::Error::other("the sending thread panicked")),
        }
    }

    /// Begins anew by the kernel alone, and goes on where filling gave up.
    fn leave_to_the_kernel(&mut self, why: &dyn std::fmt::Display) -> io::Result<()> {
        let label = &self.job.label;
        self.job.doubts.note(label);
        tracing::debug!(%label, "the kernel's own stream goes on, since {why}");
        // How it ended says nothing: its reader went away.
        let _ = self.join();
        self.begin(Way::Kernel)?;
        let Coming::Pipe(pipe) = &mut self.coming else {
            return Ok(());
        };
        let (mut left, mut sum) = (self.filled.0, 0);
        let mut buffer = vec![0; SKIP_BYTES];
        while left > 0 {
            let want = usize::try_from(left).map_or(SKIP_BYTES, |left| left.min(SKIP_BYTES));
            let got = pipe.read(&mut buffer[..want])?;
            if got == 0 {
                break;
            }
            sum = crc32c::crc32c_append(sum, &buffer[..got]);
            left -= got as u64;
        }
        match left == 0 && sum == self.filled.1 {
            true => Ok(()),
            // The next attempt is the kernel's from its beginning.
            false => Err(io::Error::other(
                "the kernel's stream is not the one that was begun",
            )),
        }
    }

    fn next(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let stop = match &mut self.coming {
                Coming::Nowhere => return Ok(0),
                Coming::Pipe(pipe) => return pipe.read(buffer),
                Coming::Filling(filling) => match filling.read(buffer) {
                    Ok(bytes) => {
                        self.note_filled(&buffer[..bytes]);
                        return Ok(bytes);
                    }
                    Err(stop) => stop,
                },
            };
            self.go_on_after(stop)?;
        }
    }

    fn note_filled(&mut self, bytes: &[u8]) {
        let sum = crc32c::crc32c_append(self.filled.1, bytes);
        self.filled = (self.filled.0 + bytes.len() as u64, sum);
    }

    /// Filling ended early.
    fn go_on_after(&mut self, stop: fill::Stop) -> io::Result<()> {
        match stop {
            fill::Stop::Pipe(error) => Err(error),
            fill::Stop::Trouble(fill::Trouble::Unreadable { error, .. }) => {
                self.unreadable = Some(error);
                self.coming = Coming::Nowhere;
                Ok(())
            }
            doubt => self.leave_to_the_kernel(&doubt),
        }
    }

    /// Whether the snapshots are what they were: a kept pass does not keep them from being written to, as a running one does.
    fn expect_untouched(&self) -> Result<()> {
        let mut untouched = true;
        for side in std::iter::once(&self.job.point).chain(&self.job.base) {
            let now = ioctl::subvolume(&side.dir).context("look at the snapshot")?;
            untouched &= now.ctransid == side.info.ctransid;
        }
        if untouched {
            return Ok(());
        }
        let what = format!(
            "send {}: its snapshot, or that of the base, was changed meanwhile",
            self.job.label
        );
        Err(Failure::new(Code::Refused, what)
            .hint("the next cycle tries again, and says which")
            .into())
    }
}

/// The thread's work. The pipe's write end is closed when it returns, whatever it returns.
fn run(job: &Job, writer: &OwnedFd, version: u32, flags: u64) -> io::Result<()> {
    ioctl::block_sigpipe();
    let parent = job.base.as_ref().map(|base| base.info.id);
    ioctl::send(
        job.point.dir.as_fd(),
        writer.as_fd(),
        parent,
        version,
        flags,
    )
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let bytes = self.next(buffer)?;
        self.scanner.push(&buffer[..bytes]);
        Ok(bytes)
    }
}

impl Outgoing for Stream {
    fn piece(&mut self, most: usize) -> io::Result<Vec<u8>> {
        while let Coming::Filling(filling) = &mut self.coming {
            match filling.piece(most) {
                Ok(piece) => {
                    self.note_filled(&piece);
                    self.scanner.push(&piece);
                    return Ok(piece);
                }
                Err(stop) => self.go_on_after(stop)?,
            }
        }
        outgoing::gathered(self, most)
    }

    fn finish(mut self: Box<Self>) -> Result<()> {
        let file = self.scanner.file();
        let joined = self.join();
        // Of a stream whose file could not be read, how the kernel's part ended says nothing.
        let ended = self.unreadable.take().map_or(joined, Err);
        let job = &self.job;
        ended
            .map_err(|error| match error.raw_os_error() {
                Some(libc::EIO) => {
                    let found = unreadable::find(&job.point.dir, &file, job.since);
                    cannot_be_read(&job.dataset, found, &file)
                }
                _ => explain(&job.dataset, &file, error),
            })
            .with_context(|| format!("send {}", job.label))?;
        match self.kept {
            Some(_) => self.expect_untouched(),
            None => Ok(()),
        }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        // Nobody asks how it ended any more.
        let _ = self.join();
    }
}

fn after(file: &str) -> String {
    if file.is_empty() {
        String::new()
    } else {
        format!(" at or after the file {file:?}")
    }
}

/// `found` was seen to fail; else `last` was the last file that did not.
fn cannot_be_read(dataset: &DatasetName, found: Option<String>, last: &str) -> anyhow::Error {
    let (place, remedy) = match &found {
        Some(file) => (
            format!(": {file:?} fails"),
            "put a good copy of it in place of the live file (standin restore has older ones), or remove it: the next point \
             is sent in place of this one",
        ),
        None => (after(last), "the kernel log names the file"),
    };
    let what = format!(
        "dataset {dataset} cannot be read{place}: the disk or its checksums gave an input/output error"
    );
    let failure = Failure::new(Code::Failed, what).hint(format!(
        "{remedy}; btrfs scrub start -B on the filesystem finds all damage"
    ));
    anyhow::Error::new(FsError::Unreadable {
        dataset: dataset.clone(),
        file: found,
    })
    .context(failure)
}

fn explain(dataset: &DatasetName, file: &str, error: io::Error) -> anyhow::Error {
    let after = after(file);
    match error.raw_os_error() {
        Some(libc::EAGAIN) => anyhow!(error).context(format!(
            "dataset {dataset} is being deduplicated, during which btrfs sends nothing; the next cycle tries again"
        )),
        Some(libc::EPERM) => Failure::new(
            Code::Refused,
            format!("the kernel does not let this process send dataset {dataset}"),
        )
        .hint("run the daemon as root with CAP_SYS_ADMIN, and leave the snapshots read-only")
        .into(),
        Some(libc::EPIPE) => anyhow!(error).context("the stream's reader went away"),
        _ => anyhow!(error).context(format!("the kernel ended the stream of {dataset}{after}")),
    }
}
