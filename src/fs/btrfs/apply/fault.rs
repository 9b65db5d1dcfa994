//! What goes wrong with one command, before anybody says where in the stream it was.
//!
//! Promise: a refusal (the stream's fault), a full disk and a failing one stay apart: the first ends the stream for good,
//! the others may be gone at the next attempt.

use rustix::io::Errno;

/// Why a command was not applied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::fs::btrfs) enum Fault {
    /// The stream breaks a rule or does not fit what is there.
    Refused(String),
    /// The system refused on account of the stream: what it asked for, and the error.
    Denied(String, Errno),
    /// No space, or no quota.
    Full,
    /// It would take so many bytes, and so many are free above the reserve.
    Reserve { needed: u64, free: u64 },
    /// This machine failed: what it was doing, and the error.
    Machine(String, Errno),
    /// Of a file that waited to be made: the fault is of the command that began it.
    Earlier(Box<Fault>),
}

pub(in crate::fs::btrfs) type Applied<T> = Result<T, Fault>;

pub(in crate::fs::btrfs) fn refuse<T>(why: impl Into<String>) -> Applied<T> {
    Err(Fault::Refused(why.into()))
}

/// For people: bytes of a path as text, shortened.
pub(in crate::fs::btrfs) fn shown(path: &[u8]) -> String {
    let text = String::from_utf8_lossy(path);
    if text.chars().count() > 200 {
        let head: String = text.chars().take(200).collect();
        format!("{head:?}...")
    } else {
        format!("{text:?}")
    }
}

/// Sorts an error of the system by whose fault it is.
pub(in crate::fs::btrfs) trait Blame<T> {
    fn on(self, what: &str, path: &[u8]) -> Applied<T>;
}

impl<T> Blame<T> for rustix::io::Result<T> {
    fn on(self, what: &str, path: &[u8]) -> Applied<T> {
        self.map_err(|error| match error {
            Errno::NOSPC | Errno::DQUOT => Fault::Full,
            Errno::IO
            | Errno::ROFS
            | Errno::NOMEM
            | Errno::MFILE
            | Errno::NFILE
            | Errno::INTR
            | Errno::AGAIN
            | Errno::BADF
            | Errno::NOSYS
            | Errno::UCLEAN => Fault::Machine(format!("{what} {}", shown(path)), error),
            _ => Fault::Denied(format!("{what} {}", shown(path)), error),
        })
    }
}
