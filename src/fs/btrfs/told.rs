//! How an error leaves this layer: with a published code where a cause has one, and in paths that people know.
//!
//! The work goes through a private mount, so paths are `/proc/self/fd/N/...` all the way up, and what the kernel says is an
//! errno at the bottom of a chain. Both are put right here, once, at the way out.
//!
//! Promise: an `FsError` or `Failure` in a chain is still found in it by `downcast_ref`; nothing is dropped but other types.
//!
//! It deliberately does not know what any operation does.

use std::io;
use std::sync::Arc;

use anyhow::anyhow;
use rustix::io::Errno;

use super::room::Gauge;
use super::top::{self, Top};
use crate::error::{Code, Failure};
use crate::fs::{FsError, Result};
use crate::logic::shortage::Shortage;

const READ_ONLY_HINT: &str = "remount it read-write (mount -o remount,rw); if nobody made it read-only, dmesg tells why it went, and only a fresh mount (umount, then mount) makes it writable";

/// What is being done, to whom it is told.
#[derive(Debug, Clone)]
pub struct Doing {
    /// `store web of 1.42`.
    pub what: String,
    /// The filesystems it is done on.
    pub tops: Vec<Arc<Top>>,
    /// Bytes never used.
    pub reserve: u64,
}

impl Doing {
    /// Adds the `Failure` that a lack of space or a read-only filesystem calls for.
    pub fn explain(&self, error: anyhow::Error) -> anyhow::Error {
        if Failure::of(&error).is_some() {
            return error;
        }
        let short = match error.downcast_ref() {
            Some(FsError::NoSpace { shortage, .. }) => Some(*shortage),
            _ => None,
        };
        match errno(&error) {
            _ if short.is_some() => {
                let failure = self.no_space(short);
                over_all(error, failure)
            }
            Some(libc::ENOSPC | libc::EDQUOT) => {
                let failure = self.no_space(None);
                // A caller tells it apart, wherever it came from.
                over_all(error.context(self.space_error()), failure)
            }
            Some(libc::EROFS) => {
                let top = self.tops.iter().find(|top| top.is_read_only());
                over_all(error, top.map(|top| read_only(&self.what, top)))
            }
            Some(libc::EIO) => {
                let failure = match self.tops.as_slice() {
                    [top] => Some(failed(&self.what, top)),
                    _ => None,
                };
                over_all(error, failure)
            }
            _ => error,
        }
    }

    /// Refuses when a filesystem is read-only.
    pub fn expect_writable(&self) -> Result<()> {
        match self.tops.iter().find(|top| top.is_read_only()) {
            Some(top) => Err(read_only(&self.what, top).into()),
            None => Ok(()),
        }
    }

    /// Refuses when nothing is free above the reserve. `needed` bytes are to come.
    pub fn expect_room(&self, needed: u64) -> Result<()> {
        match self.fullest() {
            Some((top, 0)) => Err(FsError::NoSpace {
                path: top.path().to_owned(),
                shortage: Shortage {
                    needed,
                    free: 0,
                    reserve: self.reserve,
                },
            }
            .into()),
            _ => Ok(()),
        }
    }

    /// The filesystem with the least space, and how many bytes are free above the reserve.
    fn fullest(&self) -> Option<(&Arc<Top>, u64)> {
        let free = |top: &Arc<Top>| Gauge::new(top.dir(), self.reserve).free(top.path(), 0);
        self.tops
            .iter()
            .filter_map(|top| Some((top, free(top).ok()?)))
            .min_by_key(|(_, free)| *free)
    }

    fn no_space(&self, shortage: Option<Shortage>) -> Option<Failure> {
        let (top, free) = self.fullest()?;
        let shown = top.shown(top.path());
        let what = match shortage {
            Some(shortage) if shortage.needed > 0 && shortage.free > 0 => {
                format!("{}: {shown} has too little space ({shortage})", self.what)
            }
            _ => {
                let state = match free {
                    0 => "is full",
                    _ => "has too little space",
                };
                let shortage = Shortage {
                    needed: shortage.map_or(0, |shortage| shortage.needed),
                    free,
                    reserve: self.reserve,
                };
                format!("{}: {shown} {state} ({shortage})", self.what)
            }
        };
        Some(Failure::new(Code::NoSpace, what).hint(
            "free some space on it, remove old points (standin prune), or lower `reserve`; what was stored so far is \
             kept, and the transfer goes on by itself when there is room",
        ))
    }

    fn space_error(&self) -> FsError {
        let (path, free) = match self.fullest() {
            Some((top, free)) => (top.path().to_owned(), free),
            None => Default::default(),
        };
        FsError::NoSpace {
            path,
            shortage: Shortage {
                needed: 0,
                free,
                reserve: self.reserve,
            },
        }
    }
}

fn over_all(error: anyhow::Error, failure: Option<Failure>) -> anyhow::Error {
    match failure {
        Some(failure) => error.context(failure),
        None => error,
    }
}

fn read_only(what: &str, top: &Top) -> Failure {
    let shown = top.shown(top.path());
    let what = format!("{what}: {shown}: the filesystem is mounted read-only");
    Failure::new(Code::Failed, what).hint(READ_ONLY_HINT)
}

fn failed(what: &str, top: &Top) -> Failure {
    let shown = top.shown(top.path());
    let what = format!("{what}: {shown}: the disk gave an input/output error");
    Failure::new(Code::Failed, what).hint(
        "dmesg tells which device; mend it, and where the kernel made the filesystem read-only, unmount it and mount it anew: \
         the work goes on by itself from the last checkpoint",
    )
}

/// What the kernel said, in whichever library's words.
fn errno(error: &anyhow::Error) -> Option<i32> {
    error.chain().find_map(|cause| {
        let io = cause.downcast_ref::<io::Error>();
        let rustix = cause.downcast_ref::<Errno>();
        let btrfs = cause.downcast_ref::<libbtrfsutil::Error>();
        io.and_then(io::Error::raw_os_error)
            .or(rustix.map(|errno| errno.raw_os_error()))
            .or(btrfs.map(libbtrfsutil::Error::errno))
    })
}

/// Spells every private path in the chain as people know it.
pub fn plain(error: anyhow::Error) -> anyhow::Error {
    let words: Vec<String> = error.chain().map(ToString::to_string).collect();
    if words.iter().all(|word| top::plain(word) == *word) {
        return error;
    }
    let failure = Failure::of(&error).cloned();
    let kind = error.downcast_ref::<FsError>().cloned();
    let mut plain: Option<anyhow::Error> = None;
    for word in words.iter().rev() {
        // Only text can be put right: the two types that callers look for are found again by their words.
        plain = Some(match (&failure, &kind) {
            (Some(failure), _) if failure.what == *word => over(plain, plain_failure(failure)),
            (_, Some(kind)) if kind.to_string() == *word => over(plain, plain_kind(kind)),
            _ => match plain {
                Some(cause) => cause.context(top::plain(word)),
                None => anyhow!(top::plain(word)),
            },
        });
    }
    plain.unwrap_or(error)
}

fn over<E>(cause: Option<anyhow::Error>, error: E) -> anyhow::Error
where
    E: std::error::Error + Send + Sync + 'static,
{
    match cause {
        Some(cause) => cause.context(error),
        None => error.into(),
    }
}

fn plain_failure(failure: &Failure) -> Failure {
    Failure {
        code: failure.code,
        what: top::plain(&failure.what),
        hint: failure.hint.as_deref().map(top::plain),
    }
}

fn plain_kind(kind: &FsError) -> FsError {
    match kind {
        FsError::Busy(what) => FsError::Busy(top::plain(what)),
        FsError::Missing(what) => FsError::Missing(top::plain(what)),
        FsError::NoSpace { path, shortage } => FsError::NoSpace {
            path: top::plain(&path.display().to_string()).into(),
            shortage: *shortage,
        },
        FsError::BadBase { dataset, why } => FsError::BadBase {
            dataset: dataset.clone(),
            why: top::plain(why),
        },
        FsError::BadStream { .. }
        | FsError::ApplierEnded(_)
        | FsError::OtherFilesystem(_)
        | FsError::Unreadable { .. } => kind.clone(),
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::path::Path;

    use anyhow::Context;

    use super::top::fixture::{Loop, ready, run};
    use super::*;

    fn failed(top: &Top, errno: i32) -> anyhow::Error {
        let path = top.path().join(".standin/x");
        let failed: io::Result<()> = Err(io::Error::from_raw_os_error(errno));
        let failed = failed.with_context(|| format!("write {}", path.display()));
        failed.context("take it down").unwrap_err()
    }

    #[test]
    fn errors_leave_with_a_code_and_in_paths_people_know() {
        if !ready("errors_leave_with_a_code_and_in_paths_people_know") {
            return;
        }
        let disk = Loop::new(256 << 20);
        let mounted = disk.path().canonicalize().unwrap();
        let shown = mounted.display().to_string();
        let dir = File::open(&mounted).unwrap();
        let top = Top::holding(&mounted, &dir).unwrap();
        let doing = Doing {
            what: "store web of 1.2".to_owned(),
            tops: vec![top.clone()],
            reserve: 1 << 60,
        };
        for errno in [libc::ENOSPC, libc::EDQUOT] {
            let error = plain(doing.explain(failed(&top, errno)));
            assert_eq!(Failure::code_of(&error), Code::NoSpace);
            let Some(FsError::NoSpace { path, .. }) = error.downcast_ref() else {
                panic!("{error:#}");
            };
            assert_eq!(*path, mounted);
            let text = format!("{error:#}");
            assert!(text.starts_with(&format!("store web of 1.2: {shown} is full (")));
            assert!(
                text.contains(&format!("write {shown}/.standin/x: ")),
                "{text}"
            );
        }
        let early = plain(doing.explain(doing.expect_room(0).unwrap_err()));
        assert_eq!(Failure::code_of(&early), Code::NoSpace);

        // Nothing to say when only a snapshot is read-only.
        let error = doing.explain(failed(&top, libc::EROFS));
        assert!(Failure::of(&error).is_none());
        doing.expect_writable().unwrap();
        run("mount", ["-o", "remount,ro", shown.as_str()]);
        let error = plain(doing.explain(failed(&top, libc::EROFS)));
        let refused = doing.expect_writable().is_err();
        run("mount", ["-o", "remount,rw", shown.as_str()]);
        let failure = Failure::of(&error).unwrap();
        assert!(
            failure
                .what
                .ends_with(&format!("{shown}: the filesystem is mounted read-only"))
        );
        assert!(refused && failure.hint.is_some());

        // Seen by nobody: the device says which filesystem it is.
        drop(dir);
        run("umount", [shown.as_str()]);
        let unseen = top.shown(&top.path().join("a/b"));
        let bare = top.shown(top.path());
        let longer = top::plain(&format!("{}7/x", top.path().display()));
        let device = top.device.display().to_string();
        run("mount", [device.as_str(), shown.as_str()]);
        assert_eq!(unseen, format!("subvolid=5 of {device}: a/b"));
        assert_eq!(bare, format!("subvolid=5 of {device}"));
        assert_eq!(
            Path::new(&longer),
            Path::new(&format!("{}7/x", top.path().display()))
        );
    }
}
