//! What is known of the points of a term, for the name of what a node keeps when it stops playing a role (`logic::kept`).
//!
//! Promise: a peer's word counts from when it is on disk: a fall that follows from it is recorded after it (see `words`), so a
//! crash in between forgets neither. It deliberately does not know what is decided.

use anyhow::{Context, Result};

use super::heard;
use super::node::{Node, RoleRun};
use crate::logic::kept;
use crate::logic::manifest::Stored;
use crate::logic::point::Term;

/// The term of what was written under `term` and is kept now. `stored` is all that is here, `own` the newest that was taken here.
pub fn term(
    node: &Node,
    run: &RoleRun,
    stored: &[Stored],
    own: Option<&Stored>,
    term: &Term,
) -> Result<Term> {
    let nonce = crate::host::random::number().context("draw a nonce for a term")?;
    let said = said(node, run, |of| of == term)?;
    let here = stored.iter().map(|stored| &stored.manifest.point);
    let own = own.map(|own| &own.manifest.point);
    Ok(kept::term(term, here, own, said, nonce))
}

/// The least number that what is kept may have.
pub fn number(node: &Node, run: &RoleRun, term: &Term) -> Result<u64> {
    let known = node.state.sequence(&run.name)?;
    let said = said(node, run, |of| kept::alike(of, term))?;
    Ok(kept::number(known, said))
}

/// The highest number of a point of such a term that a peer said it holds, 0 for none.
fn said(node: &Node, run: &RoleRun, is_of: impl Fn(&Term) -> bool) -> Result<u64> {
    let mut highest = 0;
    for peer in &run.role.peers {
        let newest = heard::last(node, run, peer)?.and_then(|heard| heard.word.newest);
        let newest = newest.filter(|newest| is_of(&newest.term));
        highest = highest.max(newest.map_or(0, |newest| newest.sequence));
    }
    Ok(highest)
}
