//! What a node that stops playing a role calls the last of what it wrote.
//!
//! Promise: a point that is kept here never has the identity of one that a peer holds. A disk that was set back to an older
//! image has given out numbers that it does not know, and what is live on it grew from an older point: under a term that
//! goes on elsewhere it would pass for the newest of that term, and a peer would be promoted from it. So it gets a term of
//! its own, of the same epoch and holder, which no line holds: it is a fork.
//!
//! It deliberately does not know what becomes of forks.

use anyhow::{Context, Result};

use super::heard;
use super::node::{Node, RoleRun};
use crate::logic::claim;
use crate::logic::manifest::Stored;
use crate::logic::point::Term;

/// The term of what was written under `term` and is kept now; `stored` is all that is here.
pub fn term(node: &Node, run: &RoleRun, stored: &[Stored], term: &Term) -> Result<Term> {
    if let Some(begun) = begun(stored, term) {
        return Ok(begun.clone());
    }
    if heard(node, run, |of| of == term)? <= newest_of(stored, term) {
        return Ok(term.clone());
    }
    let nonce = crate::host::random::number().context("draw a nonce for a term")?;
    Ok(Term {
        nonce,
        ..term.clone()
    })
}

/// The least number that what is kept may have.
pub fn number(node: &Node, run: &RoleRun, term: &Term) -> Result<u64> {
    let known = node.state.sequence(&run.name)?;
    let alike = |of: &Term| (of.epoch, &of.holder) == (term.epoch, &term.holder);
    let said = heard(node, run, alike)?;
    // A peer's word counts as far as its offers would.
    let believable = said.saturating_sub(known) <= claim::SEQUENCES_AHEAD_MAX;
    Ok(if believable { known.max(said) } else { known } + 1)
}

/// The highest number of a point of such a term that a peer said it holds, 0 for none.
fn heard(node: &Node, run: &RoleRun, is_of: impl Fn(&Term) -> bool) -> Result<u64> {
    let mut highest = 0;
    for peer in &run.role.peers {
        let newest = heard::last(node, run, peer)?.and_then(|heard| heard.word.newest);
        let newest = newest.filter(|newest| is_of(&newest.term));
        highest = highest.max(newest.map_or(0, |newest| newest.sequence));
    }
    Ok(highest)
}

/// What an attempt before this one began with, that a crash ended.
fn begun<'a>(stored: &'a [Stored], term: &Term) -> Option<&'a Term> {
    let newest = stored.iter().rfind(|stored| stored.local.from.is_none())?;
    let of = &newest.manifest.point.term;
    let same = (of.epoch, &of.holder) == (term.epoch, &term.holder);
    (same && of != term).then_some(of)
}

fn newest_of(stored: &[Stored], term: &Term) -> u64 {
    let of = |stored: &&Stored| stored.manifest.point.term == *term;
    let numbers = stored
        .iter()
        .filter(of)
        .map(|stored| stored.manifest.point.sequence);
    numbers.max().unwrap_or(0)
}
