//! Runs `zfs` and `zpool`.
//!
//! Promise: arguments go to the program as they are, no shell reads them; what it says comes back as an error whose meaning
//! [`trouble_of`] tells. Nothing is asked on a terminal: standard input is empty, so a command that wants a passphrase fails.
//!
//! A list is not made at one moment: what this process renames, promotes or destroys waits until nobody lists, or else snapshots
//! that change their dataset meanwhile would be in neither.
//!
//! It deliberately does not know what the words mean (`text` does).

use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Instant;

use anyhow::Context;

use super::text::{self, Trouble};
use crate::fs::Result;

/// Names stay as they are while somebody lists them.
static NAMES: RwLock<()> = RwLock::new(());

/// How many commands that may change something have begun or ended.
static CHANGES: AtomicU64 = AtomicU64::new(0);

/// Two equal counts: between them this process changed nothing by a command, and none was running.
pub fn changes() -> u64 {
    CHANGES.load(Ordering::SeqCst)
}

/// A command that may change something begins, or has ended.
pub fn changing() {
    CHANGES.fetch_add(1, Ordering::SeqCst);
}

fn only_looks(verb: Option<&str>) -> bool {
    matches!(verb, Some("list" | "get" | "holds" | "send" | "sync"))
}

/// What a command does to names, for as long as it runs.
#[expect(dead_code, reason = "held, never looked at")]
enum Names {
    Read(RwLockReadGuard<'static, ()>),
    Changed(RwLockWriteGuard<'static, ()>),
}

impl Names {
    fn of(verb: Option<&str>) -> Option<Names> {
        match verb? {
            "list" => Some(Names::Read(
                NAMES.read().unwrap_or_else(PoisonError::into_inner),
            )),
            "rename" | "promote" | "destroy" => Some(Names::Changed(
                NAMES.write().unwrap_or_else(PoisonError::into_inner),
            )),
            _ => None,
        }
    }
}

/// A command that failed.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{command}: {said}")]
pub struct Refused {
    /// `zfs receive`: the program and its verb.
    pub command: String,
    pub said: String,
    pub trouble: Trouble,
}

impl Refused {
    pub fn new(command: String, said: &str) -> Refused {
        Refused {
            command,
            trouble: text::trouble(said),
            said: match text::sentence(said) {
                nothing if nothing.is_empty() => "it failed and said nothing".to_owned(),
                said => said,
            },
        }
    }
}

/// What the refusal in an error means.
pub fn trouble_of(error: &anyhow::Error) -> Option<Trouble> {
    error
        .downcast_ref::<Refused>()
        .map(|refused| refused.trouble)
}

/// Runs `zfs` to its end; what it printed.
pub fn zfs<S: AsRef<str>>(arguments: &[S]) -> Result<String> {
    let (output, said, ok) = run("zfs", arguments)?;
    match ok {
        true => Ok(output),
        false => Err(refused("zfs", arguments, &said).into()),
    }
}

/// The same, and the output where it failed too.
pub fn zfs_told<S: AsRef<str>>(arguments: &[S]) -> Result<String> {
    let (output, said, _) = run("zfs", arguments)?;
    Ok(output + &said)
}

/// What it printed of those of several things that are there.
pub fn zfs_found<S: AsRef<str>>(arguments: &[S]) -> Result<String> {
    let (output, said, ok) = run("zfs", arguments)?;
    let mut lines = said.lines().filter(|line| !line.trim().is_empty());
    match ok || lines.all(|line| text::trouble(line) == Trouble::Missing) {
        true => Ok(output),
        false => Err(refused("zfs", arguments, &said).into()),
    }
}

pub fn zpool<S: AsRef<str>>(arguments: &[S]) -> Result<String> {
    let (output, said, ok) = run("zpool", arguments)?;
    match ok {
        true => Ok(output),
        false => Err(refused("zpool", arguments, &said).into()),
    }
}

/// None where what was asked for is not there.
pub fn if_any<T>(result: Result<T>) -> Result<Option<T>> {
    match result {
        Ok(found) => Ok(Some(found)),
        Err(error) if trouble_of(&error) == Some(Trouble::Missing) => Ok(None),
        Err(error) => Err(error),
    }
}

pub fn refused<S: AsRef<str>>(program: &str, arguments: &[S], said: &str) -> Refused {
    let verb = arguments.first().map_or("", |verb| verb.as_ref());
    Refused::new(format!("{program} {verb}"), said)
}

fn run<S: AsRef<str>>(program: &str, arguments: &[S]) -> Result<(String, String, bool)> {
    let verb = arguments.first().map(AsRef::as_ref);
    let _names = Names::of(verb);
    let begun = Instant::now();
    let mut command = command(program, arguments);
    command.stdin(Stdio::null());
    let output = match only_looks(verb) {
        true => command.output(),
        false => {
            changing();
            let output = command.output();
            changing();
            output
        }
    };
    let output = output.with_context(|| format!("run {program} (is it installed?)"))?;
    // Most of what a step takes on ZFS is these.
    tracing::debug!(
        ms = begun.elapsed().as_millis() as u64,
        status = output.status.code(),
        "{program} {}",
        words(arguments)
    );
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    let (said, ok) = (text(output.stderr), output.status.success());
    Ok((text(output.stdout), said, ok))
}

/// Starts `zfs` with pipes: for streams. Whoever waits for its end says so ([`changing`]).
pub fn start(arguments: &[String], stdin: Stdio, stdout: Stdio) -> Result<Child> {
    changing();
    command("zfs", arguments)
        .stdin(stdin)
        .stdout(stdout)
        .stderr(Stdio::piped())
        .spawn()
        .context("run zfs (is it installed?)")
}

fn words<S: AsRef<str>>(arguments: &[S]) -> String {
    let words: Vec<&str> = arguments.iter().map(AsRef::as_ref).collect();
    words.join(" ")
}

fn command<S: AsRef<str>>(program: &str, arguments: &[S]) -> Command {
    let mut command = Command::new(program);
    command
        .args(arguments.iter().map(AsRef::as_ref))
        .env("LC_ALL", "C");
    command
}
