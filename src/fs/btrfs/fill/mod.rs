//! The stream of a snapshot, faster than the kernel makes it: its commands without file data, and the data read by our own
//! threads, several files at a time and in order. The kernel reads each file by itself and waits for it.
//!
//!     kernel ─ pipe ─ walk: commands, names ─ segments ─┬─ read ─┬─ in order ─ reader
//!                                                       ├─ read ─┤
//!                                                       └─ read ─┘
//!
//! Promise: the same snapshots always give the same bytes, and they are the kernel's but for truncates to the length that a file
//! has (the kernel tells it again or not by what holes it wrote last; tests/fill.rs compares them over random trees). On any
//! doubt whose a file is (`names`) it gives up, and the kernel's own stream goes on from there (`send`) if it began with the same
//! bytes; else the next attempt is the kernel's from the beginning. Files are opened by inode and generation, never by a path. At
//! most [`SEGMENTS_MAX`] segments are in memory. The commands may be those of an earlier pass, which were kept (`spool`).
//!
//! Leaves nothing on disk. Dropping it ends its threads.
//!
//! It deliberately does not know points, nor who reads.

mod names;
mod segment;
mod spool;

use std::collections::BTreeSet;
use std::io::{self, Read};
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use self::names::Names;
use self::segment::{Extent, Segment, write_bytes_max};
pub use self::segment::{Source, Trouble};
pub use self::spool::{Commands, Keeping, Key, Pass, Spools, held};
use super::stream::{Command, Parser, Piece};

/// Threads that read files: they wait for the disk, so there are more than processors.
const READERS: usize = 8;

/// Segments that are read or wait to be given, at most.
const SEGMENTS_MAX: usize = 32;

/// A segment is handed on with this many bytes.
const SEGMENT_BYTES: usize = 128 << 10;

/// A write that would make it longer begins another: a segment goes over the line as one frame (`Filling::piece`).
const SEGMENT_BYTES_MAX: usize = 192 << 10;

/// Commands read at a time, in bytes.
const WALK_BYTES: usize = 256 << 10;

/// The kernel wakes its reader for every command; a reader that lets the pipe fill for this long is woken less often.
const PIPE_FILLS_FOR: Duration = Duration::from_millis(2);

/// The same where nobody waits for the first of it.
pub const PIPE_FILLS_LONG: Duration = Duration::from_millis(5);

/// Whether the kernel has written all; rung when it has.
#[derive(Debug, Default)]
pub struct Ended {
    ended: Mutex<bool>,
    bell: Condvar,
}

impl Ended {
    pub fn ring(&self) {
        *self.ended.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.bell.notify_all();
    }

    /// Waits for the end, but no longer than the pipe may fill.
    pub fn pause(&self, most: Duration) {
        let ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.bell.wait_timeout_while(ended, most, |ended| !*ended);
        drop(waited);
    }
}

/// What could not be filled, by its label: the kernel alone makes it the next time.
#[derive(Debug, Clone, Default)]
pub struct Doubts(Arc<Mutex<BTreeSet<String>>>);

impl Doubts {
    pub fn note(&self, label: &str) {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(label.to_owned());
    }

    pub fn has(&self, label: &str) -> bool {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .contains(label)
    }
}

/// Why filling ended early.
#[derive(Debug, thiserror::Error)]
pub enum Stop {
    /// The kernel's stream must go on.
    #[error("it cannot be told whose file a path is: {0}")]
    Doubt(String),
    #[error(transparent)]
    Trouble(#[from] Trouble),
    #[error("read the kernel's commands: {0}")]
    Pipe(#[from] io::Error),
}

type Rendered = Result<Vec<u8>, Stop>;

/// A segment and where it goes.
type Order = (Segment, SyncSender<Rendered>);

/// A stream being filled.
#[derive(Debug)]
pub struct Filling {
    /// In order.
    coming: Option<Receiver<Receiver<Rendered>>>,
    now: Vec<u8>,
    given: usize,
    threads: Vec<JoinHandle<()>>,
}

impl Filling {
    /// `commands` is the kernel's stream without file data, of `source`'s version.
    pub fn start(
        commands: impl Read + Send + 'static,
        source: Source,
        ended: Arc<Ended>,
    ) -> io::Result<Filling> {
        let (queue, coming) = mpsc::sync_channel(SEGMENTS_MAX);
        let (orders, taken) = mpsc::sync_channel::<Order>(SEGMENTS_MAX);
        let taken = Arc::new(Mutex::new(taken));
        let source = Arc::new(source);
        let mut threads = Vec::new();
        for _ in 0..READERS {
            let (taken, source) = (taken.clone(), source.clone());
            let thread = std::thread::Builder::new().name("fill-read".to_owned());
            threads.push(thread.spawn(move || {
                // Who takes an order holds the lock while there is none: the others wait for the lock instead.
                let next = || taken.lock().unwrap_or_else(PoisonError::into_inner).recv();
                while let Ok((segment, to)) = next() {
                    // Nobody waits for it any more when the stream was dropped.
                    let _ = to.send(segment.render(&source).map_err(Stop::from));
                }
            })?);
        }
        let mut walk = Walk {
            names: Names::new(source.base.is_some()),
            version: source.version,
            segment: Segment::default(),
            queue,
            orders,
        };
        let thread = std::thread::Builder::new().name("fill-walk".to_owned());
        threads.push(thread.spawn(move || walk.all(commands, &ended))?);
        Ok(Filling {
            coming: Some(coming),
            now: Vec::new(),
            given: 0,
            threads,
        })
    }

    /// The next bytes; 0 at the end.
    pub fn read(&mut self, buffer: &mut [u8]) -> Result<usize, Stop> {
        self.come()?;
        let left = &self.now[self.given..];
        let bytes = left.len().min(buffer.len());
        buffer[..bytes].copy_from_slice(&left[..bytes]);
        self.given += bytes;
        Ok(bytes)
    }

    /// The same as they lie, `most` at most; none at the end.
    pub fn piece(&mut self, most: usize) -> Result<Vec<u8>, Stop> {
        self.come()?;
        let left = &self.now[self.given..];
        if self.given == 0 && left.len() <= most {
            return Ok(std::mem::take(&mut self.now));
        }
        let piece = left[..left.len().min(most)].to_vec();
        self.given += piece.len();
        Ok(piece)
    }

    /// Sees to it that there are bytes to give, unless it is the end.
    fn come(&mut self) -> Result<(), Stop> {
        while self.given == self.now.len() {
            let Some(next) = self.coming.as_ref().and_then(|coming| coming.recv().ok()) else {
                (self.now, self.given) = (Vec::new(), 0);
                return Ok(());
            };
            let gone = || io::Error::other("a reading thread panicked");
            self.now = next.recv().map_err(|_| gone())??;
            self.given = 0;
        }
        Ok(())
    }
}

impl Drop for Filling {
    fn drop(&mut self) {
        // Closed before the threads are joined: that is what ends them.
        self.coming = None;
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

/// The thread that reads the commands.
struct Walk {
    names: Names,
    version: u32,
    segment: Segment,
    queue: SyncSender<Receiver<Rendered>>,
    orders: SyncSender<Order>,
}

/// Nobody wants the stream any more.
struct Unwanted;

impl Walk {
    fn all(&mut self, commands: impl Read, ended: &Ended) {
        let walked = self.walk(commands, ended);
        let Ok(end) = walked else { return };
        let _ = self.hand_on();
        if let Err(stop) = end {
            let (to, rendered) = mpsc::sync_channel(1);
            let _ = to.send(Err(stop));
            let _ = self.queue.send(rendered);
        }
    }

    fn walk(
        &mut self,
        mut commands: impl Read,
        ended: &Ended,
    ) -> Result<Result<(), Stop>, Unwanted> {
        let mut parser = Parser::new();
        let mut buffer = vec![0; WALK_BYTES];
        loop {
            let got = match commands.read(&mut buffer) {
                Ok(0) => return Ok(Ok(())),
                Ok(got) => got,
                Err(error) => return Ok(Err(error.into())),
            };
            let mut left = &buffer[..got];
            while !left.is_empty() {
                let taken = match parser.next(left) {
                    Ok(taken) => taken,
                    Err(error) => return Ok(Err(Stop::Doubt(error.to_string()))),
                };
                left = &left[taken.used..];
                let Some(step) = taken.step else { continue };
                let taken_in = match step.piece {
                    Piece::Header { .. } => {
                        self.segment.plain(step.raw);
                        Ok(())
                    }
                    Piece::Command(command) => self.take_in(&command, step.raw)?,
                };
                if let Err(stop) = taken_in {
                    return Ok(Err(stop));
                }
            }
            if got < WALK_BYTES {
                // What is there goes on its way: nothing is held back to fill a segment.
                self.hand_on()?;
                ended.pause(PIPE_FILLS_FOR);
            }
        }
    }

    fn take_in(&mut self, command: &Command<'_>, raw: &[u8]) -> Result<Result<(), Stop>, Unwanted> {
        let Command::UpdateExtent { path, offset, len } = *command else {
            if let Err(names::TooMany) = self.names.follow(command) {
                return Ok(Err(Stop::Doubt("too many names change".to_owned())));
            }
            self.segment.plain(raw);
            return self.hand_on_if_full().map(Ok);
        };
        let Some(whose) = self.names.whose(path) else {
            let path = String::from_utf8_lossy(path).into_owned();
            return Ok(Err(Stop::Doubt(path)));
        };
        let path: Arc<[u8]> = path.into();
        let most = write_bytes_max(self.version);
        let mut done = 0;
        while done < len {
            let bytes = most.min(len - done);
            if self.segment.bytes + bytes as usize > SEGMENT_BYTES_MAX {
                self.hand_on()?;
            }
            self.segment.extent(Extent {
                whose: whose.clone(),
                path: path.clone(),
                offset: offset + done,
                bytes,
            });
            done += bytes;
            self.hand_on_if_full()?;
        }
        Ok(Ok(()))
    }

    fn hand_on_if_full(&mut self) -> Result<(), Unwanted> {
        match self.segment.bytes >= SEGMENT_BYTES {
            true => self.hand_on(),
            false => Ok(()),
        }
    }

    fn hand_on(&mut self) -> Result<(), Unwanted> {
        let segment = std::mem::take(&mut self.segment);
        if segment.parts.is_empty() {
            return Ok(());
        }
        let (to, rendered) = mpsc::sync_channel(1);
        self.queue.send(rendered).map_err(|_| Unwanted)?;
        self.orders.send((segment, to)).map_err(|_| Unwanted)
    }
}
