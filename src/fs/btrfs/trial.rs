//! The applier alone, on any directory: what fuzzing needs to try thousands of streams a second.
//!
//! None of the receiving around it: no subvolume, no checkpoint, no identity on disk, nothing synced. A crash leaves a
//! half-applied directory. Unlike a receive it goes on after a refused command, so that a stream gets deep however much of
//! it is refused: confinement must hold in that case too. Nothing but tests and fuzzing uses this.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;
use uuid::Uuid;

use super::apply::tree::Tree;
use super::apply::{Applier, Fault, outside};
use super::stream::{Parser, Piece};
use crate::fs::Result;
use crate::logic::accept::Accept;
use crate::logic::transfer::{FileFlags, StreamIdentity};

/// What became of the commands of a stream.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tried {
    pub applied: u64,
    pub refused: u64,
    /// Faults that no stream should be able to cause, in words.
    pub faults: Vec<String>,
}

/// One stream on its way into a directory.
#[derive(Debug)]
pub struct Trial {
    applier: Applier,
    parser: Parser,
    tried: Tried,
}

impl Trial {
    /// `sources` may be cloned from, by identity; `reserve` in bytes. Fails when the directory cannot be opened.
    pub fn new(
        dir: &Path,
        identity: &StreamIdentity,
        sources: impl IntoIterator<Item = (Uuid, PathBuf)>,
        flags: FileFlags,
        accept: Accept,
        reserve: u64,
    ) -> Result<Trial> {
        let outside = Arc::new(outside::Here(sources.into_iter().collect()));
        let tree = Tree::open(dir).with_context(|| format!("open {}", dir.display()))?;
        let applier = Applier::new(tree, identity, outside, flags, None, 0);
        let applier = applier.map_err(|fault| anyhow::anyhow!("{fault:?}"));
        Ok(Trial {
            applier: applier
                .context("open the directory")?
                .bounded(accept, reserve),
            parser: Parser::new(),
            tried: Tried::default(),
        })
    }

    /// Applies the next bytes. An error when they are no stream.
    pub fn feed(&mut self, mut bytes: &[u8]) -> Result<()> {
        while !bytes.is_empty() {
            let taken = self.parser.next(bytes)?;
            bytes = &bytes[taken.used..];
            let Some(Piece::Command(command)) = taken.step.map(|step| step.piece) else {
                continue;
            };
            match self.applier.apply(&command) {
                Ok(()) => self.tried.applied += 1,
                Err(Fault::Machine(what, error)) => {
                    self.tried.faults.push(format!("{what}: {error}"))
                }
                Err(_) => self.tried.refused += 1,
            }
        }
        Ok(())
    }

    /// Does what waits for the end, if `settle` says so, and tells what became of the stream.
    pub fn end(mut self, settle: bool) -> Tried {
        if settle {
            match self.applier.settle() {
                Err(Fault::Machine(what, error)) => {
                    self.tried.faults.push(format!("{what}: {error}"));
                }
                Err(_) => self.tried.refused += 1,
                Ok(_) => self.tried.applied += 1,
            }
        }
        self.tried
    }
}
