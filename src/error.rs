//! How a run ends: the published exit codes and the errors a person sees.
//!
//! Promise: every failure that leaves the program has a code from [`Code`], a sentence saying what failed on what,
//! and, where there is one, a hint saying what to do next. Scripts may rely on the codes (docs/exit-codes.md holds the
//! same table; tests/tidy.rs keeps the two equal). An unknown non-zero code means failure.
//!
//! It deliberately does not know which command was running, nor how errors are printed.

use std::fmt;

/// The published exit codes. The discriminant is the process exit status.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
#[repr(u8)]
pub enum Code {
    /// What was asked for is done.
    Done = 0,
    /// It failed and no other code says it better.
    Failed = 1,
    /// The command line or the configuration is wrong; nothing was touched.
    Usage = 2,
    /// Part of it was done: some roles, peers or datasets failed, the others are complete.
    Partial = 3,
    /// Two nodes hold histories that cannot follow one another.
    Diverged = 10,
    /// This node was fenced: another node holds a higher term.
    Fenced = 11,
    /// Another run is already doing this, or the peer is not done with what it did before.
    Locked = 12,
    /// A peer cannot be reached now; the next cycle tries again.
    Unreachable = 13,
    /// The daemon does not answer on its control socket.
    NoDaemon = 14,
    /// The other side, or a safety rule, refused.
    Refused = 15,
    /// A filesystem has too little space.
    NoSpace = 16,
    /// What was asked for does not exist (role, point, path, peer).
    NotFound = 17,
    /// Nodes differ in what is watched (`standin drift`).
    Differs = 18,
    /// Copies of a point are not equal, or cannot be read (`standin verify`).
    Unequal = 19,
    /// This node is not active in the role, so the command was not run (EX_TEMPFAIL of sysexits.h).
    NotActive = 75,
    /// Interrupted; finished parts are kept.
    Interrupted = 130,
}

impl Code {
    /// Every code, in the order of the published table.
    pub const ALL: [Code; 16] = [
        Code::Done,
        Code::Failed,
        Code::Usage,
        Code::Partial,
        Code::Diverged,
        Code::Fenced,
        Code::Locked,
        Code::Unreachable,
        Code::NoDaemon,
        Code::Refused,
        Code::NoSpace,
        Code::NotFound,
        Code::Differs,
        Code::Unequal,
        Code::NotActive,
        Code::Interrupted,
    ];

    /// The word used in JSON and in docs/exit-codes.md.
    pub fn word(self) -> &'static str {
        match self {
            Code::Done => "done",
            Code::Failed => "failed",
            Code::Usage => "usage",
            Code::Partial => "partial",
            Code::Diverged => "diverged",
            Code::Fenced => "fenced",
            Code::Locked => "locked",
            Code::Unreachable => "unreachable",
            Code::NoDaemon => "no-daemon",
            Code::Refused => "refused",
            Code::NoSpace => "no-space",
            Code::NotFound => "not-found",
            Code::Differs => "differs",
            Code::Unequal => "unequal",
            Code::NotActive => "not-active",
            Code::Interrupted => "interrupted",
        }
    }
}

/// A failure with a published code and, where possible, the next step. Attached to an `anyhow` chain
/// (`Failure::new(..).into()`, or as a context) and found again by [`Failure::of`].
#[derive(Debug, Clone)]
pub struct Failure {
    pub code: Code,
    /// What failed, on what: one sentence without a final stop.
    pub what: String,
    /// What to do next.
    pub hint: Option<String>,
}

impl Failure {
    pub fn new(code: Code, what: impl Into<String>) -> Failure {
        Failure {
            code,
            what: what.into(),
            hint: None,
        }
    }

    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Failure {
        self.hint = Some(hint.into());
        self
    }

    /// The outermost `Failure` in the chain, if any.
    pub fn of(error: &anyhow::Error) -> Option<&Failure> {
        error.downcast_ref::<Failure>()
    }

    /// The code of any error: that of its `Failure`, else [`Code::Failed`].
    pub fn code_of(error: &anyhow::Error) -> Code {
        Failure::of(error).map_or(Code::Failed, |f| f.code)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

impl std::error::Error for Failure {}
