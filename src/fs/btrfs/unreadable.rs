//! Finds the file that a failed send could not read: the kernel ends a stream with EIO and tells only its log where.
//!
//! The kernel goes through the inodes in order, and sends what it reads at once: the culprit is the file written last, or one
//! with a higher inode number that changed since the base. Candidates are read, the likely ones first, until one fails.
//!
//! Promise: what is named was seen to fail; reads only; ends after [`LOOK_MAX`] whatever the tree is like. Finding nothing
//! means nothing.

use std::fs::{DirEntry, File, Metadata};
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{Mode, OFlags, ResolveFlags};

use super::top::fd_path;

/// How long one search may take.
const LOOK_MAX: Duration = Duration::from_secs(20);

/// Most files kept in mind.
const FILES_MAX: usize = 200_000;

/// Read at a time.
const PIECE_BYTES: usize = 1 << 20;

/// The path, inside the snapshot open as `dir`, of a file or directory that cannot be read. `hint` is the file written
/// last; `since`, in seconds since 1970, when the base was taken.
pub fn find(dir: &File, hint: &str, since: Option<i64>) -> Option<String> {
    let until = Instant::now() + LOOK_MAX;
    let mut last_inode = 0;
    if !hint.is_empty() {
        if let Ok(file) = open(dir, Path::new(hint)) {
            last_inode = file.metadata().map_or(0, |found| found.ino());
            if is_eio(&read_whole(&file, until)) {
                return Some(hint.to_owned());
            }
        }
    }
    let mut files = match candidates(dir, last_inode, since, until) {
        Ok(files) => files,
        Err(directory) => return Some(directory.display().to_string()),
    };
    files.sort();
    files.into_iter().find_map(|candidate| {
        let failed = open(dir, &candidate.path).and_then(|file| read_whole(&file, until));
        is_eio(&failed).then(|| candidate.path.display().to_string())
    })
}

/// In the order in which they are read.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Candidate {
    unlikely: bool,
    inode: u64,
    path: PathBuf,
}

/// Files behind the last one in the kernel's order; an error is a directory that cannot be read.
fn candidates(
    dir: &File,
    last_inode: u64,
    since: Option<i64>,
    until: Instant,
) -> Result<Vec<Candidate>, PathBuf> {
    let top = fd_path(dir);
    let mut files = Vec::new();
    let mut waiting = vec![PathBuf::new()];
    while let Some(inside) = waiting.pop() {
        if Instant::now() > until || files.len() >= FILES_MAX {
            break;
        }
        let listed: io::Result<Vec<(DirEntry, Metadata)>> = std::fs::read_dir(top.join(&inside))
            .and_then(|entries| {
                entries
                    .map(|entry| entry.and_then(|entry| Ok((entry.metadata()?, entry))))
                    .map(|found| found.map(|(facts, entry)| (entry, facts)))
                    .collect()
            });
        if is_eio(&listed) {
            return Err(inside);
        }
        for (entry, facts) in listed.unwrap_or_default() {
            let path = inside.join(entry.file_name());
            if facts.is_dir() {
                waiting.push(path);
            } else if facts.is_file() && facts.ino() > last_inode {
                files.push(Candidate {
                    unlikely: since.is_some_and(|since| facts.ctime() < since),
                    inode: facts.ino(),
                    path,
                });
            }
        }
    }
    Ok(files)
}

fn open(dir: &File, path: &Path) -> io::Result<File> {
    let opened = rustix::fs::openat2(
        dir.as_fd(),
        path,
        OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC,
        Mode::empty(),
        ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV,
    )?;
    Ok(File::from(opened))
}

fn read_whole(mut file: &File, until: Instant) -> io::Result<()> {
    let mut piece = vec![0; PIECE_BYTES];
    while Instant::now() < until && file.read(&mut piece)? > 0 {}
    Ok(())
}

fn is_eio<T>(outcome: &io::Result<T>) -> bool {
    outcome
        .as_ref()
        .is_err_and(|error| error.raw_os_error() == Some(libc::EIO))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_named_where_all_can_be_read() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("d")).unwrap();
        std::fs::write(dir.path().join("d/f"), [1; 100]).unwrap();
        let top = File::open(dir.path()).unwrap();
        for hint in ["", "d/f", "gone", "../x"] {
            assert_eq!(find(&top, hint, None), None, "{hint}");
        }
        let found = candidates(&top, 0, Some(i64::MAX), Instant::now() + LOOK_MAX);
        let found: Vec<(PathBuf, bool)> = found
            .ok()
            .unwrap()
            .into_iter()
            .map(|one| (one.path, one.unlikely))
            .collect();
        assert_eq!(found, [(PathBuf::from("d/f"), true)]);
    }
}
