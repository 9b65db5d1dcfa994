//! Reads every file of a tree, to see that it can be read.
//!
//! Promise: reads and nothing else; no symbolic link is followed, no device or pipe opened for long. What was read is dropped
//! from the page cache again, which belongs to the machine's own services. It ends at its limits and says so.
//!
//! It deliberately does not know what the files are for, nor who verifies what the disk gives: btrfs compares checksums.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::fs::{Advice, OFlags};

/// Bytes asked for at once.
const CHUNK_BYTES: usize = 1 << 20;

/// Where reading ends, though not everything was read.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    pub bytes: u64,
    pub time: Duration,
}

/// What was read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// Plain files read to their ends.
    pub files: u64,
    pub bytes: u64,
    /// A limit came first.
    pub cut: bool,
}

/// Reads all files below `root` in the order of the directories; `stop` is asked often. An error names the file.
pub fn every_file(root: &Path, limits: Limits, stop: &dyn Fn() -> bool) -> Result<Tally> {
    let mut reading = Reading {
        tally: Tally::default(),
        limits,
        end: Instant::now() + limits.time,
        stop,
        chunk: vec![0; CHUNK_BYTES],
    };
    let mut left = vec![root.to_owned()];
    while let Some(dir) = left.pop() {
        if !reading.directory(&dir, &mut left)? {
            break;
        }
    }
    Ok(reading.tally)
}

struct Reading<'a> {
    tally: Tally,
    limits: Limits,
    end: Instant,
    stop: &'a dyn Fn() -> bool,
    chunk: Vec<u8>,
}

impl Reading<'_> {
    /// False where a limit was reached.
    fn directory(&mut self, dir: &Path, left: &mut Vec<PathBuf>) -> Result<bool> {
        let entries = std::fs::read_dir(dir).with_context(|| format!("list {}", dir.display()))?;
        for entry in entries {
            let entry = entry.with_context(|| format!("list {}", dir.display()))?;
            let path = entry.path();
            let kind = entry.file_type();
            let kind = kind.with_context(|| format!("look at {}", path.display()))?;
            if kind.is_dir() {
                left.push(path);
            } else if kind.is_file() {
                let whole = self.file(&path);
                if !whole.with_context(|| format!("read {}", path.display()))? {
                    return Ok(false);
                }
            }
            if self.over() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn file(&mut self, path: &Path) -> std::io::Result<bool> {
        let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY;
        let flags = i32::try_from(flags.bits()).unwrap_or_default();
        let mut file: File = OpenOptions::new()
            .read(true)
            .custom_flags(flags)
            .open(path)?;
        // Advice: without it the reading is as good.
        let _ = rustix::fs::fadvise(&file, 0, None, Advice::Sequential);
        loop {
            if self.over() {
                return Ok(false);
            }
            match file.read(&mut self.chunk) {
                Ok(0) => break,
                Ok(bytes) => self.tally.bytes += bytes as u64,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        let _ = rustix::fs::fadvise(&file, 0, None, Advice::DontNeed);
        self.tally.files += 1;
        Ok(true)
    }

    fn over(&mut self) -> bool {
        let Limits { bytes, .. } = self.limits;
        self.tally.cut |= self.tally.bytes >= bytes || Instant::now() >= self.end || (self.stop)();
        self.tally.cut
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NO_LIMIT: Limits = Limits {
        bytes: u64::MAX,
        time: Duration::from_secs(3600),
    };

    fn check(limits: Limits, stop: bool, expected: Tally) {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("a/b")).unwrap();
        std::fs::write(dir.path().join("a/b/x"), vec![1; CHUNK_BYTES + 5]).unwrap();
        std::fs::write(dir.path().join("a/y"), b"12345").unwrap();
        std::os::unix::fs::symlink("/etc/passwd", dir.path().join("l")).unwrap();
        let read = every_file(dir.path(), limits, &|| stop).unwrap();
        assert_eq!(read, expected, "{limits:?}");
    }

    #[test]
    fn all_of_it_or_as_much_as_may_be() {
        let all = Tally {
            files: 2,
            bytes: CHUNK_BYTES as u64 + 10,
            cut: false,
        };
        check(NO_LIMIT, false, all);
        let nothing = Tally {
            cut: true,
            ..Tally::default()
        };
        check(NO_LIMIT, true, nothing);
        let time = Duration::ZERO;
        check(Limits { time, ..NO_LIMIT }, false, nothing);
        let first = Tally {
            files: 0,
            bytes: 5,
            cut: true,
        };
        check(
            Limits {
                bytes: 5,
                ..NO_LIMIT
            },
            false,
            first,
        );
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        let missing = Path::new("/nonexistent/of/a/drill");
        let error = every_file(missing, NO_LIMIT, &|| false).unwrap_err();
        assert!(format!("{error:#}").contains("/nonexistent/of/a/drill"));
    }
}
