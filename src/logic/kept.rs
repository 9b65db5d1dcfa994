//! What a node that stops playing a role calls the last of what it wrote.
//!
//! Promise: pure; what is kept never has the identity of a point that a peer holds. A disk that was set back to an older image has
//! given out numbers that it does not know, and what is live on it grew from an older point: under a term that goes on
//! elsewhere it would pass for the newest of that term, and a peer would be promoted from it. So it gets a term of its own,
//! of the same epoch and holder, which no line holds: it is a fork.
//!
//! It deliberately does not know what becomes of forks, nor how a nonce is drawn.

use super::claim::SEQUENCES_AHEAD_MAX;
use super::point::{PointId, Term};

/// Whether two terms are of one node's same turn, apart or not.
pub fn alike(one: &Term, other: &Term) -> bool {
    (one.epoch, &one.holder) == (other.epoch, &other.holder)
}

/// The term of what was written under `term`. `here`: all points of this node; `own`: the newest that it took itself; `said`: the
/// highest number of a point of the term that a peer said it holds, 0 for none; `nonce` was drawn for this call.
pub fn term<'a>(
    term: &Term,
    mut here: impl Iterator<Item = &'a PointId>,
    own: Option<&PointId>,
    said: u64,
    nonce: u64,
) -> Term {
    // An attempt before this one, which a crash ended, has begun.
    let begun = own.map(|own| &own.term);
    if let Some(begun) = begun.filter(|begun| alike(begun, term) && *begun != term) {
        return begun.clone();
    }
    if said == 0 || here.any(|point| point.term == *term && point.sequence >= said) {
        return term.clone();
    }
    Term {
        nonce,
        ..term.clone()
    }
}

/// The least number that it may have. `known`: the highest that was given out here, as far as is known; `said`: the highest that
/// a peer said it holds, of this turn. A peer's word counts as far as its offers would.
pub fn number(known: u64, said: u64) -> u64 {
    let believable = said.saturating_sub(known) <= SEQUENCES_AHEAD_MAX;
    (if believable { known.max(said) } else { known }) + 1
}

#[cfg(test)]
mod tests {
    use super::super::name::NodeName;
    use super::*;

    /// `3.7` of alder under its own nonce, `3'7` apart.
    fn point(word: &str) -> PointId {
        let (epoch, sequence) = word.split_once(['.', '\'']).unwrap();
        PointId {
            term: Term {
                epoch: epoch.parse().unwrap(),
                holder: NodeName::parse("alder").unwrap(),
                nonce: if word.contains('\'') { 5 } else { 1 },
            },
            sequence: sequence.parse().unwrap(),
        }
    }

    /// Points here, the newest own last; what a peer said; and the nonce under which what was written in term 3 is kept.
    fn check(here: &str, said: u64, nonce: u64) {
        let here: Vec<PointId> = here.split_whitespace().map(point).collect();
        let of = point("3.1").term;
        let kept = term(&of, here.iter(), here.last(), said, 9);
        assert_eq!(
            (kept.nonce, alike(&kept, &of)),
            (nonce, true),
            "{here:?} {said}"
        );
    }

    #[test]
    fn a_disk_that_was_set_back_keeps_apart() {
        check("", 0, 1);
        check("3.4", 4, 1);
        check("3.4 3.5", 4, 1);
        check("3.4", 6, 9);
        check("2.4", 6, 9);
        check("", 6, 9);
        // What an attempt before began with goes on, whatever is heard since.
        check("3.4 3'7", 6, 5);
        check("3.4 3'7", 0, 5);
    }

    #[test]
    fn numbers() {
        let check = |known, said, least| assert_eq!(number(known, said), least, "{known} {said}");
        check(0, 0, 1);
        check(5, 3, 6);
        check(5, 9, 10);
        check(5, u64::MAX, 6);
    }
}
