//! What `zfs` and `zpool` print, in one place: tables of `-H -p`, sizes and tokens of `send -nvP`, and the sentences of errors.
//!
//! The sentences were looked up in the sources (cmd/zfs, cmd/zpool, lib/libzfs) of 2.1.0, 2.1.16, 2.2.0, 2.2.10, 2.3.0, 2.3.2 and
//! 2.3.9: all are in all of them but these two.
//!
//! | sentence | in |
//! |---|---|
//! | `it's being held` | 2.3.3 on, and packages of 2.3.2; before, a held snapshot is told as busy |
//! | `Resuming recv on existing dataset without force` | from 2.2; before, told as busy |
//!
//! Lines are broken within sentences, so they are joined before anything is looked for.
//!
//! Promise: pure; a line that cannot be understood is an error or no answer, never a guess. The programs run with `LC_ALL=C`.
//!
//! It deliberately does not know why anything was asked.

use anyhow::{Context, bail};

use crate::fs::Result;

/// What a refusal of the programs means to a caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    /// No such dataset, snapshot or pool.
    Missing,
    /// In use: mounted with somebody inside, being sent, held.
    Busy,
    /// Somebody holds it with `zfs hold`.
    Held,
    /// It has dependent clones.
    Clones,
    Exists,
    /// What is to be mounted is; what is to be unmounted is not.
    Mounted,
    NotMounted,
    NoSpace,
    /// The pool or the dataset cannot be written.
    ReadOnly,
    /// The permission is not delegated.
    Denied,
    /// What was to be received into was changed.
    Modified,
    /// The base of an incremental stream is not the newest snapshot there.
    Base,
    /// A receive was cut and can be resumed.
    Partial,
    /// The token is of no use (any more).
    Token,
    /// There is no token to abort.
    NoToken,
    /// The key is not loaded, or is wrong.
    Key,
    /// A device failed, or a checksum.
    Io,
    Other,
}

/// Sentences of the programs, each with what it means. The first that is found decides: the more telling stand first.
/// Sources: lib/libzfs/libzfs_{util,sendrecv,dataset,crypto}.c and cmd/zfs/zfs_main.c; strerror for what is capitalized.
const SENTENCES: [(&str, Trouble); 38] = [
    ("Partially received snapshot is saved", Trouble::Partial),
    (
        "contains partially-complete state from \"zfs receive -s\"",
        Trouble::Token,
    ),
    ("kernel modules must be upgraded", Trouble::Token),
    ("resume token is corrupt", Trouble::Token),
    ("cannot resume send", Trouble::Token),
    (
        "does not have any resumable receive state",
        Trouble::NoToken,
    ),
    ("since most recent snapshot", Trouble::Modified),
    ("has been modified", Trouble::Modified),
    ("does not match incremental source", Trouble::Base),
    ("not an earlier snapshot", Trouble::Base),
    // Of raw streams: what lies there is not what the sender built upon.
    ("IV set guid", Trouble::Base),
    ("incremental source", Trouble::Base),
    ("local origin for clone", Trouble::Base),
    ("has dependent clones", Trouble::Clones),
    ("it's being held", Trouble::Held),
    ("tag already exists", Trouble::Exists),
    ("no such tag", Trouble::Missing),
    ("out of space", Trouble::NoSpace),
    ("No space left on device", Trouble::NoSpace),
    ("quota exceeded", Trouble::NoSpace),
    ("pool is read-only", Trouble::ReadOnly),
    ("Read-only file system", Trouble::ReadOnly),
    ("Key load error", Trouble::Key),
    ("Incorrect key provided", Trouble::Key),
    ("key not loaded", Trouble::Key),
    ("inherited key must be loaded", Trouble::Key),
    ("permission denied", Trouble::Denied),
    ("Permission denied", Trouble::Denied),
    ("not currently mounted", Trouble::NotMounted),
    ("already mounted", Trouble::Mounted),
    ("bookmark exists", Trouble::Exists),
    ("already exists", Trouble::Exists),
    ("on existing dataset without force", Trouble::Exists),
    ("does not exist", Trouble::Missing),
    ("could not find any snapshots to destroy", Trouble::Missing),
    ("no such pool", Trouble::Missing),
    ("Input/output error", Trouble::Io),
    ("busy", Trouble::Busy),
];

/// What the text on standard error means.
pub fn trouble(said: &str) -> Trouble {
    let said = said.split_whitespace().collect::<Vec<_>>().join(" ");
    let found = SENTENCES.iter().find(|(words, _)| said.contains(words));
    let io = said.contains("I/O error").then_some(Trouble::Io);
    found
        .map(|(_, trouble)| *trouble)
        .or(io)
        .unwrap_or(Trouble::Other)
}

/// The rows of a `-H` table of `columns` columns.
pub fn rows(text: &str, columns: usize) -> Result<Vec<Vec<&str>>> {
    text.lines().map(|line| row(line, columns)).collect()
}

/// One of them.
pub fn row(line: &str, columns: usize) -> Result<Vec<&str>> {
    let cells: Vec<&str> = str::split(line, '\t').collect();
    if cells.len() != columns {
        bail!("{line:?} has {} columns, not {columns}", cells.len());
    }
    Ok(cells)
}

/// The version in a line of `zfs version`: `zfs-2.3.2-2` or `zfs-kmod-2.3.2-2`.
pub fn version(line: &str) -> Option<(u32, u32)> {
    let rest = line.strip_prefix("zfs-")?;
    let mut parts = rest.strip_prefix("kmod-").unwrap_or(rest).split('.');
    let mut number = || parts.next()?.parse().ok();
    Some((number()?, number()?))
}

/// A value of `-p`: none where it is `-`.
pub fn number(cell: &str) -> Result<Option<u64>> {
    if cell == "-" || cell.is_empty() {
        return Ok(None);
    }
    let parsed = cell.parse();
    Ok(Some(
        parsed.with_context(|| format!("{cell:?} is no number"))?,
    ))
}

/// A value that may be missing.
pub fn word(cell: &str) -> Option<String> {
    (cell != "-" && !cell.is_empty()).then(|| cell.to_owned())
}

/// The estimate of `zfs send -nvP`: its line `size<TAB>bytes`. None where there is none, or where it is a number that went
/// below zero (OpenZFS issue 12265 and 15956).
pub fn size(said: &str) -> Option<u64> {
    let size = |line: &str| {
        let (name, bytes) = line.split_once(['\t', ' '])?;
        (name == "size").then(|| bytes.trim().parse::<u64>().ok())?
    };
    let found = said.lines().rev().find_map(size)?;
    (found < 1 << 62).then_some(found)
}

/// What a resume token says, as `zfs send -nvP -t` spells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Token {
    /// Guid of the snapshot that is received.
    pub to: u64,
    /// Guid of its base; 0 for a full stream.
    pub from: u64,
    /// Stream bytes received.
    pub bytes: u64,
}

/// Reads the contents of a token: lines such as `\ttoguid = 0x8f1e...`, before whatever the program says next.
pub fn token(said: &str) -> Option<Token> {
    let field = |name: &str| {
        said.lines().find_map(|line| {
            let (key, value) = line.split_once('=')?;
            let value = value.trim().strip_prefix("0x")?;
            (key.trim() == name).then(|| u64::from_str_radix(value, 16).ok())?
        })
    };
    Some(Token {
        to: field("toguid")?,
        from: field("fromguid").unwrap_or(0),
        bytes: field("bytes").unwrap_or(0),
    })
}

/// The open transaction group in a pool's `txgs`; none where one before it is not written yet, or not in there, or nothing can be
/// understood. Lines of numbers: `txg birth state ...` after two of headings; O is open, C committed (module/zfs/spa_stats.c,
/// spa_txg_history_data). Groups are written in their order: the one before the open one tells of all.
pub fn settled_group(txgs: &str) -> Option<u64> {
    let (mut open, mut written) = (None, None::<u64>);
    for line in txgs.lines().skip(2).filter(|line| !line.trim().is_empty()) {
        let mut cells = line.split_ascii_whitespace();
        let (txg, _birth, state) = (cells.next()?, cells.next()?, cells.next()?);
        let txg: u64 = txg.parse().ok()?;
        match state {
            "C" => written = written.max(Some(txg)),
            "O" if open.is_none() => open = Some(txg),
            _ => return None,
        }
    }
    open.filter(|open| written.and_then(|written| written.checked_add(1)) == Some(*open))
}

/// Longest token taken from a peer, in bytes: a few hundred are usual.
pub const TOKEN_BYTES_MAX: usize = 4096;

/// Whether a word has the shape of a token (`1-` and hex in groups): only then it may be an argument of a program.
pub fn is_token(word: &str) -> bool {
    word.len() <= TOKEN_BYTES_MAX
        && word.starts_with(|c: char| c.is_ascii_digit())
        && word.chars().all(|c| c.is_ascii_hexdigit() || c == '-')
}

/// What a person is told: one line, without the program's own beginning.
pub fn sentence(said: &str) -> String {
    let lines = said.lines().map(str::trim).filter(|line| !line.is_empty());
    lines.take(4).collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests;
